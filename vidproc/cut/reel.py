"""All clips of an export joined into one file, with a chapter an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidproc.cut.encode import ENCODERS, quiet_encoders, shown_frames
from vidproc.cut.manifest import REEL as NAME
from vidproc.cut.work import LICENSES, ClipRecord, aside, no_room, not_written, place_of, sha256_of
from vidproc.errors import TransientError, VidprocError
from vidproc.media import Video, VideoInfo, content_hash
from vidproc.memory import stay_small
from vidproc.runtime.step import Resources
from vidproc.secrets import redact
from vidproc.storage import StorageOptions, size_and_etag
from vidproc.text import printable
from vidproc.video.container import MediaLimits, Source, open_container
from vidproc.video.probe import probe

if TYPE_CHECKING:
    from av import VideoFrame

RATE = 48_000
"""Samples of sound a second."""
MOST_FPS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ReelWork:
    """The clips of a reel, in the order in which they are shown."""

    clips: tuple[ClipRecord, ...]
    codec: str
    replaces: str | None = None

    @property
    def reel_id(self) -> str:
        return content_hash("reel", "1", self.codec, *(c.clip_id + c.sha256 for c in self.clips))


def in_order(clips: Sequence[ClipRecord]) -> tuple[ClipRecord, ...]:
    """By the wall clock; clips without one behind, by name."""
    return tuple(sorted(clips, key=lambda c: (c.recorded_at is None, c.recorded_at or "", c.name)))


@dataclass(frozen=True, kw_only=True)
class JoinClips:
    """ReelWork -> ClipRecord of the reel: `made`, or `failed` where trying again would not help."""

    out: str
    options: StorageOptions
    needs: Resources
    limits: MediaLimits = field(default_factory=MediaLimits)
    name: str = "reel"
    stateful: bool = False

    def setup(self) -> None:
        stay_small()
        quiet_encoders()

    def __call__(self, work: ReelWork) -> ClipRecord:
        record = ClipRecord(
            clip_id=work.reel_id, name=NAME, file="", status="failed", uri=self.out, content_id="",
            asked_start_s=0.0, asked_end_s=0.0,
        )  # fmt: skip
        try:
            return self._join(work, record)
        except (VidprocError, OSError) as error:
            if full := no_room(error):
                return replace(record, error_class="disk_full", reason=full)
            if isinstance(error, OSError):
                raise not_written("the reel", error) from error
            if isinstance(error, TransientError):
                raise
            return replace(record, error_class=error.error_class, reason=redact(str(error)))

    def _join(self, work: ReelWork, record: ClipRecord) -> ClipRecord:
        place = place_of(self.out, self.options)
        source = Source(self.options)
        parts = [_Part.of(clip, place.uri_of(clip.file), source, self.limits, self.options) for clip in work.clips]
        with aside(place, work.reel_id) as folder:
            path = folder / f"{NAME}.mp4"
            joiner = Joiner(parts, source, self.limits, work.codec)
            joiner.write(path)
            encoder = ENCODERS[work.codec][0]
            record = replace(
                record, status="made", file=path.name, mode="encode", encoded=joiner.frames, encoders=(encoder,),
                license=LICENSES[encoder], width=joiner.width, height=joiner.height, fps=float(joiner.fps),
                start_s=0.0, end_s=float(joiner.frames / joiner.fps), sha256=sha256_of(path),
                size_bytes=path.stat().st_size, answers=tuple(joiner.chapters),
            )  # fmt: skip
            place.put(record.key, replace(record, status="writing").write())
            place.put_file(record.file, str(path))
            place.put(record.key, record.write())
        return record


@dataclass(frozen=True, slots=True)
class _Part:
    """One clip, as something to read."""

    record: ClipRecord
    info: VideoInfo
    sound: bool

    @classmethod
    def of(cls, record: ClipRecord, uri: str, source: Source, limits: MediaLimits, options: StorageOptions) -> _Part:
        size, etag = size_and_etag(uri, options)
        info = probe(Video(uri, size, f"{etag}:{size}"), source, limits)
        with open_container(info.video, source, limits, headers_only=True) as container:
            return cls(record, info, bool(container.streams.audio))


class Joiner:
    """Writes one file at one size and rate. A smaller picture gets black margins; a frame stays on screen until the
    next one, at the rate of the fastest clip."""

    def __init__(self, parts: Sequence[_Part], source: Source, limits: MediaLimits, codec: str) -> None:
        self.parts, self.source, self.limits, self.codec = parts, source, limits, codec
        largest = max((p.info for p in parts), key=lambda i: i.width * i.height)
        self.width, self.height = _even(largest.width), _even(largest.height)
        # Of the sources: a short clip's own average depends on where it was cut.
        rates = [Fraction(fps).limit_denominator(1001) for p in parts if (fps := p.record.fps or p.info.fps)]
        self.fps = min(max(rates, default=Fraction(25)), Fraction(MOST_FPS))
        self.counts = [max(1, round(Fraction(p.info.duration_s) * self.fps)) for p in parts]
        self.frames = sum(self.counts)
        self.chapters = self._chapters()

    def _chapters(self) -> list[dict[str, Any]]:
        """One for each moment at which an answer begins; the first of a clip begins with it."""
        found: list[dict[str, Any]] = []
        at = 0
        for part, count in zip(self.parts, self.counts, strict=True):
            begin, end = float(at / self.fps), float((at + count) / self.fps)
            starts: dict[float, list[dict[str, Any]]] = {}
            for place, answer in enumerate(part.record.answers):
                inside = answer["start_s"] - (part.record.start_s or 0.0)
                starts.setdefault(begin if place == 0 else max(begin, min(begin + inside, end)), []).append(answer)
            edges = [*sorted(starts), end]
            for start_s, end_s in pairwise(edges):
                if end_s - start_s >= 0.001:
                    found.append({"start_s": start_s, "end_s": end_s, "title": _title(part.record, starts[start_s])})
            at += count
        return found

    def write(self, path: Path) -> None:
        import av
        from av.video.frame import PictureType

        name, options = ENCODERS[self.codec]
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as target:
            stream: Any = target.add_stream(name, rate=self.fps, options=options)
            stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
            stream.codec_context.time_base = 1 / self.fps
            sound: Any = (
                target.add_stream("aac", rate=RATE, layout="stereo") if any(p.sound for p in self.parts) else None
            )
            target.set_chapters([_chapter(number, **c) for number, c in enumerate(self.chapters, 1)])
            begin = 0
            for part, count in zip(self.parts, self.counts, strict=True):
                voice = _Voice(part, self.source, self.limits, begin / self.fps, (begin + count) / self.fps)
                for number, frame in enumerate(self._pictures(part, count)):
                    frame.pts, frame.time_base, frame.pict_type = begin + number, 1 / self.fps, PictureType.NONE
                    target.mux(stream.encode(frame))
                    if sound is not None and number % 8 == 7:
                        for chunk in voice.until((begin + number) / self.fps):
                            target.mux(sound.encode(chunk))
                if sound is not None:
                    for chunk in voice.until(None):
                        target.mux(sound.encode(chunk))
                begin += count
            for each in (stream, sound):
                if each is not None:
                    target.mux(each.encode(None))

    def _pictures(self, part: _Part, count: int) -> Iterator[VideoFrame]:
        """Yield one frame for each tick of the reel."""
        info = part.info
        end = info.origin_pts + int(Fraction(info.duration_s) / info.time_base) + 1
        given = 0
        last: VideoFrame | None = None
        for pts, frame in shown_frames(info, self.source, self.limits, info.origin_pts, end):
            at = (pts - info.origin_pts) * info.time_base * self.fps
            while last is not None and given < count and given < at:
                yield last
                given += 1
            last = self._fitted(frame, info)
        while last is not None and given < count:
            yield last
            given += 1

    def _fitted(self, frame: VideoFrame, info: VideoInfo) -> VideoFrame:
        from av import VideoFrame

        share = min(self.width / info.width, self.height / info.height)
        width = min(_even(round(info.width * share)), self.width)
        height = min(_even(round(info.height * share)), self.height)
        small: Any = frame.reformat(width=width, height=height, format="yuv420p")
        if (width, height) == (self.width, self.height):
            return small  # type: ignore[no-any-return]
        whole = np.full((self.height * 3 // 2, self.width), 128, np.uint8)
        whole[: self.height] = 16
        left, top = (self.width - width) // 4 * 2, (self.height - height) // 4 * 2
        canvas: Any = VideoFrame.from_ndarray(whole, "yuv420p")
        for number, plane in enumerate(small.planes):
            n = 1 if number == 0 else 2
            pixels = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
            into = canvas.planes[number]
            target = np.frombuffer(into, np.uint8).reshape(into.height, into.line_size).copy()
            target[top // n : top // n + plane.height, left // n : left // n + plane.width] = pixels
            into.update(target.tobytes())
        return canvas  # type: ignore[no-any-return]


def _even(side: int) -> int:
    return max(2, side - side % 2)


class _Voice:
    """The sound of one clip from `begin` to `end` of the reel, in seconds; silence where it has none."""

    def __init__(self, part: _Part, source: Source, limits: MediaLimits, begin: Fraction, end: Fraction) -> None:
        self._at, self._end = round(begin * RATE), round(end * RATE)
        self._begin = self._at
        self._chunks = self._decoded(part, source, limits) if part.sound else iter(())
        self._left: tuple[int, np.ndarray] | None = None

    def _decoded(self, part: _Part, source: Source, limits: MediaLimits) -> Iterator[tuple[int, np.ndarray]]:
        """Yield sample numbers of the reel and sound, float32 (2, n)."""
        from av.audio.resampler import AudioResampler

        resampler = AudioResampler(format="fltp", layout="stereo", rate=RATE)
        zero = part.info.origin_pts * part.info.time_base
        with open_container(part.info.video, source, limits) as container:
            first: int | None = None
            given = 0
            for frame in container.decode(container.streams.audio[0]):
                if first is None:
                    first = round((Fraction(frame.time or 0) - zero) * RATE)
                for chunk in resampler.resample(frame):
                    sound = chunk.to_ndarray()
                    yield self._begin + first + given, sound
                    given += sound.shape[1]

    def until(self, moment: Fraction | None) -> Iterator[Any]:
        """Yield frames of sound up to a moment of the reel; None: to the end."""
        limit = self._end if moment is None else min(round(moment * RATE), self._end)
        while self._at < limit:
            if self._left is None:
                self._left = next(self._chunks, (1 << 62, np.zeros((2, 0), np.float32)))
            start, sound = self._left
            if start < self._at:  # before the first picture, or behind what was given
                sound, start = sound[:, self._at - start :], self._at
            if start > self._at:
                n = min(start, limit) - self._at
                self._left = start, sound
                yield self._frame(np.zeros((2, n), np.float32))
                continue
            n = min(sound.shape[1], limit - self._at)
            self._left = (start + n, sound[:, n:]) if n < sound.shape[1] else None
            if n:
                yield self._frame(sound[:, :n])

    def _frame(self, sound: np.ndarray) -> Any:
        from av import AudioFrame

        frame = AudioFrame.from_ndarray(np.ascontiguousarray(sound, np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._at, Fraction(1, RATE)
        self._at += sound.shape[1]
        return frame


def _title(record: ClipRecord, answers: Sequence[dict[str, Any]]) -> str:
    """Camera, time and labels."""
    label = " + ".join(dict.fromkeys(a["label"] for a in answers if a["label"]))
    start_s = max(answers[0]["start_s"], record.start_s or 0.0)
    if record.recorded_at is not None:
        at = datetime.fromisoformat(record.recorded_at) + timedelta(seconds=start_s - record.asked_start_s)
        when = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    else:
        when = f"at {int(start_s) // 60}:{start_s % 60:05.2f}"
    return printable(" · ".join(filter(None, (record.camera, when, label))))


def _chapter(number: int, start_s: float, end_s: float, title: str) -> Any:
    return {
        "id": number, "start": round(start_s * 1000), "end": round(end_s * 1000), "time_base": Fraction(1, 1000),
        "metadata": {"title": title},
    }  # fmt: skip
