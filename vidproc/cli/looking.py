"""show, report: see what a lake says."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from vidproc.ask.selecting import Table
from vidproc.cli.answers import print_json
from vidproc.cli.options import (
    JsonOption,
    LakeArgument,
    LakePipelineOption,
    QuietOption,
    S3Options,
    absolute,
    absolute_or_none,
    expanded,
)
from vidproc.cli.questions import WantedOptions, say_hints, say_pipeline
from vidproc.errors import ConfigError
from vidproc.text import printable, say

if TYPE_CHECKING:
    from vidproc.look.show import Shown

app = typer.Typer()

ArchiveOption = Annotated[
    str | None, typer.Option("--archive", metavar="PLACE", help="Where the archive is now, if it was moved.")
]


@app.command()
@expanded
def show(
    lake: LakeArgument,
    out: Annotated[
        str,
        typer.Argument(metavar="OUT.jpg|OUT/", help="A contact sheet (.jpg, .png), or a folder for one picture a row."),
    ],
    *,
    where: Annotated[
        str | None,
        typer.Option(
            "--where", metavar="SQL", help="A condition on --table, such as \"label = 'person'\"; or a SELECT."
        ),
    ] = None,
    table: Annotated[Table, typer.Option("--table", help="Table that the condition is about.")] = "detections",
    wanted: WantedOptions,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows at most.")] = 24,
    archive: ArchiveOption = None,
    pipeline: LakePipelineOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """Show rows as pictures: the frame with its box, label, score, video and time.

    Without --where the options are those of `search`. A video that is gone or changed gives a grey tile that says so.
    """
    if where is not None and wanted != WantedOptions(timezone=wanted.timezone):
        raise ConfigError("--where and the options of search are two ways to ask: give one of them")
    from vidproc.look.pool import prepared

    with prepared(limit):
        shown = _shown(
            lake, out, where, table, wanted,
            limit=limit, archive=archive, pipeline=pipeline, force=force, quiet=quiet, s3=s3,
        )  # fmt: skip
    if as_json:
        print_json(shown)
    elif not shown.rows:
        say(f"nothing was found, so nothing was written to {out}")
    else:
        missing = ", ".join(f"{n} {state}" for state, n in shown.missing.items())
        say(f"{shown.pictures} of {shown.rows} rows, from {shown.videos} videos: {out}"
            + (f" (grey: {missing})" if missing else ""))  # fmt: skip
        for state, reason in shown.reasons.items():
            say(f"  {state}, for example {reason}")
    if shown.rows and not shown.pictures:
        raise typer.Exit(1)


def _shown(
    lake: str,
    out: str,
    where: str | None,
    table: Table,
    wanted: WantedOptions,
    *,
    limit: int,
    archive: str | None,
    pipeline: str | None,
    force: bool,
    quiet: bool,
    s3: S3Options,
) -> Shown:
    from vidproc.ask import connect, search
    from vidproc.ask.selecting import select_rows
    from vidproc.look.show import MAX_ON_A_SHEET, sheet_format
    from vidproc.look.show import show as run_show

    question = wanted.query(limit=limit)
    if sheet_format(out) and limit > MAX_ON_A_SHEET:
        raise ConfigError(f"a contact sheet holds {MAX_ON_A_SHEET} rows: lower --limit, or give a folder, OUT/")
    place = absolute(out) + "/" * (out.endswith("/") and not absolute(out).endswith("/"))
    with connect(absolute(lake), s3.options(), pipeline=pipeline) as database, _counting(quiet=quiet) as progress:
        rows = search(database, question) if where is None else select_rows(database, where, table, limit)
        if where is None:
            say_hints(database, question)
        if pipeline is None and database.pipeline and len(database.pipelines) > 1:
            say_pipeline(database.pipeline, database.pipelines)
        return run_show(
            database, rows, place,
            heading=_heading(wanted, where, table), archive=absolute_or_none(archive), options=s3.options(),
            zone=ZoneInfo(wanted.timezone), force=force, progress=progress,
        )  # fmt: skip


@app.command()
@expanded
def report(
    lake: LakeArgument,
    out: Annotated[str, typer.Argument(metavar="OUT.html", help="The page: a file or an s3:// object.")],
    *,
    archive: ArchiveOption = None,
    timezone: Annotated[str, typer.Option("--timezone", help="Time zone of hours and days.")] = "UTC",
    pipeline: LakePipelineOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """Write one page for the person who was not there: what is in the lake, what failed, and what is new.

    The page needs nothing from elsewhere. An earlier report of that name is replaced.
    """
    from vidproc.ask import connect
    from vidproc.look.report import report as run_report

    place = absolute(out)
    with connect(absolute(lake), s3.options(), pipeline=pipeline) as database, _counting(quiet=quiet) as progress:
        made = run_report(
            database, place, archive=absolute_or_none(archive), options=s3.options(), zone=timezone, progress=progress
        )
    if as_json:
        print_json(made)
        return
    missing = f", {made.missing} missing" if made.missing else ""
    say(f"{made.videos:,} videos, {made.pictures} pictures{missing}, {made.bytes / 1e6:.2f} MB: {made.out}")


def _heading(wanted: WantedOptions, where: str | None, table: str) -> str:
    if where is not None:
        text = " ".join(where.split())
    else:
        text = " + ".join(", ".join(names) for names in (wanted.label, wanted.action) if names) or "everything found"
        table = ""
    return printable(f"{table}: {text}" if table else text)[:60]


@contextmanager
def _counting(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Say on standard error how far the reading is: a bar on a terminal, a line every ten seconds elsewhere."""
    if quiet or not sys.stderr.isatty():
        last = time.monotonic()

        def line(done: int, total: int) -> None:
            nonlocal last
            if not quiet and time.monotonic() - last > 10:
                last = time.monotonic()
                print(f"{done} of {total} rows", file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading frames", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
