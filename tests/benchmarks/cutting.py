"""Exact cuts against what FFmpeg's libraries do by themselves: copying the packets, and encoding all frames again."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from tests.benchmarks import videos
from tests.benchmarks.measure import Row, Settings
from vidproc.ask.scenes import Scene
from vidproc.cut.export import prepare
from vidproc.cut.export import run as run_export
from vidproc.cut.plan import Widening, plan_clips
from vidproc.cut.work import ClipSettings, ClipWork
from vidproc.media import Video
from vidproc.settings import Execution
from vidproc.storage import StorageOptions

GOP = 50


def export(settings: Settings) -> list[Row]:
    """`vidproc export --mode exact` of minute-long clips, by turns with copying and with encoding."""
    seconds, starts = (5.0, (3.3,)) if settings.quick else (60.0, (13.3, 97.7))
    source = videos.drawn(10 if settings.quick else 180, GOP)
    folder = Path(tempfile.mkdtemp(prefix="export-", dir=videos.cache()))
    ways: dict[str, Callable[[Path, float], None]] = {
        "exact": lambda out, start: _exact(source, out, start, seconds),
        "copied": lambda out, start: _copied(source, out, start, seconds),
        "encoded": lambda out, start: _encoded(source, out, start, seconds),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    frames = 0
    try:
        for turn in range(settings.repetitions):
            for start in starts:
                for name, make in ways.items():
                    (out := folder / f"{name}-{turn}-{start:g}").mkdir()
                    began = time.perf_counter()
                    make(out, start)
                    took[name].append(time.perf_counter() - began)
                if turn == 0:
                    frames += _check(source, folder / f"exact-{turn}-{start:g}", start, seconds)
    finally:
        shutil.rmtree(folder)
    middle = {name: statistics.median(values) for name, values in took.items()}
    copy, encode = middle["copied"] / middle["exact"], middle["encoded"] / middle["exact"]
    row = Row(
        name="export", what=f"exact cuts of {seconds:g} s: speed of copying, times that of encoding",
        target=">= 0.8 of copying, >= 5 x encoding",
    )  # fmt: skip
    row.value, row.met = f"{copy:.2f}, {encode:.1f} x", None if settings.quick else copy >= 0.8 and encode >= 5
    row.rows = frames
    row.notes += [
        f"median seconds a clip: {', '.join(f'{name} {value:.2f}' for name, value in middle.items())}",
        f"{frames} frames compared with the source's: all there, those between the edges bit for bit",
        "the exact cut is read again, checked, hashed and described; copying and encoding are not",
    ]
    row.figures = took
    return [row]


def _exact(source: Path, out: Path, start: float, seconds: float) -> None:
    stat = source.stat()
    video = Video(str(source), stat.st_size, f"{stat.st_mtime_ns}:{stat.st_size}")
    scene = Scene(video=video, listed_uri=video.uri, time_s=start, start_s=start, end_s=start + seconds)
    how, options = ClipSettings(), StorageOptions()
    [clip] = plan_clips([scene], Widening(before_s=0, after_s=0))
    planned = prepare([ClipWork(clip=clip, how=how)], str(out), how, options)
    summary = run_export(planned, Execution(executor="inline"))
    if summary.modes != {"exact": 1}:
        raise RuntimeError(f"not cut exactly: {summary}")


def _copied(source: Path, out: Path, start: float, seconds: float) -> None:
    """What `ffmpeg -ss START -t SECONDS -i SOURCE -c copy` does."""
    with av.open(str(source)) as container, av.open(str(out / "clip.mp4"), "w") as target:
        stream: Any = container.streams.video[0]
        copy = target.add_stream_from_template(stream)
        container.seek(int(start / stream.time_base), stream=stream)
        zero: int | None = None
        for packet in container.demux(stream):
            if packet.dts is None:
                continue
            if zero is None:
                zero = packet.pts
            if packet.dts * stream.time_base >= start + seconds:
                break
            packet.pts, packet.dts, packet.stream = packet.pts - zero, packet.dts - zero, copy
            target.mux(packet)


def _encoded(source: Path, out: Path, start: float, seconds: float) -> None:
    """All frames, with the options by which exact clips are encoded where they cannot be copied."""
    from vidproc.cut.encode import ENCODERS

    name, options = ENCODERS["h264"]
    with av.open(str(source)) as container, av.open(str(out / "clip.mp4"), "w") as target:
        stream: Any = container.streams.video[0]
        made: Any = target.add_stream(name, rate=stream.average_rate, options=options)
        made.width, made.height, made.pix_fmt = stream.width, stream.height, "yuv420p"
        container.seek(int(start / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.time >= start + seconds:
                break
            if frame.time >= start:
                frame.pict_type = 0
                target.mux(made.encode(frame))
        target.mux(made.encode(None))


def _check(source: Path, out: Path, start: float, seconds: float) -> int:
    """Return the number of frames. Raises RuntimeError unless the clip shows the source's, in the middle the same
    pixels."""
    [clip] = out.glob("*.mp4")
    first, last = int(start * videos.FPS), -int(-(start + seconds) * videos.FPS // 1)
    edges = {first // GOP, (last - 1) // GOP}
    with av.open(str(source)) as whole, av.open(str(clip)) as cut:
        stream: Any = whole.streams.video[0]
        whole.seek(int(Fraction(first, videos.FPS) / stream.time_base), stream=stream)
        shown = (f for f in whole.decode(stream) if round(f.time * videos.FPS) >= first)
        count = 0
        for frame, wanted in zip(cut.decode(video=0), shown, strict=False):
            number = round(wanted.time * videos.FPS)
            if number // GOP not in edges and bytes(frame.planes[0]) != bytes(wanted.planes[0]):
                raise RuntimeError(f"frame {number} differs from the source's")
            count += 1
    if count != last - first:
        raise RuntimeError(f"{count} frames, not {last - first}")
    return count
