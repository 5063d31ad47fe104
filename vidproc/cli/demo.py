"""demo: a first look at everything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidproc.cli.answers import print_json
from vidproc.cli.options import ExecutorOption, JsonOption
from vidproc.progress import reporter
from vidproc.text import printable_lines, say

if TYPE_CHECKING:
    from vidproc.ask import LakeDatabase

app = typer.Typer()


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the demo's archive, lake and picture go.")
    ] = Path("demo"),
    executor: ExecutorOption = "ray",
    as_json: JsonOption = False,
) -> None:
    """A small archive of which everything is known: drawn, indexed, scored, questioned and shown."""
    from vidproc.ask import write_result
    from vidproc.demo.run import run_demo

    def ask(database: LakeDatabase, question: str, sql: str) -> None:
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
        print_json(made)
        return
    print()
    say(
        f"contact sheet: {made.sheet}",
        f"report: open {made.report.resolve().as_uri()} in a browser",
        f"people as pictures: vidproc show {made.lake} people.jpg --label person",
    )
    say(f'ask it yourself: vidproc query {made.lake} "SELECT * FROM segments LIMIT 10"')
