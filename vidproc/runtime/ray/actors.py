"""The workers of a stateful step: a pool of actors that keep what `setup` loaded."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.exceptions as rx
from ray.experimental import internal_kv

from vidproc.errors import ConfigError, NeverComesUp, RunAborted
from vidproc.runtime.events import Event, PoolChanged, PoolWaiting, SetupFailed
from vidproc.runtime.ray import timing
from vidproc.runtime.ray.blame import fault_in, is_infrastructure
from vidproc.runtime.ray.calls import Call, Outcome, Watch, WorkerGroup
from vidproc.runtime.ray.capacity import NO_PLACE, now_utc, wants_of
from vidproc.runtime.ray.remote import KV, ActorBody, Place, noticed
from vidproc.runtime.retry import Fault
from vidproc.runtime.step import AnyStep
from vidproc.runtime.worker import SETUP_LIMIT_S

CALLS_PER_ACTOR = 2
"""Calls that an actor holds: one that runs, one whose input is being fetched meanwhile."""
MAX_BAD_SETUPS = 5
"""Actors of a pool which may fail to come up, in a row, before the run stops."""


@dataclass(slots=True, eq=False)
class _Actor:
    handle: Any
    notice: bytes
    """The key under which it says which call it began."""
    place: Place | None = None
    """None until it is up."""
    queue: dict[Any, Call] = field(default_factory=dict)
    """By reference, in order of submission, which is the order in which the actor runs them."""
    idle_since: float = 0.0
    retiring: bool = False
    setup: Watch = field(default_factory=Watch)


class ActorPool(WorkerGroup):
    """A stateful step: actors that keep what `setup` loaded."""

    def __init__(
        self,
        step: AnyStep,
        batch: int,
        options: Mapping[str, Any],
        *,
        minimum: int,
        first_wait_s: float,
        demand: Callable[[], int],
        tell: Callable[[Event], None],
    ) -> None:
        super().__init__(step, batch)
        self._class = ray.remote(ActorBody).options(max_restarts=0, max_task_retries=0, **options)
        self._min, self._first_wait_s, self._demand, self._tell = minimum, first_wait_s, demand, tell
        self.room = 1
        """The most actors, set anew as the cluster changes."""
        self.has_place = True
        """Some node of the cluster is large enough for an actor."""
        self._starting: dict[Any, _Actor] = {}
        self._actors: list[_Actor] = []
        self._of: dict[Any, _Actor] = {}
        self._bad_setups, self._not_before = 0, 0.0
        self._prefix = f"{secrets.token_hex(8)}:".encode()
        self._hired = self._sent = 0
        self._empty_since: float | None = None
        self._told = 0.0

    def pump(self) -> None:
        now = time.monotonic()
        self._resize(now)
        self._tell_if_waiting(now)
        while self.ready:
            free = [a for a in self._actors if len(a.queue) < CALLS_PER_ACTOR and not a.retiring]
            if not free:
                return
            actor = min(free, key=lambda a: len(a.queue))
            flights = self.next_batch()
            returns = 1 if flights[0].is_last else len(flights) + 1
            self._sent += 1
            ref, call = self.send(actor.handle.run.options(num_returns=returns).remote, self._sent, flights=flights)
            call.number = self._sent
            actor.queue[ref] = call
            self._of[ref] = actor

    def _resize(self, now: float) -> None:
        """As many actors as there is work for, within the room. One that has no work for a while
        goes; where the room shrank (a node was lost), one goes as soon as its queue is empty."""
        want = min(self.room, max(self._min, -(-self._demand() // (CALLS_PER_ACTOR * self.batch))))
        staying = [a for a in self._actors if not a.retiring]
        size = len(self._starting) + len(staying)
        if size < want and now >= self._not_before:
            for _ in range(want - size):
                self._hired += 1
                notice = self._prefix + str(self._hired).encode()
                actor = _Actor(self._class.remote(self.step.name, self.step_hash, self.pickled, notice), notice)
                self._starting[actor.handle.ready.remote()] = actor
            self._changed()
        elif size > self.room and self._starting:
            ray.kill(self._starting.popitem()[1].handle)
            self._changed()
        elif size > self.room:
            min(staying, key=lambda a: len(a.queue)).retiring = True
        elif size > want:
            for actor in staying:
                if not actor.queue and now - actor.idle_since > timing.IDLE_S:
                    actor.retiring = True
                    break
        for actor in [a for a in self._actors if a.retiring and not a.queue]:
            self._remove(actor)

    def _tell_if_waiting(self, now: float) -> None:
        if self._actors:
            self._empty_since = None
            return
        if self._empty_since is None:
            self._empty_since = self._told = now
        if now - self._told >= timing.WAITING_AFTER_S:
            self._told = now
            self._tell(
                PoolWaiting(
                    step=self.step.name,
                    waited_s=now - self._empty_since,
                    wants=wants_of(self.step.needs),
                    why="it is still loading, or its place is taken" if self.has_place else NO_PLACE,
                    at=now_utc(),
                )
            )

    def refs(self) -> Iterable[Any]:
        return itertools.chain(self._starting, self._of)

    def collect(self, ref: Any) -> Iterator[Outcome]:
        if starting := self._starting.pop(ref, None):
            self._came_up(starting, ref)
            return
        actor = self._of.get(ref)
        if actor is None:
            return  # its actor died, and the whole queue was settled then
        try:
            outcomes = self.read(ref, actor.queue[ref])
        except rx.RayActorError as error:
            yield from self._died(actor, error)
            return
        except rx.RayError as error:  # an input was lost; the actor lives
            yield from self.lost(error, self._settle(actor, ref).flights, actor.place)
            return
        self._settle(actor, ref)
        faults = {o.kind for _, o in outcomes if isinstance(o, Fault)}
        # A CUDA error poisons its whole process: what is queued behind it must not fail of it too.
        if self.step.needs.gpus and faults & {"exception", "memory"}:
            self._put_back(actor)
            self._remove(actor)
        elif "memory" in faults:
            actor.retiring = True
        yield from outcomes

    def _settle(self, actor: _Actor, ref: Any) -> Call:
        del self._of[ref]
        actor.idle_since = time.monotonic()
        return actor.queue.pop(ref)

    def _came_up(self, actor: _Actor, ref: Any) -> None:
        fault: Fault | None
        try:
            fault, actor.place = ray.get(ref)
        except rx.RayError as error:
            if is_infrastructure(error):
                self._changed()
                return  # its node was lost: the next `pump` starts another
            fault = fault_in(self.step, "crash", f"its worker died while setting up {self.step.name!r}", None)
            if actor.setup.killed is not None:
                why = f"its worker was stopped or stuck while setting up {self.step.name!r}"
                fault = fault_in(self.step, "hang", why, actor.setup.place)
        if fault is None:
            self._bad_setups = 0
            actor.idle_since = time.monotonic()
            self._actors.append(actor)
            self._changed()
            return
        ray.kill(actor.handle)
        self._bad_setups += 1
        self._not_before = time.monotonic() + self._first_wait_s * 2.0 ** (self._bad_setups - 1)
        self._tell(SetupFailed(step=self.step.name, fault=fault, in_a_row=self._bad_setups, at=now_utc()))
        if fault.kind == "config":
            raise ConfigError(fault.error)
        if fault.kind == "media" or self._bad_setups >= MAX_BAD_SETUPS:
            why = f"no worker of the step {self.step.name!r} comes up: {fault.error}"
            # What its own code says each time, it says for ever; a worker that died may find more room later.
            raise (NeverComesUp if fault.kind in ("media", "exception") else RunAborted)(why)

    def _died(self, actor: _Actor, error: rx.RayActorError) -> Iterator[Outcome]:
        """Blames the call that was running alone. One whose answer came through had ended, and so had one whose
        answer was lost in the death of a later call."""
        for ref in list(actor.queue):
            try:
                outcomes = self.read(ref, actor.queue[ref])
            except rx.RayError:
                break
            self._settle(actor, ref)
            yield from outcomes
        begun, _, _ = noticed(actor.notice)
        # Where none had begun, the first is to blame: its input may be what killed the worker.
        ref = next((ref for ref, call in actor.queue.items() if call.number >= begun), None)
        blamed = self._settle(actor, ref) if ref is not None else None
        self._put_back(actor)
        self._remove(actor)
        if blamed:
            late = blamed.watch.killed is not None
            # One that was killed before it began was stopped between two calls: nobody's fault.
            place = None if late and blamed.watch.place is None else actor.place
            yield from self.lost(error, blamed.flights, place, late=late)

    def watch(self, now: float) -> Iterator[Outcome]:
        """Looks after actors that take too long, in a call or in setting up: kills them, then gives them up."""
        for actor in self._starting.values():
            if actor.setup.killed is None:
                _, setting_up, place = noticed(actor.notice)
                actor.setup.see(place, setting_up, now)
                if place is not None and actor.setup.is_late(now, SETUP_LIMIT_S):
                    self.kill(actor.setup, now)
                    ray.kill(actor.handle)
        for actor in list(self._actors):
            ref, call = next(iter(actor.queue.items()), (None, None))
            if ref is None or call is None:
                continue
            begun, _, _ = noticed(actor.notice)
            # An actor has no line to wait in, so one that does not begin is late as well.
            call.watch.see(actor.place if begun >= call.number else None, False, now)
            if call.watch.is_late(now, self.limit_s(call)):
                self.kill(Watch(actor.place), now)
                call.watch.killed = now
                ray.kill(actor.handle)
            elif call.watch.is_lost(now) and actor.place is not None:
                self._settle(actor, ref)
                self._put_back(actor)
                self._remove(actor)
                self.lost_places.append(actor.place)
                yield from self.timed_out(call.flights, actor.place)

    def places(self) -> list[Place]:
        """Where calls are known to run."""
        calls = (call for actor in self._actors for call in actor.queue.values())
        return [call.watch.place for call in calls if call.watch.place]

    def _put_back(self, actor: _Actor) -> None:
        """What is queued at this actor goes to another, unblamed."""
        flights = [f for ref in list(actor.queue) for f in self._settle(actor, ref).flights]
        self.ready.extendleft(reversed(flights))

    def _remove(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        ray.kill(actor.handle)
        internal_kv._internal_kv_del(actor.notice, namespace=KV)
        self._changed()

    def _changed(self) -> None:
        up, coming = len(self._actors), len(self._starting)
        self._tell(PoolChanged(step=self.step.name, ready=up, starting=coming, at=now_utc()))

    def abandon(self) -> None:
        for actor in (*self._starting.values(), *self._actors):
            ray.kill(actor.handle)
        self._starting.clear()
        self._actors.clear()
        self._of.clear()
        internal_kv._internal_kv_del(self._prefix, del_by_prefix=True, namespace=KV)
