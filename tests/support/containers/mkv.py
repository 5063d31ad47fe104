"""Matroska and WebM (RFC 9559): clusters of blocks, with or without sizes, cues and true flags."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tests.support.containers.mp4 import av1_configuration
from tests.support.containers.nal import avc_configuration, hevc_configuration, with_lengths
from tests.support.containers.streams import Stream

UNKNOWN = b"\x01" + b"\xff" * 7

CODEC_IDS = {
    "h264": b"V_MPEG4/ISO/AVC",
    "hevc": b"V_MPEGH/ISO/HEVC",
    "mpeg4": b"V_MPEG4/ISO/ASP",
    "mpeg2video": b"V_MPEG2",
    "vp8": b"V_VP8",
    "vp9": b"V_VP9",
    "av1": b"V_AV1",
    "mjpeg": b"V_MJPEG",
}
VFW = {"msmpeg4v3": b"MP43", "msmpeg4v2": b"MP42", "wmv1": b"WMV1", "wmv2": b"WMV2", "flv1": b"FLV1"}


def element(name: int, *parts: bytes, size: bytes | None = None) -> bytes:
    body = b"".join(parts)
    length = struct.pack(">Q", 1 << 56 | len(body)) if size is None else size
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + length + body


def number(name: int, value: int) -> bytes:
    return element(name, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


@dataclass(frozen=True)
class Block:
    data: bytes
    at: int
    """Milliseconds: when it is shown."""
    key: bool
    duration: int | None = None
    """Milliseconds; with one it is written as a group, whose reference says whether it is a key."""
    track: int = 1


@dataclass(frozen=True, kw_only=True)
class Track:
    stream: Stream
    default: bool = True
    default_duration_ms: int | None = None
    inside: bool = False
    """The parameter sets stand in the blocks, not in the header."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    live: bool = False
    """Segment and clusters of unknown size, no duration, no cues: what is sent while it is made."""
    cues: Literal["true", "none", "all", "before", "behind"] = "true"
    """"all" lists every block; "before" and "behind" point one cluster beside the right one."""
    duration_ms: int | None = None
    """What the header says."""
    cluster_blocks: int = 10


def private(stream: Stream, inside: bool = False) -> tuple[bytes, bytes]:
    """Return CodecID and CodecPrivate."""
    head = stream.header
    if stream.codec in VFW:
        width, height = stream.size
        strf = struct.pack("<IiiHH4sIiiII", 40 + len(head), width, height, 1, 24, VFW[stream.codec], 0, 0, 0, 0, 0)
        return b"V_MS/VFW/FOURCC", strf + head
    match stream.codec:
        case "h264":
            head = avc_configuration(head, empty=inside)
        case "hevc":
            head = hevc_configuration(head, empty=inside)
        case "av1":
            head = av1_configuration(head)
    return CODEC_IDS[stream.codec], head


def payload(stream: Stream, data: bytes) -> bytes:
    return with_lengths(data) if stream.codec in ("h264", "hevc") else data


def _track(at: int, track: Track) -> bytes:
    stream = track.stream
    codec, head = private(stream, track.inside)
    parts = [number(0xD7, at), number(0x73C5, at), number(0x83, 1), number(0x9C, 0), number(0x88, int(track.default))]
    parts.append(element(0x86, codec))
    if head:
        parts.append(element(0x63A2, head))
    if track.default_duration_ms:
        parts.append(number(0x23E383, track.default_duration_ms * 1_000_000))
    parts.append(element(0xE0, number(0xB0, stream.size[0]), number(0xBA, stream.size[1])))
    return element(0xAE, *parts)


def write(tracks: Sequence[Track], blocks: Sequence[Block], layout: Layout) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the file, and place and size of each block's data."""
    webm = all(t.stream.codec in ("vp8", "vp9", "av1") for t in tracks)
    ebml = element(
        0x1A45DFA3, number(0x4286, 1), number(0x42F7, 1), number(0x42F2, 4), number(0x42F3, 8),
        element(0x4282, b"webm" if webm else b"matroska"), number(0x4287, 4), number(0x4285, 2),
    )  # fmt: skip
    info = [number(0x2AD7B1, 1_000_000), element(0x4D80, b"ours"), element(0x5741, b"ours")]
    if layout.duration_ms is not None and not layout.live:
        info.append(element(0x4489, struct.pack(">d", layout.duration_ms)))
    head = element(0x1549A966, *info) + element(0x1654AE6B, *(_track(i + 1, t) for i, t in enumerate(tracks)))

    clusters, places = bytearray(), []
    starts: list[int] = []
    listed: list[tuple[int, int, int]] = []

    with_cues = layout.cues != "none" and not layout.live

    def seek_head(cues_at: int) -> bytes:
        if not with_cues:
            return b""
        return element(
            0x114D9B74,
            element(0x4DBB, element(0x53AB, b"\x1c\x53\xbb\x6b"), element(0x53AC, cues_at.to_bytes(8, "big"))),
        )

    before = len(seek_head(0)) + len(head)
    begin = len(ebml) + 12 + before
    at = 0
    while at < len(blocks):
        group = [blocks[at]]
        # A cluster begins with a key of the first track, and its blocks lie within 30 s of its time.
        while at + len(group) < len(blocks):
            following = blocks[at + len(group)]
            if len(group) >= layout.cluster_blocks or abs(following.at - group[0].at) > 30_000:
                break
            group.append(following)
        base = max(0, group[0].at)
        body = bytearray(number(0xE7, base))
        header = 12
        start = len(clusters)
        for block in group:
            track_number = bytes((0x80 | block.track,))
            time = struct.pack(">h", block.at - base)
            if block.duration is None:
                made = element(0xA3, track_number, time, bytes((0x80 if block.key else 0,)), block.data)
            else:
                inner = [element(0xA1, track_number, time, b"\0", block.data), number(0x9B, block.duration)]
                if not block.key:
                    inner.append(element(0xFB, b"\xff"))
                made = element(0xA0, *inner)
            tail = len(made) - made.rfind(block.data) if block.data else 0
            places.append((begin + start + header + len(body) + len(made) - tail, len(block.data)))
            body += made
            if block.key or layout.cues == "all":
                listed.append((block.at, block.track, len(starts)))
        starts.append(start)
        clusters += element(0x1F43B675, bytes(body), size=UNKNOWN if layout.live else None)
        at += len(group)
    beside = {"before": -1, "behind": 1}.get(layout.cues, 0)
    cues = []
    for at, which, cluster in listed:
        place = before + starts[min(max(cluster + beside, 0), len(starts) - 1)]
        cues.append(element(0xBB, number(0xB3, at), element(0xB7, number(0xF7, which), number(0xF1, place))))
    seek = seek_head(before + len(clusters))
    inside = seek + head + clusters + (element(0x1C53BB6B, *cues) if with_cues else b"")
    return ebml + element(0x18538067, inside, size=UNKNOWN if layout.live else None), places
