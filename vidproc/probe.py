"""Reads what a container says of its video, and no more of it than that: Video -> VideoInfo.

An index (MP4, MOV, Matroska, AVI) gives the keyframes for a few requests; the first packets give
the first shown frame, its orientation and the proof that the codec decodes at all. Where there is
no index, or it lies, the packets are read once without being decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vidproc.container import (
    REORDER_DEPTH,
    STEPS_BACK_S,
    Frontier,
    MediaLimits,
    RepairedClock,
    Source,
    believable_duration,
    choose_stream,
    open_container,
    orientation,
    packets_of,
    prepare,
    upright_size,
)
from vidproc.errors import Declined, LimitExceeded, Undecodable
from vidproc.media import Video, VideoInfo

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


@dataclass(frozen=True, slots=True)
class _Head:
    """What the first packets tell."""

    frame: VideoFrame
    """The first that is shown."""
    delay: int
    """From the decoding time of the first keyframe to its presentation."""
    packets: int


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
    with open_container(video, source, limits, stretch_bytes=0) as container:
        stream = choose_stream(video, container, limits)
        if not stream.codec_context.width:  # nobody could tell, or it was above the limit already
            with open_container(video, source, limits, stretch_bytes=0, headers_only=True) as headers:
                choose_stream(video, headers, limits)
        if "enc_key_id" in stream.metadata:
            raise Declined(f"{video.uri}: is encrypted", "encrypted")
        prepare(container, stream, limits)
        head = _read_head(video, container, stream, limits)
        index = _read_index(video, container, stream, head)
        facts = _facts(video, container, stream, head)
        recorded_at, doubts = _recorded_at(video, container, stream, recorded_pattern)
    if index is None:
        with open_container(video, source, limits) as container:
            stream = choose_stream(video, container, limits)
            index = _scan(video, container, stream, limits, facts, believe=source.closer(video) is None)
    source.check_unchanged(video)
    info = _conclude(facts, index, recorded_at)
    if info.duration_s > limits.max_duration_s:
        longest = f"{limits.max_duration_s:.0f} s (limits.max_duration)"
        raise LimitExceeded(f"{video.uri}: says that it lasts {info.duration_s:.0f} s, above the limit of {longest}")
    return replace(info, warnings=(*info.warnings, *doubts))


def _read_head(video: Video, container: InputContainer, stream: VideoStream, limits: MediaLimits) -> _Head:
    """Decodes from the start until one frame has come out."""
    import av

    context, delay, count, error = stream.codec_context, None, 0, None
    for packet in container.demux(stream):
        if packet.has_sidedata("encryption_info") or packet.has_sidedata("encryption_init_info"):
            raise Declined(f"{video.uri}: is encrypted", "encrypted")
        if packet.size:
            count += 1
            if delay is None and packet.is_keyframe and packet.pts is not None and packet.dts is not None:
                delay = packet.pts - packet.dts
        try:
            frames = context.decode(packet if packet.size else None)
        except av.error.FFmpegError as e:
            error, frames = e, []
        for frame in frames:
            if frame.width * frame.height > limits.max_pixels:
                raise LimitExceeded(f"{video.uri}: a frame of {frame.width}x{frame.height} is above the limit")
            return _Head(frame, delay or 0, count)
        if count == HEAD_PACKETS or not packet.size:
            break
    if count == 0:
        raise Declined(f"{video.uri}: its video stream holds no frames", "no_frames")
    why = f": {error.strerror}" if error is not None else ""
    raise Declined(f"{video.uri}: none of its first {count} frames decodes{why}", "no_frames")


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
        origin_pts=head.frame.pts or 0,
        duration_s=_promised_duration(container, stream),
        frames_promised=stream.frames or None,
        keyframe_pts=(),
        recorded_at=None,
        stream_index=stream.index,
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


def _read_index(video: Video, container: InputContainer, stream: VideoStream, head: _Head) -> _Index | None:
    """None where there is no index that can be believed."""
    name = container.format.name
    if head.frame.pts is None:
        return None
    if "mov" in name and stream.frames:
        return _mov_index(video, stream, head)
    if "matroska" in name:
        return _matroska_index(container, stream, head)
    if name == "avi" and not stream.codec_context.reorder_depth and len(stream.index_entries) >= stream.frames:
        return _mov_index(video, stream, head)
    return None


def _mov_index(video: Video, stream: VideoStream, head: _Head) -> _Index | None:
    """Every frame is listed with its decoding time, size and place. Its presentation time is not:
    that of keyframes is taken to lie behind by as much as the first one's does. Where this is not
    so, a cut falls some frames beside a keyframe, which costs a little decoding and is as exact."""
    keyframes: list[int] = []
    frames = missing = 0
    first = last = before_last = None
    for entry in stream.index_entries:
        if entry.is_discard:
            continue
        frames += 1
        if entry.pos + entry.size > video.size_bytes:
            missing += 1
        elif entry.is_keyframe:
            keyframes.append(entry.timestamp + head.delay)
        before_last, last = last, entry.timestamp
        first = last if first is None else first
    if not keyframes or first is None or last is None:
        return None
    step = max(last - before_last, 0) if before_last is not None else 0
    length = last - first + step
    if stream.duration and 2 * stream.duration >= length:
        length = stream.duration
    warnings: tuple[str, ...] = ()
    if missing:
        warnings = (f"{missing} of the {frames} frames in its index lie behind the end of the file",)
    return _Index(keyframes, first + head.delay + length, frames, warnings=warnings)


def _matroska_index(container: InputContainer, stream: VideoStream, head: _Head) -> _Index | None:
    """Cues list keyframes by presentation time. The end is read off the last cluster."""
    import av
    from av.stream import Discard

    origin, time_base = head.frame.pts, stream.time_base
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
        for packet in packets_of(container):
            if packet.pts is None or not packet.time_base:
                continue
            end_of_all = max(end_of_all, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            size += packet.size
            if packet.stream_index == stream.index:
                if first and (packet.pts != end or not packet.is_keyframe):
                    return None  # blocks flagged as keyframes that are none
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


def _scan(
    video: Video,
    container: InputContainer,
    stream: VideoStream,
    limits: MediaLimits,
    facts: VideoInfo,
    *,
    believe: bool,
) -> _Index:
    """Reads every packet and decodes none. Where an error on the way may be the connection's, not the
    file's (`believe`: it is not), raises Undecodable."""
    import av

    frontier, clock = Frontier(), RepairedClock(_duration_guess(stream))
    keyframes: list[int] = []
    recent: set[int] = set()
    # AVI holds no presentation times: those that the demuxer makes up for B-frames are wrong.
    exact = not ("avi" in facts.container and stream.codec_context.reorder_depth)
    count, end_of_all, error = 0, 0.0, None
    start_repaired: int | None = None
    last: tuple[int, int] | None = None
    following: list[int] = []
    packets = packets_of(container)
    while True:
        try:
            packet: Any = next(packets, None)
        except av.error.FFmpegError as e:
            error = e.strerror
            if not believe:
                raise Undecodable(f"{video.uri}: reading its packets ended with an error: {error}") from None
            break
        if packet is None:
            break
        if packet.pts is not None and packet.time_base:
            end_of_all = max(end_of_all, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index != stream.index or not packet.size:
            continue
        count += 1
        if count > limits.max_scan_packets:
            raise LimitExceeded(f"{video.uri}: more than {limits.max_scan_packets} packets and no index")
        repaired = clock.push(packet)
        clock.pop()
        start_repaired = repaired if start_repaired is None else start_repaired
        pts = packet.pts
        if pts is None or pts in recent or (frontier.pts is not None and pts < frontier.pts):
            exact = False
            continue
        recent.add(pts)
        if len(recent) > 64:
            recent = {p for p in recent if frontier.pts is None or p >= frontier.pts}
        frontier.add(pts, packet.dts)
        if packet.is_keyframe and not packet.is_discard:
            keyframes.append(pts)
            if len(keyframes) & (len(keyframes) - 1) == 0:
                following = []
        if len(following) < REORDER_DEPTH:
            following.append(pts)
        if not packet.is_discard and (last is None or pts >= last[0]):
            last = (pts, packet.duration or 0)
    warnings = [] if error is None else [f"reading its packets ended with an error: {error}"]
    if exact and len(keyframes) > 1 and (facts.container == "mpeg" or not _seeks_to(container, stream, following)):
        exact = False
    claimed = facts.duration_s
    time_base = facts.time_base
    if not exact:
        assert start_repaired is not None and clock.next is not None
        origin = facts.origin_pts
        end = origin + clock.next - start_repaired
        warnings.append(
            "timestamps are missing, double, go back or differ after seeking: repaired, and read from the start"
        )
        return _Index(
            [origin],
            end,
            facts.frames_promised,
            scanned=True,
            exact=False,
            warnings=tuple(warnings),
        )
    end, usual = facts.origin_pts, clock.usual
    if last is not None:
        usual = (last[0] - facts.origin_pts) // (count - 1) if count > 1 else clock.usual
        end = last[0] + believable_duration(last[1], time_base, max(usual, 1))
    if claimed > end_of_all + float(CLAIM_TOLERANCE * max(usual, 1) * time_base):
        # Other streams may outlast the picture, but the header promises more than any of them holds.
        end = max(end, int(claimed / time_base))
        warnings.append(f"its header promises {claimed:.1f} s, its packets end at {end_of_all:.1f} s")
    rate = float(1 / (usual * time_base)) if count > 1 and usual > 0 else None
    frames = facts.frames_promised or count
    return _Index(sorted(keyframes), end, frames, scanned=True, rate=rate, warnings=tuple(warnings))


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
    origin = facts.origin_pts
    keyframes = [k for k in index.keyframes if k > origin]
    if len(keyframes) >= MAX_KEYFRAMES:
        keyframes = keyframes[:: len(keyframes) // MAX_KEYFRAMES + 1]
    end = index.end if index.end is not None else origin
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
        warnings=index.warnings,
    )


# Wall-clock time

_DIGITS = r"\d{2}"
_DIRECTIVES = dict.fromkeys("ymdHIMS", _DIGITS) | {
    **{"Y": r"\d{4}", "j": r"\d{3}", "f": r"\d{1,6}", "s": r"(?P<epoch>\d{10})", "z": r"[+-]\d{2}:?\d{2}|Z"},
    **{"b": "[A-Za-z]{3}", "B": "[A-Za-z]+", "a": "[A-Za-z]{3}", "p": "[AaPp][Mm]"},
}


def check_name_pattern(pattern: str) -> None:
    """Raises ValueError for a pattern that no name can match, or that tells no day."""
    used = re.findall(r"%(.?)", pattern)
    for directive in used:
        if directive not in _DIRECTIVES and directive != "%":
            known = " ".join(f"%{d}" for d in _DIRECTIVES)
            raise ValueError(f"%{directive} in {pattern!r} is not understood; known are {known}")
        if directive != "%" and used.count(directive) > 1:
            raise ValueError(f"{pattern!r} holds %{directive} twice")
    if "s" not in used and not ({"Y", "y"} & {*used} and ("j" in used or ("d" in used and {"m", "b", "B"} & {*used}))):
        raise ValueError(f"{pattern!r} tells no day: it needs year, month and day, as in cam1_%Y%m%d_%H%M%S")


def recorded_from_name(name: str, pattern: str) -> datetime | None:
    """The first believable time that the strftime `pattern` finds in `name`, as UTC (times without a zone
    are taken for UTC); None where there is none."""
    return next((moment for _, moment in _times_in_name(name, pattern) if moment is not None), None)


def _times_in_name(name: str, pattern: str) -> Iterator[tuple[str, datetime | None]]:
    """Every stretch of the name that is a time by the pattern; None for the moment where it is not believable."""
    regex = "".join(
        f"(?:{_DIRECTIVES[piece[1]]})" if piece[0] == "%" and piece[1:] in _DIRECTIVES else re.escape(piece[-1:])
        for piece in re.findall(r"%.|.", pattern)
    )
    for match in re.finditer(f"(?={'(' + regex + ')'})", name):
        try:
            if epoch := match.groupdict().get("epoch"):
                moment = datetime.fromtimestamp(int(epoch), UTC)
            else:
                moment = datetime.strptime(match[1], pattern)
        except (ValueError, OverflowError):
            continue
        yield match[1], _believed(moment)


FIRST_RECORDING = datetime(1901, 1, 1, tzinfo=UTC)
"""Dates before it are zeros of some clock (1601, 1858, 1899, 1900), or no dates at all."""
UNSET_CLOCK_YEARS = (1904, 1970)
"""Clocks of cameras and containers begin in one of these years, and run on from there where nobody sets them."""
CLOCK_AHEAD = timedelta(days=1)
"""A camera's clock may be ahead of ours, or name its local time UTC."""
ZONES = (timedelta(hours=-12), timedelta(hours=14))
"""Least and greatest offset from UTC that any place on Earth uses."""


def _believed(moment: datetime) -> datetime | None:
    """The rule for all dates of recording, wherever they stand: the moment as UTC (a time without a zone is
    taken for UTC), or None where it cannot be when a video was recorded."""
    try:
        offset = moment.utcoffset()
        moment = moment.replace(tzinfo=UTC) if offset is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the first or the last day of the calendar, in another zone
        return None
    if offset is not None and not ZONES[0] <= offset <= ZONES[1]:
        return None
    if moment.year in UNSET_CLOCK_YEARS or not FIRST_RECORDING <= moment <= datetime.now(UTC) + CLOCK_AHEAD:
        return None
    return moment


def _recorded_at(
    video: Video, container: InputContainer, stream: VideoStream, pattern: str | None
) -> tuple[datetime | None, tuple[str, ...]]:
    """When the video was recorded, if that can be told, and a sentence for each date that is not believed."""
    doubts: list[str] = []
    if pattern is not None:
        times = [*_times_in_name(video.uri.rpartition("/")[2], pattern)]
        if found := next((moment for _, moment in times if moment is not None), None):
            return found, ()
        doubts += [_doubt("the date in its name", times[0][0])] if times else []
    for key in ("com.apple.quicktime.creationdate", "creation_time", "date"):
        for text in dict.fromkeys((container.metadata.get(key), stream.metadata.get(key))):
            if not text or len(text) < 19:  # a year or a day is no moment
                continue
            try:
                moment = _believed(datetime.fromisoformat(text))
            except (ValueError, OverflowError):
                moment = None
            if moment is not None:
                return moment, tuple(doubts)
            doubts.append(_doubt(f"its {key}", text))
    return None, tuple(doubts)


def _doubt(what: str, text: str) -> str:
    return f"{what}, {text[:60]!r}, cannot be when it was recorded"
