"""What a report says of a lake, asked from its tables. Every list has a limit: a report does not grow with a lake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from vidproc.ask import LakeDatabase

MAX_LABELS = 40
MAX_SERIES = 6
"""Labels that have a colour of their own in a chart; the others are drawn as one."""
MAX_PROBLEMS = 30
MAX_RUNS = 12
MAX_DAYS = 366
MAX_TEXT = 300
"""Characters of a sentence that comes from outside."""

PICTURES_EACH = 6

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Videos that ended with one error class."""

    error_class: str
    status: str
    videos: int
    uri: str
    error: str
    """Of one of them, as an example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One label of the segments."""

    kind: str
    """presence or action."""
    label: str
    segments: int
    seconds: float
    videos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """The last run, and what it added."""

    run: Row
    """Its row in `runs`."""
    videos: int
    seconds: float
    """Of video, in the videos that it wrote."""
    labels: tuple[Label, ...]
    first_seen: tuple[str, ...]
    """Labels that no other video of the lake has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A lake in numbers, at one moment."""

    lake: str
    made_at: datetime
    zone: str
    pipeline: str | None
    pipelines: tuple[str, ...]
    videos: int
    hours: float
    bytes: int
    coverage: float | None
    """Share of the promised time that decoded, over all videos whose length is known. None: there are none."""
    first_at: datetime | None
    last_at: datetime | None
    undated: int
    """Videos whose date of recording is not known: they are in no chart."""
    states: Mapping[str, int]
    rows: Mapping[str, int]
    problems: tuple[Problem, ...]
    away: tuple[int, str]
    """Videos that the last run could not look at, and why, of one of them."""
    labels: tuple[Label, ...]
    by_hour: Mapping[str, Sequence[int]]
    """Label -> segments that begin in each of the 24 hours of a day."""
    by_day: Mapping[str, Mapping[date, int]]
    """Label -> segments that begin on each day (or in each month, by its first day, where there are more)."""
    monthly: bool
    pictures: Mapping[str, Sequence[Row]]
    """Heading -> rows of tracks or segments, to be looked at."""
    night: Night | None
    runs: tuple[Row, ...]


def gather(lake: LakeDatabase, *, zone: str = "UTC") -> Facts:
    """Ask the lake for all that a report says. `zone`: IANA name of the time zone of hours and days."""
    [about] = _rows(lake, _ABOUT)
    by_hour, by_day, monthly = _by_time(lake, zone)
    away = _rows(lake, "SELECT count(*) AS n, min(away) AS why FROM videos WHERE away IS NOT NULL")[0]
    counted = ("detections", "tracks", "actions", "segments", "shots", "embeddings")
    return Facts(
        lake=lake.uri,
        made_at=datetime.now(UTC),
        zone=zone,
        pipeline=lake.pipeline,
        pipelines=lake.pipelines,
        videos=about["videos"],
        hours=(about["seconds"] or 0.0) / 3600,
        bytes=int(about["bytes"] or 0),
        coverage=about["coverage"],
        first_at=about["first_at"],
        last_at=about["last_at"],
        undated=about["undated"] or 0,
        states={r["status"]: r["n"] for r in _rows(
            lake, "SELECT status, count(*) AS n FROM videos GROUP BY status ORDER BY n DESC, status")},
        rows={name: int(about[f"n_{name}"] or 0) for name in counted},
        problems=tuple(Problem(**r | {"error": _short(r["error"])}) for r in _rows(lake, _PROBLEMS)),
        away=(away["n"], _short(away["why"])),
        labels=_labels(lake, "true"),
        by_hour=by_hour,
        by_day=by_day,
        monthly=monthly,
        pictures={heading: _rows(lake, sql) for heading, sql in _PICTURES.items()},
        night=_night(lake),
        runs=tuple(_rows(lake, f"{_RUNS} ORDER BY started_at DESC LIMIT {MAX_RUNS}")),
    )  # fmt: skip


_RUNS = "SELECT * EXCLUDE (job, versions) FROM runs"

_ABOUT = """
    SELECT count(DISTINCT video_id) AS videos, sum(duration_s) AS seconds, sum(size_bytes) AS bytes,
           sum(coverage * coalesce(promised_s, duration_s)) / nullif(sum(coalesce(promised_s, duration_s)), 0)
               AS coverage,
           min(recorded_at) AS first_at, max(recorded_at + to_microseconds((coalesce(duration_s, 0) * 1e6)::BIGINT))
               AS last_at,
           count(*) FILTER (recorded_at IS NULL AND status IN ('indexed', 'partial')) AS undated,
           sum(n_detections) AS n_detections, sum(n_tracks) AS n_tracks, sum(n_actions) AS n_actions,
           sum(n_segments) AS n_segments, sum(n_shots) AS n_shots, sum(n_embeddings) AS n_embeddings
    FROM videos"""

_PROBLEMS = f"""
    SELECT error_class, status, count(*) AS videos, min(uri) AS uri, min_by(error, uri) AS error
    FROM videos WHERE error_class IS NOT NULL
    GROUP BY error_class, status ORDER BY videos DESC, error_class, status LIMIT {MAX_PROBLEMS}"""


def _picked(columns: str, table: str, where: str, order: str) -> str:
    """The first rows in an order, one of each video and label before the next of the same."""
    return (
        f"SELECT * EXCLUDE (its_place) FROM (SELECT {columns}, "
        f"row_number() OVER (PARTITION BY video_id, label ORDER BY {order}, start_s) AS its_place "
        f"FROM {table} WHERE {where}) AS placed ORDER BY its_place, {order}, video_id, start_s LIMIT {PICTURES_EACH}"
    )


_TRACK = "video_id, pipeline, [track_id] AS track_ids, label, start_s, end_s, score_mean AS score, detections"
_SEGMENT = "video_id, pipeline, kind, label, start_s, end_s, score, track_ids"

_PICTURES = {
    "Longest tracks": _picked(_TRACK, "tracks", "true", "end_s - start_s DESC"),
    "Most certain tracks": _picked(_TRACK, "tracks", "detections > 2", "score DESC"),
    "Longest presences": _picked(_SEGMENT, "segments", "kind = 'presence'", "end_s - start_s DESC"),
    "Longest actions": _picked(_SEGMENT, "segments", "kind = 'action'", "end_s - start_s DESC"),
    "Most certain actions": _picked(_SEGMENT, "segments", "kind = 'action'", "score DESC"),
}


def _labels(lake: LakeDatabase, of_videos: str, params: Sequence[Any] = ()) -> tuple[Label, ...]:
    sql = (
        "SELECT kind, s.label AS label, count(*) AS segments, sum(s.end_s - s.start_s) AS seconds, "
        "count(DISTINCT s.video_id) AS videos "
        "FROM segments s JOIN videos v ON s.video_id = v.video_id AND s.pipeline = v.pipeline "
        f"WHERE {of_videos} GROUP BY kind, s.label ORDER BY seconds DESC, s.label LIMIT {MAX_LABELS}"
    )
    return tuple(Label(**row) for row in _rows(lake, sql, params))


def _by_time(lake: LakeDatabase, zone: str) -> tuple[dict[str, list[int]], dict[str, dict[date, int]], bool]:
    began = (
        "SELECT s.label AS label, timezone($zone, v.recorded_at + to_microseconds((s.start_s * 1e6)::BIGINT)) AS began "
        "FROM segments s JOIN videos v ON s.video_id = v.video_id AND s.pipeline = v.pipeline "
        "WHERE v.recorded_at >= TIMESTAMPTZ '1901-01-01 00:00:00+00' "
        "AND v.recorded_at < TIMESTAMPTZ '2200-01-01 00:00:00+00'"
    )
    params = {"zone": zone}
    hours: dict[str, list[int]] = {}
    for row in _rows(lake, f"SELECT label, hour(began) AS h, count(*) AS n FROM ({began}) GROUP BY ALL", params):
        hours.setdefault(row["label"], [0] * 24)[row["h"]] += row["n"]
    [span] = _rows(lake, f"SELECT count(DISTINCT began::DATE) AS days FROM ({began})", params)
    monthly = span["days"] > 62
    unit = "date_trunc('month', began)::DATE" if monthly else "began::DATE"
    hours = ranked(hours)
    params |= {f"label{i}": label for i, label in enumerate(hours)}
    among = ", ".join(f"$label{i}" for i in range(len(hours))) or "NULL"
    sql = (
        f"SELECT CASE WHEN label IN ({among}) THEN label END AS label, {unit} AS day, count(*) AS n "
        f"FROM ({began}) GROUP BY ALL ORDER BY day DESC LIMIT {MAX_DAYS * (len(hours) + 1)}"
    )
    days: dict[str, dict[date, int]] = {}
    for row in _rows(lake, sql, params):
        days.setdefault(row["label"] or list(hours)[-1], {})[row["day"]] = row["n"]
    newest = set(sorted({day for by in days.values() for day in by})[-MAX_DAYS:])
    drawn = {label: {d: n for d, n in days.get(label, {}).items() if d in newest} for label in hours}
    return hours, drawn, monthly


def ranked(series: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """The largest series first, the small ones summed as one of others."""
    order = sorted(series, key=lambda name: (-sum(series[name]), name))
    kept = {name: list(series[name]) for name in order[:MAX_SERIES]}
    if rest := order[MAX_SERIES:]:
        kept[f"{len(rest)} others"] = [sum(column) for column in zip(*(series[name] for name in rest), strict=True)]
    return kept


def _night(lake: LakeDatabase) -> Night | None:
    mine = "" if lake.pipeline is None else "WHERE pipeline = $pipeline"
    params = None if lake.pipeline is None else {"pipeline": lake.pipeline}
    runs = _rows(lake, f"{_RUNS} {mine} ORDER BY started_at DESC LIMIT 1", params)
    if not runs:
        return None
    run = runs[0]
    [new] = _rows(
        lake, "SELECT count(*) AS videos, sum(duration_s) AS seconds FROM videos WHERE run_id = ?", [run["run_id"]]
    )
    first = _rows(
        lake,
        "SELECT s.label AS label FROM segments s JOIN videos v ON s.video_id = v.video_id AND s.pipeline = v.pipeline "
        f"GROUP BY s.label HAVING bool_and(v.run_id = ?) ORDER BY s.label LIMIT {MAX_LABELS}",
        [run["run_id"]],
    )
    others = lake.sql("SELECT count(*) AS n FROM videos WHERE run_id <> ?", [run["run_id"]]).read_all()["n"][0].as_py()
    return Night(
        run={k: _short(v) if isinstance(v, str) else v for k, v in run.items()},
        videos=new["videos"],
        seconds=new["seconds"] or 0.0,
        labels=_labels(lake, "v.run_id = ?", [run["run_id"]]),
        first_seen=tuple(row["label"] for row in first) if others else (),
    )


def _rows(lake: LakeDatabase, sql: str, params: Any = None) -> list[dict[str, Any]]:
    return lake.sql(sql, params or None).read_all().to_pylist()  # type: ignore[no-any-return]


def _short(text: str | None) -> str:
    text = text or ""
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."
