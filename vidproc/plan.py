"""Cuts videos into tasks: pure functions from what is known of a video to what is done in one piece.

A cut lies at a keyframe, so that neighbours decode nothing twice. Where the sampled frames between
two keyframes are too many for one worker's memory, it lies between two samples instead: both sides
are exact, and the second decodes its way there again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from vidproc.media import Clip, FrameSize, Grid, Task, VideoInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class CutSettings:
    """How a video is cut. Rows do not depend on it."""

    clip_seconds: float = 30.0
    clips_per_task: int = 2
    soft_bytes: int = 256 << 20
    """Of sampled frames in one task: above it a task holds fewer clips."""
    hard_bytes: int = 1 << 30
    """Above it even what lies between two keyframes is cut."""

    def __post_init__(self) -> None:
        if self.clip_seconds <= 0 or self.clips_per_task < 1 or not 0 < self.soft_bytes <= self.hard_bytes:
            raise ValueError(f"clips need a length, tasks a clip, and the soft limit lies under the hard one: {self}")


def cut(info: VideoInfo, settings: CutSettings, grids: Sequence[Grid], pipeline_id: str) -> tuple[Task, ...]:
    """The tasks of one video, in order of time. The first begins with the very first frame and the
    last ends with the very last, whatever the container promised."""
    bounds = _clip_bounds(info, settings.clip_seconds)
    rate = bytes_per_second(info, grids)
    seconds = float(info.time_base)
    bounds = _split_long(info, bounds, rate, settings, grids)
    edges = [info.origin_pts, *bounds, info.origin_pts + round(info.duration_s / seconds)]
    groups: list[list[int]] = []
    size = 0.0
    for i in range(len(edges) - 1):
        weight = max(0, edges[i + 1] - edges[i]) * seconds * rate
        if groups and len(groups[-1]) < settings.clips_per_task and size + weight <= settings.soft_bytes:
            groups[-1].append(i)
            size += weight
        else:
            groups.append([i])
            size = weight
    starts: list[int | None] = [None, *bounds]
    ends: list[int | None] = [*bounds, None]
    return tuple(
        Task(
            info=_near(info, starts[group[0]], ends[group[-1]]),
            clips=tuple(Clip(starts[i], ends[i]) for i in group),
            index=index,
            count=len(groups),
            pipeline_id=pipeline_id,
            bytes=int((edges[group[-1] + 1] - edges[group[0]]) * seconds * rate) + _beyond(info, grids),
        )
        for index, group in enumerate(groups)
    )


def _clip_bounds(info: VideoInfo, clip_seconds: float) -> list[int]:
    """The keyframes nearest to the multiples of `clip_seconds`, without the video's two ends."""
    if not info.exact_timestamps:
        return []
    keyframes = [k for k in info.keyframe_pts if k > info.origin_pts]
    length = Fraction(clip_seconds).limit_denominator(1_000_000) / info.time_base
    end = info.origin_pts + round(info.duration_s / info.time_base)
    bounds: list[int] = []
    n = 1
    while keyframes and info.origin_pts + n * length < end:
        aim = info.origin_pts + n * length
        place = bisect_left(keyframes, aim)
        near = [k for k in keyframes[max(place - 1, 0) : place + 1] if k < end]
        if near:
            bound = min(near, key=lambda k: abs(k - aim))
            if not bounds or bound > bounds[-1]:
                bounds.append(bound)
        # Long groups of pictures: go on behind the last cut, not multiple by multiple.
        n = max(n + 1, int((bounds[-1] - info.origin_pts) / length) + 1 if bounds else 0)
    return bounds


def _split_long(
    info: VideoInfo, bounds: list[int], rate: float, settings: CutSettings, grids: Sequence[Grid]
) -> list[int]:
    """Cuts between samples inside any clip whose frames exceed the hard limit."""
    if rate <= 0 or not info.exact_timestamps:
        return bounds
    end = info.origin_pts + round(info.duration_s / info.time_base)
    most = max(int(settings.hard_bytes / rate / info.time_base), 1)  # ticks
    periods = [1 / (g.fps * info.time_base) for g in grids if not g.keyframes_only]
    step = max(periods, default=Fraction(1))
    out: list[int] = []
    for start, stop in zip([info.origin_pts, *bounds], [*bounds, end], strict=True):
        at = start
        while stop - at > most:
            k = max(int((at + most - info.origin_pts) / step), int((at - info.origin_pts) / step) + 1)
            at = info.origin_pts + int(k * step)
            if at >= stop:
                break
            out.append(at)
        if stop != end:
            out.append(stop)
    return out


def _near(info: VideoInfo, start: int | None, end: int | None) -> VideoInfo:
    """The same without the keyframes of other tasks: ten hours have too many to travel with each."""
    keys = info.keyframe_pts
    first = 0 if start is None else max(bisect_right(keys, start) - 1, 0)
    last = len(keys) if end is None else bisect_left(keys, end)
    return replace(info, keyframe_pts=keys[first : max(last, first + 1)])


# Predictions


def frame_bytes(size: FrameSize, info: VideoInfo) -> int:
    """Of one frame as the model gets it."""
    if size.mode == "native":
        return 3 * info.width * info.height
    if size.mode == "fit":
        short, long = sorted((info.width, info.height))
        scale = min(size.height / max(short, 1), (size.width or 1 << 30) / max(long, 1))
        return int(3 * short * scale * long * scale)
    return 3 * size.width * size.height


def samples_per_second(info: VideoInfo, grid: Grid) -> float:
    if grid.keyframes_only:
        return len(info.keyframe_pts) / info.duration_s if info.duration_s > 0 else 1.0
    return float(grid.fps)


def bytes_per_second(info: VideoInfo, grids: Sequence[Grid]) -> float:
    """Of sampled frames, over all grids."""
    return sum(samples_per_second(info, g) * frame_bytes(g.size, info) for g in grids)


def _beyond(info: VideoInfo, grids: Sequence[Grid]) -> int:
    """Frames which the last windows of a task need from behind its end."""
    return sum((g.window - 1) * frame_bytes(g.size, info) for g in grids if not g.keyframes_only)


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a run would do, summed up: filled video by video, so it never holds them."""

    videos: int = 0
    tasks: int = 0
    clips: int = 0
    seconds_of_video: float = 0.0
    bytes_of_video: int = 0
    samples: int = 0
    """Frames to be sampled, over all grids."""
    sampled_bytes: int = 0
    largest_task_bytes: int = 0
    scanned: int = 0
    """Videos without an index that could be believed."""
    codecs: Counter[str] = field(default_factory=Counter)
    declined: Counter[str] = field(default_factory=Counter)
    """By class."""
    known: int = 0
    """Videos that the lake holds already, unchanged."""
    predicted_seconds: float | None = None
    predicted_memory_bytes: int | None = None
    predicted_output_bytes: int | None = None
    """From a calibration; None without one."""

    def add(self, info: VideoInfo, tasks: Iterable[Task], grids: Sequence[Grid]) -> None:
        self.videos += 1
        self.codecs[info.codec] += 1
        self.scanned += info.scanned
        self.seconds_of_video += info.duration_s
        self.bytes_of_video += info.video.size_bytes
        for grid in grids:
            n = round(info.duration_s * samples_per_second(info, grid))
            self.samples += n
            self.sampled_bytes += n * frame_bytes(grid.size, info)
        for task in tasks:
            self.tasks += 1
            self.clips += len(task.clips)
            self.largest_task_bytes = max(self.largest_task_bytes, task.bytes)

    def decline(self, error_class: str) -> None:
        self.declined[error_class] += 1

    def summary(self) -> str:
        """For people: a few lines of plain text."""
        lines = [
            f"{self.videos:,} videos, {self.seconds_of_video / 3600:,.1f} h, {self.bytes_of_video / 1e9:,.2f} GB: "
            f"{self.clips:,} clips in {self.tasks:,} tasks",
            f"{self.samples:,} frames to sample ({self.sampled_bytes / 1e9:,.2f} GB), "
            f"at most {self.largest_task_bytes / 1e6:,.0f} MB in one task",
        ]
        if self.codecs:
            lines.append("codecs: " + ", ".join(f"{name} {n:,}" for name, n in self.codecs.most_common()))
        if self.known:
            lines.append(f"already indexed and unchanged: {self.known:,}")
        if self.scanned:
            lines.append(f"without an index: {self.scanned:,} (their packets were read once)")
        if self.declined:
            lines.append("declined: " + ", ".join(f"{name} {n:,}" for name, n in sorted(self.declined.items())))
        if self.predicted_seconds is not None:
            lines.append(f"predicted: {_spell(self.predicted_seconds)}")
        if self.predicted_memory_bytes is not None:
            lines.append(f"predicted memory: {self.predicted_memory_bytes / 1e9:,.1f} GB")
        if self.predicted_output_bytes is not None:
            lines.append(f"predicted output: {self.predicted_output_bytes / 1e9:,.3f} GB")
        return "\n".join(lines)


def _spell(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
