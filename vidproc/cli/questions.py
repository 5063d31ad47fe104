"""query, search: questions to a lake."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo

import typer

import vidproc
from vidproc.api.lakes import search_query
from vidproc.cli.answers import cell, print_json, print_table, whole_file
from vidproc.cli.options import JsonOption, LakeArgument, LakePipelineOption, S3Options, expanded
from vidproc.errors import ConfigError
from vidproc.text import printable, say

if TYPE_CHECKING:
    from vidproc.ask import Hit, LakeDatabase, SearchQuery

app = typer.Typer()


@app.command()
@expanded
def query(
    lake: LakeArgument,
    sql: Annotated[
        str | None,
        typer.Argument(
            metavar="SQL",
            help="One SELECT over videos, detections, tracks, actions, segments, ... Without it: a prompt on a "
            "terminal, else the statement is read from standard input.",
            show_default=False,
        ),
    ] = None,
    *,
    out_format: Annotated[
        Literal["table", "csv", "json", "parquet"], typer.Option("--format", "-f", help="Format of the answer.")
    ] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of the terminal.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Rows at most.")] = None,
    offset: Annotated[int, typer.Option("--offset", help="Rows to leave out first.")] = 0,
    pipeline: LakePipelineOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    s3: S3Options,
) -> None:
    """Read-only SQL (DuckDB) over the lake's tables.

    Where the lake has several pipelines, the tables show the rows of one, unless the statement selects the column
    `pipeline` or compares it.
    """
    from vidproc.ask import PIPELINE, write_result

    if as_json:
        out_format = "json"
    if out_format == "parquet" and output is None and sys.stdout.isatty():
        raise ConfigError("Parquet is not for a terminal: name a file with --output")
    with vidproc.open(lake, pipeline=pipeline, **s3.given()) as opened:

        def ask(statement: str) -> None:
            answer = opened.sql(statement, limit=limit, offset=offset).reader()
            if pipeline is None and PIPELINE in (answer.schema.metadata or {}):
                say_pipeline(opened.database.pipeline, opened.database.pipelines)
            if output is None:
                write_result(answer, out_format, sys.stdout.buffer)
                return
            with whole_file(output) as file:
                rows = write_result(answer, out_format, file)
            print(printable(f"{rows:,} rows in {output}"), file=sys.stderr)

        if sql is None and sys.stdin.isatty():
            if output is not None or not sys.stdout.isatty():
                raise ConfigError("a prompt needs a terminal to answer on: give SQL, or leave out --output")
            from vidproc.cli.prompt import converse

            converse(opened, ask)
        else:
            statement = sys.stdin.read() if sql is None else sql
            if sql is None and not statement.strip():
                raise ConfigError("no SQL: give a statement, or write one to standard input")
            ask(statement)


@dataclass(frozen=True, slots=True)
class WantedOptions:
    """What to search for."""

    label: Annotated[
        list[str] | None, typer.Option("--label", help="Something in view, such as person. Given again: either.")
    ] = None
    action: Annotated[
        list[str] | None, typer.Option("--action", help="Something that happens, such as run. Given again: either.")
    ] = None
    with_label: Annotated[
        list[str] | None, typer.Option("--with", metavar="LABEL", help="At the same time. Given again: either.")
    ] = None
    then: Annotated[
        list[str] | None, typer.Option("--then", metavar="LABEL", help="Begins afterwards. Given again: either.")
    ] = None
    within: Annotated[
        float, typer.Option("--within", metavar="SECONDS", help="Longest time from the end of the first to --then.")
    ] = 10.0
    min_seconds: Annotated[float, typer.Option("--min-seconds", help="Only what lasts at least this long.")] = 0.0
    min_score: Annotated[float, typer.Option("--min-score", help="Only what has at least this score.")] = 0.0
    since: Annotated[datetime | None, typer.Option("--since", help="Recorded from this moment on.")] = None
    until: Annotated[datetime | None, typer.Option("--until", help="Recorded before this moment.")] = None
    day: Annotated[
        list[str] | None, typer.Option("--date", help="Recorded on this day, YYYY-MM-DD. Given again: on either.")
    ] = None
    between: Annotated[
        list[str] | None, typer.Option("--between", help="Time of day, such as 22:00-06:00. Given again: in either.")
    ] = None
    timezone: Annotated[
        str, typer.Option("--timezone", help="Time zone of the times given, such as Europe/Berlin.")
    ] = "UTC"
    video: Annotated[list[str] | None, typer.Option("--video", help="Glob on the URI. Given again: either fits.")] = (
        None
    )

    def given(self) -> dict[str, Any]:
        """Return keywords of `vidproc.Lake.search`."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return given | {"date": given.pop("day")}

    def query(self, *, limit: int) -> SearchQuery:
        return search_query(**self.given(), limit=limit)


@dataclass(frozen=True, slots=True)
class PageOptions:
    """Which page of the hits to show."""

    limit: Annotated[int, typer.Option("--limit", min=0, help="Hits a page.")] = 20
    offset: Annotated[int, typer.Option("--offset", help="Hits to leave out first.")] = 0
    after: Annotated[str | None, typer.Option("--after", help="The page behind this token.")] = None


@app.command()
@expanded
def search(
    lake: LakeArgument,
    *,
    wanted: WantedOptions,
    page: PageOptions,
    pipeline: LakePipelineOption = None,
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """Where something is in view, or happens: URI, time range and score."""
    with vidproc.open(lake, pipeline=pipeline, **s3.given()) as opened:
        found = opened.search(**wanted.given(), limit=max(page.limit, 1), offset=page.offset, after=page.after)
        database = opened.database
        hits = found.hits if page.limit else []
        if page.limit:
            say_hints(database, wanted.query(limit=1))
        if pipeline is None and database.pipeline and len(database.pipelines) > 1:
            say_pipeline(database.pipeline, database.pipelines)
    if as_json:
        print_json(hits)
        return
    zone = ZoneInfo(wanted.timezone)
    print_table("found", ("video", "from", "to", "what", "score", f"recorded ({wanted.timezone})"), [
        (h.uri, _clock(h.start_s), _clock(h.end_s), _what(h),
         f"{h.score:.2f}", cell(h.recorded_at and h.recorded_at.astimezone(zone)))
        for h in hits
    ])  # fmt: skip
    if hits and len(hits) == page.limit:
        say(f"more: --after {hits[-1].token}")
    elif page.limit and not hits:
        print("nothing was found; `vidproc query LAKE \"SELECT kind, label, count(*) FROM segments GROUP BY ALL\"` "
              "shows what there is")  # fmt: skip


def _what(hit: Hit) -> str:
    return f"{' + '.join(w for w in (hit.label, hit.action) if w)} {hit.why}".rstrip()


def say_hints(database: LakeDatabase, question: SearchQuery) -> None:
    """Say on standard error what the answer leaves out, and why."""
    from vidproc.ask.hints import hints

    for sentence in hints(database, question):
        print(printable(sentence), file=sys.stderr)


def _clock(seconds: float) -> str:
    minutes, s = divmod(seconds, 60)
    h, m = divmod(int(minutes), 60)
    return f"{h}:{m:02d}:{s:05.2f}" if h else f"{m}:{s:05.2f}"


def say_pipeline(pipeline: str | None, pipelines: Sequence[str]) -> None:
    """Name the pipeline on standard error, so that the answer itself stays what a program expects."""
    others = ", ".join(name for name in pipelines if name != pipeline)
    said = f"of the pipeline {pipeline}; the lake also has {others} (--pipeline NAME, or all)"
    print(printable(said), file=sys.stderr)
