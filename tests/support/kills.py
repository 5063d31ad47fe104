"""Kills real runs until they are done: the harness behind test_faults.py and soak.py.

A scene is a lake that is built by `vidproc index` in processes of its own while somebody is killed with
SIGKILL, by dice whose seed is printed. After each death of the run the same command is given again,
until it exits with 0; then the tables must equal those of an undisturbed run, row for row.

    driver    the run itself, from outside, at a moment that depends on what lies in the lake
    effect    the run itself, from inside: before, within or after its n-th side effect on the lake
    decode, infer, publish    a Ray worker which does that just now, the driver lives on
    node      a Ray node with all that runs there, of a cluster of three; another takes its place
    server    SeaweedFS, and it is started again

Inline runs are forked from one process that has imported everything: imports are most of what a run
over a tiny archive costs, and it is deaths that count here.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from tests.support.nodes import TOKEN, Nodes
from vidproc.settings import Job, load_job
from vidproc.storage import StorageOptions, open_storage

REPOSITORY = Path(__file__).parents[2]
KILLS_A_LAKE = 8
"""Then the lake may be finished: what a run did before its death is not done again, so each lake is good
for a few deaths only."""
RUN_LIMIT_S = 600.0
"""One run of one command; far beyond what it takes on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    victims: tuple[str, ...]
    kills: int
    executor: str = "inline"
    on_s3: bool = False

    def __str__(self) -> str:
        return f"{self.executor}-{'s3' if self.on_s3 else 'local'}-{'+'.join(self.victims)}"


@dataclass
class Harness:
    """`place(name, on_s3)` gives an empty place for a lake; `archives` has the archive's URI by `on_s3`;
    `tables(lake)` all rows that may not differ from an undisturbed run; `server` is SeaweedFS."""

    seed: int
    archives: dict[bool, str]
    place: Callable[[str, bool], str]
    tables: Callable[[str], dict[str, list[dict[str, Any]]]]
    server: Any = None
    deaths: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    _expected: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        print(f"seed = {self.seed}", flush=True)

    @cached_property
    def folder(self) -> Path:
        """Short enough for Ray's sockets."""
        return Path(tempfile.mkdtemp(prefix="vk-", dir="/tmp"))

    @cached_property
    def nodes(self) -> Nodes:
        return Nodes(str(self.folder))

    @cached_property
    def nursery(self) -> Nursery:
        return Nursery(os.environ | {"TMPDIR": str(self.folder), "OMP_NUM_THREADS": "1"})

    def close(self) -> None:
        """Ends what killed drivers left running, and only that: our folder is on their command line."""
        for name in {"nursery", "nodes"} & self.__dict__.keys():
            self.__dict__[name].close()
        for pid in self.processes_of_ray():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes_of_ray(self) -> dict[int, str]:
        """What our runs started."""
        place = f"{self.folder}/vidproc-ray-"
        return {pid: command for pid, command in processes() if place in command}

    def perform(self, scene: Scene) -> Counter[str]:
        """Lakes are built, each under a few kills, until the scene had its number of them -> kills by victim."""
        before, due = self.deaths.copy(), scene.kills
        while due > 0:
            due -= self._one_lake(scene, min(due, KILLS_A_LAKE))
        return self.deaths - before

    def _one_lake(self, scene: Scene, most: int) -> int:
        archive = self.archives[scene.on_s3]
        lake = self.place(f"{scene}-{self.runs}", scene.on_s3)
        job = self._job(archive, lake, scene.executor, self.nodes.address if "node" in scene.victims else None)
        killed = 0
        for _ in range(10 * KILLS_A_LAKE):
            killed += self._one_run(scene, job, lake, most - killed)
            if self._ended == 0:
                break
            # It may notice that the server is gone, or that this machine is too busy for Ray. Anything else
            # but its own death is a mistake of ours.
            noticed = "server" in scene.victims or "Ray could not be started" in self._said
            assert self._ended == -signal.SIGKILL or (noticed and self._ended == 1), f"{self._ended}: {self._said}"
            assert "Traceback" not in self._said, self._said
        else:
            raise AssertionError(f"{lake} does not get done: {self._said}")
        if archive not in self._expected:
            self._expected[archive] = self._undisturbed(archive)
        differing = differences(self.tables(lake), self._expected[archive])
        assert not differing, f"{scene}: the rows of {lake} differ (seed {self.seed}): {differing}"
        left = [o.key for o in open_storage(lake).list("_staging/")]
        assert left == [], f"{scene}: staged parts are left of videos that are published: {left[:5]}"
        return killed

    def _undisturbed(self, archive: str) -> dict[str, list[dict[str, Any]]]:
        from vidproc.run.driver import index

        lake = self.place("undisturbed", archive.startswith("s3://"))
        assert index(load_job(self._job(archive, lake, "inline"))).exit_code == 0
        return self.tables(lake)

    def _job(self, archive: str, lake: str, executor: str, address: str | None = None) -> Path:
        settings: dict[str, Any] = {
            "archive": archive,
            "lake": lake,
            "detector": "tests.support.fakes:Slow",
            "actions": "tests.support.fakes:Order",
            "cut": {"clip_seconds": 0.5, "clips_per_task": 1},
            # A worker that is killed from outside is a strike against its task; here nobody is guilty.
            "limits": {"max_failures": "0", "attempts": 100, "memory_bytes": 1 << 30},
            "execution": {"executor": executor, "device": "cpu", "publish_videos": 3, "workers": 2, "actors": 2},
        }
        if address is not None:
            settings["execution"]["address"] = address
        path = self.folder / f"job-{self.runs}.json"  # JSON is YAML
        path.write_text(json.dumps(Job.model_validate(settings).model_dump(mode="json")))
        return path

    # One run and its death ------------------------------------------------------------------------

    def _one_run(self, scene: Scene, job: Path, lake: str, most: int) -> int:
        self.runs += 1
        victim = self.dice.choice(scene.victims)
        death = None
        if victim == "effect" and most:
            death = self.dice.choice(("before", "within", "after")), self.dice.randint(1, 40)
        log = self.folder / f"run-{self.runs}.log"
        arguments = ["index", "--job", str(job), "--quiet"]
        run = self.nursery.start(arguments, log, death) if scene.executor == "inline" else self.spawn(arguments, log)
        killed = 0
        try:
            if victim == "driver" and most:
                killed = self._kill_driver(run, lake)
            elif victim == "server":
                killed = self._kill_server(run, lake, most)
            elif victim == "node":
                killed = self._kill_nodes(run, lake, most)
            elif victim != "effect":
                killed = self._kill_workers(run, scene.victims, most)
            run.wait(RUN_LIMIT_S)
        finally:
            run.kill()
            run.wait(RUN_LIMIT_S)
        self._ended, self._said = run.returncode, log.read_text("utf-8", "replace")[-3000:]
        if victim == "effect":
            killed = int(self._ended == -signal.SIGKILL)
            self.deaths["effect"] += killed
        return killed

    def spawn(self, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "vidproc", *arguments],
                cwd=REPOSITORY,
                env=os.environ | TOKEN | {"TMPDIR": str(self.folder), "OMP_NUM_THREADS": "1"},
                stdout=out,
                stderr=out,
            )

    def _kill_driver(self, run: Run, lake: str) -> int:
        kind = self.dice.choice(list(SIGNS))
        await_signs(run, lake, SIGNS[kind], self.dice.randint(1, 6))
        time.sleep(self.dice.uniform(0.0, 0.05 if kind != "begun" else 1.0))
        if run.poll() is not None:
            return 0
        run.kill()
        self.deaths["driver"] += 1
        return int(run.wait(RUN_LIMIT_S) == -signal.SIGKILL)

    def _kill_server(self, run: Run, lake: str, most: int) -> int:
        def kill() -> None:
            self.server.kill()
            time.sleep(self.dice.uniform(0.0, 1.0))
            self.server.start()

        return self._kill_beside(run, lake, most, "server", kill)

    def _kill_nodes(self, run: Run, lake: str, most: int) -> int:
        def kill() -> None:
            self.nodes.kill_one()
            self.nodes.add_one()

        return self._kill_beside(run, lake, most, "node", kill)

    def _kill_beside(self, run: Run, lake: str, most: int, victim: str, kill: Callable[[], None]) -> int:
        """What the run needs is killed at its signs, and there again."""
        killed = 0
        while killed < most:
            kind = self.dice.choice(list(SIGNS))
            await_signs(run, lake, SIGNS[kind], self.dice.randint(1, 6))
            if run.poll() is not None:
                break
            kill()
            self.deaths[victim] += 1
            killed += 1
        return killed

    def _kill_workers(self, run: Run, kinds: tuple[str, ...], most: int) -> int:
        killed = 0
        while killed < most and run.poll() is None:
            kind = self.dice.choice(kinds)
            time.sleep(self.dice.uniform(0.0, 1.0))
            deadline = time.monotonic() + 20
            while run.poll() is None and time.monotonic() < deadline:
                found = [pid for pid, command in below(run.pid) if re.match(TITLES[kind], command)]
                if found:
                    time.sleep(self.dice.uniform(0.0, 0.1))
                    with suppress(ProcessLookupError):
                        os.kill(self.dice.choice(found), signal.SIGKILL)
                        self.deaths[kind] += 1
                        killed += 1
                    break
                time.sleep(0.01)
        return killed


def differences(found: dict[str, list[dict[str, Any]]], expected: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """By table: how many rows are too many and too few, and the first of each."""
    told = {}
    for name in expected:
        have, want = (Counter(str(r) for r in rows[name]) for rows in (found, expected))
        if have != want:
            more, less = have - want, want - have
            told[name] = more.total(), less.total(), next(iter(more), None), next(iter(less), None)
    return told


# Moments --------------------------------------------------------------------------------------------

SIGNS = {
    "begun": r"runs/_delta_log/\d+\.json",
    "part": r"_staging/.*\.parquet",
    "checkpoint": r"_staging/.*/report\.json",
    "rows": r"_changes/[0-9a-f]{32}/",
    "intent": r"_changes/\d+\.json",
    "commit": r"(detections|tracks|actions|segments|failures|videos)/_delta_log/\d+\.json",
}
"""Objects in the lake that tell how far a run is."""

TITLES = {"decode": r"ray::decode", "infer": r"ray::_ActorBody", "publish": r"ray::publish", "probe": r"ray::probe"}
"""What Ray calls a worker process while it runs that step."""


def await_signs(run: Run, lake: str, sign: str, number: int) -> None:
    """Until so many new objects with such a name were there, or the run has ended."""
    known = set(_matching(lake, sign))
    seen: set[str] = set()
    while run.poll() is None and len(seen) < number:
        seen.update(_matching(lake, sign) - known)
        time.sleep(0.01 if not lake.startswith("s3://") else 0.05)


def _matching(lake: str, sign: str) -> set[str]:
    if not lake.startswith("s3://") and not os.path.isdir(lake):
        return set()
    return {o.key for o in open_storage(lake, options=StorageOptions()).list() if re.match(sign, o.key)}


def processes() -> Iterator[tuple[int, str]]:
    """(pid, command line or title) of every process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                yield (
                    int(folder.name),
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"),
                )


def below(pid: int) -> list[tuple[int, str]]:
    """The same, of the processes below `pid` alone."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                # "pid (any name) state parent ..."
                parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(folder.name))
    ours, waiting = set(), [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            ours.add(child)
            waiting.append(child)
    return [(p, command) for p, command in processes() if p in ours]


# Runs that are born with everything imported ------------------------------------------------------------


class Run(Protocol):
    """As subprocess.Popen has it."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...

    def kill(self) -> None: ...


class Nursery:
    """A process of its own (`python -m tests.support.kills`) that forks runs of `vidproc`: a test's own process
    has threads, which a fork does not survive."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.kills"],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, arguments: Sequence[str], log: Path, death: tuple[str, int] | None) -> Run:
        """`vidproc *arguments`; with `death` it kills itself before, within or after its n-th side effect."""
        return _Born(self, self.ask({"arguments": [*arguments], "log": str(log), "death": death}))

    def close(self) -> None:
        self._process.communicate()


@dataclass
class _Born:
    nursery: Nursery
    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.nursery.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("vidproc", timeout)
            time.sleep(0.01)
        return code

    def kill(self) -> None:
        if self.poll() is None:  # its number is kept for it until it was asked about
            os.kill(self.pid, signal.SIGKILL)


def _serve() -> dict[str, Any] | None:
    """Forks runs as it is told; comes back with None at the end, and with what to do in each of them."""
    for line in sys.stdin:
        question = json.loads(line)
        if "poll" in question:
            ended, status = os.waitpid(question["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        elif (answer := os.fork()) == 0:
            return dict(question)
        print(json.dumps(answer), flush=True)
    return None


def _live(question: dict[str, Any]) -> None:
    out = os.open(question["log"], os.O_WRONLY | os.O_CREAT)
    for number in (1, 2):
        os.dup2(out, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if question["death"]:
        _die_at(*question["death"])
    sys.argv = ["vidproc", *question["arguments"]]
    code: Any = 1
    try:
        main()
    except SystemExit as end:
        code = end.code
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)  # libraries would wait for threads that the fork left behind


# A run that kills itself --------------------------------------------------------------------------------


def _die_at(when: str, number: int) -> None:
    import deltalake

    from vidproc.storage import LocalStorage, S3Storage

    count = 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == number and when == "before":
                die()
            if count == number and when == "within":
                threading.Timer(random.uniform(0.0, 0.01), die).start()
            answer = function(*arguments, **named)
            if count == number and when == "after":
                die()
            return answer

        return call

    for storage in (LocalStorage, S3Storage):
        for name in ("put", "delete"):
            setattr(storage, name, counted(getattr(storage, name)))
    deltalake.write_deltalake = counted(deltalake.write_deltalake)


if __name__ == "__main__":
    # Imported, not used: threads would not be there after a fork.
    import boto3  # noqa: F401
    import supervision  # noqa: F401
    import trackers  # noqa: F401

    import tests.support.fakes  # noqa: F401
    import vidproc.ask
    import vidproc.run.driver  # noqa: F401
    from vidproc.cli import main

    if (todo := _serve()) is not None:
        _live(todo)
