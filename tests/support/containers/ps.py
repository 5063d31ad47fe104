"""MPEG programme streams (ISO/IEC 13818-1, 2.5) with MPEG-2 video."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tests.support.containers.ts import Frame, _stamp


def _pack(clock: int) -> bytes:
    """Pack header: system clock reference in ticks of 90 kHz, 10 Mbit/s."""
    t = clock % (1 << 33)
    bits = (
        1 << 46 | (t >> 30 & 7) << 43 | 1 << 42 | (t >> 15 & 0x7FFF) << 27 | 1 << 26 | (t & 0x7FFF) << 11 | 1 << 10 | 1
    )
    return b"\0\0\1\xba" + bits.to_bytes(6, "big") + struct.pack(">I", 25_000 << 10 | 3 << 8 | 0xF8)


def _system() -> bytes:
    body = struct.pack(">I", 0x80000001 | 25_000 << 9)[:3] + bytes((0x04, 0x21, 0x7F, 0xE0, 0xE0, 0xE8))
    return b"\0\0\1\xbb" + struct.pack(">H", len(body)) + body


def write(frames: Sequence[Frame], *, stamped: Sequence[bool] | None = None, lag: int = 9_000) -> bytes:
    """One pack a picture. `stamped`: which pictures carry times; the others' follow from the frame rate."""
    out = bytearray()
    for i, frame in enumerate(frames):
        out += _pack(frame.dts - lag)
        if i == 0:
            out += _system()
        data = frame.data
        first = True
        while data or first:
            stamps = b""
            if first and (stamped is None or stamped[i]):
                same = frame.pts == frame.dts
                stamps = _stamp(2, frame.pts) if same else _stamp(3, frame.pts) + _stamp(1, frame.dts)
            flags = {0: 0, 5: 0x80, 10: 0xC0}[len(stamps)]
            piece, data = data[:60_000], data[60_000:]
            body = bytes((0x84 if first else 0x80, flags, len(stamps))) + stamps + piece
            out += b"\0\0\1\xe0" + struct.pack(">H", len(body)) + body
            first = False
    return bytes(out) + b"\0\0\1\xb9"
