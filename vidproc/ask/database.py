"""Open a lake for questions in SQL.

DuckDB reads the Delta tables through its `delta` extension, so whatever the SQL says, its filters
reach the table's log (files are skipped by partition and statistics) and the Parquet row groups, in
a folder and on S3 alike. The extensions come as packages and are loaded from there: no network.

A connection sees the lake as it was when it was made, between two changes: `videos` says how many
changes are finished, and each other table is read in its newest version that holds no later one. So
no answer mixes two generations of a video or shows rows of one that `videos` does not list, and
views need no join for that (one with `videos` made a count over all detections 3 times slower).

A lake may hold the answers of several pipelines, each about the same videos. Every table shows the rows of
one of them, so that no count is doubled.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, count
from types import TracebackType
from typing import Any

import pyarrow as pa

from vidproc.ask import guard, values
from vidproc.ask.engine import ALL, Engine
from vidproc.ask.faults import translated
from vidproc.errors import ConfigError
from vidproc.storage import StorageOptions, hurried
from vidproc.tables.lake import Lake

PIPELINE = b"vidproc.pipeline"
"""Key in the metadata of an answer's schema: the pipeline whose rows it is made of, where the lake has several."""


def connect(
    lake_uri: str,
    options: StorageOptions | None = None,
    *,
    pipeline: str | None = None,
    threads: int | None = None,
    memory_limit: str | None = None,
) -> LakeDatabase:
    """Opens the lake (a folder or `s3://bucket/prefix`) as it is now, read-only.

    `pipeline` names the one whose rows the tables show; "all" shows the rows of every one. Where it is not given and
    the lake has several, it is the one with the most videos (of equals the first by name), except in statements that
    ask about pipelines themselves, which see all (see `LakeDatabase.sql`).
    `threads` and `memory_limit` (such as "4GB") are DuckDB's; what does not fit is spilled to a
    temporary folder. Raises ConfigError where there is no lake, or no such pipeline, or where storage refuses us.
    """
    return connect_to(
        Lake.open(lake_uri, hurried(options)), pipeline=pipeline, threads=threads, memory_limit=memory_limit
    )


def connect_to(
    lake: Lake, *, pipeline: str | None = None, threads: int | None = None, memory_limit: str | None = None
) -> LakeDatabase:
    """Open a lake that was found already; otherwise as `connect`."""
    lake.mark_lost(signs_only=True)
    spill = tempfile.mkdtemp(prefix="vidproc-query-")
    with ExitStack() as undo, translated():
        undo.callback(shutil.rmtree, spill, ignore_errors=True)
        engine = Engine(lake.tables, pipeline, spill, threads, memory_limit)
        undo.pop_all()
    return LakeDatabase(lake.uri, engine, spill, pipeline is None)


class LakeDatabase:
    """A lake, open for questions. Close it, or use it in a `with`; results end with it."""

    def __init__(self, uri: str, engine: Engine, spill: str, by_default: bool) -> None:
        self.uri = uri
        self.tables = engine.tables
        """Names of the views, `videos` first."""
        self.pipelines = engine.pipelines
        """Names of the lake's pipelines, the one with the most videos first."""
        self.pipeline = engine.pipeline
        """The one whose rows the tables show; None: all."""
        self._by_default = by_default
        self._engine = engine
        # Also where nobody closes it, as in a notebook.
        self._remove_spill = weakref.finalize(self, shutil.rmtree, spill, ignore_errors=True)

    def __enter__(self) -> LakeDatabase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._engine.close()
        self._remove_spill()

    def sql(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        limit: int | None = None,
        offset: int = 0,
    ) -> pa.RecordBatchReader:
        """The answer, streamed: rows are made as they are read. Times are UTC.

        `params` fill `?` (a sequence) or `$name` (a mapping). `limit` and `offset` page through the
        answer; pages fit together where the query's ORDER BY leaves no ties.

        Where the lake has several pipelines and none was chosen, a statement that selects the column `pipeline` at
        its top, or uses it in an expression (`WHERE pipeline = 'night'`), sees the rows of every one; any other sees
        those of `self.pipeline`, and the answer's schema says so in its metadata.

        Raises ConfigError for SQL that is wrong or that would do more than read the lake.
        """
        if (limit is not None and limit < 0) or offset < 0:
            raise ConfigError(f"limit and offset cannot be negative: {limit}, {offset}")
        twin, several = self._engine.twin, len(self.pipelines) > 1
        with translated():
            question = guard.read(twin, query, self.tables, one_pipeline=several and self._by_default)
        with translated(1):
            columns = twin.columns(question.original, params)
        select = question.select
        if (limit is not None or offset) and question.explain is None:
            select = f"FROM ({select}) LIMIT {'NULL' if limit is None else limit} OFFSET {offset}"
        kinds = [] if question.explain else [self._kind(type_) for _, type_ in columns]
        if any(isinstance(kind, str) or values.carried(kind) or str(kind) == "INTERVAL" for kind in kinds):
            select = _carried(select, kinds)
        of_one = several and self.pipeline is not None and not question.every_pipeline
        return self._stream(
            select,
            params,
            explain=question.explain,
            names=[name for name, _ in columns],
            kinds=kinds,
            metadata={PIPELINE: self.pipeline} if of_one else None,
        )

    def _kind(self, type_: str) -> Any:
        """The type, or its name where it holds something that Arrow would change but cannot be named for a cast."""
        if not values.may_change(type_):
            return None
        return self._engine.twin.type(type_) or type_

    def _stream(
        self,
        select: str,
        params: Sequence[Any] | Mapping[str, Any] | None,
        *,
        explain: str | None = None,
        names: Sequence[str] = (),
        kinds: Sequence[Any] = (),
        metadata: Mapping[bytes, Any] | None = None,
    ) -> pa.RecordBatchReader:
        """The answer to SQL that the engine alone has to check. `names` are those of the columns, where they are given
        and the answer has no other way to tell its columns apart."""
        reader = self._engine.run(select, params, explain)
        found = reader.schema.names
        # Columns without a name of their own are named by their expression, as the user has written it.
        names = names if explain is None and len(names) == len(found) == len(set(found)) else _unique(found)
        fields = [field.with_name(name) for field, name in zip(reader.schema, names, strict=True)]
        if len(kinds) == len(fields):
            fields = [f if isinstance(k, str) else values.marked(f, k) for f, k in zip(fields, kinds, strict=True)]
        schema = pa.schema(fields, metadata)

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in reader:
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())


TOO_LONG = "'an interval is longer than 292 years in hours; cast it to VARCHAR'"


def _carried(select: str, kinds: Sequence[Any]) -> str:
    """The same rows, with what Arrow would change as the text that DuckDB prints."""
    parts = []
    for i, kind in enumerate(kinds):
        if isinstance(kind, str):
            parts.append(f"CAST(c{i} AS VARCHAR)")
        elif (type_ := values.carried(kind)) is not None:
            parts.append(f"CAST(c{i} AS {type_})")
        elif str(kind) == "INTERVAL":
            # Arrow counts nanoseconds, and would turn round.
            parts.append(f"CASE WHEN abs(hour(c{i})) > 2562046 THEN error({TOO_LONG}) ELSE c{i} END")
        else:
            parts.append(f"c{i}")
    names = ", ".join(f"c{i}" for i in range(len(kinds)))
    return f"SELECT {', '.join(parts)} FROM ({select}) AS answer({names})"


def _unique(names: Sequence[str]) -> list[str]:
    """A join may give two columns one name, of which a reader by name would see only the last:
    `label, label` becomes `label, label_1`, as in DuckDB's own tables."""
    taken: set[str] = set()
    found = []
    for name in names:
        choices = chain([name], (f"{name}_{n}" for n in count(1)))
        found.append(next(c for c in choices if c not in taken and (c == name or c not in names)))
        taken.add(found[-1])
    return found


__all__ = ["ALL", "PIPELINE", "LakeDatabase", "connect", "connect_to"]
