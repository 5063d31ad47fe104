"""What a long-lived worker gives back to the system, where the C library by itself would keep it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

import pyarrow as pa

M_MMAP_THRESHOLD = -3
"""Of malloc.h."""
LARGE_BYTES = 2 << 20


def stay_small() -> None:
    """To be called before work begins. Has blocks of `LARGE_BYTES` and more go back to the system when they are freed:
    by itself glibc comes to keep ever larger ones, up to 32 MiB, among the small ones, where they can neither grow in
    place nor be given back. (The demuxer's index of ten hours of MP4 is a few such blocks, each grown bit by bit: it
    then takes twice as much.) And has the Delta library's own heap give back at once what it would keep for ten
    seconds: 20 MB after 72,000 rows."""
    if "deltalake" not in sys.modules:  # it asks when it is loaded
        os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0")
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def give_back_freed() -> None:
    """Hands all that is free to the system, before a library with a heap of its own asks for as much again."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
