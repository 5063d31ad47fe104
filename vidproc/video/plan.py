"""Cuts videos into tasks: pure functions from what is known of a video to what is done in one piece.

A cut lies at a keyframe, so that neighbours decode nothing twice. Where the sampled frames between
two keyframes are too many for one worker's memory, it lies between two samples instead: both sides
are exact, and the second decodes its way there again.
"""

from __future__ import annotations

import io
import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vidproc.errors import ConfigError
from vidproc.media import Clip, Edit, FrameSize, Grid, Task, Video, VideoInfo
from vidproc.progress import spell
from vidproc.secrets import redact_values
from vidproc.settings import CutSettings
from vidproc.video.archive import Skipped

if TYPE_CHECKING:
    from vidproc.storage import Storage


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


READ_FROM_THE_START_CLIP_S = 300.0
"""Shortest clip of a video whose clock is repaired, or that is decoded plainly, seconds: its tasks read, but do not
decode, all that lies before them."""


def _clip_bounds(info: VideoInfo, clip_seconds: float) -> list[int]:
    """The keyframes nearest to the multiples of `clip_seconds`, without the video's two ends."""
    if info.plain or not info.exact_timestamps:
        # Each task reads from the start, and decodes from some seconds before its own range.
        step = int(max(clip_seconds, READ_FROM_THE_START_CLIP_S) / info.time_base)
        return list(range(info.origin_pts + step, info.origin_pts + int(info.duration_s / info.time_base), step))
    length = Fraction(clip_seconds).limit_denominator(1_000_000) / info.time_base
    end = info.origin_pts + round(info.duration_s / info.time_base)
    nearest: dict[int, int] = {}
    for keyframe in info.keyframe_pts:
        n = round((keyframe - info.origin_pts) / length)
        aim = info.origin_pts + n * length
        if n < 1 or aim >= end or not info.origin_pts < keyframe < end:
            continue
        if n not in nearest or abs(keyframe - aim) < abs(nearest[n] - aim):
            nearest[n] = keyframe
    return sorted(nearest.values())


def _split_long(
    info: VideoInfo, bounds: list[int], rate: float, settings: CutSettings, grids: Sequence[Grid]
) -> list[int]:
    """Cuts between samples inside any clip whose frames exceed the hard limit."""
    if rate <= 0:
        return bounds
    end = info.origin_pts + round(info.duration_s / info.time_base)
    most = max(int(settings.hard_bytes / rate / info.time_base), 1)  # ticks
    periods = [1 / (g.fps * info.time_base) for g in grids if not g.keyframes_only]
    if not periods:
        return bounds
    step = max(periods)
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


def task_seconds(task: Task) -> float:
    """Of video in a task, by the container's word."""
    info, r = task.info, task.range
    start = 0.0 if r.start_pts is None else info.pts_to_seconds(r.start_pts)
    end = info.duration_s if r.end_pts is None else info.pts_to_seconds(r.end_pts)
    return max(0.0, end - start)


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
        return len(info.keyframe_pts) / max(info.duration_s, 1.0)
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

    def summary(self, examples: Iterable[str] = ()) -> str:
        """For people: a few lines of plain text. `examples`: of what is declined."""
        lines = [
            f"{self.videos:,} videos, {spell(self.seconds_of_video)}, {spell_bytes(self.bytes_of_video)}: "
            f"{self.clips:,} clips in {self.tasks:,} tasks",
            f"{self.samples:,} frames to sample ({spell_bytes(self.sampled_bytes)}), "
            f"at most {spell_bytes(self.largest_task_bytes)} in one task",
        ]
        if self.codecs:
            lines.append("codecs: " + ", ".join(f"{name} {n:,}" for name, n in self.codecs.most_common()))
        if self.known:
            lines.append(f"already in the lake as they are, or as declined: {self.known:,}")
        if self.scanned:
            lines.append(f"without an index: {self.scanned:,} (their packets were read once)")
        if self.declined:
            lines.append("declined: " + ", ".join(f"{name} {n:,}" for name, n in sorted(self.declined.items())))
            lines += [f"  for example: {example}" for example in examples]
        if self.predicted_seconds is not None:
            lines.append(f"predicted time: {spell(self.predicted_seconds)}")
        if self.predicted_memory_bytes is not None:
            lines.append(f"predicted memory: {spell_bytes(self.predicted_memory_bytes)}")
        if self.predicted_output_bytes is not None:
            lines.append(f"predicted output: {spell_bytes(self.predicted_output_bytes)}")
        return "\n".join(lines)


def spell_bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:,.3g} {unit}"
        n /= 1000
    return f"{n:,.3g} TB"


# A saved plan: parts of some thousand objects, and the summary last, so that a plan without one is
# seen to be unfinished. What could not be probed is in it too, and why; a run looks at that itself. Tasks
# are not: they follow from what is known of a video and from how the run cuts.

VIDEOS_A_PART = 5_000
FORMAT = 3


class PlanWriter:
    """Writes a plan while it is made; holds one part of it.

    with PlanWriter(storage, "plans/tonight", plan, {"archive": uri}) as writer:
        writer.add(info)

    `of`: what it is a plan of; whoever loads it must mean the same.
    """

    def __init__(self, storage: Storage, prefix: str, plan: Plan, of: Mapping[str, Any]) -> None:
        self.storage, self.prefix, self.plan, self.of = storage, prefix.strip("/"), plan, of
        self._rows: list[dict[str, Any]] = []
        self._parts = 0

    def add(self, item: VideoInfo | Video | Skipped, error_class: str | None = None, error: str | None = None) -> None:
        """With a class and a sentence for a video that could not be probed."""
        row = _row(item) | ({"error_class": error_class, "error": error} if error_class else {})
        self._rows.append(row | {"error": redact_values(row.get("error"))})
        if len(self._rows) == VIDEOS_A_PART:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._rows:
            return
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self._rows, schema=_schema()), out, compression="zstd")
        self.storage.put(f"{self.prefix}/part-{self._parts:05d}.parquet", out.getvalue())
        self._parts += 1
        self._rows = []

    def _sum_up(self, **rest: Any) -> None:
        summary = {"format": FORMAT, "of": self.of, **rest}
        self.storage.put(f"{self.prefix}/plan.json", json.dumps(summary, indent=1).encode())

    def __enter__(self) -> Self:
        self._sum_up()  # a place that cannot be written is refused at once, and an older plan there is none any more
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            return
        self._flush()
        self._sum_up(parts=self._parts, plan={f.name: getattr(self.plan, f.name) for f in fields(self.plan)})


def load_plan(
    storage: Storage, prefix: str, of: Mapping[str, Any]
) -> tuple[Plan, Iterator[VideoInfo | Video | Skipped]]:
    """The summary, and one part at a time what was listed: as VideoInfo what was probed. Raises ConfigError
    where there is no finished plan, or one of something else."""
    prefix = prefix.strip("/")
    there = storage.exists(f"{prefix}/plan.json")
    summary = json.loads(storage.get(f"{prefix}/plan.json")) if there else {}
    if there and summary["format"] != FORMAT:
        raise ConfigError(f"the plan at {storage.uri_of(prefix)} was written by another version: make it again")
    if "plan" not in summary:
        raise ConfigError(f"no finished plan at {storage.uri_of(prefix)}: make one with `vidproc plan --save`")
    for name, value in of.items():
        if summary["of"].get(name) != value:
            raise ConfigError(
                f"the plan at {storage.uri_of(prefix)} is of {name} {summary['of'].get(name)!r}, and the job's is "
                f"{value!r}: make a plan of it"
            )
    saved = summary["plan"]
    plan = Plan(**saved | {name: Counter(saved[name]) for name in ("codecs", "declined")})
    return plan, _parts(storage, prefix, summary["parts"])


def _parts(storage: Storage, prefix: str, count: int) -> Iterator[VideoInfo | Video | Skipped]:
    import pyarrow.parquet as pq

    for number in range(count):
        file = pq.ParquetFile(io.BytesIO(storage.get(f"{prefix}/part-{number:05d}.parquet")))
        for batch in file.iter_batches(batch_size=64):
            for row in batch.to_pylist():
                yield _unrow(row)


_VIDEO = ("uri", "size_bytes", "content_id", "modified_at")
_INFO = tuple(name for name in VideoInfo.__slots__ if name != "video")


def _schema() -> Any:
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("uri", pa.string()),
            ("raw_uri", pa.binary()),
            ("size_bytes", pa.int64()),
            ("content_id", pa.string()),
            ("modified_at", moment),
            ("container", pa.string()),
            ("codec", pa.string()),
            ("pixel_format", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("rotation", pa.int32()),
            ("fps", pa.float64()),
            ("time_base", pa.string()),
            ("origin_pts", pa.int64()),
            ("duration_s", pa.float64()),
            ("frames_promised", pa.int64()),
            ("keyframe_pts", pa.list_(pa.int64())),
            ("recorded_at", moment),
            ("stream_index", pa.int32()),
            ("scanned", pa.bool_()),
            ("warnings", pa.list_(pa.string())),
            ("mirrored", pa.bool_()),
            ("exact_timestamps", pa.bool_()),
            ("plain", pa.bool_()),
            ("counted", pa.bool_()),
            ("held", pa.bool_()),
            ("later_streams", pa.list_(pa.int32())),
            ("parameters", pa.list_(pa.struct([("pts", pa.int64()), ("data", pa.binary())]))),
            (
                "edits",
                pa.list_(
                    pa.struct(
                        [("start", pa.int64()), ("media", pa.int64()), ("length", pa.int64()), ("still", pa.bool_())]
                    )
                ),
            ),
            ("error_class", pa.string()),
            ("error", pa.string()),
        ]
    )


def _row(item: VideoInfo | Video | Skipped) -> dict[str, Any]:
    if isinstance(item, Skipped):
        raw = item.uri.encode("utf-8", "surrogateescape")  # Parquet's strings are UTF-8, and names need not be
        known = {} if item.video is None else {name: getattr(item.video, name) for name in _VIDEO}
        told = {"error_class": item.error_class, "error": item.reason}
        return known | {"uri": raw.decode("utf-8", "backslashreplace"), "raw_uri": raw} | told
    video = item.video if isinstance(item, VideoInfo) else item
    row = {name: getattr(video, name) for name in _VIDEO}
    if isinstance(item, VideoInfo):
        row |= {name: getattr(item, name) for name in _INFO} | {"time_base": str(item.time_base)}
        row["edits"] = [asdict(edit) for edit in item.edits]
        row["parameters"] = [{"pts": pts, "data": data} for pts, data in item.parameters]
    return row


def _unrow(row: dict[str, Any]) -> VideoInfo | Video | Skipped:
    video = Video(**{name: row[name] for name in _VIDEO})
    if row["raw_uri"] is not None:
        uri = row["raw_uri"].decode("utf-8", "surrogateescape")
        return Skipped(uri, row["error"], row["error_class"], video if row["content_id"] is not None else None)
    if row["time_base"] is None:
        return video
    known: dict[str, Any] = {name: tuple(v) if isinstance(v := row[name], list) else v for name in _INFO}
    known["edits"] = tuple(Edit(**edit) for edit in row["edits"])
    known["parameters"] = tuple((p["pts"], p["data"]) for p in row["parameters"])
    return VideoInfo(video=video, **known | {"time_base": Fraction(row["time_base"])})
