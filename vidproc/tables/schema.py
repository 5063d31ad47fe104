"""Reads `schemas/`: the Arrow schemas, their checks and their documentation come from one place.

    python -m vidproc.tables.schema --markdown     renders schemas/README.md
    python -m vidproc.tables.schema --release      renders schemas/released.json

Fields may be added, and only nullable ones; never renamed, retyped or dropped.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidproc.documents import parse_yaml

MODEL_TABLES = ("detections", "tracks", "actions", "segments", "shots", "embeddings")
"""Tables whose rows belong to one video and come from models, in the order in which they are published."""
TABLES = (*MODEL_TABLES, "failures", "videos", "runs")


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    type: str
    """As the schema file says it, such as `timestamp[us, UTC]`."""
    nullable: bool
    unit: str | None
    meaning: str

    @property
    def arrow_type(self) -> pa.DataType:
        """What rows hold in memory and in staged parts."""
        return parse_type(self.type)

    @property
    def stored_type(self) -> pa.DataType:
        """What the Delta table holds: the same, but Delta Lake knows no float16 and no fixed sizes."""
        return _stored(self.arrow_type)


@dataclass(frozen=True, slots=True)
class TableSchema:
    name: str
    version: int
    description: str
    partition_by: tuple[str, ...]
    sort_by: tuple[str, ...]
    fields: tuple[Field, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields)

    @property
    def arrow(self) -> pa.Schema:
        return pa.schema([pa.field(f.name, f.arrow_type, f.nullable) for f in self.fields])

    @property
    def stored(self) -> pa.Schema:
        return pa.schema([pa.field(f.name, f.stored_type, f.nullable) for f in self.fields])

    def conform(self, table: pa.Table, **constants: Any) -> pa.Table:
        """The table with exactly this schema as stored: columns in order, missing nullable ones null,
        `constants` (scalars) filled in. Raises ValueError for a column that is unknown, missing or of
        another type: that is a bug of the caller, not data."""
        unknown = set(table.column_names) - set(self.names)
        if unknown:
            raise ValueError(f"{self.name} has no columns {sorted(unknown)}; add them to schemas/{self.name}.yaml")
        columns = []
        for field in self.fields:
            kind = field.stored_type
            if field.name in constants:
                column = pa.chunked_array([pa.repeat(pa.scalar(constants[field.name], kind), table.num_rows)])
            elif field.name in table.column_names:
                try:
                    column = _cast(table[field.name], kind)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
                    raise ValueError(f"{self.name}.{field.name} must be {field.type}: {e}") from e
            elif field.nullable:
                column = pa.chunked_array([pa.nulls(table.num_rows, kind)])
            else:
                raise ValueError(f"{self.name}.{field.name} is missing")
            if not field.nullable and column.null_count:
                raise ValueError(f"{self.name}.{field.name} may not be null")
            columns.append(column)
        return pa.table(columns, schema=self.stored)


@cache
def load_schema(name: str) -> TableSchema:
    """The current schema of one of TABLES."""
    text = (_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    raw = parse_yaml(text, f"{name}.yaml", "schema")
    fields = tuple(
        Field(f["name"], f["type"], f.get("nullable", True), f.get("unit"), f["meaning"]) for f in raw["fields"]
    )
    schema = TableSchema(
        raw["name"], raw["version"], raw["description"], tuple(raw["partition_by"]), tuple(raw["sort_by"]), fields
    )
    strangers = {*schema.partition_by, *schema.sort_by} - set(schema.names)
    if schema.name != name or len(set(schema.names)) != len(fields) or strangers:
        raise ValueError(f"schemas/{name}.yaml: another name inside, a field twice, or no such column {strangers}")
    return schema


def load_schemas() -> dict[str, TableSchema]:
    return {name: load_schema(name) for name in TABLES}


def _folder() -> Traversable:
    """`vidproc/_schemas` in an installed wheel, `schemas/` of the checkout otherwise."""
    packed = files("vidproc") / "_schemas"
    return packed if packed.is_dir() else Path(__file__).resolve().parents[2] / "schemas"


# --- types ---------------------------------------------------------------------------------------

_PLAIN: Mapping[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "date32": pa.date32(),
    "timestamp[us, UTC]": pa.timestamp("us", "UTC"),
}


def parse_type(text: str) -> pa.DataType:
    """`list<struct<a: int64, b: string>>` -> the Arrow type. A `fixed_size_list<T>` has one length a
    model, which no schema knows, so it stands for any list of T. Raises ValueError."""
    text = text.strip()
    if text in _PLAIN:
        return _PLAIN[text]
    nested = re.fullmatch(r"(list|fixed_size_list|struct)<(.*)>", text, re.DOTALL)
    if not nested:
        raise ValueError(f"unknown type {text!r}")
    if nested[1] != "struct":
        return pa.list_(parse_type(nested[2]))
    members = [m.split(":", 1) for m in _split(nested[2])]
    return pa.struct([pa.field(name.strip(), parse_type(kind)) for name, kind in members])


def _split(text: str) -> list[str]:
    """At the commas that lie in no bracket."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += c in "<["
        depth -= c in ">]"
        if c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def _stored(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_stored(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _stored(f.type), f.nullable) for f in kind])
    return kind


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    if pa.types.is_fixed_size_list(column.type):
        column = pc.cast(column, pa.list_(column.type.value_type))
    return pc.cast(column, kind)


# --- documentation, and the check that nothing is taken back ---------------------------------------


def render_markdown() -> str:
    """schemas/README.md."""
    lines = [
        "# Tables",
        "",
        "Rendered by `python -m vidproc.tables.schema --markdown > schemas/README.md` from the files beside it.",
        "Fields may be added, and only nullable ones; none is renamed, retyped or dropped.",
        "",
    ]
    for schema in load_schemas().values():
        lines += [f"## {schema.name} (version {schema.version})", "", schema.description]
        if schema.partition_by:
            lines += ["", f"Partitioned by `{', '.join(schema.partition_by)}`."]
        lines += ["", "| field | type | unit | meaning |", "|---|---|---|---|"]
        for f in schema.fields:
            kind = f.type + ("" if f.nullable else ", never null")
            lines.append(f"| `{f.name}` | {kind} | {f.unit or ''} | {f.meaning} |")
        lines.append("")
    return "\n".join(lines)


def render_release() -> str:
    """schemas/released.json: what readers were promised so far."""
    promise = {
        s.name: {"version": s.version, "fields": {f.name: {"type": f.type, "nullable": f.nullable} for f in s.fields}}
        for s in load_schemas().values()
    }
    return json.dumps(promise, indent=1) + "\n"


def broken_promises(released: Mapping[str, Any], current: Mapping[str, TableSchema]) -> list[str]:
    """Return what the current schemas take back of the released ones, in words; empty if nothing."""
    broken = []
    for name, table in released.items():
        if name not in current:
            broken.append(f"table {name} is gone")
            continue
        schema = current[name]
        now = {f.name: f for f in schema.fields}
        for field, was in table["fields"].items():
            if field not in now:
                broken.append(f"{name}.{field} is gone")
            elif now[field].type != was["type"]:
                broken.append(f"{name}.{field} was {was['type']} and is {now[field].type}")
            elif now[field].nullable and not was["nullable"]:
                broken.append(f"{name}.{field} was never null and may be now")
            elif was["nullable"] and not now[field].nullable:
                broken.append(f"{name}.{field} has nulls in older rows, so it must stay nullable")
        added = [f for f in schema.fields if f.name not in table["fields"]]
        broken += [f"{name}.{f.name} is new and must be nullable" for f in added if not f.nullable]
        if added and schema.version <= table["version"]:
            broken.append(f"{name} has new fields, so its version must grow")
    return broken


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m vidproc.tables.schema", description=__doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--markdown", action="store_true")
    group.add_argument("--release", action="store_true")
    options = parser.parse_args(arguments)
    sys.stdout.write(render_markdown() if options.markdown else render_release())


if __name__ == "__main__":
    main()
