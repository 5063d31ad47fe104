"""The videos in work: their probes and tasks that wait, and what is made of those that ended."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from vidproc.errors import FastPathWrong, NotFound
from vidproc.media import Grid, Task, VideoInfo
from vidproc.progress import Reporter
from vidproc.run.due import Listed, listed_as, source_of
from vidproc.run.summary import RunTally
from vidproc.run.work import VideoEnd, VideoWork
from vidproc.runtime.metrics import Metrics
from vidproc.runtime.units import Unit, UnitEnd
from vidproc.secrets import redact
from vidproc.settings import CutSettings
from vidproc.tables.outcome import Status, failure_of
from vidproc.tables.publish import RunInfo
from vidproc.tables.staging import Staging, TaskReport
from vidproc.video.archive import Skipped
from vidproc.video.plan import cut, task_seconds

TASKS_AHEAD = 256
"""Tasks that wait for the executor before another video is probed: enough that small files keep every
decoder busy. What the executor has taken is its own to bound: on a large cluster that is more."""


class Workload:
    """Takes what is due, cuts it into tasks, and calls `on_end` when the last task of a video has ended."""

    def __init__(
        self,
        staging: Staging,
        run: RunInfo,
        *,
        grids: tuple[Grid, ...],
        cut_settings: CutSettings,
        tally: RunTally,
        metrics: Metrics,
        reporter: Reporter,
        on_end: Callable[[VideoWork, VideoEnd], None],
    ) -> None:
        self._staging, self._run, self._grids, self._cut_settings = staging, run, grids, cut_settings
        self._tally, self._metrics, self._reporter, self._on_end = tally, metrics, reporter, on_end
        self._staged: dict[str, set[str]] = {}
        """By video_id: tasks that earlier runs have done."""
        for video_id, task_id in staging.finished():
            self._staged.setdefault(video_id, set()).add(task_id)
        self._had_strikes = set(staging.failed())
        self.videos: dict[str, VideoWork] = {}
        """By video_id, until they are published."""
        self.probes: deque[Unit] = deque()
        self.tasks: deque[Unit] = deque()
        self.bytes_in_flight = 0
        self.seconds_done = self.seconds_open = 0.0
        """Seconds of video in the tasks that this run has done, and in those that have not ended."""
        self.last_done_at: float | None = None
        """When a task ended last (monotonic seconds)."""

    @property
    def has_room(self) -> bool:
        """Whether another video may be probed."""
        return len(self.tasks) < TASKS_AHEAD

    def take_task(self) -> Unit:
        self.bytes_in_flight += self.tasks[0].bytes
        return self.tasks.popleft()

    def begin(self, item: Listed) -> None:
        """Take what is due: a skipped object ends here, a video of a plan is cut up, any other is probed first."""
        source = source_of(item)
        work = self.videos[source.video_id] = VideoWork(source, listed_as(item))
        if isinstance(item, Skipped):
            self._note_failure(work, "list", item.error_class, item.reason)
            self._tally.probed += 1
            status: Status = "failed" if item.error_class == "unreadable" else "declined"
            self._on_end(work, VideoEnd(status=status, error_class=item.error_class, error=item.reason))
        elif isinstance(item, VideoInfo):
            self._cut_up(work, item)
        else:
            self.probes.append(Unit(item.video_id, item, "probe"))

    def probed(self, end: UnitEnd) -> None:
        work = self.videos[end.unit.id]
        if (fault := end.failure) is None:
            self._cut_up(work, end.result)
            return
        self._tally.probed += 1
        work.attempts = end.attempts
        status: Status = "declined" if fault.kind == "media" else "failed"
        self._on_end(work, VideoEnd(status=status, error_class=fault.error_class, error=redact(fault.error)))

    def indexed(self, end: UnitEnd) -> None:
        """A task has ended."""
        task: Task = end.unit.item
        work = self.videos[task.video.video_id]
        seconds = task_seconds(task)
        self.bytes_in_flight -= end.unit.bytes
        self.seconds_open -= seconds
        if end.unit.id in work.abandoned:
            work.abandoned.discard(end.unit.id)
            self._discard(task.video.video_id, {end.unit.id})
            self._end_if_done(work)
            return
        work.waiting.discard(end.unit.id)
        if end.failure is not None and end.failure.error_class == FastPathWrong.error_class:
            self._begin_plainly(work, end.failure.error)
            return
        work.attempts = max(work.attempts, end.attempts)
        if isinstance(end.result, TaskReport):
            work.reports[end.unit.id] = end.result
            work.done_s += seconds
            self.seconds_done += seconds
            self.last_done_at = time.monotonic()
            self._count(task, end.result)
        self._end_if_done(work)

    def _count(self, task: Task, report: TaskReport) -> None:
        self._tally.tasks_done += 1
        self._tally.tasks_verified += report.decode.verified
        self._tally.bytes_read += report.decode.bytes_read
        self._metrics.count("vidproc_clips_total", len(task.clips))
        self._metrics.count("vidproc_frames_total", report.decode.frames_sampled)

    def _cut_up(self, work: VideoWork, info: VideoInfo) -> None:
        self._tally.probed += 1
        self._tally.video_s_known += info.duration_s
        video_id = work.source.video_id
        strikes: Counter[str | None] = Counter()
        if video_id in self._had_strikes:
            earlier = self._staging.failures(video_id)
            work.failures += earlier
            strikes.update(f.task_id for f in earlier)
            # A run that was killed had found the fast path wrong on this very file.
            info = replace(info, plain=info.plain or self._staging.is_plain(video_id, work.source.content_id))
        work.info = info
        work.tasks = self._tasks_of(info)
        known = self._staged.pop(video_id, set())
        for task_id in known & {t.task_id for t in work.tasks}:
            with suppress(NotFound):  # a publication outlived the run that had begun it: the task is done again
                work.reports[task_id] = self._staging.report(video_id, task_id)
        if info.plain:
            fast = {t.task_id for t in self._tasks_of(replace(info, plain=False))}
            self._discard(video_id, (known - set(work.reports)) | fast)
        self._tally.tasks_resumed += len(work.reports)
        self._submit(work, strikes)

    def _tasks_of(self, info: VideoInfo) -> tuple[Task, ...]:
        return cut(info, self._cut_settings, self._grids, self._run.pipeline_id)

    def _submit(self, work: VideoWork, strikes: Mapping[str | None, int]) -> None:
        """Queue those tasks of the video that are not done yet. `strikes`: of earlier runs, by task_id."""
        work.waiting = {t.task_id for t in work.tasks} - set(work.reports)
        for task in work.tasks:
            if task.task_id in work.waiting:
                self.seconds_open += task_seconds(task)
                self.tasks.append(
                    Unit(task.task_id, task, "task", bytes=task.bytes, attempts_before=strikes.get(task.task_id, 0))
                )
        self._end_if_done(work)

    def _begin_plainly(self, work: VideoWork, why: str) -> None:
        """The fast path was found wrong on this video: what it gave is thrown away, and all is decoded plainly. The
        failure that says so is staged already, so a run that begins again does the same."""
        assert work.info is not None and not work.info.plain
        video_id = work.source.video_id
        self._reporter.say(f"{why}; all of it is decoded plainly now", error_class=FastPathWrong.error_class)
        queued = {u.id: u for u in self.tasks if u.item.video.video_id == video_id}
        self.tasks = deque(u for u in self.tasks if u.id not in queued)
        self.seconds_open -= sum(task_seconds(u.item) for u in queued.values())
        self.seconds_done -= work.done_s
        work.done_s, work.attempts = 0.0, 1
        work.abandoned = work.waiting - set(queued)
        self._discard(video_id, {t.task_id for t in work.tasks} - work.abandoned)
        work.reports.clear()
        work.info = replace(work.info, plain=True)
        work.tasks = self._tasks_of(work.info)
        self._submit(work, {})

    def _discard(self, video_id: str, task_ids: Iterable[str]) -> None:
        """Remove what these tasks staged, also what they had not staged whole."""
        self._staging.discard_tasks((video_id, task_id) for task_id in task_ids)

    def _end_if_done(self, work: VideoWork) -> None:
        if not work.has_ended:
            return
        end = work.end()
        if end.found_at_the_end:
            self._note_failure(work, "decode", str(end.error_class), str(end.error))
        self._on_end(work, end)

    def _note_failure(self, work: VideoWork, stage: str, error_class: str, error: str) -> None:
        work.failures.append(
            failure_of(
                work.source, self._run.run_id, stage=stage, error_class=error_class, error=error, attempt=work.attempts
            )
        )
