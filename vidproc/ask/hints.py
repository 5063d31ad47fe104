"""What a search cannot know, said: labels that the lake does not have, and videos without a date of recording."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from vidproc.ask.database import LakeDatabase
from vidproc.ask.searching import SearchQuery

MAX_NAMED = 30
"""Labels named in one sentence."""


def hints(lake: LakeDatabase, query: SearchQuery) -> list[str]:
    """Return sentences on what the answer to a search leaves out and why; none where there is nothing to say."""
    return [
        *_unknown(lake, "presence", query.label),
        *_unknown(lake, "action", query.action),
        *_unknown(lake, None, query.with_label),
        *_unknown(lake, None, query.then),
        *_undated(lake, query),
    ]


def _unknown(lake: LakeDatabase, kind: str | None, asked: str | Sequence[str] | None) -> list[str]:
    wanted = [asked] if isinstance(asked, str) else list(asked or ())
    if not wanted:
        return []
    where = "true" if kind is None else f"kind = '{kind}'"
    sql = f"SELECT label, count(*) AS n FROM segments WHERE {where} GROUP BY label ORDER BY n DESC, label"
    known = lake.sql(sql).read_all()["label"].to_pylist()
    folded = {label.casefold(): label for label in reversed(known)}
    said = []
    what = "action" if kind == "action" else "label"
    for label in wanted:
        if label in known:
            continue
        close = [folded[name] for name in get_close_matches(label.casefold(), folded, 1)]
        guess = f"; did you mean {close[0]!r}?" if close else "."
        more = f" and {len(known) - MAX_NAMED} more" if len(known) > MAX_NAMED else ""
        there = f" There are: {', '.join(known[:MAX_NAMED])}{more}" if known else " The lake has none at all."
        said.append(f"no segment has the {what} {label!r}{guess}{there}")
    return said


def _undated(lake: LakeDatabase, query: SearchQuery) -> list[str]:
    clocks = {"since": query.since, "until": query.until, "date": query.date, "between": query.time_of_day}
    asked = [f"--{name}" for name, value in clocks.items() if value]
    if not asked:
        return []
    sql = "SELECT count(*) AS n FROM videos WHERE recorded_at IS NULL AND n_segments > 0"
    n = lake.sql(sql).read_all()["n"][0].as_py()
    if not n:
        return []
    return [
        f"{n:,} videos have no date of recording, so {' and '.join(asked)} left them out: index with --recorded-at "
        "PATTERN to take it from their names"
    ]
