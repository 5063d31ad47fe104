"""Steps that fail on cue, and feeds to run them with: the table-driven side of the fault tests.

    table = FaultTable({"t1": ["segfault"], "t2": ["error"] * 9}, folder)
    steps = [Faulty("decode", table), Faulty("infer", table, stateful=True)]

A cue is named by the unit and, where it matters, the step: `{"infer:t1": [...]}`. Attempt n of a unit
at a step takes the n-th fault of its list; past the end it succeeds. Attempts are counted in files,
one line each, since the process that counts may be about to die. The line is the time at which it began.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidproc.errors import ConfigError, SourceChanged, TransientError, Undecodable
from vidproc.runtime.step import Resources
from vidproc.runtime.units import Unit

SURVIVABLE = ("error", "media", "transient", "changed", "sysexit")
"""Faults which leave the process alive: any executor can take them."""
DEADLY = ("segfault", "kill", "exit", "hang", "hang_c", "bloat")
"""Faults which need a process to die."""


def strike(fault: str) -> None:
    """Fail so."""
    match fault:
        case "ok":
            return
        case "error":
            raise ZeroDivisionError("a bug")
        case "media":
            raise Undecodable("t.mp4 at 3 s: broken beyond repair")
        case "transient":
            raise TransientError("storage timed out")
        case "changed":
            raise SourceChanged("t.mp4 was replaced while it was read")
        case "config":
            raise ConfigError("credentials refused: set AWS_PROFILE")
        case "memory":
            raise MemoryError
        case "sysexit":
            raise SystemExit(3)
        case "unpicklable":
            raise _local_exception()("its class cannot be imported elsewhere")
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(60)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(3600)
        case "hang_c":
            import ctypes

            ctypes.PyDLL(None).sleep(3600)  # holds the GIL: no Python thread could end it
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)  # and the watchdog with it
        case "bloat":
            hoard = []
            while True:
                hoard.append(bytes(64 << 20))  # never touched: the limit counts what was asked for
        case _:
            raise ValueError(f"no such fault: {fault}")


def _local_exception() -> type[Exception]:
    class Foreign(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("cannot be pickled")

    return Foreign


@dataclass(frozen=True)
class FaultTable:
    faults: Mapping[str, Sequence[str]]
    folder: Path

    def attempt(self, step: str, unit: str) -> str:
        """Counts an attempt, and names its fault ("ok": none)."""
        with open(self.folder / f"{step}:{unit}", "ab") as f:
            f.write(b"%019d\n" % time.monotonic_ns())
            n = f.tell() // 20
        planned = self.faults.get(f"{step}:{unit}", self.faults.get(unit, ()))
        return planned[n - 1] if n <= len(planned) else "ok"

    def attempts(self) -> dict[str, int]:
        """By `step:unit`, over all processes."""
        return {p.name: p.stat().st_size // 20 for p in sorted(self.folder.iterdir())}

    def order(self, step: str) -> list[tuple[str, str]]:
        """Return the attempts at this step as (unit, fault), in the order in which they began."""
        begun = []
        for path in self.folder.glob(f"{step}:*"):
            unit = path.name.partition(":")[2]
            faults = self.faults.get(path.name, self.faults.get(unit, ()))
            times = map(int, path.read_text().split())
            begun += [(at, unit, fault) for at, fault in zip(times, [*faults, *["ok"] * 99], strict=False)]
        return [(unit, fault) for _, unit, fault in sorted(begun)]


def seeded_faults(seed: int, units: Sequence[str], kinds: Sequence[str], share: float = 0.2) -> dict[str, list[str]]:
    """A table in which about `share` of the units fail one to three times."""
    dice = random.Random(seed)
    return {u: [dice.choice(kinds)] * dice.randint(1, 3) for u in units if dice.random() < share}


@dataclass
class Faulty:
    """A step that gives back `item + [its name]`, or fails as the table says."""

    name: str
    table: FaultTable
    stateful: bool = False
    seconds: float = 0.0
    needs: Resources = field(default_factory=lambda: Resources(cpus=1, memory_bytes=512 << 20, time_limit_s=20))
    setup_fault: str = "ok"

    def setup(self) -> None:
        strike(self.setup_fault)

    def __call__(self, item: list[str]) -> list[str]:
        strike(self.table.attempt(self.name, item[0]))
        time.sleep(self.seconds)
        return [*item, self.name]


class ListFeed:
    """Units from a list, by route; counts what is out, and may stutter (None now and then)."""

    def __init__(self, units: Iterable[Unit], *, stutter: bool = False) -> None:
        self._due: deque[Unit] = deque(units)
        self._stutter = stutter
        self._asked = 0
        self.taken: list[Unit] = []

    @property
    def exhausted(self) -> bool:
        return not self._due

    def take(self, routes: frozenset[str]) -> Unit | None:
        self._asked += 1
        if self._stutter and self._asked % 2:
            return None
        for i, unit in enumerate(self._due):
            if unit.route in routes:
                del self._due[i]
                self.taken.append(unit)
                return unit
        return None


def units(n: int, route: str = "task", *, prefix: str = "t", bytes: int = 0) -> list[Unit]:
    return [Unit(f"{prefix}{i}", [f"{prefix}{i}"], route, bytes) for i in range(n)]
