"""How an answer is shown: tables and sentences for people, JSON for programs."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, BinaryIO

from vidproc.errors import ConfigError
from vidproc.text import printable, printable_json, say


def plain(value: Any) -> Any:
    """Return the value as JSON knows it: dataclasses and mappings as dicts, NaN as None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in dict(value).items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def as_json(value: Any) -> str:
    """Return a value that JSON does not know as text; for `json.dumps(default=...)`."""
    return value.isoformat() if isinstance(value, (datetime, date)) else str(value)


def print_json(value: Any) -> None:
    print(printable_json(plain(value), indent=2, default=as_json))


def print_answer(found: Any, *, json: bool) -> None:
    """Print a dataclass or mapping: as JSON, or one `name: value` a line."""
    if json:
        print_json(found)
        return
    for key, value in plain(found).items():
        say(f"{key}: {cell(value)}")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=printable(title), box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(printable(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(text)) for text in row))
    # A file or a pipe has no width: rows stay whole there.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


def cell(value: Any) -> str:
    """Return a value as a cell of a table for people."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell(v)}" for name, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(cell, value))
    return str(value)


def there_is(classes: Iterable[str]) -> str:
    """Return the end of a sentence that names the error classes a lake holds; empty where it holds none."""
    return f"; there is {', '.join(found)}" if (found := sorted(classes)) else ""


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name when all of it is written: half an answer, or half a Parquet file with a
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
