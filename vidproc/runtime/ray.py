"""The Ray executor: stateless steps are tasks, stateful steps live in pools of actors.

Ray never retries for us (`max_retries=0`, `max_restarts=0`): its counters mix lost machines with
poisonous units. The loop in executor.py decides; this file says exactly who is to blame:

- An exception is caught in the worker and comes back as text (`Fault`). The worker lives on, unless
  it ran out of memory: who knows what that left behind. One that grew from task to task ends too.
- A worker that dies (crash, time limit, memory limit) takes one unit with it. Of an actor's queue
  only the head was running; the others go back to the pool unblamed. A batch runs again one by one.
- A lost node or a lost output is nobody's fault, and the unit starts again at its first step.
- A worker that is stopped, or stuck in the kernel, cannot keep its own time limit. So the driver has a deadline too,
  `GRACE_S` later, counted from when it learns that the call runs; waiting for a worker does not count. It kills the
  process. Where even that does not end the call, the call is given up and the worker's slot is lost; when nothing can
  run any more for lost slots, the run ends.

An output travels through the object store from worker to worker; the driver sees a small note.

CPUs. Actors hold their CPUs for the whole run, so on a small machine they could leave none for the
tasks which feed them, and nothing would ever move. On a Ray which we start ourselves, "CPUs" are
slots: as many as there are cores for tasks, plus those that the actors ask for. Both kinds then run
side by side, the operating system shares the cores, and the bounded window keeps either from
running ahead. On a cluster which we join, pools grow only as far as there is room for a task too.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import math
import os
import pickle
import secrets
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import ray
import ray.exceptions as rx
from ray import cloudpickle
from ray.autoscaler import sdk
from ray.experimental import internal_kv
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vidproc.errors import ConfigError, NeverComesUp, RunAborted
from vidproc.machine import cpu_count, memory_bytes
from vidproc.runtime.cluster import Head, OwnRay, in_short, join, store_bytes
from vidproc.runtime.cluster import find as _find
from vidproc.runtime.cluster import join_or_start as join_or_start
from vidproc.runtime.events import ClusterJoined, Event, Listener, PoolChanged, PoolWaiting, SetupFailed, said
from vidproc.runtime.executor import (
    DEFAULT_LIMITS,
    ONE_MACHINE_BYTES,
    POLL_S,
    Admission,
    Ahead,
    Done,
    Feed,
    Flight,
    Limits,
    Stop,
    drive,
)
from vidproc.runtime.pools import Room, share
from vidproc.runtime.retry import ERROR_CLASSES, Fault, Kind
from vidproc.runtime.step import AnyStep, Resources
from vidproc.runtime.units import UnitEnd
from vidproc.runtime.worker import SETUP_LIMIT_S, Note, answer, attempt, fault_of, is_loaded, load, overgrown
from vidproc.settings import PoolSize

log = logging.getLogger(__name__)

DEPTH = 2
"""Calls that an actor holds: one that runs, one whose input is being fetched meanwhile."""
MAX_BAD_SETUPS = 5
"""Actors of a pool which may fail to come up, in a row, before the run stops."""
CALLS = 10_000
"""Of one step, after which a task's worker process makes way for a fresh one in any case."""
LOOK_EVERY_S = 5.0
"""How often the pools are fitted to the cluster."""
WAITING_AFTER_S = 10.0
"""A pool without an actor for so long is worth an event; and again after each such time."""
GRACE_S = 15.0
"""How much later than a worker's own time limit the driver ends it, and how long a killed process may take to die."""
LOOKED_INTO = 100
"""Calls that are asked, in one look, whether they have begun: a question takes 0.3 ms."""
IDLE_S = 60.0
"""An actor above the minimum with nothing to do for so long is let go."""
NO_PLACE = "the cluster has no such node yet"
KV = b"vidproc"
"""Namespace of our keys in the cluster's key-value store."""
INFRASTRUCTURE = (
    rx.NodeDiedError,
    rx.ObjectLostError,
    rx.LocalRayletDiedError,
    rx.ActorUnavailableError,
    rx.RuntimeEnvSetupError,
    rx.ObjectStoreFullError,
    rx.OutOfDiskError,
)


# ---- In the worker -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a worker process is, and where its last words will be: Ray gives each its own file for
    standard error, and there the watchdog and the fault handler write before the process dies."""

    host: str
    node_id: str
    log: str
    pid: int
    birth: str
    """Tells this process from a later one with the same number; see `_birth`."""

    @classmethod
    def here(cls) -> _Place:
        try:
            path = os.readlink("/proc/self/fd/2")
        except OSError:
            path = ""
        node_id = ray.get_runtime_context().get_node_id()
        return cls(socket.gethostname(), node_id, path, os.getpid(), _birth(os.getpid()))


def _birth(pid: int) -> str:
    """Return when the process began, and in which space its number counts; empty where that cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            started = file.read().rpartition(b")")[2].split()[19].decode()
        return f"{os.readlink('/proc/self/ns/pid')} {started}"
    except (OSError, IndexError):
        return ""


def _kill_process(pid: int, birth: str) -> bool:
    """Kill that very process; False: it is not here."""
    if not birth or _birth(pid) != birth:
        return False
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    return True


def _task_of(name: str) -> Callable[..., Any]:
    """A function of its own for each step: Ray queues the calls of one function in one line, and
    publishing must not stand behind all decoding."""

    def run(step_hash: str, pickled: bytes, notice: bytes, number: int, is_last: bool, *items: Any) -> Any:
        return _run_task(name, step_hash, pickled, notice, number, is_last, items)

    run.__name__ = run.__qualname__ = name
    return run


def _run_task(
    name: str, step_hash: str, pickled: bytes, notice: bytes, number: int, is_last: bool, items: Sequence[Any]
) -> Any:
    # If this process dies, the driver learns here which one it was, and that it had begun (0.4 ms).
    setting_up = not is_loaded(step_hash)
    _give_notice(notice, number, setting_up)
    try:
        step = load(step_hash, pickled)
    except (Exception, SystemExit) as error:
        return answer([(None, Note(fault_of(error, name), 0.0)) for _ in items], is_last)
    if setting_up:
        _give_notice(notice, number, False)
    is_last_call = overgrown(step.needs)  # before the attempt: afterwards its output is still held here
    pairs = [attempt(step, item) for item in items]
    if is_last_call or any(note.fault and note.fault.kind == "memory" for _, note in pairs):
        _end_after_this_call()
    return answer(pairs, is_last)


def _give_notice(key: bytes, number: int, setting_up: bool) -> None:
    """Tell the driver which call has begun, and where; `setting_up`: the step is being loaded first, which has a time
    limit of its own."""
    said = pickle.dumps((number, setting_up, _Place.here()))
    internal_kv._internal_kv_put(key, said, overwrite=True, namespace=KV)


def _noticed(key: bytes) -> tuple[int, bool, _Place | None]:
    """Return what was told last; (0, False, None): nothing."""
    said = internal_kv._internal_kv_get(key, namespace=KV)
    number, setting_up, place = pickle.loads(said) if said else (0, False, None)
    return number, setting_up, place


def _end_after_this_call() -> None:
    """Ray ends a worker once its answer is out and one function was called `max_calls` times; that is the one way
    to end it which costs no call. So its count is put forward. A Ray which counts elsewhere lets it live on."""
    with contextlib.suppress(AttributeError):
        counts = ray._private.worker.global_worker.function_actor_manager._num_task_executions
        counts.update(dict.fromkeys(counts, CALLS - 1))


class _ActorBody:
    """Lives in an actor process. A failed setup is told, not raised: the driver decides."""

    def __init__(self, name: str, step_hash: str, pickled: bytes, notice: bytes) -> None:
        self._notice = notice
        self._fault: Fault | None = None
        _give_notice(notice, 0, True)
        try:
            self._step = load(step_hash, pickled)
        except (Exception, SystemExit) as error:
            self._fault = fault_of(error, name)

    def ready(self) -> tuple[Fault | None, _Place]:
        return self._fault, _Place.here()

    def run(self, number: int, is_last: bool, *items: Any) -> Any:
        # A death can swallow the answer of the call before: the driver learns here which one had begun.
        _give_notice(self._notice, number, False)
        return answer([attempt(self._step, item) for item in items], is_last)


# ---- On the driver -------------------------------------------------------------------------------

Outcome = tuple[Flight, Done | Fault]


@dataclass(slots=True, eq=False)
class _Call:
    flights: list[Flight]
    outputs: list[Any]
    """Object references of the outputs, empty after a route's last step."""
    number: int = 0
    """Of the calls of one pool, in order of submission."""
    watch: _Watch = field(default_factory=lambda: _Watch())


@dataclass(slots=True, eq=False)
class _Watch:
    """What the driver knows of a call that has not ended. Times in seconds of the driver's own clock, which stands
    still while the driver sleeps."""

    place: _Place | None = None
    """Where it runs; None: it waits, or nothing was heard of it."""
    setting_up: bool = False
    since: float | None = None
    """When it was first seen in its present state: waiting, setting up or running."""
    killed: float | None = None
    """When its process was killed for being too late."""

    def see(self, place: _Place | None, setting_up: bool, now: float) -> None:
        if self.since is None or (place, setting_up) != (self.place, self.setting_up):
            self.place, self.setting_up, self.since = place, setting_up, now

    def is_late(self, now: float, limit_s: float) -> bool:
        limit_s = SETUP_LIMIT_S if self.setting_up else limit_s
        return self.killed is None and self.since is not None and now - self.since > limit_s + GRACE_S

    def is_lost(self, now: float) -> bool:
        """Its process was killed long ago, and lives on."""
        return self.killed is not None and now - self.killed > GRACE_S


class _Crew:
    """What tasks and pools share: the ready queue of one step, and reading a call's end."""

    def __init__(self, step: AnyStep, batch: int) -> None:
        self.step, self.batch = step, batch
        self.ready: deque[Flight] = deque()
        pickled: bytes = cloudpickle.dumps(step)  # type: ignore[no-untyped-call]
        self.step_hash = hashlib.blake2b(pickled, digest_size=16).hexdigest()
        # Small steps ride along with each call; a large one is put into the store once.
        self.pickled = pickled if len(pickled) < 32 << 10 else ray.put(pickled)
        self.lost_places: list[_Place] = []
        """Of workers that could not be ended: each holds its slot for good."""
        self._killers: list[Any] = []

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

    def send(self, remote: Callable[..., Any], *head: Any, flights: list[Flight]) -> tuple[Any, _Call]:
        """Submits; returns the reference which ends the call, and the call."""
        is_last = flights[0].is_last
        refs = remote(*head, is_last, *(f.payload for f in flights))
        if is_last:
            return refs, _Call(flights, [])
        *outputs, end = refs
        return end, _Call(flights, outputs)

    @staticmethod
    def read(ref: Any, call: _Call) -> list[Outcome]:
        """Raises what Ray raises where the call did not come to its end."""
        answer = ray.get(ref)
        pairs = zip(call.outputs, answer, strict=True) if call.outputs else answer
        return [(f, note.fault or Done(out, note.seconds)) for f, (out, note) in zip(call.flights, pairs, strict=True)]

    def limit_s(self, call: _Call) -> float:
        return self.step.needs.time_limit_s * len(call.flights)

    def kill(self, watch: _Watch, now: float) -> None:
        """End the worker of a call that is too late: from here if it is on this machine, else from its node."""
        watch.killed, place = now, watch.place
        if place is None or _kill_process(place.pid, place.birth):
            return
        there = NodeAffinitySchedulingStrategy(place.node_id, soft=False)
        killer = ray.remote(_kill_process).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        self._killers = [*self._killers[-20:], killer.remote(place.pid, place.birth)]

    def lost(
        self, error: rx.RayError, flights: list[Flight], place: _Place | None, *, late: bool = False
    ) -> Iterator[Outcome]:
        """The call broke off while these units ran in it. `place`: the worker, None: it never began. `late`: the
        driver has ended it."""
        cause = getattr(error, "cause", None) or error  # RayTaskError wraps what an argument suffered
        if place is not None and late:
            yield from self.timed_out(flights, place)
        elif place is None or _is_infrastructure(cause):
            for flight in flights:
                if isinstance(cause, rx.ObjectLostError):
                    flight.rewind()
                yield flight, self._fault("infrastructure", f"{type(cause).__name__}: {in_short(cause)}", place)
        elif len(flights) > 1:
            for flight in flights:
                flight.alone = True
            self.ready.extendleft(reversed(flights))
        else:
            yield flights[0], self._death(cause, place)

    def timed_out(self, flights: list[Flight], place: _Place) -> Iterator[Outcome]:
        """The call's worker did not keep the time limit itself. Of a batch nobody knows which unit it was."""
        if len(flights) > 1:
            for flight in flights:
                flight.alone = True
            self.ready.extendleft(reversed(flights))
            return
        limit = self.step.needs.time_limit_s
        error = f"{self.step.name!r} did not end within its {limit:g} s nor did its worker, which was stopped or stuck"
        yield flights[0], self._fault("hang", f"{error}: the driver has killed it", place)

    def _death(self, cause: Exception, place: _Place) -> Fault:
        name, limit = self.step.name, self.step.needs.time_limit_s
        if isinstance(cause, rx.OutOfMemoryError) or "NODE_OUT_OF_MEMORY" in str(cause):
            return self._fault("memory", f"the worker was killed in {name!r}: its node ran out of memory", place)
        if not isinstance(cause, (rx.WorkerCrashedError, rx.RayActorError)):  # its output cannot be pickled, say
            return self._fault("exception", f"{type(cause).__name__}: {in_short(cause)}", place)
        words = _last_words(place)
        first = words.partition("\n")[0]
        kind: Kind = "crash"
        if first.startswith("Timeout ("):
            kind, error = "hang", f"{name!r} did not end within its {limit:g} s, and its worker was ended"
        elif "bad_alloc" in words:
            kind, error = "memory", f"the worker process died in {name!r}: it asked for more memory than it may have"
        elif first.startswith("Fatal Python error: "):
            error = f"the worker process died in {name!r}: {first.removeprefix('Fatal Python error: ')}"
        else:
            error = f"the worker process died in {name!r} without a word: it was killed, or it left by itself"
        return self._fault(kind, error, place, traceback=words or None)

    def _fault(self, kind: Kind, error: str, place: _Place | None, traceback: str | None = None) -> Fault:
        return Fault(
            kind=kind,
            stage=self.step.name,
            error_class=ERROR_CLASSES[kind],
            error=error,
            traceback=traceback,
            host=place.host if place else "",
        )


def _is_infrastructure(cause: Exception) -> bool:
    return isinstance(cause, INFRASTRUCTURE) or getattr(cause, "preempted", False) or "its node has died" in str(cause)


def _last_words(place: _Place) -> str:
    """What a dead worker left in its log: from the watchdog's or the fault handler's first line on."""
    if place.host == socket.gethostname():
        tail = _tail(place.log)
    else:
        there = NodeAffinitySchedulingStrategy(place.node_id, soft=False)
        read = ray.remote(_tail).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        try:
            tail = ray.get(read.remote(place.log), timeout=5)
        except rx.RayError:
            return ""
    start = max(tail.rfind(mark) for mark in ("\nTimeout (", "\nFatal Python error: "))
    before = tail.rfind("\nterminate called", 0, max(start, 0) or None)  # C++ says why, before it aborts
    start = before if before >= 0 else start
    return tail[start:].strip() if start >= 0 else ""


def _tail(path: str) -> str:
    try:
        with open(path, "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - 16_384))
            return "\n" + f.read().decode("utf-8", "replace")
    except OSError:
        return ""


class _Tasks(_Crew):
    """A stateless step: any worker may run it, each call is a task."""

    def __init__(self, step: AnyStep, batch: int, options: Mapping[str, Any], at_once: int | None) -> None:
        super().__init__(step, batch)
        self._at_once = at_once
        self._task = ray.remote(max_calls=CALLS)(_task_of(step.name))
        self._options = {"name": step.name, "max_retries": 0, **options}
        self._by_returns: dict[int, Any] = {}
        self.calls: dict[Any, tuple[_Call, bytes, int]] = {}
        self._prefix = f"{secrets.token_hex(8)}:".encode()
        self._attempt = 0
        self._free: list[bytes] = []  # keys for notices, used again: as many as calls at once

    def pump(self) -> None:
        while self.ready and (self._at_once is None or len(self.calls) < self._at_once):
            flights = self.next_batch()
            returns = 1 if flights[0].is_last else len(flights) + 1
            task = self._by_returns.get(returns)
            if task is None:
                task = self._by_returns[returns] = self._task.options(num_returns=returns, **self._options)
            self._attempt += 1
            notice = self._free.pop() if self._free else self._prefix + str(self._attempt).encode()
            head = (self.step_hash, self.pickled, notice, self._attempt)
            ref, call = self.send(task.remote, *head, flights=flights)
            self.calls[ref] = call, notice, self._attempt

    def refs(self) -> Iterable[Any]:
        return self.calls

    def collect(self, ref: Any) -> Iterator[Outcome]:
        call, notice, attempt = self.calls.pop(ref)
        try:
            outcomes = self.read(ref, call)
        except rx.RayError as error:
            begun, _, place = _noticed(notice)
            late = call.watch.killed is not None
            yield from self.lost(error, call.flights, place if begun == attempt else None, late=late)
        else:
            yield from outcomes
        finally:
            self._free.append(notice)

    def watch(self, now: float) -> Iterator[Outcome]:
        """Looks after the calls that take too long: kills their workers, then gives them up."""
        asked = 0
        for ref, (call, notice, number) in list(self.calls.items()):
            watch = call.watch
            if (watch.place is None or watch.setting_up) and asked < LOOKED_INTO:
                asked += 1
                begun, setting_up, place = _noticed(notice)
                watch.see(place if begun == number else None, setting_up and begun == number, now)
            if watch.place is not None and watch.is_late(now, self.limit_s(call)):
                self.kill(watch, now)
                ray.cancel(ref, force=True)
            elif watch.place is not None and watch.is_lost(now):
                del self.calls[ref]  # its key for notices is not used again either: the worker may yet wake up
                self.lost_places.append(watch.place)
                yield from self.timed_out(call.flights, watch.place)

    def waits_too_long(self, now: float) -> bool:
        """A call that was handed out has not begun for so long that its worker may be stopped."""
        watches = [call.watch for call, _, _ in self.calls.values()]
        return any(w.place is None and w.is_late(now, self.step.needs.time_limit_s) for w in watches)

    def places(self) -> list[_Place]:
        """Where calls are known to run."""
        return [call.watch.place for call, _, _ in self.calls.values() if call.watch.place]

    def abandon(self) -> None:
        for ref in self.calls:
            ray.cancel(ref, force=True)
        self.calls.clear()
        internal_kv._internal_kv_del(self._prefix, del_by_prefix=True, namespace=KV)


@dataclass(slots=True, eq=False)
class _Actor:
    handle: Any
    notice: bytes
    """The key under which it says which call it began."""
    place: _Place | None = None
    """None until it is up."""
    queue: dict[Any, _Call] = field(default_factory=dict)
    """By reference, in order of submission, which is the order in which the actor runs them."""
    idle_since: float = 0.0
    retiring: bool = False
    setup: _Watch = field(default_factory=_Watch)


class _Pool(_Crew):
    """A stateful step: actors that keep what `setup` loaded."""

    def __init__(
        self,
        step: AnyStep,
        batch: int,
        options: Mapping[str, Any],
        minimum: int,
        first_wait_s: float,
        demand: Callable[[], int],
        tell: Callable[[Event], None],
    ) -> None:
        super().__init__(step, batch)
        self._class = ray.remote(_ActorBody).options(max_restarts=0, max_task_retries=0, **options)
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
            free = [a for a in self._actors if len(a.queue) < DEPTH and not a.retiring]
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
        want = min(self.room, max(self._min, -(-self._demand() // (DEPTH * self.batch))))
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
                if not actor.queue and now - actor.idle_since > IDLE_S:
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
        if now - self._told >= WAITING_AFTER_S:
            self._told = now
            self._tell(
                PoolWaiting(
                    step=self.step.name,
                    waited_s=now - self._empty_since,
                    wants=_wants(self.step.needs),
                    why="it is still loading, or its place is taken" if self.has_place else NO_PLACE,
                    at=_now(),
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

    def _settle(self, actor: _Actor, ref: Any) -> _Call:
        del self._of[ref]
        actor.idle_since = time.monotonic()
        return actor.queue.pop(ref)

    def _came_up(self, actor: _Actor, ref: Any) -> None:
        fault: Fault | None
        try:
            fault, actor.place = ray.get(ref)
        except rx.RayError as error:
            if _is_infrastructure(error):
                self._changed()
                return  # its node was lost: the next `pump` starts another
            fault = self._fault("crash", f"its worker died while setting up {self.step.name!r}", None)
            if actor.setup.killed is not None:
                why = f"its worker was stopped or stuck while setting up {self.step.name!r}"
                fault = self._fault("hang", why, actor.setup.place)
        if fault is None:
            self._bad_setups = 0
            actor.idle_since = time.monotonic()
            self._actors.append(actor)
            self._changed()
            return
        ray.kill(actor.handle)
        self._bad_setups += 1
        self._not_before = time.monotonic() + self._first_wait_s * 2.0 ** (self._bad_setups - 1)
        self._tell(SetupFailed(step=self.step.name, fault=fault, in_a_row=self._bad_setups, at=_now()))
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
        begun, _, _ = _noticed(actor.notice)
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
                _, setting_up, place = _noticed(actor.notice)
                actor.setup.see(place, setting_up, now)
                if place is not None and actor.setup.is_late(now, SETUP_LIMIT_S):
                    self.kill(actor.setup, now)
                    ray.kill(actor.handle)
        for actor in list(self._actors):
            ref, call = next(iter(actor.queue.items()), (None, None))
            if ref is None or call is None:
                continue
            begun, _, _ = _noticed(actor.notice)
            # An actor has no line to wait in, so one that does not begin is late as well.
            call.watch.see(actor.place if begun >= call.number else None, False, now)
            if call.watch.is_late(now, self.limit_s(call)):
                self.kill(_Watch(actor.place), now)
                call.watch.killed = now
                ray.kill(actor.handle)
            elif call.watch.is_lost(now) and actor.place is not None:
                self._settle(actor, ref)
                self._put_back(actor)
                self._remove(actor)
                self.lost_places.append(actor.place)
                yield from self.timed_out(call.flights, actor.place)

    def places(self) -> list[_Place]:
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
        self._tell(PoolChanged(step=self.step.name, ready=up, starting=coming, at=_now()))

    def abandon(self) -> None:
        for actor in (*self._starting.values(), *self._actors):
            ray.kill(actor.handle)
        self._starting.clear()
        self._actors.clear()
        self._of.clear()
        internal_kv._internal_kv_del(self._prefix, del_by_prefix=True, namespace=KV)


def _now() -> datetime:
    return datetime.now(UTC)


class _OnRay:
    """The `Workers` of executor.drive."""

    def __init__(
        self,
        routes: Mapping[str, Sequence[AnyStep]],
        limits: Limits,
        listeners: Sequence[Listener],
        admission: Admission,
        *,
        task_slots: float | None,
        joined: bool,
        own: OwnRay | None,
        health: Callable[[], str | None],
    ) -> None:
        """`task_slots`: CPUs which tasks always keep, None: as many as the largest task needs. `joined`: the cluster
        may be larger than this machine, and the window follows it. `health`: why nothing can run any more, or None."""
        self._listeners, self._admission, self._joined = listeners, admission, joined
        self._own, self._health = own, health
        self._steps = _steps_of(routes)
        self._crews: dict[str, _Tasks | _Pool] = {}
        for name, step in self._steps.items():
            batch, options = limits.batch.get(name, 1), _options(step.needs, own=task_slots is not None)
            if step.stateful:
                demand = partial(admission.in_flight_of, [r for r, steps in routes.items() if step in steps])
                least = limits.pools.get(name, PoolSize()).min
                self._crews[name] = _Pool(step, batch, options, least, limits.first_wait_s, demand, self._tell)
            else:
                self._crews[name] = _Tasks(step, batch, options, limits.at_once.get(name))
        self._pools = {n: c for n, c in self._crews.items() if isinstance(c, _Pool)}
        self._sizes = {n: limits.pools.get(n, PoolSize()) for n in self._pools}
        tasks = [s.needs for s in self._steps.values() if not s.stateful]
        largest = max((t.cpus for t in tasks), default=0.0)
        self._task_cpus = largest if task_slots is None else max(task_slots, largest)
        self._task_memory = max((t.memory_bytes for t in tasks), default=0)
        self._looked = self._told = 0.0
        self._asked = False
        self._clock = 0.0  # seconds that this process was awake
        self._watched = self._ticked = time.monotonic()
        self._watch_every_s = min([LOOK_EVERY_S, *(s.needs.time_limit_s / 4 for s in self._steps.values())])
        self._blocked_since: float | None = None
        self._look_at_cluster()

    def _tell(self, event: Event) -> None:
        for listen in self._listeners:
            listen(event)

    def submit(self, flight: Flight) -> None:
        self._crews[flight.step.name].ready.append(flight)

    def wait(self, timeout_s: float) -> Iterator[Outcome]:
        if why := self._health():
            raise RunAborted(f"the Ray cluster is gone: {why}")
        yield from self._watch()
        if time.monotonic() - self._looked > LOOK_EVERY_S:
            self._look_at_cluster()
        for crew in self._crews.values():
            crew.pump()
        of = {ref: crew for crew in self._crews.values() for ref in crew.refs()}
        if not of:
            time.sleep(timeout_s)
            return
        refs = list(of)
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        if not ready:
            ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s, fetch_local=False)
        for ref in ready:
            yield from of[ref].collect(ref)

    def _watch(self) -> Iterator[Outcome]:
        """Workers that do not keep their own time limits."""
        now = time.monotonic()
        self._clock += min(now - self._ticked, 2 * LOOK_EVERY_S)
        self._ticked = now
        if now - self._watched < self._watch_every_s:
            return
        self._watched = now
        for crew in self._crews.values():
            yield from crew.watch(self._clock)
        tasks = [crew for crew in self._crews.values() if isinstance(crew, _Tasks)]
        if self._own and any(crew.waits_too_long(self._clock) for crew in tasks):
            at_work = {place.pid for crew in self._crews.values() for place in crew.places()}
            self._own.kill_stopped(spared=at_work)
        self._end_if_blocked()

    def _end_if_blocked(self) -> None:
        """Ends the run when workers that cannot be ended hold all there is to work on."""
        lost = [place for crew in self._crews.values() for place in crew.lost_places]
        waits = any(crew.ready or any(True for _ in crew.refs()) for crew in self._crews.values())
        if not lost or not waits or any(crew.places() for crew in self._crews.values()):
            self._blocked_since = None
        elif self._blocked_since is None:
            self._blocked_since = self._clock
        elif self._clock - self._blocked_since > 2 * GRACE_S:
            where = ", ".join(sorted({f"{place.pid} on {place.host}" for place in lost}))
            raise RunAborted(
                f"{len(lost)} worker process(es) can neither go on nor be ended ({where}), and no other is left: look "
                "at what they wait for (a dead mount, a broken device), and run the same command again"
            )

    def _look_at_cluster(self) -> None:
        """Pools and the window follow the cluster: nodes come and go."""
        self._looked = time.monotonic()
        nodes = _nodes()
        total = {name: sum(node.get(name, 0.0) for node in nodes) for node in nodes for name in node}
        cpus = total.get("CPU", 0.0)
        self._admission.follow(
            cpus=cpus / cpu_count() if self._joined else 1.0,
            nodes=len(nodes) if self._joined else 1,
            store_bytes=total.get("object_store_memory", 0.0),
        )
        types = {kind for step in self._steps.values() if (kind := step.needs.accelerator_type)}
        of_type = {t: sum(n.get("GPU", 0.0) for n in nodes if _of_type(t) in n) for t in types}
        room = Room(cpus, total.get("GPU", 0.0), total.get("memory", 0.0) - self._task_memory, of_type)
        needs = {name: self._steps[name].needs for name in self._pools}
        sizes = share(needs, {name: size.max for name, size in self._sizes.items()}, room, self._task_cpus)
        for name, pool in self._pools.items():
            pool.room = sizes[name]
            pool.has_place = _fits_somewhere(needs[name], nodes)
        wanted = {name: max(size.max or size.min, sizes[name]) for name, size in self._sizes.items()}
        if wanted != sizes and not self._asked:
            # Actors beyond the room would take the CPUs of the tasks. So we start none, and ask an autoscaler,
            # if there is one, for a cluster that holds them all.
            actors = [_wants(needs[name]) for name, number in wanted.items() for _ in range(number)]
            sdk.request_resources(bundles=[*actors, {"CPU": self._task_cpus}])
            self._asked = True
        if self._looked - self._told > WAITING_AFTER_S:
            self._told = self._looked
            self._tell_what_cannot_run(nodes, room)

    def _tell_what_cannot_run(self, nodes: Sequence[Mapping[str, float]], room: Room) -> None:
        actors = sum(self._steps[name].needs.cpus for name in self._pools)
        for name, crew in self._crews.items():
            needs = self._steps[name].needs
            if isinstance(crew, _Pool) or not crew.calls:
                continue  # a pool tells by itself
            why = "" if _fits_somewhere(needs, nodes) else NO_PLACE
            if actors + needs.cpus > room.cpus:
                why = f"the cluster has {room.cpus:g} CPUs, and {actors:g} are held by the models"
            if why:
                self._tell(PoolWaiting(step=name, waited_s=WAITING_AFTER_S, wants=_wants(needs), why=why, at=_now()))

    def abandon(self) -> None:
        with contextlib.suppress(Exception):  # the cluster itself may be what failed
            for crew in self._crews.values():
                crew.abandon()
            if self._asked:
                sdk.request_resources(bundles=[])  # else it would outlast us


def _steps_of(routes: Mapping[str, Sequence[AnyStep]]) -> dict[str, AnyStep]:
    by_name: dict[str, AnyStep] = {}
    for step in itertools.chain.from_iterable(routes.values()):
        if by_name.setdefault(step.name, step) is not step:
            raise ConfigError(f"two different steps are named {step.name!r}")
    return by_name


def _wants(needs: Resources) -> dict[str, float]:
    wants = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": float(needs.memory_bytes)}
    if needs.accelerator_type:
        wants[_of_type(needs.accelerator_type)] = 0.001  # of the 1 that each such node has: Ray's own convention
    return {name: amount for name, amount in wants.items() if amount}


def _of_type(accelerator: str) -> str:
    """The resource by which Ray marks nodes with such GPUs."""
    return f"accelerator_type:{accelerator}"


def _nodes() -> list[dict[str, float]]:
    """What each living node of the cluster has in all."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _fits_somewhere(needs: Resources, nodes: Iterable[Mapping[str, float]]) -> bool:
    wants = _wants(needs)
    return any(all(node.get(name, 0.0) >= amount for name, amount in wants.items()) for node in nodes)


BESIDE = "vidproc_beside"
"""A resource of a Ray of our own: one call of a step that runs beside the others."""


def _options(needs: Resources, *, own: bool = False) -> dict[str, Any]:
    """`own`: for a Ray that we started."""
    options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "memory": needs.memory_bytes}
    if own and needs.beside:
        options |= {"num_cpus": 0, "resources": {BESIDE: 1}}
    if needs.accelerator_type:
        options["accelerator_type"] = needs.accelerator_type
    return options


class RayExecutor:
    """`address`: None and "local" start a Ray of our own on this machine, which `close` ends; but None joins the
    cluster of RAY_ADDRESS where that is set. "auto" joins that one, or the one on this machine; anything else is
    joined. A Ray which this process has already initialised is used as it is."""

    def __init__(self, address: str | None = None, *, num_workers: int | None = None) -> None:
        """`num_workers`: task slots of a Ray that we start; default: the CPUs we may use."""
        self._address = address
        self._num_workers = num_workers or cpu_count()
        self._stop = Stop()
        self._own: OwnRay | None = None
        self._joined = False
        self._health: Callable[[], str | None] = lambda: None

    def run(
        self,
        feed: Feed,
        routes: Mapping[str, Sequence[AnyStep]],
        limits: Limits = DEFAULT_LIMITS,
        listeners: Sequence[Listener] = (),
    ) -> Iterator[UnitEnd]:
        try:
            if not ray.is_initialized():
                _find(self._address)  # refuses an address where no cluster answers
            while (ahead := Ahead(feed, routes)).empty:  # a run with nothing to do needs no Ray
                if feed.exhausted or self._stop:
                    return
                time.sleep(POLL_S)
            feed = ahead
            self.start(routes, limits, listeners)
            admission = Admission(routes, limits)
            workers = _OnRay(
                routes,
                limits,
                listeners,
                admission,
                task_slots=float(self._num_workers) if self._own else None,
                joined=self._joined,
                own=OwnRay.running,
                health=self._health,
            )
            yield from drive(feed, routes, limits, listeners, workers, admission, self._stop)
        except rx.RayError as error:
            why = self._health() or f"{type(error).__name__}: {in_short(error)}"
            raise RunAborted(f"the Ray cluster failed: {why}") from error

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        if self._own:
            self._own.close()
        elif self._joined:
            ray.shutdown()
        self._own, self._joined = None, False

    def start(
        self,
        routes: Mapping[str, Sequence[AnyStep]],
        limits: Limits = DEFAULT_LIMITS,
        listeners: Sequence[Listener] = (),
    ) -> None:
        """Joins or starts the cluster (5 to 8 s), sized for these routes. `run` does so by itself."""
        if ray.is_initialized():
            if OwnRay.running:
                self._health = OwnRay.running.died
            return
        if address := _find(self._address):
            travels = join(address)
            self._joined, self._health = True, Head(address).silent
            for listen in listeners:
                listen(ClusterJoined(address=address, travels=travels, at=_now()))
            return
        steps = _steps_of(routes).values()
        for step in steps:
            if step.needs.memory_bytes > memory_bytes():
                raise _too_small(step)
        pools = [(s.needs, limits.pools.get(s.name, PoolSize())) for s in steps if s.stateful]
        actor_slots = max(float(self._num_workers), sum(n.cpus * (size.max or size.min) for n, size in pools))
        # Memory gates how many run at once, but one of each must always have room.
        least = sum(n.memory_bytes * size.min for n, size in pools)
        least += max((s.needs.memory_bytes for s in steps if not s.stateful), default=0)
        self._own = OwnRay(
            num_cpus=math.ceil(self._num_workers + actor_slots),
            object_store_memory=store_bytes(limits.max_bytes or ONE_MACHINE_BYTES),
            resources={BESIDE: 1},
            _memory=max(memory_bytes(), least),
        )
        self._health = self._own.died
        for step in steps:
            if not _fits_somewhere(step.needs, _nodes()):
                self.close()
                raise _too_small(step)


def _too_small(step: AnyStep) -> ConfigError:
    return ConfigError(
        f"this machine is too small for a worker of the step {step.name!r}, which asks for "
        f"{said(_wants(step.needs))}: ask for less, or join a cluster (--address)"
    )
