"""What follows a run: its report and its message. Neither can fail the night, and what fails is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vidproc.look.notify import post
from vidproc.progress import Reporter
from vidproc.run.pipeline import storage_options
from vidproc.secrets import host_of, redact

if TYPE_CHECKING:
    from vidproc.run.summary import RunSummary
    from vidproc.settings import Job
    from vidproc.storage import StorageOptions


def after_run(job: Job, summary: RunSummary, reporter: Reporter) -> None:
    """Write `job.report` and tell `job.notify`, where the job has them. Raises nothing."""
    link = _report(job, reporter) if job.report else None
    if job.notify:
        _notify(job.notify, message(job, summary) | {"report": link}, reporter)


def after_refusal(job: Job, error: Exception, reporter: Reporter) -> None:
    """Tell `job.notify` of a night that could not begin, or that ended in an error. Raises nothing."""
    if job.notify:
        said = {"lake": job.lake, "pipeline": job.name, "outcome": "failed", "reason": redact(str(error))}
        _notify(job.notify, said | {"exit_code": getattr(error, "exit_code", None), "report": None}, reporter)


def message(job: Job, summary: RunSummary) -> dict[str, Any]:
    """What is posted: counts and outcome."""
    return {
        "lake": job.lake,
        "pipeline": job.name,
        "run_id": summary.run_id,
        "outcome": summary.outcome,
        "exit_code": summary.exit_code,
        "reason": summary.reason,
        "videos": dict(summary.statuses),
        "already_there": summary.current,
        "due": summary.due,
        "errors": dict(summary.errors),
        "rows": {name: n for name, n in summary.rows.items() if n},
        "video_seconds": round(summary.video_s, 3),
        "elapsed_seconds": round(summary.elapsed_s, 3),
    }


def _report(job: Job, reporter: Reporter) -> str | None:
    """The address of the report; None where it could not be written."""
    from vidproc.ask import connect
    from vidproc.look.report import report

    assert job.report is not None
    try:
        options = storage_options(job)
        with connect(job.lake, options, pipeline=_known(job, options)) as lake:
            made = report(lake, job.report, options=options, archive_options=storage_options(job, archive=True))
    except Exception as error:  # whatever it is: the night is over, and its rows are safe
        reporter.say(f"the report could not be written to {redact(job.report)}: {type(error).__name__}: {error}")
        return None
    missing = f", {made.missing} pictures missing" if made.missing else ""
    reporter.say(f"report: {redact(made.out)} ({made.bytes:,} bytes{missing})")
    return made.out


def _known(job: Job, options: StorageOptions) -> str | None:
    """The job's pipeline, once the lake has a video of it."""
    from vidproc.tables.lake import Lake

    return job.name if job.name in Lake.open(job.lake, options).status().by_pipeline else None


def _notify(url: str, said: Mapping[str, Any], reporter: Reporter) -> None:
    try:
        post(url, said)
    except Exception as error:
        reporter.say(f"the message was not delivered: {type(error).__name__}: {error}")
    else:
        reporter.say(f"told {host_of(url)} how the run ended")
