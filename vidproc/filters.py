"""End as a Unix filter does when nobody reads its output any more (`vidproc query … | head`)."""

from __future__ import annotations

import io
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO


class ReaderGone(BaseException):
    """The other end of the pipe is closed. No Exception, so that nobody on the way takes it for an error to report;
    what is open on the way is closed."""


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


class _Pipe(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise ReaderGone from None


def _guarded(stream: TextIO, descriptor: int) -> TextIO:
    try:
        of_a_pipe = stream.fileno() == descriptor and stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except (OSError, ValueError, AttributeError):  # closed, or no file at all
        return stream
    if not of_a_pipe:
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Pipe(descriptor, "wb", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=descriptor == 2,
    )


def _end() -> NoReturn:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # what is still in a buffer is written nowhere
        os.dup2(nowhere, descriptor)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    os._exit(141)
