"""`vidproc plan`: what is in the archive, what is due, and what indexing it would take.

Predictions come from a trial on the user's own files: some tasks, spread over the archive, are
decoded and inferred for about 30 s, and their cost a second of video is carried over to the rest.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from vidproc.machine import cpu_count
from vidproc.media import Task, VideoInfo
from vidproc.progress import Progress, Reporter, spell
from vidproc.run.due import Listed, is_due, source_of
from vidproc.run.executing import make_executor, pool_sizes
from vidproc.run.listing import PLAN, Listing, plan_of
from vidproc.run.pipeline import DecodedTask, Infer, Pipeline, make_pipeline, routes, storage_options
from vidproc.run.places import check_apart, check_place
from vidproc.runtime.executor import ONE_MACHINE_BYTES, Executor, Limits
from vidproc.runtime.step import AnyStep
from vidproc.runtime.units import Unit, UnitEnd
from vidproc.secrets import redact
from vidproc.settings import CutSettings, Job
from vidproc.storage import Storage, open_storage
from vidproc.tables.committed import Committed
from vidproc.tables.lake import MARKER, Lake
from vidproc.tables.publish import RunInfo
from vidproc.text import printable
from vidproc.video.archive import Skipped
from vidproc.video.plan import Plan, PlanWriter, cut, spell_bytes, task_seconds

TRIAL_TASKS = 24
"""Tasks kept for the trial, spread evenly over all that are due."""

WORKER_BYTES = 700 << 20
"""Private memory of one worker with the codec, or with the models, loaded (measured with the demo models)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What the trial cost."""

    video_s: float
    wall_s: float
    busy_s: Mapping[str, float]
    """Seconds inside each step."""
    row_bytes: int
    """Size of the rows, as Parquet."""
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The answer of `vidproc plan`."""

    archive: str
    listed: int
    archive_bytes: int
    plan: Plan
    """The plan for what is due."""
    examples: Mapping[str, str]
    """Why an object is declined, one of each class."""
    models: tuple[str, ...]
    pipeline_id: str
    workers: int
    trial: Trial | None
    saved: str | None = None

    def text(self) -> str:
        lines = [
            f"{self.archive}: {self.listed:,} objects, {spell_bytes(self.archive_bytes)}",
            "models: " + ", ".join(self.models),
        ]
        if self.trial:
            t = self.trial
            lines.append(
                f"from a trial with {self.workers} workers on this machine: {t.frames:,} frames of {t.video_s:.0f} s "
                f"of your video in {t.wall_s:.1f} s (" + ", ".join(f"{s} {v:.1f} s" for s, v in t.busy_s.items()) + ")"
            )
        lines += f"due: {self.plan.summary(map(printable, self.examples.values()))}".split("\n")
        if self.saved:
            lines.append(f"saved to {self.saved}")
        return "\n".join(map(printable, lines))


class _Rehearsal:
    """Runs the models on a task as the real step does, and weighs the rows instead of staging them."""

    stateful = True

    def __init__(self, infer: Infer) -> None:
        self._infer, self.needs, self.name = infer, infer.needs, infer.name

    def setup(self) -> None:
        self._infer.setup()

    def __call__(self, decoded: DecodedTask) -> DecodedTask | tuple[int, int]:
        """-> (bytes of the rows as Parquet, frames sampled)."""
        answered = self._infer.answered(decoded)
        if answered.batches:
            return answered
        total = 0
        for table in answered.tables.values():
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
    plan: Plan = field(default_factory=Plan)
    writer: PlanWriter | None = None
    listed: int = 0
    bytes: int = 0
    probing: int = 0
    examples: dict[str, str] = field(default_factory=dict)
    chosen: deque[Task] = field(default_factory=deque)
    every: int = 1

    @property
    def exhausted(self) -> bool:
        return self.listing.done and not self.probing

    def take(self, routes: frozenset[str]) -> Unit | None:
        while self.limit is None or self.listed < self.limit:
            item = self.listing.take()
            if item is None:
                return None
            source = source_of(item)
            self.listed += 1
            self.bytes += source.size_bytes
            if isinstance(item, Skipped) and not (item.video is not None and self._known(item)):
                self._decline(item.error_class, f"{source.uri}: {item.reason}")
                if self.writer:
                    self.writer.add(item)
            elif self._known(item):
                self.plan.known += 1
            else:
                self.probing += 1
                return Unit(source.video_id, source, "probe")
        self.listing.close()
        return None

    def progress(self) -> Surveyed:
        return Surveyed(
            listing_done=self.listing.done,
            due=self.listed,
            done=self.listed - self.probing,
            video_s_known=self.plan.seconds_of_video,
            failed=self.plan.declined.total(),
        )

    def _known(self, item: Listed) -> bool:
        if self.committed is None:
            return False
        return not is_due(item, self.committed.get(source_of(item).video_id), self.pipeline.pipeline_id)

    def _decline(self, kind: str, example: str) -> None:
        self.plan.decline(kind)
        self.examples.setdefault(kind, redact(example))

    def ended(self, end: UnitEnd) -> None:
        self.probing -= 1
        if end.failure is not None:
            self._decline(end.failure.error_class, end.failure.error)
            if self.writer:
                self.writer.add(end.unit.item, end.failure.error_class, end.failure.error)
            return
        info: VideoInfo = end.result
        tasks = cut(info, self.cut, self.pipeline.grids, self.pipeline.pipeline_id)
        self.plan.add(info, tasks, self.pipeline.grids)
        if self.writer:
            self.writer.add(info)
        # The middle task of every n-th video, n doubling as the archive turns out larger.
        if tasks and self.plan.videos % self.every == 0:
            self.chosen.append(tasks[len(tasks) // 2])
            if len(self.chosen) == TRIAL_TASKS:
                self.chosen, self.every = deque(list(self.chosen)[::2]), self.every * 2


@dataclass(slots=True, eq=False)
class _TrialFeed:
    tasks: deque[Task]
    until: float

    @property
    def exhausted(self) -> bool:
        return not self.tasks or time.monotonic() > self.until

    def take(self, routes: frozenset[str]) -> Unit | None:
        if self.exhausted:
            return None
        task = self.tasks.popleft()
        return Unit(task.task_id, task, "task", bytes=task.bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed(Progress):
    """A moment of the probing: what was listed counts as due, what was probed as done."""

    def line(self) -> str:
        of = f"{self.due:,}" if self.listing_done else f"{self.due:,}+"
        return f"{self.done:,}/{of} probed · {spell(self.video_s_known)} of video · {self.failed:,} declined"


def forecast(
    job: Job, *, save: str | None = None, calibrate_s: float = 30.0, reporter: Reporter | None = None
) -> Forecast:
    """Probe the archive and predict the run. Writes nothing but the plan, and that only if asked to
    (`save`: a folder or s3:// prefix)."""
    reporter = reporter or Reporter()
    archive_options, lake_options = storage_options(job, archive=True), storage_options(job)
    if job.lake:
        check_apart(job.archive, job.lake)
    archive = open_storage(job.archive, options=archive_options)
    listing = Listing(job, archive)
    # The trial stages nothing; the step still wants a place, and the working directory always is one.
    place = open_storage(job.lake or os.getcwd(), options=lake_options)
    committed = _committed(place, job) if job.lake else None
    pipeline = make_pipeline(job)
    survey = _Survey(listing, committed, pipeline, job.cut, job.limit)
    run = RunInfo(run_id="plan", pipeline=pipeline.name, pipeline_id=pipeline.pipeline_id)
    steps = routes(pipeline, job, archive_options=archive_options, lake=place, run=run)
    if save:
        survey.writer = PlanWriter(open_storage(save, options=lake_options), PLAN, survey.plan, plan_of(job, archive))
    executor = make_executor(job.execution)
    trial = None
    listing.start()
    try:
        with survey.writer or nullcontext():
            _probe(executor, steps["probe"], survey, reporter)
            if calibrate_s > 0 and survey.chosen:
                reporter.say(f"{survey.listed:,} objects probed; now a trial of {calibrate_s:.0f} s on some of them")
                trial = _rehearse(executor, steps["task"], survey.chosen, calibrate_s, job)
            if trial:
                _predict(survey.plan, trial, job)
    finally:
        listing.close()
        executor.close()
    return Forecast(
        archive=job.archive,
        listed=survey.listed,
        archive_bytes=survey.bytes,
        plan=survey.plan,
        examples=survey.examples,
        models=tuple(u.card.ref for u in pipeline.uses),
        pipeline_id=pipeline.pipeline_id,
        workers=_workers(job),
        trial=trial,
        saved=save,
    )


def _committed(place: Storage, job: Job) -> Committed | None:
    """What the lake has of the job's pipeline; None where there is no lake yet."""
    check_place(place, job.lake)
    return Lake.at(place).committed(job.name) if place.exists(MARKER) else None


def _probe(executor: Executor, steps: Sequence[AnyStep], survey: _Survey, reporter: Reporter) -> None:
    for end in executor.run(survey, {"probe": steps}, Limits(route_units={"probe": 64}, infra_strikes=3)):
        survey.ended(end)
        reporter.update(survey.progress())


def _workers(job: Job) -> int:
    return job.execution.workers or cpu_count()


def _predict(plan: Plan, trial: Trial, job: Job) -> None:
    share = plan.seconds_of_video / trial.video_s
    cores = min(_workers(job), cpu_count())
    plan.predicted_seconds = sum(trial.busy_s.values()) * share / cores
    in_flight = min(job.limits.bytes_in_flight or ONE_MACHINE_BYTES, 2 * _workers(job) * plan.largest_task_bytes)
    plan.predicted_memory_bytes = in_flight + (_workers(job) + 1) * WORKER_BYTES
    plan.predicted_output_bytes = round(trial.row_bytes * share)


def _rehearse(
    executor: Executor, steps: tuple[AnyStep, ...], tasks: deque[Task], seconds: float, job: Job
) -> Trial | None:
    decode, *infer = steps
    by_id = {t.task_id: t for t in tasks}
    feed = _TrialFeed(deque(tasks), time.monotonic() + seconds)
    # Few at a time: what is admitted is finished, however little time is left.
    limits = Limits(
        max_units=1 if job.execution.executor == "inline" else 2 * _workers(job),
        max_bytes=job.limits.bytes_in_flight,
        pools=pool_sizes(job),
    )
    busy: Counter[str] = Counter()
    video_s, row_bytes, frames = 0.0, 0, 0
    began = time.monotonic()
    for end in executor.run(feed, {"task": (decode, *(_Rehearsal(i) for i in infer if isinstance(i, Infer)))}, limits):
        if end.failure is None:
            busy.update(end.seconds)
            video_s += task_seconds(by_id[end.unit.id])
            row_bytes += end.result[0]
            frames += end.result[1]
    if video_s <= 0:
        return None
    wall_s = time.monotonic() - began
    return Trial(video_s=video_s, wall_s=wall_s, busy_s=dict(busy), row_bytes=row_bytes, frames=frames)
