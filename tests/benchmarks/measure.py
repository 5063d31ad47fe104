"""Runs a command and says what it cost: seconds, CPU seconds and peak memory of it and all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

REPOSITORY = Path(__file__).parents[2]
MARK = "VIDPROC_BENCH_MARK"
"""In the environment of a measured command, so that all its descendants are known, adopted ones too."""
TICK = os.sysconf("SC_CLK_TCK")
KINDS = {
    b"decode": "decode workers",
    b"probe": "probe worker",
    b"publish": "publish worker",
    b"_ActorBody": "model actors",
    b"IDLE": "spare workers",
}
"""Of Ray's workers, by what stands behind `ray::` in the titles that Ray gives them."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one command."""

    seconds: float
    cpu_s: float
    """Of all its processes, as last seen: what a short-lived one did after the last look is not in it."""
    peak_bytes: int
    """Proportional set size summed over its processes: shared memory counts once."""
    own_peak_bytes: int
    """The same without pages of files: how many of those count is decided by what else runs on the machine and maps
    the same libraries, and the kernel can take them back."""
    own_peaks: Mapping[str, int]
    """That by kind of process, each at its own time; the object store is a kind by itself."""
    own_at_peak: Mapping[str, int]
    """By kind, when all of them together were at their peak."""
    answer: Any
    """The JSON it printed last, None if it printed none."""


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, look_every_s: float = 1.0) -> Cost:
    """Raises RuntimeError with the end of its output where the command fails."""
    mark = uuid.uuid4().hex
    environment = {**os.environ, **quiet_environment(), **(env or {}), MARK: mark}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        began = time.perf_counter()
        process = subprocess.Popen(list(command), stdout=out, stderr=log, env=environment, cwd=REPOSITORY)
        watch = _Watch(mark, process.pid, look_every_s)
        watch.start()
        try:
            code = process.wait()
            seconds = time.perf_counter() - began
        finally:
            watch.end()
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=20)
                watch.kill()
                process.wait()
        out.seek(0)
        log.seek(0)
        text = out.read()
        if code:
            raise RuntimeError(f"{' '.join(command)[:300]} ended with {code}:\n{text[-2000:]}\n{log.read()[-4000:]}")
    return Cost(
        seconds=seconds,
        cpu_s=watch.cpu_s,
        peak_bytes=watch.peak,
        own_peak_bytes=watch.own_peak,
        own_peaks=dict(watch.own_peaks),
        own_at_peak=dict(watch.own_at_peak),
        answer=_last_json(text),
    )


def quiet_environment() -> dict[str, str]:
    """One thread a worker unless a benchmark says otherwise, and no usage statistics."""
    return {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "DO_NOT_TRACK": "1",
        "DAFT_ANALYTICS_ENABLED": "0",
        "PYTHONPATH": str(REPOSITORY),
    }


def _last_json(text: str) -> Any:
    """Of a text whose end is one JSON value, on one line or several."""
    lines = text.strip().splitlines()
    for start in range(len(lines) - 1, -1, -1):
        if lines[start][:1] in "{[":
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads("\n".join(lines[start:]))
    return None


class _Watch(threading.Thread):
    """Looks at all processes that carry the mark."""

    def __init__(self, mark: str, driver: int, every_s: float) -> None:
        super().__init__(daemon=True)
        self._mark, self._driver, self._every_s = f"{MARK}={mark}".encode(), driver, every_s
        self._over = threading.Event()
        self._ours: dict[tuple[int, str], float] = {}
        """CPU seconds by process id and start."""
        self._others: set[tuple[int, str]] = set()
        self._kinds: dict[tuple[int, str], str] = {}
        """What a worker of Ray's last did."""
        self.peak = self.own_peak = 0
        self.own_peaks: Counter[str] = Counter()
        self.own_at_peak: Counter[str] = Counter()

    @property
    def cpu_s(self) -> float:
        return sum(self._ours.values())

    def run(self) -> None:
        while not self._over.wait(self._every_s):
            self.look()

    def end(self) -> None:
        self._over.set()
        self.join()

    def kill(self) -> None:
        """Every process that carries the mark, and no other."""
        self.look()
        for pid, start in self._ours:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19] == start:
                    os.kill(pid, signal.SIGKILL)

    def look(self) -> None:
        total = 0
        own: Counter[str] = Counter()
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                who = (pid, fields[19])
                if who in self._others:
                    continue
                if who not in self._ours and self._mark not in Path(f"/proc/{pid}/environ").read_bytes():
                    self._others.add(who)
                    continue
                self._ours[who] = (int(fields[11]) + int(fields[12])) / TICK
                sizes = _pss(pid)
                total += sizes["Pss:"]
                own[self._kind(who)] += sizes.get("Pss_Anon:", 0)
                own["object store"] += sizes.get("Pss_Shmem:", 0)  # old kernels tell neither
        self.peak = max(self.peak, total)
        if own.total() > self.own_peak:
            self.own_peak, self.own_at_peak = own.total(), own
        self.own_peaks |= own  # the larger of each

    def _kind(self, who: tuple[int, str]) -> str:
        if who[0] == self._driver:
            return "driver"
        title = Path(f"/proc/{who[0]}/cmdline").read_bytes()
        kind = KINDS.get(title.removeprefix(b"ray::").partition(b"\0")[0].partition(b".")[0])
        if kind is None:
            return "Ray's own"
        if kind != KINDS[b"IDLE"] or who not in self._kinds:  # between two tasks it keeps what it did
            self._kinds[who] = kind
        return self._kinds[who]


def _pss(pid: int) -> dict[str, int]:
    """Bytes, by the kernel's names."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return {line.split()[0]: int(line.split()[1]) << 10 for line in f if line.startswith("Pss")}


T = TypeVar("T")


def interleaved(runs: Mapping[str, Callable[[], T]], repetitions: int) -> dict[str, list[T]]:
    """A B C A B C ...: what else the machine does meanwhile falls on all alike."""
    found: dict[str, list[T]] = {name: [] for name in runs}
    for _ in range(repetitions):
        for name, make in runs.items():
            found[name].append(make())
    return found


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def load() -> float:
    """Of the last minute: what else this machine is doing."""
    return os.getloadavg()[0]


@dataclass(kw_only=True)
class Row:
    """One line of the table, filled while it is measured."""

    name: str
    what: str
    target: str
    value: str = "-"
    met: bool | None = None
    """None: not measured, or not at the size that the promise speaks of."""
    frames: int | None = None
    bytes: int | None = None
    rows: int | None = None
    peak_bytes: int | None = None
    notes: list[str] = field(default_factory=list)
    """What was compared with what, what limits the figure, and whatever else a reader must know."""
    load: float = field(default_factory=load)
    figures: dict[str, Any] = field(default_factory=dict)
    """All that was measured, for the JSON."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line said."""

    quick: bool
    repetitions: int
    minutes: float
    model: Path
    rivals_python: Path

    def say(self, text: str) -> None:
        print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def size(n: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit != "MB" or n >= 10 else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.2f} GB"
