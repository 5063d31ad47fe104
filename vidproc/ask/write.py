"""Write an answer as a table for people, CSV, JSON or Parquet."""

from __future__ import annotations

import io
import json
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import pyarrow as pa

from vidproc.ask.values import TYPE, is_number, json_texts, texts
from vidproc.errors import ConfigError
from vidproc.text import printable

Format = Literal["table", "csv", "json", "parquet"]

ROWS_SHOWN = 1000
"""A table for a person ends here, and says so; the other formats are whole."""


def write_result(reader: pa.RecordBatchReader, format: Format, out: BinaryIO, *, rows_shown: int = ROWS_SHOWN) -> int:
    """Writes an answer batch by batch and gives the number of rows written. Every value is exact, see `values`.

    `table`: for people, with the number of rows below. `csv`: a header, lines that end in a line feed, lists
    and structs as JSON, nothing between the commas for NULL and `""` for an empty text. `json`: one array of
    objects, one object a line, no NaN (null instead). `parquet`: zstd; what Parquet does not know (intervals,
    unions, integers beyond 128 bits and the like) as text.
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
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as e:
        raise ConfigError(f"SQL: the answer holds what {format} cannot hold; cast it to VARCHAR: {e}") from e
    raise ConfigError(f"there is no output format {format!r}; choose one of {', '.join(get_args(Format))}")


def _write_table(reader: pa.RecordBatchReader, out: BinaryIO, rows_shown: int) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    fields = list(reader.schema)
    rows: list[tuple[str, ...]] = []
    more = False
    for batch in reader:
        shown = batch.slice(0, rows_shown - len(rows))
        cells = [_cells(column, field) for column, field in zip(shown.columns, fields, strict=True)]
        rows += zip(*cells, strict=True)
        if len(rows) == rows_shown and (more := batch.num_rows > shown.num_rows or _has_rows(reader)):
            break
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for field in fields:
        justify: Literal["left", "right"] = "right" if is_number(field) else "left"
        table.add_column(Text(printable(field.name)), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
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


def _cells(column: pa.Array, field: pa.Field) -> list[str]:
    found = ["" if text is None else printable(text) for text in texts(column, field, separator=" ")]
    return [text.removesuffix(".0") for text in found] if pa.types.is_floating(field.type) else found


def _write_csv(reader: pa.RecordBatchReader, out: BinaryIO) -> int:
    fields = list(reader.schema)
    out.write((",".join(map(_csv_cell, reader.schema.names)) + "\n").encode())
    rows = 0
    for batch in reader:
        columns = [map(_csv_cell, texts(column, field)) for column, field in zip(batch.columns, fields, strict=True)]
        lines = map(",".join, zip(*columns, strict=True))
        # A line with nothing on it would be no row.
        out.write("".join(line + "\n" if line else '""\n' for line in lines).encode())
        rows += batch.num_rows
    return rows


def _csv_cell(text: str | None) -> str:
    if text is None:
        return ""
    if text == "" or any(c in text for c in ',"\n\r'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _write_json(reader: pa.RecordBatchReader, out: BinaryIO) -> int:
    fields = list(reader.schema)
    keys = [json.dumps(name, ensure_ascii=False) + ": " for name in reader.schema.names]
    rows = 0
    out.write(b"[")
    for batch in reader:
        columns = [json_texts(column, field) for column, field in zip(batch.columns, fields, strict=True)]
        lines = ["{" + ", ".join(map(str.__add__, keys, row)) + "}" for row in zip(*columns, strict=True)]
        out.write((("," if rows and lines else "") + "\n" * bool(lines) + ",\n".join(lines)).encode("utf-8"))
        rows += len(lines)
    out.write(b"\n]\n")
    return rows


# --- Parquet -----------------------------------------------------------------------------------------------


def _write_parquet(reader: pa.RecordBatchReader, out: BinaryIO) -> int:
    import pyarrow.parquet as pq

    fields = [field.with_type(_in_parquet(field)) for field in reader.schema]
    schema = pa.schema(fields, reader.schema.metadata)
    rows = 0
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for batch in reader:
            columns = [
                _as_parquet(column, old, field.type)
                for column, old, field in zip(batch.columns, reader.schema, fields, strict=True)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            rows += batch.num_rows
    return rows


def _in_parquet(field: pa.Field) -> pa.DataType:
    """The type that the values have in the file."""
    type_ = field.type
    if pa.types.is_interval(type_) or pa.types.is_union(type_):
        return pa.string()
    if pa.types.is_timestamp(type_) and type_.unit == "s":  # Parquet begins with milliseconds
        return pa.timestamp("ms", type_.tz)
    if pa.types.is_struct(type_):
        names = [f.name or f"v{i}" for i, f in enumerate(type_.fields, 1)]  # row(1, 2) has no names
        return pa.struct([f.with_name(n).with_type(_in_parquet(f)) for n, f in zip(names, type_.fields, strict=True)])
    if pa.types.is_map(type_):
        key, item = (f.with_type(_in_parquet(f)) for f in (type_.key_field, type_.item_field))
        return pa.map_(key, item)
    if pa.types.is_nested(type_):
        return pa.list_(type_.value_field.with_type(_in_parquet(type_.value_field)))
    return type_


def _as_parquet(array: pa.Array, field: pa.Field, wanted: pa.DataType) -> pa.Array:
    type_ = field.type
    if type_ == wanted and not _holds_duration(field):
        return array
    if pa.types.is_string(wanted):
        return pa.array(texts(array, field), pa.string())
    if pa.types.is_timestamp(wanted):
        seconds = array.cast(pa.int64())
        values = np.asarray(seconds.fill_null(0))
        scaled = np.where(np.abs(values) == 2**63 - 1, values, values * 1000)  # infinity stays what it is
        return pa.array(scaled, pa.int64(), mask=np.asarray(array.is_null())).cast(wanted)
    missing = array.is_null()
    if pa.types.is_struct(wanted):
        children = [
            _as_parquet(child, old, new.type)
            for child, old, new in zip(array.flatten(), type_.fields, wanted.fields, strict=True)
        ]
        return pa.StructArray.from_arrays(children, fields=list(wanted.fields), mask=missing)
    if pa.types.is_map(wanted):
        keys = _as_parquet(array.keys, type_.key_field, wanted.key_type)
        items = _as_parquet(array.items, type_.item_field, wanted.item_type)
        return pa.MapArray.from_arrays(array.offsets, keys, items, wanted, mask=missing)
    lengths = [0 if n is None else n for n in _lengths(array)]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), pa.int32())
    values = _as_parquet(array.flatten(), type_.value_field, wanted.value_type)
    return pa.ListArray.from_arrays(offsets, values, wanted, mask=missing)


def _holds_duration(field: pa.Field) -> bool:
    """Whether there are intervals in it that travel as text."""
    if (field.metadata or {}).get(TYPE) == b"INTERVAL":
        return True
    return any(_holds_duration(field.type.field(i)) for i in range(field.type.num_fields))


def _lengths(array: pa.Array) -> list[Any]:
    import pyarrow.compute as pc

    return list(pc.list_value_length(array).to_pylist())
