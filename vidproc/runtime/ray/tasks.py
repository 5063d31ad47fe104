"""The workers of a stateless step: any worker may run it, each call is a Ray task."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ray
import ray.exceptions as rx
from ray.experimental import internal_kv

from vidproc.runtime.ray.calls import Call, Outcome, WorkerGroup
from vidproc.runtime.ray.remote import KV, MAX_CALLS_PER_PROCESS, CallMark, Place, noticed, task_of
from vidproc.runtime.step import AnyStep

MAX_ASKED_PER_LOOK = 100
"""Calls that are asked, in one look, whether they have begun: a question takes 0.3 ms."""


class TaskWorkers(WorkerGroup):
    """A stateless step: any worker may run it, each call is a task."""

    def __init__(self, step: AnyStep, batch: int, options: Mapping[str, Any], at_once: int | None) -> None:
        super().__init__(step, batch)
        self._at_once = at_once
        self._task = ray.remote(max_calls=MAX_CALLS_PER_PROCESS)(task_of(step.name))
        self._options = {"name": step.name, "max_retries": 0, **options}
        self._by_returns: dict[int, Any] = {}
        self.calls: dict[Any, tuple[Call, bytes, int]] = {}
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
            head = (self.step_hash, self.pickled, CallMark(notice, self._attempt))
            ref, call = self.send(task.remote, *head, flights=flights)
            self.calls[ref] = call, notice, self._attempt

    def refs(self) -> Iterable[Any]:
        return self.calls

    def collect(self, ref: Any) -> Iterator[Outcome]:
        call, notice, attempt = self.calls.pop(ref)
        try:
            outcomes = self.read(ref, call)
        except rx.RayError as error:
            begun, _, place = noticed(notice)
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
            if (watch.place is None or watch.setting_up) and asked < MAX_ASKED_PER_LOOK:
                asked += 1
                begun, setting_up, place = noticed(notice)
                watch.see(place if begun == number else None, setting_up and begun == number, now)
            if watch.place is not None and watch.is_late(now, self.limit_s(call)):
                self.kill(watch, now)
                ray.cancel(ref, force=True)
            elif watch.place is not None and watch.is_lost(now):
                del self.calls[ref]  # its key for notices is not used again either: the worker may yet wake up
                self.lost_places.append(watch.place)
                yield from self.timed_out(call.flights, watch.place)

    def waits_too_long(self, now: float) -> bool:
        """Whether a call that was handed out has not begun within its time limit: its worker may be stopped."""
        watches = [call.watch for call, _, _ in self.calls.values()]
        return any(w.place is None and w.is_late(now, self.step.needs.time_limit_s) for w in watches)

    def places(self) -> list[Place]:
        """Where calls are known to run."""
        return [call.watch.place for call, _, _ in self.calls.values() if call.watch.place]

    def abandon(self) -> None:
        for ref in self.calls:
            ray.cancel(ref, force=True)
        self.calls.clear()
        internal_kv._internal_kv_del(self._prefix, del_by_prefix=True, namespace=KV)
