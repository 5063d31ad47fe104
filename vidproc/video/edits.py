"""What an MP4 or QuickTime file says of the order in which its frames are shown: its edit list.

An edit shows a stretch of the track's media at a stretch of the presentation; edits may leave media out, show it
twice, in another order, or hold one picture. The demuxer applies such lists by itself, but flags and times of its
packets are then approximate where an edit begins inside a group of pictures or inside a frame. So every list that
does more than shift the video is read here, and the media are decoded as they are.

Boxes and fields: ISO/IEC 14496-12 (2015), 8.2.2 (mvhd), 8.4.2 (mdhd), 8.6.6 (elst), 8.8.1 (mvex).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from fractions import Fraction

from vidproc.media import Edit
from vidproc.video.mp4 import Bytes, NotPlain, boxes, promised_ticks, timescale

MAX_EDITS = 10_000
"""Entries of an edit list that are read. A cutting program writes one for each cut."""


@dataclass(frozen=True, slots=True)
class RawEdit:
    """One entry of the list, as it stands in the file."""

    duration: int
    """Ticks of the movie."""
    media_time: int
    """Ticks of the track; -1: nothing is shown."""
    rate: int
    """0: the picture at `media_time` stands still."""


@dataclass(frozen=True, slots=True)
class MovieTrack:
    """What the headers of one track say."""

    scale: int
    """Ticks a second of the track."""
    movie_scale: int
    """Ticks a second in which the edits' durations are given."""
    edits: tuple[RawEdit, ...]
    fragmented: bool
    movie_ticks: int = 0
    """Length that the movie's header promises, in the movie's ticks; 0: none."""

    @property
    def movie_s(self) -> float:
        """The same in seconds."""
        return self.movie_ticks / self.movie_scale

    @property
    def lead(self) -> int:
        """Ticks of the track for which nothing is shown before the first picture."""
        total = 0
        for edit in self.edits:
            if edit.media_time >= 0:
                break
            total += edit.duration
        return self._ticks(Fraction(total))

    @property
    def only_shifts(self) -> bool:
        """Whether at most one stretch is shown, at its own pace: then the demuxer's times differ by a constant."""
        shown = [e for e in self.edits if e.media_time >= 0]
        after_empty = all(e.media_time < 0 for e in self.edits[: len(self.edits) - len(shown)])
        return len(shown) <= 1 and after_empty and all(e.rate for e in shown)

    @property
    def shown_ticks(self) -> int | None:
        """Ticks of the track for which the one edit shows its media; None where there is no edit or no duration."""
        shown = [e for e in self.edits if e.media_time >= 0]
        return self._ticks(Fraction(shown[0].duration)) if shown and shown[0].duration else None

    def timeline(self, media_end: int) -> tuple[Edit, ...]:
        """The edits in ticks of the track. The presentation begins with the first picture that is shown.
        `media_end`: where the last frame of the media ends."""
        made: list[Edit] = []
        at = Fraction(0)
        for raw in self.edits:
            if raw.media_time < 0 and not made:
                continue  # time begins with the first picture
            start = round(at)
            at += Fraction(raw.duration * self.scale, self.movie_scale)
            length = round(at) - start
            if raw.media_time < 0:  # the picture before stays
                if length > 0:
                    made.append(Edit(start, made[-1].last_tick, length, still=True))
                continue
            if not raw.duration:  # fragments: as long as there are media
                length = max(0, media_end - raw.media_time)
                at += length
            if length > 0:
                made.append(Edit(start, raw.media_time, length, still=raw.rate == 0))
        return tuple(made)

    def _ticks(self, duration: Fraction) -> int:
        return round(duration * self.scale / self.movie_scale)


def read_track(file: Bytes, index: int) -> MovieTrack | None:
    """The headers of a file's track by its place among all tracks; None where they cannot be understood. Raises what
    reading raises."""
    try:
        return _read_track(file, index)
    except (NotPlain, struct.error, ValueError, IndexError, OverflowError, StopIteration):
        return None


def _read_track(file: Bytes, index: int) -> MovieTrack | None:
    def read(start: int, end: int) -> bytes:
        data = file.read(start, end)
        if len(data) < end - start:
            raise NotPlain
        return data

    moov, fragments = None, False
    for box in boxes(read, 0, file.size, cut_off=True):
        fragments |= box.kind in (b"moof", b"styp", b"sidx")
        if box.kind == b"moov":
            moov = moov or box
        if moov and fragments:
            break
    if moov is None:
        return None
    inside = list(boxes(read, moov.body, moov.end))
    tracks = [b for b in inside if b.kind == b"trak"]
    header = next(b for b in inside if b.kind == b"mvhd")
    fragments |= any(b.kind == b"mvex" for b in inside)
    track = list(boxes(read, tracks[index].body, tracks[index].end))
    media = next(b for b in track if b.kind == b"mdia")
    media_header = next(b for b in boxes(read, media.body, media.end) if b.kind == b"mdhd")
    scales = timescale(read, media_header), timescale(read, header)
    made = MovieTrack(*scales, (), fragments, promised_ticks(read, header))
    for edts in (b for b in track if b.kind == b"edts"):
        for box in boxes(read, edts.body, edts.end):
            if box.kind == b"elst":
                return replace(made, edits=_entries(read(box.body, min(box.end, box.body + 8 + 20 * MAX_EDITS))))
    return made


def _entries(body: bytes) -> tuple[RawEdit, ...]:
    count = struct.unpack(">I", body[4:8])[0]
    shape = ">QqhH" if body[:1] == b"\1" else ">IihH"
    if count > MAX_EDITS or 8 + count * struct.calcsize(shape) > len(body):
        raise NotPlain
    rows = struct.iter_unpack(shape, body[8 : 8 + count * struct.calcsize(shape)])
    made = tuple(RawEdit(duration, media_time, rate) for duration, media_time, rate, _ in rows)
    if any(e.media_time < -1 for e in made):
        raise NotPlain
    return made
