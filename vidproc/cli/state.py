"""status, failures, runs: what a lake knows about its videos and its runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

import vidproc
from vidproc.cli.answers import as_json as to_json
from vidproc.cli.answers import cell, plain, print_json, print_table, there_is
from vidproc.cli.options import JsonOption, LakeArgument, LakePipelineOption, S3Options, expanded
from vidproc.progress import hms, spell
from vidproc.text import printable, printable_json, say

if TYPE_CHECKING:
    from vidproc.tables.status import LakeStatus

app = typer.Typer()


@app.command()
@expanded
def status(
    lake: LakeArgument,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the jobs that run on this lake, until the last has ended.")
    ] = False,
    every: Annotated[float, typer.Option("--every", min=0.5, help="Seconds between two looks of --watch.")] = 5.0,
    pipeline: LakePipelineOption = None,
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """How many videos ended how, what the tables hold, and what runs just now."""
    opened = vidproc.open(lake, **s3.given())
    if watch:
        _watch(opened, every, as_json)
    found, runs = opened.status(pipeline=pipeline), opened.running()
    if as_json:
        print_json(plain(found) | {"running": [plain(run) | {"silent": run.silent} for run in runs]})
        return
    _show_videos(found)
    print_table("", ("table", "rows", "files", "MB"), [
        (name, f"{t.rows:,}", f"{t.files:,}", f"{t.bytes / 1e6:,.2f}") for name, t in found.tables.items() if t.rows
    ])  # fmt: skip
    if found.pending_change is not None:
        print("a publication is half done: the next run completes it")
    for run in runs:
        say(f"running: {run.line()}")
    if (last := found.last_run) is not None:
        say(f"last run {last['run_id']}: {last['outcome']}" + (f", {last['reason']}" if last["reason"] else ""))


def _show_videos(found: LakeStatus) -> None:
    share = " ".join(f"{n:,} {status}" for status, n in found.by_status.items())
    say(f"{found.uri}: {found.videos:,} videos, {spell(found.video_hours * 3600)}" + (f" ({share})" if share else ""))
    if len(found.by_pipeline) > 1:
        say("pipelines: " + ", ".join(f"{name} {n:,}" for name, n in found.by_pipeline.items()))
        say(f"this is of the pipeline {found.pipeline}" if found.pipeline else "this is of all pipelines together")
    if found.by_error_class:
        say("what was wrong: " + ", ".join(f"{name} {n:,}" for name, n in found.by_error_class.items()))


def _watch(lake: vidproc.Lake, every_s: float, as_json: bool) -> None:
    """Print one line for each running job at each look, written over on a terminal; return when no job is alive."""
    import time

    from rich.live import Live
    from rich.text import Text

    on_terminal = sys.stdout.isatty() and not as_json
    with Live(transient=True, auto_refresh=False) if on_terminal else nullcontext() as live:
        while alive := [run for run in lake.running() if not run.silent]:
            lines = [printable(run.line() + (f" | {run.said}" if run.said else "")) for run in alive]
            if live is not None:
                live.update(Text("\n".join(lines)), refresh=True)
            elif as_json:
                print(printable_json({"running": plain(alive)}, default=to_json), flush=True)
            else:
                print("\n".join(lines), flush=True)
            time.sleep(every_s)


@app.command()
@expanded
def failures(
    lake: LakeArgument,
    *,
    error_class: Annotated[
        list[str] | None, typer.Option("--class", help="Only this class. Given again: either.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows at most.")] = 50,
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """What failed, why, and where."""
    opened = vidproc.open(lake, **s3.given())
    rows = opened.failures(error_class=error_class or None, limit=limit + 1).arrow().to_pylist()
    if as_json:
        print_json(rows[:limit])
        return
    if not rows:
        known = opened.error_classes()
        say("no failures" + (f" of class {' or '.join(error_class)}" if error_class else "") + there_is(known))
        return
    print_table("failures", ("uri", "stage", "class", "attempt", "error"), [
        (r["uri"], r["stage"], r["error_class"], str(r["attempt"]), r["error"]) for r in rows[:limit]
    ])  # fmt: skip
    if len(rows) > limit:
        print("there are more: raise --limit")


@app.command()
@expanded
def runs(
    lake: LakeArgument,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Runs at most.")] = 20,
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """The runs that wrote to this lake, the latest first."""
    rows = vidproc.open(lake, **s3.given()).runs(limit=limit).arrow().to_pylist()
    if as_json:
        print_json(rows)
        return
    print_table("runs", ("run", "started", "took", "outcome", "indexed", "partial", "declined", "failed", "speed"), [
        (r["run_id"], f"{r['started_at']:%Y-%m-%d %H:%M}", _took(r), r["outcome"],
         *(cell(r[f"videos_{k}"]) for k in ("indexed", "partial", "declined", "failed")),
         f"{r['video_seconds_per_second'] or 0:.1f}x")
        for r in rows
    ])  # fmt: skip


def _took(run: Mapping[str, Any]) -> str:
    return hms((run["ended_at"] - run["started_at"]).total_seconds()) if run["ended_at"] else "-"
