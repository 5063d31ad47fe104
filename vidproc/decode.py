"""One decode pass for all models: Task -> the sampled frames of every grid.

Which frames are wanted follows from the packets' timestamps alone, before anything is decoded. So
the decoder gets what a wanted frame needs and nothing else: groups of pictures in which nobody wants
a frame are dropped, inside a group nothing is sent after the last wanted frame, and in between the
codec itself leaves out the frames that no other frame refers to (`skip_frame`, which is exact). Where
H.264 has frames that are referred to, but by no wanted one, they go in hollow (vidproc.h264). Only wanted
frames are converted and scaled. Where only keyframes are wanted, and an index tells where they lie, what
lies between is not even read.

That stands on timestamps. Where they are missing or go back, or where the frames that came out are
not the ones that the packets promised, everything is decoded in order and chosen at the output.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from heapq import heappop, heappush
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vidproc import h264
from vidproc.container import (
    STEPS_BACK_S,
    Frontier,
    MediaLimits,
    RepairedClock,
    Source,
    believable_duration,
    choose_stream,
    open_container,
    packets_of,
    prepare,
    translate,
)
from vidproc.errors import Declined, LimitExceeded, TransientError
from vidproc.media import DecodeReport, FrameBatch, FrameSize, Geometry, Grid, Task, VideoInfo
from vidproc.mp4 import Stretch, is_worth_it

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["MediaLimits", "Source", "coverage", "decode", "decode_plainly"]

FIRST_BYTES = 512 << 20
"""Reserved at most for the frames of one grid before they come."""

HELD_BYTES = 64 << 20
"""Compressed packets kept back at most, in the hope that nobody needs them."""

PICTURES_IN_VAIN = 200
"""Without one to spare among them, after which no more are looked into."""

TOLERANCE_S = Fraction(1, 10)
"""By which a promised end may be missed: muxers round, and count the last frame or not."""

LEAP_BYTES = 1 << 20
"""From one keyframe to the next at least, to leap rather than read: the demuxer's buffer fetches as much at once."""

LEAD_S = 10
"""Decoded ahead of a task's range where keyframes turned out not to be what they are called."""


def decode(
    task: Task, grids: Sequence[Grid], source: Source, limits: MediaLimits
) -> tuple[tuple[FrameBatch, ...], DecodeReport]:
    """One FrameBatch a grid, in order, and what was seen on the way.

    Damage inside the range is no error here: what decoded stands, and the report says what is
    missing. Raises Undecodable or Declined where the video cannot be opened any more, SourceChanged
    and TransientError where its source fails, LimitExceeded.
    """
    began = time.perf_counter()
    attempt, closer = None, source.closer(task.video)
    with suppress(Declined) if closer else nullcontext():
        attempt = _attempt(task, grids, source, limits)
    if closer and (attempt is None or attempt.error):
        attempt = _attempt(task, grids, closer, limits)
    assert attempt is not None
    return attempt.batches(), replace(attempt.report(), seconds=time.perf_counter() - began)


def _attempt(task: Task, grids: Sequence[Grid], source: Source, limits: MediaLimits) -> _Pass:
    fast = task.info.exact_timestamps and not task.info.plain
    way: type[_Pass] = _Sparse if fast else _Sequential
    attempt = way(task, grids, limits)
    if not _run_excerpt(attempt, task, source, limits):
        attempt = way(task, grids, limits)
        _run(attempt, task, source, limits)
    if attempt.surprised:
        attempt = _Sequential(task, grids, limits)
        _run(attempt, task, source, limits)
    source.check_unchanged(task.video)
    return attempt


def decode_plainly(
    task: Task, grids: Sequence[Grid], source: Source, limits: MediaLimits
) -> tuple[tuple[FrameBatch, ...], DecodeReport]:
    """The same as `decode`, without the fast path: everything is decoded in order, and chosen at the output."""
    began = time.perf_counter()
    attempt = _Sequential(task, grids, limits)
    _run(attempt, task, source, limits)
    source.check_unchanged(task.video)
    return attempt.batches(), replace(attempt.report(), seconds=time.perf_counter() - began)


def coverage(info: VideoInfo, reports: Sequence[DecodeReport]) -> float:
    """Share of a video that is whole, 0 to 1, by the reports of its tasks: of the seconds from its first shown frame
    to its end, those with a picture that decoded undamaged. A task without a report counts as missing.

    The end is the promised one, or that of the last frame: where it comes later, or only misses the promise by as
    much as muxers round. So a whole video has exactly 1.0, however long it is and however it was cut."""
    spans = [(r.first_s, r.end_s, r.missing_s) for r in reports if r.first_s is not None and r.end_s is not None]
    whole = math.fsum(max(0.0, end - first - missing) for first, end, missing in spans)
    reached = max((end for _, end, _ in spans), default=0.0)
    rounding = max(float(TOLERANCE_S), 2 / (info.fps or 25))
    end = info.duration_s if info.duration_s - reached > rounding else reached
    return min(1.0, round(whole / end, 9)) if end > 0 else 0.0


# Time


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(slots=True)
class _Samples:
    """The samples of one grid that a task needs, all in whole numbers: sample k is at
    k * period ticks after the origin, where period = step / scale."""

    grid: Grid
    origin: int
    step: int
    scale: int
    first: int
    """The first sample inside the task."""
    owned_end: int | None
    """One past the last sample inside the task; None: the end of the video."""
    needed_end: int | None
    """The same with what the last windows need beyond."""

    @classmethod
    def of(cls, grid: Grid, task: Task) -> _Samples:
        info, bounds = task.info, task.range
        period = 1 / (grid.fps * info.time_base)
        made = cls(grid, info.origin_pts, period.numerator, period.denominator, 0, None, None)
        if bounds.start_pts is not None:
            made.first = max(0, made.at_or_after(bounds.start_pts))
        if bounds.end_pts is not None:
            made.owned_end = max(made.first, made.at_or_after(bounds.end_pts))
            made.needed_end = made.owned_end
            last_window = (made.owned_end - 1) // grid.stride * grid.stride
            if last_window >= made.first and not grid.keyframes_only:
                made.needed_end = max(made.owned_end, last_window + grid.window)
        return made

    def at_or_after(self, pts: int) -> int:
        """The first sample at or after that time."""
        return _ceil((pts - self.origin) * self.scale, self.step)

    def shown(self, start: int, end: int) -> range:
        """The needed samples at which a frame shown in [start, end) is on screen."""
        first, last = max(self.at_or_after(start), self.first), self.at_or_after(end)
        return range(first, last if self.needed_end is None else min(last, self.needed_end))

    def last_tick(self) -> int | None:
        """The last whole tick that must be known to be shown; None: the end of the video."""
        if self.needed_end is None:
            return None
        return self.origin + (self.needed_end - 1) * self.step // self.scale


# Pictures


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a decoded frame becomes a model's frame: scaled to `scaled` (upright), then placed."""

    height: int
    width: int
    scaled_height: int
    scaled_width: int
    top: int
    left: int
    """Of the scaled frame inside the model's frame; negative where it is cut."""
    fill: int
    geometry: Geometry

    @classmethod
    def of(cls, size: FrameSize, width: int, height: int) -> _Layout:
        """For an upright frame of width x height."""
        h, w, top, left = height, width, 0, 0
        match size.mode:
            case "native":
                out_h, out_w = height, width
            case "stretch":
                h, w = out_h, out_w = size.height, size.width
            case "letterbox":
                out_h, out_w = size.height, size.width
                ratio = min(Fraction(out_h, height), Fraction(out_w, width))
                h, w = max(1, int(height * ratio)), max(1, int(width * ratio))
            case "crop":
                out_h, out_w = size.height, size.width
                ratio = Fraction(size.short_side, min(height, width))
                h, w = max(1, int(height * ratio)), max(1, int(width * ratio))
                top, left = -round((h - out_h) / 2), -round((w - out_w) / 2)
            case "fit":
                ratio = min(
                    Fraction(size.height, min(height, width)), Fraction(size.width or 1 << 30, max(height, width))
                )
                h, w = out_h, out_w = max(1, int(height * ratio)), max(1, int(width * ratio))
        geometry = Geometry(width, height, w / width, h / height, float(left), float(top))
        return cls(out_h, out_w, h, w, top, left, size.fill, geometry)


class _Pictures:
    """The frames of one grid, written straight into one array as they come."""

    def __init__(self, samples: _Samples, info: VideoInfo, limits: MediaLimits) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self.samples, self.info, self.limits = samples, info, limits
        size = samples.grid.size
        self.layout = _Layout.of(size, info.width, info.height)
        self.turned = info.rotation in (90, 270)
        self._scaler = VideoReformatter()
        self._interpolation = {
            "bilinear": Interpolation.BILINEAR,
            "area": Interpolation.AREA,
            "bicubic": Interpolation.BICUBIC,
        }[size.interpolation]
        self.ids: list[int] = []
        self.times: list[float] = []
        self.pts: list[int] = []
        self._pixels = np.empty((self._expected(), self.layout.height, self.layout.width, 3), np.uint8)
        self._last: tuple[int, int] | None = None

    def _expected(self) -> int:
        s = self.samples
        if s.grid.keyframes_only:
            return 16
        end = s.needed_end
        if end is None:
            end = s.at_or_after(s.origin + round(self.info.duration_s / self.info.time_base))
        # A header may claim any duration: beyond this the array grows with the frames that come.
        most = FIRST_BYTES // (3 * self.layout.height * self.layout.width) + 1
        return max(0, min(end - s.first, most))

    def add(self, frame: VideoFrame, sample: int, pts: int) -> None:
        n = len(self.ids)
        if n == len(self._pixels):
            if 2 * self._pixels.nbytes > self.limits.max_task_bytes:
                raise LimitExceeded(
                    f"{self.info.video.uri}: its timestamps ask for more sampled frames in one task than "
                    f"{self.limits.max_task_bytes} bytes hold"
                )
            more = np.empty((max(16, n // 2), *self._pixels.shape[1:]), np.uint8)
            self._pixels = np.concatenate([self._pixels, more])
        if self._last is not None and self._last[0] == pts:
            self._pixels[n] = self._pixels[self._last[1]]  # one frame shown at two samples
        else:
            self._draw(frame, self._pixels[n])
            self._last = (pts, n)
        grid = self.samples.grid
        self.ids.append(sample)
        self.pts.append(pts)
        self.times.append(self.info.pts_to_seconds(pts) if grid.keyframes_only else float(sample / grid.fps))

    def _draw(self, frame: VideoFrame, out: np.ndarray) -> None:
        y = self.layout
        h, w = (y.scaled_width, y.scaled_height) if self.turned else (y.scaled_height, y.scaled_width)
        rgb = self._scaler.reformat(
            frame, width=w, height=h, format="rgb24", interpolation=self._interpolation, threads=1
        )
        plane: Any = rgb.planes[0]
        picture = np.frombuffer(plane, np.uint8).reshape(h, plane.line_size)[:, : 3 * w].reshape(h, w, 3)
        if self.info.rotation:
            picture = np.rot90(picture, -(self.info.rotation // 90))
        if self.info.mirrored:
            picture = picture[:, ::-1]
        top, left = max(y.top, 0), max(y.left, 0)
        picture = picture[max(-y.top, 0) :, max(-y.left, 0) :][: y.height - top, : y.width - left]
        bottom, right = top + picture.shape[0], left + picture.shape[1]
        out[top:bottom, left:right] = picture
        for rest in (out[:top], out[bottom:], out[top:bottom, :left], out[top:bottom, right:]):
            rest[...] = y.fill

    def batch(self, *, at_end: bool) -> FrameBatch:
        order = np.argsort(np.asarray(self.ids, np.int64), kind="stable")
        n = len(order)
        pixels = self._pixels[:n]
        if not np.array_equal(order, np.arange(n)):
            pixels = np.ascontiguousarray(pixels[order])
        ids = np.asarray(self.ids, np.int64)[order]
        end = self.samples.owned_end
        owned = n if end is None or self.samples.grid.keyframes_only else int(np.searchsorted(ids, end))
        return FrameBatch(
            pixels=pixels,
            sample=ids,
            time_s=np.asarray(self.times, np.float64)[order],
            pts=np.asarray(self.pts, np.int64)[order],
            geometry=self.layout.geometry,
            owned=owned,
            is_last=at_end,
        )


# One pass over the packets


def _run(attempt: _Pass, task: Task, source: Source, limits: MediaLimits) -> None:
    """Feeds the packets of the task's range, and what lies around it as far as needed."""
    for enter_pts in (attempt.enter_pts, None):
        stretch = 0 if attempt.leaps else _stretch_bytes(task, enter_pts)
        with open_container(task.video, source, limits, stretch_bytes=stretch) as container:
            stream: Any = container.streams[task.info.stream_index]
            if stream.type != "video" or stream.codec_context is None:
                stream = choose_stream(task.video, container, limits)
            prepare(container, stream, limits)
            packets = _from(container, stream, enter_pts, task.info)
            if packets is None:
                continue  # what cannot be entered in its middle is read from its start
            _feed(attempt, task, container, stream, packets)
            attempt.finish()
            attempt.compare()
            return


def _run_excerpt(attempt: _Pass, task: Task, source: Source, limits: MediaLimits) -> bool:
    """The same with the index of the task's range alone, where a file has so large a one that it is worth it.
    False: it was not, or did not hold all that was needed; what `attempt` saw is then void."""
    if "mp4" not in task.info.container or not is_worth_it(task.info.frames_promised):
        return False
    with source.excerpt(task.video, _stretch(task, attempt)) as excerpt:
        if excerpt is None:
            return False
        with suppress(Declined), open_container(task.video, source, limits, excerpt=excerpt) as container:
            stream: Any = container.streams[0]
            first_time = excerpt.first_time(stream)
            if first_time is None or stream.codec_context is None or stream.time_base != task.info.time_base:
                return False
            prepare(container, stream, limits)
            packets = _from(container, stream, attempt.enter_pts, task.info)
            first = None if packets is None else next(packets, None)
            if packets is None or first is None:
                return False
            if attempt.enter_pts is not None and (first.dts is None or first.dts < first_time):
                return False
            _feed(attempt, task, container, stream, chain([first], packets))
            if attempt.ended and not excerpt.to_the_end:
                return False
            attempt.finish()
            attempt.compare()
            return attempt.error is None  # what seems damaged is looked at the other way
    return False


def _feed(
    attempt: _Pass, task: Task, container: InputContainer, stream: VideoStream, packets: Iterator[Packet[Any]]
) -> None:
    import av

    if attempt.leaps:
        packets = _leaping(container, stream, packets, task.video.size_bytes)
    attempt.begin(stream)
    try:
        for packet in packets:
            attempt.bytes_read += packet.size
            attempt.feed(packet)
            if attempt.done:
                break
            if attempt.limits.until is not None and time.monotonic() > attempt.limits.until:
                raise LimitExceeded(f"{task.video.uri}: decoding it took longer than it may")
        else:
            attempt.ended = True
    except av.error.FFmpegError as e:
        error = translate(task.video, e)
        if isinstance(error, TransientError):
            raise error from None
        attempt.fail(f"reading stopped: {e.strerror}")
        attempt.ended = True


def _stretch(task: Task, attempt: _Pass) -> Stretch:
    """What the pass reads, by the stream's clock."""
    base, last = task.info.time_base, attempt.last_tick
    start, end = attempt.enter_pts, None if last is None else last + 1
    if start is not None and start <= task.info.origin_pts:
        start = None  # as `_from` takes it
    return Stretch(
        task.info.stream_index,
        None if start is None else float(start * base),
        None if end is None else float(end * base),
    )


def _stretch_bytes(task: Task, enter_pts: int | None) -> int | None:
    """About how much a pass over the task's range reads, by the video's mean rate; None where it reads all."""
    info, r = task.info, task.range
    if r.end_pts is None and enter_pts is None:
        return None
    start_s = 0.0 if enter_pts is None else float((enter_pts - info.origin_pts) * info.time_base)
    end_s = info.duration_s if r.end_pts is None else float((r.end_pts - info.origin_pts) * info.time_base)
    share = (end_s - start_s) / info.duration_s if info.duration_s > 0 else 1.0
    return int(task.video.size_bytes * min(max(share, 0.0), 1.0))


def _from(
    container: InputContainer, stream: VideoStream, start: int | None, info: VideoInfo
) -> Iterator[Packet[Any]] | None:
    """Packets in decoding order, beginning with a keyframe shown at or before `start`; None where
    seeking does not lead to one."""
    import av

    if start is None or start <= info.origin_pts:
        return packets_of(container, stream)
    # Transport streams are entered at any packet, so the keyframe is behind wherever the seek led.
    for back in STEPS_BACK_S[info.container == "mpegts" :]:
        aim = start - int(back / info.time_base)
        try:
            container.seek(max(aim, info.origin_pts), stream=stream)
            packets = packets_of(container, stream)
            first = next((p for p in packets if p.is_keyframe), None)
        except av.error.FFmpegError:
            continue
        if first is not None and first.pts is not None and first.pts <= start:
            return chain([first], packets)
        if aim <= info.origin_pts:
            break
    return None


def _leaping(
    container: InputContainer, stream: VideoStream, packets: Iterator[Packet[Any]], size_bytes: int
) -> Iterator[Packet[Any]]:
    """The packets, without what lies between two keyframes where that is much: an MP4's index tells the place of
    each. (Matroska's may list some keyframes only, and transport streams have none: those are read whole.)"""
    keys = [e for e in stream.index_entries if e.is_keyframe and e.pos + e.size <= size_bytes]
    ahead = {here.timestamp: there for here, there in pairwise(keys) if there.pos - here.pos - here.size > LEAP_BYTES}
    seen: int | None = None
    while (packet := next(packets, None)) is not None:
        if seen is not None and packet.dts is not None and packet.dts <= seen:
            continue  # the leap fell short
        yield packet
        here = packet.dts
        if packet.is_keyframe and packet.pts is not None and here is not None and (there := ahead.get(here)):
            seen = here
            # Sought by when it is shown, which the index does not tell: as long after its decoding as this one.
            container.seek(there.timestamp + packet.pts - here, stream=stream)
            packets = packets_of(container, stream)
            first = next(packets, None)
            if first is None or first.dts is None or first.dts > there.timestamp:
                container.seek(packet.pts, stream=stream)  # too far
                packets = packets_of(container, stream)
            else:
                packets = chain([first], packets)


class _Pass:
    """What the two ways of decoding share: the samples, the pictures, and the bookkeeping."""

    def __init__(self, task: Task, grids: Sequence[Grid], limits: MediaLimits) -> None:
        self.task, self.info, self.limits = task, task.info, limits
        self.pictures = [_Pictures(_Samples.of(grid, task), task.info, limits) for grid in grids]
        bounds = task.range
        self.start, self.end = bounds.start_pts, bounds.end_pts
        self.enter_pts = self.start
        ticks = [p.samples.last_tick() for p in self.pictures if not p.samples.grid.keyframes_only]
        self.last_tick: int | None = None
        if self.end is not None:
            self.last_tick = max([self.end - 1, *(t for t in ticks if t is not None)])
        self.context: Any = None
        self.stream: Any = None
        self.usual = 1
        self.bytes_read = self.frames_decoded = self.corrupt = 0
        self.sampled: set[int] = set()
        self.missing = 0
        self.first_pts: int | None = None
        self.end_pts: int | None = None
        self.error: str | None = None
        self.warnings: list[str] = []
        self.done = self.ended = self.surprised = False
        self.leaps = False
        """From keyframe to keyframe, as nothing else is wanted and the index lists them all."""

    def begin(self, stream: VideoStream) -> None:
        self.stream, self.context = stream, stream.codec_context
        fps = Fraction(self.info.fps).limit_denominator(100_000) if self.info.fps else Fraction(25)
        self.usual = max(1, round(1 / (fps * self.info.time_base)))

    def feed(self, packet: Packet[Any]) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        raise NotImplementedError

    def fail(self, what: str) -> None:
        self.error = self.error or what

    def compare(self) -> None:
        """The video ended: did it hold what it promised?"""
        if not self.ended or self.error is not None:
            return
        promised = self.info.origin_pts + round(self.info.duration_s / self.info.time_base)
        end = promised if self.end is None else min(self.end, promised)
        seen = self.end_pts if self.end_pts is not None else self.info.origin_pts
        if (end - seen) * self.info.time_base > max(TOLERANCE_S, 2 * self.usual * self.info.time_base):
            seconds = self.info.pts_to_seconds
            self.fail(f"the file ends at {seconds(seen):.3f} s, and {seconds(end):.3f} s were promised")

    def inside(self, pts: int) -> bool:
        return (self.start is None or pts >= self.start) and (self.end is None or pts < self.end)

    def saw(self, pts: int, end: int) -> None:
        """A frame on screen in [pts, end) was there to read."""
        if self.inside(pts) or (self.start is not None and pts < self.start < end):
            if self.first_pts is None:
                self.first_pts = pts if self.start is None else max(pts, self.start)
            self.end_pts = end if self.end is None else min(end, self.end)

    def wants(self, pts: int, end: int, *, key: bool) -> bool:
        return any(
            (key and self.inside(pts)) if p.samples.grid.keyframes_only else len(p.samples.shown(pts, end)) > 0
            for p in self.pictures
        )

    def take(self, frame: VideoFrame, pts: int, end: int, *, key: bool) -> None:
        """A wanted frame, on screen in [pts, end)."""
        for picture in self.pictures:
            if picture.samples.grid.keyframes_only:
                if key and self.inside(pts):
                    picture.add(frame, pts - self.info.origin_pts, pts)
            else:
                for k in picture.samples.shown(pts, end):
                    picture.add(frame, k, pts)
        self.sampled.add(pts)

    def batches(self) -> tuple[FrameBatch, ...]:
        return tuple(p.batch(at_end=self.ended) for p in self.pictures)

    def report(self) -> DecodeReport:
        info, warnings = self.info, list(self.warnings)
        if self.corrupt:
            warnings.append(f"{self.corrupt} frames decoded with errors in them")

        def seconds(pts: int | None) -> float | None:
            return None if pts is None else info.pts_to_seconds(pts)

        return DecodeReport(
            frames_decoded=self.frames_decoded,
            # Those past the end are counted by the task that owns them.
            frames_sampled=sum(map(self.inside, self.sampled)),
            first_s=seconds(self.first_pts),
            end_s=seconds(self.end_pts),
            bytes_read=self.bytes_read,
            seconds=0.0,
            reached_end=self.error is None and (self.done or self.ended),
            error=self.error,
            warnings=tuple(warnings),
            missing_s=float(self.missing * info.time_base),
        )


@dataclass(slots=True, eq=False)
class _Item:
    """A packet on its way, in decoding order."""

    packet: Any
    pts: int
    key: bool
    order: int
    wanted: bool | None = None
    """None: the frame shown after it is not known yet. False from the start where an edit list cuts
    the frame off, or it has no time: decoded for others, never shown."""
    state: Literal["queued", "sent", "lost"] = "queued"
    end: int = 0
    """On screen in [pts, end), once that is known."""
    hollow: bytes | None = None
    """Goes in instead of the packet: nobody needs the picture itself."""

    def __lt__(self, other: _Item) -> bool:
        return (self.pts, self.order) < (other.pts, other.order)


class _Sparse(_Pass):
    """Chooses by the packets, and decodes only what the chosen need."""

    def __init__(self, task: Task, grids: Sequence[Grid], limits: MediaLimits) -> None:
        super().__init__(task, grids, limits)
        if grids and all(g.keyframes_only for g in grids) and "mp4" in self.info.container and not self.info.scanned:
            reads = _stretch_bytes(task, self.enter_pts) or task.video.size_bytes
            self.leaps = reads > LEAP_BYTES * len(self.info.keyframe_pts)

    def begin(self, stream: VideoStream) -> None:
        super().begin(stream)
        self.frontier = Frontier()
        self.queue: deque[_Item] = deque()
        """Read and not sent, in decoding order."""
        self.held = 0
        self.undecided: list[_Item] = []
        """Heap by time of what may still be wanted."""
        self.expected: dict[int, _Item] = {}
        """Wanted and sent, by pts: to come out of the decoder."""
        self.parked: dict[int, VideoFrame] = {}
        """Came out before it was known whether they are wanted."""
        self.entered: _Item | None = None
        """The keyframe by which the decoder was entered last. None: it must enter by another."""
        self.broken = False
        """The decoder failed: nothing is sent before the next keyframe."""
        self.leading = False
        """What is shown before the keyframe entered by may still come."""
        self.lost: list[_Item] = []
        self.skipping: bool | None = None
        self.count = 0
        self.references = self.references_of(stream)
        """Which pictures of a group others are decoded from. None: not known, so wanted frames are sent for at once."""
        self.due: list[_Item] = []
        """Wanted and not sent, as their group of pictures is not whole yet: in the order of their time."""
        self.closing: deque[_Item] = deque()
        """The IDR pictures in the queue, each of which closes what lies before it."""
        self.in_vain = 0
        self.hollow: set[int] = set()
        """By pts: to come out of the decoder, and be forgotten."""

    @staticmethod
    def references_of(stream: VideoStream) -> h264.Stream | None:
        if stream.codec_context.name != "h264":
            return None
        try:
            return h264.Stream(stream.codec_context.extradata)
        except h264.Unknown:
            return None

    def feed(self, packet: Packet[Any]) -> None:
        self.count += 1
        hidden = packet.is_discard or packet.pts is None or packet.pts < self.info.origin_pts
        pts = packet.pts if packet.pts is not None else self.frontier.pts or self.info.origin_pts
        item = _Item(packet, pts, packet.is_keyframe, order=self.count, wanted=False if hidden else None)
        if packet.pts is not None:
            self.frontier.add(packet.pts, packet.dts)
        if not hidden:
            heappush(self.undecided, item)
        self.queue.append(item)
        self.held += packet.size
        self.decide()
        if item.key:
            self.drop_unneeded()
        if self.references is not None:
            self.watch(item, self.references)
        while self.held > HELD_BYTES and self.queue:
            self.send_through(self.queue[0])
        frontier = self.frontier.pts
        self.done = self.last_tick is not None and frontier is not None and frontier > self.last_tick

    def decide(self) -> None:
        """Settles every frame whose successor in time is known."""
        frontier, heap = self.frontier.pts, self.undecided
        while len(heap) > 1 and frontier is not None:
            first = heappop(heap)
            if heap[0].pts > frontier:
                heappush(heap, first)
                return
            self.settle(first, heap[0].pts)

    def settle(self, item: _Item, end: int) -> None:
        item.end = end
        self.saw(item.pts, end)
        item.wanted = self.wants(item.pts, end, key=item.key)
        frame = self.parked.pop(item.pts, None)
        if not item.wanted:
            return
        if frame is not None:
            self.take(frame, item.pts, end, key=item.key)
        elif item.state == "lost":
            self.lost.append(item)
        else:
            self.expected[item.pts] = item
            if item.state == "queued":
                self.due.append(item)
                if self.references is None:
                    self.send_due()

    def watch(self, item: _Item, references: h264.Stream) -> None:
        """Sends the groups of pictures that are whole, and all of whose frames are decided."""
        try:
            if altered(item.packet) or (item.key and not references.is_idr(memoryview(item.packet))):
                raise h264.Unknown("neither other parameters on the way nor groups that refer to each other")
            if item.key:
                self.closing.append(item)
            while self.closing and all(i.order >= self.closing[0].order for i in self.undecided):
                self.send_group(references, self.closing.popleft().order)
        except h264.Unknown:
            self.references = None
        if self.held > HELD_BYTES or self.in_vain > PICTURES_IN_VAIN:
            self.references = None
        if self.references is None:
            self.send_due()

    def send_group(self, references: h264.Stream, end: int | None) -> None:
        """Sends what is due of the queue's items before `end`, the order of an IDR picture, and drops the
        others: nothing after it refers to them."""
        group = [item for item in self.queue if end is None or item.order < end]
        due = [item for item in self.due if end is None or item.order < end]
        if due:
            last = max(item.order for item in due)
            self.hollow_out(references, [item for item in group if item.order <= last])
        self.due = [item for item in self.due if end is not None and item.order >= end]
        for item in due:
            if item.state == "queued":
                self.send_through(item)
        while self.queue and (end is None or self.queue[0].order < end):
            self.held -= self.queue.popleft().packet.size
            self.entered = None

    def hollow_out(self, references: h264.Stream, group: list[_Item]) -> None:
        """Keeps back the pictures that no wanted one is decoded from."""
        data = [memoryview(item.packet) for item in group]
        pictures = references.group(data)
        if len({item.pts for item in group}) < len(group) or any(item.pts < group[0].pts for item in group):
            raise h264.Unknown("times that do not tell pictures apart, or not in which group they are")
        needed = h264.needed(pictures, (i for i, item in enumerate(group) if item.wanted is not False))
        self.in_vain += len(pictures)
        for i, (item, picture) in enumerate(zip(group, pictures, strict=True)):
            if i not in needed and picture.can_be_hollow and item.packet.pts is not None:
                item.hollow = references.hollow(data[i], picture)
                self.in_vain = 0

    def send_due(self) -> None:
        due, self.due = self.due, []
        for item in due:
            if item.state == "queued":
                self.send_through(item)

    def drop_unneeded(self) -> None:
        """Forgets what lies before a keyframe that all frames still to be wanted can start from."""
        horizon = self.undecided[0].pts if self.undecided else None
        if self.frontier.pts is not None:
            horizon = self.frontier.pts if horizon is None else min(horizon, self.frontier.pts)
        if horizon is not None:
            self.enter_at(horizon, len(self.queue))

    def enter_at(self, pts: int, before: int) -> None:
        """Drops the queue up to its last keyframe, among the first `before`, shown at or before pts."""
        entry = 0
        for place, item in enumerate(self.queue):
            if place == before:
                break
            if item.key and item.pts <= pts:
                entry = place
            if item.wanted is not False:
                break  # whoever is wanted, or may still be, stays
        if entry:
            for _ in range(entry):
                self.held -= self.queue.popleft().packet.size
            self.entered = None

    def send_through(self, item: _Item) -> None:
        """Sends the queue up to and with this one."""
        if item.wanted is not False:
            place = next(i for i, other in enumerate(self.queue) if other is item)
            self.enter_at(item.pts, place + 1)
        while True:
            head = self.queue.popleft()
            self.held -= head.packet.size
            self.send(head)
            if head is item:
                return

    def send(self, item: _Item) -> None:
        import av

        if self.entered is None or self.broken:
            if item.key:
                self.drain()
                self.context.flush_buffers()
                self.entered, self.broken, self.leading = item, False, True
            elif self.broken or self.start is not None:
                self.lose(item)
                return
            else:
                self.entered = item  # a recording may begin anywhere
        elif self.leading:
            self.leading = item.pts < self.entered.pts
            if self.leading and item.wanted is False:
                return  # shown before the keyframe, so it may refer to what was left out
        # Takes the place of all thought about references: the codec knows which frames have none.
        if self.skipping != (item.wanted is False):
            self.skipping = item.wanted is False
            self.context.skip_frame = "NONREF" if self.skipping else "DEFAULT"
        item.state = "sent"
        packet = item.packet
        if item.hollow is not None:
            self.hollow.add(item.pts)
            packet = av.Packet(item.hollow)
            packet.pts, packet.dts, packet.time_base = item.packet.pts, item.packet.dts, item.packet.time_base
        try:
            frames = self.context.decode(packet)
        except av.error.FFmpegError as e:
            self.fail(f"a frame at {self.info.pts_to_seconds(item.pts):.3f} s does not decode: {e.strerror}")
            self.broken = True
            self.lose(item)
            return
        for frame in frames:
            self.receive(frame)
        if self.leaps:  # the next is entered anew, and a leap would take from the decoder what is still in it
            self.drain()
            self.entered = None

    def lose(self, item: _Item) -> None:
        item.state = "lost"
        if item.wanted and self.expected.pop(item.pts, None) is not None:
            self.lost.append(item)

    def drain(self) -> None:
        import av

        if not self.context.is_open:
            return
        try:
            for frame in self.context.decode(None):
                self.receive(frame)
        except av.error.EOFError:
            pass
        except av.error.FFmpegError as e:
            self.fail(f"the decoder failed at the end of a group of pictures: {e.strerror}")

    def receive(self, frame: VideoFrame) -> None:
        pts = frame.pts
        if pts in self.hollow:
            self.hollow.remove(pts)
            return
        self.frames_decoded += 1
        if pts is None:
            return
        item = self.expected.pop(pts, None)
        if item is not None:
            self.corrupt += frame.is_corrupt
            self.take(frame, pts, item.end, key=item.key)
        elif any(other.pts == pts for other in self.undecided):
            self.parked[pts] = frame

    def finish(self) -> None:
        # What comes next in time is now known to come after all that is needed, or not at all.
        heap, frontier = self.undecided, self.frontier.pts
        while heap:
            item = heappop(heap)
            if self.ended:
                end = (
                    heap[0].pts
                    if heap
                    else item.pts + believable_duration(item.packet.duration, self.info.time_base, self.usual)
                )
            else:
                assert frontier is not None and self.last_tick is not None
                end = min(frontier, heap[0].pts) if heap else frontier
                if item.pts > self.last_tick:
                    break
            self.settle(item, end)
        if self.references is not None:
            with suppress(h264.Unknown):
                for following in self.closing:
                    self.send_group(self.references, following.order)
                self.send_group(self.references, None)
            self.send_due()
        self.drain()
        missing = [*self.lost, *self.expected.values()]
        self.surprised = bool(self.expected) and self.error is None
        self.missing = sum(max(0, item.end - item.pts) for item in missing)
        if missing:
            self.fail(f"{len(missing)} wanted frames did not decode")


def altered(packet: Packet[Any]) -> bool:
    """It brings the decoder other parameters, beside its data."""
    return packet.has_sidedata("new_extradata") or packet.has_sidedata("param_change")


class _Sequential(_Pass):
    """Decodes everything in order and chooses among what comes out."""

    def __init__(self, task: Task, grids: Sequence[Grid], limits: MediaLimits) -> None:
        super().__init__(task, grids, limits)
        if self.info.plain or not self.info.exact_timestamps:
            self.enter_pts = None  # a repaired clock begins with the first packet, and plain means from the start
        elif self.start is not None:  # a picture may need more to settle than its keyframe says
            self.enter_pts = self.start - int(LEAD_S / self.info.time_base)

    def begin(self, stream: VideoStream) -> None:
        super().begin(stream)
        self.clock = None if self.info.exact_timestamps else RepairedClock(self.usual)
        self.offset: int | None = None
        """From the repaired clock to the video's own, on which the first frame is at the origin."""
        self.shown: tuple[VideoFrame, int] | None = None
        """The last that came out: on screen until the next one's time."""
        self.last_duration = self.usual

    def feed(self, packet: Packet[Any]) -> None:
        if self.clock is not None:
            self.clock.push(packet)
        self.push(packet)

    def push(self, packet: Packet[Any] | None) -> None:
        import av

        try:
            frames = self.context.decode(packet)
        except EOFError:
            return
        except av.error.FFmpegError as e:
            where = "" if self.shown is None else f" after {self.info.pts_to_seconds(self.shown[1]):.3f} s"
            self.fail(f"a frame{where} does not decode: {e.strerror}")
            if self.clock is not None and packet is not None:
                self.clock.withdraw()
            return
        for frame in frames:
            self.receive(frame)

    def receive(self, frame: VideoFrame) -> None:
        self.frames_decoded += 1
        self.corrupt += frame.is_corrupt
        pts = frame.pts
        if self.clock is not None:
            moment = self.clock.pop()
            if self.offset is None:
                self.offset = self.info.origin_pts - moment
            pts = moment + self.offset
        if pts is None or pts < self.info.origin_pts:
            return
        if self.shown is not None:
            if pts <= self.shown[1]:
                return  # went back: already past it
            self.show(*self.shown, pts)
        self.shown = (frame, pts)
        self.last_duration = believable_duration(frame.duration, self.info.time_base, self.usual)
        self.done = self.last_tick is not None and pts > self.last_tick

    def show(self, frame: VideoFrame, pts: int, end: int) -> None:
        self.saw(pts, end)
        if self.wants(pts, end, key=bool(frame.key_frame)):
            self.take(frame, pts, end, key=bool(frame.key_frame))

    def finish(self) -> None:
        if self.done:
            return
        self.push(None)
        if self.shown is not None and not self.done:
            self.show(*self.shown, self.shown[1] + self.last_duration)
