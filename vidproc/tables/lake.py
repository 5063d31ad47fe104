"""A lake: opened or made, looked into, tidied, and told to forget. Publishing is in publish.py."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidproc import __version__
from vidproc.errors import AlreadyExists, ConfigError, Damaged, NotFound
from vidproc.media import content_hash
from vidproc.secrets import redact_json, redact_values
from vidproc.storage import LocalStorage, Storage, StorageOptions, open_storage
from vidproc.storage.folders import LAKE_MARKER
from vidproc.tables import changes
from vidproc.tables.checks import check_lake, document
from vidproc.tables.delta import READ_ATTEMPTS, Tables, fenced, patiently, quoted, writer_properties
from vidproc.tables.heartbeat import begin, end, last_signs
from vidproc.tables.schema import MODEL_TABLES, TABLES, load_schema
from vidproc.tables.staging import FOLDER as STAGING
from vidproc.tables.vacuum import VacuumReport, vacuum
from vidproc.text import printable

if TYPE_CHECKING:
    from deltalake import DeltaTable

MARKER = LAKE_MARKER
FORMAT = 1
"""Grows when older versions of vidproc could no longer write the lake correctly."""
FILE_BYTES = 128 << 20
DAY = timedelta(hours=24)
_FORGET_AT_ONCE = 500
"""Videos a change: keeps predicates short."""
_MARK_AT_ONCE = 10_000
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
        counted = [f"n_{name}" for name in MODEL_TABLES]
        columns = ["video_id", "pipeline", "status", "error_class", "duration_s", "size_bytes", "indexed_at", *counted]
        rows = self.tables.read("videos", columns)
        by_pipeline = _counts(rows, "pipeline")
        if pipeline not in (None, "all", *by_pipeline):
            raise ConfigError(
                f"{self.uri}: there is no pipeline {pipeline!r} in this lake"
                + (f"; it has {', '.join(by_pipeline)}" if by_pipeline else ", and no video is indexed there yet")
            )
        if pipeline is None and by_pipeline:
            pipeline = min(by_pipeline, key=lambda name: (-by_pipeline[name], name))
        one = None if pipeline == "all" else pipeline
        tables = {name: self._size(name) for name in TABLES}
        if one is not None and len(by_pipeline) > 1:
            rows = rows.filter(pc.equal(rows["pipeline"], one))
            own = {"videos": rows.num_rows} | {n: pc.sum(rows[f"n_{n}"]).as_py() or 0 for n in MODEL_TABLES}
            own |= {n: len(self._of_pipeline(n, one)) for n in ("failures", "runs")}
            tables = {name: replace(size, rows=own[name]) for name, size in tables.items()}
        videos = rows.group_by("video_id").aggregate([("duration_s", "max"), ("size_bytes", "max")])
        runs = self.runs(limit=1, pipeline=one if len(by_pipeline) > 1 else None).to_pylist()
        pending = changes.pending(self.tables)
        return LakeStatus(
            uri=self.uri,
            pipeline=one,
            videos=len(videos),
            by_pipeline=by_pipeline,
            by_status=_counts(rows, "status"),
            by_error_class=_counts(rows, "error_class"),
            video_hours=(pc.sum(videos["duration_s_max"]).as_py() or 0.0) / 3600,
            archive_bytes=pc.sum(videos["size_bytes_max"]).as_py() or 0,
            last_indexed_at=pc.max(rows["indexed_at"]).as_py(),
            tables=tables,
            last_run=runs[0] if runs else None,
            pending_change=None if pending is None else pending[0],
        )

    def _of_pipeline(self, name: str, pipeline: str) -> pa.Table:
        return self.tables.read(name, ["pipeline"], f"pipeline = {quoted([pipeline])}")

    def _size(self, name: str) -> TableSize:
        files = _files(self.tables.open(name))
        return TableSize(sum(f.rows for f in files), len(files), sum(f.bytes for f in files))

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
        """Failed attempts, the newest first; of several classes any. With a limit no more than so many are held in
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
        signs = last_signs(self.storage)
        if signs_only and not signs:
            return {}
        unmarked = {}
        for run_id in self.tables.read("runs", ["run_id"], "outcome = 'running'")["run_id"].to_pylist():
            at, silent = signs.get(run_id, (None, True))
            if silent:
                since = f"since {at:%Y-%m-%d %H:%M:%S} UTC" if at else "of it is left"
                lost: dict[str, Any] = {
                    "outcome": "lost",
                    "reason": f"no sign {since}: killed, or cut off from the lake",
                }
                lost |= {"ended_at": at} if at else {}
                try:
                    self._mark_lost(run_id, lost)
                except ConfigError:
                    unmarked[run_id] = lost
        return unmarked

    def _mark_lost(self, run_id: str, values: dict[str, Any]) -> None:
        def mark(table: DeltaTable) -> bool:
            match = f"run_id = {quoted([run_id])} AND outcome = 'running'"  # and has not ended meanwhile
            table.update(predicate=match, new_values=values, commit_properties=fenced(table))
            return True

        self.tables.committed("runs", mark)

    def mark_away(self, pipeline: str, away: Mapping[str, str | None]) -> None:
        """Says in the rows of these videos (by video_id) why they cannot be looked at; None: they can."""
        by_text: dict[str | None, list[str]] = {}
        for video_id, why in away.items():
            by_text.setdefault(why, []).append(video_id)
        for why, video_ids in by_text.items():
            value = "NULL" if why is None else quoted([why])
            for i in range(0, len(video_ids), _MARK_AT_ONCE):
                chunk = quoted(video_ids[i : i + _MARK_AT_ONCE])
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
        schema = load_schema("runs")
        unknown = set(row) - set(schema.names)
        if unknown:
            raise ValueError(f"runs has no columns {sorted(unknown)}")
        row = {k: redact_json(v) if k == "job" and v else redact_values(v) for k, v in row.items()}
        run_id, goes_on = row["run_id"], row["outcome"] == "running"
        if goes_on:
            begin(self.storage, run_id=run_id, pipeline=row["pipeline"], host=row.get("host") or "",
                  started_at=row["started_at"])  # fmt: skip
        table = pa.Table.from_pylist([dict(row)], schema=schema.stored)
        mine = f"run_id = {quoted([run_id])}"
        for _ in range(READ_ATTEMPTS):
            self.tables.replace("runs", lambda: iter(table.to_batches()), mine, number=None)
            # As with changes: what was committed below the beginning of a log that others cut meanwhile is not there.
            if self.tables.read("runs", ["outcome"], mine)["outcome"].to_pylist() == [row["outcome"]]:
                break
        if not goes_on:
            end(self.storage, run_id)

    # --- upkeep ----------------------------------------------------------------------------------

    def compact(self, *, file_bytes: int = FILE_BYTES) -> dict[str, CompactReport]:
        """Rewrites small files into ones of about `file_bytes`, ordered by `video_id`. Safe beside running
        jobs; costs in proportion to what was added, times a small logarithm. Finishes what is pending first."""
        self.check(again=True)
        changes.roll_forward(self.tables)
        return {name: _compact(self.tables, name, file_bytes) for name in TABLES}

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
        changes.roll_forward(self.tables)  # it may be about one of them
        ids = {content_hash(uri): uri for uri in uris}
        staged = {key.split("/")[2] for key in (o.key for o in self.storage.list(f"{STAGING}/")) if key.count("/") > 2}
        known = ids.keys() & staged
        rows = dict.fromkeys((*MODEL_TABLES, "failures", "videos"), 0)
        order = sorted(ids)
        for i in range(0, len(order), _FORGET_AT_ONCE):
            chunk = order[i : i + _FORGET_AT_ONCE]
            columns = ["video_id", *(f"n_{name}" for name in MODEL_TABLES)]
            found = self.tables.read("videos", columns, f"video_id IN ({quoted(chunk)})")
            failed = self.tables.read("failures", ["video_id"], f"video_id IN ({quoted(chunk)})")
            known |= {*found["video_id"].to_pylist(), *failed["video_id"].to_pylist()}
            rows["videos"] += found.num_rows
            rows["failures"] += failed.num_rows
            for name in MODEL_TABLES:
                rows[name] += pc.sum(found[f"n_{name}"]).as_py() or 0
            if there := tuple(video_id for video_id in chunk if video_id in known):
                change = changes.Change(id=changes.new_id(), kind="forget", videos=there)
                changes.submit(self.tables, change, patience_s=patience_s)
        return ForgetReport(
            forgotten=tuple(ids[v] for v in order if v in known),
            unknown=tuple(ids[v] for v in order if v not in known),
            rows=rows,
        )


# --- what the calls above give back ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TableSize:
    rows: int
    files: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeStatus:
    uri: str
    pipeline: str | None
    """Of which the figures below are; None: of all. Files and bytes of the tables are of all in any case."""
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


@dataclass(frozen=True, slots=True)
class CompactReport:
    files_before: int
    files_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetReport:
    forgotten: tuple[str, ...]
    unknown: tuple[str, ...]
    """URIs of which the lake held nothing: no rows, no failures, no staged parts."""
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CommittedVideo:
    content_id: str
    pipeline_id: str
    status: str
    error_class: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Committed:
    """video_id -> CommittedVideo for one pipeline, in columns: about 80 bytes a video."""

    _ids: np.ndarray = field(repr=False)
    """S12 (n,), ascending: the ids' bytes."""
    _row: np.ndarray = field(repr=False)
    """int32 (n,): where in the columns below its row is."""
    _content: pa.ChunkedArray = field(repr=False)
    _small: tuple[tuple[np.ndarray, list[str | None]], ...] = field(repr=False)
    """pipeline_id, status, error_class: int32 codes (n,) and what they mean."""
    away: Mapping[str, str] = field(default_factory=dict)
    """By video_id: why a video could not be looked at by the last run; the others are not there."""

    @classmethod
    def of(cls, reader: pa.RecordBatchReader) -> Committed:
        """From a stream of these five columns, and `away` where it is there."""
        names = ("pipeline_id", "status", "error_class")
        meanings: dict[str, dict[str | None, int]] = {name: {} for name in names}
        codes: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int32)] for name in names}
        ids: list[np.ndarray] = [np.zeros(0, "S12")]
        content: list[pa.Array] = []
        away: dict[str, str] = {}
        for batch in reader:
            if "away" in batch.schema.names and batch["away"].null_count < batch.num_rows:
                pairs = zip(batch["video_id"].to_pylist(), batch["away"].to_pylist(), strict=True)
                away |= {video_id: why for video_id, why in pairs if why is not None}
            named = batch["video_id"].cast(pa.string())
            if not pc.all(pc.match_substring_regex(named, r"^[0-9a-f]{24}\z"), min_count=0).as_py():
                raise Damaged("`videos` holds a video_id that is none: restore the lake from a copy")
            ids.append(np.frombuffer(bytes.fromhex("".join(named.to_pylist())), "S12"))
            content.append(batch["content_id"].cast(pa.string()))
            for name in names:
                encoded = batch[name].cast(pa.string()).dictionary_encode()
                known = meanings[name]
                table = [known.setdefault(v, len(known)) for v in encoded.dictionary.to_pylist()]
                table.append(known.setdefault(None, len(known)))
                index = pc.fill_null(encoded.indices, len(table) - 1).to_numpy(zero_copy_only=False)
                codes[name].append(np.array(table, np.int32)[index])
        all_ids = np.concatenate(ids)
        row = np.argsort(all_ids, kind="stable").astype(np.int32)
        small = tuple((np.concatenate(codes[name]), list(meanings[name])) for name in names)
        return cls(all_ids[row], row, pa.chunked_array(content, pa.string()), small, away)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        data = self._ids.tobytes()
        for i in range(0, len(data), 12):
            yield data[i : i + 12].hex()

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self.place(video_id) is not None

    def get(self, video_id: str) -> CommittedVideo | None:
        i = self.place(video_id)
        if i is None:
            return None
        pipeline_id, status, error_class = (meaning[codes[i]] for codes, meaning in self._small)
        assert pipeline_id is not None and status is not None
        return CommittedVideo(self._content[i].as_py(), pipeline_id, status, error_class)

    def place(self, video_id: str) -> int | None:
        """Its place among all, from 0: for columns that somebody keeps beside these."""
        try:
            raw = bytes.fromhex(video_id)
        except ValueError:
            return None
        if len(raw) != 12:
            return None
        key = np.array(raw, "S12")
        i = int(np.searchsorted(self._ids, key))
        return int(self._row[i]) if i < len(self._ids) and self._ids[i] == key else None


def _counts(table: pa.Table, column: str) -> dict[str, int]:
    values = pc.value_counts(table[column].drop_null())
    return {v["values"]: v["counts"] for v in sorted(values.to_pylist(), key=lambda v: (-v["counts"], v["values"]))}


def stranger_in(storage: Storage) -> str | None:
    """The first key in a place that is neither empty nor a lake. Whether it is a lake is asked after a key was seen:
    one that another job is making begins with its marker."""
    if isinstance(storage, LocalStorage) and not os.path.lexists(storage.root):
        return None  # the folder is still to be made
    first = next((item.key for item in storage.list()), None)
    return None if first is None or storage.exists(MARKER) else first


# --- files of a table ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _File:
    partition: str
    rows: int
    bytes: int


def _files(table: DeltaTable) -> list[_File]:
    actions = pa.table(table.get_add_actions(flatten=True))
    keys = [n for n in actions.column_names if n.startswith("partition.")]
    dates = actions[keys[0]].to_pylist() if keys else [None] * actions.num_rows
    return [
        # The empty string is how partition filters write null.
        _File("" if date is None else str(date), rows or 0, size)
        for date, rows, size in zip(
            dates, actions["num_records"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True
        )
    ]


def _compact(tables: Tables, name: str, file_bytes: int) -> CompactReport:
    schema = load_schema(name)
    before = _files(tables.open(name))
    partitions: dict[str, list[_File]] = {}
    for file in before:
        partitions.setdefault(file.partition, []).append(file)
    for partition, files in sorted(partitions.items()):
        small = [f for f in files if f.bytes < file_bytes // 2]
        if len(small) < 2:
            continue
        filters = [(schema.partition_by[0], "=", partition)] if schema.partition_by else None
        # The order is worth a rewrite of all when a good part is new; else only the small files are merged.
        in_order = sum(f.bytes for f in small) * 4 >= sum(f.bytes for f in files) and "video_id" in schema.names

        def rewrite(table: DeltaTable, filters: Any = filters, in_order: bool = in_order) -> bool:
            arguments: dict[str, Any] = {
                "commit_properties": fenced(table),
                "partition_filters": filters,
                "target_size": file_bytes,
                "writer_properties": writer_properties(),
            }
            if in_order:
                table.optimize.z_order(["video_id"], **arguments)
            else:
                table.optimize.compact(**arguments)
            return True

        tables.committed(name, rewrite)
    return CompactReport(len(before), len(_files(tables.open(name))))
