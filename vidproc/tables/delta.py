"""The Delta tables of a lake: made, scanned, and changed exactly once; nothing here knows of videos.

Measured traps of deltalake 1.6 that this file is built around: a handle kept over commits grows
slower with each, so every commit opens its own; a checkpoint every 10 commits keeps opening cheap; a
transaction id is refused only from a stale handle, so it is checked first.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import starmap
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from vidproc.errors import ConfigError, Damaged, DiskFull, Refused, TransientError, VidprocError
from vidproc.secrets import redact
from vidproc.storage import LONG_S, Storage, faults
from vidproc.tables.checks import check_schema, check_table
from vidproc.tables.panics import unprinted
from vidproc.tables.schema import TableSchema, load_schema

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable, WriterProperties

T = TypeVar("T")

APPLICATION = "vidproc"
"""Its transaction version in a table is the number of the last change that the table has taken."""
FENCE = "vidproc-fence"
"""Its transaction version in a table is the number of the last vacuum. Commits that belong to no change carry it, so
that those which a vacuum overtook are refused: their data files may be gone."""
VOID = "vidproc-void"
"""Its transaction version in a table is the number of the last change that was undone there."""
COMMIT_ATTEMPTS = 20
READ_ATTEMPTS = 4
BATCH_ROWS = 1 << 13
CONFIGURATION = {
    "delta.checkpointInterval": "10",
    # A month of log files, the default, makes the log of a busy lake slow to list.
    "delta.logRetentionDuration": "interval 7 days",
}
STATISTICS = {
    # File statistics are kept in the log: names and messages of the archive stay out of it, so that
    # `forget` has less to erase, and the log small.
    "videos": "video_id,pipeline,pipeline_id,run_id,status,error_class,recorded_at,recorded_date,duration_s,indexed_at",
    "failures": "video_id,pipeline,run_id,stage,error_class,at",
    "runs": "run_id,pipeline,started_at,ended_at,outcome",
}


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables below one root. Picklable."""

    storage: Storage

    def create(self, name: str) -> None:
        """Makes the table unless it is there; safe among many that do so."""
        patiently(partial(self._create, name))

    @unprinted()
    def _create(self, name: str) -> None:
        from deltalake import DeltaTable, Schema

        schema = load_schema(name)
        check_table(self.storage, name)
        extra = {"delta.dataSkippingStatsColumns": STATISTICS[name]} if name in STATISTICS else {}
        with translated(f"{self.storage.uri}/{name}"):
            uri, options = self.storage.delta_uri(name), self.storage.delta_options()
            if not DeltaTable.is_deltatable(uri, options):
                try:
                    DeltaTable.create(
                        uri,
                        Schema.from_arrow(schema.stored),
                        mode="ignore",
                        partition_by=list(schema.partition_by),
                        description=schema.description,
                        configuration=CONFIGURATION | extra,
                        storage_options=options,
                    )
                except Exception:
                    if not DeltaTable.is_deltatable(uri, options):  # not lost to another who made it
                        raise

    def open(self, name: str) -> DeltaTable:
        """A fresh handle. Raises ConfigError where the table is not there."""
        return patiently(partial(self._open, name))

    def _open(self, name: str) -> DeltaTable:
        from deltalake import DeltaTable

        with translated(f"{self.storage.uri}/{name}"):
            uri, options = self.storage.delta_uri(name), self.storage.delta_options()
            while True:
                log = check_table(self.storage, name)
                table = DeltaTable(uri, storage_options=options)
                if table.version() <= log.version:
                    break  # else somebody committed between the two: that is checked too
            _check_schema(table, f"{self.storage.uri}/{name}", name)
            return table

    def step_back(self, name: str, table: DeltaTable) -> None:
        """Turns a handle to the version before its own."""
        with translated(f"{self.storage.uri}/{name}"):
            check_table(self.storage, name, table.version() - 1)
            table.load_as_version(table.version() - 1)

    def scan(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        predicate: str | None = None,
        table: DeltaTable | None = None,
    ) -> pa.RecordBatchReader:
        """Rows as a stream, exactly those of the predicate (SQL); files are skipped by their statistics.

        Strings may come as string_view. Fields that this lake is too old to have are null.
        """
        schema = load_schema(name)
        columns = list(schema.names if columns is None else columns)
        with translated(f"{self.storage.uri}/{name}"):
            table = self.open(name) if table is None else table
            there = {f.name for f in table.schema().fields}
            known = [c for c in columns if c in there]
            reader = pa.RecordBatchReader.from_stream(table.scan(columns=known, predicate=predicate))
        if len(known) == len(columns):
            return reader
        kinds = {f.name: f.stored_type for f in schema.fields}
        wanted = pa.schema([reader.schema.field(c) if c in known else pa.field(c, kinds[c]) for c in columns])

        def widened() -> Iterator[pa.RecordBatch]:
            for batch in reader:
                arrays = [batch[c] if c in known else pa.nulls(batch.num_rows, kinds[c]) for c in columns]
                yield pa.RecordBatch.from_arrays(arrays, schema=wanted)

        return pa.RecordBatchReader.from_batches(wanted, widened())

    def read(self, name: str, columns: Sequence[str] | None = None, predicate: str | None = None) -> pa.Table:
        """As `scan`, in memory, in the types of the schema."""
        schema = load_schema(name)
        columns = list(schema.names if columns is None else columns)
        table = self.scanned(name, columns, predicate, pa.RecordBatchReader.read_all)
        return table.select(columns).cast(pa.schema([schema.stored.field(c) for c in columns]))

    def scanned(
        self,
        name: str,
        columns: Sequence[str],
        predicate: str | None,
        act: Callable[[pa.RecordBatchReader], T],
        table: DeltaTable | None = None,
    ) -> T:
        """What `act` makes of the stream of a `scan`; of another one where it broke."""

        def once() -> T:
            with translated(f"{self.storage.uri}/{name}"):
                return act(self.scan(name, columns, predicate, table))

        return patiently(once)

    def done(self, name: str) -> int:
        """Number of the last change that the table has taken, 0 before the first."""
        return taken(self.open(name))

    def undone(self, name: str) -> int:
        """Number of the last change that was undone in this table, 0 if none was."""
        return self.open(name).transaction_version(VOID) or 0

    def replace(
        self, name: str, rows: Callable[[], Iterator[pa.RecordBatch]], predicate: str | None, number: int | None
    ) -> bool:
        """One commit: rows that match `predicate` go, `rows` (which must match it) come. None: append.

        `rows` may be called again for another try. With `number` the commit is that change: False,
        and nothing done, where the table has taken it already.
        """
        from deltalake import write_deltalake

        schema = load_schema(name)

        def write(table: DeltaTable) -> bool:
            if number is not None and taken(table) >= number:
                return False
            properties = fenced(table) if number is None else _properties({APPLICATION: number})
            target, batches = _fit(schema, table, rows)
            data = pa.RecordBatchReader.from_batches(target, batches)
            how = writer_properties()
            if predicate is None:
                write_deltalake(table, data, mode="append", writer_properties=how, commit_properties=properties)
            else:
                write_deltalake(
                    table,
                    data,
                    mode="overwrite",
                    predicate=predicate,
                    writer_properties=how,
                    commit_properties=properties,
                )
            return True

        return self._kept(name, write, number)

    def update(self, name: str, values: Mapping[str, str], predicate: str) -> None:
        """One commit that sets columns of the rows that match, to SQL expressions. It is no change: a change that
        replaces the same rows meanwhile comes first, and this is done again on what it left."""

        def act(table: DeltaTable) -> bool:
            _widen(load_schema(name), table)
            table.update(updates=dict(values), predicate=predicate, commit_properties=fenced(table))
            return True

        self.committed(name, act)

    def spend(self, name: str, number: int, *also: str) -> bool:
        """One commit without rows: the table takes the change `number`, and `also` (FENCE, VOID) stands at it. Every
        commit that was begun before is refused. False, and nothing done, where the table has taken the change."""

        def write(table: DeltaTable) -> bool:
            if taken(table) >= number:
                return False
            properties = _properties(dict.fromkeys((APPLICATION, *also), number))
            partitions = table.metadata().partition_columns
            table.create_write_transaction(
                [], mode="append", schema=table.schema(), partition_by=partitions, commit_properties=properties
            )
            return True

        return self._kept(name, write, number)

    def _kept(self, name: str, write: Callable[[DeltaTable], bool], number: int | None) -> bool:
        """Commits and reads the number back. A process that sleeps while others cut the log may write its entry
        below the place where the log now begins: that succeeds, and nobody will ever read it."""
        for _ in range(READ_ATTEMPTS):
            landed = self.committed(name, write)
            if number is None or not landed or self.done(name) >= number:
                return landed
        raise TransientError(f"{self.storage.uri}/{name}: commits do not stay; run the same command again")

    @unprinted()
    def committed(self, name: str, act: Callable[[DeltaTable], bool]) -> bool:
        """Runs `act` on a fresh handle, again with another one where a commit of others came between or
        the store failed. `act` must be safe to repeat: a lost answer may hide a commit that landed."""
        from deltalake.exceptions import CommitFailedError

        for attempt in range(1, COMMIT_ATTEMPTS + 1):
            try:
                with translated(f"{self.storage.uri}/{name}", also=CommitFailedError):
                    return act(self.open(name))
            except (CommitFailedError, TransientError) as e:
                if isinstance(e, DiskFull):
                    raise
                if attempt == COMMIT_ATTEMPTS or (isinstance(e, TransientError) and attempt >= 5):
                    raise TransientError(
                        f"{self.storage.uri}/{name}: no commit in {attempt} tries: {first_line(e)}"
                    ) from e
            time.sleep(random.uniform(0.02, 0.1) * min(2**attempt, 32))
        raise AssertionError("unreachable")


def patiently(act: Callable[[], T]) -> T:
    """Has it done again where the store failed: the Delta library itself does not read a broken answer again."""
    begun = time.monotonic()
    for attempt in range(1, READ_ATTEMPTS):
        try:
            return act()
        except DiskFull:
            raise
        except TransientError:
            if time.monotonic() - begun > LONG_S:
                raise
            time.sleep(random.uniform(0.05, 0.15) * 2**attempt)
    return act()


def _check_schema(table: DeltaTable, where: str, name: str) -> None:
    fields = json.loads(table.schema().to_json())["fields"]
    types, required, partition_by = _delta_types(name)
    check_schema(where, fields, table.metadata().partition_columns, types, required, partition_by)


@cache
def _delta_types(name: str) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    """Return of our schema the types of its fields as the Delta library writes them, the fields by which the table is
    told from another, and those that it is partitioned by."""
    from deltalake import Schema

    schema = load_schema(name)
    fields = json.loads(Schema.from_arrow(schema.stored).to_json())["fields"]
    return {f["name"]: f["type"] for f in fields}, schema.sort_by, schema.partition_by


def taken(table: DeltaTable) -> int:
    return table.transaction_version(APPLICATION) or 0


def fenced(table: DeltaTable) -> CommitProperties:
    """For a commit that is no change: refused where a vacuum came between the opening of `table` and the commit."""
    return _properties({FENCE: table.transaction_version(FENCE) or 0})


def _properties(numbers: Mapping[str, int]) -> CommitProperties:
    from deltalake import CommitProperties, Transaction

    return CommitProperties(app_transactions=list(starmap(Transaction, numbers.items())), max_commit_retries=30)


def writer_properties() -> WriterProperties:
    from deltalake import WriterProperties

    # Small row groups: a lookup of one video decodes one of them, and skips the others by statistics.
    return WriterProperties(compression="ZSTD", compression_level=3, max_row_group_size=1 << 17)


def quoted(values: Sequence[str]) -> str:
    """SQL literals for an IN list."""
    return ", ".join("'" + v.replace("'", "''") + "'" for v in values)


def _fit(
    schema: TableSchema, table: DeltaTable, rows: Callable[[], Iterator[pa.RecordBatch]]
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Rows for the table as it is: columns that it lacks are added to it, those that a newer vidproc
    added are null."""
    _widen(schema, table)
    newer = [pa.field(f) for f in pa.schema(table.schema().to_arrow()) if f.name not in schema.names]
    if not newer:
        return schema.stored, rows()
    target = pa.schema([*schema.stored, *newer])

    def widened() -> Iterator[pa.RecordBatch]:
        for batch in rows():
            nulls = [pa.nulls(batch.num_rows, f.type) for f in newer]
            yield pa.RecordBatch.from_arrays([*batch.columns, *nulls], schema=target)

    return target, widened()


def _widen(schema: TableSchema, table: DeltaTable) -> None:
    """Adds the columns that the table lacks, since an older vidproc made it."""
    from deltalake import Schema

    there = {f.name for f in table.schema().fields}
    if lacking := [f for f in schema.stored if f.name not in there]:
        table.alter.add_columns(list(Schema.from_arrow(pa.schema(lacking)).fields))
        table.update_incremental()


@contextmanager
def translated(uri: str, also: type[Exception] | None = None) -> Iterator[None]:
    """The border to the table libraries: their errors become ours, by the table in faults.py; except `also`, which
    passes."""
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        yield
    except VidprocError:
        raise
    except (DeltaError, OSError, pa.ArrowException) as e:
        if also is not None and isinstance(e, also):
            raise
        meaning = faults.of_library(str(e))
        if isinstance(e, TableNotFoundError) and (meaning is None or meaning.kind in ("missing", "damaged")):
            raise ConfigError(f"there is no table at {uri}; is this a vidproc lake, and whole?") from e
        if meaning is not None:
            raise _as_ours(meaning, uri, first_line(e)) from e
        if isinstance(e, OSError):
            raise TransientError(f"{uri}: {first_line(e)}") from e
        raise


def _as_ours(meaning: faults.Meaning, uri: str, said: str) -> VidprocError:
    hint = f"; {meaning.way_out}" if meaning.way_out else ""
    match meaning.kind:
        case "damaged":
            return Damaged(f"{uri} is damaged ({said}){hint}")
        case "missing":  # of an older version of the table, most likely: the next look is at a newer one
            return TransientError(f"{uri}: a file that the table names is not there ({said})")
        case "configuration" if meaning.error_class == ConfigError.error_class:
            return ConfigError(f"{uri}: access refused ({said}){hint}")
        case "configuration" | "denied" | "archived":
            return Refused(f"{uri}: access refused ({said}){hint}", meaning.error_class)
        case _:
            return (DiskFull if meaning is faults.FULL else TransientError)(f"{uri}: {said}{hint}")


def first_line(e: BaseException) -> str:
    """The first line, and the last where causes are listed below it: that is the innermost. A list of the library's
    own calls is none."""
    lines = [re.sub(r"\x1b\[\d*m|↳", "", line).strip() for line in str(e).splitlines()]
    lines = [line for line in lines if line and not re.match(r"\d+: |at .*:\d+$|start_thread|clone3", line)]
    told = ": ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else ""
    return redact(told) or type(e).__name__
