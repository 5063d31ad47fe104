"""One decode pass for all models: Task -> the sampled frames of every grid.

Which frames are wanted follows from the packets' timestamps alone, before anything is decoded. So
the decoder gets what a wanted frame needs and nothing else (vidproc.video.sparse). That takes the container at its
word: its keyframe flags, its timestamps, the order of its frames. Each of these is checked by what comes out
of the decoder. Where one does not hold, or anything is damaged, the task is decoded again plainly: everything
in order, from a keyframe that is proven to be one, and chosen at the output (vidproc.video.sequential).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from vidproc.errors import Archived, Declined, FastPathWrong, LimitExceeded, MediaError
from vidproc.media import DecodeReport, FrameBatch, Grid, Task, VideoInfo
from vidproc.video import sparse
from vidproc.video.container import (
    STEPS_BACK_S,
    MediaLimits,
    Source,
    choose_stream,
    open_container,
    packets_of,
    prepare,
    translate,
)
from vidproc.video.mp4 import Stretch, is_worth_it
from vidproc.video.passes import TOLERANCE_S, Pass, Result, Sweep, watching_the_decoder
from vidproc.video.sequential import LEADS_S, Sequential
from vidproc.video.sparse import Sparse

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["MediaLimits", "Source", "coverage", "decode", "decode_plainly", "decoded"]


def decode(
    task: Task, grids: Sequence[Grid], source: Source, limits: MediaLimits
) -> tuple[tuple[FrameBatch, ...], DecodeReport]:
    """One FrameBatch a grid, in order, and what was seen on the way.

    Damage inside the range is no error here: what decoded stands, and the report says what is
    missing. Raises Undecodable or Declined where the video cannot be opened any more, SourceChanged
    and TransientError where its source fails, LimitExceeded, and FastPathWrong where the whole video must be decoded
    plainly.
    """
    began = time.perf_counter()
    result = decoded(task, partial(Result, task, grids, limits), source)
    return result.batches(), replace(result.report(), seconds=time.perf_counter() - began)


def decoded(task: Task, blank: Callable[[], Result], source: Source) -> Result:
    """What comes of a task, as `decode` says. `blank` makes an empty result: each attempt begins with one."""
    result, closer = None, source.closer(task.video)
    with suppress(Declined) if closer else nullcontext():
        result = _result(task, blank, source)
    if closer and (result is None or result.error):
        result = _result(task, blank, closer)
    assert result is not None
    return result


def decode_plainly(
    task: Task, grids: Sequence[Grid], source: Source, limits: MediaLimits
) -> tuple[tuple[FrameBatch, ...], DecodeReport]:
    """The same as `decode`, without the fast path: everything is decoded in order, and chosen at the output."""
    began = time.perf_counter()
    result = _plainly(task, partial(Result, task, grids, limits), source)
    source.check_unchanged(task.video)
    return result.batches(), replace(result.report(), seconds=time.perf_counter() - began)


def _result(task: Task, blank: Callable[[], Result], source: Source) -> Result:
    info = task.info
    result = None
    if info.exact_timestamps and not info.plain and not info.counted:
        result = _fast(task, blank, source)
    if result is None:
        result = _plainly(task, blank, source)
    source.check_unchanged(task.video)
    return result


def _fast(task: Task, blank: Callable[[], Result], source: Source) -> Result | None:
    """None where anything was not as the container says."""
    result = blank()
    sweeps = result.sweeps()
    if len(sweeps) == 1:
        attempt = Sparse(result, sweeps[0])
        if _run_excerpt(attempt, task, source, result.limits):
            return result
        result = blank()
    elif not (task.info.edits or task.info.later_streams or task.info.parameters):
        if _run_in_one_opening(sweeps, result, task, source):
            return result
        result = blank()
    for sweep in sweeps:
        attempt = Sparse(result, sweep)
        _run(attempt, task, source, result.limits)
        if attempt.surprised:
            return None
    result.conclude()
    return result


def _plainly(task: Task, blank: Callable[[], Result], source: Source) -> Result:
    counted = False
    anew: set[int] = set()
    leads = list(LEADS_S if not task.info.plain else LEADS_S[1:])
    while True:
        result = blank()
        for sweep in result.sweeps():
            attempt = Sequential(result, sweep, leads[0], counted=counted, anew=anew)
            _run(attempt, task, source, result.limits)
            if attempt.found_no_entry or attempt.disordered or attempt.must_begin_anew_at is not None:
                break
        if attempt.disordered and not counted:
            counted = True
        elif attempt.must_begin_anew_at is not None:
            anew.add(attempt.must_begin_anew_at)
        elif attempt.found_no_entry and len(leads) > 1:
            del leads[0]
        else:
            break
    result.conclude()
    return result


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


# Reading


def _run(attempt: Pass, task: Task, source: Source, limits: MediaLimits) -> None:
    """Feeds the packets of a sweep, and what lies around it as far as needed."""
    info = task.info
    for enter_pts in dict.fromkeys((attempt.enter_pts, None)):
        stretch = 0 if attempt.leaps else _stretch_bytes(task, enter_pts)
        with open_container(task.video, source, limits, stretch_bytes=stretch, as_media=bool(info.edits)) as container:
            stream: Any = container.streams[info.stream_index]
            if stream.type != "video" or stream.codec_context is None:
                stream = choose_stream(task.video, container, limits)
            prepare(container, stream, limits)
            with watching_the_decoder() as log:
                attempt.begin(container, stream, log)
                packets = _from(attempt, container, stream, enter_pts)
                if packets is None:
                    continue  # what cannot be entered in its middle is read from its start
                if info.later_streams:
                    packets = chain(packets, _later_packets(attempt, task, source, limits))
                _feed(attempt, task, source, container, stream, packets)
            return


def _run_in_one_opening(sweeps: Sequence[Sweep], result: Result, task: Task, source: Source) -> bool:
    """Several sweeps the fast way, in order of time, through one container. False: something was not as the container
    says, or could not be entered; what `result` saw is then void."""
    with open_container(task.video, source, result.limits, stretch_bytes=0) as container:
        stream: Any = container.streams[task.info.stream_index]
        if stream.type != "video" or stream.codec_context is None:
            return False
        prepare(container, stream, result.limits)
        before: Sparse | None = None
        for sweep in sweeps:
            attempt = Sparse(result, sweep)
            with watching_the_decoder() as log:
                attempt.begin(container, stream, log)
                packets = _from(attempt, container, stream, attempt.enter_pts, after=before)
                if packets is None:
                    return False
                _feed(attempt, task, source, container, stream, packets)
            if attempt.surprised:
                return False
            before = attempt
    result.conclude()
    return True


def _later_packets(attempt: Pass, task: Task, source: Source, limits: MediaLimits) -> Iterator[Packet[Any]]:
    """Those of the streams in which the video goes on. Each is read by itself: where the streams meet, packets of
    both come mixed."""
    for index in task.info.later_streams:
        with open_container(task.video, source, limits) as container:
            attempt.goes_on_in(container, index)
            yield from (p for p in packets_of(container) if p.stream_index == index)


def _run_excerpt(attempt: Pass, task: Task, source: Source, limits: MediaLimits) -> bool:
    """The same with the index of the task's range alone, where a file has so large a one that it is worth it.
    False: it was not, or did not hold all that was needed; what `attempt` saw is then void."""
    info, result = task.info, attempt.result
    if not limits.ways.partial_index or "mp4" not in info.container or not is_worth_it(info.frames_promised):
        return False
    with source.excerpt(task.video, _stretch(task, attempt)) as excerpt:
        if excerpt is None:
            return False
        with (
            suppress(Declined),
            open_container(task.video, source, limits, excerpt=excerpt, as_media=bool(info.edits)) as container,
        ):
            stream: Any = container.streams[0]
            first_time = excerpt.first_time(stream)
            if first_time is None or stream.codec_context is None or stream.time_base != info.time_base:
                return False
            prepare(container, stream, limits)
            with watching_the_decoder() as log:
                attempt.begin(container, stream, log)
                packets = _from(attempt, container, stream, attempt.enter_pts)
                first = None if packets is None else next(packets, None)
                if packets is None or first is None:
                    return False
                if attempt.enter_pts is not None and (first.dts is None or first.dts < first_time):
                    return False
                _feed(attempt, task, source, container, stream, chain([first], packets), whole=excerpt.to_the_end)
            if attempt.surprised or (result.ended and not excerpt.to_the_end):
                return False
            result.conclude()
            return result.error is None  # what seems damaged is looked at the other way
    return False


def _feed(
    attempt: Pass,
    task: Task,
    source: Source,
    container: InputContainer,
    stream: VideoStream,
    packets: Iterator[Packet[Any]],
    *,
    whole: bool = True,
) -> None:
    """`whole`: where the packets end, the video does."""
    import av

    result = attempt.result
    if attempt.leaps:
        packets = _leaping(container, stream, packets, task.video.size_bytes)
    try:
        for packet in packets:
            result.bytes_read += packet.size
            if attempt.from_header and packet.is_keyframe and attempt.is_contradicted_by(packet):
                raise FastPathWrong(f"{task.video.uri}: its decoder parameters change on the way, and no index says so")
            attempt.feed(packet)
            if attempt.done:
                break
            if result.limits.until is not None and time.monotonic() > result.limits.until:
                raise LimitExceeded(f"{task.video.uri}: decoding it took longer than it may")
        else:
            result.ended = attempt.ended = True
    except av.error.FFmpegError as e:
        error = translate(task.video, e, source)
        if isinstance(error, Archived) or not isinstance(error, MediaError):  # it is not the file that is damaged
            raise error from None
        result.fail(f"reading stopped: {e.strerror}")
        result.ended = attempt.ended = True
    if whole or not attempt.ended:
        attempt.finish()


def _stretch(task: Task, attempt: Pass) -> Stretch:
    """What the pass reads, by the stream's clock."""
    info = task.info
    base, last = info.time_base, attempt.sweep.last
    start, end = attempt.enter_pts, None if last is None else last + 1
    if start is not None and start <= info.origin_pts:
        start = None  # as `_from` takes it
    return Stretch(
        info.stream_index,
        None if start is None else float(start * base),
        None if end is None else float(end * base),
        as_media=bool(info.edits),
    )


def _stretch_bytes(task: Task, enter_pts: int | None) -> int | None:
    """About how much a pass over the task's range reads, by the video's mean rate; None where it reads all."""
    info, r = task.info, task.range
    if info.edits or (r.end_pts is None and enter_pts is None):
        return None
    start_s = 0.0 if enter_pts is None else float((enter_pts - info.origin_pts) * info.time_base)
    end_s = info.duration_s if r.end_pts is None else float((r.end_pts - info.origin_pts) * info.time_base)
    share = (end_s - start_s) / info.duration_s if info.duration_s > 0 else 1.0
    return int(task.video.size_bytes * min(max(share, 0.0), 1.0))


def _from(
    attempt: Pass, container: InputContainer, stream: VideoStream, start: int | None, *, after: Pass | None = None
) -> Iterator[Packet[Any]] | None:
    """Packets in decoding order, beginning with one flagged as a keyframe and shown at or before `start`; None
    where seeking does not lead to one. Before a leap the decoder is shown how the stream begins, unless it saw that in
    the pass `after` which this one comes, through the same container."""
    import av

    info = attempt.result.info
    first_pts = info.origin_pts if not info.edits else None
    if after is None and (start is None or (first_pts is not None and start <= first_pts)):
        packets = packets_of(container, stream)
        if (first := next(packets, None)) is None:
            return packets
        attempt.began_with(first)
        return chain([first], packets)
    if start is None:
        return None  # only the first sweep begins with the stream
    if after is not None:
        attempt.goes_on_after(after)
    elif not attempt.prime(start):
        return None
    # Transport streams are entered at any packet, so the keyframe is behind wherever the seek led.
    for back in STEPS_BACK_S[info.container == "mpegts" :]:
        aim = start - int(back / info.time_base)
        try:
            container.seek(aim if first_pts is None else max(aim, first_pts), stream=stream)
            packets = packets_of(container, stream)
            first = None
            for packet in packets:
                if packet.is_keyframe:
                    first = packet
                    break
                attempt.decoder.parameters.skipped(packet)
        except av.error.FFmpegError:
            continue
        if first is not None and first.pts is not None and first.pts <= start:
            return chain([first], packets) if attempt.may_enter_at(first) else None
        if first_pts is not None and aim <= first_pts:
            break
    return None


def _leaping(
    container: InputContainer, stream: VideoStream, packets: Iterator[Packet[Any]], size_bytes: int
) -> Iterator[Packet[Any]]:
    """The packets, without what lies between two keyframes where that is much: an MP4's index tells the place of
    each. (Matroska's may list some keyframes only, and transport streams have none: those are read whole.)"""
    keys = [e for e in stream.index_entries if e.is_keyframe and e.pos + e.size <= size_bytes]
    ahead = {
        here.timestamp: there for here, there in pairwise(keys) if there.pos - here.pos - here.size > sparse.LEAP_BYTES
    }
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
