"""Drive the main job: list the archive, cut up what is due, hand out tasks, collect results and publish.

The driver holds a window of videos, never the archive; it holds no frames and no rows. What a run has done
lies in the lake (committed videos, staged tasks), so killing it loses nothing but time.

    listing ── intake ──► workload ──► publishing      each object's way; `Driver` joins the parts
                  │           ▲ probes, tasks ▲ batches
                  └─► kept    └── executor ───┘
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from vidproc.errors import ConfigError, VidprocError
from vidproc.machine import cpu_count
from vidproc.progress import Progress, Reporter
from vidproc.run.away import Away
from vidproc.run.due import PASSING_CLASSES, Answers
from vidproc.run.executing import interruptible, make_executor, pool_sizes
from vidproc.run.failures import FailedAttempts
from vidproc.run.intake import Intake
from vidproc.run.kept import KeptAnswers
from vidproc.run.listing import Listing
from vidproc.run.pipeline import Pipeline, make_pipeline, routes, storage_options
from vidproc.run.places import check_apart, check_archive, check_place
from vidproc.run.pools import PoolWatch
from vidproc.run.publishing import Publishing
from vidproc.run.record import RunRecord
from vidproc.run.release import ReleaseMarks
from vidproc.run.summary import Ending, RunSummary, RunTally, named, verdict_of
from vidproc.run.unlisted import Unlisted
from vidproc.run.work import VideoEnd, VideoWork
from vidproc.run.workload import Workload
from vidproc.runtime.events import AttemptFailed, Event, PoolWaiting
from vidproc.runtime.executor import Executor, Limits
from vidproc.runtime.metrics import Metrics, NoMetrics
from vidproc.runtime.ray.metrics import RayMetrics
from vidproc.runtime.step import AnyStep
from vidproc.runtime.units import Unit, UnitEnd
from vidproc.secrets import redact
from vidproc.settings import Job
from vidproc.storage import open_storage
from vidproc.tables.committed import CommittedVideo
from vidproc.tables.heartbeat import Heartbeat
from vidproc.tables.lake import Lake
from vidproc.tables.publish import RunInfo, record_failures, recover
from vidproc.tables.staging import Staging

PROBES_PER_CALL = 4
"""A probe takes milliseconds, about as long as handing it out."""

GAUGE_EVERY_S = 5.0


def index(job: Job, *, reporter: Reporter | None = None, command: str | None = None) -> RunSummary:
    """Run the main job: what is due in the archive is indexed into the lake.

    Raises ConfigError before work starts if the job cannot run as given.
    """
    reporter = reporter or Reporter()
    lake_options, archive_options = storage_options(job), storage_options(job, archive=True)
    # Refusals in the order of what they cost: the archive and the lake first, then the models.
    check_apart(job.archive, job.lake)
    archive = open_storage(job.archive, options=archive_options)
    listing = Listing(job, archive)
    check_archive(archive, job.archive)
    place = open_storage(job.lake, options=lake_options)
    check_place(place, job.lake)
    pipeline = make_pipeline(job)
    lake = Lake.create_at(place)
    lake.mark_lost()
    if forward := recover(lake):
        reporter.say(f"completed {len(forward)} publication(s) that an earlier run had begun")
    record = RunRecord(job, pipeline, lake, command=command)
    heartbeat = record.begin(reporter)
    listing.start()
    steps = routes(pipeline, job, archive_options=archive_options, lake=lake.storage, run=record.info)
    metrics = RayMetrics(pipeline.name) if job.execution.executor == "ray" else NoMetrics()
    driver = Driver(
        job, pipeline, lake, listing, archive_uri=archive.uri, run=record.info, reporter=heartbeat, metrics=metrics
    )
    outcome, reason, refused = _drive(driver, make_executor(job.execution), steps, heartbeat)
    summary = driver.summary(outcome, reason)
    if refused is not None:
        summary = replace(summary, exit_code=2 if isinstance(refused, ConfigError) else 1)
    summary = record.end(summary, heartbeat)
    if refused is not None:
        raise refused
    return summary


def _drive(
    driver: Driver, executor: Executor, steps: Mapping[str, Sequence[AnyStep]], heartbeat: Heartbeat
) -> tuple[Ending, str, Exception | None]:
    """Do all the work -> how that ended, why, and what is to be raised when the end is written down."""
    try:
        with heartbeat, interruptible(executor, heartbeat):
            for end in executor.run(driver, steps, driver.limits(), (driver.hear,)):
                driver.ended(end)
                heartbeat.update(driver.progress())
            if driver.exhausted:
                driver.remove_unlisted()
    except VidprocError as error:
        driver.record_what_stopped()
        # Found out by the first worker, before any work: a bad job all the same.
        refused = error if isinstance(error, ConfigError) and not driver.began else None
        return "failed", redact(str(error)), refused
    except Exception as error:  # a bug: it keeps its traceback, and the run is over all the same
        return "failed", redact(f"{type(error).__name__}: {error}"), error
    else:
        if driver.exhausted:
            return "ok", "", None
        with suppress(VidprocError):
            driver.settle_away(complete=False)
        return "interrupted", "stopped before the end: run the same command again to go on", None
    finally:
        driver.listing.close()
        executor.close()


class Driver:
    """The feed of an executor: what is to be done next, and what to make of what was done."""

    def __init__(
        self,
        job: Job,
        pipeline: Pipeline,
        lake: Lake,
        listing: Listing,
        *,
        archive_uri: str,
        run: RunInfo,
        reporter: Reporter,
        metrics: Metrics,
    ) -> None:
        self.job, self.listing = job, listing
        self.started = time.monotonic()
        self._lake, self._run, self._reporter, self._metrics = lake, run, reporter, metrics
        self._gauged = 0.0
        staging = Staging(lake.storage, run.pipeline_id)
        committed = lake.committed(pipeline.name)
        follows = job.follow is not None
        self._tally = tally = RunTally()
        self._answers = Answers(committed, run.pipeline_id, ReleaseMarks(lake.storage, pipeline.name))
        self._unlisted = Unlisted(job, committed, archive_uri) if job.deleted == "remove" else None
        away = Away(job, committed, archive_uri)
        self._kept = KeptAnswers(lake, run, self._answers, away, tally=tally, reporter=reporter, follows=follows)
        self._failed_attempts = FailedAttempts(run.run_id, staging, metrics, reporter)
        self._pools = PoolWatch(reporter)
        self._publishing = Publishing(job.execution, tally=tally, metrics=metrics, reporter=reporter)
        self._workload = Workload(
            staging,
            run,
            grids=pipeline.grids,
            cut_settings=job.cut,
            tally=tally,
            metrics=metrics,
            reporter=reporter,
            on_end=self._video_ended,
        )
        self._intake = Intake(
            job=job,
            listing=listing,
            answers=self._answers,
            away=away,
            kept=self._kept,
            unlisted=self._unlisted,
            workload=self._workload,
            tally=tally,
            reporter=reporter,
        )

    def limits(self) -> Limits:
        execution, limits = self.job.execution, self.job.limits
        return Limits(
            max_units=max(8, 4 * (execution.workers or cpu_count())),
            route_units={"probe": 64, "publish": 2},
            at_once={"decode": execution.workers} if execution.workers else {},
            max_bytes=limits.bytes_in_flight,
            strikes=limits.attempts,
            pools=pool_sizes(self.job),
            batch={"probe": PROBES_PER_CALL},
        )

    # What is next ---------------------------------------------------------------------------------

    @property
    def exhausted(self) -> bool:
        work = self._workload
        return self.listing.done and not (work.videos or work.probes or work.tasks or self._publishing.held)

    def take(self, routes: frozenset[str]) -> Unit | None:
        work = self._workload
        if "publish" in routes and self._publishing.is_due(all_is_here=self._all_is_published_next):
            return self._publishing.take()
        if "probe" in routes and not ("task" in routes and work.tasks):
            while not work.probes and work.has_room and self._intake.take():
                pass
        if "task" in routes and work.tasks:
            return work.take_task()
        if "probe" in routes and work.probes:
            return work.probes.popleft()
        return None

    @property
    def _all_is_published_next(self) -> bool:
        return self.listing.idle and self._publishing.held == len(self._workload.videos)

    # What was done --------------------------------------------------------------------------------

    @property
    def began(self) -> bool:
        return self._tally.began

    def hear(self, event: Event) -> None:
        """Listen to the executor."""
        if isinstance(event, AttemptFailed):
            self._failed_attempts.add(event, self._workload.videos)
            return
        self._pools.hear(event)
        if isinstance(event, PoolWaiting):
            self._reporter.update(self.progress())

    def ended(self, end: UnitEnd) -> None:
        for step, seconds in end.seconds.items():
            self._tally.busy_s[step] += seconds
            self._pools.has_worked(step)
            self._metrics.count("vidproc_stage_seconds_total", seconds, stage=step)
        if end.unit.route == "probe":
            self._workload.probed(end)
        elif end.unit.route == "task":
            self._workload.indexed(end)
        else:
            self._published(end)

    def _video_ended(self, work: VideoWork, end: VideoEnd) -> None:
        """The last task of a video has ended, or it came to none."""
        video_id = work.source.video_id
        passing = end.status in ("failed", "declined") and end.error_class in PASSING_CLASSES
        if passing and end.error_class is not None and self._answers.answer(video_id):
            self._kept.keep(work.source, end.error_class, str(end.error), work.listed_as, work.failures)
            del self._workload.videos[video_id]
            self._tally.done += 1
            return
        outcome = work.outcome(end)
        self._tally.add(outcome)
        self._publishing.add(outcome, rows=sum(sum(r.rows.values()) for r in work.reports_in_order()))
        if end.status != "indexed":
            said = f"{end.status}: {named(work.source.uri, end.error)}"
            self._reporter.say(said, status=end.status, error_class=end.error_class)

    def _published(self, end: UnitEnd) -> None:
        batch = self._publishing.ended(end)
        for o in batch:
            work = self._workload.videos.pop(o.video.video_id)
            if self.job.follow is not None:
                answer = CommittedVideo(o.video.content_id, self._run.pipeline_id, o.status, o.error_class)
                self._answers.remember(o.video.video_id, work.listed_as, answer)
        self._answers.releases.clear(o.video.video_id for o in batch)

    def settle_away(self, *, complete: bool) -> None:
        self._kept.settle(complete=complete)

    def remove_unlisted(self) -> None:
        """After the last video: remove those that earlier runs indexed and the archive no longer lists."""
        self.settle_away(complete=self.job.plan is None and self.job.limit is None)
        if self._unlisted is None:
            return
        self._tally.removed = number = self._unlisted.remove(self._lake)
        if self._unlisted.doubt:
            self._reporter.say(f"rows of videos that are no longer listed are kept: {self._unlisted.doubt}")
        if number:
            self._reporter.say(f"{number} video(s) that the archive no longer lists were removed", removed=number)

    def record_what_stopped(self) -> None:
        """Write down the attempt after which the run cannot go on, if the lake can be written to."""
        with suppress(VidprocError):  # the lake may be what is refused
            record_failures(self._lake, self._failed_attempts.stopped_by, self._run)

    # What it came to ------------------------------------------------------------------------------

    def progress(self) -> Progress:
        now = time.monotonic()
        tally, work = self._tally, self._workload
        if now - self._gauged >= GAUGE_EVERY_S:
            self._gauged = now
            self._gauge()
        return Progress(
            elapsed_s=now - self.started,
            listed=tally.listed,
            listing_done=self.listing.done,
            current=tally.current,
            due=tally.due,
            done=tally.done + self._publishing.held,
            failed=tally.statuses["failed"],
            video_s_known=tally.video_s_known,
            video_s_done=work.seconds_done,
            video_s_open=work.seconds_open,
            moved_s=0.0 if work.last_done_at is None else work.last_done_at - self.started,
            probed=tally.probed,
            in_work=len(work.videos),
            tasks_waiting=len(work.tasks),
            note=self._pools.note,
        )

    def _gauge(self) -> None:
        work = self._workload
        waiting = {"probe": len(work.probes), "task": len(work.tasks), "publish": self._publishing.waiting}
        for stage, number in waiting.items():
            self._metrics.gauge("vidproc_queue_length", number, stage=stage)
        self._metrics.gauge("vidproc_bytes_in_flight", work.bytes_in_flight)

    def summary(self, outcome: Ending, reason: str) -> RunSummary:
        """`outcome`, `reason`: how the work itself ended; the failure budget may make a failure of it."""
        unpublished = self._publishing.unpublished
        self._tally.without(unpublished)
        verdict = verdict_of(
            self._tally, outcome, reason, max_failures=self.job.limits.max_failures, unpublished=len(unpublished)
        )
        return self._tally.summary(
            self._run.run_id,
            self._run.pipeline_id,
            verdict,
            elapsed_s=time.monotonic() - self.started,
            actors_s=self._pools.actor_seconds(),
        )
