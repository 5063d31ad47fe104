"""Failures of a run: every failed attempt becomes a row of `failures`, also where a later one succeeds."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from vidproc.errors import FastPathWrong
from vidproc.media import Task
from vidproc.progress import Reporter
from vidproc.run.work import VideoWork
from vidproc.runtime.events import AttemptFailed
from vidproc.runtime.metrics import Metrics
from vidproc.secrets import redact
from vidproc.tables.outcome import Failure
from vidproc.tables.staging import Staging


class FailedAttempts:
    """Keeps what the executor tells of failed attempts: with the video, and staged where the next run must know."""

    def __init__(self, run_id: str, staging: Staging, metrics: Metrics, reporter: Reporter) -> None:
        self._run_id, self._staging, self._metrics, self._reporter = run_id, staging, metrics, reporter
        self.stopped_by: tuple[Failure, ...] = ()
        """The attempt after which the run cannot go on: its video has no row."""

    def add(self, event: AttemptFailed, videos: Mapping[str, VideoWork]) -> None:
        """`videos`: those in work, by video_id."""
        unit, fault = event.unit, event.fault
        self._metrics.count("vidproc_failures_total", error_class=fault.error_class)
        if unit.route == "publish":
            self._reporter.say(f"publishing failed: {fault.error}", error_class=fault.error_class)
            return
        is_task = isinstance(unit.item, Task)
        work = videos[unit.item.video.video_id if is_task else unit.item.video_id]
        failure = self._failure(event, work, unit.id if is_task else None)
        work.failures.append(failure)
        if fault.kind == "config":
            self.stopped_by = (failure,)
        if fault.error_class == FastPathWrong.error_class:
            self._staging.put_failure(failure, content_id=work.source.content_id)
        elif is_task and event.blamed:
            self._staging.put_failure(failure)  # a strike is remembered if this run dies
        if event.again_in_s is not None:
            self._reporter.say(
                f"{work.source.uri}: {fault.stage} failed ({fault.error_class}), trying again: {fault.error}"
            )

    def _failure(self, event: AttemptFailed, work: VideoWork, task_id: str | None) -> Failure:
        fault = event.fault
        return Failure(
            uri=work.source.uri,
            video_id=work.source.video_id,
            task_id=task_id,
            stage=fault.stage,
            error_class=fault.error_class,
            error=redact(fault.error),
            traceback=redact(fault.traceback) if fault.traceback else None,
            attempt=event.attempt,
            host=fault.host or socket.gethostname(),
            run_id=self._run_id,
            at=event.at,
        )
