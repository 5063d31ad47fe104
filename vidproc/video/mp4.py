"""An MP4 or QuickTime file with no more of its index than one stretch of the video needs.

The demuxer builds the index of the whole file at each opening: for ten hours of video tens of
megabytes and a tenth of a second, for every task of a minute. An `Excerpt` is the same file, each byte
at its place, with another index behind its end: the first frames, by which the demuxer recognises the
stream and sets its clock, and the frames of the stretch. Their times and places are the original's.

Boxes and fields: ISO/IEC 14496-12 (2015), sections 6 and 8. Whatever is not plainly understood
(fragments, several edits or descriptions, damage) gives no excerpt, and the demuxer reads the index itself.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

WORTH_BYTES = 512 << 10
"""Of the index: below this the demuxer's own way is as cheap. Half an hour of video has as much."""
FRAME_BYTES = 8
"""Of the index, for each frame, about."""
HEAD_FRAMES = 64
"""Of the video's beginning are kept at least, up to the next keyframe: more than the demuxer looks at."""
MARGIN_S, MARGIN_FRAMES = 2.0, 64
"""Around the stretch: decoding and presentation times differ by the frames in between."""

_MOST_BOXES = 10_000
_BLOCK = 1 << 16
"""Entries of a table read at a time."""
_LONGEST = 1 << 30
"""Ticks of one frame: not far beyond, the demuxer takes them for damage."""
_MOST_FRAMES = 1 << 24
"""Entries of a table that are looked at. At 30 frames a second this is 155 hours."""


class NotPlain(Exception):
    """This file's index is read by the demuxer itself."""


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int
    body: int
    end: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Of a video stream, in seconds of its own clock (timestamps times time base)."""

    stream_index: int
    start_s: float | None
    """A keyframe at or before this is wanted. None: from the first frame on."""
    end_s: float | None
    """Frames shown before this are wanted, and a few more. None: to the last one."""
    as_media: bool = False
    """The demuxer will leave the edit list alone."""


class Bytes(Protocol):
    """A file or an object, read at any place."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, end: int) -> bytes:
        """Those in between, fewer only where it ends before."""

    def some(self, start: int, most: int) -> bytes:
        """From there on, at least one but where it ends: what is quick to have, of what is read in order."""

    def close(self) -> None: ...


class LocalBytes:
    """Raises OSError as opening a file does."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - see close
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, start: int, end: int) -> bytes:
        return os.pread(self._file.fileno(), end - start, start)

    def some(self, start: int, most: int) -> bytes:
        return self.read(start, start + most)

    def close(self) -> None:
        self._file.close()


class Excerpt(io.RawIOBase):
    """The file, readable: the old index blanked out, the new one behind the end. Holds the video stream alone, as
    stream 0."""

    def __init__(self, file: Bytes, moov: _Box, index: bytes, head: _Head) -> None:
        self._file, self._size, self._moov, self._index = file, file.size, moov, index
        self._head, self._at = head, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size + len(self._index)}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, out: Any) -> int:
        behind = self._at - self._size
        data = self._from_file(len(out)) if behind < 0 else self._index[behind : behind + len(out)]
        out[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _from_file(self, n: int) -> bytes:
        data = self._file.some(self._at, min(n, self._size - self._at))
        name = self._moov.start + 4
        if self._at < name + 4 and name < self._at + len(data):
            patched = bytearray(data)
            for i, byte in enumerate(b"free"):
                if 0 <= name + i - self._at < len(data):
                    patched[name + i - self._at] = byte
            data = bytes(patched)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()

    @property
    def to_the_end(self) -> bool:
        """The video's last frame is in it: where it ends, the video does."""
        return self._head.last

    def first_time(self, stream: Any) -> int | None:
        """Decoding time in the stream's ticks from which on the stretch is complete; None where the demuxer made
        something else of this index than what was meant, so that it must not be used."""
        entries = stream.index_entries
        head = self._head
        if len(entries) != head.frames or entries[head.skipped].pos != head.place:
            return None
        time: int = entries[head.skipped].timestamp
        return time


@dataclass(frozen=True, slots=True)
class _Head:
    """What the demuxer must have found."""

    frames: int
    skipped: int
    """Frames in the index before those of the stretch."""
    place: int
    """Of the stretch's first frame in the file."""
    last: bool


def is_worth_it(frames: int | None) -> bool:
    """By how many frames a video has, before its index is looked at."""
    return (frames or 0) * FRAME_BYTES >= WORTH_BYTES


def excerpt(file: Bytes, stretch: Stretch) -> Excerpt | None:
    """None where the demuxer does better by itself. Whoever closes it closes the file. Raises what reading raises."""
    try:
        return _excerpt(file, stretch)
    except (NotPlain, struct.error, ValueError, IndexError, OverflowError, MemoryError, StopIteration):
        return None


def _excerpt(file: Bytes, stretch: Stretch) -> Excerpt | None:
    size = file.size

    def read(start: int, end: int) -> bytes:
        data = file.read(start, end)
        if len(data) < end - start:
            raise NotPlain
        return data

    moov = None
    for box in boxes(read, 0, size):
        if box.kind in (b"moof", b"mfra", b"sidx", b"styp") or (box.kind == b"moov" and moov is not None):
            raise NotPlain
        if box.kind == b"moov":
            moov = box
    if moov is None or moov.end - moov.start < WORTH_BYTES:
        return None
    inside = list(boxes(read, moov.body, moov.end))
    tracks = [b for b in inside if b.kind == b"trak"]
    if any(b.kind == b"mvex" for b in inside) or stretch.stream_index >= len(tracks):
        raise NotPlain
    header = next(b for b in inside if b.kind == b"mvhd")  # none: StopIteration
    track = _Track(read, tracks[stretch.stream_index], timescale(read, header))
    new_track, head = track.cut(stretch)
    index = _boxed(b"moov", read(header.start, header.end) + new_track)
    return Excerpt(file, moov, index, head)


def boxes(read: Callable[[int, int], bytes], start: int, end: int, *, cut_off: bool = False) -> Iterator[_Box]:
    """The boxes in a stretch of a file. Raises NotPlain where one reaches beyond it; with `cut_off` they end there."""
    count = 0
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", read(start, start + 8))
        body = start + 8
        if size == 1:
            size, body = struct.unpack(">Q", read(body, body + 8))[0], body + 8
        # Size 0 means up to the end of the file, where the new index is to be. And a truncated file is not plain.
        if size < body - start or start + size > end:
            if cut_off:
                return
            raise NotPlain
        yield _Box(kind, start, body, start + size)
        start += size
        count += 1
        if count > _MOST_BOXES:
            raise NotPlain


def _boxed(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def timescale(read: Callable[[int, int], bytes], header: _Box) -> int:
    """Of an `mvhd` or `mdhd` box."""
    at = header.body + (20 if read(header.body, header.body + 1) == b"\1" else 12)
    scale: int = struct.unpack(">I", read(at, at + 4))[0]
    if not scale:
        raise NotPlain
    return scale


def promised_ticks(read: Callable[[int, int], bytes], header: _Box) -> int:
    """The length that an `mvhd` or `mdhd` box promises, in its own ticks; 0 where it promises none."""
    long = read(header.body, header.body + 1) == b"\1"
    at, shape, unknown = (header.body + 24, ">Q", (1 << 64) - 1) if long else (header.body + 16, ">I", (1 << 32) - 1)
    ticks: int = struct.unpack(shape, read(at, at + struct.calcsize(shape)))[0]
    return 0 if ticks == unknown else ticks


@dataclass(frozen=True, slots=True)
class _Table:
    """The entries of a box that lists them, not read yet."""

    read: Callable[[int, int], bytes]
    at: int
    count: int
    kind: str
    """numpy's name of one column, big-endian."""
    columns: int = 1

    def rows(self, first: int, last: int) -> np.ndarray:
        """int64 (last - first, columns)"""
        if not 0 <= first <= last <= self.count:
            raise NotPlain
        width = self.columns * np.dtype(self.kind).itemsize
        data = self.read(self.at + first * width, self.at + last * width)
        return np.frombuffer(data, self.kind).astype(np.int64).reshape(-1, self.columns)

    def blocks(self) -> Iterator[np.ndarray]:
        for first in range(0, self.count, _BLOCK):
            yield self.rows(first, min(first + _BLOCK, self.count))

    def runs(self, first: int, last: int) -> tuple[np.ndarray, int]:
        """Of a table of (how many, value): the part that speaks of the frames [first, last), and the sum of the
        values of all before."""
        frames = before = 0
        found = []
        for block in self.blocks():
            counts, values = block.T
            ends = frames + np.cumsum(counts)
            starts = ends - counts
            before += int((values * np.clip(first - starts, 0, counts)).sum())
            inside = np.minimum(ends, last) - np.maximum(starts, first)
            if (inside > 0).any():
                found.append(np.stack([inside, values], axis=1)[inside > 0])
            frames = int(ends[-1])
            if frames >= last:
                return np.concatenate([*found, np.zeros((0, 2), np.int64)]), before
        raise NotPlain

    def frame_at(self, time: int) -> int:
        """Of a table of (how many, ticks): the first frame that begins at or after that time, the last one's end
        where there is none."""
        frames = ticks = 0
        for block in self.blocks():
            counts, values = block.T
            ends = ticks + np.cumsum(counts * values)
            row = int(np.searchsorted(ends, time))
            if row < len(ends):
                start = int(ends[row] - counts[row] * values[row])
                inside = -(-max(0, time - start) // max(1, int(values[row])))
                return frames + int(counts[:row].sum()) + inside
            frames, ticks = frames + int(counts.sum()), int(ends[-1])
        return frames


@dataclass(frozen=True, slots=True)
class _Keyframes:
    """Which frames are, numbered from 0."""

    numbers: np.ndarray | None
    """int64, ascending; None: all are."""
    count: int
    """Of all frames."""

    @classmethod
    def of(cls, table: _Table | None, count: int) -> _Keyframes:
        if table is None:
            return cls(None, count)
        numbers = table.rows(0, table.count).reshape(-1) - 1  # numbered from 1 there
        if (np.diff(numbers) <= 0).any():
            raise NotPlain
        return cls(numbers, count)

    def from_(self, frame: int) -> int:
        """The first at or after that one, or else the end."""
        if self.numbers is None:
            return frame
        place = int(np.searchsorted(self.numbers, frame))
        return int(self.numbers[place]) if place < len(self.numbers) else self.count

    def up_to(self, frame: int) -> int:
        """The last at or before that one, or else the first frame."""
        if self.numbers is None:
            return frame
        place = int(np.searchsorted(self.numbers, frame, side="right"))
        return int(self.numbers[place - 1]) if place else 0

    def within(self, first: int, last: int) -> np.ndarray:
        if self.numbers is None:
            return np.arange(first, last)
        return self.numbers[np.searchsorted(self.numbers, first) : np.searchsorted(self.numbers, last)]


@dataclass(slots=True)
class _Track:
    """One `trak` box, taken apart."""

    read: Callable[[int, int], bytes]
    box: _Box
    movie_scale: int
    tables: dict[bytes, _Box] = field(default_factory=dict)

    def cut(self, stretch: Stretch) -> tuple[bytes, _Head]:
        """The box with the frames of the stretch and the first ones."""
        read = self.read
        mdia = self._only(self.box, b"mdia")
        handler = self._only(mdia, b"hdlr")
        if read(handler.body + 8, handler.body + 12) != b"vide":
            raise NotPlain
        scale = timescale(read, self._only(mdia, b"mdhd"))
        stbl = self._only(self._only(mdia, b"minf"), b"stbl")
        tables = list(boxes(read, stbl.body, stbl.end))
        self.tables = {b.kind: b for b in tables}
        known = {b"stsd", b"stts", b"ctts", b"stss", b"stsz", b"stsc", b"stco", b"co64", b"sdtp", b"cslg", b"sgpd"}
        if len(self.tables) < len(tables) or not set(self.tables) <= known:
            raise NotPlain  # also groups of samples, encryption, partial sync: they speak of frames by number
        if struct.unpack(">I", read(self.tables[b"stsd"].body + 4, self.tables[b"stsd"].body + 8)) != (1,):
            raise NotPlain
        times = self._table(b"stts", ">u4", 2)
        sizes, same_size = self._sizes()
        keys = _Keyframes.of(self._table(b"stss", ">u4", 1) if b"stss" in self.tables else None, sizes.count)
        count = sizes.count
        if not 2 * HEAD_FRAMES <= count <= _MOST_FRAMES:
            raise NotPlain

        shift = 0 if stretch.as_media else self._shift(scale)  # from the times of the tables to those of the demuxer
        head = min(keys.from_(HEAD_FRAMES), 16 * HEAD_FRAMES, count)
        first, last = 0, count
        if stretch.start_s is not None:
            behind = times.frame_at(int((stretch.start_s - MARGIN_S) * scale) - shift)
            first = keys.up_to(min(behind, count - 1))
        if stretch.end_s is not None:
            last = min(times.frame_at(int((stretch.end_s + MARGIN_S) * scale) - shift) + MARGIN_FRAMES, count)
        first = max(first, head)
        last = max(last, first)

        head_times, _ = times.runs(0, head)
        own_times, first_time = times.runs(first, last)
        gap = first_time - int((head_times[:, 0] * head_times[:, 1]).sum())
        # The last frame of the head lasts until the stretch begins; in pieces, where that is very long.
        pieces = _pieces(int(head_times[-1, 1]) + gap)
        head_times[-1, 0] -= 1
        new_times = np.concatenate([head_times, np.array([[1, p] for p in pieces]), own_times])
        if new_times[:, 1].max() > _LONGEST:
            raise NotPlain
        extra = len(pieces) - 1
        skipped, total = head + extra, head + extra + last - first

        head_places, head_sizes = self._places(sizes, same_size, 0, head)
        own_places, own_sizes = self._places(sizes, same_size, first, last)
        places = np.concatenate([head_places, np.repeat(head_places[-1:], extra), own_places])
        new_sizes = np.concatenate([head_sizes, np.repeat(head_sizes[-1:], extra), own_sizes])
        made = {
            b"stts": _listed(new_times[new_times[:, 0] > 0]),
            b"stsz": struct.pack(">III", 0, 0, total) + new_sizes.astype(">u4").tobytes(),
            b"stsc": _listed(np.array([[1, 1, 1]])),  # a chunk for each frame: their places are known one by one
            b"co64": struct.pack(">II", 0, total) + places.astype(">u8").tobytes(),
        }
        if keys.numbers is not None or extra:
            new_keys = np.concatenate([keys.within(0, head), keys.within(first, last) - first + skipped])
            made[b"stss"] = _listed(new_keys[:, None] + 1)
        if b"ctts" in self.tables:
            delays, box = self._table(b"ctts", ">u4", 2), self.tables[b"ctts"]
            rows = [delays.runs(0, head)[0], np.array([[extra, 0]]), delays.runs(first, last)[0]]
            runs = np.concatenate(rows)
            made[b"ctts"] = read(box.body, box.body + 4) + _listed(runs[runs[:, 0] > 0])[4:]
        if b"sdtp" in self.tables:
            at, end = self.tables[b"sdtp"].body + 4, self.tables[b"sdtp"].end
            if at + count > end:
                raise NotPlain
            made[b"sdtp"] = bytes(4) + read(at, at + head) + bytes(extra) + read(at + first, at + last)
        if first == head:
            skipped = 0  # nothing is left out between both
        elif not len(own_places):
            raise NotPlain
        found = _Head(frames=total, skipped=skipped, place=int(places[skipped]), last=last == count)
        return self._rebuilt(self.box, made), found

    def _rebuilt(self, box: _Box, tables: dict[bytes, bytes]) -> bytes:
        """The box again, with the tables of samples replaced and all else as it is."""
        if box.kind == b"stbl":
            kept = [self.read(b.start, b.end) for b in self.tables.values() if b.kind in (b"stsd", b"cslg", b"sgpd")]
            return _boxed(b"stbl", b"".join(kept) + b"".join(_boxed(k, v) for k, v in tables.items()))
        if box.kind not in (b"trak", b"mdia", b"minf"):
            return self.read(box.start, box.end)
        inside = (self._rebuilt(b, tables) for b in boxes(self.read, box.body, box.end))
        return _boxed(box.kind, b"".join(inside))

    def _only(self, parent: _Box, kind: bytes) -> _Box:
        found = [b for b in boxes(self.read, parent.body, parent.end) if b.kind == kind]
        if len(found) != 1:
            raise NotPlain
        return found[0]

    def _table(self, kind: bytes, column: str, columns: int) -> _Table:
        box = self.tables.get(kind)
        if box is None:
            raise NotPlain
        count = struct.unpack(">I", self.read(box.body + 4, box.body + 8))[0]
        if count > _MOST_FRAMES or box.body + 8 + count * columns * np.dtype(column).itemsize > box.end:
            raise NotPlain
        return _Table(self.read, box.body + 8, count, column, columns)

    def _sizes(self) -> tuple[_Table, int]:
        """And the one size of all frames, 0 where each has its own."""
        box = self.tables.get(b"stsz")
        if box is None:
            raise NotPlain
        same, count = struct.unpack(">II", self.read(box.body + 4, box.body + 12))
        if not same and box.body + 12 + 4 * count > box.end:
            raise NotPlain
        return _Table(self.read, box.body + 12, count, ">u4"), same

    def _places(self, sizes: _Table, same: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Offset and size of the frames [first, last), int64."""
        if first >= last:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        wide = b"co64" in self.tables
        chunks = self._table(b"co64" if wide else b"stco", ">u8" if wide else ">u4", 1)
        runs = self._table(b"stsc", ">u4", 3)
        rows = runs.rows(0, runs.count)
        starts, per_chunk = rows[:, 0] - 1, rows[:, 1]
        ends = np.append(starts[1:], chunks.count)
        if (rows[:, 2] != 1).any() or (ends < starts).any() or (per_chunk < 1).any() or starts[0] != 0:
            raise NotPlain
        frames = np.concatenate([[0], np.cumsum((ends - starts) * per_chunk)])
        if frames[-1] < last:
            raise NotPlain
        run_of = np.searchsorted(frames, [first, last - 1], side="right") - 1
        chunk_of = starts[run_of] + (np.array([first, last - 1]) - frames[run_of]) // per_chunk[run_of]
        chunk = np.arange(chunk_of[0], chunk_of[1] + 1)
        run = np.searchsorted(starts, chunk, side="right") - 1
        in_chunk = per_chunk[run]
        chunk_first = frames[run] + (chunk - starts[run]) * in_chunk
        # Sizes from the beginning of the first chunk on: a frame lies behind those before it in its chunk.
        begin, end = int(chunk_first[0]), min(int(chunk_first[-1] + in_chunk[-1]), sizes.count)
        size = np.full(end - begin, same, np.int64) if same else sizes.rows(begin, end).reshape(-1)
        behind = np.cumsum(size) - size
        base = chunks.rows(int(chunk[0]), int(chunk[-1]) + 1).reshape(-1)
        of_frame = np.searchsorted(chunk_first, np.arange(begin, end), side="right") - 1
        offset = base[of_frame] + behind - behind[chunk_first - begin][of_frame]
        return offset[first - begin : last - begin], size[first - begin : last - begin]

    def _shift(self, scale: int) -> int:
        """Ticks to add to the tables' times, by an edit list that says when the video begins and no more."""
        edits = [b for b in boxes(self.read, self.box.body, self.box.end) if b.kind == b"edts"]
        if not edits:
            return 0
        box = self._only(edits[0], b"elst")
        wide = self.read(box.body, box.body + 1) == b"\1"
        count = struct.unpack(">I", self.read(box.body + 4, box.body + 8))[0]
        shape, width = (">QqHh", 20) if wide else (">IiHh", 12)
        if len(edits) > 1 or not 1 <= count <= 2 or box.body + 8 + count * width > box.end:
            raise NotPlain
        data = self.read(box.body + 8, box.body + 8 + count * width)
        entries = list(struct.iter_unpack(shape, data))
        empty = 0
        if count == 2:
            if entries[0][1] != -1:
                raise NotPlain
            empty = round(entries[0][0] * scale / self.movie_scale)
        _, media_time, rate, fraction = entries[-1]
        if media_time < 0 or (rate, fraction) != (1, 0):
            raise NotPlain
        return int(empty - media_time)


def _pieces(ticks: int) -> list[int]:
    whole, rest = divmod(ticks, _LONGEST)
    return [_LONGEST] * whole + ([rest] if rest or not whole else [])


def _listed(rows: np.ndarray) -> bytes:
    """Version and flags, the count, the entries: 32 bits each (a negative delay as its two's complement)."""
    return struct.pack(">II", 0, len(rows)) + (rows & 0xFFFFFFFF).astype(">u4").tobytes()
