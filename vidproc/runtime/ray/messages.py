"""What Ray says, kept off our output and put in short."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator

import ray

log = logging.getLogger(__name__)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
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


def in_short(error: BaseException) -> str:
    """Return the first line of an error, and the last line of what caused it: Ray puts a whole traceback between."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    ends = [line.strip() for line in str(root).strip().splitlines() if line.strip()] or [type(root).__name__]
    last = ends[-1] if ends[-1] not in first else lines[-1] if lines else ""
    return first[:300] if not last or last in first else f"{first[:300]}: {last[:500]}"
