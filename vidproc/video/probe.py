"""Reads what a container says of its video, and no more of it than that: Video -> VideoInfo.

An index (MP4, MOV, Matroska, AVI) gives the keyframes for a few requests; the first packets give
the first shown frame, its orientation and the proof that the codec decodes at all. Where there is
no index, or it lies, the packets are read once without being decoded.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vidproc.dates import believed, times_in_name
from vidproc.errors import Declined, LimitExceeded, Undecodable
from vidproc.media import Edit, Video, VideoInfo
from vidproc.video.clock import REORDER_DEPTH, Frontier, Leap, Sent, SteadyClock, believable_duration
from vidproc.video.container import (
    STEPS_BACK_S,
    TRANSPORT_FORMATS,
    MediaLimits,
    Source,
    choose_stream,
    is_near_a_loss,
    is_still,
    open_container,
    orientation,
    packets_of,
    prepare,
    unreadable,
    upright_size,
    video_streams,
)
from vidproc.video.edits import MovieTrack
from vidproc.video.passes import Decoder, Parameters, watching_the_decoder
from vidproc.video.sequential import InOrder, decoding_time

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

HEAD_PACKETS = 2000
"""Packets tried before a video whose start is damaged is given up."""

BELIEVABLE_FPS = (Fraction(1, 60), Fraction(480))
"""Outside of this an average rate is a mistake of the muxer: 1000 is a time base, not a rate."""

CLAIM_TOLERANCE = 2
"""Frames by which the ends of all streams may miss the duration that a header claims."""

MAX_KEYFRAMES = 50_000
"""Kept of one video. More (every frame of ten hours is one) are thinned evenly: cuts need no more."""


SUSPICIOUS_PACKETS = 64
"""Decoded of a stream whose codec may change the order of frames while its packets have no times of display."""

TAIL_PACKETS = 2 * REORDER_DEPTH
"""Read from the end of an index: the frame that is shown last is among them."""

PEEK_PACKETS = 1000
"""Read at most to tell a film from a single picture where no header does."""

MAX_PARAMETERS = 1000
"""Changes of decoder parameters kept of one video."""


@dataclass(frozen=True, slots=True)
class _Head:
    """What the first packets tell."""

    frame: VideoFrame
    """The first that is shown."""
    pts: int | None
    """When it is shown; None where its packet does not say."""
    first: int
    """The earliest time of any frame among the first packets, shown or not."""
    delay: int
    """From the decoding time of the first keyframe to its presentation."""
    counted: bool
    """Frames come in another order than the times of their packets, which are none but decoding times."""
    brings_parameters: bool
    """The first keyframe holds parameter sets."""


@dataclass(frozen=True, slots=True)
class _Index:
    """What an index or a scan tells, in the stream's time base."""

    keyframes: list[int]
    end: int | None
    frames: int | None
    scanned: bool = False
    exact: bool = True
    rate: float | None = None
    """Frames a second as counted by a scan."""
    warnings: tuple[str, ...] = ()
    held: bool = False
    later_streams: tuple[int, ...] = ()
    parameters: tuple[tuple[int, bytes], ...] = ()
    edits: tuple[Edit, ...] = ()


class _CutsFramesOff(Exception):
    """The edit list does more than shift the video: the media must be read as they are."""


def probe(video: Video, source: Source, limits: MediaLimits, recorded_pattern: str | None = None) -> VideoInfo:
    """Raises Declined (empty, not_media, unsupported_container, audio_only, no_video, encrypted,
    no_frames, unsupported_codec), LimitExceeded, SourceChanged or TransientError."""
    if video.size_bytes == 0:
        raise Declined(f"{video.uri}: is empty", "empty")
    if closer := source.closer(video):
        with suppress(Declined, Undecodable):
            return _probe(video, source, limits, recorded_pattern)
    return _probe(video, closer or source, limits, recorded_pattern)


def _probe(video: Video, source: Source, limits: MediaLimits, recorded_pattern: str | None) -> VideoInfo:
    track = _track(video, source, limits)
    as_media = track is not None and not track.only_shifts
    try:
        return _probe_as(video, source, limits, recorded_pattern, track, as_media=as_media)
    except _CutsFramesOff:
        return _probe_as(video, source, limits, recorded_pattern, track, as_media=True)


def _probe_as(
    video: Video,
    source: Source,
    limits: MediaLimits,
    recorded_pattern: str | None,
    track: MovieTrack | None,
    *,
    as_media: bool,
) -> VideoInfo:
    with open_container(video, source, limits, stretch_bytes=0, as_media=as_media) as container:
        stream, left_out = _choose(video, source, limits, container)
        if not stream.codec_context.width:  # nobody could tell, or it was above the limit already
            with open_container(video, source, limits, stretch_bytes=0, headers_only=True) as headers:
                choose_stream(video, headers, limits)
        if "enc_key_id" in stream.metadata:
            raise Declined(f"{video.uri}: is encrypted", "encrypted")
        prepare(container, stream, limits)
        head = _read_head(video, container, stream, limits)
        index = _read_index(video, container, stream, head, track, as_media=as_media)
        facts = _facts(video, container, stream, head)
        recorded_at, doubts = _recorded_at(video, container, stream, recorded_pattern)
    if index is None:
        index = _scan(video, source, limits, facts, head, track, as_media=as_media)
    source.check_unchanged(video)
    facts = replace(facts, warnings=tuple(w for i, w in left_out.items() if i not in index.later_streams))
    info = _conclude(facts, index, recorded_at)
    if info.duration_s > limits.max_duration:
        longest = f"{limits.max_duration:.0f} s (limits.max_duration)"
        raise LimitExceeded(f"{video.uri}: says that it lasts {info.duration_s:.0f} s, above the limit of {longest}")
    return replace(info, warnings=(*info.warnings, *doubts))


def _track(video: Video, source: Source, limits: MediaLimits) -> MovieTrack | None:
    """What an MP4's own headers say of its film; None where it is no MP4, or they cannot be understood."""
    with open_container(video, source, limits, stretch_bytes=0, headers_only=True) as container:
        if "mov" not in container.format.name:
            return None
        stream, _ = _choose(video, source, limits, container)
        place = stream.index
    return source.movie_track(video, place)


def _choose(
    video: Video, source: Source, limits: MediaLimits, container: InputContainer
) -> tuple[VideoStream, dict[int, str]]:
    """The film, and a warning for each video stream that is left out, by its index."""
    stills: set[int] = set()
    open_question = [s for s in video_streams(container) if not is_still(s) and not s.frames]
    if len(open_question) > 1 or (open_question and len(video_streams(container)) > 1):
        stills = _stills(video, source, limits)
    stream = choose_stream(video, container, limits, stills=stills)
    warnings = {}
    for other in video_streams(container):
        if other.index == stream.index:
            continue
        still = is_still(other) or other.index in stills or other.frames == 1
        what = "a still picture" if still else "another video stream"
        context: Any = other.codec_context
        size = f" of {context.width}x{context.height}" if context is not None and context.width else ""
        warnings[other.index] = f"stream {other.index} is left out: {what}{size}"
    return stream, warnings


def _stills(video: Video, source: Source, limits: MediaLimits) -> set[int]:
    """Indices of the video streams that hold one picture, by the first packets."""
    with open_container(video, source, limits, stretch_bytes=0, headers_only=True) as container:
        counts = {s.index: 0 for s in video_streams(container)}
        for place, packet in enumerate(packets_of(container)):
            if packet.stream_index in counts:
                counts[packet.stream_index] += 1
            if place == PEEK_PACKETS or min(counts.values()) > 1:
                break
        return {index for index, count in counts.items() if count == 1}


def _read_head(video: Video, container: InputContainer, stream: VideoStream, limits: MediaLimits) -> _Head:
    """Decodes from the start until one frame has come out that is shown and whole."""

    context: Any = stream.codec_context
    avi = container.format.name == "avi"
    clock = SteadyClock(_duration_guess(stream), _base(stream), transport=False)
    delay: int | None = None
    count, problem = 0, None
    times: list[int] = []
    begins: int | None = None
    offsets = False
    found: tuple[int, VideoFrame] | None = None
    fallback: tuple[int, VideoFrame] | None = None
    with watching_the_decoder() as log:
        decoder = Decoder(context, log)
        brings: bool | None = None
        in_order = InOrder(decoder, usual=_duration_guess(stream), counted=False)
        packets = packets_of(container, stream)
        while True:
            packet = next(packets, None)
            if packet is not None:
                if packet.has_sidedata("encryption_info") or packet.has_sidedata("encryption_init_info"):
                    raise Declined(f"{video.uri}: is encrypted", "encrypted")
                pts, dts = packet.pts, packet.dts
                if delay is None and packet.is_keyframe and pts is not None and dts is not None:
                    delay = pts - dts
                if brings is None and packet.is_keyframe:
                    brings = decoder.parameters.found_in(packet) is not None
                # Streams whose packets are never shown in another order than they are decoded.
                offsets |= pts is not None and bool(times) and pts < times[-1]
                now = clock.push(decoding_time(packet, container.format.name), packet.duration)
                begins = now if begins is None else begins
                if pts is not None:
                    times.append(pts)
                # A leap among the first packets is seen by the scan.
                stamp = pts if pts is not None else now
                sent = Sent(count, stamp, key=packet.is_keyframe, shown=not packet.is_discard)
                count += 1
                if found is None or (not offsets and context.reorder_depth):
                    shown = list(in_order.send(packet, sent))
                else:
                    shown = []
            else:
                shown = list(in_order.drain())
            for time, came in shown:
                frame = came.frame
                if frame is None:
                    continue
                if frame.width * frame.height > limits.max_pixels:
                    raise LimitExceeded(f"{video.uri}: a frame of {frame.width}x{frame.height} is above the limit")
                fallback = fallback or (time, frame)
                if came.whole:
                    found = found or (time, frame)
            if found is None and log:
                problem = log[-1][2].strip()
            suspicious = not offsets and bool(context.reorder_depth) and not in_order.disordered and not avi
            enough = SUSPICIOUS_PACKETS if suspicious else REORDER_DEPTH + 1
            if packet is None or count == HEAD_PACKETS or (found is not None and count >= enough):
                break
    found = found or fallback
    if count == 0:
        raise Declined(f"{video.uri}: its video stream holds no frames", "no_frames")
    if found is None:
        why = f": {problem}" if problem else ""
        raise Declined(f"{video.uri}: none of its first {count} frames decodes{why}", "no_frames")
    time, frame = found
    # AVI holds no times of display: those that the demuxer makes up for B-frames are wrong.
    counted = in_order.disordered or (avi and bool(context.reorder_depth)) or not times
    first = min(times, default=time)
    if counted and begins is not None:
        time = first = begins
    return _Head(frame, time, first, delay or 0, counted, bool(brings))


def _base(stream: VideoStream) -> Fraction:
    assert stream.time_base is not None
    return stream.time_base


def _facts(video: Video, container: InputContainer, stream: VideoStream, head: _Head) -> VideoInfo:
    """All that needs no index; the fields that do are filled in by `_conclude`."""
    rotation, mirrored = orientation(head.frame)
    width, height = upright_size(head.frame.width, head.frame.height, stream.sample_aspect_ratio, rotation)
    rate = stream.average_rate
    time_base = stream.time_base
    assert time_base is not None
    return VideoInfo(
        video=video,
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=head.frame.format.name,
        width=width,
        height=height,
        rotation=rotation,
        mirrored=mirrored,
        fps=float(rate) if rate and _believable(rate) else None,
        time_base=time_base,
        origin_pts=head.pts or 0,
        duration_s=_promised_duration(container, stream),
        frames_promised=stream.frames or None,
        keyframe_pts=(),
        recorded_at=None,
        stream_index=stream.index,
        counted=head.counted,
    )


def _believable(rate: Fraction) -> bool:
    return BELIEVABLE_FPS[0] <= rate <= BELIEVABLE_FPS[1]


def _promised_duration(container: InputContainer, stream: VideoStream) -> float:
    """Seconds that the header claims from the clock's zero on, 0 where it claims nothing itself."""
    name = container.format.name
    if name == "avi" and stream.frames and stream.average_rate:  # the demuxer cuts `duration` to the file
        return float(stream.frames / stream.average_rate)
    if stream.duration and stream.time_base and "mov" in name:
        return float(stream.duration * stream.time_base)
    if container.duration and ("matroska" in name or name in ("flv", "asf")):
        return container.duration / 1e6
    return 0.0


# Indexes


def _read_index(
    video: Video,
    container: InputContainer,
    stream: VideoStream,
    head: _Head,
    track: MovieTrack | None,
    *,
    as_media: bool,
) -> _Index | None:
    """None where there is no index that can be believed."""
    name = container.format.name
    if "mov" in name and stream.frames and not (track and track.fragmented):
        return _mov_index(video, container, stream, head, track, as_media=as_media)
    if head.counted:
        return None
    if "matroska" in name:
        return _matroska_index(container, stream, head)
    if name == "avi" and stream.frames and len(stream.index_entries) >= stream.frames:
        return _mov_index(video, container, stream, head, None, as_media=False)
    return None


def _mov_index(
    video: Video,
    container: InputContainer,
    stream: VideoStream,
    head: _Head,
    track: MovieTrack | None,
    *,
    as_media: bool,
) -> _Index | None:
    """Every frame is listed with its decoding time, size and place. Its presentation time is not:
    that of keyframes is taken to lie behind by as much as the first one's does. Where this is not
    so, a cut falls some frames beside a keyframe, which costs a little decoding and is as exact."""
    keyframes: list[int] = []
    frames = missing = 0
    first = last = before_last = None
    tail_at: int | None = None
    recent: list[int] = []
    for entry in stream.index_entries:
        if entry.is_discard:
            if track is not None and not as_media:
                raise _CutsFramesOff
            continue
        frames += 1
        if entry.pos + entry.size > video.size_bytes:
            missing += 1
        elif entry.is_keyframe:
            keyframes.append(entry.timestamp + head.delay)
        before_last, last = last, entry.timestamp
        first = last if first is None else first
        recent.append(last)
        if len(recent) > TAIL_PACKETS:
            del recent[0]
    if not keyframes or first is None or last is None:
        return None
    if track is not None and track.edits and not as_media and frames < stream.frames:
        raise _CutsFramesOff
    tail_at = recent[0]
    step = max(last - before_last, 0) if before_last is not None else 0
    warnings: tuple[str, ...] = ()
    end = first + head.delay + last - first + step
    if missing:
        warnings = (f"{missing} of the {frames} frames in its index lie behind the end of the file",)
    elif (tail := _tail(container, stream, tail_at)) is not None:
        end, brings_parameters = tail
        if brings_parameters is None and head.brings_parameters:
            brings_parameters = _brings_parameters(container, stream, keyframes[-1])
        if brings_parameters not in (None, head.brings_parameters):
            return None  # they change on the way, or stand there once
    if as_media and track is not None:
        edits = track.timeline(end)
        if not edits:
            raise Declined(f"{video.uri}: its edit list shows nothing of its video", "no_frames")
        return _Index(keyframes, end, frames, warnings=warnings, held=not missing, edits=edits)
    if track is not None and track.shown_ticks is not None and not missing:
        end = max(end, track.lead + track.shown_ticks)
    return _Index(keyframes, end, frames, warnings=warnings, held=not missing)


def _tail(container: InputContainer, stream: VideoStream, at: int) -> tuple[int, bool | None] | None:
    """Reads the packets from that decoding time to the end: when the last frame leaves the screen, and whether the
    last keyframe among them holds parameter sets (None: there is none). None where they cannot be reached. Frames
    that change places swap durations: the one shown last lasts as long as the packet decoded last."""
    import av

    latest, lasts = None, 0
    parameters, brings = Parameters(stream.codec_context.name, stream.codec_context.extradata), None
    try:
        container.seek(at, stream=stream, any_frame=True)
        for count, packet in enumerate(packets_of(container, stream)):
            if packet.pts is not None:
                latest = packet.pts if latest is None else max(latest, packet.pts)
                lasts = packet.duration or _duration_guess(stream)
            if packet.is_keyframe:
                brings = parameters.found_in(packet) is not None
            if count > 16 * TAIL_PACKETS:
                return None
    except av.error.FFmpegError:
        return None
    return None if latest is None else (latest + lasts, brings)


def _brings_parameters(container: InputContainer, stream: VideoStream, keyframe: int) -> bool | None:
    """Whether the keyframe shown at that time, or before it, holds parameter sets."""
    import av

    with suppress(av.error.FFmpegError):
        container.seek(keyframe, stream=stream)
        packet = next(packets_of(container, stream), None)
        if packet is not None and packet.is_keyframe:
            return Parameters(stream.codec_context.name, stream.codec_context.extradata).found_in(packet) is not None
    return None


def _matroska_index(container: InputContainer, stream: VideoStream, head: _Head) -> _Index | None:
    """Cues list keyframes by presentation time. The end is read off the last cluster."""
    import av
    from av.stream import Discard

    origin, time_base = head.pts, stream.time_base
    assert origin is not None and time_base is not None
    try:
        container.seek(origin, stream=stream)  # makes the demuxer fetch cues from the end of the file
        keyframes = sorted(e.timestamp for e in stream.index_entries if e.is_keyframe)
        claimed_s = (container.duration or 0) / 1e6
        claimed = claimed_s / float(time_base)
        if len(keyframes) < 2 or keyframes[-1] > claimed + 1 or keyframes[0] < origin - claimed:
            return None
        for other in container.streams:
            other.discard = Discard.default
        container.seek(keyframes[-1], stream=stream)
        end, end_of_all, size = keyframes[-1], 0.0, 0
        first: bool = True
        parameters = Parameters(stream.codec_context.name, stream.codec_context.extradata)
        for packet in packets_of(container):
            if packet.pts is None or not packet.time_base:
                continue
            end_of_all = max(end_of_all, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            size += packet.size
            if packet.stream_index == stream.index:
                if first and (packet.pts != end or not packet.is_keyframe):
                    return None  # blocks flagged as keyframes that are none
                if first and (parameters.found_in(packet) is not None) != head.brings_parameters:
                    return None  # they change on the way, or stand there once
                first = False
                end = max(end, packet.pts + _duration(packet, stream))
            if size > 32 << 20:  # cues that sparse: the header's word must do
                end, end_of_all = max(end, int(claimed)), claimed_s
                break
        if end_of_all < claimed_s - float(CLAIM_TOLERANCE * _duration_guess(stream) * time_base):
            return None  # cut off, and what was just read is not the end that the header means
    except av.error.FFmpegError:
        return None
    return _Index(keyframes, end, _number(stream.metadata.get("NUMBER_OF_FRAMES")))


def _duration(packet: Packet[Any], stream: VideoStream) -> int:
    if packet.duration:
        return packet.duration
    rate = stream.average_rate
    return round(1 / (rate * stream.time_base)) if rate and stream.time_base and _believable(rate) else 1


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


@dataclass(slots=True)
class _Other:
    """A further video stream, as seen by a scan."""

    first: int
    last: int
    count: int = 1


def _scan(
    video: Video,
    source: Source,
    limits: MediaLimits,
    facts: VideoInfo,
    head: _Head,
    track: MovieTrack | None,
    *,
    as_media: bool,
) -> _Index:
    """Reads every packet and decodes none."""
    # Where an error on the way may be the connection's, not the file's, it is not believed.
    believe = source.closer(video) is None
    with open_container(video, source, limits, as_media=as_media) as container:
        stream: Any = container.streams[facts.stream_index]
        scan = _Scan(video, limits, facts, head, stream, track)
        scan.read(container, stream.index, believe=believe)
        for index in scan.find_later_streams():
            with open_container(video, source, limits) as again:
                scan.read(again, index, believe=believe)
        made = scan.conclude(container)
    if as_media and track is not None and made.end is not None:
        return replace(made, edits=track.timeline(made.end))
    return made


class _Scan:
    """One reading of all packets."""

    def __init__(
        self,
        video: Video,
        limits: MediaLimits,
        facts: VideoInfo,
        head: _Head,
        stream: VideoStream,
        track: MovieTrack | None,
    ) -> None:
        self.video, self.limits, self.facts, self.head, self.stream = video, limits, facts, head, stream
        self.track = track
        self.later: tuple[int, ...] = ()
        self.usual = _duration_guess(stream)
        transport = facts.container in TRANSPORT_FORMATS
        self.clock = SteadyClock(self.usual, facts.time_base, transport=transport)
        self.frontier = Frontier()
        self.keyframes: list[int] = []
        # AVI holds no times of display, so a stream in it is exact only where the order is that of decoding.
        self.exact = not head.counted
        self.count = 0
        self.end_of_all = 0.0
        self.error: str | None = None
        self.end = facts.origin_pts
        self.began: int | None = None
        """Repaired decoding time of the first packet."""
        self.all_end = 0
        """Ticks that all packets last together."""
        self.first: int | None = None
        self.last: tuple[int, int] | None = None
        self.following: list[int] = []
        self.others: dict[int, _Other] = {}
        self.parameters: list[tuple[int, bytes]] = []
        self.sets = Parameters(stream.codec_context.name, stream.codec_context.extradata)
        self.last_dts = 0
        self.marked = False
        """The last packet tells of a loss behind the next."""

    def read(self, container: InputContainer, index: int, *, believe: bool) -> None:
        """Takes the packets of one stream. Raises Undecodable where reading ends with an error and `believe` is
        False, or LimitExceeded."""
        import av

        packets = packets_of(container)
        while True:
            try:
                packet: Any = next(packets, None)
            except av.error.FFmpegError as e:
                self.error = e.strerror
                if isinstance(e, OSError) and (why := unreadable(self.video, e)):
                    raise why from None
                if not believe:
                    raise Undecodable(
                        f"{self.video.uri}: reading its packets ended with an error: {self.error}"
                    ) from None
                break
            if packet is None:
                break
            if packet.pts is not None and packet.time_base:
                ends = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                self.end_of_all = max(self.end_of_all, ends)
            if packet.stream_index == index:
                self.take(packet)
            elif not self.later and container.streams[packet.stream_index].type == "video" and packet.dts is not None:
                other = self.others.setdefault(packet.stream_index, _Other(packet.dts, packet.dts))
                other.last, other.count = max(other.last, packet.dts), other.count + 1

    def take(self, packet: Packet[Any]) -> None:
        self.count += 1
        if self.count > self.limits.max_scan_packets:
            raise LimitExceeded(f"{self.video.uri}: more than {self.limits.max_scan_packets} packets and no index")
        dts = packet.dts if packet.dts is not None else packet.pts
        steady = decoding_time(packet, self.facts.container) if self.head.counted else dts
        now = self.clock.push(steady, packet.duration, None if self.head.counted else packet.pts)
        if dts is not None:
            self.last_dts = dts
        pts = packet.pts
        if pts is None or self.clock.offset or self.later:
            self.exact = False
        duration = believable_duration(packet.duration, self.facts.time_base, self.usual)
        if self.head.counted:
            duration = self.clock.pace
        stamp = now if self.head.counted or pts is None else pts + self.clock.offset
        self.began = now if self.began is None else self.began
        self.all_end = now - self.began + duration
        if not packet.is_discard:
            self.end = max(self.end, stamp + duration)
            self.first = stamp if self.first is None else min(self.first, stamp)
        if packet.has_sidedata("new_extradata") and self.count > 1:
            self.changed(stamp, bytes(packet.get_sidedata("new_extradata")))
        elif packet.is_keyframe and (sets := self.sets.found_in(packet)):
            self.changed(stamp, sets)
        if pts is None or (self.frontier.pts is not None and pts < self.frontier.pts):
            self.exact = False
            return
        self.frontier.add(pts, packet.dts)
        marked, self.marked = self.marked, is_near_a_loss(packet, self.facts.container)
        if packet.is_keyframe and not packet.is_discard and not marked:  # who enters there must have seen the mark
            self.keyframes.append(pts)
            if len(self.keyframes) & (len(self.keyframes) - 1) == 0:
                self.following = []
        if len(self.following) < REORDER_DEPTH:
            self.following.append(pts)
        if not packet.is_discard and (self.last is None or pts >= self.last[0]):
            self.last = (pts, packet.duration or 0)

    def changed(self, stamp: int, parameters: bytes) -> None:
        known = self.parameters[-1][1] if self.parameters else None
        if parameters != known and len(self.parameters) < MAX_PARAMETERS:
            self.parameters.append((stamp, parameters))

    def find_later_streams(self) -> tuple[int, ...]:
        """Streams that begin where the film's ends: the programme moved."""
        found, end = [], self.last_dts
        near = int(1 / self.facts.time_base)
        for index, other in sorted(self.others.items(), key=lambda o: o[1].first):
            if other.count > 1 and other.first >= end - near:
                found.append(index)
                end = other.last
        self.later = tuple(found)
        return self.later

    def conclude(self, container: InputContainer) -> _Index:
        facts, warnings = self.facts, [] if self.error is None else [
            f"reading its packets ended with an error: {self.error}"
        ]  # fmt: skip
        warnings += [_leap_warning(leap, facts) for leap in self.clock.leaps]
        if self.later:
            streams = ", ".join(str(i) for i in self.later)
            warnings.append(f"the video goes on in stream {streams}: read as one")
        exact = self.exact
        if exact and len(self.keyframes) > 1:
            exact = facts.container != "mpeg" and _seeks_to(container, self.stream, self.following)
        base = facts.time_base
        parameters = tuple(self.parameters[1:] if self._begins_with_its_sets() else self.parameters)
        if not exact:
            if not self.clock.leaps and not self.later:
                warnings.append(
                    "timestamps are missing, double, go back or differ after seeking: repaired, and read from the start"
                )
            # Frames that change places swap durations: all together last as long as in decoding order.
            together = (self.first or 0) + self.all_end
            held = self.error is None and self.end < together <= self.end + 2 * self.usual
            end = together if held else self.end
            promised = None if self.clock.leaps else self._promised(container, self.usual, warnings)
            if promised is not None:
                end, held = max(end, promised), False
            return _Index(
                [facts.origin_pts],
                end,
                facts.frames_promised,
                scanned=True,
                exact=False,
                warnings=tuple(warnings),
                held=held,
                later_streams=self.later,
            )
        end, usual = facts.origin_pts, self.usual
        if self.last is not None:
            usual = (self.last[0] - facts.origin_pts) // (self.count - 1) if self.count > 1 else self.usual
            end = self.last[0] + believable_duration(self.last[1], base, max(usual, 1))
        if (promised := self._promised(container, max(usual, 1), warnings)) is not None:
            end = max(end, promised)
        rate = float(1 / (usual * base)) if self.count > 1 and usual > 0 else None
        return _Index(
            sorted(self.keyframes),
            end,
            facts.frames_promised or self.count,
            scanned=True,
            rate=rate,
            warnings=tuple(warnings),
            parameters=parameters,
        )

    def _promised(self, container: InputContainer, usual: int, warnings: list[str]) -> int | None:
        """The end that the file promises and does not keep, in ticks of its clock; None where it keeps its promises.
        Other streams may outlast the picture, but the header promises more than any of them holds."""
        claimed, base = self.facts.duration_s, self.facts.time_base
        promised: int | None = None
        if "mov" in container.format.name:
            # Fragments list their frames before these come.
            listed = [e for e in self.stream.index_entries if not e.is_discard]
            missing = sum(e.pos + e.size > self.video.size_bytes for e in listed)
            if missing:
                warnings.append(f"{missing} of the {len(listed)} frames in its index lie behind the end of the file")
                # Then the movie's header is believed too, which in a fragment that was cut out tells of the whole.
                whole = int(self.track.movie_s / base) if self.track is not None else 0
                promised = max(int(listed[-1].timestamp + (self.head.delay or 0) + usual), whole)
        if claimed > self.end_of_all + float(CLAIM_TOLERANCE * usual * base):
            warnings.append(f"its header promises {claimed:.1f} s, its packets end at {self.end_of_all:.1f} s")
            promised = max(promised or 0, int(claimed / base))
        return promised

    def _begins_with_its_sets(self) -> bool:
        return bool(self.parameters) and self.parameters[0][0] <= self.facts.origin_pts


def _leap_warning(leap: Leap, facts: VideoInfo) -> str:
    at, by = facts.pts_to_seconds(leap.at), float(leap.by * facts.time_base)
    return f"its clock leaps by {by:+.1f} s at {at:.1f} s: closed up"


def _seeks_to(container: InputContainer, stream: VideoStream, following: list[int]) -> bool:
    """Whether the packets from a keyframe on have the same times after a seek as in one reading.
    Where frames carry none of their own (MPEG program streams), the parser counts on from wherever
    it began."""
    import av

    assert stream.time_base is not None
    for back in STEPS_BACK_S:
        seen: list[int | None] = []
        try:
            container.seek(following[0] - int(back / stream.time_base), stream=stream)
            for packet in packets_of(container, stream):
                if seen or (packet.is_keyframe and packet.pts is not None and packet.pts >= following[0]):
                    seen.append(packet.pts)
                if len(seen) == len(following):
                    break
        except av.error.FFmpegError:
            return False
        if seen[: len(following)] == following:
            return True
        if seen and seen[0] == following[0]:
            return False
    return False


def _duration_guess(stream: VideoStream) -> int:
    rate = next((r for r in (stream.average_rate, stream.guessed_rate) if r and _believable(r)), Fraction(25))
    assert stream.time_base is not None
    return max(1, round(1 / (rate * stream.time_base)))


def _conclude(facts: VideoInfo, index: _Index, recorded_at: datetime | None) -> VideoInfo:
    origin, keyframes = facts.origin_pts, index.keyframes
    end = index.end if index.end is not None else origin
    if index.edits:  # all on the presentation's clock
        origin, end = 0, index.edits[-1].end
        keyframes = sorted({s[0] for k in keyframes for e in index.edits if (s := e.shows(k, k + 1))})
    keyframes = [k for k in keyframes if k > origin]
    if len(keyframes) >= MAX_KEYFRAMES:
        keyframes = keyframes[:: len(keyframes) // MAX_KEYFRAMES + 1]
    duration_s = max(0.0, float((end - origin) * facts.time_base))
    fps = facts.fps
    rate = index.rate or (index.frames / duration_s if index.frames and duration_s and not index.scanned else None)
    if rate and (fps is None or (index.scanned and not 0.8 < fps / rate < 1.25)):
        fps = rate if _believable(Fraction(rate)) else None  # counted, where the header could only guess
    return replace(
        facts,
        origin_pts=origin,
        duration_s=duration_s,
        fps=fps,
        frames_promised=index.frames,
        keyframe_pts=(origin, *keyframes),
        recorded_at=recorded_at,
        scanned=index.scanned,
        exact_timestamps=index.exact,
        warnings=(*facts.warnings, *index.warnings),
        held=index.held,
        edits=index.edits,
        later_streams=index.later_streams,
        parameters=index.parameters,
    )


# Wall-clock time


def _recorded_at(
    video: Video, container: InputContainer, stream: VideoStream, pattern: str | None
) -> tuple[datetime | None, tuple[str, ...]]:
    """When the video was recorded, if that can be told, and a sentence for each date that is not believed."""
    doubts: list[str] = []
    if pattern is not None:
        times = [*times_in_name(video.uri.rpartition("/")[2], pattern)]
        if found := next((moment for _, moment in times if moment is not None), None):
            return found, ()
        doubts += [_doubt("the date in its name", times[0][0])] if times else []
    for key in ("com.apple.quicktime.creationdate", "creation_time", "date"):
        for text in dict.fromkeys((container.metadata.get(key), stream.metadata.get(key))):
            if not text or len(text) < 19:  # a year or a day is no moment
                continue
            try:
                moment = believed(datetime.fromisoformat(text))
            except (ValueError, OverflowError):
                moment = None
            if moment is not None:
                return moment, tuple(doubts)
            doubts.append(_doubt(f"its {key}", text))
    return None, tuple(doubts)


def _doubt(what: str, text: str) -> str:
    return f"{what}, {text[:60]!r}, cannot be when it was recorded"
