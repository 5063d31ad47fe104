"""AVI: a RIFF of chunks, one a picture, with an index of old style behind them or none."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from tests.support.containers.streams import Stream

FOURCC = {
    "h264": b"H264",
    "mpeg4": b"XVID",
    "msmpeg4v3": b"MP43",
    "msmpeg4v2": b"MP42",
    "wmv1": b"WMV1",
    "wmv2": b"WMV2",
    "flv1": b"FLV1",
    "mjpeg": b"MJPG",
    "vp8": b"VP80",
}

SOUND_RATE = 8000
KEY = 0x10
INDEXED = ("true", "all key", "half")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _list(kind: bytes, *parts: bytes) -> bytes:
    return _chunk(b"LIST", kind + b"".join(parts))


@dataclass(frozen=True, kw_only=True)
class Layout:
    index: Literal["true", "all key", "half", "none", "never"] = "true"
    """"half": of the first half of the pictures. "none": the file is closed, without an index. "never": the writer was
    cut off, so sizes and counts are 0."""
    sound: bool = False
    kept: float = 1.0
    """Share of the bytes of the pictures that the file still has."""


def write(stream: Stream, data: Sequence[bytes], fps: Fraction, layout: Layout) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the file, and place and size of each picture. `data`: in decoding order; empty: the picture before stays
    on screen."""
    width, height = stream.size
    count = len(data)
    never = layout.index == "never"
    said = 0 if never else count
    sound_per_picture = int(SOUND_RATE / fps)
    avih = struct.pack(
        "<14I", int(1_000_000 / fps), 0, 0, 0x10 if layout.index in INDEXED else 0, said, 0,
        1 + layout.sound, 0, width, height, 0, 0, 0, 0,
    )  # fmt: skip
    strh = (
        b"vids"
        + FOURCC[stream.codec]
        + struct.pack(
            "<IHHIIIIIIIIhhhh",
            0,
            0,
            0,
            0,
            fps.denominator,
            fps.numerator,
            0,
            said,
            0,
            0xFFFFFFFF,
            0,
            0,
            0,
            width,
            height,
        )
    )
    strf = struct.pack(
        "<IiiHH4sIiiII",
        40 + len(stream.header),
        width,
        height,
        1,
        24,
        FOURCC[stream.codec],
        width * height * 3,
        0,
        0,
        0,
        0,
    )
    parts = [_chunk(b"avih", avih), _list(b"strl", _chunk(b"strh", strh), _chunk(b"strf", strf + stream.header))]
    if layout.sound:
        strh = b"auds" + struct.pack(
            "<IIHHIIIIIIIIhhhh", 0, 0, 0, 0, 0, 1, SOUND_RATE, 0, said * sound_per_picture, 0, 0, 1, 0, 0, 0, 0
        )
        strf = struct.pack("<HHIIHH", 1, 1, SOUND_RATE, SOUND_RATE, 1, 8)
        parts.append(_list(b"strl", _chunk(b"strh", strh), _chunk(b"strf", strf)))
    head = _list(b"hdrl", *parts)
    start = 12 + len(head) + 12
    body, index, places = bytearray(), [], []
    for i, picture in enumerate(data):
        key = stream.packets[i].key or layout.index == "all key"
        index.append(b"00dc" + struct.pack("<III", KEY if key else 0, 4 + len(body), len(picture)))
        places.append((start + len(body) + 8, len(picture)))
        body += _chunk(b"00dc", picture)
        if layout.sound:
            index.append(b"01wb" + struct.pack("<III", KEY, 4 + len(body), sound_per_picture))
            body += _chunk(b"01wb", b"\x80" * sound_per_picture)
    if layout.index == "half":
        del index[len(index) // 2 :]
    if never:
        movi = b"LIST" + struct.pack("<I", 0) + b"movi" + body
        out = b"RIFF" + struct.pack("<I", 0) + b"AVI " + head + movi
    else:
        movi = _list(b"movi", bytes(body))
        idx1 = _chunk(b"idx1", b"".join(index)) if layout.index in INDEXED else b""
        rest = b"AVI " + head + movi + idx1
        out = b"RIFF" + struct.pack("<I", len(rest)) + rest
    if layout.kept < 1:
        out = out[: start + int(len(body) * layout.kept)]
    return out, places
