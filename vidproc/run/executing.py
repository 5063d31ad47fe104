"""Where a job's steps run: its executor, the sizes of its pools, and what Ctrl-C does to it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vidproc.progress import Reporter
from vidproc.run.pipeline import pool_of
from vidproc.runtime.executor import Executor
from vidproc.settings import Execution, Job, PoolSize


def pool_sizes(job: Job) -> dict[str, PoolSize]:
    """By step: how many actors hold its models."""
    own = {pool_of(job, kind): PoolSize(m.pool.min, m.pool.max) for kind, m in job.models.items() if m.pool}
    return {"infer": PoolSize(1, job.execution.actors)} | own


def make_executor(execution: Execution) -> Executor:
    if execution.executor == "inline":
        from vidproc.runtime.inline import InlineExecutor

        return InlineExecutor()
    from vidproc.runtime.ray.executor import RayExecutor

    return RayExecutor(address=execution.address, num_workers=execution.workers)


@contextmanager
def interruptible(executor: Executor, reporter: Reporter) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) stops taking work; the second leaves at once. Both are resumable."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            os._exit(130)
        asked = True
        reporter.say("stopping: what runs may finish within 15 s; press Ctrl-C again to leave at once")
        executor.stop()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
