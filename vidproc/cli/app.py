"""The commands by name, and the console script that runs one of them.

Exit codes: 0 all well; 1 above the failure budget, or the run was aborted; 2 bad usage or
configuration, found before work starts; 130 interrupted, resumable.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from importlib import import_module
from importlib.abc import MetaPathFinder
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_group

from vidproc.errors import ConfigError, VidprocError
from vidproc.extras import named_extras
from vidproc.output import as_a_filter, outlive_readers
from vidproc.secrets import redact
from vidproc.text import printable, printable_lines
from vidproc.video.archive import check_encoding

COMMANDS = {
    "index": "indexing",
    "plan": "indexing",
    "retry": "indexing",
    "status": "state",
    "failures": "state",
    "runs": "state",
    "query": "questions",
    "search": "questions",
    "show": "looking",
    "report": "looking",
    "export": "cutting",
    "compact": "upkeep",
    "vacuum": "upkeep",
    "forget": "upkeep",
    "demo": "demo",
    "submit": "cluster",
    "train": "learning",
    "eval": "learning",
    "fewshot": "learning",
    "relabel": "learning",
    "explain": "learning",
    "dataset": "learning",
    "models": "models",
    "jobs": "cluster",
}
"""Each command, and the module of this package that declares it, in the order of the help text."""

WORKING_COMMANDS = frozenset(
    (
        "index",
        "retry",
        "compact",
        "vacuum",
        "forget",
        "train",
        "eval",
        "fewshot",
        "relabel",
        "dataset",
        "demo",
        "export",
    )
)
"""Commands that work, perhaps for hours: they go on when whoever reads what they print has left. The others end with
their reader."""


QUESTIONS = frozenset(("status", "failures", "runs", "query", "search"))
"""Commands that somebody waits for, and that read a lake and nothing else."""


class _Commands(Mapping[str, Any]):
    """The commands by name. A command's module is imported when the command is looked up, so that a question does not
    wait for the modules of the other commands."""

    def __getitem__(self, name: str) -> Any:
        module = import_module(f"vidproc.cli.{COMMANDS[name]}")
        return get_group(module.app).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(TyperGroup):
    def __init__(self, **declared: Any) -> None:
        super().__init__(**declared)
        self.commands = _Commands()  # type: ignore[assignment]


app = typer.Typer(
    name="vidproc",
    help="Turn large video archives into tables that people can query.",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from vidproc.cli.versions import versions

        for name, version in versions().items():
            print(f"{name} {version}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the versions that matter and leave.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    check_encoding()
    if context.invoked_subcommand in WORKING_COMMANDS:
        outlive_readers()


def main() -> NoReturn:
    """Run the console script. Errors become one line and an exit code that a scheduler can trust."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if command in QUESTIONS and "pyarrow" not in sys.modules:
        # pyarrow and duckdb import pandas where they find it, which takes as long as all the rest of a question.
        sys.meta_path.insert(0, _Without("pandas"))
    try:
        with named_extras(), nullcontext() if command in WORKING_COMMANDS else as_a_filter():
            app(standalone_mode=True)
        sys.exit(0)
    except ConfigError as error:
        _fail(error, 2)
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


class _Without(MetaPathFinder):
    """Lets a module be missed that is there."""

    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == self._module:
            raise ModuleNotFoundError(f"{fullname} is not needed here", name=fullname)


def _fail(error: Exception, code: int) -> NoReturn:
    print(f"vidproc: {printable_lines(redact(str(error)))}", file=sys.stderr)
    sys.exit(code)
