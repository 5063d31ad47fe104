"""What lies in a folder of clips: one line a clip, as JSON for programs and CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from vidproc.cut.work import RECORDS, ClipRecord
from vidproc.errors import ConfigError, NotFound
from vidproc.storage import LocalStorage, Storage

JSON_NAME, CSV_NAME = "manifest.json", "manifest.csv"
MADE_BY = "vidproc export"
REEL = "reel"
"""Name of the record of the file that joins all clips. No clip is called so: their names hold more parts."""

COLUMNS = (
    "file", "status", "reason", "camera", "label", "source", "source_start_s", "source_end_s", "asked_start_s",
    "asked_end_s", "recorded_at", "seconds", "answers", "mode", "why", "frames_copied", "frames_encoded", "encoders",
    "encoder_license", "bytes", "sha256", "content_id", "error_class",
)  # fmt: skip


def existing(place: Storage) -> tuple[dict[str, int], dict[str, ClipRecord]]:
    """Return what lies in the place: sizes of its files by name, and what is known of its clips by theirs."""
    if isinstance(place, LocalStorage):
        import os

        if not os.path.lexists(place.root):
            return {}, {}
        if not os.path.isdir(place.root):
            raise ConfigError(f"{place.root} is no folder: give a new or another folder for the clips")
    files: dict[str, int] = {}
    records: dict[str, ClipRecord] = {}
    for item in place.list():
        if "/" not in item.key:
            files[item.key] = item.size
        elif item.key.startswith(f"{RECORDS}/") and item.key.count("/") == 1 and item.key.endswith(".json"):
            with suppress(ValueError, TypeError, KeyError, NotFound):
                record = ClipRecord.read(place.get(item.key))
                if record.key == item.key:
                    records[record.name] = record
    return files, records


def sign(place: Storage) -> None:
    """Write down whose place it is, before any work: a place that cannot be written is refused by that. Raises
    ConfigError."""
    place.put(f"{RECORDS}/place.json", json.dumps({"made_by": MADE_BY}).encode() + b"\n")


def check_ours(place: Storage, files: dict[str, int]) -> None:
    """Raise ConfigError where a manifest lies that this command did not write."""
    if not {JSON_NAME, CSV_NAME} & files.keys():
        return
    try:
        ours = json.loads(place.get(JSON_NAME))["made_by"] == MADE_BY
    except (ValueError, TypeError, LookupError, NotFound):
        ours = False
    if not ours:
        raise ConfigError(
            f"{place.uri} holds a {JSON_NAME} or {CSV_NAME} that vidproc export did not write: give another folder, "
            "or --force"
        )


def write_manifest(place: Storage, records: Iterable[ClipRecord]) -> None:
    """Write both files. The same records give the same bytes."""
    ordered = sorted(records, key=lambda r: (r.name, r.status))
    lines = [_line(record) for record in ordered if record.name != REEL]
    reel = next(({"file": r.file, "seconds": r.end_s, "codec": ", ".join(r.encoders), "encoder_license": r.license,
                  "bytes": r.size_bytes, "sha256": r.sha256, "chapters": list(r.answers)}
                 for r in ordered if r.name == REEL), None)  # fmt: skip
    whole = {"made_by": MADE_BY, "version": 1, "clips": lines} | ({"reel": reel} if reel else {})
    place.put(JSON_NAME, json.dumps(whole, indent=1, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n")
    place.put(CSV_NAME, as_csv(lines).encode("utf-8", "surrogateescape"))


def _line(record: ClipRecord) -> dict[str, Any]:
    start_s, end_s = record.start_s, record.end_s
    made = start_s is not None and end_s is not None
    return {
        "file": record.file,
        "status": record.status,
        "reason": record.reason,
        "camera": record.camera,
        "label": record.label,
        "source": record.uri,
        "source_start_s": start_s,
        "source_end_s": end_s,
        "asked_start_s": record.asked_start_s,
        "asked_end_s": record.asked_end_s,
        "recorded_at": _shown_at(record),
        "seconds": round(end_s - start_s, 6) if start_s is not None and end_s is not None else None,
        "answers": [_answer(answer, start_s, end_s) if made else answer for answer in record.answers],
        "mode": record.mode,
        "why": record.why,
        "frames_copied": record.copied,
        "frames_encoded": record.encoded,
        "encoders": list(record.encoders),
        "encoder_license": record.license,
        "bytes": record.size_bytes,
        "sha256": record.sha256,
        "content_id": record.content_id,
        "error_class": record.error_class,
    }


def _shown_at(record: ClipRecord) -> str | None:
    """Return the wall-clock time of the first frame shown, or of the moment asked for where nothing is shown."""
    if record.recorded_at is None or record.start_s is None:
        return record.recorded_at
    moved = timedelta(seconds=record.start_s - record.asked_start_s)
    return (datetime.fromisoformat(record.recorded_at) + moved).astimezone(UTC).isoformat()


def _answer(answer: dict[str, Any], start_s: float | None, end_s: float | None) -> dict[str, Any]:
    """Add the times in the clip, inside of it."""
    assert start_s is not None and end_s is not None
    inside = {f"clip_{k}": round(min(max(answer[k], start_s), end_s) - start_s, 6) for k in ("start_s", "end_s")}
    return answer | inside


def as_csv(lines: Iterable[dict[str, Any]]) -> str:
    """Return the lines as CSV in which no cell is a formula for a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        writer.writerow([harmless(_cell(column, line[column])) for column in COLUMNS])
    return text.getvalue()


def _cell(column: str, value: Any) -> Any:
    if column == "answers":
        return "; ".join(
            f"{a['label'] or 'answer'} {a.get('clip_start_s', a['start_s']):.3f}-{a.get('clip_end_s', a['end_s']):.3f}"
            for a in value
        )
    return ", ".join(value) if isinstance(value, list) else value


def harmless(value: Any) -> Any:
    """Return a cell that spreadsheets show as text: what they would calculate gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    text = value.replace("\0", "")
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) or text.startswith(("\t", "\r", "\n")) else text
