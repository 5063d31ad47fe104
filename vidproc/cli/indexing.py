"""index, plan, retry: the main job."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

import vidproc
from vidproc.api.jobs import make_job
from vidproc.cli.answers import plain, print_json, there_is
from vidproc.cli.options import (
    ArchiveArgument,
    DeviceOption,
    ExecutorOption,
    FilterOptions,
    JobFileOption,
    JsonOption,
    LakeArgument,
    LogFormatOption,
    ModelOptions,
    QuietOption,
    S3Options,
    absolute,
    expanded,
    setting_option,
)
from vidproc.errors import ConfigError
from vidproc.progress import hms, reporter, spell
from vidproc.text import printable, say

if TYPE_CHECKING:
    from vidproc.run.summary import RunSummary
    from vidproc.settings import Job

app = typer.Typer()


@app.command()
@expanded
def index(
    archive: ArchiveArgument = None,
    lake: Annotated[str | None, typer.Argument(metavar="LAKE", help="Where the tables go.", show_default=False)] = None,
    *,
    job: JobFileOption = None,
    models: ModelOptions,
    workers: Annotated[int | None, setting_option("execution.workers", "--workers")] = None,
    actors: Annotated[int | None, setting_option("execution.actors", "--actors")] = None,
    device: DeviceOption = None,
    executor: ExecutorOption = None,
    address: Annotated[str | None, setting_option("execution.address", "--address")] = None,
    max_failures: Annotated[
        str | None,
        setting_option("limits.max_failures", "--max-failures"),
    ] = None,
    verify: Annotated[
        str | None,
        setting_option("verify", "--verify", metavar="SHARE"),
    ] = None,
    hollow_pictures: Annotated[
        bool | None, setting_option("decode.hollow_pictures", "--hollow-pictures/--no-hollow-pictures")
    ] = None,
    partial_index: Annotated[
        bool | None, setting_option("decode.partial_index", "--partial-index/--no-partial-index")
    ] = None,
    plan: Annotated[str | None, setting_option("plan", "--plan")] = None,
    limit: Annotated[int | None, setting_option("limit", "--limit", metavar="N")] = None,
    follow: Annotated[
        float | None,
        setting_option("follow", "--follow", metavar="SECONDS"),
    ] = None,
    deleted: Annotated[
        Literal["keep", "remove"] | None,
        setting_option("deleted", "--deleted"),
    ] = None,
    report: Annotated[str | None, setting_option("report", "--report", metavar="PLACE")] = None,
    notify: Annotated[str | None, setting_option("notify", "--notify", metavar="URL")] = None,
    filters: FilterOptions,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: JsonOption = False,
    log_format: LogFormatOption = "auto",
    quiet: QuietOption = False,
    s3: S3Options,
) -> None:
    """Index what is new or changed in ARCHIVE into the tables of LAKE."""
    own = {
        "workers": workers, "actors": actors, "device": device, "executor": executor, "address": address,
        "max_failures": max_failures, "verify": verify, "plan": plan, "limit": limit, "follow": follow,
        "deleted": deleted, "hollow_pictures": hollow_pictures, "partial_index": partial_index,
        "report": report, "notify": notify,
    }  # fmt: skip
    wanted = make_job(archive, lake, job, own | models.given() | filters.given() | s3.given())
    if dry_run:
        _plan(wanted, None, 0.0, log_format, quiet=quiet, as_json=as_json)
    else:
        _run(wanted, log_format, quiet=quiet, as_json=as_json)


def _run(job: Job, log_format: str, *, quiet: bool, as_json: bool) -> NoReturn:
    with reporter(quiet=quiet, log_format=log_format) as shown:
        summary = vidproc.index(job=job, progress=shown)
        if log_format == "json":  # whoever reads the log alone learns how it ended
            shown.say(f"{summary.outcome}: {summary.reason}", summary=plain(summary))
    if as_json:
        print_json(plain(summary) | {"limited_by": summary.limited_by, "speed": summary.speed})
    else:
        show_summary(summary, job.lake)
    raise typer.Exit(summary.exit_code)


@app.command()
@expanded
def plan(
    archive: ArchiveArgument = None,
    *,
    lake: Annotated[str | None, typer.Option("--lake", help="Count only what this lake does not have yet.")] = None,
    job: JobFileOption = None,
    models: ModelOptions,
    workers: Annotated[int | None, setting_option("execution.workers", "--workers")] = None,
    device: DeviceOption = None,
    executor: ExecutorOption = None,
    calibrate: Annotated[
        float, typer.Option("--calibrate", min=0, help="Seconds of trial on your own files; 0: none.")
    ] = 30.0,
    save: Annotated[
        str | None,
        typer.Option("--save", help="Write the plan to this folder or s3:// prefix, for `index --plan`."),
    ] = None,
    limit: Annotated[int | None, setting_option("limit", "--limit", metavar="N")] = None,
    filters: FilterOptions,
    as_json: JsonOption = False,
    log_format: LogFormatOption = "auto",
    quiet: QuietOption = False,
    s3: S3Options,
) -> None:
    """Dry run: what is in ARCHIVE, what is new, and what indexing it would take."""
    own = {"workers": workers, "device": device, "executor": executor, "limit": limit}
    given = own | models.given() | filters.given() | s3.given()
    wanted = make_job(archive, lake, job, given, lake_optional=True)
    _plan(wanted, save, calibrate, log_format, quiet=quiet, as_json=as_json)


def _plan(job: Job, save: str | None, calibrate_s: float, log_format: str, *, quiet: bool, as_json: bool) -> None:
    with reporter(quiet=quiet, log_format=log_format, doing="planning") as shown:
        found = vidproc.plan(job=job, save=save, calibrate=calibrate_s, progress=shown)
    if as_json:
        print_json(found)
    else:
        say(*found.text().splitlines())


@app.command()
@expanded
def retry(
    lake: LakeArgument,
    *,
    error_class: Annotated[
        list[str] | None, typer.Option("--class", help="Only failures of this class; may be repeated.")
    ] = None,
    run: Annotated[
        bool, typer.Option("--run/--no-run", help="Index them at once, with the last run's job or --job.")
    ] = True,
    job: JobFileOption = None,
    trust_job: Annotated[
        bool,
        typer.Option("--trust-job", help="Run the lake's last job though somebody else ran it, or on another machine."),
    ] = False,
    log_format: LogFormatOption = "auto",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """Release what was given up, so that it is tried again."""
    from vidproc.run.release import release
    from vidproc.settings import load_job
    from vidproc.tables.own import what_it_names

    options = replace(s3.options(), anonymous=False)  # it writes to the lake
    given = None if job is None else load_job(job, {"lake": absolute(lake), "storage": s3.given()})
    found = release(absolute(lake), options, tuple(error_class or ()))
    released = sum(found.videos.values())
    if not (run and (given or found.job) is not None) and as_json:
        print_json({"released": released})
    elif not as_json:
        wanted = f" ({', '.join(error_class)})" if error_class else ""
        say(f"{released} video(s) released{wanted}" + ("" if released else there_is(found.classes)))
    if run and given is not None:
        _run(given, log_format, quiet=quiet, as_json=as_json)
    if run and found.hidden:
        raise ConfigError(
            f"the last job was written down without its secrets ([redacted] in {', '.join(found.hidden)}), so it "
            "cannot be run again from the lake alone. The videos are released: run `vidproc index` with the job file "
            "or the options of that time"
        )
    if run and found.job is not None and not (found.own or trust_job):
        raise ConfigError(
            f"the lake's last job was not run by you on this machine: it {what_it_names(found.job)}. The videos are "
            "released; give your own job by --job FILE, or say --trust-job if you know whose this one is"
        )
    if run and found.job is not None:
        others = ", ".join(f"{n} of {name}" for name, n in found.videos.items() if name != found.job.name)
        if others:
            print(printable(f"these wait for the next run of their own job: {others}"), file=sys.stderr)
        reached = {k: v for k, v in s3.given().items() if v is not None}
        storage = replace(found.job.storage, **reached)
        _run(found.job.model_copy(update={"storage": storage}), log_format, quiet=quiet, as_json=as_json)


LIMITS = {
    "start-up": "start-up (the steps took less than half of the time)",
    "probe": "probing (reading the archive)",
    "decode": "decoding (with reading the archive)",
    "publish": "publishing (writing the lake)",
    "infer": "the models",
}
"""What limited a run, in words, by step; a model with a pool of its own goes by its step's name."""


def show_summary(summary: RunSummary, lake: str) -> None:
    """Print how a run ended, for people."""
    counts = ", ".join(f"{n} {s}" for s, n in sorted(summary.statuses.items()))
    counts = counts or (f"none of {summary.due:,} due videos ended" if summary.due else "nothing was due")
    say(f"{summary.outcome}: {counts}" + (f"; {summary.current} already there" if summary.current else "")
          + (f"; {summary.plain} decoded plainly" if summary.plain else "")
          + (f"; {summary.removed} removed, no longer in the archive" if summary.removed else ""))  # fmt: skip
    if summary.due:
        rows = ", ".join(f"{n:,} {t}" for t, n in summary.rows.items() if n)
        say(f"rows: {rows or 'none'}")
        print(
            f"{spell(summary.video_s)} of video in {hms(summary.elapsed_s)} = {summary.speed:.1f}x real time; "
            f"{summary.frames_decoded:,} frames decoded, {summary.frames_sampled:,} sampled"
        )
        busy = sorted(summary.busy_s.items(), key=lambda kv: -kv[1])
        if busy:
            steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in busy)
            limit = summary.limited_by
            say(f"time in steps: {steps}; limited by {LIMITS.get(limit or '', limit)}")
    for error_class, number in sorted(summary.errors.items(), key=lambda kv: -kv[1])[:5]:
        say(f"  {number} x {error_class}, for example {summary.examples[error_class]}")
    say(f"exit code {summary.exit_code}: {summary.reason}")
    if summary.due:
        say(f'next: vidproc query {lake} "SELECT label, count(*) FROM detections GROUP BY label"')
