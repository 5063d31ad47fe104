"""Find stretches of video by what is seen in them: the tables asked by options in place of SQL."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo
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

    label: str | Sequence[str] | None = None
    """Any of these."""
    action: str | Sequence[str] | None = None
    with_label: str | Sequence[str] | None = None
    """At the same time: a hit is the time in which what is looked for overlaps with a presence or an action of another
    label in the same video, one of these."""
    then: str | Sequence[str] | None = None
    """Afterwards: a hit goes from where what is looked for begins to the end of a presence or action of one of these
    labels that begins later, and at most `within` seconds after the first ended."""
    within: float = 10.0
    """Seconds."""
    min_seconds: float = 0.0
    """Shorter hits are left out; of an overlap, its own length counts."""
    min_score: float = 0.0
    """Of an overlap, the lower of both scores counts."""
    since: datetime | None = None
    until: datetime | None = None
    """Hits that share a moment with [since, until), by the wall clock. Naive times are in `timezone`.
    Videos whose `recorded_at` is not known have no wall clock, and are left out once one is asked for."""
    time_of_day: tuple[time, time] | Sequence[tuple[time, time]] | None = None
    """Hits that begin in [from, to) of a day in `timezone`; from later than to goes over midnight. Of several spans,
    in any."""
    date: date | Sequence[date] | None = None
    """Hits that begin on that day, or on any of these, in `timezone`."""
    timezone: str = "UTC"
    """IANA name, such as `Europe/Berlin`."""
    video: str | Sequence[str] | None = None
    """Shell glob (`*`, `?`, `[a-z]`) for the whole URI or for what follows any of its slashes. Of several, any."""
    limit: int = 100
    offset: int = 0
    after: str | None = None
    """`token` of the last hit of the page before: the next page begins behind it, whatever the lake
    has got in between."""

    def __post_init__(self) -> None:
        if self.limit < 1 or self.offset < 0 or self.min_seconds < 0:
            raise ConfigError(
                "limit must be positive, offset and min_seconds not negative: "
                f"{self.limit}, {self.offset}, {self.min_seconds:g}"
            )
        if not 0 <= self.within < float("inf"):
            raise ConfigError(f"within is a number of seconds, not negative: {self.within:g}")
        if self.with_label and self.then:
            raise ConfigError("with and then are two questions: ask one of them")
        if (self.with_label or self.then) and not (self.label or self.action):
            raise ConfigError("with and then go together with a label or an action: say what is looked for first")
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
    why: str
    """What was found together with it, such as `with dog` or `then wave`; empty where nothing else was asked."""
    video_id: str
    pipeline: str
    token: str
    """Place of this hit in the order of all hits: `SearchQuery.after` of the next page."""


_SEGMENT = """
    SELECT video_id, pipeline, model, start_s, end_s, score, track_ids,
           CASE kind WHEN 'presence' THEN label END AS label, CASE kind WHEN 'action' THEN label END AS action,
           '' AS why
    FROM segments WHERE kind IN {kinds} AND {among}"""

_OVERLAP = """
    SELECT p.video_id, p.pipeline, concat(p.model, '+', a.model) AS model,
           greatest(p.start_s, a.start_s) AS start_s, least(p.end_s, a.end_s) AS end_s,
           least(p.score, a.score) AS score, p.track_ids, p.label, a.label AS action, '' AS why
    FROM segments p JOIN segments a ON p.video_id = a.video_id AND p.pipeline = a.pipeline
    WHERE p.kind = 'presence' AND p.{labels} AND a.kind = 'action' AND a.{actions}
        AND p.start_s < a.end_s AND a.start_s < p.end_s"""

_PAIRED = {
    # What begins and ends each: the time in which both are there; or from the first to the end of what follows.
    "with": (
        "greatest(f.start_s, o.start_s)", "least(f.end_s, o.end_s)",
        "f.start_s < o.end_s AND o.start_s < f.end_s "
        # Itself is always there at the same time.
        "AND o.label IS DISTINCT FROM f.label AND o.label IS DISTINCT FROM f.action",
    ),
    "then": (
        "f.start_s", "greatest(f.end_s, o.end_s)", "o.start_s > f.start_s AND o.start_s <= f.end_s + $within"
    ),
}  # fmt: skip

# Pairs that touch are one hit: two dogs that come one after the other do not cut a person's time in two.
_PAIRS = """
    SELECT video_id, pipeline, min(model) AS model, min(start_s) AS start_s, max(end_s) AS end_s, max(score) AS score,
           list_distinct(flatten(list(track_ids))) AS track_ids, label, action,
           concat('{word} ', string_agg(DISTINCT other, ', ' ORDER BY other)) AS why
    FROM (
        SELECT *, sum(begins) OVER (PARTITION BY video_id, pipeline, label, action ORDER BY start_s, end_s, model, other
                                    ROWS UNBOUNDED PRECEDING) AS island
        FROM (
            SELECT *, CASE WHEN start_s <= max(end_s) OVER (
                PARTITION BY video_id, pipeline, label, action ORDER BY start_s, end_s, model, other
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) THEN 0 ELSE 1 END AS begins
            FROM (
                SELECT f.video_id, f.pipeline, concat(f.model, '+', o.model) AS model, {start} AS start_s,
                       {end} AS end_s, least(f.score, o.score) AS score, f.label, f.action, o.label AS other,
                       list_concat(coalesce(f.track_ids, []), coalesce(o.track_ids, [])) AS track_ids
                FROM ({found}) f JOIN segments o ON f.video_id = o.video_id AND f.pipeline = o.pipeline
                WHERE o.label IN ({labels}) AND {meet}
            ) AS pairs
        ) AS marked
    ) AS islands
    GROUP BY video_id, pipeline, label, action, island"""

# Ties cannot be: the key ends with all that tells one segment from another. Infinity: no wall clock.
_KEY = (
    "coalesce(epoch(began), 'inf'::DOUBLE)", "uri", "start_s", "end_s",
    "coalesce(label, '')", "coalesce(action, '')", "pipeline", "model",
)  # fmt: skip

_SEARCH = """
WITH found AS ({found}),
dated AS (
    SELECT video_id, pipeline, uri,
           CASE WHEN recorded_at >= $first_date AND recorded_at < $end_of_dates THEN recorded_at END AS recorded
    FROM videos
),
placed AS (
    SELECT f.*, v.uri, v.recorded + to_microseconds((f.start_s * 1e6)::BIGINT) AS began,
           v.recorded + to_microseconds((f.end_s * 1e6)::BIGINT) AS ended
    FROM found f JOIN dated v ON f.video_id = v.video_id AND f.pipeline = v.pipeline
    WHERE f.end_s - f.start_s >= $min_seconds - 1e-9 AND f.score >= $min_score AND {videos}
),
keyed AS (SELECT *, {key} AS key FROM placed WHERE {conditions})
SELECT uri, start_s, end_s, label, action, score, began AS recorded_at, track_ids, why, video_id, pipeline, key
FROM keyed {after} ORDER BY key LIMIT $limit OFFSET $offset"""


FIRST_DATE, END_OF_DATES = datetime(1901, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""A lake may hold dates of recording outside of these: of cameras whose clock was never set, or of a container that
says anything. Such a video has no wall clock here, as one whose date is not known."""


def search(lake: LakeDatabase, query: SearchQuery) -> list[Hit]:
    """One page of hits, by wall clock (videos without one last), then by URI and time.

    Pages follow each other without loss or repetition by `after`; by `offset` too while the lake
    stays as it is.
    """
    zone = ZoneInfo(query.timezone)
    params: dict[str, Any] = {
        "min_seconds": query.min_seconds,
        "min_score": query.min_score,
        "limit": query.limit,
        "offset": query.offset,
        "first_date": FIRST_DATE,
        "end_of_dates": END_OF_DATES,
    }
    conditions = ["true"]

    def ask(condition: str, **values: Any) -> None:
        conditions.append(condition)
        params.update(values)

    def names(name: str, values: Sequence[Any]) -> list[str]:
        """A parameter for each value."""
        params.update({f"{name}{i}": value for i, value in enumerate(values)})
        return [f"${name}{i}" for i in range(len(values))]

    if query.since is not None:
        ask("ended > $since", since=_aware(query.since, zone))
    if query.until is not None:
        ask("began < $until", until=_aware(query.until, zone))
    days: list[date] = [query.date] if isinstance(query.date, date) else list(query.date or ())
    spans = _spans(query.time_of_day)
    if days or spans:
        params["zone"] = query.timezone
    if days:
        ask(f"timezone($zone, began)::DATE IN ({', '.join(names('day', days))})")
    if spans:
        clock = "timezone($zone, began)::TIME"
        ask(" OR ".join(
            f"({clock} >= {first} {'AND' if span[0] <= span[1] else 'OR'} {clock} < {last})"
            for span in spans
            for first, last in [names(f"span{len(params)}_", span)]
        ).join("()"))  # fmt: skip
    after = ""
    if query.after is not None:
        key = _read_token(query.after)
        after = f"WHERE key > {_struct([f'$key{i}' for i in range(len(key))])}"
        params |= {f"key{i}": value for i, value in enumerate(key)}
    labels, actions, globs = (_several(v) for v in (query.label, query.action, query.video))
    wanted = {key: values for key, values in (("labels", labels), ("actions", actions)) if values}
    among = {key: f"label IN ({', '.join(names(key, values))})" for key, values in wanted.items()}
    if labels and actions:
        found = _OVERLAP.format(**among)
    else:
        kinds = "('presence')" if labels else "('action')" if actions else "('presence', 'action')"
        found = _SEGMENT.format(kinds=kinds, among=next(iter(among.values()), "true"))
    for word, others in (("with", _several(query.with_label)), ("then", _several(query.then))):
        if others:
            start, end, meet = _PAIRED[word]
            params |= {"within": query.within} if word == "then" else {}
            marks = ", ".join(names(word, others))
            found = _PAIRS.format(word=word, start=start, end=end, meet=meet, labels=marks, found=found)
    videos = " OR ".join(f"v.uri GLOB {g} OR v.uri GLOB concat('*/', {g})" for g in names("glob", globs)) or "true"
    text = _SEARCH.format(
        found=found, videos=f"({videos})", key=_struct(_KEY), conditions=" AND ".join(conditions), after=after
    )
    rows = lake._stream(text, params).read_all().to_pylist()
    return [_hit(row) for row in rows]


def _several(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _spans(value: Any) -> list[tuple[time, time]]:
    if not value:
        return []
    return [value] if isinstance(value[0], time) else list(value)


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
