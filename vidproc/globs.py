"""Globs on the paths of objects."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase


def matches(key: str, glob: str) -> bool:
    """Return whether a key matches a glob as in shells, except that `*` crosses folders. A glob without a slash also
    matches the bare name."""
    return fnmatchcase(key, glob) or ("/" not in glob and fnmatchcase(key.rpartition("/")[2], glob))


def may_match_below(folder: str, glob: str) -> bool:
    """Return whether the glob may match anything below the folder, by its text before the first wildcard."""
    literal, below = re.split(r"[*?[]", glob)[0], f"{folder}/"
    return "/" not in glob or literal.startswith(below) or below.startswith(literal)
