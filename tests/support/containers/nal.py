"""NAL units of H.264 and HEVC: start codes, lengths, and the configuration records of ISO/IEC 14496-15."""

from __future__ import annotations

import struct


def units(data: bytes) -> list[bytes]:
    """Split Annex B."""
    return [u.rstrip(b"\0") for u in data.split(b"\0\0\1") if u.rstrip(b"\0")]


def with_lengths(data: bytes) -> bytes:
    """Annex B -> each unit behind its length of four bytes."""
    return b"".join(struct.pack(">I", len(u)) + u for u in units(data))


def with_start_codes(data: bytes) -> bytes:
    return b"".join(b"\0\0\0\1" + u for u in units(data))


def avc_configuration(header: bytes, *, empty: bool = False) -> bytes:
    """`avcC` of the parameter sets in `header`; `empty`: without them, as where they stand in the stream."""
    sps = [u for u in units(header) if u[0] & 31 == 7]
    pps = [u for u in units(header) if u[0] & 31 == 8]
    if empty:
        return bytes((1, sps[0][1], sps[0][2], sps[0][3], 0xFF, 0xE0, 0))
    out = bytes((1, sps[0][1], sps[0][2], sps[0][3], 0xFF, 0xE0 | len(sps)))
    out += b"".join(struct.pack(">H", len(u)) + u for u in sps)
    return out + bytes((len(pps),)) + b"".join(struct.pack(">H", len(u)) + u for u in pps)


def hevc_configuration(header: bytes, *, empty: bool = False) -> bytes:
    """`hvcC` of the parameter sets in `header`; what decoders do not look at is left general. `empty`: without them."""
    found = [] if empty else units(header)
    general = bytes((0x01, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 30))  # main profile, level 1
    out = b"\1" + general + bytes((0xF0, 0, 0xFC, 0xFD, 0xF8, 0xF8, 0, 0, 0x0F))
    arrays = [(kind, [u for u in found if u[0] >> 1 & 63 == kind]) for kind in (32, 33, 34) if found]
    out += bytes((len(arrays),))
    for kind, sets in arrays:
        out += struct.pack(">BH", 0x80 | kind, len(sets)) + b"".join(struct.pack(">H", len(u)) + u for u in sets)
    return out
