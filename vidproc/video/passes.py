"""What the two ways of decoding share: what a task wants, what was seen of it, and what a decoder must be told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vidproc.media import DecodeReport, Edit, FrameBatch, Grid, Task
from vidproc.video.container import MediaLimits, packet_of, packets_of
from vidproc.video.pictures import Pictures, Samples

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

TOLERANCE_S = Fraction(1, 10)
"""By which a promised end may be missed: muxers round, and count the last frame or not."""

MERGED_S = 2
"""Stretches of media that lie closer together are read in one sweep."""

MAX_HEADING_BYTES = 1 << 16
"""Of a packet, looked through for what stands before its picture."""

MAX_NAMED = 20
"""Damaged stretches that a report names one by one."""

Span = tuple[int, int]
"""[start, end) on the presentation's clock, in ticks."""


# Errors that a decoder only logs

HARMLESS = re.compile(
    r"co located POCs unavailable|unref short failure|number of reference frames|\bSEI\b|short term buffer|"
    r"deprecated|not implemented|[Uu]nknown profile|Application provided|VUI"
)
"""Lines at error level that tell of no damage to the picture: odd headers, and references that an entry in the
middle of a stream cannot have."""


@contextmanager
def watching_the_decoder() -> Iterator[list[tuple[int, str, str]]]:
    """The codec library's lines at error level, of this thread, as they come: (level, who, text). They are not
    printed: they may quote a presigned URL."""
    import av

    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as log:
            yield log
    finally:
        av.logging.set_level(av.logging.PANIC)


def damage_in(log: list[tuple[int, str, str]], codec: str) -> str | None:
    """The first line by which a decoder says that a picture is damaged."""
    for _, who, text in log:
        if who == codec and not HARMLESS.search(text):
            return text.strip()
    return None


# What a task wants, and what became of it


@dataclass(frozen=True, slots=True)
class Sweep:
    """A stretch of media that is read in one go, in ticks of the stream."""

    start: int | None
    """From the frame shown at this time on. None: from the first frame."""
    last: int | None
    """Up to the frame shown at this time. None: to the last frame."""
    edits: tuple[Edit, ...] = ()
    """Those that show this stretch, of a video that has any."""


class Result:
    """What comes of a task: its pictures, and the account of what was seen."""

    def __init__(self, task: Task, grids: Sequence[Grid], limits: MediaLimits) -> None:
        self.task, self.info, self.limits = task, task.info, limits
        self.pictures = [Pictures(self.samples_of(grid), task.info, limits) for grid in grids]
        bounds = task.range
        self.start, self.end = bounds.start_pts, bounds.end_pts
        ticks = [p.samples.last_tick() for p in self.pictures if not p.samples.grid.keyframes_only]
        self.last_tick: int | None = None
        """The last tick of the presentation that is needed. None: the end of the video."""
        if self.end is not None:
            self.last_tick = max([self.end - 1, *(t for t in ticks if t is not None)])
        self.longest = max(1, int(limits.max_frame_duration / self.info.time_base))
        self.edits: tuple[Edit, ...] = tuple(
            e
            for e in self.info.edits
            if e.end > (self.start or 0) and (self.last_tick is None or e.start <= self.last_tick)
        )
        self.bytes_read = self.frames_decoded = 0
        self.sampled: set[int] = set()
        self.seen = 0
        """Ticks of the task's range in which a whole picture is on screen."""
        self.first_pts: int | None = None
        self.end_pts: int | None = None
        self.error: str | None = None
        self.damaged: list[Span] = []
        self.gaps: list[Span] = []
        self.ended = False
        """The file's last packet was read."""

    def samples_of(self, grid: Grid) -> Samples:
        return Samples.of(grid, self.task)

    @property
    def media_end(self) -> int:
        """Where the last frame of the media ends by the container's word."""
        info = self.info
        if info.edits:
            return max(e.last_tick + 1 for e in info.edits)
        return info.origin_pts + round(info.duration_s / info.time_base)

    def sweeps(self) -> list[Sweep]:
        """What must be read, in order of the media."""
        if not self.info.edits:
            return [Sweep(self.start, self.last_tick)]
        end = self.info.edits[-1].end if self.last_tick is None else self.last_tick + 1
        shown = ((e.media_of(self.start or 0, end), e) for e in self.edits)
        pieces = sorted(((*piece, e) for piece, e in shown if piece), key=lambda found: found[:2])
        made: list[Sweep] = []
        near = int(MERGED_S / self.info.time_base)
        for first, last, edit in pieces:
            before = made[-1] if made else None
            if before is not None and before.last is not None and first <= before.last + near:
                made[-1] = Sweep(before.start, max(before.last, last), (*before.edits, edit))
            else:
                made.append(Sweep(first, last, (edit,)))
        return made

    def fail(self, what: str) -> None:
        self.error = self.error or what

    def spans(self, pts: int, end: int, sweep: Sweep) -> tuple[Span, ...]:
        """When a frame of the media that lasts from `pts` to `end` is on screen, by the edits that the sweep is for:
        what it reads on the way to them is another one's to show."""
        if end - pts > self.longest:
            if self._inside(pts + self.longest) and not self.edits:
                self.gaps.append((pts + self.longest, end))
            end = pts + self.longest
        if not self.info.edits:
            return ((pts, end),)
        return tuple(s for e in sweep.edits if (s := e.shows(pts, end)))

    def wants(self, spans: Sequence[Span], *, key: bool) -> bool:
        return any(
            (key and start < end and self._inside(start))
            if p.samples.grid.keyframes_only
            else len(p.samples.shown(start, end)) > 0
            for p in self.pictures
            for start, end in spans
        )

    def take(self, frame: VideoFrame, spans: Sequence[Span], *, key: bool) -> None:
        """A wanted frame."""
        for start, end in spans:
            for picture in self.pictures:
                if picture.samples.grid.keyframes_only:
                    if key and start < end and self._inside(start):
                        picture.add(frame, start - self.info.origin_pts, start)
                else:
                    for k in picture.samples.shown(start, end):
                        picture.add(frame, k, start)
            self.sampled.add(start)

    def saw(self, spans: Sequence[Span], *, whole: bool = True) -> None:
        """A frame was there to read. `whole` False: it does not decode, or not without damage."""
        for span in spans:
            start = span[0] if self.start is None else max(span[0], self.start)
            end = span[1] if self.end is None else min(span[1], self.end)
            if start >= end:
                continue
            if whole:
                self.seen += end - start
                self.first_pts = start if self.first_pts is None else min(start, self.first_pts)
                self.end_pts = end if self.end_pts is None else max(end, self.end_pts)
            elif self.damaged and self.damaged[-1][1] >= start > self.damaged[-1][0]:
                self.damaged[-1] = (self.damaged[-1][0], max(end, self.damaged[-1][1]))
            else:
                self.damaged.append((start, end))

    def conclude(self) -> None:
        """Everything was read: did the video hold what it promised?"""
        if self.damaged:
            self.fail(f"frames are damaged or do not decode from {self._named(self.damaged)}")
        if not self.ended or self.error is not None or self.info.edits:
            return
        seen = self.end_pts if self.end_pts is not None else self.info.origin_pts
        seen = max([seen, *(stop for _, stop in self.gaps)])
        end = self.media_end if self.end is None else min(self.end, self.media_end)
        if self._is_much(end - seen):
            seconds = self.info.pts_to_seconds
            self.fail(f"the file ends at {seconds(seen):.3f} s, and {seconds(end):.3f} s were promised")

    def is_cut_off_at(self, end: int) -> bool:
        """Whether a file whose last frame ends there promises more."""
        return not self.info.held and self._is_much(self.media_end - end)

    def _is_much(self, ticks: int) -> bool:
        """More than muxers round."""
        info = self.info
        usual = 1 / (Fraction(info.fps).limit_denominator(100_000) * info.time_base) if info.fps else Fraction(0)
        return ticks * info.time_base > max(TOLERANCE_S, 2 * usual * info.time_base)

    def batches(self) -> tuple[FrameBatch, ...]:
        edits = self.info.edits
        at_end = self.last_tick is None or self.last_tick >= edits[-1].end - 1 if edits else self.ended
        return tuple(p.batch(at_end=at_end) for p in self.pictures)

    def report(self) -> DecodeReport:
        info = self.info
        warnings = []
        if self.damaged:
            warnings.append(f"damaged from {self._named(self.damaged)}: no rows there")
        if self.gaps:
            warnings.append(
                f"nothing is shown from {self._named(self.gaps)}: "
                f"a frame stands for {self.limits.max_frame_duration:g} s at most"
            )

        def seconds(pts: int | None) -> float | None:
            return None if pts is None else info.pts_to_seconds(pts)

        lasted = 0 if self.first_pts is None or self.end_pts is None else self.end_pts - self.first_pts
        return DecodeReport(
            frames_decoded=self.frames_decoded,
            # Those past the end are counted by the task that owns them.
            frames_sampled=sum(map(self._inside, self.sampled)),
            first_s=seconds(self.first_pts),
            end_s=seconds(self.end_pts),
            bytes_read=self.bytes_read,
            seconds=0.0,
            reached_end=self.error is None,
            error=self.error,
            warnings=tuple(warnings),
            missing_s=float(max(0, lasted - self.seen) * info.time_base),
        )

    def _inside(self, pts: int) -> bool:
        return (self.start is None or pts >= self.start) and (self.end is None or pts < self.end)

    def _named(self, spans: Sequence[Span]) -> str:
        seconds = self.info.pts_to_seconds
        named = [f"{seconds(start):.3f} to {seconds(end):.3f} s" for start, end in sorted(spans)[:MAX_NAMED]]
        more = f" and {len(spans) - MAX_NAMED} more stretches" if len(spans) > MAX_NAMED else ""
        return ", ".join(named) + more


# What a decoder must be told


class Parameters:
    """Decoder parameters that came with packets which the decoder was not given: they hold for later packets."""

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._sets = {"h264": (7, 8), "hevc": (32, 33, 34)}.get(codec, ())
        self._hevc = codec == "hevc"
        extradata = extradata or b""
        self._header = extradata
        self._length_bytes = 0
        if extradata[:1] == b"\1" and self._sets:
            at = 21 if self._hevc else 4
            self._length_bytes = ((extradata[at : at + 1] or b"\3")[0] & 3) + 1
        self._side: Any = None
        self._within: bytes | None = None
        self._known: bytes | None = None

    def are_new_in(self, packet: Packet[Any]) -> bool:
        """Whether a packet holds parameter sets that the stream's header lacks."""
        sets = self.found_in(packet)
        return sets is not None and not all(sets[body:stop] in self._header for _, body, stop in self._units(sets))

    def are_inside(self, parameters: bytes) -> bool:
        """Whether they stand as NAL units do in this stream, and not as beside it or in its header."""
        return self._length_bytes > 0 and parameters[:1] != b"\1"

    def missed(self, parameters: bytes) -> None:
        """A packet is left out that held these NAL units."""
        self._within = parameters

    def skipped(self, packet: Packet[Any]) -> None:
        """A packet is left out."""
        if packet.has_sidedata("new_extradata"):
            self._side, self._within = packet.get_sidedata("new_extradata"), None
        if (sets := self.found_in(packet)) and sets != self._known:
            self._within = sets

    def sent(self, packet: Packet[Any], context: Any) -> None:
        """A packet is about to be decoded: the decoder is told first what it missed."""
        import av

        if self._side is not None and not packet.has_sidedata("new_extradata"):
            packet.set_sidedata(self._side)
        self._side = None
        if self._within is None and not packet.is_keyframe:
            return
        own = self.found_in(packet)
        if self._within is not None and own is None and context.is_open:
            with suppress(av.error.FFmpegError):  # it holds no picture
                context.decode(packet_of(self._within))
        self._known = own or self._within or self._known
        self._within = None

    def heading(self, packet: Packet[Any]) -> bytes | None:
        """The NAL units before the picture, which cost nothing to decode. None where the codec has no such."""
        if not self._sets:
            return None
        data, end = bytes(memoryview(packet)[:MAX_HEADING_BYTES]), 0
        for _, body, stop in self._units(data):
            if body >= len(data) or self._is_slice(data[body]):
                break
            end = min(stop, len(data))
        return data[:end]

    def _is_slice(self, header: int) -> bool:
        return header >> 1 & 63 < 32 if self._hevc else header & 31 < 6

    def found_in(self, packet: Packet[Any]) -> bytes | None:
        """The NAL units with parameter sets at a packet's beginning, as they stand there."""
        if not self._sets or packet.size < 8:
            return None
        data = bytes(memoryview(packet)[:2048])
        first: int | None = None
        end = 0
        for begin, body, stop in self._units(data):
            if body >= len(data):
                break
            kind = data[body] >> 1 & 63 if self._hevc else data[body] & 31
            if kind in self._sets:
                first, end = begin if first is None else first, stop
            elif self._is_slice(data[body]):
                break  # a slice: parameters come before
        return None if first is None or end > len(data) else data[first:end]

    def _units(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        """Begin, first byte and end of each NAL unit."""
        if self._length_bytes:
            at = 0
            while at + self._length_bytes < len(data):
                body = at + self._length_bytes
                stop = body + int.from_bytes(data[at:body])
                yield at, body, stop
                at = stop
            return
        starts = [m.start() for m in re.finditer(b"\0\0\1", data)]
        for place, begin in enumerate(starts):
            yield begin, begin + 3, starts[place + 1] if place + 1 < len(starts) else len(data)


HEADERS_IN_THE_STREAM = ("mpeg4", "mpeg2video", "mpeg1video")
"""Codecs whose decoders take new headers from the stream alone, not from beside a packet."""


def _with_headers(packet: Packet[Any]) -> Packet[Any]:
    """The packet with the headers that came beside it put in front."""
    made = packet_of(bytes(packet.get_sidedata("new_extradata")) + bytes(packet))
    made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
    made.is_keyframe = packet.is_keyframe
    return made


class Decoder:
    """A decoder whose every word is heard."""

    def __init__(self, context: Any, log: list[tuple[int, str, str]]) -> None:
        self.context, self.log = context, log
        self.parameters = Parameters(context.name, context.extradata)
        self._takes_headers = context.name in HEADERS_IN_THE_STREAM

    def decoded(self, packet: Packet[Any] | None) -> tuple[list[VideoFrame], str | None]:
        """The frames that come out when a packet goes in (None: the last ones), and how the decoder says that
        something is damaged."""
        import av

        if packet is not None:
            self.parameters.sent(packet, self.context)
            if self._takes_headers and packet.has_sidedata("new_extradata"):
                packet = _with_headers(packet)
        self.log.clear()
        try:
            frames = self.context.decode(packet)
        except EOFError:
            return [], None
        except av.error.FFmpegError as e:
            return [], e.strerror or "it does not decode"
        problem = damage_in(self.log, self.context.name) if self.log else None
        return frames, problem


class Pass:
    """One sweep over the packets of a task."""

    def __init__(self, result: Result, sweep: Sweep) -> None:
        self.result, self.sweep, self.info = result, sweep, result.info
        self.enter_pts = sweep.start
        self.usual = 1
        self.count = 0
        """Packets so far. A packet's place is its identity: the decoder hands it on as the frame's timestamp."""
        self.done = self.ended = False
        self.surprised = self.found_no_entry = False
        self.from_header: bool | None = None
        """The parameters of the stream's first packet are the header's alone. None: not known, or of
        no matter."""
        self.leaps = False
        """From keyframe to keyframe, as nothing else is wanted and the index lists them all."""

    def begin(self, container: InputContainer, stream: VideoStream, log: list[tuple[int, str, str]]) -> None:
        """To be called before anything is read or decoded."""
        self.container, self.stream = container, stream
        self.decoder = Decoder(stream.codec_context, log)
        fps = Fraction(self.info.fps).limit_denominator(100_000) if self.info.fps else Fraction(25)
        self.usual = max(1, round(1 / (fps * self.info.time_base)))

    def began_with(self, first: Packet[Any]) -> None:
        """`first` is the stream's. A scan has seen all parameters there are; an index tells nothing of them."""
        if not self.info.scanned and not self.info.plain:
            self.from_header = self.decoder.parameters.found_in(first) is None

    def may_enter_at(self, packet: Packet[Any]) -> bool:
        """False: its parameters may stand in any packet before it."""
        return self.from_header is not False or self.decoder.parameters.found_in(packet) is not None

    def goes_on_after(self, earlier: Pass) -> None:
        """An earlier pass, done by now, went through the same container and decoder: what `prime` would show the
        decoder it has seen."""
        self.from_header = earlier.from_header

    def is_contradicted_by(self, packet: Packet[Any]) -> bool:
        """The header's parameters do not hold for all: who enters behind this packet must have seen it."""
        return bool(self.from_header) and self.decoder.parameters.are_new_in(packet)

    def prime(self, start: int) -> bool:
        """Shows the decoder the stream's first packet, and forgets the picture: it may tell what holds for all
        (an encoder's version, parameters that are not repeated). False: it cannot be read."""
        import av

        context: Any = self.stream.codec_context
        parameters = self.decoder.parameters
        changed = next((data for pts, data in reversed(self.info.parameters) if pts <= start), None)
        if changed is not None and not parameters.are_inside(changed):
            context.extradata = changed
            return True
        with suppress(av.error.FFmpegError):
            first = next(packets_of(self.container, self.stream), None)
            if first is None:
                return False
            self.began_with(first)
            heading = parameters.heading(first)
            if heading is None or changed is not None:
                self.decoder.decoded(first)
            elif heading:
                context.decode(packet_of(heading))
        if context.is_open:
            context.flush_buffers()
        if changed is not None:
            parameters.missed(changed)
        return True

    def feed(self, packet: Packet[Any]) -> None:
        raise NotImplementedError

    def goes_on_in(self, container: InputContainer, stream_index: int) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        raise NotImplementedError
