"""MP4 and QuickTime: boxes of ISO/IEC 14496-12 (2015), with whatever tables one likes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from tests.support.containers.nal import avc_configuration, hevc_configuration, with_lengths
from tests.support.containers.streams import Stream

SYNC, NOT_SYNC = 0x02000000, 0x01010000
"""Flags of a sample in a fragment."""


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


@dataclass(frozen=True)
class Sample:
    data: bytes
    duration: int
    """Ticks of decoding time until the next one."""
    offset: int
    """Ticks from decoding to presentation."""
    sync: bool
    entry: int = 1
    """Sample entry that describes it, from 1."""


@dataclass(frozen=True, kw_only=True)
class Track:
    samples: Sequence[Sample]
    entries: Sequence[bytes]
    size: tuple[int, int]
    scale: int
    """Ticks a second."""
    sync_table: bool = True
    """False: no `stss`, so every sample claims to be a sync sample."""
    offsets: int | None = 0
    """Version of `ctts`, None: there is none."""
    edits: Sequence[tuple[int, int, int]] = ()
    """Length in ticks of the movie, media time in ticks of the track (-1: empty), rate."""
    media_duration: int | None = None
    """What `mdhd` says, None: the truth."""
    flags: int = 3
    """Of `tkhd`: 1 enabled, 2 in movie."""
    fragmented_from: int | None = None
    """First sample that lies in fragments instead of the movie's tables."""
    chunk: int = 1
    """Samples in one chunk at most."""

    @property
    def duration(self) -> int:
        return sum(s.duration for s in self.samples)


def esds(header: bytes, kind: int) -> bytes:
    """Elementary stream descriptor of ISO/IEC 14496-1."""

    def descriptor(tag: int, body: bytes) -> bytes:
        return bytes((tag, 0x80, 0x80, 0x80, len(body))) + body

    specific = descriptor(5, header) if header else b""
    config = descriptor(4, struct.pack(">BB3sII", kind, 0x11, bytes(3), 400_000, 400_000) + specific)
    return full(b"esds", 0, 0, descriptor(3, struct.pack(">HB", 1, 0) + config + descriptor(6, b"\2")))


def entry(stream: Stream, *, inside: bool = False) -> bytes:
    """Return the sample entry that describes a stream. `inside`: the parameter sets stand in the samples."""
    width, height = stream.size
    head = stream.header
    match stream.codec:
        case "h264":
            kind, parts = b"avc3" if inside else b"avc1", box(b"avcC", avc_configuration(head, empty=inside))
        case "hevc":
            kind, parts = b"hev1" if inside else b"hvc1", box(b"hvcC", hevc_configuration(head, empty=inside))
        case "mpeg4":
            kind, parts = b"mp4v", esds(head, 0x20)
        case "mpeg2video":
            kind, parts = b"mp4v", esds(b"", 0x61)
        case "mjpeg":
            kind, parts = b"jpeg", b""
        case "vp8" | "vp9":
            kind = b"vp08" if stream.codec == "vp8" else b"vp09"
            parts = full(b"vpcC", 1, 0, bytes((0, 10, 0x82, 2, 2, 2, 0, 0)))
        case "av1":
            kind, parts = b"av01", box(b"av1C", av1_configuration(head))
        case other:
            raise ValueError(f"no sample entry for {other}")
    fixed = struct.pack(">6xH16xHHIIIH32xHh", 1, width, height, 72 << 16, 72 << 16, 0, 1, 24, -1)
    return box(kind, fixed, parts)


def av1_configuration(header: bytes) -> bytes:
    """`av1C`: the encoder's own where it gives one, else its sequence header behind four bytes."""
    return header if header[:1] == b"\x81" else bytes((0x81, 0, 0x0C, 0)) + header


def payload(stream: Stream, data: bytes) -> bytes:
    return with_lengths(data) if stream.codec in ("h264", "hevc") else data


def _runs(values: Sequence[int]) -> list[tuple[int, int]]:
    return [(len(list(group)), value) for value, group in groupby(values)]


def _table(kind: bytes, version: int, rows: Sequence[tuple[int, ...]], shape: str) -> bytes:
    return full(kind, version, 0, struct.pack(">I", len(rows)), *(struct.pack(shape, *row) for row in rows))


def _tables(track: Track, samples: Sequence[Sample], places: Sequence[int]) -> bytes:
    """`stbl`."""
    parts = [full(b"stsd", 0, 0, struct.pack(">I", len(track.entries)), *track.entries)]
    parts.append(_table(b"stts", 0, _runs([s.duration for s in samples]), ">II"))
    if track.offsets is not None and samples:
        shape = ">Ii" if track.offsets else ">II"
        parts.append(_table(b"ctts", track.offsets, _runs([s.offset for s in samples]), shape))
    if track.sync_table and samples:
        parts.append(_table(b"stss", 0, [(i + 1,) for i, s in enumerate(samples) if s.sync], ">I"))
    firsts = _chunks(track, len(samples))
    lengths = [stop - start for start, stop in pairwise([*firsts, len(samples)])]
    rows = [(n + 1, length, samples[i].entry) for n, (i, length) in enumerate(zip(firsts, lengths, strict=True))]
    changes = [row for n, row in enumerate(rows) if n == 0 or row[1:] != rows[n - 1][1:]]
    parts.append(_table(b"stsc", 0, changes, ">III"))
    sizes = struct.pack(">II", 0, len(samples)) + b"".join(struct.pack(">I", len(s.data)) for s in samples)
    parts.append(full(b"stsz", 0, 0, sizes))
    parts.append(_table(b"co64", 0, [(places[i],) for i in firsts], ">Q"))
    return box(b"stbl", *parts)


def _chunks(track: Track, count: int) -> list[int]:
    """Return the first sample of each chunk."""
    firsts: list[int] = []
    for i in range(count):
        full_up = not firsts or i - firsts[-1] == track.chunk
        if full_up or track.samples[i].entry != track.samples[i - 1].entry:
            firsts.append(i)
    return firsts


_UNITY = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def _trak(number: int, track: Track, movie_scale: int, chunks: Sequence[int]) -> bytes:
    inside = track.samples[: track.fragmented_from]
    length = sum(s.duration for s in inside)
    media = length if track.media_duration is None else track.media_duration
    shown = sum(e[0] for e in track.edits) if track.edits else media * movie_scale // track.scale
    tkhd = struct.pack(">IIIIIII8xhhh2x", 0, 0, number, 0, shown, 0, 0, 0, 0, 0)[:20]
    tkhd = struct.pack(">IIIII8xhhh2x", 0, 0, number, 0, shown, 0, 0, 0)
    parts = [full(b"tkhd", 0, track.flags, tkhd, _UNITY, struct.pack(">II", track.size[0] << 16, track.size[1] << 16))]
    if track.edits:
        rows = [(length, start, rate, 0) for length, start, rate in track.edits]
        parts.append(box(b"edts", _table(b"elst", 0, rows, ">Iihh")))
    dinf = box(b"dinf", full(b"dref", 0, 0, struct.pack(">I", 1), full(b"url ", 0, 1)))
    parts.append(
        box(
            b"mdia",
            full(b"mdhd", 0, 0, struct.pack(">IIIIHH", 0, 0, track.scale, media, 0x55C4, 0)),
            full(b"hdlr", 0, 0, struct.pack(">I4s12x", 0, b"vide"), b"\0"),
            box(b"minf", full(b"vmhd", 0, 1, bytes(8)), dinf, _tables(track, inside, chunks)),
        )
    )
    return box(b"trak", *parts)


@dataclass(kw_only=True)
class Fragments:
    """How the samples from `fragmented_from` on are written."""

    length: int = 10
    """Samples in one."""
    flags: str = "true"
    """"true", "all" (every sample says that it is a sync sample), "none" (by the defaults of `trex`: as "all"), or
    "first" (of each fragment the first)."""
    index: bool = False
    """With `mfra` at the end."""
    duration: str | None = None
    """`mehd`: "true", "short", or None: absent."""
    start: int = 0
    """Ticks by which the first fragment's clock is ahead, as in a piece that was cut out of something longer."""


def write(
    tracks: Sequence[Track],
    *,
    movie_scale: int = 1000,
    movie_duration: int | None = None,
    front: bool = False,
    fragments: Fragments | None = None,
    brand: bytes = b"isom",
    damage: Callable[[bytearray, list[list[tuple[int, int]]]], None] | None = None,
) -> bytes:
    """`damage` gets the file and where each track's samples lie in it."""
    ftyp = box(b"ftyp", brand, struct.pack(">I", 512), brand, b"iso2mp41")

    def moov(chunks: Sequence[Sequence[int]]) -> bytes:
        lengths = [sum(e[0] for e in t.edits) or t.duration * movie_scale // t.scale for t in tracks]
        whole = max(lengths) if movie_duration is None else movie_duration
        fixed = struct.pack(">IIIIIH10x", 0, 0, movie_scale, whole, 0x10000, 0x100)
        parts = [full(b"mvhd", 0, 0, fixed, _UNITY, bytes(24), struct.pack(">I", len(tracks) + 1))]
        parts += [_trak(i + 1, t, movie_scale, c) for i, (t, c) in enumerate(zip(tracks, chunks, strict=True))]
        if fragments is not None:
            trex = [full(b"trex", 0, 0, struct.pack(">IIIII", i + 1, 1, 0, 0, 0)) for i in range(len(tracks))]
            mehd = []
            if fragments.duration is not None:
                said = whole if fragments.duration == "true" else whole // 3
                mehd = [full(b"mehd", 0, 0, struct.pack(">I", said))]
            parts.append(box(b"mvex", *mehd, *trex))
        return box(b"moov", *parts)

    inside = [t.samples[: t.fragmented_from] for t in tracks]
    # Tracks take turns, chunk by chunk in order of decoding time.
    order = sorted(
        (sum(s.duration for s in t.samples[:first]) / t.scale, which, i)
        for which, t in enumerate(tracks)
        for first, stop in pairwise([*_chunks(t, len(inside[which])), len(inside[which])])
        for i in range(first, stop)
    )
    sizes = len(moov([[0] * len(s) for s in inside]))
    start = len(ftyp) + (sizes if front else 0) + 8
    places: list[list[tuple[int, int]]] = [[] for _ in tracks]
    body = bytearray()
    for _, which, i in order:
        data = inside[which][i].data
        places[which].append((start + len(body), len(data)))
        body += data
    index = moov([[at for at, _ in p] for p in places])
    mdat = box(b"mdat", bytes(body))
    out = bytearray(ftyp + index + mdat if front else ftyp + mdat + index)
    if fragments is not None:
        out += _fragments(tracks[0], fragments, len(out), places[0])
    if damage is not None:
        damage(out, places)
    return bytes(out)


def _fragments(track: Track, how: Fragments, begin: int, places: list[tuple[int, int]]) -> bytes:
    out = bytearray()
    first = track.fragmented_from or 0
    time = sum(s.duration for s in track.samples[:first])
    index = []
    for number, at in enumerate(range(first, len(track.samples), how.length)):
        samples = track.samples[at : at + how.length]
        each = how.flags in ("true", "all")
        flags = 0x1 | 0x100 | 0x200 | (0x400 if each else 0) | 0x800 | (0x4 if how.flags == "first" else 0)
        first_flags = struct.pack(">I", SYNC) if how.flags == "first" else b""
        rows = b""
        for s in samples:
            sync = how.flags == "all" or s.sync
            rows += struct.pack(">II", s.duration, len(s.data))
            if each:
                rows += struct.pack(">I", SYNC if sync else NOT_SYNC)
            rows += struct.pack(">i", s.offset)

        def moof(offset: int) -> bytes:
            trun = full(b"trun", 1, flags, struct.pack(">Ii", len(samples), offset), first_flags, rows)  # noqa: B023
            by_default = struct.pack(">I", NOT_SYNC) if how.flags == "first" else b""
            tfhd = full(b"tfhd", 0, 0x020020 if by_default else 0x020000, struct.pack(">I", 1), by_default)
            tfdt = full(b"tfdt", 1, 0, struct.pack(">Q", time + how.start))  # noqa: B023
            return box(b"moof", full(b"mfhd", 0, 0, struct.pack(">I", number + 1)), box(b"traf", tfhd, tfdt, trun))  # noqa: B023

        size = len(moof(0))
        index.append((time, begin + len(out)))
        out += moof(size + 8)
        data_at = begin + len(out) + 8
        for s in samples:
            places.append((data_at, len(s.data)))
            data_at += len(s.data)
        out += box(b"mdat", *(s.data for s in samples))
        time += sum(s.duration for s in samples)
    if how.index:
        rows = b"".join(struct.pack(">QQBBB", at, place, 1, 1, 1) for at, place in index)
        tfra = full(b"tfra", 1, 0, struct.pack(">III", 1, 0, len(index)), rows)
        mfro = full(b"mfro", 0, 0, struct.pack(">I", len(tfra) + 8 + 16))
        out += box(b"mfra", tfra, mfro)
    return bytes(out)
