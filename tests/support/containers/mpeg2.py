"""Bits of MPEG-2 video (ISO/IEC 13818-2) that say how long a picture is shown."""

from __future__ import annotations

_EXTENSION = b"\0\0\1\xb5"
_SEQUENCE, _PICTURE = 1, 8


def _set(data: bytearray, bit: int, value: bool) -> None:
    mask = 0x80 >> bit % 8
    data[bit // 8] = data[bit // 8] & ~mask | (mask if value else 0)


def with_fields(data: bytes, *, top_first: bool, repeated: bool) -> bytes:
    """Return the picture as one of an interlaced sequence, itself progressive, that lasts two fields or three."""
    out = bytearray(data)
    at = out.find(_EXTENSION)
    while at >= 0:
        begin = (at + 4) * 8
        kind = out[at + 4] >> 4
        if kind == _SEQUENCE:
            _set(out, begin + 12, False)  # progressive_sequence
        elif kind == _PICTURE:
            # After 4 bits of kind, 16 of f_code, 2 of precision and 2 of structure.
            _set(out, begin + 24, top_first)
            _set(out, begin + 30, repeated)
            _set(out, begin + 31, True)  # chroma_420_type, as progressive_frame
            _set(out, begin + 32, True)  # progressive_frame
        at = out.find(_EXTENSION, at + 4)
    return bytes(out)
