"""Rows that are read when somebody asks for them, in the form that the caller's tools take."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vidproc.errors import ConfigError

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow as pa

    from vidproc.ask import Hit

ROWS_SHOWN = 20
"""Rows that the display of a relation shows."""


class Relation:
    """Rows of a lake, read when they are asked for and not before. Each call reads them anew, from the state of the
    lake that its `Lake` sees; so nothing is held in memory between two calls.

    Times are UTC. Whole numbers of more than 64 bits come as Python integers from `fetchall` and as decimals from
    the others; values for which Arrow has no type come as the text that DuckDB prints.

    The calls raise ConfigError for SQL that is wrong or does more than read the lake, and TransientError where the
    lake could not be read.
    """

    def __init__(self, read: Callable[[], pa.RecordBatchReader], text: str) -> None:
        self._read = read
        self.text = text
        """The SQL, or the name of what is asked."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._read().schema.names)

    def reader(self) -> pa.RecordBatchReader:
        """Return the rows as a stream of Arrow batches: for answers that do not fit into memory."""
        return self._read()

    def arrow(self) -> pa.Table:
        """Return the rows as a pyarrow.Table."""
        return self._read().read_all()

    def df(self) -> pandas.DataFrame:
        """Return the rows as a pandas.DataFrame. Raises ConfigError where pandas is not installed."""
        _needs("pandas", ".df()")
        return _small_numbers(self.arrow()).to_pandas()

    def pl(self) -> polars.DataFrame:
        """Return the rows as a polars.DataFrame. Raises ConfigError where polars is not installed."""
        _needs("polars", ".pl()")
        import polars

        found = polars.from_arrow(_small_numbers(self.arrow()))
        assert isinstance(found, polars.DataFrame)
        return found

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows as tuples of Python values."""
        return list(self)

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the first row, None where there is none."""
        return next(iter(self), None)

    def __iter__(self) -> Iterator[Any]:
        for batch in self._read():
            columns = [_values(column) for column in batch.columns]
            yield from zip(*columns, strict=True)

    def __repr__(self) -> str:
        """Return the first rows as a table."""
        from vidproc.ask import write_result

        out = io.BytesIO()
        write_result(self._read(), "table", out, rows_shown=ROWS_SHOWN)
        return out.getvalue().decode("utf-8").rstrip("\n")


class Hits(Relation):
    """Stretches of video that a search found: rows as of any relation, and `hits` as objects."""

    def __init__(self, find: Callable[[], list[Hit]], text: str) -> None:
        super().__init__(self._rows, text)
        self._find = find

    @property
    def hits(self) -> list[Hit]:
        """One object a hit; the `token` of the last is `after` of the next page."""
        return self._find()

    def _rows(self) -> pa.RecordBatchReader:
        import pyarrow as pa

        schema = pa.schema({
            "uri": pa.string(), "start_s": pa.float64(), "end_s": pa.float64(), "label": pa.string(),
            "action": pa.string(), "score": pa.float64(), "recorded_at": pa.timestamp("us", "UTC"),
            "track_ids": pa.list_(pa.int64()), "why": pa.string(),
            "video_id": pa.string(), "pipeline": pa.string(), "token": pa.string(),
        })  # fmt: skip
        rows = [{name: getattr(hit, name) for name in schema.names} for hit in self._find()]
        return pa.Table.from_pylist(rows, schema=schema).to_reader()


def _values(column: pa.Array) -> list[Any]:
    import pyarrow as pa

    values: list[Any] = column.to_pylist()
    if pa.types.is_decimal(column.type) and column.type.scale == 0:
        return [None if value is None else int(value) for value in values]
    return values


def _small_numbers(table: pa.Table) -> pa.Table:
    """Return whole numbers of 128 bits, which `sum` and `count` of DuckDB give, as such of 64 bits where they fit."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            found = [None if v is None else int(v) for v in table[i].to_pylist()]
            if all(v is None or -(2**63) <= v < 2**63 for v in found):
                table = table.set_column(i, field.name, pa.array(found, pa.int64()))
    return table


def _needs(package: str, call: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(f"{call} needs {package}, which is not installed: pip install {package}")
