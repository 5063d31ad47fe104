"""The driver of the main job: lists, plans, hands out, hears back, publishes.

It holds a window of videos, never the archive; it holds no frames and no rows. What a run has done
lies in the lake (committed videos, staged tasks), so killing it loses nothing but time.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import shlex
import signal
import socket
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from vidproc import __version__
from vidproc.errors import Archived, ConfigError, FastPathWrong, NotFound, RunAborted, TransientError, VidprocError
from vidproc.machine import cpu_count
from vidproc.media import Task, Video, VideoInfo
from vidproc.progress import Progress, Reporter
from vidproc.quantities import parse_failure_budget
from vidproc.run.away import AWAY_CLASSES, Away, Listed
from vidproc.run.pipeline import Pipeline, TaskDone, make_pipeline, pool_of, routes, storage_options
from vidproc.run.remarks import merged
from vidproc.run.unlisted import Unlisted
from vidproc.runtime.events import AttemptFailed, ClusterJoined, Event, PoolChanged, PoolWaiting, SetupFailed, said
from vidproc.runtime.executor import Executor, Limits
from vidproc.runtime.metrics import Metrics, NoMetrics, RayMetrics
from vidproc.runtime.retry import ERROR_CLASSES
from vidproc.runtime.units import Unit, UnitEnd
from vidproc.secrets import hidden_in, redact
from vidproc.settings import Job, PoolSize
from vidproc.storage import StorageOptions, is_s3, open_storage, resolved_address
from vidproc.tables.delta import first_line
from vidproc.tables.heartbeat import Pulse
from vidproc.tables.lake import MARKER, CommittedVideo, Lake, stranger_in
from vidproc.tables.outcome import Failure, Status, VideoOutcome
from vidproc.tables.own import is_own, remember
from vidproc.tables.publish import PublishReport, RunInfo, record_failures, recover
from vidproc.tables.staging import Staging, TaskReport
from vidproc.video.archive import Skipped, check_there, list_videos
from vidproc.video.decode import coverage
from vidproc.video.plan import cut, load_plan, task_seconds

TASKS_AHEAD = 256
"""Tasks that wait for the executor before another video is probed: enough that small files keep every
decoder busy. What the executor has taken is its own to bound: on a large cluster that is more."""

LISTED_AHEAD = 4096
PLANNED_AHEAD = 64
"""Videos read ahead from a plan: their keyframes come with them."""

PLAN = "plan"
"""Key of a plan below the place where it was saved."""

ROWS_A_BATCH = 2_000_000
"""Rows published in one commit, at most: bounds the memory of the publishing task."""

ROWS_WORTH_LINKING = 20_000
"""A batch with so many rows is published as soon as no other is: linking them takes a second or two, which
would otherwise be left for the end of the run."""

PROBES_A_CALL = 4
"""A probe takes milliseconds, about as long as handing it out."""

GAUGE_EVERY_S = 5.0

FULL = 0.8
"""Share of its time from which a pool of actors is what a run waits for: the rest is handing over."""

PLAIN = "decoded plainly, in order: the fast path gave other pictures of it (see the failures of class verify)"
"""Warning in the row of a video on which the fast path was found wrong."""

REFUSED_CLASSES = frozenset({"denied", "kms", "archived", "unreadable"})
"""Error classes of what may not be read as things stand, though nothing may be wrong with it."""

PASSING_CLASSES = REFUSED_CLASSES | {"transient", "source_changed", ERROR_CLASSES["infrastructure"]}
"""A video that ended so is due again in the next run; any other end is remembered."""

NO_ANSWER = PASSING_CLASSES | AWAY_CLASSES
"""Error classes of videos that nobody could look at."""

KEPT_AT_ONCE = 5_000
"""Failures of videos whose answers are kept, written in one commit: bounds the memory that they take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """How a run ended."""

    run_id: str
    outcome: str
    """ok, failed (above the failure budget, or aborted) or interrupted."""
    reason: str
    """Why the exit code is what it is, in one sentence."""
    exit_code: int
    listed: int
    current: int
    due: int
    removed: int
    """Videos whose rows went, since the archive no longer lists them."""
    plain: int
    """Videos that were decoded plainly, as the fast path gave other pictures of them: see `failures`, class verify."""
    statuses: Mapping[str, int]
    errors: Mapping[str, int]
    """Videos by error class."""
    examples: Mapping[str, str]
    """One sentence for each error class."""
    rows: Mapping[str, int]
    frames_decoded: int
    frames_sampled: int
    tasks_done: int
    tasks_resumed: int
    tasks_verified: int
    """Tasks that were decoded plainly too, and gave the same frames."""
    bytes_read: int
    video_s: float
    elapsed_s: float
    busy_s: Mapping[str, float]
    """Seconds spent inside each step, over all workers."""
    actors_s: Mapping[str, float]
    """Seconds that model actors were up, by step, over all actors; empty where models have none."""
    pipeline_id: str

    @property
    def limited_by(self) -> str | None:
        """The step where more machines would help: a pool of actors that was hardly ever idle, else
        that in which most time was spent. "start-up" where the steps hardly matter: machines were
        started and models loaded for most of the time."""
        if 0 < sum(self.busy_s.values()) < self.elapsed_s / 2:
            return "start-up"
        used = {step: self.busy_s.get(step, 0.0) / up for step, up in self.actors_s.items() if up}
        busiest = max(used, key=lambda step: used[step], default=None)
        if busiest is not None and used[busiest] >= FULL:
            return busiest
        others = {step: seconds for step, seconds in self.busy_s.items() if step not in used}
        return max(others, key=lambda step: others[step], default=None)

    @property
    def speed(self) -> float:
        """Seconds of video a second."""
        return self.video_s / self.elapsed_s if self.elapsed_s else 0.0


def index(job: Job, *, reporter: Reporter | None = None, command: str | None = None) -> RunSummary:
    """Runs the main job: what is due in the archive is indexed into the lake.

    Raises ConfigError before work starts if the job cannot run as given.
    """
    reporter = reporter or Reporter()
    lake_options, archive_options = storage_options(job), storage_options(job, archive=True)
    # Refusals in the order of what they cost: the archive and the lake first, then the models.
    check_apart(job.archive, job.lake)
    listing = Listing(job, archive_options)
    if open_storage(job.archive, options=archive_options).exists(MARKER):
        raise ConfigError(f"the archive {job.archive} is a lake itself: give the place of the videos")
    check_place(job.lake, lake_options)
    pipeline = make_pipeline(job)
    lake = Lake.create(job.lake, lake_options)
    started = datetime.now(UTC)
    run_id = f"{started:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    info = RunInfo(run_id=run_id, pipeline=pipeline.name, pipeline_id=pipeline.pipeline_id)
    lake.mark_lost()
    if forward := recover(lake):
        reporter.say(f"completed {len(forward)} publication(s) that an earlier run had begun")
    about = {
        "run_id": run_id,
        "command": command or shlex.join(sys.argv),
        "job": job.model_dump_json(),
        "pipeline": pipeline.name,
        "pipeline_id": pipeline.pipeline_id,
        "started_at": started,
        "host": socket.gethostname(),
        "versions": versions(),
    }
    remember(job.model_dump_json())
    # The first write is one of our own, so that a lake which may only be read is refused in plain words.
    sign = {name: about[name] for name in ("run_id", "pipeline", "host", "started_at")}
    pulse = reporter = Pulse(reporter, lake.storage, **sign)
    pulse.sign(Progress())
    lake.record_run(about | {"outcome": "running"})
    listing.start()
    steps = routes(pipeline, job, archive_options=archive_options, lake_options=lake_options, run=info)
    metrics = RayMetrics(pipeline.name) if job.execution.executor == "ray" else NoMetrics()
    driver = Driver(job, pipeline, lake, listing, info, reporter, metrics)
    executor = make_executor(job)
    outcome, reason = "ok", ""
    refused: Exception | None = None
    try:
        with pulse, _interruptible(executor, reporter):
            for end in executor.run(driver, steps, driver.limits(), (driver.hear,)):
                driver.ended(end)
                reporter.update(driver.progress())
            if driver.exhausted:
                driver.remove_unlisted()
    except VidprocError as error:
        outcome, reason = "failed", redact(str(error))
        with suppress(VidprocError):  # the lake may be what is refused
            record_failures(lake, driver.stopped_by, info)
        # Found out by the first worker, before any work: a bad job all the same.
        refused = error if isinstance(error, ConfigError) and not driver.began else None
    except Exception as error:  # a bug: it keeps its traceback, and the run is over all the same
        outcome, reason, refused = "failed", redact(f"{type(error).__name__}: {error}"), error
    else:
        if not driver.exhausted:
            outcome, reason = "interrupted", "stopped before the end: run the same command again to go on"
            with suppress(VidprocError):
                driver.settle_away(complete=False)
    finally:
        listing.close()
        executor.close()
    summary = driver.summary(outcome, reason, time.monotonic() - driver.started)
    if refused is not None:
        summary = replace(summary, exit_code=2 if isinstance(refused, ConfigError) else 1)
    ended = about | {
        "ended_at": datetime.now(UTC),
        "outcome": summary.outcome,
        "exit_code": summary.exit_code,
        "reason": summary.reason,
        "videos_listed": summary.listed,
        "videos_unchanged": summary.current,
        **{f"videos_{s}": summary.statuses.get(s, 0) for s in ("indexed", "partial", "declined", "failed")},
        "videos_plain": summary.plain,
        "tasks_done": summary.tasks_done,
        "tasks_resumed": summary.tasks_resumed,
        "tasks_verified": summary.tasks_verified,
        "frames_decoded": summary.frames_decoded,
        "frames_sampled": summary.frames_sampled,
        "bytes_read": summary.bytes_read,
        "video_seconds": summary.video_s,
        "video_seconds_per_second": summary.speed,
    }
    try:
        lake.record_run(ended)
    except VidprocError as error:
        # As by a key that was revoked meanwhile. The next command that sees the silent run writes down that it is over.
        reporter.say(f"the end of this run could not be written into the lake: {error}")
        if summary.outcome == "ok":
            summary = replace(summary, outcome="failed", exit_code=1, reason=f"{summary.reason}; its end could not be "
                              f"written into the lake: {redact(str(error))}")  # fmt: skip
    if refused is not None:
        raise refused
    return summary


def check_apart(archive: str, lake: str) -> None:
    """Refuses a lake whose files would be listed as videos, and an archive inside a lake."""
    a, b = resolved_address(archive), resolved_address(lake)
    if f"{b.rstrip('/')}/".startswith(f"{a.rstrip('/')}/"):
        raise ConfigError(f"the lake {lake} lies in the archive {archive}, where its files would be taken for videos: "
                          "give a place beside the archive")  # fmt: skip
    if f"{a.rstrip('/')}/".startswith(f"{b.rstrip('/')}/"):
        raise ConfigError(f"the archive {archive} lies in the lake {lake}: give the lake a place of its own")


def check_place(uri: str, options: StorageOptions) -> None:
    """Refuses what is neither a lake nor an empty place, and makes nothing yet."""
    storage = open_storage(uri, options=options)
    if storage.exists(MARKER):
        Lake.open(uri, options)
        return
    if not is_s3(uri) and not os.path.isdir(uri):
        return
    if (stranger := stranger_in(storage)) is not None:
        raise ConfigError(f"{uri} is not a lake, and not empty (there is {stranger!r}): give an empty or a new place")


RELEASED = "_released"
"""Below the lake: one empty object a video that `retry` released, until it is published again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What `retry` made due again."""

    videos: Mapping[str, int]
    """By pipeline."""
    job: Job | None
    """Of the last run of one of these pipelines, as it was but neither following nor by a plan: it does them again."""
    hidden: tuple[str, ...]
    """Settings of that job out of which a secret was left when it was written down. Then `job` is None: it cannot be
    done again from the lake alone."""
    classes: tuple[str, ...]
    """Error classes that there are in the lake."""
    own: bool = True
    """Whether this user ran that job. Else whoever made the lake chose what `job` reads and loads."""


def release(lake_uri: str, options: StorageOptions, classes: tuple[str, ...] = ()) -> Released:
    """Makes videos due again that failed, or lost a piece to repeated failures; with `classes` every
    video that ended with one of these error classes."""
    lake = Lake.open(lake_uri, options)
    storage = lake.storage
    released: Counter[str] = Counter()
    known: set[str] = set()
    for row in lake.videos().select(["video_id", "pipeline", "status", "error_class"]).to_pylist():
        error_class = row["error_class"]
        if error_class in classes if classes else counts_as_failure(row["status"], error_class):
            storage.put(f"{RELEASED}/{row['pipeline']}/{row['video_id']}", b"")
            released[row["pipeline"]] += 1
        if error_class is not None:
            known.add(error_class)
    jobs = ((r["run_id"], r["job"]) for r in lake.runs().to_pylist() if r["pipeline"] in released and r["job"])
    run_id, text = next(jobs, ("", None))
    hidden, job = _recorded_job(lake, run_id, text) if text else ((), None)
    own = not text or is_own(text)
    return Released(videos=dict(released), job=job, hidden=hidden, classes=tuple(sorted(known)), own=own)


def _recorded_job(lake: Lake, run_id: str, text: str) -> tuple[tuple[str, ...], Job | None]:
    """The job of a run, for this lake and no other: it may have been moved since, or made by somebody else. Or what
    is hidden in it, so that it cannot be run."""
    try:
        hidden = tuple(hidden_in(json.loads(text)))
        job = None if hidden else Job.model_validate_json(text)
    except (ValueError, TypeError, AttributeError, RecursionError) as e:
        raise ConfigError(
            f"{lake.uri}: the job that `runs` has of {run_id} is none that this vidproc can run ({first_line(e)}); "
            "use --no-run, and give `vidproc index` a job"
        ) from e
    return hidden, job and job.model_copy(update={"lake": lake.uri, "follow": None, "plan": None})


def versions() -> str:
    """What made the rows: the versions of the packages that decide about them."""
    from importlib.metadata import version

    names = ("ray", "torch", "torchvision", "av", "pyarrow", "deltalake", "onnxruntime")
    return json.dumps({"vidproc": __version__} | {n: version(n) for n in names})


def pool_sizes(job: Job) -> dict[str, PoolSize]:
    """By step: how many actors hold its models."""
    own = {pool_of(job, kind): PoolSize(m.pool.min, m.pool.max) for kind, m in job.models.items() if m.pool}
    return {"infer": PoolSize(1, job.execution.actors)} | own


def make_executor(job: Job) -> Executor:
    if job.execution.executor == "inline":
        from vidproc.runtime.inline import InlineExecutor

        return InlineExecutor()
    from vidproc.runtime.ray import RayExecutor

    return RayExecutor(address=job.execution.address, num_workers=job.execution.workers)


@contextmanager
def _interruptible(executor: Executor, reporter: Reporter) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) stops taking work; the second leaves at once. Both are resumable."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            os._exit(130)
        asked = True
        reporter.say("stopping: what runs may finish within 15 s; press Ctrl-C again to leave at once")
        executor.stop()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def plan_of(job: Job) -> dict[str, Any]:
    """What a saved plan depends on."""
    archive = open_storage(job.archive, options=storage_options(job, archive=True)).uri
    return {
        "archive": archive,
        "recorded_at": job.recorded_at,
        "follow_links": job.follow_links,
        "max_frame_duration": job.limits.max_frame_duration,
    }


class Listing:
    """The archive's listing, read ahead on a thread of its own so that a slow page holds nothing up. Of a saved
    plan where the job names one: then nothing is listed, and what was probed is VideoInfo already."""

    def __init__(self, job: Job, options: StorageOptions) -> None:
        self._open: Callable[[], Iterator[Listed]] = lambda: list_videos(
            job.archive, options, job.filters, follow_links=job.follow_links
        )
        if job.plan:
            place = open_storage(job.plan, options=storage_options(job))
            self._open = lambda: load_plan(place, PLAN, plan_of(job))[1]
        self._follow = job.follow
        self._queue: queue.Queue[Listed | BaseException | None] = queue.Queue(
            PLANNED_AHEAD if job.plan else LISTED_AHEAD
        )
        self._closed = threading.Event()
        self.done = False
        self.idle = False
        """Nothing more is known of just now: at the end, or between two listings."""
        self.rounds = 0
        """How many listings have come to their end."""
        # The first object is asked for here and now: an archive that is not there is refused at once.
        self._objects = self._open()
        self._first = next(self._objects, None)
        if self._first is None and job.follow is None and job.plan is None:
            check_there(job.archive, options)

    def start(self) -> None:
        threading.Thread(target=self._read, name="listing", daemon=True).start()

    def _read(self) -> None:
        try:
            if self._first is not None:
                self._put(self._first)
            while not self._closed.is_set():
                for item in self._objects:
                    if not self._put(item):
                        return
                self._put(None)
                if self._follow is None or self._closed.wait(self._follow):
                    return
                self._objects = self._open()
        except BaseException as error:
            self._put(error)

    def _put(self, item: Listed | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.5)
                return True
            except queue.Full:
                continue
        return False

    def take(self) -> Listed | None:
        """The next object, or None: nothing just now. Then `done` says whether more may come."""
        if self.done:
            return None
        try:
            item = self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        self.idle = item is None
        self.rounds += item is None
        self.done = item is None and self._follow is None
        return item

    def close(self) -> None:
        """No more is wanted."""
        self.done = self.idle = True
        self._closed.set()


@dataclass(slots=True, eq=False)
class _InWork:
    """A video between its listing and its batch (driver's own record, mutable)."""

    video: Video
    listed_as: str = ""
    info: VideoInfo | None = None
    tasks: tuple[Task, ...] = ()
    waiting: set[str] = field(default_factory=set)
    reports: dict[str, TaskReport] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    attempts: int = 1
    done_s: float = 0.0
    """Seconds of video in the tasks that this run has done."""
    abandoned: set[str] = field(default_factory=set)
    """Tasks of the fast path that the executor still has: what they give is thrown away."""


class Driver:
    """The feed of an executor: what is to be done next, and what to make of what was done."""

    def __init__(
        self,
        job: Job,
        pipeline: Pipeline,
        lake: Lake,
        listing: Listing,
        run: RunInfo,
        reporter: Reporter,
        metrics: Metrics,
    ) -> None:
        self.job, self.pipeline, self.listing, self.run = job, pipeline, listing, run
        self.reporter, self.metrics = reporter, metrics
        self.started = time.monotonic()
        self._lake = lake
        self._committed = lake.committed(pipeline.name)
        options = storage_options(job, archive=True)
        self._unlisted = Unlisted(job, self._committed, options) if job.deleted == "remove" else None
        self._away = Away(job, self._committed, options)
        self._staging = Staging(lake.storage, run.pipeline_id)
        self._staged: dict[str, set[str]] = {}
        for video_id, task_id in self._staging.finished():
            self._staged.setdefault(video_id, set()).add(task_id)
        self._had_strikes = set(self._staging.failed())
        self._storage = lake.storage
        self._released_prefix = f"{RELEASED}/{pipeline.name}/"
        self._released = {o.key.removeprefix(self._released_prefix) for o in self._storage.list(self._released_prefix)}
        self._work: dict[str, _InWork] = {}
        self._probes: deque[Unit] = deque()
        self._tasks: deque[Unit] = deque()
        self._batch: list[VideoOutcome] = []
        self._batch_rows, self._batch_since = 0, 0.0
        self._publishing: dict[str, tuple[VideoOutcome, ...]] = {}
        self._count: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._rows: Counter[str] = Counter()
        self._busy: defaultdict[str, float] = defaultdict(float)
        self._actors: dict[str, tuple[int, float]] = {}
        """By step: how many are up, and since when (monotonic seconds)."""
        self._actors_s: defaultdict[str, float] = defaultdict(float)
        self._frames_decoded = self._frames_sampled = 0
        self._video_s_known = self._video_s_done = 0.0
        self._task_s_done = self._task_s_open = self._moved_s = 0.0
        self._done_now: dict[str, tuple[str, CommittedVideo]] = {}
        """By video_id how it was listed, and what this run has published of it; only while it follows the archive."""
        self._kept: list[Failure] = []
        """Of videos that cannot be looked at and whose answers stay; not in the lake yet."""
        self._rounds = 0
        self.stopped_by: tuple[Failure, ...] = ()
        """The attempt after which the run cannot go on: its video has no row."""
        self._over_budget = 0
        self._bytes_in_flight = 0
        self._gauged = 0.0
        self._notes: dict[str, str] = {}
        """By step: what it waits for, while it does."""

    def limits(self) -> Limits:
        execution, limits = self.job.execution, self.job.limits
        return Limits(
            max_units=max(8, 4 * (execution.workers or cpu_count())),
            route_units={"probe": 64, "publish": 2},
            at_once={"decode": execution.workers} if execution.workers else {},
            max_bytes=limits.bytes_in_flight,
            strikes=limits.attempts,
            pools=pool_sizes(self.job),
            batch={"probe": PROBES_A_CALL},
        )

    # What is next ---------------------------------------------------------------------------------

    @property
    def exhausted(self) -> bool:
        return self.listing.done and not (self._work or self._probes or self._tasks or self._batch or self._publishing)

    def take(self, routes: frozenset[str]) -> Unit | None:
        if "publish" in routes and self._batch_is_due():
            return self._publish_unit()
        if "probe" in routes and not ("task" in routes and self._tasks):
            while not self._probes and self._room() and self._accept_next():
                pass
        if "task" in routes and self._tasks:
            self._bytes_in_flight += self._tasks[0].bytes
            return self._tasks.popleft()
        if "probe" in routes and self._probes:
            return self._probes.popleft()
        return None

    def _room(self) -> bool:
        return len(self._tasks) < TASKS_AHEAD

    def _accept_next(self) -> bool:
        """Looks at the next listed object; False if there is none just now."""
        limit = self.job.limit
        if limit is not None and self._count["due"] >= limit:
            self.listing.close()
            return False
        item = self.listing.take()
        if item is None:
            if self.job.follow is not None and self.listing.rounds > self._rounds:
                self._rounds = self.listing.rounds
                try:
                    self.settle_away(complete=True)
                except TransientError as error:  # after the next listing, then
                    self.reporter.say(f"what could not be looked at is not written down yet: {error}")
            return False
        if self._unlisted is not None and not isinstance(item, VideoInfo):
            self._unlisted.see(item)
        video = as_video(item)
        if isinstance(item, Skipped) and item.video is not None and video.video_id in self._released:
            item = item.video  # by somebody who knows that it can be read all the same
        self._away.see(item, video.video_id)
        listed_as = _listed_as(item)
        if video.video_id in self._done_now and self._done_now[video.video_id][0] == listed_as:
            return True  # listed again while following
        self._count["listed"] += 1
        if isinstance(item, Skipped) and self._is_away(item, video):
            self._keep(video, item.error_class, item.reason, listed_as)
            return True
        if not isinstance(item, Skipped) and self.job.plan is None:
            self._away.welcome(video.video_id)
        due = video.video_id in self._released or is_due(item, self._known(video.video_id), self.run.pipeline_id)
        if not due or video.video_id in self._work:
            self._count["current"] += 1
            return True
        self._count["due"] += 1
        work = self._work[video.video_id] = _InWork(video, listed_as)
        if isinstance(item, Skipped):
            self._note_failure(work, None, "list", item.error_class, item.reason, None, 1, "", datetime.now(UTC))
            self._count["probed"] += 1
            self._finish(
                work, "failed" if item.error_class == "unreadable" else "declined", item.error_class, item.reason
            )
        elif isinstance(item, VideoInfo):
            self._cut_up(work, item)
        else:
            self._probes.append(Unit(video.video_id, video, "probe"))
        return True

    def _known(self, video_id: str) -> CommittedVideo | None:
        """What the lake says of the video, by an earlier run or by this one."""
        return self._done_now[video_id][1] if video_id in self._done_now else self._committed.get(video_id)

    def _answer(self, video_id: str) -> CommittedVideo | None:
        """The same; None where nobody could ever look at it."""
        known = self._known(video_id)
        if known is None or (known.status in ("failed", "declined") and known.error_class in NO_ANSWER):
            return None
        return known

    def _is_away(self, item: Skipped, video: Video) -> bool:
        """Whether the lake has an answer for what cannot be looked at just now: that is no new content."""
        if (answer := self._answer(video.video_id)) is None:
            return False
        return item.error_class in AWAY_CLASSES or (
            item.video is not None and is_due(item, answer, self.run.pipeline_id)
        )

    def _keep(
        self, video: Video, error_class: str, reason: str, listed_as: str, failures: Sequence[Failure] = ()
    ) -> bool:
        """Leaves the answer as it is, and counts the video as failed, or as declined where it is archived. False where
        that was done before, while following. `failures`: of the attempts to look at it."""
        answer = self._known(video.video_id)
        assert answer is not None
        if self.job.follow is not None:
            self._done_now[video.video_id] = listed_as, answer
        told = reason.removeprefix(f"{video.uri}: ")
        if not self._away.keep(video.video_id, f"{error_class}: {told}"):
            return False
        why = f"it could not be looked at, and what the lake has of it is kept: {told}"
        status = kept_as(error_class)
        if not failures:
            failures = (
                Failure(
                    uri=video.uri,
                    video_id=video.video_id,
                    task_id=None,
                    stage="list",
                    error_class=error_class,
                    error=why,
                    traceback=None,
                    attempt=1,
                    host=socket.gethostname(),
                    run_id=self.run.run_id,
                    at=datetime.now(UTC),
                ),
            )
        self._kept += failures
        self._count["kept"] += 1
        self._tally(video, status, error_class, why)
        if listed_as:
            self.reporter.say(f"{status}: {named(video, why)}", status=status, error_class=error_class)
        return True

    def settle_away(self, *, complete: bool) -> None:
        """At the end of a listing: what lies below places that could not be looked into is away too, and the rows of
        all that is away say so. `complete`: all of the archive was listed."""
        for why in self._away.returned():
            error_class = why.partition(":")[0]
            self._count["kept"] -= 1
            self._statuses[kept_as(error_class)] -= 1
            self._errors[error_class] -= 1
            self._over_budget -= counts_as_failure(kept_as(error_class), error_class)
        below: Counter[str] = Counter()
        for video_id, uri, place in self._away.below(self._lake):
            if self._answer(video_id) is not None:
                why = f"{place.uri}: {place.reason}"
                below[why] += self._keep(Video(uri, 0, ""), place.error_class, why, "")
                self._record_kept(KEPT_AT_ONCE)
        self._record_kept(1)
        self._away.settle(self._lake, complete=complete)
        for why, number in (+below).items():  # a line for each place, not for each video
            self.reporter.say(f"{number} video(s) could not be looked at, and what the lake has of them is kept: {why}")

    def _record_kept(self, at_least: int) -> None:
        if len(self._kept) >= at_least:
            record_failures(self._lake, tuple(self._kept), self.run)
            self._kept = []

    # What was done --------------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """Listens to the executor: every failed attempt becomes a row, even if a later one succeeds."""
        match event:
            case AttemptFailed(unit=unit, fault=fault):
                self.metrics.count("vidproc_failures_total", error_class=fault.error_class)
                if unit.route == "publish":
                    self.reporter.say(f"publishing failed: {fault.error}", error_class=fault.error_class)
                    return
                video_id = unit.item.video.video_id if isinstance(unit.item, Task) else unit.item.video_id
                work = self._work[video_id]
                task_id = unit.id if isinstance(unit.item, Task) else None
                failure = self._note_failure(
                    work, task_id, fault.stage, fault.error_class, fault.error, fault.traceback, event.attempt,
                    fault.host, event.at,
                )  # fmt: skip
                if fault.kind == "config":
                    self.stopped_by = (failure,)
                if fault.error_class == FastPathWrong.error_class:
                    self._staging.put_failure(failure, content_id=work.video.content_id)
                elif task_id is not None and event.blamed:
                    self._staging.put_failure(failure)  # a strike is remembered if this run dies
                if event.again_in_s is not None:
                    self.reporter.say(
                        f"{work.video.uri}: {fault.stage} failed ({fault.error_class}), trying again: {fault.error}"
                    )
            case PoolWaiting(step=step, wants=wants, why=why):
                self._notes[step] = f"{step} waits for a worker ({said(wants)}): {why}"
                self.reporter.say(self._notes[step], step=step, waited_s=round(event.waited_s))
                self.reporter.update(self.progress())
            case PoolChanged(step=step, ready=ready, starting=starting):
                self._count_actors(step, ready)
                self._notes[step] = "" if ready else f"{step}: {starting} worker(s) starting"
            case ClusterJoined(address=address, travels=travels):
                self.reporter.say(f"joined the Ray cluster at {address}; what travels there: {travels}")
            case SetupFailed(fault=fault, in_a_row=n):
                self.reporter.say(f"a model worker did not start ({n} in a row): {fault.error}")
            case _:
                pass

    @property
    def began(self) -> bool:
        """Something was done that stays; probing leaves nothing."""
        return bool(self._count["tasks_done"] or self._count["done"])

    def _count_actors(self, step: str, ready: int) -> None:
        now = time.monotonic()
        before, since = self._actors.get(step, (0, now))
        self._actors_s[step] += before * (now - since)
        self._actors[step] = ready, now

    def ended(self, end: UnitEnd) -> None:
        for step, seconds in end.seconds.items():
            self._busy[step] += seconds
            self._notes.pop(step, None)
            self.metrics.count("vidproc_stage_seconds_total", seconds, stage=step)
        if end.unit.route == "probe":
            self._probed(self._work[end.unit.id], end)
        elif end.unit.route == "task":
            self._bytes_in_flight -= end.unit.bytes
            self._indexed(self._work[end.unit.item.video.video_id], end)
        else:
            self._published(end)

    def _probed(self, work: _InWork, end: UnitEnd) -> None:
        if end.failure is not None:
            self._count["probed"] += 1
            work.attempts = end.attempts
            self._finish_failed_probe(work, end)
            return
        self._cut_up(work, end.result)

    def _cut_up(self, work: _InWork, info: VideoInfo) -> None:
        self._count["probed"] += 1
        self._video_s_known += info.duration_s
        video_id = work.video.video_id
        strikes: Counter[str | None] = Counter()
        if video_id in self._had_strikes:
            earlier = self._staging.failures(video_id)
            work.failures += earlier
            strikes.update(f.task_id for f in earlier)
            # A run that was killed had found the fast path wrong on this very file.
            info = replace(info, plain=info.plain or self._staging.is_plain(video_id, work.video.content_id))
        work.info = info
        work.tasks = cut(info, self.job.cut, self.pipeline.grids, self.run.pipeline_id)
        known = self._staged.pop(video_id, set())
        for task_id in known & {t.task_id for t in work.tasks}:
            with suppress(NotFound):  # a publication outlived the run that had begun it: the task is done again
                work.reports[task_id] = self._staging.report(video_id, task_id)
        if info.plain:
            self._drop(video_id, (known - set(work.reports)) | {t.task_id for t in self._fast_tasks(info)})
        self._count["tasks_resumed"] += len(work.reports)
        self._submit(work, strikes)

    def _submit(self, work: _InWork, strikes: Mapping[str | None, int]) -> None:
        """Has those tasks of the video done that are not done yet."""
        work.waiting = {t.task_id for t in work.tasks} - set(work.reports)
        for task in work.tasks:
            if task.task_id in work.waiting:
                self._task_s_open += task_seconds(task)
                self._tasks.append(
                    Unit(task.task_id, task, "task", bytes=task.bytes, attempts_before=strikes.get(task.task_id, 0))
                )
        self._settle_if_done(work)

    def _fast_tasks(self, info: VideoInfo) -> tuple[Task, ...]:
        return cut(replace(info, plain=False), self.job.cut, self.pipeline.grids, self.run.pipeline_id)

    def _drop(self, video_id: str, task_ids: Iterable[str]) -> None:
        """Removes what these tasks staged, also what they had not staged whole."""
        self._staging.discard_tasks((video_id, task_id) for task_id in task_ids)

    def _begin_plainly(self, work: _InWork, why: str) -> None:
        """The fast path was found wrong on this video: what it gave is thrown away, and all is decoded plainly. The
        failure that says so is staged already, so a run that begins again does the same."""
        assert work.info is not None and not work.info.plain
        video_id = work.video.video_id
        self.reporter.say(f"{why}; all of it is decoded plainly now", error_class=FastPathWrong.error_class)
        queued = {u.id: u for u in self._tasks if u.item.video.video_id == video_id}
        self._tasks = deque(u for u in self._tasks if u.id not in queued)
        self._task_s_open -= sum(task_seconds(u.item) for u in queued.values())
        self._task_s_done -= work.done_s
        work.done_s, work.attempts = 0.0, 1
        work.abandoned = work.waiting - set(queued)
        self._drop(video_id, {t.task_id for t in work.tasks} - work.abandoned)
        work.reports.clear()
        work.info = replace(work.info, plain=True)
        work.tasks = cut(work.info, self.job.cut, self.pipeline.grids, self.run.pipeline_id)
        self._submit(work, {})

    def _finish_failed_probe(self, work: _InWork, end: UnitEnd) -> None:
        fault = end.failure
        assert fault is not None
        status: Status = "declined" if fault.kind == "media" else "failed"
        self._finish(work, status, fault.error_class, redact(fault.error))

    def _indexed(self, work: _InWork, end: UnitEnd) -> None:
        seconds = task_seconds(end.unit.item)
        self._task_s_open -= seconds
        if end.unit.id in work.abandoned:
            work.abandoned.discard(end.unit.id)
            self._drop(work.video.video_id, {end.unit.id})
            self._settle_if_done(work)
            return
        work.waiting.discard(end.unit.id)
        if end.failure is not None and end.failure.error_class == FastPathWrong.error_class:
            self._begin_plainly(work, end.failure.error)
            return
        work.attempts = max(work.attempts, end.attempts)
        if isinstance(end.result, TaskDone):
            work.reports[end.unit.id] = end.result.report
            self._count["tasks_done"] += 1
            self._count["tasks_verified"] += end.result.report.decode.verified
            self._task_s_done += seconds
            work.done_s += seconds
            self._moved_s = time.monotonic() - self.started
            self.metrics.count("vidproc_clips_total", len(end.unit.item.clips))
            self.metrics.count("vidproc_frames_total", end.result.report.decode.frames_sampled)
            self._count["bytes_read"] += end.result.report.decode.bytes_read
        self._settle_if_done(work)

    def _settle_if_done(self, work: _InWork) -> None:
        if not work.waiting and not work.abandoned:
            self._settle(work)

    def _settle(self, work: _InWork) -> None:
        """All tasks of a video have ended: what decoded is compared with what the container promised."""
        assert work.info is not None
        reports = [work.reports[t.task_id] for t in work.tasks if t.task_id in work.reports]
        share = coverage(work.info, [r.decode for r in reports])
        lost = {t.task_id for t in work.tasks} - set(work.reports)
        given_up = [f for f in work.failures if f.task_id in lost]
        errors = [r.decode.error for r in reports if r.decode.error]
        error_class: str | None = None
        error: str | None = None
        if given_up:
            error_class, error = given_up[-1].error_class, given_up[-1].error
        elif errors:
            error_class, error = "decode", errors[0]
        elif share < 1:
            damaged_s = sum(r.decode.missing_s for r in reports)
            if damaged_s > 0:
                error_class, error = "decode", f"{damaged_s:.3f} s of it are not whole: see the warnings"
            else:
                error_class = "truncated"
                error = f"{share:.2%} of the {work.info.duration_s:.2f} s that the container promises could be decoded"
        decoded = sum(r.decode.frames_decoded for r in reports)
        if error_class is None:
            status: Status = "indexed"
        else:
            status = "partial" if decoded else "failed"
        if (errors and not given_up) or error_class == "truncated":
            self._note_failure(
                work, None, "decode", str(error_class), str(error), None, work.attempts, "", datetime.now(UTC)
            )
        self._finish(work, status, error_class, error, share if decoded else 0.0)

    def _finish(
        self, work: _InWork, status: Status, error_class: str | None, error: str | None, share: float = 0.0
    ) -> None:
        if status in ("failed", "declined") and error_class in PASSING_CLASSES and self._answer(work.video.video_id):
            self._keep(work.video, error_class, str(error), work.listed_as, work.failures)
            del self._work[work.video.video_id]
            self._count["done"] += 1
            return
        reports = [work.reports[t.task_id] for t in work.tasks if t.task_id in work.reports]
        outcome = VideoOutcome(
            video=work.video,
            info=work.info,
            status=status,
            coverage=share,
            error_class=error_class,
            error=error,
            attempts=work.attempts,
            task_ids=tuple(r.task_id for r in reports),
            frames_decoded=sum(r.decode.frames_decoded for r in reports),
            frames_sampled=sum(r.decode.frames_sampled for r in reports),
            failures=tuple(work.failures),
            duration_s=max((r.decode.end_s or 0.0 for r in reports), default=0.0),
            warnings=self._warnings(work, reports),
        )
        if not self._batch:
            self._batch_since = time.monotonic()
        self._batch.append(outcome)
        self._batch_rows += sum(sum(r.rows.values()) for r in reports)
        self._tally(work.video, status, error_class, error)
        self._count["plain"] += plainly(outcome)
        self._frames_decoded += outcome.frames_decoded
        self._frames_sampled += outcome.frames_sampled
        self._video_s_done += outcome.duration_s
        if status != "indexed":
            self.reporter.say(f"{status}: {named(work.video, error)}", status=status, error_class=error_class)

    @staticmethod
    def _warnings(work: _InWork, reports: Sequence[TaskReport]) -> tuple[str, ...]:
        """What the probe found odd, and what decoding did, each once."""
        if work.info is None:
            return ()
        plain = (PLAIN,) if work.info.plain else ()
        decoded = merged(w for r in reports for w in r.decode.warnings)
        return tuple(dict.fromkeys((*plain, *work.info.warnings, *decoded)))

    def _tally(self, video: Video, status: Status, error_class: str | None, error: str | None, by: int = 1) -> None:
        self._statuses[status] += by
        if error_class is not None:
            self._errors[error_class] += by
            self._examples.setdefault(error_class, named(video, error))
        self._over_budget += by * counts_as_failure(status, error_class)

    def _recount(self, outcome: VideoOutcome, status: Status, error_class: str, error: str) -> None:
        self._tally(outcome.video, outcome.status, outcome.error_class, outcome.error, by=-1)
        self._tally(outcome.video, status, error_class, error)

    def _batch_is_due(self) -> bool:
        if not self._batch:
            return False
        return (
            len(self._batch) >= self.job.execution.publish_videos
            or self._batch_rows >= (ROWS_A_BATCH if self._publishing else ROWS_WORTH_LINKING)
            or time.monotonic() - self._batch_since >= self.job.execution.publish_seconds
            or (self.listing.idle and len(self._batch) + self._in_publication() == len(self._work))
        )

    def _in_publication(self) -> int:
        return sum(len(batch) for batch in self._publishing.values())

    def _publish_unit(self) -> Unit:
        batch, self._batch, self._batch_rows = tuple(self._batch), [], 0
        unit = Unit(f"publish-{self._count['batches']}", batch, "publish")
        self._count["batches"] += 1
        self._publishing[unit.id] = batch
        return unit

    def _published(self, end: UnitEnd) -> None:
        batch = self._publishing[end.unit.id]
        if end.failure is not None:
            raise RunAborted(
                f"{len(batch)} finished videos could not be published: {end.failure.error}. Their work is kept in the "
                "lake's staging area: mend the cause and run the same command again."
            )
        del self._publishing[end.unit.id]
        report: PublishReport = end.result
        self._rows.update(report.rows)
        failed = set(report.link_failed)
        for outcome in batch:
            if outcome.video.video_id in failed:
                self._recount(outcome, "failed", "internal", "linking failed: see the failures table")
            elif outcome.video.video_id in report.missing:
                why = "its staged parts were taken away meanwhile (forget, or another run); the next run does it again"
                self._recount(outcome, "failed", "transient", why)
                self._count["taken_away"] += 1
                self.reporter.say(f"{outcome.video.uri}: {why}")
        for outcome in batch:
            self.metrics.count("vidproc_videos_total", status=outcome.status)
        ended = {outcome.video.video_id for outcome in batch}
        if self.job.follow is not None:
            for o in batch:
                said = CommittedVideo(o.video.content_id, self.run.pipeline_id, o.status, o.error_class)
                self._done_now[o.video.video_id] = self._work[o.video.video_id].listed_as, said
        self._storage.delete(self._released_prefix + video_id for video_id in ended & self._released)
        self._released -= ended
        for video_id in ended:
            del self._work[video_id]
        self._count["done"] += len(batch)

    def remove_unlisted(self) -> None:
        """After the last video: those that earlier runs indexed and the archive no longer lists."""
        self.settle_away(complete=self.job.plan is None and self.job.limit is None)
        if self._unlisted is None:
            return
        self._count["removed"] = number = self._unlisted.remove(self._lake)
        if self._unlisted.doubt:
            self.reporter.say(f"rows of videos that are no longer listed are kept: {self._unlisted.doubt}")
        if number:
            self.reporter.say(f"{number} video(s) that the archive no longer lists were removed", removed=number)

    def _note_failure(
        self, work: _InWork, task_id: str | None, stage: str, error_class: str, error: str, traceback: str | None,
        attempt: int, host: str, at: datetime,
    ) -> Failure:  # fmt: skip
        failure = Failure(
            uri=work.video.uri,
            video_id=work.video.video_id,
            task_id=task_id,
            stage=stage,
            error_class=error_class,
            error=redact(error),
            traceback=redact(traceback) if traceback else None,
            attempt=attempt,
            host=host or socket.gethostname(),
            run_id=self.run.run_id,
            at=at,
        )
        work.failures.append(failure)
        return failure

    # What it came to ------------------------------------------------------------------------------

    def progress(self) -> Progress:
        now = time.monotonic()
        if now - self._gauged >= GAUGE_EVERY_S:
            self._gauged = now
            for stage, units in (("probe", self._probes), ("task", self._tasks)):
                self.metrics.gauge("vidproc_queue_length", len(units), stage=stage)
            self.metrics.gauge("vidproc_queue_length", len(self._batch), stage="publish")
            self.metrics.gauge("vidproc_bytes_in_flight", self._bytes_in_flight)
        return Progress(
            elapsed_s=time.monotonic() - self.started,
            listed=self._count["listed"],
            listing_done=self.listing.done,
            current=self._count["current"],
            due=self._count["due"],
            done=self._count["done"] + self._in_publication() + len(self._batch),
            failed=self._statuses["failed"],
            video_s_known=self._video_s_known,
            video_s_done=self._task_s_done,
            video_s_open=self._task_s_open,
            moved_s=self._moved_s,
            probed=self._count["probed"],
            in_work=len(self._work),
            tasks_waiting=len(self._tasks),
            note="; ".join(filter(None, self._notes.values())),
        )

    def summary(self, outcome: str, reason: str, elapsed_s: float) -> RunSummary:
        for step, (ready, _) in list(self._actors.items()):
            self._count_actors(step, ready)
        unpublished = [*self._batch, *itertools.chain.from_iterable(self._publishing.values())]
        for ended_early in unpublished:  # no reader sees them yet, and the next run counts them
            self._tally(ended_early.video, ended_early.status, ended_early.error_class, ended_early.error, by=-1)
            self._count["plain"] -= plainly(ended_early)
        ended = sum(self._statuses.values())
        code = {"ok": 0, "interrupted": 130, "failed": 1}[outcome]
        if outcome == "ok":
            share, number = parse_failure_budget(self.job.limits.max_failures)
            budget = number if number is not None else (share or 0.0) * ended
            if self._over_budget > budget:
                outcome, code = "failed", 1
                reason = (
                    f"{self._over_budget} of {ended} videos failed, above the budget of {self.job.limits.max_failures}"
                )
            else:
                reason = f"{self._over_budget} of {ended} videos failed, within {self.job.limits.max_failures}"
        if self._count["plain"]:
            reason += f"; {self._count['plain']} decoded plainly, as the fast path gave other pictures of them"
        if self._count["kept"]:
            reason += f"; {self._count['kept']} could not be looked at, and keep what the lake has of them"
        if outcome != "interrupted" and self._count["taken_away"]:  # whatever the budget: they are not in the lake
            outcome, code = "failed", 1
            reason += (
                f"; what was staged of {self._count['taken_away']} video(s) was taken away before it was published "
                "(vacuum, forget, or another run): run the same command again"
            )
        if self._count["removed"]:
            reason += f"; {self._count['removed']} removed that the archive no longer lists"
        if outcome == "interrupted" and unpublished:
            reason += f"; {len(unpublished)} finished video(s) are kept for it, and not in the tables yet"
        return RunSummary(
            run_id=self.run.run_id,
            outcome=outcome,
            reason=reason,
            exit_code=code,
            listed=self._count["listed"],
            current=self._count["current"],
            due=self._count["due"],
            removed=self._count["removed"],
            plain=self._count["plain"],
            statuses=dict(+self._statuses),
            errors=dict(+self._errors),
            examples=dict(self._examples),
            rows=dict(self._rows),
            frames_decoded=self._frames_decoded,
            frames_sampled=self._frames_sampled,
            tasks_done=self._count["tasks_done"],
            tasks_resumed=self._count["tasks_resumed"],
            tasks_verified=self._count["tasks_verified"],
            bytes_read=self._count["bytes_read"],
            video_s=self._video_s_done,
            elapsed_s=elapsed_s,
            busy_s=dict(self._busy),
            actors_s=dict(self._actors_s),
            pipeline_id=self.run.pipeline_id,
        )


def plainly(outcome: VideoOutcome) -> bool:
    """Whether the video was decoded without the fast path, since that was found wrong on it."""
    return outcome.info is not None and outcome.info.plain


def named(video: Video, error: str | None) -> str:
    """The sentence with the video's URI in front, once."""
    return str(error) if error and error.startswith(video.uri) else f"{video.uri}: {error}"


def as_video(item: Listed) -> Video:
    """What is listed but not worth opening counts as a video too: it gets its row."""
    if isinstance(item, VideoInfo):
        return item.video
    if isinstance(item, Skipped):
        return item.video or Video(item.uri, 0, f"{item.error_class}:0")
    return item


def _listed_as(item: Listed) -> str:
    """Differs whenever the content does, or whether it can be read."""
    content_id = as_video(item).content_id
    return f"{item.error_class}:{content_id}" if isinstance(item, Skipped) else content_id


def kept_as(error_class: str) -> Status:
    """As what a video counts that cannot be looked at and keeps its answer."""
    return "declined" if error_class == Archived.error_class else "failed"


def is_due(item: Listed, committed: CommittedVideo | None, pipeline_id: str) -> bool:
    """New, changed, made by another pipeline, or ended for a passing reason. What lies in an archive tier is due once
    it is restored."""
    if committed is None or committed.content_id != as_video(item).content_id or committed.pipeline_id != pipeline_id:
        return True
    if committed.status == "indexed" or committed.error_class not in PASSING_CLASSES:
        return False
    still_archived = isinstance(item, Skipped) and item.error_class == committed.error_class == "archived"
    return not still_archived


def counts_as_failure(status: Status, error_class: str | None) -> bool:
    """Against the failure budget. What is wrong with a file alone (declined, cut short) is not."""
    return status == "failed" or (status == "partial" and error_class not in ("decode", "truncated"))
