"""A lake: opened or made, looked into, tidied, and told to forget. Publishing is in publish.py."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vidproc import __version__
from vidproc.errors import AlreadyExists, ConfigError, Damaged, NotFound
from vidproc.media import content_hash
from vidproc.storage import LocalStorage, Storage, StorageOptions, open_storage
from vidproc.storage.folders import LAKE_MARKER
from vidproc.tables import changes, runs
from vidproc.tables.checks import check_lake, document
from vidproc.tables.committed import Committed
from vidproc.tables.compaction import FILE_BYTES, CompactReport, compact
from vidproc.tables.delta import Tables, patiently, quoted
from vidproc.tables.forgetting import ForgetReport, forget
from vidproc.tables.schema import TABLES, load_schema
from vidproc.tables.status import LakeStatus, status_of
from vidproc.tables.vacuum import VacuumReport, vacuum
from vidproc.text import printable

if TYPE_CHECKING:
    pass

MARKER = LAKE_MARKER
FORMAT = 1
"""Grows when older versions of vidproc could no longer write the lake correctly."""
DAY = timedelta(hours=24)
MAX_MARKED_PER_COMMIT = 10_000
"""Videos a commit that only says that they are away."""


@dataclass(frozen=True, slots=True)
class Lake:
    """Small and picklable; holds nothing open."""

    storage: Storage

    @classmethod
    def open(cls, uri: str, options: StorageOptions | None = None) -> Lake:
        """Raises ConfigError where there is no lake, or one of a newer format; Forged (a ConfigError) where its tables
        lead out of it (see checks.py)."""
        return cls.at(open_storage(uri, options=options))

    @classmethod
    def at(cls, place: Storage) -> Lake:
        """The same, of a place that is open already."""
        storage = place.confining()
        storage.delta_uri("videos")
        try:
            marker = document(storage, MARKER, "mark of a lake")
            format_ = marker["format"]
            if type(format_) is not int or format_ < 1:
                raise ValueError("format")
        except NotFound as e:
            raise ConfigError(
                f"{storage.uri} is not a lake: it has no {MARKER}. Check the place; `vidproc index` makes a lake "
                "where there is nothing yet"
            ) from e
        except (ValueError, LookupError, Damaged) as e:
            raise ConfigError(f"{storage.uri_of(MARKER)} is damaged or not vidproc's; is this a lake?") from e
        if format_ > FORMAT:
            maker = printable(str(marker.get("created_by", "a newer vidproc")))[:60]
            raise ConfigError(
                f"the lake {storage.uri} has format {format_}, made by {maker}; "
                f"this is vidproc {__version__}, which knows {FORMAT}: upgrade it"
            )
        lake = cls(storage)
        lake.check()
        return lake

    @classmethod
    def create(cls, uri: str, options: StorageOptions | None = None) -> Lake:
        """Opens the lake, or makes one where there is nothing. Raises ConfigError where something else
        lies. May be cut off anywhere, and called by many at once."""
        return cls.create_at(open_storage(uri, options=options))

    @classmethod
    def create_at(cls, storage: Storage) -> Lake:
        """The same, of a place that is open already."""
        storage.delta_uri("videos")
        if not storage.exists(MARKER):
            if (stranger := stranger_in(storage)) is not None:
                raise ConfigError(
                    f"{storage.uri} is neither empty nor a lake (there is {stranger!r}, and no {MARKER}); "
                    "give an empty or new place"
                )
            marker = {
                "format": FORMAT,
                "created_by": f"vidproc {__version__}",
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "lake_id": uuid.uuid4().hex,
            }
            with suppress(AlreadyExists):
                storage.put(MARKER, json.dumps(marker, indent=1).encode() + b"\n", if_absent=True)
        lake = cls.at(storage)
        lake.check(again=True)
        for name in TABLES:
            lake.tables.create(name)
        return lake

    def check(self, *, again: bool = False) -> None:
        """Raises Forged where something in the logs of the tables leads out of the lake. `again`: before something is
        written or deleted (see checks.py)."""
        patiently(partial(check_lake, self.storage, TABLES, changes.LAST, again=again))

    @property
    def uri(self) -> str:
        return self.storage.uri

    @property
    def tables(self) -> Tables:
        return Tables(self.storage)

    # --- looking in ------------------------------------------------------------------------------

    def committed(self, pipeline: str) -> Committed:
        """What the lake has of one pipeline: one read of a few columns of `videos`."""
        columns = ["video_id", "content_id", "pipeline_id", "status", "error_class", "away"]
        return self.tables.scanned("videos", columns, f"pipeline = {quoted([pipeline])}", Committed.of)

    def status(self, pipeline: str | None = None) -> LakeStatus:
        """Counts over the videos of one pipeline: of the one that is named, else of the one with the most videos (of
        equals the first by name). "all" counts over all together. Raises ConfigError where there is no such one."""
        return status_of(self.tables, pipeline, self._last_run)

    def _last_run(self, pipeline: str | None) -> Mapping[str, Any] | None:
        rows = self.runs(limit=1, pipeline=pipeline).to_pylist()
        return rows[0] if rows else None

    def videos(
        self, *, pipeline: str | None = None, status: str | None = None, error_class: str | None = None
    ) -> pa.Table:
        """Rows of `videos`, by uri."""
        return self._rows("videos", [("uri", "ascending")], pipeline=pipeline, status=status, error_class=error_class)

    def failures(
        self,
        *,
        pipeline: str | None = None,
        error_class: str | Sequence[str] | None = None,
        stage: str | None = None,
        run_id: str | None = None,
        uri: str | None = None,
        limit: int | None = None,
    ) -> pa.Table:
        """Failed attempts, the newest first; of several classes any. With a limit no more rows than that are held in
        memory."""
        video_id = None if uri is None else content_hash(uri)
        order = [("at", "descending"), ("attempt", "descending")]
        return self._rows(
            "failures", order, limit,
            pipeline=pipeline, error_class=error_class, stage=stage, run_id=run_id, video_id=video_id,
        )  # fmt: skip

    def runs(self, *, limit: int | None = None, pipeline: str | None = None) -> pa.Table:
        """Runs, the newest first. Those that are over and could not say so are marked as lost first; where the lake
        may only be read they are shown so."""
        unmarked = self.mark_lost()
        rows = self._rows("runs", [("started_at", "descending")], limit, pipeline=pipeline)
        if not unmarked:
            return rows
        shown = [row | unmarked.get(row["run_id"], {}) for row in rows.to_pylist()]
        return pa.Table.from_pylist(shown, schema=rows.schema)

    def mark_lost(self, *, signs_only: bool = False) -> dict[str, dict[str, Any]]:
        """Runs that `runs` calls running, and of which there has been no sign for a minute, by the store's clock, were
        killed, or could not write any more: their outcome becomes `lost`. One that was only asleep writes its real
        end over it. `signs_only`: does nothing where no run has left a sign, which a listing tells.

        Gives what could not be marked, since the lake may only be read: by run_id the fields that are wrong."""
        return runs.mark_lost(self.tables, signs_only=signs_only)

    def mark_away(self, pipeline: str, away: Mapping[str, str | None]) -> None:
        """Says in the rows of these videos (by video_id) why they cannot be looked at; None: they can."""
        by_text: dict[str | None, list[str]] = {}
        for video_id, why in away.items():
            by_text.setdefault(why, []).append(video_id)
        for why, video_ids in by_text.items():
            value = "NULL" if why is None else quoted([why])
            for i in range(0, len(video_ids), MAX_MARKED_PER_COMMIT):
                chunk = quoted(video_ids[i : i + MAX_MARKED_PER_COMMIT])
                match = f"video_id IN ({chunk}) AND pipeline = {quoted([pipeline])}"
                self.tables.update("videos", {"away": value}, match)

    def _rows(
        self, name: str, order: list[tuple[str, str]], limit: int | None = None, **equals: str | Sequence[str] | None
    ) -> pa.Table:
        lists = {c: [v] if isinstance(v, str) else list(v) for c, v in equals.items() if v is not None}
        wanted = [f"{column} IN ({quoted(values)})" for column, values in lists.items()]
        predicate = " AND ".join(wanted) or None
        if limit is None:
            return self.tables.read(name, predicate=predicate).sort_by(order)
        schema = load_schema(name)

        def first(reader: pa.RecordBatchReader) -> pa.Table:
            kept = schema.stored.empty_table()
            for batch in reader:
                more = pa.Table.from_batches([batch]).select(schema.names).cast(schema.stored)
                kept = pa.concat_tables([kept, more]).sort_by(order).slice(0, limit).combine_chunks()
            return kept

        return self.tables.scanned(name, schema.names, predicate, first)

    def record_run(self, row: Mapping[str, Any]) -> None:
        """Writes the run's row, over an earlier one with its `run_id`: at its start and at its end. From its start on
        the run has to give signs of life (see heartbeat.py). Secrets in its texts are not written. Raises ValueError
        for a field that `runs` does not have."""
        runs.record(self.tables, row)

    # --- upkeep ----------------------------------------------------------------------------------

    def compact(self, *, file_bytes: int = FILE_BYTES) -> dict[str, CompactReport]:
        """Rewrites small files into ones of about `file_bytes`, ordered by `video_id`. Safe beside running
        jobs; costs in proportion to what was added, times a small logarithm. Finishes what is pending first."""
        self.check(again=True)
        changes.roll_forward(self.tables)
        return {name: compact(self.tables, name, file_bytes) for name in TABLES}

    def vacuum(self, older_than: timedelta = DAY, *, exclusive: bool = False, patience_s: float = 30.0) -> VacuumReport:
        """Removes what no table refers to (any more): files replaced more than `older_than` ago, and what
        killed writers left.

        Safe with any age, beside running jobs and beside those that sleep and wake up later: no rows are
        lost. What might still be on its way into a table, or is staged, is kept for 24 h whatever the age,
        so that nobody has to do work again; only readers that began before `older_than` lose their files.
        With `exclusive` the caller vouches that nobody else writes or reads: then `older_than` holds for
        everything, and with 0 the table logs are cut too, so that not a byte of what was forgotten is left.
        Ages are measured by the store's clock alone.
        """
        self.check(again=True)
        leftover_age = older_than if exclusive else max(older_than, DAY)
        return vacuum(self.tables, older_than, leftover_age, cut=exclusive and not older_than, patience_s=patience_s)

    def forget(self, uris: Sequence[str], *, patience_s: float = 30.0) -> ForgetReport:
        """Removes all rows of these videos, of every pipeline, from every table, and what is staged of
        them. Their bytes go with the next vacuum. A kill in between is made good by `recover`. Nothing is
        committed for videos of which the lake holds nothing.

        A job that is indexing one of them at this moment may bring it back: forget it when the job has
        ended, and take it out of the archive first.
        """
        self.check(again=True)
        return forget(self.tables, uris, patience_s=patience_s)


def stranger_in(storage: Storage) -> str | None:
    """The first key in a place that is neither empty nor a lake. Whether it is a lake is asked after a key was seen:
    one that another job is making begins with its marker."""
    if isinstance(storage, LocalStorage) and not os.path.lexists(storage.root):
        return None  # the folder is still to be made
    first = next((item.key for item in storage.list()), None)
    return None if first is None or storage.exists(MARKER) else first
