"""What a lake holds, counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidproc.errors import ConfigError
from vidproc.tables import changes
from vidproc.tables.compaction import files_of
from vidproc.tables.delta import Tables, quoted
from vidproc.tables.schema import MODEL_TABLES, TABLES


@dataclass(frozen=True, slots=True)
class TableSize:
    rows: int
    files: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeStatus:
    uri: str
    pipeline: str | None
    """The pipeline that the figures below count; None: all. Files and bytes of the tables are of all in any case."""
    videos: int
    """Different ones; a video counts once a pipeline below."""
    by_pipeline: Mapping[str, int]
    by_status: Mapping[str, int]
    by_error_class: Mapping[str, int]
    """Without those where nothing went wrong."""
    video_hours: float
    archive_bytes: int
    last_indexed_at: datetime | None
    tables: Mapping[str, TableSize]
    last_run: Mapping[str, Any] | None
    pending_change: int | None
    """Number of a change in progress, or left by a killed publisher: the next run finishes it."""


def status_of(
    tables: Tables, pipeline: str | None, last_run: Callable[[str | None], Mapping[str, Any] | None]
) -> LakeStatus:
    """Counts over the videos of one pipeline: of the one that is named, else of the one with the most videos (of
    equals the first by name). "all" counts over all together. Raises ConfigError where there is no such one.

    `last_run`: gives the last row of `runs`, of one pipeline or of all (None)."""
    counted = [f"n_{name}" for name in MODEL_TABLES]
    columns = ["video_id", "pipeline", "status", "error_class", "duration_s", "size_bytes", "indexed_at", *counted]
    rows = tables.read("videos", columns)
    by_pipeline = _counts(rows, "pipeline")
    if pipeline not in (None, "all", *by_pipeline):
        raise ConfigError(
            f"{tables.storage.uri}: there is no pipeline {pipeline!r} in this lake"
            + (f"; it has {', '.join(by_pipeline)}" if by_pipeline else ", and no video is indexed there yet")
        )
    if pipeline is None and by_pipeline:
        pipeline = min(by_pipeline, key=lambda name: (-by_pipeline[name], name))
    one = None if pipeline == "all" else pipeline
    sizes = {name: _size(tables, name) for name in TABLES}
    if one is not None and len(by_pipeline) > 1:
        rows = rows.filter(pc.equal(rows["pipeline"], one))
        own = {"videos": rows.num_rows} | {n: pc.sum(rows[f"n_{n}"]).as_py() or 0 for n in MODEL_TABLES}
        own |= {n: _rows_of(tables, n, one) for n in ("failures", "runs")}
        sizes = {name: replace(size, rows=own[name]) for name, size in sizes.items()}
    videos = rows.group_by("video_id").aggregate([("duration_s", "max"), ("size_bytes", "max")])
    pending = changes.pending(tables)
    return LakeStatus(
        uri=tables.storage.uri,
        pipeline=one,
        videos=len(videos),
        by_pipeline=by_pipeline,
        by_status=_counts(rows, "status"),
        by_error_class=_counts(rows, "error_class"),
        video_hours=(pc.sum(videos["duration_s_max"]).as_py() or 0.0) / 3600,
        archive_bytes=pc.sum(videos["size_bytes_max"]).as_py() or 0,
        last_indexed_at=pc.max(rows["indexed_at"]).as_py(),
        tables=sizes,
        last_run=last_run(one if len(by_pipeline) > 1 else None),
        pending_change=None if pending is None else pending[0],
    )


def _rows_of(tables: Tables, name: str, pipeline: str) -> int:
    return len(tables.read(name, ["pipeline"], f"pipeline = {quoted([pipeline])}"))


def _size(tables: Tables, name: str) -> TableSize:
    files = files_of(tables.open(name))
    return TableSize(sum(f.rows for f in files), len(files), sum(f.bytes for f in files))


def _counts(table: pa.Table, column: str) -> dict[str, int]:
    values = pc.value_counts(table[column].drop_null())
    return {v["values"]: v["counts"] for v in sorted(values.to_pylist(), key=lambda v: (-v["counts"], v["values"]))}
