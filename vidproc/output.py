"""Standard output and error of a command that works for hours: they may lose whoever reads them, the work goes on."""

from __future__ import annotations

import io
import select
import signal
import sys
import threading
from typing import Any, TextIO


class _Lasting(io.FileIO):
    """A file descriptor that takes whatever is written. What the system refuses is lost: the reader of a pipe has
    left, a terminal is closed, the disk under a log is full (there the next line is tried again)."""

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        while True:
            try:
                written = super().write(data)
            except OSError:
                return size
            if written is not None:
                return written
            select.select([], [self], [])  # somebody else made it non-blocking: wait until it takes more


def outlive_readers() -> None:
    """Makes standard output and error of this process last, and its work too: from here on nothing that is printed
    raises an OSError, and a terminal that is closed ends nothing (SIGHUP is ignored, as under `nohup`)."""
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)


def _lasting(stream: TextIO) -> TextIO:
    """The same as `stream`, on a descriptor that lasts; what writes to no descriptor (as in a test) stays as it is."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        stream.flush()
        raw = _Lasting(stream.fileno(), "wb", closefd=False)
    except (OSError, ValueError):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, newline="\n", line_buffering=True
    )
