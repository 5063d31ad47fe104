"""Standard output and error when nobody reads them any more: work goes on, an answer ends with its reader."""

from __future__ import annotations

import io
import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO


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
    sys.stdout, sys.stderr = (_on(s, _Lasting, line_buffering=True) for s in (sys.stdout, sys.stderr))


class ReaderGone(BaseException):
    """The other end of the pipe is closed. No Exception, so that nobody on the way takes it for an error to report;
    what is open on the way is closed."""


class _Pipe(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise ReaderGone from None


@contextmanager
def as_a_filter() -> Iterator[None]:
    """Within it, a write to a pipe that nobody reads ends the process by SIGPIPE, as it ends `cat` or `grep`: without
    a word, status 141 in a shell. The signal itself stays ignored: it would come for broken sockets too."""
    kept = sys.stdout, sys.stderr
    try:
        try:
            sys.stdout, sys.stderr = _guarded(sys.stdout, 1), _guarded(sys.stderr, 2)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except ReaderGone:
        _end()
    finally:
        sys.stdout, sys.stderr = kept


def _guarded(stream: TextIO, descriptor: int) -> TextIO:
    try:
        of_a_pipe = stream.fileno() == descriptor and stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except (OSError, ValueError, AttributeError):  # closed, or no file at all
        return stream
    return _on(stream, _Pipe, line_buffering=descriptor == 2) if of_a_pipe else stream


def _on(stream: TextIO, raw: type[io.FileIO], *, line_buffering: bool) -> TextIO:
    """The same as `stream`, on a descriptor of that kind; what writes to none (as in a test) stays as it is."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        stream.flush()
        below = raw(stream.fileno(), "wb", closefd=False)
    except (OSError, ValueError):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(below), encoding=stream.encoding, errors=stream.errors, line_buffering=line_buffering
    )


def _end() -> NoReturn:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # what is still in a buffer is written nowhere
        os.dup2(nowhere, descriptor)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    os._exit(141)
