"""Why a call broke off: whose fault it was, read from what Ray raises and from a dead worker's log."""

from __future__ import annotations

import os
import socket

import ray
import ray.exceptions as rx
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vidproc.runtime.ray.messages import in_short
from vidproc.runtime.ray.remote import Place
from vidproc.runtime.retry import ERROR_CLASSES, Fault, Kind
from vidproc.runtime.step import AnyStep

INFRASTRUCTURE = (
    rx.NodeDiedError,
    rx.ObjectLostError,
    rx.LocalRayletDiedError,
    rx.ActorUnavailableError,
    rx.RuntimeEnvSetupError,
    rx.ObjectStoreFullError,
    rx.OutOfDiskError,
)


def fault_in(step: AnyStep, kind: Kind, error: str, place: Place | None, traceback: str | None = None) -> Fault:
    return Fault(
        kind=kind,
        stage=step.name,
        error_class=ERROR_CLASSES[kind],
        error=error,
        traceback=traceback,
        host=place.host if place else "",
    )


def fault_of_death(step: AnyStep, cause: Exception, place: Place) -> Fault:
    """The fault of a call whose worker ended while it ran. `place`: where."""
    name, limit = step.name, step.needs.time_limit_s
    if isinstance(cause, rx.OutOfMemoryError) or "NODE_OUT_OF_MEMORY" in str(cause):
        return fault_in(step, "memory", f"the worker was killed in {name!r}: its node ran out of memory", place)
    if not isinstance(cause, (rx.WorkerCrashedError, rx.RayActorError)):  # its output cannot be pickled, say
        return fault_in(step, "exception", f"{type(cause).__name__}: {in_short(cause)}", place)
    words = last_words(place)
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
    return fault_in(step, kind, error, place, traceback=words or None)


def is_infrastructure(cause: Exception) -> bool:
    return isinstance(cause, INFRASTRUCTURE) or getattr(cause, "preempted", False) or "its node has died" in str(cause)


def last_words(place: Place) -> str:
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
