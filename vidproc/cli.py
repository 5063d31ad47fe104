"""The command line. Each command is one call of the Python API, and a way to show what it answers.

Exit codes: 0 all well; 1 above the failure budget, or the run was aborted; 2 bad usage or
configuration, found before work starts; 130 interrupted, resumable.
"""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import date, datetime, time
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NoReturn, cast, get_type_hints
from zoneinfo import ZoneInfo

import typer

from vidproc import __version__
from vidproc.errors import ConfigError, RunAborted, VidprocError
from vidproc.output import as_a_filter, outlive_readers
from vidproc.progress import hms, reporter, spell
from vidproc.secrets import redact
from vidproc.settings import Job, load_job
from vidproc.storage import StorageOptions, hurried, local_path
from vidproc.text import printable, printable_json, printable_lines, say
from vidproc.video.archive import check_encoding

app = typer.Typer(
    name="vidproc",
    help="Turn large video archives into tables that people can query.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
models_app = typer.Typer(help="The models that a job can name.", no_args_is_help=True)
app.add_typer(models_app, name="models")

Lake_ = Annotated[
    str, typer.Argument(metavar="LAKE", help="A folder or s3://bucket/prefix that `vidproc index` wrote to.")
]
Archive_ = Annotated[
    str | None, typer.Argument(metavar="ARCHIVE", help="A folder or s3://bucket/prefix.", show_default=False)
]
JobFile = Annotated[
    Path | None, typer.Option("--job", help="A job file (YAML); options win over it.", show_default=False)
]
OfPipeline = Annotated[
    str | None,
    typer.Option(
        "--pipeline", help="Of the lake, where it has several; `all` for all. Else the one with the most videos."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]
PipelineName = Annotated[
    str | None, typer.Option("--name", help="The pipeline's name: a lake holds one answer a name and video.")
]
DetectorOption = Annotated[
    str | None, typer.Option("--detector", help="A model name, file, folder or package.module:Class; none.")
]
ActionsOption = Annotated[str | None, typer.Option("--actions", help="The same for actions; none.")]
ExecutorOption = Annotated[
    Literal["ray", "inline"] | None,
    typer.Option(
        "--executor",
        help="Ray, on this machine or a cluster; or one thing after the other, here, with no limit of time or memory.",
    ),
]
EmbeddingOption = Annotated[
    str | None, typer.Option("--embedding", help="A model that turns frames into vectors (resnet18, demo, ...); none.")
]
Include = Annotated[
    list[str] | None, typer.Option("--include", help="Glob on the path below the archive; may be repeated.")
]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", help="Glob of what to leave out; may be repeated.")]
MinBytes = Annotated[int | None, typer.Option("--min-bytes", help="Only objects so large or larger.")]
MaxBytes = Annotated[int | None, typer.Option("--max-bytes", help="Only objects so large or smaller.")]
Since = Annotated[
    datetime | None, typer.Option("--modified-since", help="Only objects changed at this moment (UTC) or later.")
]
Before = Annotated[datetime | None, typer.Option("--modified-before", help="Only objects changed before it.")]
FollowLinks = Annotated[
    bool | None,
    typer.Option("--follow-links/--no-follow-links", help="Go into folders outside of ARCHIVE that links lead to."),
]
Sampling = Annotated[
    Literal["grid", "keyframes"] | None,
    typer.Option("--sampling", help="Frames for the detector: evenly spaced, or every keyframe and no others."),
]
MaxDuration = Annotated[
    float | None, typer.Option("--max-duration", metavar="SECONDS", help="Decline videos that say they last longer.")
]
MaxFrameDuration = Annotated[
    float | None,
    typer.Option("--max-frame-duration", metavar="SECONDS", help="Longest time that one frame stays on screen."),
]
LogFormat = Annotated[
    Literal["auto", "text", "json"],
    typer.Option("--log-format", help="Of what is said meanwhile; auto: a bar on a terminal, lines elsewhere."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


@dataclass(frozen=True, slots=True)
class S3:
    """How a command was told to reach S3; what it was not told is left to the AWS environment and profile."""

    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, where it is not AWS.")] = None
    profile: Annotated[str | None, typer.Option(help="AWS profile.")] = None
    region: Annotated[str | None, typer.Option(help="AWS region.")] = None
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Read a public archive or lake unsigned.")] = False

    def given(self) -> dict[str, Any]:
        """As the `storage` section of a job; None: not given."""
        return {f.name: getattr(self, f.name) or None for f in fields(self)}

    def options(self) -> StorageOptions:
        return StorageOptions(**{name: value for name, value in self.given().items() if value is not None})


def reaches_s3(command: Callable[..., None]) -> Callable[..., None]:
    """Declares the options of `S3` on a command, which gets them as its parameter `s3`."""
    hints = get_type_hints(S3, include_extras=True)
    for hint in hints.values():
        hint.__metadata__[0].rich_help_panel = "S3"

    @wraps(command)
    def with_s3(**given: Any) -> None:
        s3 = S3(**{f.name: given.pop(f.name) for f in fields(S3)})
        command(**given, s3=s3)

    added = [Parameter(f.name, Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name]) for f in fields(S3)]
    known = get_type_hints(command, include_extras=True)
    own = [
        p.replace(kind=Parameter.KEYWORD_ONLY, annotation=known[p.name])
        for p in signature(command).parameters.values()
        if p.name != "s3"
    ]
    with_s3.__signature__ = Signature([*own, *added])  # type: ignore[attr-defined]
    with_s3.__annotations__ = {p.name: p.annotation for p in (*own, *added)}
    return with_s3


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vidproc {__version__}")
        raise typer.Exit


WORKS = {"index", "retry", "compact", "vacuum", "forget", "train", "eval", "fewshot", "relabel", "dataset", "demo"}
"""Commands that work, perhaps for hours, rather than answer: they outlive whoever reads what they print. The
others end with their reader."""


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    check_encoding()
    if context.invoked_subcommand in WORKS:
        outlive_readers()


# The main job -----------------------------------------------------------------------------------


@app.command()
@reaches_s3
def index(
    archive: Archive_ = None,
    lake: Annotated[str | None, typer.Argument(metavar="LAKE", help="Where the tables go.", show_default=False)] = None,
    job: JobFile = None,
    detector: DetectorOption = None,
    actions: ActionsOption = None,
    embedding: EmbeddingOption = None,
    name: PipelineName = None,
    fps: Annotated[float | None, typer.Option("--fps", help="Samples a second for the detector.")] = None,
    sampling: Sampling = None,
    clip_seconds: Annotated[float | None, typer.Option("--clip-seconds", help="Length of a clip.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Decoders at a time.")] = None,
    actors: Annotated[int | None, typer.Option("--actors", help="Model actors, at most.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda:N.")] = None,
    executor: ExecutorOption = None,
    address: Annotated[str | None, typer.Option("--address", help="A running Ray cluster: auto or host:port.")] = None,
    max_failures: Annotated[
        str | None,
        typer.Option("--max-failures", help="Share or number of failed videos above which the exit code is 1."),
    ] = None,
    max_duration: MaxDuration = None,
    max_frame_duration: MaxFrameDuration = None,
    verify: Annotated[
        str | None,
        typer.Option("--verify", metavar="SHARE", help="Tasks that are decoded plainly too, and compared: 1%, 0.01."),
    ] = None,
    plan: Annotated[
        str | None, typer.Option("--plan", help="Where `vidproc plan --save` wrote: nothing is listed or probed again.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="At most so many videos that are due.")] = None,
    follow: Annotated[
        float | None,
        typer.Option("--follow", help="List again every so many seconds until interrupted.", metavar="SECONDS"),
    ] = None,
    recorded_at: Annotated[
        str | None, typer.Option("--recorded-at", help="strptime pattern over the file name.")
    ] = None,
    deleted: Annotated[
        Literal["keep", "remove"] | None,
        typer.Option("--deleted", help="Rows of videos that the archive no longer lists."),
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    min_bytes: MinBytes = None,
    max_bytes: MaxBytes = None,
    modified_since: Since = None,
    modified_before: Before = None,
    follow_links: FollowLinks = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: AsJson = False,
    log_format: LogFormat = "auto",
    quiet: Quiet = False,
    s3: S3 = S3(),
) -> None:
    """Index what is new or changed in ARCHIVE into the tables of LAKE."""
    wanted = load_job(
        job,
        {
            "archive": absolute(archive),
            "lake": absolute(lake),
            "name": name,
            "detector": {"model": detector, "fps": fps},
            "actions": {"model": actions},
            "embedding": {"model": embedding},
            "sampling": sampling,
            "recorded_at": recorded_at,
            "cut": {"clip_seconds": clip_seconds},
            "filters": _filters(include, exclude, min_bytes, max_bytes, modified_since, modified_before),
            "follow_links": follow_links,
            "limits": {
                "max_failures": max_failures,
                "max_duration": max_duration,
                "max_frame_duration": max_frame_duration,
            },
            "verify": verify,
            "execution": {
                "workers": workers,
                "actors": actors,
                "device": device,
                "executor": executor,
                "address": address,
            },
            "storage": s3.given(),
            "deleted": deleted,
            "plan": absolute(plan),
            "limit": limit,
            "follow": follow,
        },
    )
    if dry_run:
        _plan(wanted, None, 0.0, log_format, quiet, as_json)
        return
    _run(wanted, log_format, quiet, as_json)


def _run(job: Job, log_format: str, quiet: bool, as_json: bool) -> NoReturn:
    from vidproc.run.driver import index as run_index

    with reporter(quiet=quiet, log_format=log_format) as shown:
        summary = run_index(job, reporter=shown)
        if log_format == "json":  # whoever reads the log alone learns how it ended
            shown.say(f"{summary.outcome}: {summary.reason}", summary=_plain(summary))
    if as_json:
        _print_json(_plain(summary) | {"limited_by": summary.limited_by, "speed": summary.speed})
    else:
        _show_summary(summary, job)
    raise typer.Exit(summary.exit_code)


@app.command()
@reaches_s3
def plan(
    archive: Archive_ = None,
    lake: Annotated[str | None, typer.Option("--lake", help="Count only what this lake does not have yet.")] = None,
    job: JobFile = None,
    detector: DetectorOption = None,
    actions: ActionsOption = None,
    embedding: EmbeddingOption = None,
    name: PipelineName = None,
    fps: Annotated[float | None, typer.Option("--fps", help="Samples a second for the detector.")] = None,
    sampling: Sampling = None,
    clip_seconds: Annotated[float | None, typer.Option("--clip-seconds", help="Length of a clip.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Decoders at a time, for the predicted time.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda:N.")] = None,
    executor: ExecutorOption = None,
    recorded_at: Annotated[
        str | None, typer.Option("--recorded-at", help="strptime pattern over the file name.")
    ] = None,
    max_duration: MaxDuration = None,
    max_frame_duration: MaxFrameDuration = None,
    calibrate: Annotated[
        float, typer.Option("--calibrate", min=0, help="Seconds of trial on your own files; 0: none.")
    ] = 30.0,
    save: Annotated[
        str | None,
        typer.Option("--save", help="Write the plan to this folder or s3:// prefix, for `index --plan`."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Look at so many videos at most.")] = None,
    include: Include = None,
    exclude: Exclude = None,
    min_bytes: MinBytes = None,
    max_bytes: MaxBytes = None,
    modified_since: Since = None,
    modified_before: Before = None,
    follow_links: FollowLinks = None,
    as_json: AsJson = False,
    log_format: LogFormat = "auto",
    quiet: Quiet = False,
    s3: S3 = S3(),
) -> None:
    """Dry run: what is in ARCHIVE, what is new, and what indexing it would take."""
    wanted = load_job(
        job,
        {
            "archive": absolute(archive),
            "lake": absolute(lake),
            "name": name,
            "detector": {"model": detector, "fps": fps},
            "actions": {"model": actions},
            "embedding": {"model": embedding},
            "sampling": sampling,
            "recorded_at": recorded_at,
            "cut": {"clip_seconds": clip_seconds},
            "filters": _filters(include, exclude, min_bytes, max_bytes, modified_since, modified_before),
            "follow_links": follow_links,
            "limits": {"max_duration": max_duration, "max_frame_duration": max_frame_duration},
            "execution": {"workers": workers, "device": device, "executor": executor},
            "storage": s3.given(),
            "limit": limit,
        },
        lake_optional=True,
    )
    _plan(wanted, absolute(save), calibrate, log_format, quiet, as_json)


def _plan(job: Job, save: str | None, calibrate_s: float, log_format: str, quiet: bool, as_json: bool) -> None:
    from vidproc.run.forecast import forecast

    with reporter(quiet=quiet, log_format=log_format, doing="planning") as shown:
        found = forecast(job, save=save, calibrate_s=calibrate_s, reporter=shown)
    if as_json:
        _print_json(found)
    else:
        say(*found.text().splitlines())


@app.command()
@reaches_s3
def retry(
    lake: Lake_,
    error_class: Annotated[
        list[str] | None, typer.Option("--class", help="Only failures of this class; may be repeated.")
    ] = None,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Index them at once with the last run's job.")] = True,
    log_format: LogFormat = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """Release what was given up, so that it is tried again."""
    from vidproc.run.driver import release

    options = replace(s3.options(), anonymous=False)  # it writes to the lake
    found = release(absolute(lake) or lake, options, tuple(error_class or ()))
    released = sum(found.videos.values())
    if not (run and found.job is not None) and as_json:
        _print_json({"released": released})
    elif not as_json:
        wanted = f" ({', '.join(error_class)})" if error_class else ""
        say(f"{released} video(s) released{wanted}" + ("" if released else _there_is(found.classes)))
    if run and found.hidden:
        raise ConfigError(
            f"the last job was written down without its secrets ([redacted] in {', '.join(found.hidden)}), so it "
            "cannot be run again from the lake alone. The videos are released: run `vidproc index` with the job file "
            "or the options of that time"
        )
    if run and found.job is not None:
        others = ", ".join(f"{n} of {name}" for name, n in found.videos.items() if name != found.job.name)
        if others:
            print(printable(f"these wait for the next run of their own job: {others}"), file=sys.stderr)
        reached = {k: v for k, v in s3.given().items() if v is not None}
        storage = found.job.storage.model_copy(update=reached)
        _run(found.job.model_copy(update={"storage": storage}), log_format, quiet, as_json)


# What the lake knows ------------------------------------------------------------------------------


@app.command()
@reaches_s3
def status(
    lake: Lake_,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the jobs that run on this lake, until the last has ended.")
    ] = False,
    every: Annotated[float, typer.Option("--every", min=0.5, help="Seconds between two looks of --watch.")] = 5.0,
    pipeline: OfPipeline = None,
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """How many videos ended how, what the tables hold, and what runs just now."""
    from vidproc.tables.heartbeat import running

    opened = _open(lake, hurried(s3.options()))
    if watch:
        _watch(opened.storage, every, as_json)
    found, runs = opened.status(pipeline), running(opened.storage)
    if as_json:
        _print_json(_plain(found) | {"running": [_plain(run) | {"silent": run.silent} for run in runs]})
        return
    share = " ".join(f"{n:,} {status}" for status, n in found.by_status.items())
    say(f"{found.uri}: {found.videos:,} videos, {spell(found.video_hours * 3600)}" + (f" ({share})" if share else ""))
    if len(found.by_pipeline) > 1:
        say("pipelines: " + ", ".join(f"{name} {n:,}" for name, n in found.by_pipeline.items()))
        say(f"this is of the pipeline {found.pipeline}" if found.pipeline else "this is of all pipelines together")
    if found.by_error_class:
        say("what was wrong: " + ", ".join(f"{name} {n:,}" for name, n in found.by_error_class.items()))
    _table("", ("table", "rows", "files", "MB"), [
        (name, f"{t.rows:,}", f"{t.files:,}", f"{t.bytes / 1e6:,.2f}") for name, t in found.tables.items() if t.rows
    ])  # fmt: skip
    if found.pending_change is not None:
        print("a publication is half done: the next run completes it")
    for run in runs:
        say(f"running: {run.line()}")
    if (last := found.last_run) is not None:
        say(f"last run {last['run_id']}: {last['outcome']}" + (f", {last['reason']}" if last["reason"] else ""))


def _watch(storage: Any, every_s: float, as_json: bool) -> None:
    """One line a running job and look, written over on a terminal; returns when no job is alive."""
    import time

    from rich.live import Live
    from rich.text import Text

    from vidproc.tables.heartbeat import running

    on_terminal = sys.stdout.isatty() and not as_json
    with Live(transient=True, auto_refresh=False) if on_terminal else nullcontext() as live:
        while alive := [run for run in running(storage) if not run.silent]:
            lines = [printable(run.line() + (f" | {run.said}" if run.said else "")) for run in alive]
            if live is not None:
                live.update(Text("\n".join(lines)), refresh=True)
            elif as_json:
                print(printable_json({"running": _plain(alive)}, default=_as_json), flush=True)
            else:
                print("\n".join(lines), flush=True)
            time.sleep(every_s)


@app.command()
@reaches_s3
def failures(
    lake: Lake_,
    error_class: Annotated[
        list[str] | None, typer.Option("--class", help="Only this class. Given again: either.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows at most.")] = 50,
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """What failed, why, and where."""
    opened = _open(lake, hurried(s3.options()))
    rows = _rows(opened.failures(error_class=error_class or None, limit=limit + 1))
    if as_json:
        _print_json(rows[:limit])
        return
    if not rows:
        known = set(opened.tables.read("failures", ["error_class"])["error_class"].unique().to_pylist())
        say("no failures" + (f" of class {' or '.join(error_class)}" if error_class else "") + _there_is(known))
        return
    _table("failures", ("uri", "stage", "class", "attempt", "error"), [
        (r["uri"], r["stage"], r["error_class"], str(r["attempt"]), r["error"]) for r in rows[:limit]
    ])  # fmt: skip
    if len(rows) > limit:
        print("there are more: raise --limit")


@app.command()
@reaches_s3
def runs(
    lake: Lake_,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Runs at most.")] = 20,
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """The runs that wrote to this lake, the latest first."""
    rows = _rows(_open(lake, hurried(s3.options())).runs(limit=limit))
    if as_json:
        _print_json(rows)
        return
    _table("runs", ("run", "started", "took", "outcome", "indexed", "partial", "declined", "failed", "speed"), [
        (r["run_id"], f"{r['started_at']:%Y-%m-%d %H:%M}", _took(r), r["outcome"],
         *(_cell(r[f"videos_{k}"]) for k in ("indexed", "partial", "declined", "failed")),
         f"{r['video_seconds_per_second'] or 0:.1f}x")
        for r in rows
    ])  # fmt: skip


@app.command()
@reaches_s3
def query(
    lake: Lake_,
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="One SELECT over videos, detections, tracks, actions, segments, ...")
    ],
    out_format: Annotated[
        Literal["table", "csv", "json", "parquet"], typer.Option("--format", "-f", help="Of the answer.")
    ] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of the terminal.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Rows at most.")] = None,
    offset: Annotated[int, typer.Option("--offset", help="Rows to leave out first.")] = 0,
    pipeline: OfPipeline = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    s3: S3 = S3(),
) -> None:
    """Read-only SQL (DuckDB) over the lake's tables.

    Where the lake has several pipelines, the tables show the rows of one, unless the statement selects the column
    `pipeline` or compares it.
    """
    from vidproc.ask import PIPELINE, connect, write_result

    if as_json:
        out_format = "json"
    if out_format == "parquet" and output is None and sys.stdout.isatty():
        raise ConfigError("Parquet is not for a terminal: name a file with --output")
    with connect(absolute(lake) or lake, s3.options(), pipeline=pipeline) as database:
        answer = database.sql(sql, limit=limit, offset=offset)
        if pipeline is None and PIPELINE in (answer.schema.metadata or {}):
            _say_pipeline(database.pipeline, database.pipelines)
        if output is None:
            write_result(answer, out_format, sys.stdout.buffer)
        else:
            with _whole(output) as file:
                rows = write_result(answer, out_format, file)
            print(printable(f"{rows:,} rows in {output}"), file=sys.stderr)


@app.command()
@reaches_s3
def search(
    lake: Lake_,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Something in view, such as person. Given again: either.")
    ] = None,
    action: Annotated[
        list[str] | None, typer.Option("--action", help="Something that happens, such as run. Given again: either.")
    ] = None,
    min_seconds: Annotated[float, typer.Option("--min-seconds", help="Only what lasts so long.")] = 0.0,
    min_score: Annotated[float, typer.Option("--min-score", help="Only what is so sure.")] = 0.0,
    since: Annotated[datetime | None, typer.Option("--since", help="Recorded from this moment on.")] = None,
    until: Annotated[datetime | None, typer.Option("--until", help="Recorded before this moment.")] = None,
    day: Annotated[
        list[str] | None, typer.Option("--date", help="Recorded on this day, YYYY-MM-DD. Given again: on either.")
    ] = None,
    between: Annotated[
        list[str] | None, typer.Option("--between", help="Time of day, such as 22:00-06:00. Given again: in either.")
    ] = None,
    timezone: Annotated[str, typer.Option("--timezone", help="Of the times given, such as Europe/Berlin.")] = "UTC",
    video: Annotated[
        list[str] | None, typer.Option("--video", help="Glob on the URI. Given again: either fits.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Hits a page.")] = 20,
    offset: Annotated[int, typer.Option("--offset", help="Hits to leave out first.")] = 0,
    after: Annotated[str | None, typer.Option("--after", help="The page behind this token.")] = None,
    pipeline: OfPipeline = None,
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """Where something is in view, or happens: URI, time range and score."""
    from vidproc.ask import SearchQuery, connect
    from vidproc.ask import search as run_search

    wanted = SearchQuery(
        label=label, action=action, min_seconds=min_seconds, min_score=min_score, since=since, until=until,
        time_of_day=[h for text in between or () if (h := _hours(text))], date=[d for t in day or () if (d := _day(t))],
        timezone=timezone, video=video, limit=max(limit, 1), offset=offset, after=after,
    )  # fmt: skip
    with connect(absolute(lake) or lake, s3.options(), pipeline=pipeline) as database:
        hits = run_search(database, wanted) if limit else []
        if pipeline is None and database.pipeline and len(database.pipelines) > 1:
            _say_pipeline(database.pipeline, database.pipelines)
    if as_json:
        _print_json(hits)
        return
    zone = ZoneInfo(timezone)
    _table("found", ("video", "from", "to", "what", "score", f"recorded ({timezone})"), [
        (h.uri, _clock(h.start_s), _clock(h.end_s), " + ".join(w for w in (h.label, h.action) if w),
         f"{h.score:.2f}", _cell(h.recorded_at and h.recorded_at.astimezone(zone)))
        for h in hits
    ])  # fmt: skip
    if hits and len(hits) == limit:
        say(f"more: --after {hits[-1].token}")
    elif limit and not hits:
        print("nothing was found; `vidproc query LAKE \"SELECT kind, label, count(*) FROM segments GROUP BY ALL\"` "
              "shows what there is")  # fmt: skip


@app.command()
@reaches_s3
def compact(lake: Lake_, as_json: AsJson = False, s3: S3 = S3()) -> None:
    """Rewrite small files into large ones, ordered by video."""
    found = _open(lake, s3.options()).compact()
    if as_json:
        _print_json(found)
        return
    _table("", ("table", "files before", "files now"), [
        (name, _cell(r.files_before), _cell(r.files_after)) for name, r in found.items() if r.files_before
    ])  # fmt: skip


@app.command()
@reaches_s3
def vacuum(
    lake: Lake_,
    older_than: Annotated[
        float, typer.Option("--older-than", min=0, help="Hours; younger files may belong to a running job or reader.")
    ] = 24.0,
    now: Annotated[
        bool, typer.Option("--now", help="Remove at once what nothing refers to; no job may be running.")
    ] = False,
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """Remove what nothing refers to."""
    from datetime import timedelta

    from vidproc.tables.heartbeat import running

    opened = _open(lake, s3.options())
    if now and (alive := [run for run in running(opened.storage) if not run.silent]):
        raise ConfigError(
            f"--now would take the files of a job that is running ({alive[0].run_id} on {alive[0].host}): "
            "wait for its end, or vacuum without --now"
        )
    found = opened.vacuum(timedelta(0) if now else timedelta(hours=older_than), exclusive=now)
    if as_json:
        _print_json(found)
        return
    gone = _cell({name: n for name, n in found.files.items() if n})
    print(f"{sum(found.files.values()):,} file(s) that no table refers to removed" + (f" ({gone})" if gone else "")
          + f", and {found.leftovers:,} that killed writers left")  # fmt: skip


@app.command()
@reaches_s3
def forget(
    lake: Lake_,
    uris: Annotated[list[str], typer.Argument(metavar="URI...", help="Videos whose rows are to go.")],
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """Remove all rows of these videos; with `vacuum --now` their bytes go too.

    What is still in the archive comes back with the next index: take it out there first.
    """
    found = _open(lake, s3.options()).forget([absolute(u) or u for u in uris])
    if as_json:
        _print_json(found)
        return
    if found.forgotten:
        rows = _cell({name: n for name, n in found.rows.items() if n})
        say(f"{len(found.forgotten):,} video(s) forgotten, rows removed: {rows}")
    for uri in found.unknown:
        say(f"not in this lake: {uri}")
    if not found.forgotten:
        say("nothing to forget: the lake is as it was")


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the demo's archive, lake and picture go.")
    ] = Path("demo"),
    executor: ExecutorOption = "ray",
    as_json: AsJson = False,
) -> None:
    """A small archive of which everything is known: drawn, indexed, scored, questioned and shown."""
    from vidproc.ask import write_result
    from vidproc.demo.run import run_demo

    def ask(database: Any, question: str, sql: str) -> None:
        print(f"\n{question}\n  {printable_lines(sql)}", flush=True)
        write_result(database.sql(sql), "table", sys.stdout.buffer)
        sys.stdout.flush()

    with reporter(quiet=as_json) as shown:
        made = run_demo(
            folder,
            executor=executor or "ray",
            reporter=shown,
            **({"say": lambda _: None} if as_json else {"say": say, "ask": ask}),
        )
    if as_json:
        _print_json(made)
        return
    print()
    say(f"contact sheet: {made.sheet}", f'ask it yourself: vidproc query {made.lake} "SELECT * FROM segments LIMIT 10"')


# On a cluster -----------------------------------------------------------------------------------

jobs_app = typer.Typer(help="Jobs that were submitted to a cluster.", no_args_is_help=True)
app.add_typer(jobs_app, name="jobs")
HeadAddress = Annotated[str, typer.Option("--address", help="The cluster's head, such as http://head:8265.")]


@app.command()
def submit(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="A job file.")],
    address: HeadAddress,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Show the log until the job ends.")] = True,
    request_token: Annotated[
        str | None, typer.Option("--request-token", help="The same token is the same job.")
    ] = None,
    working_dir: Annotated[
        Path | None, typer.Option("--working-dir", help="A folder that travels with the job.")
    ] = None,
    pip: Annotated[list[str] | None, typer.Option("--pip", help="A package the job needs; may be repeated.")] = None,
) -> None:
    """Run a job on a Ray cluster; its outcome is the exit code."""
    from vidproc.runtime.jobs import submit as run_submit

    ended = run_submit(
        job, address, follow=follow, request_token=request_token, working_dir=working_dir, pip=tuple(pip or ()),
        write=say,
    )  # fmt: skip
    say(ended.message)
    raise typer.Exit(ended.exit_code or 0)


@jobs_app.command("list")
def jobs_list(address: HeadAddress, as_json: AsJson = False) -> None:
    """Jobs on the cluster, the latest first."""
    from vidproc.runtime.jobs import list_jobs

    found = list_jobs(address)
    if as_json:
        _print_json(found)
        return
    _table("jobs", ("id", "name", "status", "exit code", "submitted"), [
        (j.id, j.name or "-", j.status, _cell(j.exit_code), _cell(j.submitted_at)) for j in found
    ])  # fmt: skip


@jobs_app.command("logs")
def jobs_logs(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="As `vidproc jobs list` has it.")],
    address: HeadAddress,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
) -> None:
    """What a job printed."""
    from vidproc.runtime.jobs import job_logs

    for line in job_logs(address, job_id, follow=follow):
        say(line.rstrip("\n"))


@jobs_app.command("stop")
def jobs_stop(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="As `vidproc jobs list` has it.")], address: HeadAddress
) -> None:
    """Have a job stop cleanly; submitting it again goes on where it was."""
    from vidproc.runtime.jobs import stop_job

    say(f"{job_id}: {stop_job(address, job_id).status}")


# Models -------------------------------------------------------------------------------------------

DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda:N.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A name, file, folder or package.module:Class.")]
KindOption = Annotated[
    Literal["detector", "actions", "embedding"] | None, typer.Option("--kind", help="Where a name is several.")
]


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """All models known by name, and whether their weights are on this machine."""
    from vidproc.models import list_models

    found = list_models()
    if as_json:
        _print_json(found)
        return
    _table("models", ("name", "kind", "labels", "licence", "here", "weights"), [
        (m.name, m.kind, str(m.labels), m.licence, _cell(m.cached), m.weights) for m in found
    ])  # fmt: skip


@models_app.command("fetch")
@reaches_s3
def models_fetch(model: ModelName, kind: KindOption = None, as_json: AsJson = False, s3: S3 = S3()) -> None:
    """Bring a model's weights onto this machine and verify them."""
    from vidproc.models import ModelSettings, fetch_model

    path = fetch_model(model, ModelSettings(kind=kind, storage=s3.options()))
    if as_json:
        _print_json({"model": model, "path": path})
        return
    say(path or f"{model} brings its own weights")


@models_app.command("check")
@reaches_s3
def models_check(
    model: ModelName,
    kind: KindOption = None,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """Load a model and run it once: does it answer as its card says?"""
    from vidproc.models import ModelSettings, check_model

    found = check_model(model, device=device, settings=ModelSettings(kind=kind, storage=s3.options()))
    if as_json:
        _print_json(found)
        return
    card = found.card
    say(f"{card.ref}: {card.kind}, {len(card.labels)} labels, {float(card.grid.fps):g} frames/s, {card.licence}")
    print(f"loaded in {found.load_seconds:.2f} s, first answer in {found.run_seconds:.3f} s")


# Learning -----------------------------------------------------------------------------------------


@app.command()
@reaches_s3
def train(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="A training job, such as jobs/train_actions.yaml.")],
    out: Annotated[str | None, typer.Option("--out", help="The model folder to be, over what the job says.")] = None,
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """Train a detector or an action model; a killed training goes on where it was.

    OUT/metrics.csv (and OUT/tensorboard) grow with every epoch.
    """
    from vidproc.learn.job import read_job
    from vidproc.learn.train import TrainSettings
    from vidproc.learn.train import train as run_train

    settings = read_job(job, TrainSettings, **({} if out is None else {"out": absolute(out)}))

    def tell(metrics: Mapping[str, float]) -> None:
        text = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        print(printable(text), file=sys.stderr, flush=True)

    _answer(run_train(settings, options=s3.options(), listen=tell), as_json)


@app.command("eval")
@reaches_s3
def evaluate(
    task: Annotated[str, typer.Argument(help="detection, classification, segments or tracking.")],
    truth: Annotated[str, typer.Argument(help="Label file in the field's format.")],
    predictions: Annotated[str | None, typer.Option("--predictions", help="A file in the field's format.")] = None,
    lake: Annotated[str | None, typer.Option("--lake", help="Or a lake: what it found is scored.")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Folder for figures and pictures.")] = None,
    truth_fps: Annotated[
        float | None, typer.Option("--truth-fps", help="Tracking: frames a second of the truth.")
    ] = None,
    sample_fps: Annotated[float | None, typer.Option("--sample-fps", help="Tracking: samples a second.")] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Detection: seconds from a labelled frame to the lake's sample.")
    ] = 0.02,
    pipeline: Annotated[str | None, typer.Option("--pipeline", help="Of the lake, where it has several.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Of the lake's rows, where there are several.")] = None,
    subset: Annotated[str | None, typer.Option("--subset", help="Rows of the truth of this split alone.")] = None,
    source: Annotated[
        str, typer.Option("--source", help="Segments of a lake: its segments, or its windows by soft-NMS.")
    ] = "segments",
    iou: Annotated[float, typer.Option("--iou", help="Tracking: least overlap of a match, for MOTA and IDF1.")] = 0.5,
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """Score predictions, or a lake, against the truth."""
    from vidproc.learn.scoring.evaluate import EvalSettings
    from vidproc.learn.scoring.evaluate import evaluate as run_evaluate

    settings = EvalSettings(
        task=cast(Any, task), truth=truth, predictions=predictions, lake=absolute(lake), out=absolute(out),
        truth_fps=truth_fps, sample_fps=sample_fps, tolerance_s=tolerance, pipeline=pipeline, model=model,
        subset=subset, source=cast(Any, source), iou=iou,
    )  # fmt: skip
    found = run_evaluate(settings, options=s3.options())
    if as_json:
        _print_json(found)
        return
    _table("", ("figure", "value"), [(k, f"{v:.4f}") for k, v in found.summary.items()])
    if found.per_class:
        rows = [_plain(row) for row in found.per_class]
        _table(
            "", tuple(rows[0]), [[f"{v:.4f}" if isinstance(v, float) else _cell(v) for v in r.values()] for r in rows]
        )
    say(*found.files)


@app.command()
@reaches_s3
def fewshot(
    examples: Annotated[
        str, typer.Argument(help="CSV: label, uri, start_s, end_s; made for 1 to 20 rows a class, more are taken too.")
    ],
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="Where the URIs lie.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="The model folder to be.")],
    backbone: Annotated[
        str, typer.Option("--backbone", help="A model whose features tell the classes apart.")
    ] = "demo",
    head: Annotated[str, typer.Option("--head", help="prototypes or linear.")] = "prototypes",
    name: Annotated[str, typer.Option("--name", help="Of the model.")] = "few-shot",
    ways: Annotated[int, typer.Option("--ways", help="Evaluation: classes an episode, or all there are.")] = 5,
    shots: Annotated[int, typer.Option("--shots", help="Evaluation: examples a class, as far as one is left.")] = 5,
    episodes: Annotated[int, typer.Option("--episodes", help="Evaluation: how many.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Evaluation: which episodes are drawn.")] = 0,
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """A new action model from a few examples a class."""
    from vidproc.learn.fewshot import FewShotSettings, few_shot

    settings = FewShotSettings(
        examples=examples, archive=absolute(archive) or archive, backbone=backbone, out=absolute(out) or out,
        head=cast(Any, head), name=name, ways=ways, shots=shots, episodes=episodes, seed=seed,
    )  # fmt: skip
    _answer(few_shot(settings, options=s3.options()), as_json)


@app.command()
@reaches_s3
def relabel(
    lake: Lake_,
    model: Annotated[str, typer.Argument(help="A model folder that `vidproc fewshot` made.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Pipeline of the new rows; by default the model's name.")
    ] = None,
    pipeline: Annotated[str | None, typer.Option("--pipeline", help="Whose vectors, where there are several.")] = None,
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """Label the vectors that a lake holds with a few-shot model; nothing is decoded again."""
    from vidproc.learn.relabel import RelabelSettings
    from vidproc.learn.relabel import relabel as run_relabel

    settings = RelabelSettings(lake=absolute(lake) or lake, model=model, name=name, pipeline=pipeline)
    _answer(run_relabel(settings, options=s3.options()), as_json)


@app.command()
@reaches_s3
def explain(
    source: Annotated[
        str, typer.Argument(metavar="LAKE|VIDEO", help="A lake, with --row; or a video, with --model and --time.")
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder for overlay.mp4, overlay.png, explanation.json.")],
    row: Annotated[str | None, typer.Option("--row", help="SQL condition that picks a row (d) of a video (v).")] = None,
    kind: Annotated[str, typer.Option("--kind", help="detector or actions.")] = "detector",
    model: Annotated[
        str | None, typer.Option("--model", help="A name or folder; by default the one that wrote the row.")
    ] = None,
    time_s: Annotated[float, typer.Option("--time", help="Seconds into the video.")] = 0.0,
    pipeline: Annotated[str | None, typer.Option("--pipeline", help="Of the lake, where it has several.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="What is to be explained.")] = None,
    method: Annotated[str, typer.Option("--method", help="auto, grad-cam or occlusion.")] = "auto",
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """Why a model answered so: a heat map over the frames."""
    from vidproc.learn.explain import ExplainSettings
    from vidproc.learn.explain import explain as run_explain

    where = absolute(source) or source
    settings = ExplainSettings(
        kind=cast(Any, kind), out=absolute(out) or out, video=None if row else where, time_s=time_s,
        lake=where if row else None, row=row, pipeline=pipeline, model=model, label=label, method=cast(Any, method),
    )  # fmt: skip
    found = run_explain(settings, options=s3.options())
    when, x, y = found.peak
    if as_json:
        peak = {"time_s": when, "x": x, "y": y}
        _print_json({n: getattr(found, n) for n in ("label", "score", "method", "files")} | {"peak": peak})
        return
    say(f"{found.label} ({found.score:.2f}) by {found.method}: most at {when:.2f} s, x {x:.0f}, y {y:.0f}")
    say(*found.files)


@app.command()
@reaches_s3
def dataset(
    lake: Lake_,
    out: Annotated[str, typer.Argument(metavar="OUT.json", help="The label file to be.")],
    kind: Annotated[str, typer.Option("--kind", help="coco or activitynet.")] = "coco",
    where: Annotated[str | None, typer.Option("--where", help="SQL condition on rows (d) and videos (v).")] = None,
    pipeline: Annotated[str | None, typer.Option("--pipeline", help="Of the lake, where it has several.")] = None,
    subset: Annotated[str, typer.Option("--subset", help="What ActivityNet's subset is to say.")] = "training",
    as_json: AsJson = False,
    s3: S3 = S3(),
) -> None:
    """Rows of the lake as training data."""
    from vidproc.learn.dataset import DatasetSettings, make_dataset

    settings = DatasetSettings(
        lake=absolute(lake) or lake, out=absolute(out) or out, kind=cast(Any, kind), where=where, pipeline=pipeline,
        subset=subset,
    )  # fmt: skip
    _answer(make_dataset(settings, options=s3.options()), as_json)


# Helpers ------------------------------------------------------------------------------------------


def absolute(path: str | None) -> str | None:
    """A local path from where the user stands, an s3:// address as it is."""
    return path if path is None or path.startswith("s3://") else local_path(path)


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when all of it is written: half an answer, or half a Parquet file with a
    footer, would pass for the whole. A device or a pipe is written as it comes."""
    path = path.resolve()
    part = path if path.exists() and not path.is_file() else path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            yield file
        if part != path:
            part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        if part != path:
            part.unlink(missing_ok=True)


def _hours(text: str | None) -> tuple[time, time] | None:
    if text is None:
        return None
    try:
        start, end = (time.max if (t := part.strip()) == "24:00" else time.fromisoformat(t) for part in text.split("-"))
    except ValueError:
        raise ConfigError(f"--between takes two times of day such as 22:00-06:00, not {text!r}") from None
    return start, end


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--date takes a day such as 2026-11-22, not {text!r}") from None


def _clock(seconds: float) -> str:
    minutes, s = divmod(seconds, 60)
    h, m = divmod(int(minutes), 60)
    return f"{h}:{m:02d}:{s:05.2f}" if h else f"{m}:{s:05.2f}"


def _filters(
    include: list[str] | None, exclude: list[str] | None, min_bytes: int | None, max_bytes: int | None,
    since: datetime | None, before: datetime | None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "include": include or None, "exclude": exclude or None, "min_bytes": min_bytes, "max_bytes": max_bytes,
        "modified_since": since, "modified_before": before,
    }  # fmt: skip


def _say_pipeline(pipeline: str | None, pipelines: Sequence[str]) -> None:
    """On standard error: the answer itself stays what a program expects."""
    others = ", ".join(name for name in pipelines if name != pipeline)
    said = f"of the pipeline {pipeline}; the lake also has {others} (--pipeline NAME, or all)"
    print(printable(said), file=sys.stderr)


def _there_is(classes: Iterable[str]) -> str:
    return f"; there is {', '.join(found)}" if (found := sorted(classes)) else ""


def _open(lake: str, options: StorageOptions) -> Any:
    from vidproc.tables.lake import Lake

    found = Lake.open(absolute(lake) or lake, options)
    found.mark_lost(signs_only=True)
    return found


def _answer(found: Any, as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    for key, value in _plain(found).items():
        say(f"{key}: {_cell(value)}")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in dict(value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and math.isnan(value):  # the figure of nothing: JSON has no such number
        return None
    return value


def _rows(table: Any) -> list[dict[str, Any]]:
    return table.to_pylist() if hasattr(table, "to_pylist") else [_plain(r) for r in table]


def _took(run: Mapping[str, Any]) -> str:
    return hms((run["ended_at"] - run["started_at"]).total_seconds()) if run["ended_at"] else "-"


def _as_json(value: Any) -> str:
    return value.isoformat() if isinstance(value, (datetime, date)) else str(value)


def _print_json(value: Any) -> None:
    print(printable_json(_plain(value), indent=2, default=_as_json))


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(v)}" for name, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    return str(value)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=printable(title), box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(printable(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    # A file or a pipe has no width: rows stay whole there.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


LIMITS = {
    "start-up": "start-up (the steps took less than half of the time)",
    "probe": "probing (reading the archive)",
    "decode": "decoding (with reading the archive)",
    "publish": "publishing (writing the lake)",
    "infer": "the models",
}
"""Steps in words; a model with a pool of its own goes by its step's name."""


def _show_summary(summary: Any, job: Job) -> None:
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
            say(f"time in steps: {steps}; limited by {LIMITS.get(summary.limited_by, summary.limited_by)}")
    for error_class, number in sorted(summary.errors.items(), key=lambda kv: -kv[1])[:5]:
        say(f"  {number} x {error_class}, for example {summary.examples[error_class]}")
    say(f"exit code {summary.exit_code}: {summary.reason}")
    if summary.due:
        say(f'next: vidproc query {job.lake} "SELECT label, count(*) FROM detections GROUP BY label"')


def main() -> NoReturn:
    """The console script: translates errors to one line and an exit code that a scheduler can trust."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    try:
        with nullcontext() if command in WORKS else as_a_filter():
            app(standalone_mode=True)
        sys.exit(0)
    except ConfigError as error:
        _fail(error, 2)
    except RunAborted as error:
        _fail(error, 1)
    except VidprocError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception:  # a bug: it keeps its traceback
        print("\n".join(map(printable, redact(traceback.format_exc()).splitlines())), file=sys.stderr)
        sys.exit(1)


def _fail(error: Exception, code: int) -> NoReturn:
    print(f"vidproc: {printable_lines(redact(str(error)))}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
