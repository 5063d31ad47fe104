"""Where steps run when they run on Ray: one group of workers for each step, fitted to the cluster as it changes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import ray
from ray.autoscaler import sdk

from vidproc.errors import RunAborted
from vidproc.machine import cpu_count
from vidproc.runtime.events import Event, Listener, PoolWaiting
from vidproc.runtime.executor import Admission, Flight, Limits
from vidproc.runtime.ray import timing
from vidproc.runtime.ray.actors import ActorPool
from vidproc.runtime.ray.calls import Outcome
from vidproc.runtime.ray.capacity import (
    NO_PLACE,
    fits_somewhere,
    living_nodes,
    now_utc,
    options_of,
    resource_of_type,
    steps_of,
    wants_of,
)
from vidproc.runtime.ray.own_ray import OwnRay
from vidproc.runtime.ray.sizing import Room, share
from vidproc.runtime.ray.tasks import TaskWorkers
from vidproc.runtime.step import AnyStep
from vidproc.settings import PoolSize


class RayWorkers:
    """The `Workers` of the loop in runtime/executor.py."""

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
        self._steps = steps_of(routes)
        self._groups: dict[str, TaskWorkers | ActorPool] = {}
        for name, step in self._steps.items():
            batch, options = limits.batch.get(name, 1), options_of(step.needs, own=task_slots is not None)
            if step.stateful:
                demand = partial(admission.in_flight_of, [r for r, steps in routes.items() if step in steps])
                least = limits.pools.get(name, PoolSize()).min
                self._groups[name] = ActorPool(
                    step, batch, options,
                    minimum=least, first_wait_s=limits.first_wait_s, demand=demand, tell=self._tell,
                )  # fmt: skip
            else:
                self._groups[name] = TaskWorkers(step, batch, options, limits.at_once.get(name))
        self._pools = {n: c for n, c in self._groups.items() if isinstance(c, ActorPool)}
        self._sizes = {n: limits.pools.get(n, PoolSize()) for n in self._pools}
        tasks = [s.needs for s in self._steps.values() if not s.stateful]
        largest = max((t.cpus for t in tasks), default=0.0)
        self._task_cpus = largest if task_slots is None else max(task_slots, largest)
        self._task_memory = max((t.memory_bytes for t in tasks), default=0)
        self._looked = self._told = 0.0
        self._asked = False
        self._clock = 0.0  # seconds that this process was awake
        self._watched = self._ticked = time.monotonic()
        self._watch_every_s = min([timing.LOOK_EVERY_S, *(s.needs.time_limit_s / 4 for s in self._steps.values())])
        self._blocked_since: float | None = None
        self._look_at_cluster()

    def _tell(self, event: Event) -> None:
        for listen in self._listeners:
            listen(event)

    def submit(self, flight: Flight) -> None:
        self._groups[flight.step.name].ready.append(flight)

    def wait(self, timeout_s: float) -> Iterator[Outcome]:
        if why := self._health():
            raise RunAborted(f"the Ray cluster is gone: {why}")
        yield from self._watch()
        if time.monotonic() - self._looked > timing.LOOK_EVERY_S:
            self._look_at_cluster()
        for group in self._groups.values():
            group.pump()
        of = {ref: group for group in self._groups.values() for ref in group.refs()}
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
        self._clock += min(now - self._ticked, 2 * timing.LOOK_EVERY_S)
        self._ticked = now
        if now - self._watched < self._watch_every_s:
            return
        self._watched = now
        for group in self._groups.values():
            yield from group.watch(self._clock)
        tasks = [group for group in self._groups.values() if isinstance(group, TaskWorkers)]
        if self._own and any(group.waits_too_long(self._clock) for group in tasks):
            at_work = {place.pid for group in self._groups.values() for place in group.places()}
            self._own.kill_stopped(spared=at_work)
        self._end_if_blocked()

    def _end_if_blocked(self) -> None:
        """Ends the run when workers that cannot be ended hold all there is to work on."""
        lost = [place for group in self._groups.values() for place in group.lost_places]
        waits = any(group.ready or any(True for _ in group.refs()) for group in self._groups.values())
        if not lost or not waits or any(group.places() for group in self._groups.values()):
            self._blocked_since = None
        elif self._blocked_since is None:
            self._blocked_since = self._clock
        elif self._clock - self._blocked_since > 2 * timing.GRACE_S:
            where = ", ".join(sorted({f"{place.pid} on {place.host}" for place in lost}))
            raise RunAborted(
                f"{len(lost)} worker process(es) can neither go on nor be ended ({where}), and no other is left: look "
                "at what they wait for (a dead mount, a broken device), and run the same command again"
            )

    def _look_at_cluster(self) -> None:
        """Pools and the window follow the cluster: nodes come and go."""
        self._looked = time.monotonic()
        nodes = living_nodes()
        total = {name: sum(node.get(name, 0.0) for node in nodes) for node in nodes for name in node}
        cpus = total.get("CPU", 0.0)
        self._admission.follow(
            cpus=cpus / cpu_count() if self._joined else 1.0,
            nodes=len(nodes) if self._joined else 1,
            store_bytes=total.get("object_store_memory", 0.0),
        )
        types = {kind for step in self._steps.values() if (kind := step.needs.accelerator_type)}
        of_type = {t: sum(n.get("GPU", 0.0) for n in nodes if resource_of_type(t) in n) for t in types}
        room = Room(cpus, total.get("GPU", 0.0), total.get("memory", 0.0) - self._task_memory, of_type)
        needs = {name: self._steps[name].needs for name in self._pools}
        sizes = share(needs, {name: size.max for name, size in self._sizes.items()}, room, self._task_cpus)
        for name, pool in self._pools.items():
            pool.room = sizes[name]
            pool.has_place = fits_somewhere(needs[name], nodes)
        wanted = {name: max(size.max or size.min, sizes[name]) for name, size in self._sizes.items()}
        if wanted != sizes and not self._asked:
            # Actors beyond the room would take the CPUs of the tasks. So we start none, and ask an autoscaler,
            # if there is one, for a cluster that holds them all.
            actors = [wants_of(needs[name]) for name, number in wanted.items() for _ in range(number)]
            sdk.request_resources(bundles=[*actors, {"CPU": self._task_cpus}])
            self._asked = True
        if self._looked - self._told > timing.WAITING_AFTER_S:
            self._told = self._looked
            self._tell_what_cannot_run(nodes, room)

    def _tell_what_cannot_run(self, nodes: Sequence[Mapping[str, float]], room: Room) -> None:
        actors = sum(self._steps[name].needs.cpus for name in self._pools)
        for name, group in self._groups.items():
            needs = self._steps[name].needs
            if isinstance(group, ActorPool) or not group.calls:
                continue  # a pool tells by itself
            why = "" if fits_somewhere(needs, nodes) else NO_PLACE
            if actors + needs.cpus > room.cpus:
                why = f"the cluster has {room.cpus:g} CPUs, and {actors:g} are held by the models"
            if why:
                self._tell(
                    PoolWaiting(
                        step=name, waited_s=timing.WAITING_AFTER_S, wants=wants_of(needs), why=why, at=now_utc()
                    )
                )

    def abandon(self) -> None:
        with contextlib.suppress(Exception):  # the cluster itself may be what failed
            for group in self._groups.values():
                group.abandon()
            if self._asked:
                sdk.request_resources(bundles=[])  # else it would outlast us
