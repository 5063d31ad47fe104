"""What the table library's threads print of their own stumbling stays off the terminal; all else comes through."""

from __future__ import annotations

import subprocess
import sys

PANIC = (
    b"\nthread 'tokio-rt-worker' (31307) panicked at /registry/object_store/src/buffered.rs:369:41:\n"
    b"Already shut down\n"
)
TRACE = b"stack backtrace:\n   0: rust_begin_unwind\n             at ./src/lib.rs:1:2\n   1: <unknown>\n"
NOTE = b"note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.\n"


def test_panics_are_left_out_and_all_else_is_told() -> None:
    said = b"one\n" + PANIC + NOTE + b"two\n" + PANIC + TRACE + NOTE + PANIC + b"three\n\nfour"
    code = f"""
import os
from vidproc.tables.panics import unprinted
try:
    with unprinted(), unprinted():
        os.write(2, {said!r})
        raise KeyError
except KeyError:
    os.write(2, b"after")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stderr == b"one\ntwo\nthree\n\nfourafter"
