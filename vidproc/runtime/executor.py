"""Running many units through their steps: the surface of an executor, and the one loop behind all.

A `Unit` goes through the steps of its route in order; the output of one step is the input of the
next. Where and how a step runs is the business of `Workers` (inline.py: here and now; ray.py: on a
cluster). What is admitted, what is tried again, and when to stop is decided here, once.

    feed ── take ──► admit ──► workers: step 1 ─► step 2 ─► ... ──► UnitEnd
                       ▲            │ fault
                       └── retry.verdict: again (later) / give up / stop the run

At most `Limits.max_units` units of each route, and `Limits.max_bytes` bytes over all routes, are
between `take` and `UnitEnd`, so memory does not depend on how much work there is.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from vidproc.errors import ConfigError, Refused, RunAborted
from vidproc.runtime.events import AttemptFailed, Event, Listener, UnitStarted
from vidproc.runtime.retry import INPUT_FAULTS, PASSING, Abort, Fault, GiveUp, Retry, RetryRules, Tally, verdict
from vidproc.runtime.step import AnyStep
from vidproc.runtime.units import Unit, UnitEnd
from vidproc.settings import PoolSize

ONE_MACHINE_BYTES = 1 << 30
"""Bytes in flight where nobody says how many: room for some minutes of frames, and for the rest of the machine."""

POLL_S = 0.1
"""How often a feed that had nothing is asked again while nothing else happens."""


class Feed(Protocol):
    """Where units come from. Asked by the loop, on its own thread, whenever there is room."""

    @property
    def exhausted(self) -> bool:
        """True: there is nothing and there will be nothing more, whatever ends still come."""

    def take(self, routes: frozenset[str]) -> Unit | None:
        """The next unit of one of these routes (those which have room), or None: nothing just now.
        The feed decides what comes first; a full route never holds up the others."""


class Ahead:
    """A feed that was asked for its first unit already, so that nothing is started for nothing."""

    def __init__(self, feed: Feed, routes: Iterable[str]) -> None:
        self._feed, self._first = feed, feed.take(frozenset(routes))

    @property
    def empty(self) -> bool:
        """Nothing just now."""
        return self._first is None

    @property
    def exhausted(self) -> bool:
        return self._first is None and self._feed.exhausted

    def take(self, routes: frozenset[str]) -> Unit | None:
        first = self._first
        if first is not None and first.route in routes:
            self._first = None
            return first
        return self._feed.take(routes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(RetryRules):
    max_units: int = 64
    """Units in flight, of each route that `route_units` does not name. On a cluster with n times the CPUs of
    the driver's machine n times as many."""
    route_units: Mapping[str, int] = field(default_factory=dict)
    max_bytes: int | None = None
    """Bytes in flight, over all routes, for each node; None: half of the cluster's object stores. A unit larger
    than this runs while no other unit with bytes does."""
    at_once: Mapping[str, int] = field(default_factory=dict)
    """By name of a stateless step: how many calls of it may run at a time."""
    max_quarantined_share: float = 0.2
    """Share of the units ended so far. Above it the run stops: a model or an image must be broken."""
    min_quarantined: int = 20
    """But not before this many are quarantined."""
    pools: Mapping[str, PoolSize] = field(default_factory=dict)
    """By step name."""
    batch: Mapping[str, int] = field(default_factory=dict)
    """By step name: how many units may travel in one call, where a unit takes milliseconds. After
    a crash the units of a batch run again one by one, so that blame stays exact."""
    grace_s: float = 15.0
    """How long `stop()` lets running units finish."""

    def __post_init__(self) -> None:
        counts = (self.max_units, *self.route_units.values(), *([] if self.max_bytes is None else [self.max_bytes]))
        if min(counts) < 1:
            raise ConfigError("max_units, route_units and max_bytes must be at least 1: nothing would ever run")


DEFAULT_LIMITS = Limits()


class Executor(Protocol):
    def run(
        self,
        feed: Feed,
        routes: Mapping[str, Sequence[AnyStep]],
        limits: Limits = DEFAULT_LIMITS,
        listeners: Sequence[Listener] = (),
    ) -> Iterator[UnitEnd]:
        """Each unit that was taken is yielded exactly once, in any order; those which `stop()`
        abandoned are not yielded at all, and are due again.

        Raises ConfigError (a step said that an operator must act) and RunAborted (a step cannot be
        set up, too much is quarantined, the cluster is gone). Closing the iterator abandons what runs.
        """

    def stop(self) -> None:
        """Take nothing more; let what runs finish, for `Limits.grace_s` seconds at most. For good:
        a later `run` ends at once. May be called from a signal handler or another thread."""

    def close(self) -> None:
        """Release what the executor started, and only that."""


@dataclass(slots=True, eq=False)
class Flight:
    """A unit on its way (driver's own record, mutable)."""

    unit: Unit
    steps: tuple[AnyStep, ...]
    stage: int = 0
    payload: Any = None
    """Input of the present step: the item, then whatever the workers keep an output in."""
    tally: Tally = field(default_factory=Tally)
    retries: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    alone: bool = False
    """It was in a batch that crashed: run it by itself."""

    @property
    def step(self) -> AnyStep:
        return self.steps[self.stage]

    @property
    def is_last(self) -> bool:
        return self.stage + 1 == len(self.steps)

    def rewind(self) -> None:
        """Back to the first step: an output between two steps was lost with its node."""
        self.stage, self.payload = 0, self.unit.item


@dataclass(frozen=True, slots=True)
class Done:
    """A step's output: the value itself after the last step, else a handle for the next one."""

    output: Any
    seconds: float


class Workers(Protocol):
    """Where steps run. Used by one loop, on one thread."""

    def submit(self, flight: Flight) -> None:
        """Have the flight's present step run, some time."""

    def wait(self, timeout_s: float) -> Iterable[tuple[Flight, Done | Fault]]:
        """What has ended; waits for the first, but no longer than the timeout."""

    def abandon(self) -> None:
        """Forget and, where it can be done, kill what still runs."""


class Stop:
    """The switch behind `stop()`."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self.at = 0.0

    def set(self) -> None:
        if not self._set.is_set():
            self.at = time.monotonic()
            self._set.set()

    def __bool__(self) -> bool:
        return self._set.is_set()


class Admission:
    """Which routes have room, counted over the units in flight."""

    def __init__(self, routes: Iterable[str], limits: Limits) -> None:
        self.count: Counter[str] = Counter()
        self._limits = limits
        self._caps = {r: limits.route_units.get(r, limits.max_units) for r in routes}
        self._bytes, self._max_bytes = 0, limits.max_bytes or ONE_MACHINE_BYTES
        self._held: dict[str, Unit] = {}

    def follow(self, *, cpus: float, nodes: int, store_bytes: float) -> None:
        """Fits the window to the cluster as it is now; `cpus`: a multiple of the driver's machine."""
        units = int(self._limits.max_units * max(1.0, cpus))
        self._caps = {r: self._limits.route_units.get(r, units) for r in self._caps}
        # The store frees in the background, and holds what travels between two steps twice for a moment.
        self._max_bytes = int(store_bytes / 2)
        if self._limits.max_bytes is not None:
            self._max_bytes = min(self._max_bytes, self._limits.max_bytes * max(1, nodes))

    def take(self, feed: Feed) -> Unit | None:
        for route, unit in self._held.items():
            if self._fits(unit):
                del self._held[route]
                return self._enter(unit)
        while room := frozenset(r for r, cap in self._caps.items() if self.count[r] < cap and r not in self._held):
            unit_or_none = feed.take(room)
            if unit_or_none is None:
                return None
            if unit_or_none.route not in room:
                raise ValueError(f"unit {unit_or_none.id}: its route {unit_or_none.route!r} is none of {sorted(room)}")
            if self._fits(unit_or_none):
                return self._enter(unit_or_none)
            self._held[unit_or_none.route] = unit_or_none  # at most one a route waits for bytes
        return None

    def _fits(self, unit: Unit) -> bool:
        return not unit.bytes or not self._bytes or self._bytes + unit.bytes <= self._max_bytes

    def _enter(self, unit: Unit) -> Unit:
        self.count[unit.route] += 1
        self._bytes += unit.bytes
        return unit

    def leave(self, unit: Unit) -> None:
        self.count[unit.route] -= 1
        self._bytes -= unit.bytes

    @property
    def in_flight(self) -> int:
        return self.count.total()

    def in_flight_of(self, routes: Iterable[str]) -> int:
        return sum(self.count[r] for r in routes)

    @property
    def holding(self) -> bool:
        return bool(self._held)


class Loop:
    """The one loop behind all executors: hand out what there is room for, wait, and decide about what has ended.
    `workers` run the steps; everything else is decided here."""

    def __init__(
        self,
        feed: Feed,
        routes: Mapping[str, Sequence[AnyStep]],
        limits: Limits,
        listeners: Sequence[Listener],
        *,
        workers: Workers,
        admission: Admission,
        stop: Stop,
    ) -> None:
        self._feed, self._limits, self._listeners = feed, limits, listeners
        self._workers, self._admission, self._stop = workers, admission, stop
        self._steps = {route: tuple(steps) for route, steps in routes.items()}
        self._later: list[tuple[float, int, Flight]] = []
        """A heap: flights that wait before their next attempt."""
        self._order = itertools.count()
        self._ended = self._quarantined = 0

    def run(self) -> Iterator[UnitEnd]:
        try:
            while True:
                self._submit()
                if self._is_over:
                    return
                yield from self._collect()
                self._check_quarantine()
        finally:
            self._workers.abandon()

    @property
    def _is_over(self) -> bool:
        if self._stop:
            running = self._admission.in_flight - len(self._later)
            return not running or time.monotonic() > self._stop.at + self._limits.grace_s
        return not self._admission.in_flight and not self._admission.holding and self._feed.exhausted

    def _submit(self) -> None:
        """Hand out what there is room for, and what has waited long enough for its next attempt."""
        while not self._stop and (unit := self._admission.take(self._feed)):
            self._tell(UnitStarted(unit, datetime.now(UTC)))
            tally = Tally(unit.attempts_before)
            self._workers.submit(Flight(unit, self._steps[unit.route], payload=unit.item, tally=tally))
        now = time.monotonic()
        while self._later and self._later[0][0] <= now and not self._stop:
            self._workers.submit(heapq.heappop(self._later)[2])

    def _collect(self) -> Iterator[UnitEnd]:
        """Wait for what ends, and send on what has another step before it."""
        for flight, outcome in self._workers.wait(POLL_S):
            if isinstance(outcome, Fault):
                if unit_end := self._failed(flight, outcome):
                    yield unit_end
                continue
            name = flight.step.name
            flight.seconds[name] = flight.seconds.get(name, 0.0) + outcome.seconds
            if flight.is_last:
                yield self._end(flight, outcome.output, None)
            else:
                flight.stage, flight.payload = flight.stage + 1, outcome.output
                self._workers.submit(flight)

    def _check_quarantine(self) -> None:
        """Raise RunAborted where too many units were given up for their inputs to be the reason."""
        given_up, limits = self._quarantined, self._limits
        if given_up >= limits.min_quarantined and given_up > limits.max_quarantined_share * self._ended:
            raise RunAborted(
                f"{given_up} of {self._ended} units were given up after repeated failures: a model, the image or the "
                "storage must be broken. See the failures, mend the cause, and run the same command again."
            )

    def _failed(self, flight: Flight, fault: Fault) -> UnitEnd | None:
        flight.tally = flight.tally.add(fault.kind)
        answer = verdict(fault.kind, flight.tally, self._limits)
        self._tell(
            AttemptFailed(
                unit=flight.unit,
                fault=fault,
                attempt=flight.unit.attempts_before + flight.retries + 1,
                blamed=fault.kind not in PASSING | INPUT_FAULTS | {"config", "full"},
                again_in_s=answer.wait_s if isinstance(answer, Retry) else None,
                at=datetime.now(UTC),
            )
        )
        match answer:
            case Abort() if fault.kind == "full":
                raise RunAborted(fault.error)
            case Abort():
                if fault.error_class != ConfigError.error_class:
                    raise Refused(fault.error, fault.error_class)
                raise ConfigError(fault.error)
            case GiveUp():
                self._quarantined += fault.kind not in INPUT_FAULTS
                return self._end(flight, None, fault)
            case Retry(wait_s):
                flight.retries += 1
                heapq.heappush(self._later, (time.monotonic() + wait_s, next(self._order), flight))
                return None

    def _end(self, flight: Flight, result: Any, failure: Fault | None) -> UnitEnd:
        self._ended += 1
        self._admission.leave(flight.unit)
        return UnitEnd(flight.unit, result, failure, flight.retries + 1, flight.seconds)

    def _tell(self, event: Event) -> None:
        for listen in self._listeners:
            listen(event)
