"""A prompt for one question after the other, on one open lake: `vidproc query LAKE` without SQL."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import vidproc
from vidproc.errors import ConfigError, TransientError
from vidproc.secrets import redact
from vidproc.text import printable_lines, say

KEYWORDS = (
    "SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "HAVING", "LIMIT", "OFFSET", "JOIN", "LEFT JOIN", "ON", "USING",
    "AS", "AND", "OR", "NOT", "IN", "IS NULL", "IS NOT NULL", "LIKE", "BETWEEN", "DISTINCT", "UNION ALL", "WITH",
    "CASE", "WHEN", "THEN", "ELSE", "END", "DESC", "ASC", "DESCRIBE", "SUMMARIZE", "EXPLAIN", "count(*)", "sum(",
    "avg(", "min(", "max(", "round(", "list(", "date_trunc(",
)  # fmt: skip
LEAVES = frozenset(("exit", "quit", "\\q"))
WELCOME = "Ask in SQL; Tab completes, the arrows find earlier questions, `exit` or Ctrl-D leaves. Tables: "


def converse(lake: vidproc.Lake, ask: Callable[[str], None]) -> None:
    """Ask for a statement and answer it, until the user leaves. What goes wrong with one is said, and the next is
    asked for."""
    try:
        toolkit = import_module("prompt_toolkit")
    except ModuleNotFoundError as error:
        raise ConfigError("a prompt needs prompt_toolkit: pip install prompt_toolkit, or give SQL") from error
    completion = import_module("prompt_toolkit.completion")
    tables = columns()

    def get_completions(_self: object, document: Any, _event: object) -> Iterator[Any]:
        typed, found = completions(document.text_before_cursor, tables)
        for word in found:
            yield completion.Completion(word, start_position=-len(typed))

    words = type("Words", (completion.Completer,), {"get_completions": get_completions})()
    session = toolkit.PromptSession("vidproc> ", completer=words, complete_while_typing=False, history=_history())
    say(WELCOME + ", ".join(lake.database.tables))
    while True:
        try:
            statement = session.prompt().strip().rstrip(";").strip()
            if statement in LEAVES:
                return
            if statement:
                ask(statement)
        except EOFError:
            return
        except KeyboardInterrupt:
            continue
        except (ConfigError, TransientError) as error:
            print(f"vidproc: {printable_lines(redact(str(error)))}", file=sys.stderr)


def columns() -> dict[str, list[str]]:
    """Return the columns of each table."""
    from vidproc.tables.schema import load_schemas

    return {name: list(schema.names) for name, schema in load_schemas().items()}


def completions(before: str, tables: Mapping[str, Iterable[str]]) -> tuple[str, list[str]]:
    """Return the word that is being typed, and what it may become: after FROM and JOIN a table, after `table.` one of
    its columns, elsewhere the columns of the tables that are named so far, all columns, tables and keywords."""
    match = re.search(r"(?:(\w+)\.)?(\w*)$", before)
    assert match is not None
    owner, typed = match[1], match[2]
    if owner is not None:
        known = list(tables.get(owner.lower(), ()))
    elif re.search(r"\b(?:FROM|JOIN|DESCRIBE|SUMMARIZE)\s+\w*$", before, re.I):
        known = list(tables)
    else:
        named = [t for t in tables if re.search(rf"\b{t}\b", before, re.I)] or list(tables)
        known = [*dict.fromkeys(c for t in named for c in tables[t]), *tables, *KEYWORDS]
    return typed, [word for word in known if word.lower().startswith(typed.lower()) and word != typed]


def _history() -> Any:
    """The questions of earlier sessions, kept where programs keep their state; in memory where that cannot be."""
    history = import_module("prompt_toolkit.history")
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "vidproc"
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = state / "query_history"
        file.touch(mode=0o600)
    except OSError:
        return history.InMemoryHistory()
    return history.FileHistory(str(file))
