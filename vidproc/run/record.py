"""A run's row in the lake: written at its start, and over that at its end."""

from __future__ import annotations

import json
import shlex
import socket
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from vidproc import __version__
from vidproc.errors import VidprocError
from vidproc.progress import Progress, Reporter
from vidproc.run.pipeline import Pipeline
from vidproc.run.summary import RunSummary
from vidproc.secrets import redact
from vidproc.settings import Job
from vidproc.tables.heartbeat import Heartbeat
from vidproc.tables.lake import Lake
from vidproc.tables.own import remember
from vidproc.tables.publish import RunInfo


class RunRecord:
    """`info` names the run to everybody who writes rows of it."""

    def __init__(self, job: Job, pipeline: Pipeline, lake: Lake, *, command: str | None) -> None:
        started = datetime.now(UTC)
        run_id = f"{started:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        self.info = RunInfo(run_id=run_id, pipeline=pipeline.name, pipeline_id=pipeline.pipeline_id)
        self._lake = lake
        self._job = job.model_dump_json()
        self._about: dict[str, Any] = {
            "run_id": run_id,
            "command": command or shlex.join(sys.argv),
            "job": self._job,
            "pipeline": pipeline.name,
            "pipeline_id": pipeline.pipeline_id,
            "started_at": started,
            "host": socket.gethostname(),
            "versions": versions(),
        }

    def begin(self, reporter: Reporter) -> Heartbeat:
        """Write that the run goes on; returns the reporter that gives signs of life of it from here on."""
        remember(self._job)
        # The first write is one of our own, so that a lake which may only be read is refused in plain words.
        sign = {name: self._about[name] for name in ("run_id", "pipeline", "host", "started_at")}
        heartbeat = Heartbeat(reporter, self._lake.storage, **sign)
        heartbeat.sign(Progress())
        self._lake.record_run(self._about | {"outcome": "running"})
        return heartbeat

    def end(self, summary: RunSummary, reporter: Reporter) -> RunSummary:
        """Write how the run ended; returns the summary, which is a failure where that cannot be written."""
        try:
            self._lake.record_run(self._about | _end_of(summary))
        except VidprocError as error:
            # As by a key that was revoked meanwhile. The next command that sees the silent run writes down that it is
            # over.
            reporter.say(f"the end of this run could not be written into the lake: {error}")
            if summary.outcome == "ok":
                reason = f"{summary.reason}; its end could not be written into the lake: {redact(str(error))}"
                summary = replace(summary, outcome="failed", exit_code=1, reason=reason)
        return summary


def _end_of(summary: RunSummary) -> dict[str, Any]:
    return {
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


def versions() -> str:
    """What made the rows: the versions of the packages that decide about them."""
    from importlib.metadata import version

    names = ("ray", "torch", "torchvision", "av", "pyarrow", "deltalake", "onnxruntime")
    return json.dumps({"vidproc": __version__} | {n: version(n) for n in names})
