"""Write an answer as a table for people, CSV, JSON or Parquet."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, BinaryIO, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from vidproc.errors import ConfigError
from vidproc.text import printable

Format = Literal["table", "csv", "json", "parquet"]

ROWS_SHOWN = 1000
"""A table for a person ends here, and says so; the other formats are whole."""


def write_result(reader: pa.RecordBatchReader, format: Format, out: BinaryIO, *, rows_shown: int = ROWS_SHOWN) -> int:
    """Writes an answer batch by batch and gives the number of rows written.

    `table`: for people, with the number of rows below. `csv`: RFC 4180 with a header, lists and
    structs as JSON. `json`: one array of objects, one object a line, times and intervals in ISO 8601,
    no NaN (null instead). `parquet`: zstd; intervals and unions, which it does not know, as text.
    """
    try:
        match format:
            case "table":
                return _write_table(reader, out, rows_shown)
            case "csv":
                return _write_csv(reader, out)
            case "json":
                return _write_json(reader, out)
            case "parquet":
                return _write_parquet(reader, out)
    except OverflowError as e:
        raise ConfigError(
            "SQL: the answer holds a date beyond the years 1 to 9999; cast it to VARCHAR, or write Parquet"
        ) from e
    except pa.ArrowNotImplementedError as e:
        raise ConfigError(f"SQL: the answer holds what {format} cannot hold; cast it to VARCHAR: {e}") from e
    raise ConfigError(f"there is no output format {format!r}; choose one of {', '.join(get_args(Format))}")


def _write_table(reader: pa.RecordBatchReader, out: BinaryIO, rows_shown: int) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows: list[dict[int, Any]] = []
    more = False
    for batch in reader:
        columns = [column.to_pylist() for column in batch.slice(0, rows_shown - len(rows)).columns]
        rows += [dict(enumerate(row)) for row in zip(*columns, strict=True)]
        if len(rows) == rows_shown and (more := batch.num_rows > len(columns[0]) or _has_rows(reader)):
            break
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for field in reader.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
        table.add_column(Text(printable(field.name)), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[i], field.type)) for i, field in enumerate(reader.schema)))
    text = io.TextIOWrapper(out, "utf-8", write_through=True)
    try:
        # A pipe or a file has no width: nothing is folded there.
        console = Console(file=text) if out.isatty() else Console(file=text, width=100_000)
        console.print(table)
        rows_said = f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"
        console.print(f"first {rows_said}; there are more" if more else rows_said, highlight=False)
    finally:
        text.detach()
    return len(rows)


def _has_rows(reader: pa.RecordBatchReader) -> bool:
    return any(batch.num_rows for batch in reader)


def _cell(value: Any, kind: pa.DataType) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.{7 if pa.types.is_float32(kind) else 10}g}"
    if isinstance(value, datetime):
        return value.isoformat(" ", "milliseconds" if value.microsecond else "seconds").replace("+00:00", "Z")
    if isinstance(value, pa.MonthDayNano):
        return str(_plain(value))
    if isinstance(value, list | dict):
        return printable(json.dumps(_plain(value), ensure_ascii=False))
    return printable(str(value))


def _write_csv(reader: pa.RecordBatchReader, out: BinaryIO) -> int:
    text = io.TextIOWrapper(out, "utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text)
        writer.writerow(reader.schema.names)
        rows = 0
        for batch in reader:
            columns = [_csv_column(column) for column in batch.columns]
            writer.writerows(zip(*columns, strict=True))
            rows += batch.num_rows
        return rows
    finally:
        text.detach()


def _shortest(column: pa.Array) -> pa.Array:
    """A float32 of 0.1 as 0.1, where Python would write 0.10000000149011612."""
    return pc.cast(pc.cast(column, pa.string()), pa.float64()) if pa.types.is_float32(column.type) else column


def _csv_column(column: pa.Array) -> list[Any]:
    column = _shortest(column)
    values: list[Any] = column.to_pylist()
    if pa.types.is_integer(column.type) or pa.types.is_string(column.type) or pa.types.is_float64(column.type):
        return values
    return [json.dumps(p) if isinstance(p := _plain(v), list | dict) else p for v in values]


def _write_json(reader: pa.RecordBatchReader, out: BinaryIO) -> int:
    rows = 0
    out.write(b"[")
    for batch in reader:
        short = pa.RecordBatch.from_arrays([_shortest(column) for column in batch.columns], names=batch.schema.names)
        lines = [json.dumps(_plain(row), ensure_ascii=False) for row in short.to_pylist()]
        out.write((("," if rows and lines else "") + "\n" * bool(lines) + ",\n".join(lines)).encode("utf-8"))
        rows += len(lines)
    out.write(b"\n]\n")
    return rows


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case datetime():
            aware = value.astimezone(UTC) if value.tzinfo else value
            return aware.isoformat().replace("+00:00", "Z")
        case date() | time():
            return value.isoformat()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {str(k): _plain(v) for k, v in value.items()}
        case pa.MonthDayNano():  # as ISO 8601 writes a duration; DuckDB's intervals end at microseconds
            return f"P{value.months}M{value.days}DT{Decimal(value.nanoseconds // 1000) / 10**6:f}S"
        case list() | tuple():
            return [_plain(v) for v in value]
        case _:
            return str(value)


def _write_parquet(reader: pa.RecordBatchReader, out: BinaryIO) -> int:
    import pyarrow.parquet as pq

    as_text = [pa.types.is_interval(t) or pa.types.is_union(t) for t in reader.schema.types]
    schema = pa.schema(
        field.with_type(pa.string()) if text else field for field, text in zip(reader.schema, as_text, strict=True)
    )
    rows = 0
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for batch in reader:
            columns = [
                pa.array([_text(v) for v in column.to_pylist()], pa.string()) if text else column
                for column, text in zip(batch.columns, as_text, strict=True)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            rows += batch.num_rows
    return rows


def _text(value: Any) -> str | None:
    plain = _plain(value)
    return plain if plain is None or isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
