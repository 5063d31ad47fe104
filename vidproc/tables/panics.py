"""Panics of the table library, which its threads print over whatever stands on the terminal.

A write that fails half-way (a full disk) comes back as an error, and that one is told. Beside it, the library's own
threads stumble over what the failed write left, and print "thread ... panicked" with a list of its calls.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vidproc.errors import TransientError

AFTER_ERROR_S = 1.0
"""The threads may stumble a moment after the error has come back."""
_BLOCK = re.compile(
    rb"\n?thread '[^'\n]*' (?:\(\d+\) )?panicked at [^\n]*\n"
    rb"(?:(?!thread '|stack backtrace:|note: )[^\n]+\n)?"  # the message
    rb"(?:stack backtrace:\n(?: +(?:\d+:|at )[^\n]*\n)*)?"
    rb"(?:note: [^\n]*\n)*"
)
_one_at_a_time = threading.Lock()


@contextmanager
def unprinted() -> Iterator[None]:
    """Within it, what is written to file descriptor 2 is held back, and then written without the panics. A call within
    another, or beside it on another thread, changes nothing."""
    if not hasattr(os, "memfd_create") or not _one_at_a_time.acquire(blocking=False):
        yield
        return
    try:
        try:
            terminal = os.dup(2)
        except OSError:  # it is closed
            yield
            return
        held = os.memfd_create("stderr")
        os.dup2(held, 2)
        try:
            yield
        except TransientError:
            time.sleep(AFTER_ERROR_S)
            raise
        finally:
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            with open(held, "rb") as said:
                said.seek(0)
                text = without_panics(said.read())
            with suppress(OSError):
                while text:
                    text = text[os.write(2, text) :]
    finally:
        _one_at_a_time.release()


def without_panics(text: bytes) -> bytes:
    return _BLOCK.sub(b"", text)
