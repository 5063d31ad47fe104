"""FLV: tags with times in milliseconds; H.264 with its configuration in a tag of its own."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.containers.nal import avc_configuration, with_lengths
from tests.support.containers.streams import Stream


@dataclass(frozen=True)
class Frame:
    stream: Stream
    data: bytes
    at: int
    """Milliseconds: when it is decoded."""
    offset: int
    """Milliseconds from there until it is shown."""
    key: bool


def _tag(kind: int, at: int, body: bytes) -> bytes:
    head = bytes((kind,)) + struct.pack(">I", len(body))[1:] + struct.pack(">I", at)[1:] + bytes((at >> 24 & 255,))
    return head + bytes(3) + body + struct.pack(">I", 11 + len(body))


def _script(duration_s: float) -> bytes:
    name = b"\x02" + struct.pack(">H", 10) + b"onMetaData"
    value = struct.pack(">H", 8) + b"duration" + b"\0" + struct.pack(">d", duration_s)
    return name + b"\x08" + struct.pack(">I", 1) + value + b"\0\0\x09"


def write(frames: Sequence[Frame], duration_s: float | None = None) -> bytes:
    """A stream's configuration is written wherever another stream begins."""
    out = bytearray(b"FLV\1\1" + struct.pack(">II", 9, 0))
    if duration_s is not None:
        out += _tag(18, 0, _script(duration_s))
    current: Stream | None = None
    for frame in frames:
        first = bytes(((1 if frame.key else 2) << 4 | (7 if frame.stream.codec == "h264" else 2),))
        if frame.stream.codec != "h264":
            out += _tag(9, frame.at, first + frame.data)
            continue
        if frame.stream is not current:
            current = frame.stream
            out += _tag(9, frame.at, b"\x17\0\0\0\0" + avc_configuration(current.header))
        offset = struct.pack(">i", frame.offset)[1:]
        out += _tag(9, frame.at, first + b"\1" + offset + with_lengths(frame.data))
    return bytes(out)
