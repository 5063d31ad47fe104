"""Choose rows of a lake by a condition, or by a SELECT of the user's own."""

from __future__ import annotations

import re
from typing import Any, Literal

from vidproc.ask.database import LakeDatabase
from vidproc.errors import ConfigError

Table = Literal["detections", "tracks", "segments", "actions"]

_GROUPS = {
    "detections": ("label, track_id", "score", "time_s"),
    "tracks": ("label", "score_max", "start_s"),
    "segments": ("label", "score", "start_s"),
    "actions": ("label", "score", "start_s"),
}


def select_rows(lake: LakeDatabase, where: str, table: Table, limit: int) -> list[dict[str, Any]]:
    """Return at most `limit` rows for SQL that passes the same locks as any question.

    A whole SELECT gives its rows as they come. A condition is asked of `table`, joined with the `uri` and `recorded_at`
    of its video; the surest rows come first, one of each video and label (of detections: of each track) before the
    next of the same, in order of video and time.
    """
    if re.match(r"\s*(?:select|with|from)\b", where, re.I):
        return lake.sql(where, limit=limit).read_all().to_pylist()  # type: ignore[no-any-return]
    if not where.strip():
        raise ConfigError("--where is empty: give a condition such as \"label = 'person' AND score > 0.8\"")
    group, score, time = _GROUPS[table]
    # The condition ends in a line of its own, so that a comment in it ends there too.
    sql = (
        "SELECT * EXCLUDE (its_place) FROM ("
        f"SELECT *, row_number() OVER (PARTITION BY video_id, pipeline, {group} ORDER BY {score} DESC, {time}) "
        "AS its_place FROM (SELECT t.*, v.uri, v.recorded_at "
        f"FROM {table} t JOIN videos v ON t.video_id = v.video_id AND t.pipeline = v.pipeline) AS rows WHERE (\n"
        f"{where}\n)) AS placed ORDER BY its_place, {score} DESC, uri, {time}"
    )
    rows: list[dict[str, Any]] = lake.sql(sql, limit=limit).read_all().to_pylist()
    return sorted(rows, key=lambda row: (row["uri"], row[time]))
