"""A clip of which all frames are encoded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidproc.cut.reading import Upright, frames_between, has_plain_times
from vidproc.cut.report import ClipReport
from vidproc.cut.sound import Sound
from vidproc.errors import Undecodable
from vidproc.media import Clip, FrameSize, Grid, Task, VideoInfo
from vidproc.video.container import MediaLimits, Source, open_container
from vidproc.video.decode import decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from av import VideoFrame

    Draw = Callable[[float, VideoFrame], VideoFrame]
    """Changes an upright frame that is shown at a moment, in seconds on the video's clock."""

ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"crf": "18", "preset": "medium"}),
    "hevc": ("libx265", {"crf": "20", "preset": "medium", "x265-params": "log-level=none"}),
    "vp9": ("libvpx-vp9", {"crf": "24", "b": "0", "cpu-used": "4", "row-mt": "1"}),
    "av1": ("libsvtav1", {"crf": "28", "preset": "8"}),
    "mpeg4": ("mpeg4", {"qmin": "2", "qmax": "3"}),
}
"""By the name that users give. libx264 and libx265 are GPL; the others are BSD or LGPL."""
EVEN_SIDES = frozenset({"libx264", "libx265", "libsvtav1"})
"""Encoders that take frames of even width and height only; an odd side is made one pixel shorter."""
FRAMES_AT_ONCE = 64
"""Decoded at once where the source's own times cannot be used, so that memory stays bounded."""


def quiet_encoders() -> None:
    """SVT-AV1 prints what it is for each file, unless the environment says otherwise."""
    os.environ.setdefault("SVT_LOG", "1")


def encode_clip(
    info: VideoInfo, source: Source, limits: MediaLimits, start: int, end: int, out: Path,
    *, codec: str = "h264", why: str = "", draw: Draw | None = None,
) -> ClipReport:  # fmt: skip
    """Encode all frames shown in [start, end), ticks of the video's clock, to `out`. Frames are turned upright.

    Raises Undecodable where nothing is shown there.
    """
    import av
    from av.video.frame import PictureType

    name, options = ENCODERS[codec]
    rate = Fraction(info.fps or 25).limit_denominator(1001)
    frames = shown_frames(info, source, limits, start, end)
    first = next(frames, None)
    if first is None:
        raise Undecodable(f"{info.video.uri}: nothing is shown from {info.pts_to_seconds(start):g} s on")
    zero, base, count, last = first[0], info.time_base, 0, first[0]
    with (
        av.open(str(out), "w", options={"movflags": "+faststart"} if out.suffix == ".mp4" else {}) as target,
        open_container(info.video, source, limits) as container,
    ):
        stream: Any = target.add_stream(name, rate=rate, options=options)
        odd = int(name in EVEN_SIDES)
        stream.width, stream.height = (max(2, s - s % 2 * odd) for s in (first[1].width, first[1].height))
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = base
        for each in ("color_range", "color_primaries", "color_trc", "colorspace"):
            setattr(stream.codec_context, each, getattr(first[1], each))
        sound = Sound(container, target, zero * base, end * base)
        for pts, frame in chain([first], frames):
            if draw is not None:
                frame = draw(info.pts_to_seconds(pts), frame)
            frame.pts, frame.time_base, frame.pict_type = pts - zero, base, PictureType.NONE
            for packet in stream.encode(frame):
                target.mux(packet)
            sound.until(pts * base)
            last, count = pts, count + 1
        for packet in stream.encode(None):
            target.mux(packet)
        sound.until(None)
    usual = round(1 / rate / base)
    ended = info.pts_to_seconds(end if info.held else min(end, last + usual))
    return ClipReport(info.pts_to_seconds(zero), ended, "encode", why, encoded=count, encoders=(name,))


def shown_frames(
    info: VideoInfo, source: Source, limits: MediaLimits, start: int, end: int
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield the frames shown in [start, end) with their times, upright; the first is the one on screen at `start`."""
    if not has_plain_times(info):
        yield from _sampled(info, source, limits, start, end)
        return
    held: tuple[int, VideoFrame] | None = None
    upright = Upright(info)
    entry = max((k for k in info.keyframe_pts if k <= start), default=info.keyframe_pts[0])
    for frame in frames_between(info, source, limits, entry, end):
        pts = frame.pts or 0
        if pts <= start:
            held = pts, frame
            continue
        if held is not None:
            yield held[0], upright(held[1])
            held = None
        yield pts, upright(frame)
    if held is not None:
        yield held[0], upright(held[1])


def _sampled(
    info: VideoInfo, source: Source, limits: MediaLimits, start: int, end: int
) -> Iterator[tuple[int, VideoFrame]]:
    """The same for videos whose own times cannot be used: frames at the video's average rate, on the repaired clock."""
    from av import VideoFrame

    grid = Grid(fps=Fraction(info.fps or 25).limit_denominator(1001), size=FrameSize())
    step = max(1, int(FRAMES_AT_ONCE / grid.fps / info.time_base))
    period = 1 / grid.fps / info.time_base
    start = info.origin_pts + ceil((start - info.origin_pts) // period * period)  # the sample on screen at the start
    for at in range(start, end, step):
        clip = Clip(at, min(at + step, end))
        (batch,), _ = decode(Task(info, (clip,), 0, 1, "", 0), (grid,), source, limits)
        for time_s, pixels in zip(batch.time_s, batch.pixels, strict=True):
            yield info.origin_pts + round(Fraction(time_s) / info.time_base), VideoFrame.from_ndarray(pixels, "rgb24")
