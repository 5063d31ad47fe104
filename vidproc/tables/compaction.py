"""Small files of a table rewritten into large ones, and the figures of its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vidproc.tables.delta import Tables, fenced, writer_properties
from vidproc.tables.schema import load_schema

if TYPE_CHECKING:
    from deltalake import DeltaTable

FILE_BYTES = 128 << 20
"""Size of a file that compaction aims at."""


@dataclass(frozen=True, slots=True)
class CompactReport:
    files_before: int
    files_after: int


@dataclass(frozen=True, slots=True)
class TableFile:
    partition: str
    rows: int
    bytes: int


def files_of(table: DeltaTable) -> list[TableFile]:
    actions = pa.table(table.get_add_actions(flatten=True))
    keys = [n for n in actions.column_names if n.startswith("partition.")]
    dates = actions[keys[0]].to_pylist() if keys else [None] * actions.num_rows
    return [
        # The empty string is how partition filters write null.
        TableFile("" if date is None else str(date), rows or 0, size)
        for date, rows, size in zip(
            dates, actions["num_records"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True
        )
    ]


def compact(tables: Tables, name: str, file_bytes: int) -> CompactReport:
    schema = load_schema(name)
    before = files_of(tables.open(name))
    partitions: dict[str, list[TableFile]] = {}
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
    return CompactReport(len(before), len(files_of(tables.open(name))))
