"""Print text that comes from outside: file names, labels, licences, tags, and the errors of other libraries.

Such text may hold anything. On a terminal it could move the cursor, change colours, show itself in another order, or
look like a line of ours. Everything that vidproc prints or logs for people passes `printable`. Data (JSON, CSV,
Parquet, the tables) keeps every character; `printable_json` writes the same JSON value without raw control characters.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def printable(text: str) -> str:
    """Return the text on one line. Control characters, line breaks, escape sequences, bidirectional and invisible
    characters, and halves of surrogate pairs are written as Python writes them: `\\n`, `\\x1b`, `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable_lines(text: str) -> str:
    """Return a message of several lines, each line printable. The second and later lines are indented, so that none
    can pass for a message of its own."""
    return "\n  ".join(printable(line) for line in text.split("\n"))


def say(*lines: object) -> None:
    """Print for people, each on a line of its own; what stands in them may come from outside."""
    for line in lines:
        print(printable(str(line)), flush=True)


def printable_json(value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """Return the value as JSON. Characters that a terminal would act on are written as JSON escapes, so a parser
    reads exactly the same strings; all others stand as they are."""
    text = json.dumps(value, indent=indent, default=default, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
