"""Globs on the paths of objects."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase


def matches(key: str, glob: str) -> bool:
    """As shells do, except that `*` crosses folders; a glob without a slash also meets the bare name."""
    return fnmatchcase(key, glob) or ("/" not in glob and fnmatchcase(key.rpartition("/")[2], glob))


def may_match_below(folder: str, glob: str) -> bool:
    """Whether the glob may meet anything below the folder: by what it says before its first wildcard."""
    literal, below = re.split(r"[*?[]", glob)[0], f"{folder}/"
    return "/" not in glob or literal.startswith(below) or below.startswith(literal)
