"""compact, vacuum, forget: keep a lake small and quick."""

from __future__ import annotations

from typing import Annotated

import typer

import vidproc
from vidproc.cli.answers import cell, print_json, print_table
from vidproc.cli.options import JsonOption, LakeArgument, S3Options, expanded
from vidproc.text import say

app = typer.Typer()


@app.command()
@expanded
def compact(lake: LakeArgument, *, as_json: JsonOption = False, s3: S3Options) -> None:
    """Rewrite small files into large ones, ordered by video."""
    found = vidproc.open(lake, **s3.given()).compact()
    if as_json:
        print_json(found)
        return
    print_table("", ("table", "files before", "files now"), [
        (name, cell(r.files_before), cell(r.files_after)) for name, r in found.items() if r.files_before
    ])  # fmt: skip


@app.command()
@expanded
def vacuum(
    lake: LakeArgument,
    *,
    older_than: Annotated[
        float, typer.Option("--older-than", min=0, help="Hours; younger files may belong to a running job or reader.")
    ] = 24.0,
    now: Annotated[
        bool, typer.Option("--now", help="Remove at once what nothing refers to; no job may be running.")
    ] = False,
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """Remove what nothing refers to."""
    found = vidproc.open(lake, **s3.given()).vacuum(older_than=older_than, now=now)
    if as_json:
        print_json(found)
        return
    gone = cell({name: n for name, n in found.files.items() if n})
    print(f"{sum(found.files.values()):,} file(s) that no table refers to removed" + (f" ({gone})" if gone else "")
          + f", and {found.leftovers:,} that killed writers left")  # fmt: skip


@app.command()
@expanded
def forget(
    lake: LakeArgument,
    uris: Annotated[list[str], typer.Argument(metavar="URI...", help="Videos whose rows are to go.")],
    *,
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """Remove all rows of these videos; with `vacuum --now` their bytes go too.

    What is still in the archive comes back with the next index: take it out there first.
    """
    found = vidproc.open(lake, **s3.given()).forget(uris)
    if as_json:
        print_json(found)
        return
    if found.forgotten:
        rows = cell({name: n for name, n in found.rows.items() if n})
        say(f"{len(found.forgotten):,} video(s) forgotten, rows removed: {rows}")
    for uri in found.unknown:
        say(f"not in this lake: {uri}")
    if not found.forgotten:
        say("nothing to forget: the lake is as it was")
