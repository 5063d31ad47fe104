"""Whole videos from their staged parts into the tables: link, write down, commit.

Exactly once: a batch becomes one numbered change (see changes.py), which a killed publisher leaves
either unwritten, and then the staged parts are still there, or written down, and then anyone
finishes it. Publishing the same outcomes of the same run again is no change.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidproc import __version__
from vidproc.errors import NotFound, TransientError, VidprocError
from vidproc.memory import give_back_freed
from vidproc.secrets import redact
from vidproc.tables import changes
from vidproc.tables.delta import BATCH_ROWS, quoted
from vidproc.tables.lake import Lake
from vidproc.tables.outcome import Failure, VideoOutcome, failure_of
from vidproc.tables.schema import MODEL_TABLES, load_schema
from vidproc.tables.staging import Staging

ATTEMPTS = 8
"""How often a batch is prepared anew: each time others have changed something of it meanwhile."""

Link = Callable[[VideoOutcome, dict[str, pa.Table]], dict[str, pa.Table]]
"""Sees a whole video's rows in order of time and gives the rows that are committed: adds track_id, makes
tracks and segments. Deterministic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """The run in whose name rows are published."""

    run_id: str
    pipeline: str
    """Name of the pipeline."""
    pipeline_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishReport:
    number: int | None
    """The change's place in the lake's order; None where there was nothing to change."""
    published: tuple[str, ...] = ()
    """video_ids that are in the lake as the batch has them, by this call or by an earlier one that was cut off."""
    missing: tuple[str, ...] = ()
    """video_ids that were left as they are: a part of theirs is not staged (any more), since `forget` or another
    run took it. What is left of them is discarded. To be done again."""
    elsewhere: tuple[str, ...] = ()
    """The same, but another run of the same pipeline has published them as they are."""
    link_failed: tuple[str, ...] = ()
    """Published videos that became `failed` since linking raised."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """By table."""
    seconds: float = 0.0


def publish(
    lake: Lake, batch: Sequence[VideoOutcome], link: Link, run: RunInfo, *, patience_s: float = 30.0
) -> PublishReport:
    """Commits the videos of the batch; their older rows of the same pipeline go in the same commits.

    One commit a table that has or had rows of these videos, `videos` last. Memory: one video's rows,
    and the batch's as compressed Parquet.

    Other publishers of the lake take turns with this one; one that has made no progress for
    `patience_s` is presumed dead and its change finished first. Of two publishers of one video the
    later turn wins, in all tables.

    Raises TransientError where the store does not answer: then call again with the same batch.
    """
    began = time.monotonic()
    if len({o.video.video_id for o in batch}) != len(batch):
        raise ValueError("a video may be in a batch only once")
    for _ in range(ATTEMPTS if batch else 0):
        number = changes.turn(lake.tables, patience_s=patience_s)
        there = _published(lake, batch, run, run.run_id)
        prepared = _prepare(lake, [o for o in batch if o.video.video_id not in there], link, run)
        give_back_freed()  # the Delta library will ask for as much again
        if not prepared.change.videos:
            if there:  # an earlier call of ours was cut off after its last commit: what it left goes too
                recover(lake)
            return _report(lake, batch, run, number=None, there=there, prepared=prepared, began=began)
        while True:
            # Under a name that belongs to this number alone: what lay here before it is anybody's to delete.
            change = replace(prepared.change, id=changes.new_id())
            for name, data in prepared.files.items():
                lake.storage.put(changes.rows_key(change.id, name), data)
            if changes.take(lake.tables, number, change):
                if changes.finish(lake.tables, number, change):
                    return _report(lake, batch, run, number=number, there=there, prepared=prepared, began=began)
                break  # undone: somebody took the rows away before the first commit
            lake.storage.delete(changes.rows_key(change.id, name) for name in prepared.files)
            number = changes.turn(lake.tables, patience_s=patience_s)
            if _published(lake, batch, run, run.run_id) != there:
                break  # an earlier, cut-off call of ours was finished meanwhile by another publisher
    if batch:
        raise TransientError(f"{lake.uri}: the rows of {len(batch)} videos were taken away {ATTEMPTS} times")
    return PublishReport(number=None)


def recover(lake: Lake) -> list[changes.Change]:
    """Finishes what a killed publisher or `forget` left half done, and gives it. Call it before work
    starts; it is safe at any time, and costs two requests where nothing is left."""
    return changes.roll_forward(lake.tables)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    change: changes.Change
    files: Mapping[str, bytes]
    rows: Mapping[str, int]
    missing: tuple[str, ...]
    link_failed: tuple[str, ...]


def _report(
    lake: Lake,
    batch: Sequence[VideoOutcome],
    run: RunInfo,
    *,
    number: int | None,
    there: frozenset[str],
    prepared: _Prepared,
    began: float,
) -> PublishReport:
    missing = frozenset(prepared.missing)
    Staging(lake.storage, run.pipeline_id).discard(missing)
    elsewhere = missing and missing & _published(lake, batch, run, None)
    return PublishReport(
        number=number,
        published=(*sorted(there), *prepared.change.videos),
        missing=tuple(sorted(missing - elsewhere)),
        elsewhere=tuple(sorted(elsewhere)),
        link_failed=prepared.link_failed,
        rows=prepared.rows,
        seconds=time.monotonic() - began,
    )


def _published(lake: Lake, batch: Sequence[VideoOutcome], run: RunInfo, run_id: str | None) -> frozenset[str]:
    """Those which that run, or any (None), has published already, as they are."""
    predicate = (
        f"video_id IN ({quoted([o.video.video_id for o in batch])}) AND pipeline = {quoted([run.pipeline])} "
        f"AND pipeline_id = {quoted([run.pipeline_id])}"
    )
    if run_id is not None:
        predicate += f" AND run_id = {quoted([run_id])}"
    columns = ["video_id", "content_id", "attempts"]
    found = lake.tables.read("videos", columns, predicate).to_pylist()
    same = {(r["video_id"], r["content_id"], r["attempts"] if run_id else 0) for r in found}
    return frozenset(
        o.video.video_id for o in batch if (o.video.video_id, o.video.content_id, o.attempts if run_id else 0) in same
    )


def _prepare(lake: Lake, batch: Sequence[VideoOutcome], link: Link, run: RunInfo) -> _Prepared:
    staging = Staging(lake.storage, run.pipeline_id)
    files = {name: _RowFile(name) for name in (*MODEL_TABLES, "failures", "videos")}
    published: list[str] = []
    missing: list[str] = []
    link_failed: list[str] = []
    tasks: list[tuple[str, str]] = []
    with_failures: list[str] = []
    video_rows: list[dict[str, Any]] = []
    failure_rows: list[dict[str, Any]] = []
    # By video_id, so that the file statistics and row groups of each table are narrow.
    for outcome in sorted(batch, key=lambda o: o.video.video_id):
        video_id = outcome.video.video_id
        try:
            parts = staging.load(video_id, outcome.task_ids)[0] if outcome.task_ids else {}
        except NotFound:
            missing.append(video_id)
            continue
        failures = set(outcome.failures)
        if failures or outcome.attempts > 1:  # else nothing is staged, and a listing a video is saved
            failures |= set(staging.failures(video_id))
            with_failures.append(video_id)
        outcome, rows, broken = _linked(outcome, parts, link, run)
        if broken is not None:
            failures.add(broken)
            link_failed.append(video_id)
        counts = {name: table.num_rows for name, table in rows.items()}
        while rows:  # what is written is let go: one video's rows may be millions
            name, table = rows.popitem()
            files[name].write(table)
            del table
        failure_rows += [_failure_row(f, run) for f in sorted(failures, key=lambda f: (f.at, f.attempt))]
        video_rows.append(_video_row(outcome, counts, run))
        published.append(video_id)
        tasks += [(video_id, task_id) for task_id in outcome.task_ids]
    files["failures"].write(pa.Table.from_pylist(failure_rows, load_schema("failures").stored))
    files["videos"].write(pa.Table.from_pylist(video_rows, load_schema("videos").stored))
    filled = {name: file for name, file in files.items() if file.rows}
    change = changes.Change(
        id=changes.new_id(),
        kind="publish",
        videos=tuple(published),
        pipeline=run.pipeline,
        pipeline_id=run.pipeline_id,
        run_id=run.run_id,
        tables=tuple(filled),
        tasks=tuple(tasks),
        with_failures=tuple(with_failures),
    )
    return _Prepared(
        change=change,
        files={name: file.close() for name, file in filled.items()},
        rows={name: file.rows for name, file in filled.items()},
        missing=tuple(missing),
        link_failed=tuple(link_failed),
    )


def _linked(
    outcome: VideoOutcome, parts: dict[str, pa.Table], link: Link, run: RunInfo
) -> tuple[VideoOutcome, dict[str, pa.Table], Failure | None]:
    """The rows as the tables take them; `parts` is empty then. A video on which linking raises becomes `failed`,
    without rows; the others of its batch go on."""
    video = outcome.video
    recorded_at = outcome.info.recorded_at if outcome.info else None
    try:
        linked = dict(link(outcome, parts))  # which may give what it was given
        parts.clear()
        rows = {}
        while linked:
            name, table = linked.popitem()
            if name not in MODEL_TABLES:
                raise ValueError(f"linking gave rows for {name!r}; the tables of rows are {', '.join(MODEL_TABLES)}")
            rows[name] = load_schema(name).conform(
                table,
                video_id=video.video_id,
                pipeline=run.pipeline,
                recorded_date=recorded_at.astimezone(UTC).date() if recorded_at else None,
            )
        return outcome, rows, None
    except Exception as e:
        error_class = e.error_class if isinstance(e, VidprocError) else "internal"
        error = f"linking failed: {redact(str(e)) or type(e).__name__}"
        failure = failure_of(
            video, run.run_id, stage="link", error_class=error_class, error=error, traceback=traceback.format_exc()
        )
        return replace(outcome, status="failed", error_class=error_class, error=error), {}, failure


def _video_row(outcome: VideoOutcome, rows: Mapping[str, int], run: RunInfo) -> dict[str, Any]:
    video, info = outcome.video, outcome.info
    row: dict[str, Any] = {
        "video_id": video.video_id,
        "pipeline": run.pipeline,
        "uri": readable(video.uri),
        "content_id": video.content_id,
        "size_bytes": video.size_bytes,
        "modified_at": video.modified_at,
        "status": outcome.status,
        "coverage": outcome.coverage,
        "error_class": outcome.error_class,
        "error": None if outcome.error is None else readable(redact(outcome.error)),
        "warnings": [readable(redact(w)) for w in outcome.warnings],
        "attempts": outcome.attempts,
        "frames_decoded": outcome.frames_decoded,
        "frames_sampled": outcome.frames_sampled,
        "pipeline_id": run.pipeline_id,
        "run_id": run.run_id,
        "indexed_at": datetime.now(UTC),
        "vidproc_version": __version__,
        **{f"n_{name}": rows.get(name, 0) for name in MODEL_TABLES},
    }
    if info is not None:
        row |= {
            "container": info.container,
            "codec": info.codec,
            "pixel_format": info.pixel_format,
            "width": info.width,
            "height": info.height,
            "rotation": info.rotation,
            "fps": info.fps,
            "time_base": f"{info.time_base.numerator}/{info.time_base.denominator}",
            "start_pts": info.origin_pts,
            "duration_s": outcome.duration_s,
            "promised_s": info.duration_s,
            "recorded_at": info.recorded_at,
            "recorded_date": info.recorded_at.astimezone(UTC).date() if info.recorded_at else None,
        }
    return row


def _failure_row(failure: Failure, run: RunInfo) -> dict[str, Any]:
    return asdict(failure) | {
        "pipeline": run.pipeline,
        "uri": readable(failure.uri),
        "error": readable(redact(failure.error)),
        "traceback": None if failure.traceback is None else readable(redact(failure.traceback)),
    }


def record_failures(lake: Lake, failures: Sequence[Failure], run: RunInfo) -> None:
    """Adds failures of videos whose rows stay as they are."""
    if failures:
        table = pa.Table.from_pylist([_failure_row(f, run) for f in failures], load_schema("failures").stored)
        lake.tables.replace("failures", lambda: iter(table.to_batches()), None, number=None)


def readable(text: str) -> str:
    """For the tables, which hold UTF-8: bytes of a file name that are none appear as `\\xe9`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class _RowFile:
    """Rows of one table as Parquet in memory, a video at a time."""

    def __init__(self, name: str) -> None:
        self.rows = 0
        self._schema = load_schema(name).stored
        self._sink = pa.BufferOutputStream()
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def write(self, table: pa.Table) -> None:
        if table.num_rows:
            self.rows += table.num_rows
            self._waiting.append(table)
            # A row group a video would be many times the bytes of its rows.
            if sum(t.num_rows for t in self._waiting) >= BATCH_ROWS:
                self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer = self._writer or pq.ParquetWriter(self._sink, self._schema, compression="zstd")
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=BATCH_ROWS)
            self._waiting = []

    def close(self) -> bytes:
        self._flush()
        assert self._writer is not None
        self._writer.close()
        data: bytes = self._sink.getvalue().to_pybytes()
        return data
