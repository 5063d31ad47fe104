"""Videos taken out of a lake, with all that is stored of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from vidproc.media import content_hash
from vidproc.tables import changes
from vidproc.tables.delta import Tables, quoted
from vidproc.tables.schema import MODEL_TABLES
from vidproc.tables.staging import FOLDER as STAGING

MAX_VIDEOS_PER_CHANGE = 500
"""Keeps predicates short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetReport:
    forgotten: tuple[str, ...]
    unknown: tuple[str, ...]
    """URIs of which the lake held nothing: no rows, no failures, no staged parts."""
    rows: Mapping[str, int]


def forget(tables: Tables, uris: Sequence[str], *, patience_s: float) -> ForgetReport:
    """See `Lake.forget`."""
    changes.roll_forward(tables)  # it may be about one of them
    ids = {content_hash(uri): uri for uri in uris}
    staged = {key.split("/")[2] for key in (o.key for o in tables.storage.list(f"{STAGING}/")) if key.count("/") > 2}
    known = ids.keys() & staged
    rows = dict.fromkeys((*MODEL_TABLES, "failures", "videos"), 0)
    order = sorted(ids)
    for i in range(0, len(order), MAX_VIDEOS_PER_CHANGE):
        chunk = order[i : i + MAX_VIDEOS_PER_CHANGE]
        columns = ["video_id", *(f"n_{name}" for name in MODEL_TABLES)]
        found = tables.read("videos", columns, f"video_id IN ({quoted(chunk)})")
        failed = tables.read("failures", ["video_id"], f"video_id IN ({quoted(chunk)})")
        known |= {*found["video_id"].to_pylist(), *failed["video_id"].to_pylist()}
        rows["videos"] += found.num_rows
        rows["failures"] += failed.num_rows
        for name in MODEL_TABLES:
            rows[name] += pc.sum(found[f"n_{name}"]).as_py() or 0
        if there := tuple(video_id for video_id in chunk if video_id in known):
            change = changes.Change(id=changes.new_id(), kind="forget", videos=there)
            changes.submit(tables, change, patience_s=patience_s)
    return ForgetReport(
        forgotten=tuple(ids[v] for v in order if v in known),
        unknown=tuple(ids[v] for v in order if v not in known),
        rows=rows,
    )
