"""MPEG transport streams (ISO/IEC 13818-1): packets of 188 bytes, programme tables, clocks of 33 bits."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support.containers.nal import with_start_codes
from tests.support.containers.streams import Stream

HZ = 90_000
WRAP = 1 << 33
STREAM_TYPES = {"h264": 0x1B, "hevc": 0x24, "mpeg2video": 0x02, "mpeg4": 0x10}
_ACCESS_UNIT = {"h264": b"\0\0\0\1\x09\xf0", "hevc": b"\0\0\0\1\x46\x01\x50"}


@dataclass(frozen=True)
class Frame:
    data: bytes
    pts: int
    dts: int
    """In ticks of 90 kHz; written modulo 2^33."""
    key: bool


def elementary(stream: Stream, data: bytes, key: bool) -> bytes:
    """What goes into a PES packet: with start codes, and with the parameters before each key picture."""
    if stream.codec in _ACCESS_UNIT:
        return _ACCESS_UNIT[stream.codec] + with_start_codes((stream.header if key else b"") + data)
    return (stream.header if key else b"") + data


def _crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def _stamp(mark: int, ticks: int) -> bytes:
    t = ticks % WRAP
    return bytes((mark << 4 | t >> 29 & 14 | 1, t >> 22 & 255, t >> 14 & 254 | 1, t >> 7 & 255, t << 1 & 254 | 1))


def _pes(frame: Frame) -> bytes:
    stamps = _stamp(2, frame.pts) if frame.pts == frame.dts else _stamp(3, frame.pts) + _stamp(1, frame.dts)
    flags = 0x80 if frame.pts == frame.dts else 0xC0
    return b"\0\0\1\xe0\0\0\x84" + bytes((flags, len(stamps))) + stamps + frame.data


@dataclass
class Writer:
    """Holds the continuity counters of one file."""

    out: bytearray = field(default_factory=bytearray)
    counters: dict[int, int] = field(default_factory=dict)
    versions: dict[int, int] = field(default_factory=dict)

    def _packet(self, pid: int, payload: bytes, *, start: bool, pcr: int | None, leap: bool, key: bool) -> bytes:
        """Write one packet, and return what did not fit into it."""
        counter = self.counters.get(pid, -1) + 1 & 15
        self.counters[pid] = counter
        adaptation = b""
        if pcr is not None or leap or key:
            flags = (0x80 if leap else 0) | (0x40 if key else 0) | (0x10 if pcr is not None else 0)
            adaptation = bytes((flags,))
            if pcr is not None:
                base = pcr % WRAP
                adaptation += struct.pack(">IH", base >> 1, (base & 1) << 15 | 0x7E00)
        room = 184 - (1 + len(adaptation) if adaptation else 0)
        taken, rest = payload[:room], payload[room:]
        missing = room - len(taken)
        if missing and not adaptation:
            adaptation, missing = (b"\0", missing - 2) if missing > 1 else (b"", missing - 1)
            body = bytes((len(adaptation) + missing,)) + adaptation + b"\xff" * missing
        elif adaptation:
            body = bytes((len(adaptation) + missing,)) + adaptation + b"\xff" * missing
        else:
            body = b""
        control = (2 if body and not taken else 3 if body else 1) << 4
        head = struct.pack(">BHB", 0x47, (0x4000 if start else 0) | pid, control | counter)
        self.out += head + body + taken
        assert len(self.out) % 188 == 0
        return rest

    def _section(self, pid: int, table: int, extension: int, body: bytes) -> None:
        version = self.versions.get(pid, 0)
        inside = struct.pack(">HBBB", extension, 0xC1 | version << 1, 0, 0) + body
        section = bytes((table,)) + struct.pack(">H", 0xB000 | len(inside) + 4) + inside
        section += struct.pack(">I", _crc(section))
        section += b"\xff" * (183 - len(section))  # the rest of the packet is stuffing, as is usual
        self._packet(pid, b"\0" + section, start=True, pcr=None, leap=False, key=False)

    def tables(
        self, programmes: Sequence[tuple[int, int, Sequence[tuple[int, str]]]], *, changed: bool = False
    ) -> None:
        """PAT and PMTs. `programmes`: number, PID of its table, and its streams as PID and codec. `changed`: with a
        new version of the programmes' tables."""
        self._section(0, 0, 1, b"".join(struct.pack(">HH", n, 0xE000 | pid) for n, pid, _ in programmes))
        for n, pid, streams in programmes:
            if changed:
                self.versions[pid] = self.versions.get(pid, 0) + 1 & 31
            rows = b"".join(bytes((STREAM_TYPES[c],)) + struct.pack(">HH", 0xE000 | p, 0xF000) for p, c in streams)
            self._section(pid, 2, n, struct.pack(">HH", 0xE000 | streams[0][0], 0xF000) + rows)

    def picture(self, pid: int, frame: Frame, *, leap: bool = False, lag: int = 9_000) -> None:
        """One PES packet. `leap`: the clock may jump here, said with the discontinuity flag. `lag`: ticks from the
        clock to the picture's decoding."""
        rest = self._packet(pid, _pes(frame), start=True, pcr=frame.dts - lag, leap=leap, key=frame.key)
        while rest:
            rest = self._packet(pid, rest, start=False, pcr=None, leap=False, key=False)
