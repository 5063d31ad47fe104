"""The Ray executor: stateless steps are tasks, stateful steps live in pools of actors.

Ray never retries for us (`max_retries=0`, `max_restarts=0`): its counters mix lost machines with
poisonous units. The loop in executor.py decides; this file says exactly who is to blame:

- An exception is caught in the worker and comes back as text (`Fault`). The worker lives on.
- A worker that dies (crash, time limit, memory limit) takes one unit with it. Of an actor's queue
  only the head was running; the others go back to the pool unblamed. A batch runs again one by one.
- A lost node or a lost output is nobody's fault, and the unit starts again at its first step.

An output travels through the object store from worker to worker; the driver sees a small note.

CPUs. Actors hold their CPUs for the whole run, so on a small machine they could leave none for the
tasks which feed them, and nothing would ever move. On a Ray which we start ourselves, "CPUs" are
slots: as many as there are cores for tasks, plus those that the actors ask for. Both kinds then run
side by side, the operating system shares the cores, and the bounded window keeps either from
running ahead. On a cluster which we join, pools grow only as far as there is room for a task too.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import hashlib
import itertools
import logging
import os
import resource
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
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

from vidproc.errors import ConfigError, RunAborted
from vidproc.runtime.events import Event, Listener, PoolChanged, PoolWaiting, SetupFailed
from vidproc.runtime.executor import (
    DEFAULT_LIMITS,
    Admission,
    Done,
    Feed,
    Flight,
    Limits,
    PoolSize,
    Stop,
    UnitEnd,
    drive,
)
from vidproc.runtime.retry import ERROR_CLASSES, Fault, Kind, understand
from vidproc.step import AnyStep, Resources

log = logging.getLogger(__name__)

DEPTH = 2
"""Calls that an actor holds: one that runs, one whose input is being fetched meanwhile."""
MAX_BAD_SETUPS = 5
"""Actors of a pool which may fail to come up, in a row, before the run stops."""
SETUP_LIMIT_S = 1800.0
"""For `Step.setup`: weights may have to be downloaded first."""
WAITING_AFTER_S = 10.0
"""A pool without an actor for so long is worth an event; and again after each such time."""
IDLE_S = 60.0
"""An actor above the minimum with nothing to do for so long is let go."""
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
class _Note:
    """What the driver learns of one unit's attempt."""

    fault: Fault | None
    seconds: float


_steps: dict[str, AnyStep] = {}  # of this worker process, set up, by the hash of their pickle


def _load(step_hash: str, pickled: bytes) -> AnyStep:
    step = _steps.get(step_hash)
    if step is None:
        step = cloudpickle.loads(pickled)
        with _limits(step.needs, SETUP_LIMIT_S):
            step.setup()
        _steps[step_hash] = step
    return step


@contextlib.contextmanager
def _limits(needs: Resources, seconds: float) -> Iterator[None]:
    """The worker dies if the body takes longer (the watchdog needs no GIL, so it stops a stuck C
    call too, after writing all stacks to the worker's log), and the body gets MemoryError, or the
    worker dies, if it asks for more private memory. Object store pages are shared, so not counted.
    CUDA maps far more than it uses: a step on a GPU has no memory limit of this kind."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limited = not needs.gpus and sys.platform == "linux"
    if limited:
        resource.setrlimit(resource.RLIMIT_DATA, (_private_bytes() + needs.memory_bytes, hard))
    try:
        yield
    finally:
        if limited:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        faulthandler.cancel_dump_traceback_later()


def _private_bytes() -> int:
    with open("/proc/self/status", "rb") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(b"VmData")) * 1024


def _attempt(step: AnyStep, item: Any) -> tuple[Any, _Note]:
    started = time.perf_counter()
    try:
        with _limits(step.needs, step.needs.time_limit_s):
            output = step(item)
        return output, _Note(None, time.perf_counter() - started)
    except (Exception, SystemExit) as error:
        fault = understand(error, stage=step.name, host=socket.gethostname())
        return None, _Note(fault, time.perf_counter() - started)


def _attempts(step: AnyStep, is_last: bool, items: Sequence[Any]) -> Any:
    """One call: `[(output, note), ...]` after a route's last step; before that the outputs one by
    one, each its own object in the store, and the notes at the end."""
    pairs = [_attempt(step, item) for item in items]
    return pairs if is_last else (*(output for output, _ in pairs), [note for _, note in pairs])


def _run_task(name: str, step_hash: str, pickled: bytes, is_last: bool, *items: Any) -> Any:
    try:
        step = _load(step_hash, pickled)
    except (Exception, SystemExit) as error:
        fault = understand(error, stage=name, host=socket.gethostname())
        failed = [(None, _Note(fault, 0.0)) for _ in items]
        return failed if is_last else (*(None for _ in items), [note for _, note in failed])
    return _attempts(step, is_last, items)


class _ActorBody:
    """Lives in an actor process. A failed setup is told, not raised: the driver decides."""

    def __init__(self, name: str, step_hash: str, pickled: bytes) -> None:
        self._fault: Fault | None = None
        try:
            self._step = _load(step_hash, pickled)
        except (Exception, SystemExit) as error:
            self._fault = understand(error, stage=name, host=socket.gethostname())

    def ready(self) -> tuple[Fault | None, str]:
        return self._fault, socket.gethostname()

    def run(self, is_last: bool, *items: Any) -> Any:
        return _attempts(self._step, is_last, items)


# ---- On the driver -------------------------------------------------------------------------------

Outcome = tuple[Flight, Done | Fault]


@dataclass(slots=True, eq=False)
class _Call:
    flights: list[Flight]
    outputs: list[Any]
    """Object references of the outputs, empty after a route's last step."""
    sent: float


class _Crew:
    """What tasks and pools share: the ready queue of one step, and reading a call's end."""

    def __init__(self, step: AnyStep, batch: int) -> None:
        self.step, self.batch = step, batch
        self.ready: deque[Flight] = deque()
        pickled: bytes = cloudpickle.dumps(step)  # type: ignore[no-untyped-call]
        self.step_hash = hashlib.blake2b(pickled, digest_size=16).hexdigest()
        # Small steps ride along with each call; a large one is put into the store once.
        self.pickled = pickled if len(pickled) < 32 << 10 else ray.put(pickled)

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
            return refs, _Call(flights, [], time.monotonic())
        *outputs, end = refs
        return end, _Call(flights, outputs, time.monotonic())

    @staticmethod
    def read(ref: Any, call: _Call) -> list[Outcome]:
        """Raises what Ray raises where the call did not come to its end."""
        answer = ray.get(ref)
        pairs = zip(call.outputs, answer, strict=True) if call.outputs else answer
        return [(f, note.fault or Done(out, note.seconds)) for f, (out, note) in zip(call.flights, pairs, strict=True)]

    def lost(self, error: rx.RayError, flights: list[Flight], *, sent: float, host: str) -> Iterator[Outcome]:
        """The call broke off while these units ran in it."""
        cause = getattr(error, "cause", None) or error  # RayTaskError wraps what an argument suffered
        if isinstance(cause, INFRASTRUCTURE) or getattr(cause, "preempted", False):
            for flight in flights:
                if isinstance(cause, rx.ObjectLostError):
                    flight.rewind()
                yield flight, self._fault("infrastructure", f"{type(cause).__name__}: {_first_line(cause)}", host)
        elif len(flights) > 1:
            for flight in flights:
                flight.alone = True
            self.ready.extendleft(reversed(flights))
        else:
            yield flights[0], self._death(cause, sent, host)

    def _death(self, cause: Exception, sent: float, host: str) -> Fault:
        limit = self.step.needs.time_limit_s
        if isinstance(cause, rx.OutOfMemoryError):
            return self._fault(
                "memory", f"the worker was killed in {self.step.name!r}: the node ran out of memory", host
            )
        if isinstance(cause, (rx.WorkerCrashedError, rx.ActorDiedError)):
            if time.monotonic() - sent >= limit:
                return self._fault("hang", f"{self.step.name!r} did not end within its {limit:g} s", host)
            return self._fault("crash", f"the worker process died in {self.step.name!r}", host)
        return self._fault("exception", f"{type(cause).__name__}: {_first_line(cause)}", host)

    def _fault(self, kind: Kind, error: str, host: str) -> Fault:
        return Fault(kind=kind, stage=self.step.name, error_class=ERROR_CLASSES[kind], error=error, host=host)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


class _Tasks(_Crew):
    """A stateless step: any worker may run it, each call is a task."""

    def __init__(self, step: AnyStep, batch: int, options: Mapping[str, Any]) -> None:
        super().__init__(step, batch)
        self._task, self._options = ray.remote(_run_task), {"name": step.name, "max_retries": 0, **options}
        self._by_returns: dict[int, Any] = {}
        self.calls: dict[Any, _Call] = {}

    def pump(self) -> None:
        while self.ready:
            flights = self.next_batch()
            returns = 1 if flights[0].is_last else len(flights) + 1
            task = self._by_returns.get(returns)
            if task is None:
                task = self._by_returns[returns] = self._task.options(num_returns=returns, **self._options)
            ref, call = self.send(task.remote, self.step.name, self.step_hash, self.pickled, flights=flights)
            self.calls[ref] = call

    def refs(self) -> Iterable[Any]:
        return self.calls

    def collect(self, ref: Any) -> Iterator[Outcome]:
        call = self.calls.pop(ref)
        try:
            yield from self.read(ref, call)
        except rx.RayError as error:
            yield from self.lost(error, call.flights, sent=call.sent, host="")

    def abandon(self) -> None:
        for ref in self.calls:
            ray.cancel(ref, force=True)
        self.calls.clear()


@dataclass(slots=True, eq=False)
class _Actor:
    handle: Any
    born: float
    host: str = ""
    queue: dict[Any, _Call] = field(default_factory=dict)
    """By reference, in order of submission, which is the order in which the actor runs them."""
    last_end: float = 0.0


class _Pool(_Crew):
    """A stateful step: actors that keep what `setup` loaded."""

    def __init__(
        self,
        step: AnyStep,
        batch: int,
        options: Mapping[str, Any],
        size: PoolSize,
        room: int,
        demand: Callable[[], int],
        tell: Callable[[Event], None],
    ) -> None:
        super().__init__(step, batch)
        self._class = ray.remote(_ActorBody).options(max_restarts=0, max_task_retries=0, **options)
        self._wants = {"CPU": step.needs.cpus, "GPU": step.needs.gpus, "memory": float(step.needs.memory_bytes)}
        self.min = size.min
        self.max = max(size.min, room if size.max is None else size.max)
        self._demand, self._tell = demand, tell
        self.starting: dict[Any, _Actor] = {}
        self.actors: list[_Actor] = []
        self._of: dict[Any, _Actor] = {}
        self._bad_setups = 0
        self._told = time.monotonic()

    def pump(self) -> None:
        now = time.monotonic()
        want = min(self.max, max(self.min, -(-self._demand() // (DEPTH * self.batch))))
        while len(self.starting) + len(self.actors) < want:
            actor = _Actor(self._class.remote(self.step.name, self.step_hash, self.pickled), now)
            self.starting[actor.handle.ready.remote()] = actor
            self._changed()
        if len(self.actors) > want:
            self._let_one_go(now)
        if not self.actors and now - self._told > WAITING_AFTER_S:
            self._told = now
            waited = now - min(a.born for a in self.starting.values())
            why = "the cluster has no room for an actor yet, or it is still loading"
            self._tell(PoolWaiting(step=self.step.name, waited_s=waited, wants=self._wants, why=why, at=_now()))
        while self.ready and self.actors:
            actor = min(self.actors, key=lambda a: len(a.queue))
            if len(actor.queue) >= DEPTH:
                return
            flights = self.next_batch()
            returns = 1 if flights[0].is_last else len(flights) + 1
            ref, call = self.send(actor.handle.run.options(num_returns=returns).remote, flights=flights)
            actor.queue[ref] = call
            self._of[ref] = actor

    def _let_one_go(self, now: float) -> None:
        idle = next((a for a in self.actors if not a.queue and now - a.last_end > IDLE_S), None)
        if idle is not None:
            self._remove(idle)

    def refs(self) -> Iterable[Any]:
        return itertools.chain(self.starting, self._of)

    def collect(self, ref: Any) -> Iterator[Outcome]:
        if actor := self.starting.pop(ref, None):
            self._came_up(actor, ref)
            return
        ended = self._of.get(ref)
        if ended is None:
            return  # its actor died, and the whole queue was settled then
        try:
            outcomes = self.read(ref, ended.queue[ref])
        except rx.RayActorError as error:
            yield from self._died(ended, error)
            return
        except rx.RayError as error:  # an input was lost; the actor lives
            call = self._settle(ended, ref)
            yield from self.lost(error, call.flights, sent=call.sent, host=ended.host)
            return
        self._settle(ended, ref)
        yield from outcomes
        # A CUDA error poisons its whole process: what is queued behind it must not fail of it too.
        if self.step.needs.gpus and any(
            isinstance(o, Fault) and o.kind in ("exception", "memory") for _, o in outcomes
        ):
            yield from self._replace(ended)

    def _settle(self, actor: _Actor, ref: Any) -> _Call:
        del self._of[ref]
        actor.last_end = time.monotonic()
        return actor.queue.pop(ref)

    def _came_up(self, actor: _Actor, ref: Any) -> None:
        try:
            fault, actor.host = ray.get(ref)
        except rx.RayError as error:
            fault = self._fault("crash", f"its worker died: {_first_line(error)}", "")
        if fault is None:
            self._bad_setups = 0
            actor.last_end = time.monotonic()
            self.actors.append(actor)
            self._changed()
            return
        ray.kill(actor.handle)
        self._bad_setups += 1
        self._tell(SetupFailed(step=self.step.name, fault=fault, in_a_row=self._bad_setups, at=_now()))
        if fault.kind == "config":
            raise ConfigError(fault.error)
        if fault.kind == "media" or self._bad_setups >= MAX_BAD_SETUPS:
            raise RunAborted(f"no worker of the step {self.step.name!r} comes up: {fault.error}")

    def _died(self, actor: _Actor, error: rx.RayActorError) -> Iterator[Outcome]:
        """Blames the head of its queue alone: nothing else was running."""
        head_found = False
        for ref, call in list(actor.queue.items()):
            sent = max(call.sent, actor.last_end)
            self._settle(actor, ref)
            try:
                yield from self.read(ref, call)  # had ended just before the death
            except rx.RayError:
                if head_found:
                    self.ready.extendleft(reversed(call.flights))
                else:
                    yield from self.lost(error, call.flights, sent=sent, host=actor.host)
                head_found = True
        self._remove(actor)

    def _replace(self, actor: _Actor) -> Iterator[Outcome]:
        self._remove(actor)
        for ref, call in list(actor.queue.items()):
            self._settle(actor, ref)
            self.ready.extendleft(reversed(call.flights))
        yield from ()

    def _remove(self, actor: _Actor) -> None:
        self.actors.remove(actor)
        ray.kill(actor.handle)
        self._changed()

    def _changed(self) -> None:
        self._tell(PoolChanged(step=self.step.name, ready=len(self.actors), starting=len(self.starting), at=_now()))

    def abandon(self) -> None:
        for actor in (*self.starting.values(), *self.actors):
            ray.kill(actor.handle)
        self.starting.clear()
        self.actors.clear()
        self._of.clear()


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
        task_cpus: float,
    ) -> None:
        self.max_bytes = limits.max_bytes

        def tell(event: Event) -> None:
            for listen in listeners:
                listen(event)

        self._crews: dict[str, _Tasks | _Pool] = {}
        by_name: dict[str, AnyStep] = {}
        for steps in routes.values():
            for step in steps:
                if by_name.setdefault(step.name, step) is not step:
                    raise ConfigError(f"two different steps are named {step.name!r}")
        total = ray.cluster_resources()  # type: ignore[no-untyped-call]
        for name, step in by_name.items():
            options = _options(step.needs)
            batch = limits.batch.get(name, 1)
            if not step.stateful:
                self._crews[name] = _Tasks(step, batch, options)
                continue
            used_in = tuple(route for route, steps in routes.items() if step in steps)
            self._crews[name] = _Pool(
                step,
                batch,
                options,
                limits.pools.get(name, PoolSize()),
                _room(step.needs, total, task_cpus),
                partial(admission.in_flight_of, used_in),
                tell,
            )

    def submit(self, flight: Flight) -> None:
        self._crews[flight.step.name].ready.append(flight)

    def wait(self, timeout_s: float) -> Iterator[Outcome]:
        crews = self._crews.values()
        for crew in crews:
            crew.pump()
        of = {ref: crew for crew in crews for ref in crew.refs()}
        if not of:
            time.sleep(timeout_s)
            return
        refs = list(of)
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        if not ready:
            ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s, fetch_local=False)
        for ref in ready:
            yield from of[ref].collect(ref)

    def abandon(self) -> None:
        for crew in self._crews.values():
            crew.abandon()


def _options(needs: Resources) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "memory": needs.memory_bytes}
    if needs.accelerator_type:
        options["accelerator_type"] = needs.accelerator_type
    return options


def _room(needs: Resources, total: Mapping[str, float], task_cpus: float) -> int:
    """Actors for which the cluster has room by default."""
    if needs.gpus:
        return int(total.get("GPU", 0.0) / needs.gpus)
    return int((total.get("CPU", 0.0) - task_cpus) / max(needs.cpus, 0.01))


class RayExecutor:
    """`address`: "local" starts a Ray of our own on this machine and stops it on close; "auto" (or
    None) joins the cluster of RAY_ADDRESS or of this machine if there is one, else is "local";
    anything else is joined. A Ray which this process has already initialised is used as it is."""

    def __init__(self, address: str | None = None, *, num_workers: int | None = None) -> None:
        """`num_workers`: task slots of a Ray that we start; default: the CPU cores we may use."""
        self._address = address or "auto"
        self._num_workers = num_workers or len(os.sched_getaffinity(0))
        self._stop = Stop()
        self._ours: str | None = None  # folder of the Ray that we started
        self._joined = False

    def run(
        self,
        feed: Feed,
        routes: Mapping[str, Sequence[AnyStep]],
        limits: Limits = DEFAULT_LIMITS,
        listeners: Sequence[Listener] = (),
    ) -> Iterator[UnitEnd]:
        try:
            self._connect(routes, limits)
            admission = Admission(routes, limits, limits.max_bytes)
            workers = _OnRay(routes, limits, listeners, admission, float(self._num_workers) if self._ours else 1.0)
            yield from drive(feed, routes, limits, listeners, workers, admission, self._stop)
        except rx.RayError as error:
            raise RunAborted(f"the Ray cluster failed: {type(error).__name__}: {_first_line(error)}") from error

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        if self._ours or self._joined:
            ray.shutdown()
        if self._ours:
            shutil.rmtree(self._ours, ignore_errors=True)
            atexit.unregister(self.close)
        self._ours, self._joined = None, False

    def _connect(self, routes: Mapping[str, Sequence[AnyStep]], limits: Limits) -> None:
        if ray.is_initialized():
            return
        with _quietly():
            if self._address != "local" and self._join():
                return
            with _own_cluster_environment():
                self._start(routes, limits)

    def _join(self) -> bool:
        try:
            ray.init(self._address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, rx.RayError, RuntimeError, ValueError) as error:
            if self._address == "auto" and "RAY_ADDRESS" not in os.environ:
                return False
            raise ConfigError(
                f"no Ray cluster answers at {self._address!r} ({_first_line(error)}): check --address and "
                "RAY_AUTH_TOKEN, or say --address local"
            ) from error
        self._joined = True
        return True

    def _start(self, routes: Mapping[str, Sequence[AnyStep]], limits: Limits) -> None:
        slots = float(self._num_workers)
        for step in {id(s): s for steps in routes.values() for s in steps}.values():
            if step.stateful:
                size = limits.pools.get(step.name, PoolSize())
                slots += step.needs.cpus * (size.max or max(size.min, int(self._num_workers / max(step.needs.cpus, 1))))
        self._ours = tempfile.mkdtemp(prefix="vidproc-ray-", dir="/tmp")  # short: sockets lie below it
        atexit.register(self.close)
        ray.init(
            "local",
            num_cpus=int(slots + 0.999),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_store_bytes(limits.max_bytes),
            _temp_dir=self._ours,
        )


def _store_bytes(max_bytes: int) -> int:
    """Twice the window, since the store frees in the background; within what shared memory holds."""
    try:
        shared = shutil.disk_usage("/dev/shm").free
    except OSError:
        shared = 2 << 30
    return max(128 << 20, min(2 * max_bytes + (256 << 20), int(0.5 * shared)))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """`ray.init` without its messages on standard output, and with our SIGTERM handler kept."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # we look at every error ourselves
    # Ray prints each dead worker to standard output, which belongs to `--json`.
    ray._private.worker.print_to_stdstream = lambda data, ignore_prefix: log.debug("ray: %s", data.get("lines"))
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if in_main else None
    try:
        yield
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, handler)


_LOCAL_TOKEN = secrets.token_hex(32)


@contextlib.contextmanager
def _own_cluster_environment() -> Iterator[None]:
    """What the processes of a Ray of our own inherit: our import path, and a token of this process,
    without which Ray would write one into the home folder."""
    ours = {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path), "RAY_AUTH_TOKEN": _LOCAL_TOKEN}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
