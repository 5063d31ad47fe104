"""What runs in Ray's worker processes: the bodies of tasks and actors, and how they tell the driver where they are."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.experimental import internal_kv

from vidproc.runtime.processes import birth_of
from vidproc.runtime.retry import Fault
from vidproc.runtime.worker import Note, answer, attempt, fault_of, is_loaded, load, overgrown

MAX_CALLS_PER_PROCESS = 10_000
"""Calls of one step, after which a task's worker process makes way for a fresh one in any case."""
KV = b"vidproc"
"""Namespace of our keys in the cluster's key-value store."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker process is, and where its last words will be: Ray gives each its own file for
    standard error, and there the watchdog and the fault handler write before the process dies."""

    host: str
    node_id: str
    log: str
    pid: int
    birth: str
    """Tells this process from a later one with the same number; see `birth_of`."""

    @classmethod
    def here(cls) -> Place:
        try:
            path = os.readlink("/proc/self/fd/2")
        except OSError:
            path = ""
        node_id = ray.get_runtime_context().get_node_id()
        return cls(socket.gethostname(), node_id, path, os.getpid(), birth_of(os.getpid()))


@dataclass(frozen=True, slots=True)
class CallMark:
    """Which call of a step this is, and the key under which it tells the driver that it has begun."""

    key: bytes
    number: int
    """In order of submission, from 1; 0: an actor that is setting up."""


def task_of(name: str) -> Callable[..., Any]:
    """A function of its own for each step: Ray queues the calls of one function in one line, and
    publishing must not stand behind all decoding."""

    def run(step_hash: str, pickled: bytes, mark: CallMark, is_last: bool, *items: Any) -> Any:
        return _run_task(name, step_hash, pickled, mark, is_last, items)

    run.__name__ = run.__qualname__ = name
    return run


def _run_task(name: str, step_hash: str, pickled: bytes, mark: CallMark, is_last: bool, items: Sequence[Any]) -> Any:
    # If this process dies, the driver learns here which one it was, and that it had begun (0.4 ms).
    setting_up = not is_loaded(step_hash)
    give_notice(mark, setting_up)
    try:
        step = load(step_hash, pickled)
    except (Exception, SystemExit) as error:
        return answer([(None, Note(fault_of(error, name), 0.0)) for _ in items], is_last)
    if setting_up:
        give_notice(mark, False)
    is_last_call = overgrown(step.needs)  # before the attempt: afterwards its output is still held here
    pairs = [attempt(step, item) for item in items]
    if is_last_call or any(note.fault and note.fault.kind == "memory" for _, note in pairs):
        _end_after_this_call()
    return answer(pairs, is_last)


def give_notice(mark: CallMark, setting_up: bool) -> None:
    """Tell the driver which call has begun, and where; `setting_up`: the step is being loaded first, which has a time
    limit of its own."""
    notice = pickle.dumps((mark.number, setting_up, Place.here()))
    internal_kv._internal_kv_put(mark.key, notice, overwrite=True, namespace=KV)


def noticed(key: bytes) -> tuple[int, bool, Place | None]:
    """Return the notice that was given last: the call's number, whether it was setting up, and where. (0, False, None):
    none was given."""
    notice = internal_kv._internal_kv_get(key, namespace=KV)
    number, setting_up, place = pickle.loads(notice) if notice else (0, False, None)
    return number, setting_up, place


def _end_after_this_call() -> None:
    """Ray ends a worker once its answer is out and one function was called `max_calls` times; that is the one way
    to end it which costs no call. So its count is put forward. A Ray which counts elsewhere lets it live on."""
    with contextlib.suppress(AttributeError):
        counts = ray._private.worker.global_worker.function_actor_manager._num_task_executions
        counts.update(dict.fromkeys(counts, MAX_CALLS_PER_PROCESS - 1))


class ActorBody:
    """Lives in an actor process. A failed setup is told, not raised: the driver decides."""

    def __init__(self, name: str, step_hash: str, pickled: bytes, notice: bytes) -> None:
        self._notice = notice
        self._fault: Fault | None = None
        give_notice(CallMark(notice, 0), True)
        try:
            self._step = load(step_hash, pickled)
        except (Exception, SystemExit) as error:
            self._fault = fault_of(error, name)

    def ready(self) -> tuple[Fault | None, Place]:
        return self._fault, Place.here()

    def run(self, number: int, is_last: bool, *items: Any) -> Any:
        # A death can swallow the answer of the call before: the driver learns here which one had begun.
        give_notice(CallMark(self._notice, number), False)
        return answer([attempt(self._step, item) for item in items], is_last)
