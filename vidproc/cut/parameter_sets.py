"""Parameter sets of H.264 and HEVC streams: found, compared, and put together for a file of two encoders.

A clip whose edges were encoded again holds pictures of two encoders. In H.264 their parameter sets get different ids,
and all of them stand in the file's header (ISO/IEC 14496-15, 5.3.3.1), so any decoder is ready for both. In HEVC the
encoder's ids cannot be chosen, so the parameter sets stand in front of the first picture of each part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from vidproc.video.h264 import PPS, SPS, Unknown, parameters_of, sequence_of

START_CODE = re.compile(b"\0\0\1")
HEVC_PARAMETER_SETS = range(32, 35)
"""NAL unit types of VPS, SPS and PPS (ITU-T H.265, table 7-1)."""
END_OF_SEQUENCE = b"\x48\x01"
"""An HEVC NAL unit of type 36: what follows is decoded as if nothing had come before."""


def units(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """Yield the NAL units of a packet; `length_bytes` stand in front of each, 0 for start codes."""
    if not length_bytes:
        starts = [m.end() for m in START_CODE.finditer(data)]
        for start, following in zip(starts, [*starts[1:], len(data) + 3], strict=True):
            unit = data[start : following - 3].rstrip(b"\0")
            if unit:
                yield unit
        return
    at = 0
    while at + length_bytes <= len(data):
        size = int.from_bytes(data[at : at + length_bytes])
        at += length_bytes
        yield data[at : at + size]
        at += size


def joined(parts: Iterator[bytes] | list[bytes], length_bytes: int) -> bytes:
    """Return NAL units as one packet, the inverse of `units`."""
    if not length_bytes:
        return b"".join(b"\0\0\0\1" + unit for unit in parts)
    return b"".join(len(unit).to_bytes(length_bytes) + unit for unit in parts)


def length_bytes_of(extradata: bytes, codec: str) -> int:
    """Return how many bytes give a NAL unit's length in this stream's packets; 0 where start codes separate them."""
    if extradata[:1] != b"\1":
        return 0
    return (extradata[4] if codec == "h264" else extradata[21]) % 4 + 1


def header_units(extradata: bytes, codec: str) -> list[bytes]:
    """Return the parameter sets of a stream's header, in whichever form it is. Raises Unknown for a damaged one."""
    if extradata[:1] != b"\1":
        return list(units(extradata, 0))
    found: list[bytes] = []

    def take(at: int, count: int) -> int:
        for _ in range(count):
            start = at + 2
            at = start + int.from_bytes(extradata[at : at + 2])
            if not start < at <= len(extradata):
                raise Unknown("a header cut off")
            found.append(extradata[start:at])
        return at

    if codec == "h264":
        at = take(6, extradata[5] & 31)
        take(at + 1, (extradata[at : at + 1] or b"\0")[0])
        return found
    at = 23
    for _ in range((extradata[22:23] or b"\0")[0]):
        at = take(at + 3, int.from_bytes(extradata[at + 1 : at + 3]))
    return found


def free_id(header: list[bytes]) -> int:
    """Return an id that no H.264 parameter set of the header has: for both kinds of set of another encoder."""
    sps = {sequence_of(u).id for u in header if u[0] & 31 == SPS}
    pps = {parameters_of(u).id for u in header if u[0] & 31 == PPS}
    return next(i for i in range(31, -1, -1) if i not in sps | pps)


def avc_header(extradata: bytes, more: list[bytes]) -> bytes:
    """Return the header of an H.264 stream with further parameter sets, in the form that it had."""
    if extradata[:1] != b"\1":
        return extradata + joined(more, 0)
    header = header_units(extradata, "h264")
    sps = [u for u in (*header, *more) if u[0] & 31 == SPS]
    pps = [u for u in (*header, *more) if u[0] & 31 == PPS]
    # What stands behind the picture parameters (chroma format, bit depths) is of the profile, which both share.
    rest = _behind(extradata)
    out = extradata[:5] + bytes([0xE0 | len(sps)]) + joined(sps, 2) + bytes([len(pps)]) + joined(pps, 2)
    return out + rest


def _behind(extradata: bytes) -> bytes:
    at = 6
    for count_at, mask in ((5, 31), (None, 255)):
        if count_at is None:
            count = extradata[at] & mask
            at += 1
        else:
            count = extradata[count_at] & mask
        for _ in range(count):
            at += 2 + int.from_bytes(extradata[at : at + 2])
    return extradata[at:]
