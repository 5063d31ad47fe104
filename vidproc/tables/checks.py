"""What the log of a table may say: checked before any library that follows it sees it.

A lake may have been made by anybody, or changed by whoever may write to its place. The libraries that read Delta
tables go wherever the log points: to an absolute path, another bucket, through `..`, to a deletion vector or a
second part of a checkpoint elsewhere. So every way of opening a table comes here first, and what opening would read
is read: the newest checkpoint and the entries after it. Each object is read once a process, since its ETag says
that it is still the same.

A log that names anything but files of its own table, asks for a way of reading that vidproc does not use, or
counts changes that cannot have been, raises Forged. One that cannot be read raises Damaged.

What remains: the libraries open by name, and take no ETag. Whoever may write to the lake's place at the very moment
can put another object, or a link, under a name that was checked, and the first one back when it has been read. A
second look after the reading would find only what was left there, since the times of files can be set back, and would
cost a listing at each opening. What can be gained so is little: only Parquet files with the columns of our tables are
read, by the process's own rights; DuckDB opens no path outside the folders of the lake's tables (`allowed_directories`
in ask/engine.py), whatever a log names; and a commit is refused where the log has another entry of its number.
Deleting goes through storage, which follows no links. So a lake is as trustworthy as those who may write to it: keep
others out of its place.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import partial
from threading import Lock
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidproc.documents import parse_json
from vidproc.errors import ConfigError, Damaged, Forged, NotFound, TransientError
from vidproc.storage import LocalStorage, ObjectInfo, Storage, beneath
from vidproc.text import printable

LOG = "_delta_log"
MAX_ENTRY_BYTES = 512 << 20
"""Largest object of a log that is read. Some 300 bytes stand there for each data file."""
MAX_DOCUMENT_BYTES = 64 << 20
"""Largest of our own small objects (`vidproc.json`, changes, reports). A change of 500 long videos has some 10 MB."""
MAX_NUMBER = 10**12 - 1
"""Number of the last change that a lake can take: their names have twelve digits."""
APPLICATIONS = ("vidproc", "vidproc-fence", "vidproc-void")
"""Whose transaction versions are numbers of changes (see delta.py)."""

_FILE = r"(?:[A-Za-z0-9][A-Za-z0-9_.+-]*=?[A-Za-z0-9_.+-]*/)*[A-Za-z0-9][A-Za-z0-9_.=+-]*"
"""A data file as Delta writers name them: relative, a folder a partition. No escapes, since two readers may differ
in how often they undo them; no names that begin with `_` or `.`, which are not data."""
_ENTRY = re.compile(rf"{LOG}/([0-9]{{20}})\.(json|checkpoint\.parquet|crc)")
_READ_BY_LIBRARIES = re.compile(rf"{LOG}/[0-9]{{20}}\..*(?:json|parquet|crc)")
_WHOLE_COLUMNS = ("protocol", "txn", "sidecar", "checkpointMetadata")
_PARTS = ("add.path", "add.deletionVector", "remove.path", "cdc.path", "metaData.configuration")
_READER_FEATURES: frozenset[str] = frozenset()
_WRITER_FEATURES = frozenset({"appendOnly", "invariants"})
_CONFIGURATION = {
    "delta.appendOnly": "false",
    "delta.enableChangeDataFeed": "false",
    "delta.enableDeletionVectors": "false",
    "delta.columnMapping.mode": "none",
}
"""Settings that change how rows are written or read, and the value that is the same as none."""
_KEPT = 4096
"""Objects of logs that are known to be well."""


@dataclass(frozen=True, slots=True)
class Log:
    """The newest part of a table's log, which was found to be well."""

    version: int
    """The table's version; -1: there is no log."""
    numbers: Mapping[str, int]
    """The number of the last change, by application."""


NO_LOG = Log(-1, {})


class _Known:
    """What this process has read of logs. Safe for threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._numbers: OrderedDict[tuple[str, str, int], dict[str, int]] = OrderedDict()
        self._begins: dict[str, int] = {}

    def numbers(self, uri: str, item: ObjectInfo) -> dict[str, int] | None:
        with self._lock:
            return self._numbers.get((uri, item.etag, item.size))

    def keep(self, uri: str, item: ObjectInfo, numbers: dict[str, int]) -> None:
        with self._lock:
            self._numbers[uri, item.etag, item.size] = numbers
            while len(self._numbers) > _KEPT:
                self._numbers.popitem(last=False)

    def begin(self, table: str) -> int | None:
        with self._lock:
            return self._begins.get(table)

    def begins(self, table: str, version: int) -> None:
        with self._lock:
            if len(self._begins) > _KEPT:
                self._begins.clear()
            self._begins[table] = version

    def forget(self, root: str) -> None:
        below = f"{root}/"
        with self._lock:
            for read in [key for key in self._numbers if key[0].startswith(below)]:
                del self._numbers[read]
            for table in [table for table in self._begins if table.startswith(below)]:
                del self._begins[table]


_known = _Known()


def check_table(storage: Storage, name: str, version: int | None = None) -> Log:
    """Checks what opening the table (at `version`; None: the newest) will read.

    Raises Forged or Damaged, which name the object and the entry, and whatever storage raises.
    """
    found = _segment(storage, name, version)
    new = [e for e in found if _known.numbers(storage.uri_of(e.item.key), e.item) is None]
    read = partial(_read, storage, name)
    if len(new) > 1 and not isinstance(storage, LocalStorage):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read, new))
    else:
        list(map(read, new))
    numbers: dict[str, int] = {}
    for entry in found:
        numbers |= _known.numbers(storage.uri_of(entry.item.key), entry.item) or {}
    return Log(max((e.version for e in found if e.kind != "crc"), default=-1), numbers)


def check_lake(storage: Storage, tables: Iterable[str], last: str, *, again: bool = False) -> None:
    """Checks all tables; `last` is the one that takes each change last. `again` is for those who are going to write or
    delete: also what this process has checked before, and whether the tables agree on the number of changes."""
    if again:
        _known.forget(storage.uri)
    if isinstance(storage, LocalStorage) and storage.confined:
        for name in tables:
            beneath.check(storage.root, f"{name}/{LOG}")
    others = [name for name in tables if name != last]
    with ThreadPoolExecutor(len(others)) as pool:
        logs = dict(zip(others, pool.map(partial(check_table, storage), others), strict=True))
    # Afterwards, so that it is not behind the others for being looked at earlier.
    done = check_table(storage, last).numbers.get(APPLICATIONS[0], 0)
    for name, log in logs.items() if again else ():
        if (taken := log.numbers.get(APPLICATIONS[0], 0)) > done + 1:
            raise Forged(
                f"{storage.uri}: the table {name} claims to have taken change {taken}, and {last} knows of {done} "
                f"only, so that changes would be passed over: {_way_out(f'{name}/{LOG}')}"
            )


@dataclass(frozen=True, slots=True)
class _Entry:
    version: int
    kind: str
    item: ObjectInfo = field(repr=False)


def _segment(storage: Storage, name: str, version: int | None) -> list[_Entry]:
    """The newest checkpoint (not after `version`) and what comes after it, in the order in which it counts."""
    table = storage.uri_of(name)
    begin = _known.begin(table)
    if begin is None:
        begin = _hint(storage, name)
    if version is not None and version < begin:
        begin = 0
    entries = _entries(storage, name, begin)
    if not entries and begin:  # the table was made anew, or the hint is wrong
        entries = _entries(storage, name, 0)
    entries = [e for e in entries if version is None or e.version <= version]
    begin = max((e.version for e in entries if e.kind == "checkpoint.parquet"), default=0)
    if version is None:
        _known.begins(table, begin)
    order = ("checkpoint.parquet", "crc", "json")
    return sorted((e for e in entries if e.version >= begin), key=lambda e: (e.version, order.index(e.kind)))


def _entries(storage: Storage, name: str, begin: int) -> list[_Entry]:
    folder = f"{name}/{LOG}/"
    found = []
    for item in storage.list(folder, start=f"{folder}{begin:020d}" if begin else ""):
        key = item.key.removeprefix(f"{name}/")
        if (match := _ENTRY.fullmatch(key)) is not None:
            if item.size > MAX_ENTRY_BYTES:
                raise Forged(f"{storage.uri_of(item.key)} has {item.size:,} bytes, more than a log's entry ever has: "
                             f"{_way_out(item.key)}")  # fmt: skip
            found.append(_Entry(int(match[1]), match[2], item))
        elif _READ_BY_LIBRARIES.fullmatch(key) or key.startswith(f"{LOG}/_sidecars/"):
            raise Forged(f"{storage.uri_of(item.key)}: vidproc keeps no checkpoints in several files, and the "
                         f"libraries would follow this one: {_way_out(item.key)}")  # fmt: skip
    return found


def _hint(storage: Storage, name: str) -> int:
    """Where the log's newest checkpoint is said to be; 0: from the beginning."""
    key = f"{name}/{LOG}/_last_checkpoint"
    try:
        raw = parse_json(storage.get_range(key, 0, 1 << 20).decode(), key, "hint")
        version = raw["version"]
    except (NotFound, ConfigError, UnicodeDecodeError, LookupError, TypeError):
        return 0
    return version if type(version) is int and 0 <= version < 10**19 else 0


# --- one object of a log -------------------------------------------------------------------------------


def _read(storage: Storage, name: str, entry: _Entry) -> None:
    where = storage.uri_of(entry.item.key)
    try:
        data = storage.get(entry.item.key)
    except NotFound:  # a checkpoint has made it dispensable meanwhile
        raise TransientError(f"{where} was removed while the table was opened") from None
    paths: list[str] = []
    checker = _Checker(where, paths)
    try:
        if entry.kind == "checkpoint.parquet":
            _checkpoint(data, checker)
        else:
            _lines(data, checker, crc=entry.kind == "crc")
    except (ValueError, TypeError, LookupError, AttributeError, pa.ArrowException, OSError) as e:
        raise Damaged(f"{where} is damaged ({printable(str(e))[:200]}): {_way_out(entry.item.key)}") from e
    if isinstance(storage, LocalStorage) and storage.confined:
        seen: set[str] = set()
        for path in paths:
            beneath.check(storage.root, f"{name}/{path}", seen)
    _known.keep(where, entry.item, checker.numbers)


def _lines(data: bytes, checker: _Checker, *, crc: bool) -> None:
    """A commit: one action a line. A `.crc` is one object that repeats what the commits said."""
    for number, line in enumerate(data.decode("utf-8").split("\n"), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            action = parse_json(line, where, "entry")
        except ConfigError as e:
            raise ValueError(str(e)) from e
        if crc:
            files = action.get("allFiles") or []
            said = {"protocol": action.get("protocol"), "metaData": action.get("metadata")}
            actions = [said, *({"txn": t} for t in action.get("setTransactions") or []), *({"add": f} for f in files)]
        else:
            actions = [action]
        for one in actions:
            for kind, body in one.items():
                if body is not None:
                    checker.action(kind, body, where)


def _checkpoint(data: bytes, checker: _Checker) -> None:
    file = pq.ParquetFile(pa.BufferReader(data))
    names = file.schema_arrow.names
    if len(set(names)) != len(names):
        raise ValueError("a column is there twice")
    leaves = [file.schema.column(i).path for i in range(len(file.schema.names))]
    if len(set(leaves)) != len(leaves):
        raise ValueError("a column is there twice")
    columns = [c for c in (*_WHOLE_COLUMNS, *_PARTS) if any(n == c or n.startswith(f"{c}.") for n in leaves)]
    for batch in file.iter_batches(1 << 13, columns=columns):
        for kind in ("add", "remove", "cdc"):
            if kind in batch.schema.names:
                _paths(batch.column(kind), kind, checker)
        for kind in (*_WHOLE_COLUMNS, "metaData"):
            if kind in batch.schema.names and (column := batch.column(kind)).null_count < len(column):
                for body in column.drop_null().to_pylist():
                    checker.action(kind, _plain(body), "a row")


def _paths(column: pa.Array, kind: str, checker: _Checker) -> None:
    """The same as `_Checker.action` for each row of many."""
    column = column.drop_null()
    paths = pc.struct_field(column, "path").cast(pa.string()) if len(column) else pa.array([], pa.string())
    well = pc.fill_null(pc.match_substring_regex(paths, rf"^(?:{_FILE})\z"), False)
    if not pc.all(well, min_count=0).as_py():
        checker.path(kind, pc.filter(paths, pc.invert(well))[0].as_py(), "a row")
    if kind == "add":
        checker.paths += paths.to_pylist()
        names = [column.type.field(i).name for i in range(column.type.num_fields)]
        if "deletionVector" in names and pc.struct_field(column, "deletionVector").null_count < len(column):
            checker.action("add", {"path": paths[0].as_py(), "deletionVector": True}, "a row")


def _plain(body: Any) -> Any:
    """Maps of Parquet come as lists of pairs."""
    if isinstance(body, dict) and isinstance(body.get("configuration"), list):
        return body | {"configuration": dict(body["configuration"])}
    return body


@dataclass(slots=True)
class _Checker:
    """Looks at the actions of one object."""

    where: str
    paths: list[str]
    """Paths of the data files that are added."""
    numbers: dict[str, int] = field(default_factory=dict)

    def action(self, kind: str, body: Any, place: str) -> None:
        match kind:
            case "add" | "remove" | "cdc":
                self.path(kind, body["path"], place)
                if kind == "cdc":
                    self._refuse(place, "keeps changes of rows in files of their own, which vidproc never does")
                if kind == "add":
                    if body.get("deletionVector") is not None:
                        self._refuse(place, f"hides rows of {body['path']!r} by a deletion vector, which vidproc never "
                                            "does")  # fmt: skip
                    self.paths.append(body["path"])
            case "sidecar" | "checkpointMetadata":
                self._refuse(place, "is a part of a checkpoint in several files, which vidproc never writes")
            case "protocol":
                self._protocol(body, place)
            case "metaData":
                self._configuration(body.get("configuration") or {}, place)
            case "txn":
                self._number(body["appId"], body["version"], place)

    def path(self, kind: str, path: object, place: str) -> None:
        if not isinstance(path, str) or not re.fullmatch(_FILE, path) or len(path) > 1024:
            self._refuse(place, f"names {printable(str(path))[:200]!r} (in {kind!r}), which is no file of this table")

    def _protocol(self, body: Mapping[str, Any], place: str) -> None:
        reader, writer = body["minReaderVersion"], body["minWriterVersion"]
        asked = {*(body.get("readerFeatures") or ())} - _READER_FEATURES
        asked |= {*(body.get("writerFeatures") or ())} - _WRITER_FEATURES
        if asked or reader not in (1, 3) or writer not in (1, 2, 7):
            what = ", ".join(sorted(map(str, asked))) or f"version {reader} for readers, {writer} for writers"
            self._refuse(place, f"asks for ways of reading and writing that vidproc does not use ({printable(what)})")

    def _configuration(self, settings: Mapping[str, Any], place: str) -> None:
        for name, value in settings.items():
            expected = _CONFIGURATION.get(name)
            if (expected is not None and str(value).lower() != expected) or name.startswith("delta.constraints."):
                self._refuse(
                    place, f"sets {printable(name)!r} to {printable(str(value))[:60]!r}, which vidproc never does"
                )

    def _number(self, application: object, version: object, place: str) -> None:
        if application in APPLICATIONS:
            if type(version) is not int or not 0 <= version <= MAX_NUMBER:
                self._refuse(place, f"counts change {printable(str(version))[:60]}, which no lake has reached")
            self.numbers[str(application)] = version

    def _refuse(self, place: str, why: str) -> NoReturn:
        raise Forged(f"{self.where}: {place} {why}: {_way_out(self.where)}")


def _way_out(what: str) -> str:
    return (
        f"something other than vidproc wrote it, so nothing of this table is read, changed or deleted. Restore "
        f"{what.rpartition('/')[2] or what} or the whole lake from a copy, or index into a new lake"
    )


# --- the schema ----------------------------------------------------------------------------------------


def check_schema(
    where: str, fields: Iterable[Mapping[str, Any]], partitions: Iterable[str], expected: Mapping[str, Any],
    required: Iterable[str], partition_by: Iterable[str],
) -> None:  # fmt: skip
    """`fields` are those of the table's schema, as Delta writes them in JSON; `expected` are our types by name. A table
    may lack fields that older versions of vidproc did not know, or have those of newer ones."""
    there = {f["name"]: f for f in fields}
    wrong = [n for n, f in there.items() if n in expected and f["type"] != expected[n]]
    wrong += [n for n in required if n not in there]
    wrong += [n for n, f in there.items() if any(str(k).startswith("delta.") for k in f.get("metadata") or ())]
    if wrong or not {*partitions} <= {*partition_by}:
        what = ", ".join(map(repr, wrong[:5])) or "its partitions"
        raise Forged(f"{where}: the log is not that of this table ({printable(what)} differ from what vidproc writes): "
                     f"{_way_out(f'{where}/{LOG}')}")  # fmt: skip


# --- our own small objects -----------------------------------------------------------------------------


def document(storage: Storage, key: str, what: str) -> dict[str, Any]:
    """The mapping in one of our JSON objects. Raises Damaged, which names the object, for anything else; NotFound."""
    data = storage.get_range(key, 0, MAX_DOCUMENT_BYTES + 1)
    where = storage.uri_of(key)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise Damaged(f"{where} is no {what}: it is larger than {MAX_DOCUMENT_BYTES >> 20} MiB")
    try:
        found = parse_json(data.decode("utf-8"), where, what)
    except (ConfigError, UnicodeDecodeError) as e:
        raise Damaged(f"{where} is no {what}: {printable(str(e))[:300]}") from e
    if not isinstance(found, dict):
        raise Damaged(f"{where} is no {what}: it must be a mapping")
    return found


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int": (int,),
    "float": (float, int),
    "float | None": (float, int, type(None)),
    "bool": (bool,),
    "datetime": (datetime,),
}
"""Annotations of the fields that are looked at, and what may stand there."""


def typed(value: Any) -> None:
    """Raises TypeError where a field of a dataclass, filled from a document, is not of its type. Looks at plain fields
    and tuples of texts; a date must say its zone, and a count cannot be negative or beyond 64 bits."""
    for field_ in fields(value):
        found, kind = getattr(value, field_.name), str(field_.type)
        if kind == "tuple[str, ...]":
            well = isinstance(found, tuple) and all(isinstance(text, str) for text in found)
        elif kind in _TYPES:
            well = isinstance(found, _TYPES[kind]) and (kind == "bool" or type(found) is not bool)
            well = well and not (type(found) is int and not 0 <= found < 1 << 63)
            well = well and not (isinstance(found, datetime) and found.tzinfo is None)
        else:
            continue
        if not well:
            raise TypeError(f"{field_.name!r} is {found!r:.100}")
