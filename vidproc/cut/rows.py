"""Rows of a file that say what to export: CSV, JSON or Parquet with `uri` or `video_id`, and times."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from vidproc.errors import ConfigError

NUMBERS = ("start_s", "end_s", "time_s", "score", "track_id")
KEPT = ("uri", "video_id", "pipeline", "label", "action", *NUMBERS)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, numbers as numbers. Raises ConfigError for a file that is not of this kind."""
    readers = {".csv": _csv, ".json": _json, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{path}: rows are read from .csv, .json, .jsonl or .parquet files")
    try:
        rows = reader(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{path} is no {path.suffix[1:].upper()} file of rows: {error}") from error
    return [_row(path, number, row) for number, row in enumerate(rows, 1)]


def _row(path: Path, number: int, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ConfigError(f"{path}: row {number} is no object with uri or video_id, and start_s and end_s or time_s")
    kept = {key: row[key] for key in KEPT if row.get(key) not in (None, "")}
    if not kept.keys() & {"uri", "video_id"} or not kept.keys() & {"start_s", "time_s"}:
        raise ConfigError(f"{path}: row {number} needs uri or video_id, and start_s and end_s or time_s "
                          f"(it has {', '.join(map(str, row)) or 'nothing'})")  # fmt: skip
    for key in NUMBERS:
        if key in kept:
            try:
                kept[key] = int(kept[key]) if key == "track_id" else float(kept[key])
            except (ValueError, TypeError) as error:
                raise ConfigError(f"{path}: row {number}: {key} is a number, not {kept[key]!r}") from error
    return kept


def _csv(path: Path) -> list[Any]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _json(path: Path) -> list[Any]:
    found = json.loads(path.read_text("utf-8"))
    if isinstance(found, dict):
        found = found.get("rows", found.get("hits"))
    if not isinstance(found, list):
        raise ValueError("a list of objects is expected")
    return found


def _json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def _parquet(path: Path) -> list[Any]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return table.select([name for name in table.column_names if name in KEPT]).to_pylist()  # type: ignore[no-any-return]
