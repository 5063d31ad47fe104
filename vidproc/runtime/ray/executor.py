"""The Ray executor: stateless steps are tasks, stateful steps live in pools of actors.

Ray never retries for us (`max_retries=0`, `max_restarts=0`): its counters mix lost machines with
poisonous units. The loop in runtime/executor.py decides; blame.py and the groups of workers say exactly whose
fault it was:

- An exception is caught in the worker and comes back as text (`Fault`). The worker lives on, unless
  it ran out of memory: who knows what that left behind. One that grew from task to task ends too.
- A worker that dies (crash, time limit, memory limit) takes one unit with it. Of an actor's queue
  only the head was running; the others go back to the pool unblamed. A batch runs again one by one.
- A lost node or a lost output is nobody's fault, and the unit starts again at its first step.
- A worker that is stopped, or stuck in the kernel, cannot keep its own time limit. So the driver has a deadline too,
  `timing.GRACE_S` later, counted from when it learns that the call runs; waiting for a worker does not count. It kills
  the process. Where even that does not end the call, the call is given up and the worker's slot is lost; when nothing
  can run any more for lost slots, the run ends.

An output travels through the object store from worker to worker; the driver sees a small note.

CPUs. Actors hold their CPUs for the whole run, so on a small machine they could leave none for the
tasks which feed them, and nothing would ever move. On a Ray which we start ourselves, "CPUs" are
slots: as many as there are cores for tasks, plus those that the actors ask for. Both kinds then run
side by side, the operating system shares the cores, and the bounded window keeps either from
running ahead. On a cluster which we join, pools grow only as far as there is room for a task too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import ray
import ray.exceptions as rx

from vidproc.errors import RunAborted
from vidproc.machine import cpu_count, memory_bytes
from vidproc.runtime.events import ClusterJoined, Listener
from vidproc.runtime.executor import (
    DEFAULT_LIMITS,
    ONE_MACHINE_BYTES,
    POLL_S,
    Admission,
    Ahead,
    Feed,
    Limits,
    Loop,
    Stop,
)
from vidproc.runtime.ray.capacity import BESIDE, fits_somewhere, living_nodes, now_utc, steps_of, too_small
from vidproc.runtime.ray.cluster import Head, find, join
from vidproc.runtime.ray.messages import in_short
from vidproc.runtime.ray.own_ray import OwnRay, store_bytes
from vidproc.runtime.ray.workers import RayWorkers
from vidproc.runtime.step import AnyStep
from vidproc.runtime.units import UnitEnd
from vidproc.settings import PoolSize


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
                find(self._address)  # refuses an address where no cluster answers
            while (ahead := Ahead(feed, routes)).empty:  # a run with nothing to do needs no Ray
                if feed.exhausted or self._stop:
                    return
                time.sleep(POLL_S)
            feed = ahead
            self.start(routes, limits, listeners)
            admission = Admission(routes, limits)
            workers = RayWorkers(
                routes,
                limits,
                listeners,
                admission,
                task_slots=float(self._num_workers) if self._own else None,
                joined=self._joined,
                own=OwnRay.running,
                health=self._health,
            )
            yield from Loop(
                feed, routes, limits, listeners, workers=workers, admission=admission, stop=self._stop
            ).run()
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
        if address := find(self._address):
            travels = join(address)
            self._joined, self._health = True, Head(address).silent
            for listen in listeners:
                listen(ClusterJoined(address=address, travels=travels, at=now_utc()))
            return
        steps = steps_of(routes).values()
        for step in steps:
            if step.needs.memory_bytes > memory_bytes():
                raise too_small(step)
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
            if not fits_somewhere(step.needs, living_nodes()):
                self.close()
                raise too_small(step)
