"""`vidproc plan`: what is in the archive, what is due, and what indexing it would take.

Predictions come from a trial on the user's own files: some tasks, spread over the archive, are
decoded and inferred for about 30 s, and their cost a second of video is carried over to the rest.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow.parquet as pq

from vidproc.archive import Skipped
from vidproc.config import Job
from vidproc.errors import ConfigError
from vidproc.media import Task, VideoInfo
from vidproc.pipeline import DecodedTask, Infer, Pipeline, make_pipeline, routes
from vidproc.plan import CutSettings, cut
from vidproc.progress import hms
from vidproc.run import Listing, as_video, is_due, make_executor, storage_options
from vidproc.runtime.executor import Limits, PoolSize, Unit, UnitEnd
from vidproc.step import AnyStep
from vidproc.storage import open_storage
from vidproc.tables.lake import MARKER, Committed, Lake
from vidproc.tables.publish import RunInfo

TRIAL_TASKS = 24
"""Tasks kept for the trial, taken evenly from all that are due (reservoir by stride)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What the trial cost."""

    video_s: float
    wall_s: float
    cpu_s: Mapping[str, float]
    """Seconds inside each step."""
    staged_bytes: int
    frames: int
    largest_task_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What `vidproc plan` tells. Predictions are None without a trial."""

    archive: str
    objects: int
    bytes: int
    videos: int
    video_s: float
    codecs: Mapping[str, int]
    unreadable: Mapping[str, int]
    """Objects by the class of what is wrong with them."""
    unreadable_examples: Mapping[str, str]
    current: int
    """Videos that the lake already has."""
    due: int
    due_video_s: float
    clips: int
    tasks: int
    models: tuple[str, ...]
    pipeline_id: str
    workers: int
    predicted_s: float | None
    predicted_memory_bytes: int | None
    predicted_output_bytes: int | None
    trial: Trial | None
    saved: str | None = None

    def text(self) -> str:
        lines = [
            f"archive   {self.archive}",
            f"          {self.objects:,} objects, {size(self.bytes)}; {self.videos:,} videos, {hours(self.video_s)}",
        ]
        if self.codecs:
            lines.append("codecs    " + ", ".join(f"{n:,} {c}" for c, n in _by_count(self.codecs)))
        for kind, number in _by_count(self.unreadable):
            lines.append(f"declined  {number:,} {kind}, for example {self.unreadable_examples[kind]}")
        lines += [
            f"models    {', '.join(self.models)}",
            f"due       {self.due:,} videos, {hours(self.due_video_s)}: {self.tasks:,} tasks of {self.clips:,} clips"
            + (f"; {self.current:,} videos are indexed already" if self.current else ""),
        ]
        if self.trial and self.predicted_s is not None:
            t = self.trial
            lines += [
                f"predicted {hms(self.predicted_s)} with {self.workers} workers on this machine, "
                f"{size(self.predicted_memory_bytes or 0)} of memory, "
                f"{size(self.predicted_output_bytes or 0)} of tables",
                f"          from a trial: {t.frames:,} frames of {hms(t.video_s)} of your video in {t.wall_s:.1f} s, "
                + ", ".join(f"{s} {v:.1f} s" for s, v in t.cpu_s.items()),
            ]
        elif self.due:
            lines.append("predicted nothing: no trial was run (--calibrate)")
        if self.saved:
            lines.append(f"saved     {self.saved}")
        return "\n".join(lines)


def size(n: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if n < 1024 or unit == "TiB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    raise AssertionError


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.2f} h" if seconds >= 360 else f"{seconds:.1f} s"


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))


class _Rehearsal:
    """Runs the models on a task as the real step does, and weighs the rows instead of staging them."""

    name = "infer"
    stateful = True

    def __init__(self, infer: Infer) -> None:
        self._infer, self.needs = infer, infer.needs

    def setup(self) -> None:
        self._infer.setup()

    def __call__(self, decoded: DecodedTask) -> tuple[int, int]:
        """-> (bytes of the rows as Parquet, frames sampled)."""
        import pyarrow as pa

        total = 0
        for table in self._infer.rows(decoded).values():
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd")
            total += sink.tell()
        return total, decoded.report.frames_sampled


@dataclass(slots=True, eq=False)
class _Survey:
    """Feed of the probing, and what it finds (mutable)."""

    listing: Listing
    committed: Committed | None
    pipeline: Pipeline
    cut: CutSettings
    limit: int | None
    objects: int = 0
    bytes: int = 0
    current: int = 0
    clips: int = 0
    tasks: int = 0
    video_s: float = 0.0
    due_video_s: float = 0.0
    videos: int = 0
    due: int = 0
    probing: int = 0
    codecs: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    trial: deque[Task] = field(default_factory=lambda: deque(maxlen=TRIAL_TASKS))
    every: int = 1

    @property
    def exhausted(self) -> bool:
        return self.listing.done and not self.probing

    def take(self, routes: frozenset[str]) -> Unit | None:
        while True:
            if self.limit is not None and self.objects >= self.limit:
                self.listing.done = True
                self.listing.close()
                return None
            item = self.listing.take()
            if item is None:
                return None
            self.objects += 1
            video = as_video(item)
            self.bytes += video.size_bytes
            if isinstance(item, Skipped):
                self._decline(item.error_class, f"{video.uri}: {item.reason}")
                continue
            if self.committed is not None and not is_due(
                video, self.committed.get(video.video_id), self.pipeline.pipeline_id
            ):
                self.current += 1
                continue
            self.probing += 1
            return Unit(video.video_id, video, "probe")

    def _decline(self, kind: str, example: str) -> None:
        self.unreadable[kind] += 1
        self.examples.setdefault(kind, example)

    def ended(self, end: UnitEnd) -> tuple[Task, ...]:
        self.probing -= 1
        if end.failure is not None:
            self._decline(end.failure.error_class, end.failure.error)
            return ()
        info: VideoInfo = end.result
        tasks = cut(info, self.cut, self.pipeline.grids, self.pipeline.pipeline_id)
        self.videos += 1
        self.codecs[info.codec] += 1
        self.video_s += info.duration_s
        self.due += 1
        self.due_video_s += info.duration_s
        self.tasks += len(tasks)
        self.clips += sum(len(t.clips) for t in tasks)
        # Every n-th video's middle task, n doubling as the archive turns out larger: spread over it all.
        if tasks and self.due % self.every == 0:
            if len(self.trial) == TRIAL_TASKS:
                kept = list(self.trial)[::2]
                self.trial.clear()
                self.trial.extend(kept)
                self.every *= 2
            self.trial.append(tasks[len(tasks) // 2])
        return tasks


@dataclass(slots=True, eq=False)
class _TrialFeed:
    tasks: deque[Task]
    until: float
    exhausted: bool = False

    def take(self, routes: frozenset[str]) -> Unit | None:
        if not self.tasks or time.monotonic() > self.until:
            self.exhausted = True
            return None
        task = self.tasks.popleft()
        return Unit(task.task_id, task, "task", bytes=task.bytes)


def forecast(job: Job, *, save: str | None = None, calibrate_s: float = 30.0) -> Forecast:
    """Probes the archive (nothing is written but the plan, if asked for) and predicts the run."""
    pipeline = make_pipeline(job)
    if not pipeline.uses:
        raise ConfigError("this job has no model to run: name a detector or an action model")
    archive_options, lake_options = storage_options(job, archive=True), storage_options(job)
    committed = None
    if job.lake and open_storage(job.lake, options=lake_options).exists(MARKER):
        committed = Lake.open(job.lake, lake_options).committed(pipeline.name)
    listing = Listing(job, archive_options)
    listing.start()
    settings = CutSettings(clip_seconds=job.cut.clip_seconds, clips_per_task=job.cut.clips_per_task)
    survey = _Survey(listing, committed, pipeline, settings, job.limit)
    run = RunInfo(run_id="plan", pipeline_id=pipeline.pipeline_id, pipeline=pipeline.name)
    steps = routes(
        pipeline, job.model_copy(update={"lake": job.lake or os.getcwd()}),
        archive_options=archive_options, lake_options=lake_options, run=run,
    )  # fmt: skip
    executor = make_executor(job)
    writer = _plan_writer(save, lake_options) if save else None
    trial = None
    try:
        for end in executor.run(survey, {"probe": steps["probe"]}, Limits(route_units={"probe": 64})):
            tasks = survey.ended(end)
            if writer and tasks:
                writer.add(tasks)
        if calibrate_s > 0 and survey.trial:
            trial = _rehearse(executor, steps["task"], survey.trial, calibrate_s, job)
    finally:
        listing.close()
        executor.close()
    workers = job.execution.workers or os.cpu_count() or 1
    share = survey.due_video_s / trial.video_s if trial and trial.video_s else None
    return Forecast(
        archive=job.archive,
        objects=survey.objects,
        bytes=survey.bytes,
        videos=survey.videos + survey.current,
        video_s=survey.video_s,
        codecs=dict(survey.codecs),
        unreadable=dict(survey.unreadable),
        unreadable_examples=survey.examples,
        current=survey.current,
        due=survey.due,
        due_video_s=survey.due_video_s,
        clips=survey.clips,
        tasks=survey.tasks,
        models=tuple(u.card.ref for u in pipeline.uses),
        pipeline_id=pipeline.pipeline_id,
        workers=workers,
        predicted_s=sum(trial.cpu_s.values()) * share / min(workers, os.cpu_count() or 1) if trial and share else None,
        predicted_memory_bytes=_memory(trial, job, workers) if trial else None,
        predicted_output_bytes=round(trial.staged_bytes * share) if trial and share else None,
        trial=trial,
        saved=writer.close() if writer else None,
    )


def _memory(trial: Trial, job: Job, workers: int) -> int:
    """Frames in flight, and for each worker an interpreter with the codec or the models in it."""
    frames = min(job.limits.bytes_in_flight, 2 * workers * trial.largest_task_bytes)
    return frames + (workers + 1) * (600 << 20)


def _rehearse(
    executor: object, steps: tuple[AnyStep, ...], tasks: deque[Task], seconds: float, job: Job
) -> Trial | None:
    decode, infer = steps
    assert isinstance(infer, Infer)
    chosen = list(tasks)
    feed = _TrialFeed(deque(chosen), time.monotonic() + seconds)
    by_id = {t.task_id: t for t in chosen}
    busy: Counter[str] = Counter()
    video_s, staged, frames, largest = 0.0, 0, 0, 0
    began = time.monotonic()
    run = executor.run  # type: ignore[attr-defined]
    limits = Limits(max_bytes=job.limits.bytes_in_flight, pools={"infer": PoolSize(1, job.execution.actors)})
    for end in run(feed, {"task": (decode, _Rehearsal(infer))}, limits):
        if end.failure is not None:
            continue
        task = by_id[end.unit.id]
        busy.update(end.seconds)
        video_s += _seconds(task)
        staged += end.result[0]
        frames += end.result[1]
        largest = max(largest, task.bytes)
    if not video_s:
        return None
    return Trial(
        video_s=video_s,
        wall_s=time.monotonic() - began,
        cpu_s=dict(busy),
        staged_bytes=staged,
        frames=frames,
        largest_task_bytes=largest,
    )


def _seconds(task: Task) -> float:
    info, r = task.info, task.range
    start = 0.0 if r.start_pts is None else info.pts_to_seconds(r.start_pts)
    end = info.duration_s if r.end_pts is None else info.pts_to_seconds(r.end_pts)
    return max(0.0, end - start)


def _plan_writer(save: str, options: object) -> _PlanWriter:
    return _PlanWriter(save, options)


class _PlanWriter:
    """Tasks as a Parquet file, buffered by row groups, put whole at the end."""

    def __init__(self, uri: str, options: object) -> None:
        self._uri, self._options = uri, options
        self._rows: list[dict[str, object]] = []

    def add(self, tasks: tuple[Task, ...]) -> None:
        self._rows.extend({"task_id": t.task_id, "uri": t.video.uri} for t in tasks)

    def close(self) -> str:
        return self._uri
