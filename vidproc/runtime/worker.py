"""Inside a worker process: a step is loaded once, called within its limits, and its exceptions
become text. Knows no Ray, so that it can be tried in any process."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import pickle
import resource
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vidproc.machine import memory_bytes
from vidproc.runtime.retry import Fault, understand
from vidproc.runtime.step import AnyStep, Resources

SETUP_LIMIT_S = 1800.0
"""For `Step.setup`: weights may have to be downloaded first."""


@dataclass(frozen=True, slots=True)
class Note:
    """What the driver learns of one unit's attempt; the output itself stays in the object store."""

    fault: Fault | None
    seconds: float


_steps: dict[str, AnyStep] = {}  # of this process, set up, by the hash of their pickle


def is_loaded(step_hash: str) -> bool:
    return step_hash in _steps


def load(step_hash: str, pickled: bytes) -> AnyStep:
    step = _steps.get(step_hash)
    if step is None:
        loaded: AnyStep = pickle.loads(pickled)
        with limits(loaded.needs, SETUP_LIMIT_S):
            loaded.setup()
        held_at_first()
        step = _steps[step_hash] = loaded
    return step


@contextlib.contextmanager
def limits(needs: Resources, seconds: float) -> Iterator[None]:
    """The process dies if the body takes longer: the watchdog needs no GIL, so it ends a stuck C
    call too, after writing all stacks to standard error. And the body gets MemoryError, or the
    process dies, when it asks for more private memory than its limit on top of what the
    process has. Pages of the object store are shared, so they do not count. CUDA reserves far more
    than it uses: a step on a GPU has no memory limit of this kind."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limited = not needs.gpus and sys.platform == "linux"
    if limited:
        most = min(needs.memory_limit_bytes or needs.memory_bytes, memory_bytes())
        limit = _status_bytes(b"VmData") + most
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
    try:
        yield
    finally:
        if limited:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        faulthandler.cancel_dump_traceback_later()


def _status_bytes(name: bytes) -> int:
    with open("/proc/self/status", "rb") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(name)) * 1024


def held() -> int:
    """Bytes of memory that are this process's alone."""
    return _status_bytes(b"RssAnon") if sys.platform == "linux" else 0


held_at_first = functools.cache(held)
"""The same, as it was at the first time of asking: once the first step was set up."""


def overgrown(needs: Resources) -> bool:
    """Whether earlier calls left enough behind that this process should end after the next one. The memory limit counts
    what one attempt asks for, so that no unit answers for what others left; this bounds the leaks of many."""
    limit = needs.memory_limit_bytes or needs.memory_bytes
    return held() - held_at_first() > min(needs.memory_bytes, limit // 2)


def attempt(step: AnyStep, item: Any) -> tuple[Any, Note]:
    """Calls the step; an exception, or a call of sys.exit, is an answer like any other."""
    started = time.perf_counter()
    try:
        with limits(step.needs, step.needs.time_limit_s):
            output = step(item)
        return output, Note(None, time.perf_counter() - started)
    except (Exception, SystemExit) as error:
        return None, Note(fault_of(error, step.name), time.perf_counter() - started)


def answer(pairs: Sequence[tuple[Any, Note]], is_last: bool) -> Any:
    """What a call returns: `[(output, note), ...]` after a route's last step; before that the
    outputs one by one, so that each is an object of its own in the store, and the notes at the end."""
    return list(pairs) if is_last else (*(output for output, _ in pairs), [note for _, note in pairs])


def fault_of(error: BaseException, stage: str) -> Fault:
    return understand(error, stage=stage, host=socket.gethostname())
