"""query, search: questions to a lake."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from zoneinfo import ZoneInfo

import typer

from vidproc.cli.answers import cell, print_json, print_table, whole_file
from vidproc.cli.options import JsonOption, LakeArgument, LakePipelineOption, S3Options, absolute, expanded
from vidproc.errors import ConfigError
from vidproc.text import printable, say

if TYPE_CHECKING:
    from vidproc.ask import SearchQuery

app = typer.Typer()


@app.command()
@expanded
def query(
    lake: LakeArgument,
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="One SELECT over videos, detections, tracks, actions, segments, ...")
    ],
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
    from vidproc.ask import PIPELINE, connect, write_result

    if as_json:
        out_format = "json"
    if out_format == "parquet" and output is None and sys.stdout.isatty():
        raise ConfigError("Parquet is not for a terminal: name a file with --output")
    with connect(absolute(lake), s3.options(), pipeline=pipeline) as database:
        answer = database.sql(sql, limit=limit, offset=offset)
        if pipeline is None and PIPELINE in (answer.schema.metadata or {}):
            say_pipeline(database.pipeline, database.pipelines)
        if output is None:
            write_result(answer, out_format, sys.stdout.buffer)
        else:
            with whole_file(output) as file:
                rows = write_result(answer, out_format, file)
            print(printable(f"{rows:,} rows in {output}"), file=sys.stderr)


@dataclass(frozen=True, slots=True)
class WantedOptions:
    """What to search for."""

    label: Annotated[
        list[str] | None, typer.Option("--label", help="Something in view, such as person. Given again: either.")
    ] = None
    action: Annotated[
        list[str] | None, typer.Option("--action", help="Something that happens, such as run. Given again: either.")
    ] = None
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

    def query(self, *, limit: int, offset: int = 0, after: str | None = None) -> SearchQuery:
        from vidproc.ask import SearchQuery

        return SearchQuery(
            label=self.label, action=self.action, min_seconds=self.min_seconds, min_score=self.min_score,
            since=self.since, until=self.until, time_of_day=[_hours(text) for text in self.between or ()],
            date=[_day(text) for text in self.day or ()], timezone=self.timezone, video=self.video,
            limit=max(limit, 1), offset=offset, after=after,
        )  # fmt: skip


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
    from vidproc.ask import connect
    from vidproc.ask import search as run_search

    question = wanted.query(limit=page.limit, offset=page.offset, after=page.after)
    with connect(absolute(lake), s3.options(), pipeline=pipeline) as database:
        hits = run_search(database, question) if page.limit else []
        if pipeline is None and database.pipeline and len(database.pipelines) > 1:
            say_pipeline(database.pipeline, database.pipelines)
    if as_json:
        print_json(hits)
        return
    zone = ZoneInfo(wanted.timezone)
    print_table("found", ("video", "from", "to", "what", "score", f"recorded ({wanted.timezone})"), [
        (h.uri, _clock(h.start_s), _clock(h.end_s), " + ".join(w for w in (h.label, h.action) if w),
         f"{h.score:.2f}", cell(h.recorded_at and h.recorded_at.astimezone(zone)))
        for h in hits
    ])  # fmt: skip
    if hits and len(hits) == page.limit:
        say(f"more: --after {hits[-1].token}")
    elif page.limit and not hits:
        print("nothing was found; `vidproc query LAKE \"SELECT kind, label, count(*) FROM segments GROUP BY ALL\"` "
              "shows what there is")  # fmt: skip


def _hours(text: str) -> tuple[time, time]:
    try:
        start, end = (time.max if (t := part.strip()) == "24:00" else time.fromisoformat(t) for part in text.split("-"))
    except ValueError:
        raise ConfigError(f"--between takes two times of day such as 22:00-06:00, not {text!r}") from None
    return start, end


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--date takes a day such as 2026-11-22, not {text!r}") from None


def _clock(seconds: float) -> str:
    minutes, s = divmod(seconds, 60)
    h, m = divmod(int(minutes), 60)
    return f"{h}:{m:02d}:{s:05.2f}" if h else f"{m}:{s:05.2f}"


def say_pipeline(pipeline: str | None, pipelines: Sequence[str]) -> None:
    """Name the pipeline on standard error, so that the answer itself stays what a program expects."""
    others = ", ".join(name for name in pipelines if name != pipeline)
    said = f"of the pipeline {pipeline}; the lake also has {others} (--pipeline NAME, or all)"
    print(printable(said), file=sys.stderr)
