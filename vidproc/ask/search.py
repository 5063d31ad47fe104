"""Find stretches of video by what is seen in them: the tables asked by options in place of SQL."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from vidproc.ask.database import LakeDatabase
from vidproc.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """What is looked for in `segments`. What is not given, is not asked.

    A label is looked for among presences, an action among actions; with both, a hit is the time in
    which a presence and an action of one video overlap. With neither, both kinds are listed.
    """

    label: str | None = None
    action: str | None = None
    min_seconds: float = 0.0
    """Shorter hits are left out; of an overlap, its own length counts."""
    min_score: float = 0.0
    """Of an overlap, the lower of both scores counts."""
    since: datetime | None = None
    until: datetime | None = None
    """Hits that share a moment with [since, until), by the wall clock. Naive times are in `timezone`.
    Videos whose `recorded_at` is not known have no wall clock, and are left out once one is asked for."""
    time_of_day: tuple[time, time] | None = None
    """Hits that begin in [from, to) of a day in `timezone`; from later than to goes over midnight."""
    date: date | None = None
    """Hits that begin on that day in `timezone`."""
    timezone: str = "UTC"
    """IANA name, such as `Europe/Berlin`."""
    video: str | None = None
    """Shell glob (`*`, `?`, `[a-z]`) for the whole URI or for what follows any of its slashes."""
    limit: int = 100
    offset: int = 0
    after: str | None = None
    """`token` of the last hit of the page before: the next page begins behind it, whatever the lake
    has got in between."""

    def __post_init__(self) -> None:
        if self.limit < 1 or self.offset < 0 or self.min_seconds < 0:
            raise ConfigError(f"limit must be positive, offset and min_seconds not negative: {self}")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as e:
            raise ConfigError(f"there is no time zone {self.timezone!r}; give a name such as Europe/Berlin") from e


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One stretch of one video: `[start_s, end_s)` on the video's clock, in seconds."""

    uri: str
    start_s: float
    end_s: float
    label: str | None
    action: str | None
    score: float
    recorded_at: datetime | None
    """UTC wall-clock time of `start_s`, None where the video's `recorded_at` is not known."""
    track_ids: tuple[int, ...]
    """Of the objects in view, local to the video (and so to be joined with `video_id`)."""
    video_id: str
    pipeline: str
    token: str
    """Place of this hit in the order of all hits: `SearchQuery.after` of the next page."""


_SEGMENT = """
    SELECT video_id, pipeline, model, start_s, end_s, score, track_ids,
           CASE kind WHEN 'presence' THEN label END AS label, CASE kind WHEN 'action' THEN label END AS action
    FROM segments WHERE kind IN ('presence', 'action')
        AND ($label IS NULL OR kind = 'presence' AND label = $label)
        AND ($action IS NULL OR kind = 'action' AND label = $action)"""

_OVERLAP = """
    SELECT p.video_id, p.pipeline, concat(p.model, '+', a.model) AS model,
           greatest(p.start_s, a.start_s) AS start_s, least(p.end_s, a.end_s) AS end_s,
           least(p.score, a.score) AS score, p.track_ids, p.label, a.label AS action
    FROM segments p JOIN segments a ON p.video_id = a.video_id AND p.pipeline = a.pipeline
    WHERE p.kind = 'presence' AND p.label = $label AND a.kind = 'action' AND a.label = $action
        AND p.start_s < a.end_s AND a.start_s < p.end_s"""

# Ties cannot be: the key ends with all that tells one segment from another. Infinity: no wall clock.
_KEY = (
    "coalesce(epoch(began), 'inf'::DOUBLE)", "uri", "start_s", "end_s",
    "coalesce(label, '')", "coalesce(action, '')", "pipeline", "model",
)  # fmt: skip

_SEARCH = """
WITH found AS ({found}),
placed AS (
    SELECT f.*, v.uri, v.recorded_at + to_microseconds((f.start_s * 1e6)::BIGINT) AS began,
           v.recorded_at + to_microseconds((f.end_s * 1e6)::BIGINT) AS ended
    FROM found f JOIN videos v ON f.video_id = v.video_id AND f.pipeline = v.pipeline
    WHERE f.end_s - f.start_s >= $min_seconds - 1e-9 AND f.score >= $min_score
        AND ($video IS NULL OR v.uri GLOB $video OR v.uri GLOB concat('*/', $video))
),
keyed AS (SELECT *, {key} AS key FROM placed WHERE {conditions})
SELECT uri, start_s, end_s, label, action, score, began AS recorded_at, track_ids, video_id, pipeline, key
FROM keyed {after} ORDER BY key LIMIT $limit OFFSET $offset"""


def search(lake: LakeDatabase, query: SearchQuery) -> list[Hit]:
    """One page of hits, by wall clock (videos without one last), then by URI and time.

    Pages follow each other without loss or repetition by `after`; by `offset` too while the lake
    stays as it is.
    """
    zone = ZoneInfo(query.timezone)
    params: dict[str, Any] = {
        "label": query.label,
        "action": query.action,
        "min_seconds": query.min_seconds,
        "min_score": query.min_score,
        "video": query.video,
        "limit": query.limit,
        "offset": query.offset,
    }
    conditions = ["true"]

    def ask(condition: str, **values: Any) -> None:
        conditions.append(condition)
        params.update(values)

    if query.since is not None:
        ask("ended > $since", since=_aware(query.since, zone))
    if query.until is not None:
        ask("began < $until", until=_aware(query.until, zone))
    if query.date is not None:
        ask("timezone($zone, began)::DATE = $date", zone=query.timezone, date=query.date)
    if query.time_of_day is not None:
        first, last = query.time_of_day
        clock = "timezone($zone, began)::TIME"
        ask(
            f"({clock} >= $first {'AND' if first <= last else 'OR'} {clock} < $last)",
            zone=query.timezone,
            first=first,
            last=last,
        )
    after = ""
    if query.after is not None:
        key = _read_token(query.after)
        after = f"WHERE key > {_struct([f'$key{i}' for i in range(len(key))])}"
        params |= {f"key{i}": value for i, value in enumerate(key)}
    both = query.label is not None and query.action is not None
    text = _SEARCH.format(
        found=_OVERLAP if both else _SEGMENT, key=_struct(_KEY), conditions=" AND ".join(conditions), after=after
    )
    rows = lake._stream(text, params).read_all().to_pylist()
    return [_hit(row) for row in rows]


def _struct(values: Sequence[str]) -> str:
    """A struct compares from its first member to its last."""
    return "{" + ", ".join(f"k{i}: {value}" for i, value in enumerate(values)) + "}"


def _aware(moment: datetime, zone: tzinfo) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def _hit(row: dict[str, Any]) -> Hit:
    key = list(row.pop("key").values())
    token = base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")
    return Hit(**row | {"track_ids": tuple(row["track_ids"] or ()), "token": token})


def _read_token(token: str) -> list[Any]:
    try:
        key = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if [type(k) for k in key] != [float, str, float, float, str, str, str, str]:
            raise ValueError(token)
    except (ValueError, TypeError) as e:
        raise ConfigError(f"{token!r} is no page token of a search; give the `token` of a hit") from e
    return list(key)
