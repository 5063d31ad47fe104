"""One step's workers on the driver's side: the units that wait for them, calls on their way, and how calls end."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.exceptions as rx
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vidproc.runtime.executor import Done, Flight
from vidproc.runtime.processes import kill_process
from vidproc.runtime.ray import timing
from vidproc.runtime.ray.blame import fault_in, fault_of_death, is_infrastructure
from vidproc.runtime.ray.messages import in_short
from vidproc.runtime.ray.remote import Place
from vidproc.runtime.retry import Fault
from vidproc.runtime.step import AnyStep
from vidproc.runtime.worker import SETUP_LIMIT_S

Outcome = tuple[Flight, Done | Fault]


@dataclass(slots=True, eq=False)
class Call:
    flights: list[Flight]
    outputs: list[Any]
    """Object references of the outputs, empty after a route's last step."""
    number: int = 0
    """Its place among the calls of one pool, in order of submission."""
    watch: Watch = field(default_factory=lambda: Watch())


@dataclass(slots=True, eq=False)
class Watch:
    """What the driver knows of a call that has not ended. Times in seconds of the driver's own clock, which stands
    still while the driver sleeps."""

    place: Place | None = None
    """Where it runs; None: it waits, or has not told yet."""
    setting_up: bool = False
    since: float | None = None
    """When it was first seen in its present state: waiting, setting up or running."""
    killed: float | None = None
    """When its process was killed for being too late."""

    def see(self, place: Place | None, setting_up: bool, now: float) -> None:
        if self.since is None or (place, setting_up) != (self.place, self.setting_up):
            self.place, self.setting_up, self.since = place, setting_up, now

    def is_late(self, now: float, limit_s: float) -> bool:
        limit_s = SETUP_LIMIT_S if self.setting_up else limit_s
        return self.killed is None and self.since is not None and now - self.since > limit_s + timing.GRACE_S

    def is_lost(self, now: float) -> bool:
        """Its process was killed long ago, and lives on."""
        return self.killed is not None and now - self.killed > timing.GRACE_S


class WorkerGroup(ABC):
    """The workers of one step, whichever they are: its queue of units, and the reading of a call's end."""

    def __init__(self, step: AnyStep, batch: int) -> None:
        self.step, self.batch = step, batch
        self.ready: deque[Flight] = deque()
        pickled: bytes = cloudpickle.dumps(step)  # type: ignore[no-untyped-call]
        self.step_hash = hashlib.blake2b(pickled, digest_size=16).hexdigest()
        # Small steps ride along with each call; a large one is put into the store once.
        self.pickled = pickled if len(pickled) < 32 << 10 else ray.put(pickled)
        self.lost_places: list[Place] = []
        """Where workers are that could not be ended: each holds its slot for good."""
        self._killers: list[Any] = []

    @abstractmethod
    def pump(self) -> None:
        """Submit what waits, as far as there are workers for it."""

    @abstractmethod
    def refs(self) -> Iterable[Any]:
        """References of what is on its way."""

    @abstractmethod
    def collect(self, ref: Any) -> Iterator[Outcome]:
        """How the call ended whose reference is ready."""

    @abstractmethod
    def watch(self, now: float) -> Iterator[Outcome]:
        """Look after the calls that take too long: kill their workers, then give them up."""

    @abstractmethod
    def places(self) -> list[Place]:
        """Where calls are known to run."""

    @abstractmethod
    def abandon(self) -> None:
        """Forget and kill what still runs."""

    def next_batch(self) -> list[Flight]:
        """Units for one call: all are at the last step of their routes, or none is."""
        flights = [self.ready.popleft()]
        while (
            len(flights) < self.batch
            and self.ready
            and not (flights[0].alone or self.ready[0].alone)
            and self.ready[0].is_last == flights[0].is_last
        ):
            flights.append(self.ready.popleft())
        return flights

    def send(self, remote: Callable[..., Any], *head: Any, flights: list[Flight]) -> tuple[Any, Call]:
        """Submits; returns the reference which ends the call, and the call."""
        is_last = flights[0].is_last
        refs = remote(*head, is_last, *(f.payload for f in flights))
        if is_last:
            return refs, Call(flights, [])
        *outputs, end = refs
        return end, Call(flights, outputs)

    @staticmethod
    def read(ref: Any, call: Call) -> list[Outcome]:
        """Raises what Ray raises where the call did not come to its end."""
        answer = ray.get(ref)
        pairs = zip(call.outputs, answer, strict=True) if call.outputs else answer
        return [(f, note.fault or Done(out, note.seconds)) for f, (out, note) in zip(call.flights, pairs, strict=True)]

    def limit_s(self, call: Call) -> float:
        return self.step.needs.time_limit_s * len(call.flights)

    def kill(self, watch: Watch, now: float) -> None:
        """End the worker of a call that is too late: from here if it is on this machine, else from its node."""
        watch.killed, place = now, watch.place
        if place is None or kill_process(place.pid, place.birth):
            return
        there = NodeAffinitySchedulingStrategy(place.node_id, soft=False)
        killer = ray.remote(kill_process).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        self._killers = [*self._killers[-20:], killer.remote(place.pid, place.birth)]

    def lost(
        self, error: rx.RayError, flights: list[Flight], place: Place | None, *, late: bool = False
    ) -> Iterator[Outcome]:
        """The call broke off while these units ran in it. `place`: the worker, None: it never began. `late`: the
        driver has ended it."""
        cause = getattr(error, "cause", None) or error  # RayTaskError wraps what an argument suffered
        if place is not None and late:
            yield from self.timed_out(flights, place)
        elif place is None or is_infrastructure(cause):
            for flight in flights:
                if isinstance(cause, rx.ObjectLostError):
                    flight.rewind()
                yield flight, fault_in(self.step, "infrastructure", f"{type(cause).__name__}: {in_short(cause)}", place)
        elif len(flights) > 1:
            for flight in flights:
                flight.alone = True
            self.ready.extendleft(reversed(flights))
        else:
            yield flights[0], fault_of_death(self.step, cause, place)

    def timed_out(self, flights: list[Flight], place: Place) -> Iterator[Outcome]:
        """The call's worker did not keep the time limit itself. Of a batch nobody knows which unit it was."""
        if len(flights) > 1:
            for flight in flights:
                flight.alone = True
            self.ready.extendleft(reversed(flights))
            return
        limit = self.step.needs.time_limit_s
        error = f"{self.step.name!r} did not end within its {limit:g} s nor did its worker, which was stopped or stuck"
        yield flights[0], fault_in(self.step, "hang", f"{error}: the driver has killed it", place)
