"""export: clips of what a lake says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vidproc.ask.selecting import Table
from vidproc.cli.answers import plain, print_json
from vidproc.cli.looking import ArchiveOption
from vidproc.cli.options import (
    ExecutorOption,
    JsonOption,
    LakeArgument,
    LakePipelineOption,
    LogFormatOption,
    QuietOption,
    S3Options,
    absolute,
    absolute_or_none,
    expanded,
)
from vidproc.cli.questions import WantedOptions, say_pipeline
from vidproc.errors import ConfigError
from vidproc.progress import hms, reporter, spell
from vidproc.text import say

if TYPE_CHECKING:
    from vidproc.ask import LakeDatabase
    from vidproc.cut.export import ExportSummary

app = typer.Typer()

CODECS = "h264 (x264, GPL), hevc (x265, GPL), vp9 (libvpx, BSD), av1 (SVT-AV1, BSD) or mpeg4 (FFmpeg's own, LGPL)"


@app.command()
@expanded
def export(
    lake: LakeArgument,
    out: Annotated[str, typer.Argument(metavar="OUT", help="A folder or s3://bucket/prefix for the clips.")],
    *,
    where: Annotated[
        str | None,
        typer.Option(
            "--where", metavar="SQL", help="A condition on --table, such as \"label = 'person'\"; or a SELECT."
        ),
    ] = None,
    table: Annotated[Table, typer.Option("--table", help="Table that the condition is about.")] = "segments",
    rows: Annotated[
        Path | None,
        typer.Option(
            "--rows", metavar="FILE", help="CSV, JSON or Parquet with uri or video_id, and start_s and end_s or time_s."
        ),
    ] = None,
    wanted: WantedOptions,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Answers at most; of --rows all.")] = 1000,
    mode: Annotated[
        Literal["exact", "copy", "encode"],
        typer.Option(
            "--mode",
            help="exact: the frames asked for, encoded again at the edges only. copy: nothing is encoded, from the "
            "keyframe before on. encode: all frames.",
        ),
    ] = "exact",
    codec: Annotated[str, typer.Option("--codec", help=f"For what is encoded whole: {CODECS}.")] = "h264",
    before: Annotated[float, typer.Option("--before", metavar="SECONDS", help="Shown before each answer.")] = 2.0,
    after: Annotated[float, typer.Option("--after", metavar="SECONDS", help="Shown after each answer.")] = 2.0,
    max_seconds: Annotated[
        float | None,
        typer.Option("--max-seconds", metavar="SECONDS", help="Divide longer clips into parts of equal length."),
    ] = None,
    boxes: Annotated[bool, typer.Option("--boxes", help="Draw boxes and labels; all frames are encoded.")] = False,
    reel: Annotated[
        bool, typer.Option("--reel", help="Also join the clips into OUT/reel.mp4, with a chapter an answer.")
    ] = False,
    subtitles: Annotated[
        list[str] | None,
        typer.Option(
            "--subtitles", metavar="srt|vtt", help="Write labels and actions beside each clip. May be repeated."
        ),
    ] = None,
    archive: ArchiveOption = None,
    pipeline: LakePipelineOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and make nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that this command did not make.")] = False,
    max_failures: Annotated[
        str, typer.Option("--max-failures", help="Share or number of failed clips above which the exit code is 1.")
    ] = "5%",
    executor: ExecutorOption = None,
    address: Annotated[str | None, typer.Option("--address", help="A running Ray cluster: auto or host:port.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Clips at a time.")] = None,
    as_json: JsonOption = False,
    log_format: LogFormatOption = "auto",
    quiet: QuietOption = False,
    s3: S3Options,
) -> None:
    """Cut a clip of every answer: of a search, of --where, or of --rows.

    Answers of one video that overlap are one clip. OUT/manifest.csv and manifest.json say what each clip shows, how it
    was made, and why one could not be made. Run the same command again to go on: finished clips are kept.
    """
    from vidproc.cut.export import prepare
    from vidproc.cut.export import run as run_export
    from vidproc.cut.subtitles import formats_of, write_subtitles
    from vidproc.cut.work import ClipSettings
    from vidproc.settings import Execution

    how = ClipSettings(mode=mode, codec=codec, boxes=boxes)
    _check_budget(max_failures)
    beside = formats_of(subtitles or ())
    asked = [name for name, given in (("--where", where), ("--rows", rows)) if given is not None]
    if wanted != WantedOptions(timezone=wanted.timezone):
        asked.append("the options of search")
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} are different ways to ask: give one of them")
    place = absolute(out)
    with connect_to(lake, s3, pipeline) as database:
        found = _answers(database, where, table, rows, wanted, limit)
        works = _works(database, found, how, absolute_or_none(archive), _widening(before, after, max_seconds))
    _check_place(place, absolute(lake), [work.clip.video.uri for work in works], s3)
    options = s3.options()
    planned = prepare(works, place, how, options, force=force, with_reel=reel, beside=beside)
    forecast = planned.forecast()
    if dry_run:
        if as_json:
            print_json(plain(forecast))
        else:
            kept = f", of which {forecast.finished} are there already" if forecast.finished else ""
            say(f"{forecast.clips} clips from {forecast.videos} videos, {spell(forecast.seconds)}, about "
                f"{forecast.bytes / 1e6:,.1f} MB{kept}")  # fmt: skip
        return
    if not works:
        if as_json:
            print_json(plain(forecast))
        else:
            say(f"nothing was found, so nothing was written to {out}")
        return
    given: dict[str, Any] = {"executor": executor, "address": address, "workers": workers}
    execution = Execution(**{key: value for key, value in given.items() if value is not None})
    with reporter(quiet=quiet, log_format=log_format, doing="exporting") as shown:
        summary = run_export(planned, execution, max_failures=max_failures, reporter=shown, with_reel=reel)
    if beside:
        with connect_to(lake, s3, pipeline, quiet=True) as database:
            write_subtitles(database, planned, beside)
    if as_json:
        print_json(plain(summary))
    else:
        _show(summary)
    raise typer.Exit(summary.exit_code)


def connect_to(lake: str, s3: S3Options, pipeline: str | None, *, quiet: bool = False) -> LakeDatabase:
    from vidproc.ask import connect

    database = connect(absolute(lake), s3.options(), pipeline=pipeline)
    if not quiet and pipeline is None and database.pipeline and len(database.pipelines) > 1:
        say_pipeline(database.pipeline, database.pipelines)
    return database


def _check_budget(text: str) -> None:
    from vidproc.quantities import parse_failure_budget

    try:
        parse_failure_budget(text)
    except ValueError:
        raise ConfigError(f"--max-failures is a share such as 5% or a number of clips, not {text!r}") from None


def _widening(before: float, after: float, max_seconds: float | None) -> Any:
    from vidproc.cut.plan import Widening

    return Widening(before_s=before, after_s=after, max_s=max_seconds)


def _answers(
    database: LakeDatabase, where: str | None, table: Table, rows: Path | None, wanted: WantedOptions, limit: int
) -> list[Any]:
    from vidproc.ask import search
    from vidproc.ask.selecting import select_rows
    from vidproc.cut.rows import read_rows

    if rows is not None:
        return read_rows(rows)
    found: list[Any] = list(
        search(database, wanted.query(limit=limit)) if where is None else select_rows(database, where, table, limit)
    )
    if len(found) == limit:
        print(f"there may be more answers than --limit {limit}", file=sys.stderr)
    return found


def _works(database: LakeDatabase, found: list[Any], how: Any, archive: str | None, widening: Any) -> list[Any]:
    from vidproc.ask.scenes import scenes
    from vidproc.cut.boxes import boxes_between
    from vidproc.cut.plan import plan_clips
    from vidproc.cut.work import ClipWork
    from vidproc.media import content_hash

    def drawn(clip: Any) -> Any:
        video_id = content_hash(clip.listed_uri)
        return boxes_between(database, video_id, clip.start_s, clip.end_s) if how.boxes else ()

    clips = plan_clips(scenes(database, found, archive=archive), widening)
    return [ClipWork(clip=clip, how=how, boxes=drawn(clip)) for clip in clips]


def _check_place(place: str, lake: str, sources: list[str], s3: S3Options) -> None:
    root = place.rstrip("/")
    if root == lake.rstrip("/") or root.startswith(lake.rstrip("/") + "/"):
        raise ConfigError(f"{place} lies in the lake: give another place for the clips")
    among = next((uri for uri in sources if uri.startswith(root + "/")), None)
    if among is not None:
        raise ConfigError(f"{place} holds videos of the archive ({among}): give another place for the clips")


def _show(summary: ExportSummary) -> None:
    """Print how an export ended, for people."""
    modes = ", ".join(f"{n} {mode}" for mode, n in sorted(summary.modes.items()))
    kept = f", {summary.kept} already there" if summary.kept else ""
    say(f"{summary.outcome}: {summary.made} clips made{kept}, {summary.failed} failed; {spell(summary.seconds)}, "
        f"{summary.bytes / 1e6:,.1f} MB ({modes or 'none'}) in {hms(summary.elapsed_s)}")  # fmt: skip
    for error_class, number in sorted(summary.errors.items(), key=lambda kv: -kv[1])[:5]:
        say(f"  {number} x {error_class}, for example {summary.examples[error_class]}")
    if summary.licenses:
        say(f"encoded by {', '.join(summary.licenses)}")
    if summary.reel:
        say(f"reel: {summary.out}/{summary.reel}")
    say(f"manifest: {summary.out}/manifest.csv, manifest.json")
    say(f"exit code {summary.exit_code}: {summary.reason}")
