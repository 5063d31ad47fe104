"""Removes from a lake what nothing refers to, beside writers that may be asleep.

A data file that no table refers to may be one that a writer has put and not committed yet; the writer
may be stopped, its laptop shut, its clock wrong. No age tells it from a dead one. So vacuum is a change
with a number of its own (see changes.py):

    list all objects  ->  take the number  ->  commit it to every table  ->  delete of what was listed

The commit is the fence: whoever opened a table before it is refused when it commits, and writes its
rows anew, so nothing that was listed before the fence, and is in no table after it, can get into one
any more. Rows of a change that were listed belong to a number that is spent. Both stay true however
long vacuum itself sleeps before it deletes, and whoever brings its number into the tables.

Ages only decide what is worth keeping a while: files that somebody may still be reading, and work that
somebody would have to do again. They are differences of two times of the store, never of two machines.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from vidproc.errors import NotFound
from vidproc.storage import LocalStorage, ObjectInfo
from vidproc.storage.clock import FOLDER as CLOCK
from vidproc.storage.clock import store_now
from vidproc.tables import changes
from vidproc.tables.delta import Tables
from vidproc.tables.schema import TABLES
from vidproc.tables.staging import FOLDER as STAGING
from vidproc.tables.staging import reports_first

if TYPE_CHECKING:
    from deltalake import DeltaTable


@dataclass(frozen=True, slots=True, kw_only=True)
class VacuumReport:
    files: Mapping[str, int]
    """Data files removed, by table."""
    leftovers: int
    """Staged parts, rows of unfinished changes and half-written objects removed."""


def vacuum(
    tables: Tables, older_than: timedelta, leftover_age: timedelta, *, cut: bool, patience_s: float
) -> VacuumReport:
    """Removes files that were replaced more than `older_than` ago, and what is older than `leftover_age` of things
    that never got into a table; with `cut` also the table logs but for their newest checkpoint."""
    storage = tables.storage
    changes.roll_forward(tables)
    change = changes.Change(id=changes.new_id(), kind="vacuum")
    while True:
        number = changes.turn(tables, patience_s=patience_s)
        listed = {folder: list(storage.list(f"{folder}/")) for folder in (*TABLES, STAGING, changes.FOLDER, CLOCK)}
        if changes.take(tables, number, change):
            break
    changes.finish(tables, number, change)
    now = store_now(storage)
    files = {}
    for name in TABLES:
        gone = _unreferenced(tables, name, listed[name], now - older_than, now - leftover_age)
        storage.delete(gone)
        files[name] = len(gone)
        if cut:
            _cut_log(tables, name)
    leftovers = _leftovers(listed, number, now - leftover_age)
    storage.delete(leftovers)
    temporary = storage.remove_temporary(leftover_age.total_seconds()) if isinstance(storage, LocalStorage) else 0
    return VacuumReport(files=files, leftovers=len(leftovers) + temporary)


def _unreferenced(
    tables: Tables, name: str, listed: Iterable[ObjectInfo], replaced_before: datetime, left_before: datetime
) -> list[str]:
    """Keys of the table's listed data files that it does not name, and that were replaced, or never committed,
    before these times."""
    log, found = [], {}
    for item in listed:
        parts = item.key.split("/")[1:]
        if parts[0] == "_delta_log" and len(parts) == 2 and parts[1].removesuffix(".json").isdecimal():
            log.append(item)
        elif not any(part.startswith(("_", ".")) for part in parts):
            found["/".join(parts)] = item
    table = tables.open(name)
    named = {unquote(path) for path in pa.table(table.get_add_actions())["path"].to_pylist()}
    candidates = {path: item for path, item in found.items() if unquote(path) not in named}
    if not candidates:
        return []
    replaced = _replaced(tables, [item for item in log if item.modified_at > min(replaced_before, left_before)])
    # What was replaced before the log begins was so at the latest when its first entry was written.
    begins = min((item.modified_at for item in log), default=replaced_before)
    gone = []
    for path, item in candidates.items():
        if (at := replaced.get(unquote(path))) is not None:
            old = at <= replaced_before
        elif begins > replaced_before and item.modified_at <= begins:
            old = False
        else:
            old = item.modified_at <= left_before
        if old:
            gone.append(item.key)
    return gone


def _replaced(tables: Tables, entries: Iterable[ObjectInfo]) -> dict[str, datetime]:
    """The files that these entries of a table's log remove, and when they were written."""

    def removed(entry: ObjectInfo) -> list[str]:
        try:
            lines = tables.storage.get(entry.key).splitlines()
        except NotFound:  # a checkpoint has made it dispensable meanwhile
            return []
        actions = [json.loads(line) for line in lines if b'"remove"' in line]
        return [unquote(action["remove"]["path"]) for action in actions if "remove" in action]

    entries = list(entries)
    with ThreadPoolExecutor(8) as pool:
        return {
            path: entry.modified_at
            for entry, paths in zip(entries, pool.map(removed, entries), strict=True)
            for path in paths
        }


def _leftovers(listed: Mapping[str, Iterable[ObjectInfo]], number: int, limit: datetime) -> list[str]:
    """Staged parts of videos, and rows of changes, of which all is older than `limit`; intents of spent numbers."""
    groups: dict[tuple[str, ...], list[ObjectInfo]] = {}
    for folder, depth in ((STAGING, 3), (changes.FOLDER, 2), (CLOCK, 2)):
        for item in listed[folder]:
            at = changes.number_of(item.key)
            if at is None or at < number:
                groups.setdefault(tuple(item.key.split("/")[:depth]), []).append(item)
    old = (items for items in groups.values() if max(item.modified_at for item in items) <= limit)
    return reports_first(item.key for items in old for item in items)


def _cut_log(tables: Tables, name: str) -> None:
    """Leaves one checkpoint and what came after. Older entries hold the least and the greatest video_id of
    files that are gone. A writer with an older snapshot may commit under a number that has been used: it notices
    when it reads its own number back."""
    version = 0

    def checkpoint(table: DeltaTable) -> bool:
        nonlocal version
        version = table.version()
        table.create_checkpoint()
        return True

    tables.committed(name, checkpoint)
    old = []
    for item in tables.storage.list(f"{name}/_delta_log/"):
        number = item.key.rpartition("/")[2].partition(".")[0]
        if number.isdecimal() and int(number) < version:
            old.append(item.key)
    tables.storage.delete(old)
