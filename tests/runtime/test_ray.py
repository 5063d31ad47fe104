"""What only Ray has: workers that die, pools that grow, and a cluster that comes and goes."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.faults import FaultTable, Faulty, ListFeed, strike, units
from vidproc.errors import ConfigError, RunAborted
from vidproc.media import FrameBatch, Geometry
from vidproc.runtime.events import AttemptFailed, Event, PoolChanged, SetupFailed
from vidproc.runtime.executor import Limits, PoolSize
from vidproc.runtime.ray.actors import MAX_BAD_SETUPS
from vidproc.runtime.ray.cluster import find as _find
from vidproc.runtime.ray.executor import RayExecutor
from vidproc.runtime.ray.own_ray import own_folder
from vidproc.runtime.ray.sizing import Room, share
from vidproc.runtime.step import AnyStep, Resources
from vidproc.runtime.units import Unit, UnitEnd
from vidproc.runtime.worker import held

ONE_ACTOR = {"infer": PoolSize(1, 1)}
TWO_STRIKES = Limits(strikes=2, first_wait_s=0.01, max_quarantined_share=1.0, pools=ONE_ACTOR)
SMALL = Resources(cpus=1, memory_bytes=256 << 20, time_limit_s=5.0)


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[RayExecutor]:
    executor = RayExecutor("local", num_workers=3)
    executor.start({})
    yield executor
    executor.close()


def run(
    table: FaultTable, n: int, limits: Limits, **options: Any
) -> tuple[dict[str, UnitEnd], list[AttemptFailed], list[Event]]:
    heard: list[Event] = []
    steps = [Faulty("decode", table, needs=SMALL), Faulty("infer", table, stateful=True, needs=SMALL, **options)]
    ends = list(RayExecutor("local").run(ListFeed(units(n)), {"task": steps}, limits, [heard.append]))
    assert len(ends) == n
    return {e.unit.id: e for e in ends}, [e for e in heard if isinstance(e, AttemptFailed)], heard


def answers_that_a_death_may_have_swallowed(table: FaultTable, step: str) -> Counter[str]:
    """How often an attempt at `step:unit` ended and the next attempt of the same actor, the only one, killed it."""
    ends_by_itself = {"ok", "bloat"}
    return Counter(
        f"{step}:{unit}"
        for (unit, fault), (_, after) in itertools.pairwise(table.order(step))
        if fault in ends_by_itself and after not in ends_by_itself
    )


def test_exactly_the_poison_is_quarantined_and_nothing_else_is_run_twice(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One exception, which costs nobody an attempt: where a call of an actor ends and the next kills the process, Ray
    may lose the answer of the first, and its unit runs again."""
    poison = {
        "decode:t1": ("segfault", "crash"),
        "decode:t2": ("exit", "crash"),
        "decode:t3": ("hang", "timeout"),
        "decode:t4": ("hang_c", "timeout"),
        "decode:t5": ("bloat", "memory"),
        "decode:t6": ("kill", "crash"),
        "infer:t9": ("segfault", "crash"),
        "infer:t10": ("hang_c", "timeout"),
        "infer:t11": ("bloat", "memory"),
        "infer:t12": ("exit", "crash"),
    }
    passing = {"decode:t7": ["kill"], "infer:t13": ["segfault"]}
    table = FaultTable({**{cue: [fault] * 9 for cue, (fault, _) in poison.items()}, **passing}, tmp_path)
    ends, failed, _ = run(table, 24, TWO_STRIKES)

    lost = {f"{e.failure.stage}:{unit}": e.failure.error_class for unit, e in ends.items() if e.failure}
    assert lost == {cue: error_class for cue, (_, error_class) in poison.items()}
    assert {f"{e.fault.stage}:{e.unit.id}" for e in failed} == {*poison, *passing}
    expected = {f"{step}:t{i}": 1 for i in range(24) for step in ("decode", "infer")}
    expected |= dict.fromkeys((*poison, *passing), 2)
    expected = {c: n for c, n in expected.items() if c.replace("infer", "decode") not in poison or "infer" not in c}
    lost_answers = answers_that_a_death_may_have_swallowed(table, "infer")
    again = Counter(table.attempts()) - Counter(expected)
    assert table.attempts().keys() == expected.keys()
    assert Counter(table.attempts()) - again == expected
    assert all(n <= lost_answers[cue] for cue, n in again.items()), (again, lost_answers)
    assert capfd.readouterr().out == "", "standard output belongs to the answer of a command"


def test_a_call_that_had_ended_is_not_blamed_for_the_death_of_the_next(tmp_path: Path) -> None:
    deadly = [f"t{i}" for i in range(1, 12, 2)]  # each right behind a unit that ends at once
    table = FaultTable({unit: ["kill"] for unit in deadly}, tmp_path)
    heard: list[Event] = []
    steps = [Faulty("infer", table, stateful=True, needs=SMALL)]
    ends = list(RayExecutor("local").run(ListFeed(units(12)), {"task": steps}, TWO_STRIKES, [heard.append]))
    assert not any(e.failure for e in ends)
    assert sorted(e.unit.id for e in heard if isinstance(e, AttemptFailed)) == sorted(deadly)


def test_a_death_says_how_and_where(tmp_path: Path) -> None:
    table = FaultTable(
        {"decode:t0": ["segfault"], "decode:t1": ["hang_c"], "decode:t2": ["kill"], "infer:t3": ["hang"]}, tmp_path
    )
    ends, failed, _ = run(table, 5, TWO_STRIKES)
    assert not any(e.failure for e in ends.values())
    said = {e.unit.id: e for e in failed}
    assert all(e.blamed and e.fault.host for e in failed)
    assert said["t0"].fault.error == "the worker process died in 'decode': Segmentation fault"
    assert said["t1"].fault.error == "'decode' did not end within its 5 s, and its worker was ended"
    assert said["t2"].fault.error.startswith("the worker process died in 'decode' without a word")
    assert said["t3"].fault.error == "'infer' did not end within its 5 s, and its worker was ended"
    for unit in ("t0", "t1", "t3"):
        assert "faults.py" in (said[unit].fault.traceback or ""), "the stack of the dead worker"


def test_a_crash_in_a_batch_is_blamed_on_the_one_unit(tmp_path: Path) -> None:
    table = FaultTable({"decode:t3": ["segfault"] * 9, "infer:t11": ["segfault"] * 9}, tmp_path)
    limits = Limits(strikes=2, max_quarantined_share=1.0, pools=ONE_ACTOR, batch={"decode": 8, "infer": 4})
    ends, failed, _ = run(table, 24, limits)
    assert {unit for unit, e in ends.items() if e.failure} == {"t3", "t11"}
    assert {e.unit.id for e in failed} == {"t3", "t11"} and len(failed) == 4


def test_a_worker_that_dies_in_setup_stops_the_run_in_the_end(tmp_path: Path) -> None:
    heard: list[Event] = []
    steps = [Faulty("infer", FaultTable({}, tmp_path), stateful=True, setup_fault="segfault")]
    with pytest.raises(RunAborted, match=r"'infer'.*died while setting up"):
        list(RayExecutor("local").run(ListFeed(units(3)), {"task": steps}, TWO_STRIKES, [heard.append]))
    assert [e.in_a_row for e in heard if isinstance(e, SetupFailed)] == [*range(1, MAX_BAD_SETUPS + 1)]


def test_a_pool_grows_with_the_work_up_to_its_maximum(tmp_path: Path) -> None:
    limits = Limits(pools={"infer": PoolSize(1, 2)})
    _, _, heard = run(FaultTable({}, tmp_path), 12, limits, seconds=0.2)
    assert max(e.ready for e in heard if isinstance(e, PoolChanged)) == 2
    assert max(e.ready + e.starting for e in heard if isinstance(e, PoolChanged)) == 2


def test_a_pool_keeps_its_minimum_with_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidproc.runtime.ray.timing.IDLE_S", 0.0)
    ready = {}
    for least in (1, 2):
        limits = Limits(max_units=1, pools={"infer": PoolSize(least, 2)})  # one unit at a time: work for one actor
        _, _, heard = run(FaultTable({}, tmp_path), 8, limits, seconds=0.3)
        ready[least] = [e.ready for e in heard if isinstance(e, PoolChanged)]
    assert max(ready[1]) == 1
    assert max(ready[2]) == 2 and ready[2] == sorted(ready[2]), "none is let go"


class Stamp:
    name = "decode"
    needs = SMALL
    stateful = False

    def setup(self) -> None:
        pass

    def __call__(self, item: Any) -> tuple[float, float]:
        began = time.monotonic()
        time.sleep(0.1)
        return began, time.monotonic()


def test_no_more_calls_at_once_than_asked_for() -> None:
    ends = RayExecutor("local").run(ListFeed(units(6)), {"task": [Stamp()]}, Limits(at_once={"decode": 1}))
    stamps = sorted(end.result for end in ends)
    assert all(after[0] >= before[1] for before, after in itertools.pairwise(stamps))


class Pass:
    name = "infer"
    needs = SMALL
    stateful = True

    def setup(self) -> None:
        pass

    def __call__(self, item: Any) -> Any:
        return item


class Leaky:
    """Keeps 48 MB of each call, and says what its process held before."""

    name = "decode"
    needs = replace(SMALL, memory_limit_bytes=256 << 20)
    stateful = False
    kept: ClassVar[list[bytes]] = []

    def setup(self) -> None:
        pass

    def __call__(self, item: Any) -> tuple[int, int]:
        before = held()
        self.kept.append(os.urandom(48 << 20))
        return os.getpid(), before


@pytest.mark.parametrize("steps", [[Leaky()], [Leaky(), Pass()]], ids=["its answer", "its output in the store"])
def test_what_leaks_a_little_at_each_call_is_never_blamed_and_never_grows_large(steps: list[AnyStep]) -> None:
    heard: list[Event] = []
    limits = replace(TWO_STRIKES, max_units=1)
    ends = list(RayExecutor("local").run(ListFeed(units(16)), {"task": steps}, limits, [heard.append]))
    assert not [e for e in heard if isinstance(e, AttemptFailed)] and not any(e.failure for e in ends)
    by_process: dict[int, list[int]] = {}
    for end in ends:
        by_process.setdefault(end.result[0], []).append(end.result[1])
    assert len(by_process) > 2
    # 128 MB is half of the limit: three calls leave more, and the next is the last.
    assert max(len(sizes) for sizes in by_process.values()) <= 4
    assert max(max(sizes) - min(sizes) for sizes in by_process.values()) < 200 << 20


def test_a_large_block_goes_back_to_the_system_whatever_lies_behind_it() -> None:
    code = """
import numpy as np
from vidproc.memory import LARGE_BYTES, stay_small
from vidproc.runtime.worker import held
stay_small()
np.ones(16 << 20, np.uint8)  # by which glibc would learn to keep such blocks
large = np.ones(2 * LARGE_BYTES, np.uint8)
behind = [bytes(100_000) for _ in range(20)]
before = held()
del large
print((before - held()) // LARGE_BYTES)
"""
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"2\n"


@dataclass
class Out:
    """Says in which process it ran; the first attempt at t3 runs out of memory, and notes where."""

    folder: Path
    stateful: bool
    name: str = "infer"
    needs: Resources = SMALL

    def setup(self) -> None:
        pass

    def __call__(self, item: list[str]) -> int:
        if item == ["t3"] and not list(self.folder.iterdir()):
            (self.folder / str(os.getpid())).touch()
            strike("bloat")
        return os.getpid()


@pytest.mark.parametrize("stateful", [False, True], ids=["task", "actor"])
def test_a_worker_that_ran_out_of_memory_reports_it_and_ends(stateful: bool, tmp_path: Path) -> None:
    heard: list[Event] = []
    limits = replace(TWO_STRIKES, max_units=1)
    ends = list(
        RayExecutor("local").run(ListFeed(units(9)), {"task": [Out(tmp_path, stateful)]}, limits, [heard.append])
    )
    (failed,) = [e for e in heard if isinstance(e, AttemptFailed)]
    assert failed.unit.id == "t3" and failed.fault.kind == "memory" and "MemoryError" in failed.fault.error
    (ended,) = (int(p.name) for p in tmp_path.iterdir())
    assert ended not in [e.result for e in ends if e.unit.id in {"t3", "t4", "t5", "t6", "t7", "t8"}]
    deadline = time.monotonic() + 60
    while Path(f"/proc/{ended}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{ended}").exists()


class MakeFrames:
    name = "decode"
    needs = Resources()
    stateful = False

    def setup(self) -> None:
        pass

    def __call__(self, n: int) -> tuple[FrameBatch, ...]:
        k = np.arange(n)
        pixels = np.full((n, 360, 640, 3), 7, np.uint8)
        return (FrameBatch(pixels, k, k / 2.0, k, Geometry(640, 360), n, True),)


class LookAtFrames:
    name = "infer"
    needs = Resources()
    stateful = True

    def setup(self) -> None:
        pass

    def __call__(self, batches: tuple[FrameBatch, ...]) -> dict[str, Any]:
        pixels = batches[0].pixels
        owner = pixels
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        with open("/proc/self/maps") as f:
            spans = [(line.split()[0].split("-"), line) for line in f]
        address = pixels.ctypes.data
        inside = next(line for (low, high), line in spans if int(low, 16) <= address < int(high, 16))
        return {"writeable": pixels.flags.writeable, "map": inside, "sum": int(pixels.sum())}


def test_frames_are_read_in_shared_memory_without_a_copy() -> None:
    feed = ListFeed([Unit("u", 40, "task")])
    (end,) = RayExecutor("local").run(feed, {"task": [MakeFrames(), LookAtFrames()]}, Limits(pools=ONE_ACTOR))
    assert end.result["sum"] == 7 * 40 * 360 * 640 * 3
    assert end.result["writeable"] is False
    assert "plasma" in end.result["map"] or "/dev/shm" in end.result["map"], end.result["map"]


def test_two_steps_of_one_name_are_refused(tmp_path: Path) -> None:
    table = FaultTable({}, tmp_path)
    with pytest.raises(ConfigError, match="two different steps are named 'decode'"):
        next(RayExecutor("local").run(ListFeed(units(1)), {"task": [Faulty("decode", table), Faulty("decode", table)]}))


# ---- Workers that do not keep their own time limits --------------------------------------------------

QUICK = replace(SMALL, time_limit_s=3.0)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidproc.runtime.ray.timing.GRACE_S", 2.0)


@pytest.mark.usefixtures("short_grace")
def test_a_stopped_worker_costs_its_unit_an_attempt_and_not_the_run(tmp_path: Path) -> None:
    """Its watchdog is stopped with it. Tasks, batches of tasks and actors alike."""
    poison = {"probe:t1": ["stop"] * 9, "decode:t2": ["stop"] * 9, "infer:t3": ["stop"] * 9}
    table = FaultTable({**poison, "decode:t4": ["stop"], "infer:t5": ["stop"], "probe:t6": ["stop"]}, tmp_path)
    heard: list[Event] = []
    steps = [Faulty(name, table, name == "infer", needs=QUICK) for name in ("probe", "decode", "infer")]
    limits = replace(TWO_STRIKES, batch={"probe": 4})
    began = time.monotonic()
    ends = list(RayExecutor("local").run(ListFeed(units(12)), {"task": steps}, limits, [heard.append]))
    assert {e.unit.id: e.failure.error_class for e in ends if e.failure} == dict.fromkeys(("t1", "t2", "t3"), "timeout")
    assert len(ends) == 12 and time.monotonic() - began < 240
    failed = [e for e in heard if isinstance(e, AttemptFailed)]
    assert {(e.fault.stage, e.unit.id) for e in failed if e.blamed} == {
        ("probe", "t1"), ("decode", "t2"), ("infer", "t3"), ("decode", "t4"), ("infer", "t5"),
    }  # fmt: skip
    told = [(e.unit.id, e.fault.error, e.fault.host) for e in failed if e.blamed]
    # Where the machine is busy, Ray may find a worker dead before the driver has said why it killed it.
    assert any("within its 3 s" in error and host for _, error, host in told) and all(e for _, e, _ in told), told
    assert workers("T") == []


def workers(state: str = "") -> list[int]:
    """Worker processes of the Ray below this process; with `state` those in it (T: stopped)."""
    import psutil  # comes with ray

    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            name = "".join(process.cmdline()[:1])
            if name.startswith("ray::") and "Agent" not in name:
                stat = Path(f"/proc/{process.pid}/stat").read_text()
                if stat.rpartition(")")[2].split()[0].startswith(state):
                    found.append(process.pid)
    return found


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("stateful", [False, True], ids=["task", "actor"])
def test_a_worker_that_was_stopped_between_two_calls_does_not_hold_up_the_run(stateful: bool, tmp_path: Path) -> None:
    """Ray hands it the next call all the same, and that call never begins."""
    heard: list[Event] = []
    step = Faulty("infer" if stateful else "decode", FaultTable({}, tmp_path), stateful, needs=QUICK)
    limits = replace(TWO_STRIKES, max_units=1)
    ended = 0
    for end in RayExecutor("local").run(ListFeed(units(3)), {"task": [step]}, limits, [heard.append]):
        assert not end.failure
        ended += 1
        if ended == 1:
            for pid in workers():
                os.kill(pid, signal.SIGSTOP)
    for pid in workers("T"):  # those that nothing was handed to
        os.kill(pid, signal.SIGKILL)
    assert ended == 3 and not [e for e in heard if isinstance(e, AttemptFailed) and e.blamed], "nobody is to blame"


needs = st.builds(
    Resources,
    cpus=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
    gpus=st.sampled_from([0.0, 0.5, 1.0]),
    memory_bytes=st.integers(1, 8).map(lambda g: g << 30),
)


@given(
    st.dictionaries(st.sampled_from("abc"), st.tuples(needs, st.none() | st.integers(1, 9)), min_size=1),
    st.builds(
        Room,
        st.integers(0, 64).map(float),
        st.integers(0, 8).map(float),
        st.integers(1, 200).map(lambda g: g * 2.0**30),
    ),
    st.sampled_from([0.0, 1.0, 8.0]),
)
def test_pools_share_the_room_and_leave_some_to_the_tasks(
    pools: dict[str, tuple[Resources, int | None]], room: Room, task_cpus: float
) -> None:
    each = {name: n for name, (n, _) in pools.items()}
    maxima = {name: m for name, (_, m) in pools.items()}
    sizes = share(each, maxima, room, task_cpus)
    assert all(1 <= sizes[n] <= (maxima[n] or 10**6) for n in pools)
    beyond = {n for n in pools if sizes[n] > 1}
    if beyond:
        assert sum(each[n].cpus * k for n, k in sizes.items()) <= room.cpus - task_cpus + 1e-6
        assert sum(each[n].gpus * k for n, k in sizes.items()) <= room.gpus + 1e-6
        assert sum(each[n].memory_bytes * k for n, k in sizes.items()) <= room.memory_bytes
    # nothing is left over that some pool could still use
    for n in pools:
        if maxima[n] is not None and sizes[n] < maxima[n]:
            more = {**sizes, n: sizes[n] + 1}
            assert (
                sum(each[m].cpus * k for m, k in more.items()) > room.cpus - task_cpus
                or sum(each[m].gpus * k for m, k in more.items()) > room.gpus
                or sum(each[m].memory_bytes * k for m, k in more.items()) > room.memory_bytes
            )


def test_cpu_actors_leave_half_the_cpus_to_tasks_unless_told_otherwise() -> None:
    room = Room(cpus=16, gpus=2, memory_bytes=2**40)
    cpu, gpu = Resources(cpus=1), Resources(cpus=2, gpus=0.5)
    assert share({"infer": cpu}, {"infer": None}, room, 1) == {"infer": 8}
    assert share({"infer": cpu}, {"infer": 99}, room, 1) == {"infer": 15}
    assert share({"infer": gpu}, {"infer": None}, room, 1) == {"infer": 4}
    assert share({"a": cpu, "b": gpu}, {"a": None, "b": None}, Room(2, 0, 2**40), 1) == {"a": 1, "b": 1}


# ---- Processes of their own: Ray from start to end -----------------------------------------------


DRIVER = """
import sys, os, time, signal
from pathlib import Path
from tests.support.faults import FaultTable, Faulty, ListFeed, units
from vidproc.runtime.executor import Limits
from vidproc.runtime.ray.executor import RayExecutor

mine = lambda *_: None
signal.signal(signal.SIGTERM, mine)
executor = RayExecutor("local", num_workers=2)
table = FaultTable({}, Path(sys.argv[1]))
steps = [Faulty("decode", table), Faulty("infer", table, stateful=True, seconds=float(sys.argv[2]))]
signal.signal(signal.SIGINT, lambda *_: executor.stop())
for end in executor.run(ListFeed(units(20)), {"task": steps}, Limits(max_units=4)):
    print(end.unit.id, flush=True)
assert signal.getsignal(signal.SIGTERM) is mine
executor.close()
"""


BESIDE = """
import sys, time
from pathlib import Path
from tests.support.faults import FaultTable, Faulty, ListFeed
from vidproc.runtime.units import Unit
from vidproc.runtime.ray.executor import RayExecutor
from vidproc.runtime.step import Resources

folder, ended = Path(sys.argv[1]), Path(sys.argv[1]) / "ended"
ended.mkdir()

class Long(Faulty):
    def __call__(self, item):
        deadline = time.monotonic() + 100
        while len(list(ended.iterdir())) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(self.seconds)  # until the driver knows
        return item

class Short(Faulty):
    def __call__(self, item):
        (ended / item[0]).touch()
        return item

table, small = FaultTable({}, folder), dict(memory_bytes=256 << 20, time_limit_s=200)
long = Long("decode", table, seconds=float(sys.argv[2]), needs=Resources(**small))
short = Short("publish", table, needs=Resources(beside=True, **small))
units = [Unit(f"{route}{i}", [f"{route}{i}"], route) for route in ("long", "short") for i in range(3)]
executor = RayExecutor("local", num_workers=1)
for end in executor.run(ListFeed(units), {"long": [long], "short": [short]}):
    print(end.unit.id, flush=True)
executor.close()
"""


drivers: list[subprocess.Popen[str]] = []


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder whose name is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="vp-", dir="/tmp") as folder:
        for name in ("home", "table", "tmp"):
            Path(folder, name).mkdir()
        yield Path(folder)
        while drivers:
            drivers[-1].kill()
            drivers.pop().communicate()


def start_driver(scratch: Path, seconds: float, program: str = DRIVER) -> subprocess.Popen[str]:
    driver = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, str(scratch / "table"), str(seconds)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HOME": str(scratch / "home"), "TMPDIR": str(scratch / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    drivers.append(driver)
    return driver


def test_what_runs_beside_the_others_waits_for_none_of_them(scratch: Path) -> None:
    """Every worker is busy until all the short ones have ended."""
    driver = start_driver(scratch, 3.0, BESIDE)
    out, err = driver.communicate(timeout=200)
    assert driver.returncode == 0, err[-2000:]
    assert out.split()[:3] == ["short0", "short1", "short2"] and len(out.split()) == 6


def processes_naming(text: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and folder.name != str(os.getpid()):
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if text in command:
                found.append(command[:200])
    return found


def test_ctrl_c_stops_the_driver_spares_the_workers_and_leaves_nothing_behind(scratch: Path) -> None:
    """A terminal sends SIGINT to the whole process group; only the driver may heed it."""
    driver = start_driver(scratch, 0.5)
    assert driver.stdout is not None
    first = driver.stdout.readline().strip()
    assert list((scratch / "tmp").iterdir())
    os.killpg(driver.pid, signal.SIGINT)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    ended = [first, *out.split()]  # nothing else is said on standard output
    begun = {p.name.removeprefix("decode:") for p in (scratch / "table").glob("decode:*")}
    assert len(ended) == len(set(ended)) < 20
    assert set(ended) == begun, "what ran went on to its end"
    assert not list((scratch / "tmp").iterdir()) and processes_naming(str(scratch)) == []
    assert not list((scratch / "home").iterdir()), "nothing is written into the home folder"


def test_a_killed_driver_takes_its_ray_with_it(scratch: Path) -> None:
    driver = start_driver(scratch, 0.3)
    assert driver.stdout is not None
    assert driver.stdout.readline()
    assert len(processes_naming(str(scratch))) > 3
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 30
    while (left := processes_naming(str(scratch))) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []


def test_the_folder_of_a_killed_driver_is_removed_by_the_next_and_that_of_a_living_one_is_not(scratch: Path) -> None:
    program = (
        "import sys; from vidproc.runtime.ray.own_ray import own_folder\n"
        "print(*own_folder(sys.argv[1]), flush=True); input()"
    )
    others = [
        subprocess.Popen(
            [sys.executable, "-c", program, scratch],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    drivers.extend(others)
    killed, alive = ((other.stdout.readline().split()[0] if other.stdout else "") for other in others)
    (Path(killed) / "session").mkdir()
    others[0].kill()
    others[0].wait()
    for folder in (killed, alive):
        os.utime(folder, (0, 0))
    new = Path(killed).parent / "vidproc-ray-new"  # made this moment, and not locked yet
    new.mkdir()
    ours, lock = own_folder(str(scratch))
    assert lock is not None
    os.close(lock)
    assert set(scratch.glob("vidproc-ray-*")) == {Path(alive), new, Path(ours)}


class Unpicklable:
    name = "decode"
    needs = Resources()
    stateful = False

    def setup(self) -> None:
        pass

    def __call__(self, item: Any) -> Any:
        return (x for x in "a generator")


def test_an_output_that_cannot_travel_is_a_failure_of_the_unit() -> None:
    (end,) = RayExecutor("local").run(ListFeed(units(1)), {"task": [Unpicklable()]}, TWO_STRIKES)
    assert end.failure is not None and end.failure.kind == "exception"
    assert "cannot pickle 'generator' object" in end.failure.error


NODE_LOSS = """
import os, sys
from pathlib import Path
os.environ["RAY_TMPDIR"] = os.environ["TMPDIR"]
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
from ray.cluster_utils import Cluster
from tests.support.faults import FaultTable, Faulty, ListFeed, units
from vidproc.runtime.events import AttemptFailed, PoolChanged
from vidproc.runtime.executor import Limits, PoolSize
from vidproc.runtime.ray.executor import RayExecutor
from vidproc.runtime.step import Resources

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
node = cluster.add_node(num_cpus=3, object_store_memory=100 << 20)
executor = RayExecutor(cluster.address)
table = FaultTable({}, Path(sys.argv[1]))
small = Resources(cpus=1, memory_bytes=256 << 20)
steps = [Faulty(name, table, name == "infer", seconds=0.1, needs=small) for name in ("decode", "infer")]
heard = []
ends = []
limits = Limits(max_units=12, first_wait_s=0.2, pools={"infer": PoolSize(1, 4)})
for end in executor.run(ListFeed(units(60)), {"task": steps}, limits, [heard.append]):
    ends.append(end)
    if len(ends) == 20:
        cluster.remove_node(node, allow_graceful=False)
assert sorted(e.unit.id for e in ends) == sorted(f"t{i}" for i in range(60)), len(ends)
assert not [e for e in ends if e.failure], [e.failure for e in ends if e.failure]
blamed = [e for e in heard if isinstance(e, AttemptFailed) and e.blamed]
print(len([e for e in heard if isinstance(e, AttemptFailed)]), len(blamed), [b.fault.error for b in blamed])
print([(e.ready, e.starting) for e in heard if isinstance(e, PoolChanged)])
print({k: n for k, n in table.attempts().items() if n > 1})
executor.close()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_lost_node_costs_no_unit(scratch: Path) -> None:
    driver = start_driver(scratch, 0, NODE_LOSS)
    out, err = driver.communicate(timeout=240)
    assert driver.returncode == 0, out + err


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense"])
def test_a_cluster_that_does_not_answer_is_a_configuration_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=f"no Ray cluster answers at '{address}'"):
        _find(address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=f"no Ray cluster answers at '{address}'"):
        _find("auto")
    assert _find("local") is None


def test_a_run_with_nothing_to_do_starts_no_ray() -> None:
    script = (
        "import ray; from tests.support.faults import ListFeed; from vidproc.runtime.ray.executor import RayExecutor\n"
        "executor = RayExecutor('local')\n"
        "assert list(executor.run(ListFeed([]), {'task': ()})) == []\n"
        "assert not ray.is_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
