"""Questions to a lake: SQL that anybody may write, and a search for what is seen in the videos.

DuckDB reads the Delta tables through its `delta` extension, so whatever the SQL says, its filters
reach the table's log (files are skipped by partition and statistics) and the Parquet row groups, in
a folder and on S3 alike. The extensions come as packages and are loaded from there: no network.

A connection sees the lake as it was when it was made, between two changes: `videos` says how many
changes are finished, and each other table is read in its newest version that holds no later one. So
no answer mixes two generations of a video or shows rows of one that `videos` does not list, and
views need no join for that (one with `videos` made a count over all detections 3 times slower).

Two locks keep SQL inside the lake. Its syntax tree is read first: one statement that reads, from
our views and a few harmless table functions. And the database is closed: no file outside the lake,
no network beyond it, no new settings, extensions or databases. The second lock alone would not do,
since the Delta extension reads a table's log by itself, past DuckDB's file permissions.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from importlib.util import find_spec
from itertools import chain, count
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, get_args
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from vidproc.errors import ConfigError, TransientError
from vidproc.storage import Storage, StorageOptions, redact
from vidproc.tables.delta import Tables, taken, translated
from vidproc.tables.lake import Lake
from vidproc.tables.schema import load_schemas
from vidproc.text import printable

ROWS_A_BATCH = 50_000
"""Of a result that is streamed: some 10 MB of detections."""

TABLE_FUNCTIONS = frozenset({"unnest", "range", "generate_series", "json_each", "json_tree"})
"""All that SQL may call in place of a table. None of them reaches beyond its arguments."""

REFUSED_FUNCTIONS = frozenset(
    {
        "getenv",
        "current_setting",
        "getvariable",
        "nextval",
        "currval",
        "write_log",
        "write_blob",
        "sleep_ms",
        "pg_sleep",
    }
)
"""Functions of single values that read the process rather than the lake, or that act."""


# --- opening a lake ----------------------------------------------------------------------------


def connect(
    lake_uri: str,
    options: StorageOptions | None = None,
    *,
    threads: int | None = None,
    memory_limit: str | None = None,
) -> LakeDatabase:
    """Opens the lake (a folder or `s3://bucket/prefix`) as it is now, read-only.

    `threads` and `memory_limit` (such as "4GB") are DuckDB's; what does not fit is spilled to a
    temporary folder. Raises ConfigError where there is no lake, or where storage refuses us.
    """
    lake = Lake.open(lake_uri, options)
    spill = tempfile.TemporaryDirectory(prefix="vidproc-query-", ignore_cleanup_errors=True)
    with ExitStack() as undo, _translated():
        undo.callback(spill.cleanup)
        con = undo.enter_context(duckdb.connect(":memory:", config=_settings(spill.name, threads, memory_limit)))
        names = _open_tables(con, lake.tables)
        _lock(con, lake.storage)
        undo.pop_all()
    return LakeDatabase(lake.uri, names, con, spill)


class LakeDatabase:
    """A lake, open for questions. Close it, or use it in a `with`; results end with it."""

    def __init__(
        self,
        uri: str,
        tables: tuple[str, ...],
        con: duckdb.DuckDBPyConnection,
        spill: tempfile.TemporaryDirectory[str],
    ) -> None:
        self.uri = uri
        self.tables = tables
        """Names of the views, `videos` first."""
        self._con = con
        self._spill = spill
        # Reads syntax only, so its database is empty. Closed too: to read IMPORT DATABASE is to open its file.
        self._parser = duckdb.connect(":memory:", config={"enable_external_access": False, "lock_configuration": True})

    def __enter__(self) -> LakeDatabase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._con.close()
        self._parser.close()
        self._spill.cleanup()

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
        answer; pages fit together where the query's ORDER BY leaves no ties. Raises ConfigError for
        SQL that is wrong or that would do more than read the lake.
        """
        if (limit is not None and limit < 0) or offset < 0:
            raise ConfigError(f"limit and offset cannot be negative: {limit}, {offset}")
        with _translated():
            query, explains = self._checked(query)
        paged = (limit is not None or offset) and not explains
        if paged:
            # On lines of its own: the query may end in a comment.
            query = f"FROM (\n{query}\n) LIMIT {'NULL' if limit is None else limit} OFFSET {offset}"
        return self._stream(query, params, 1 if paged else 0)

    def _stream(
        self, query: str, params: Sequence[Any] | Mapping[str, Any] | None, added_lines: int = 0
    ) -> pa.RecordBatchReader:
        cursor = self._con.cursor()

        def ask() -> pa.RecordBatchReader:
            return cursor.execute(query, params).to_arrow_reader(ROWS_A_BATCH)

        with _translated(added_lines):
            reader = ask()
        schema = pa.schema(
            field.with_name(name) for field, name in zip(reader.schema, _unique(reader.schema.names), strict=True)
        )

        def batches() -> Iterator[pa.RecordBatch]:
            with cursor, _translated(added_lines), _streamed(ask):
                for batch in reader:
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _checked(self, query: str) -> tuple[str, bool]:
        """The one statement in `query`, without its semicolon, and whether it is an EXPLAIN."""
        statements = self._parser.extract_statements(query)
        if len(statements) != 1 or not statements[0].query.strip():
            if any(s.type == duckdb.StatementType.CREATE for s in statements) and "pivot" in query.lower():
                raise ConfigError("SQL: name the values of this PIVOT: PIVOT … ON column IN ('a', 'b')")
            raise ConfigError(f"SQL: give one statement, not {len(statements)}")
        kind, text = statements[0].type, statements[0].query.rstrip().rstrip(";")
        read, explains = text, kind == duckdb.StatementType.EXPLAIN
        if explains:
            read = _EXPLAIN.sub("", text, count=1)
            inner = self._parser.extract_statements(read)
            kind = inner[0].type if len(inner) == 1 else kind
        if kind != duckdb.StatementType.SELECT:
            raise ConfigError(
                f"SQL: a lake is only read here, so {kind.name.replace('_', ' ')} is refused; "
                "write SELECT, WITH, FROM, DESCRIBE, SUMMARIZE, EXPLAIN or SHOW TABLES"
            )
        answer = self._parser.execute("SELECT json_serialize_sql(?)", [read]).fetchone()
        tree = json.loads(answer[0]) if answer else {"error": True}
        if tree["error"]:
            raise ConfigError(f"SQL: this statement is not understood: {tree.get('error_message', '')}")
        _check_tree(tree, frozenset(self.tables))
        return text, explains


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


_ALONE = ", since SQL here sees the lake's tables alone"
_EXPLAIN = re.compile(r"\A(?:\s|--[^\n]*\n|/\*.*?\*/)*EXPLAIN(?:\s+ANALYZE\b)?(?:\s*\([^()]*\))?", re.I | re.S)


def _check_tree(tree: Any, tables: frozenset[str]) -> None:
    """Raises ConfigError where a parsed statement names a table that is no view of ours and no part
    of the statement itself, or calls a function that is not known to be harmless."""
    nodes = list(_nodes(tree))
    # A WITH names a table for its own part only. Taken for the whole here, which is safe: outside
    # that part the name means nothing to a database that is closed.
    named = {entry["key"].lower() for node in nodes for entry in (node.get("cte_map") or {}).get("map", ())}
    for node in nodes:
        match node.get("type"):
            case "BASE_TABLE":
                path = [node.get("catalog_name"), node.get("schema_name"), node["table_name"]]
                name = node["table_name"].lower()
                own = path[0] in ("", None, "memory") and path[1] in ("", None, "main")
                if not (own and (name in tables or (name in named and not any(path[:2])))):
                    raise ConfigError(
                        f"SQL: there is no table {'.'.join(p for p in path if p)!r} in this lake; "
                        f"it has {', '.join(sorted(tables))}"
                    )
            case "TABLE_FUNCTION" if node["function"]["function_name"].lower() not in TABLE_FUNCTIONS:
                raise ConfigError(f"SQL: {node['function']['function_name']}() is refused{_ALONE}")
            case "SHOW_REF" if node.get("query") is None and node.get("table_name") != '"tables"':
                raise ConfigError("SQL: of the SHOW statements only SHOW TABLES is answered here")
            case "FUNCTION" if node.get("function_name", "").lower() in REFUSED_FUNCTIONS:
                raise ConfigError(f"SQL: {node['function_name']}() is refused{_ALONE}")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


# --- the database ------------------------------------------------------------------------------


def _settings(spill: str, threads: int | None, memory_limit: str | None) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        "allow_persistent_secrets": "false",
        "temp_directory": spill,
        "python_enable_replacements": "false",
    }
    if threads is not None:
        settings["threads"] = str(threads)
    if memory_limit is not None:
        settings["memory_limit"] = memory_limit
    return settings


def _extension(name: str) -> str:
    """Where the installed package has DuckDB's extension: they must be of the very same version."""
    spec = find_spec(f"duckdb_extension_{name}")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        if path.exists():
            return str(path)
    raise ConfigError(
        f"DuckDB {duckdb.__version__} needs its {name} extension to read a lake: "
        f"pip install duckdb-extension-{name}=={duckdb.__version__}"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _root(storage: Storage) -> str:
    # The Delta extension resolves links, and the permissions compare paths as they are written.
    return storage.uri if storage.uri.startswith("s3://") else os.path.realpath(storage.uri)


def _open_tables(con: duckdb.DuckDBPyConnection, tables: Tables) -> tuple[str, ...]:
    """Pins a version of each table and makes the views. Gives their names, `videos` first."""
    storage = tables.storage
    con.execute(f"LOAD {_literal(_extension('delta'))}")
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET parquet_metadata_cache = true")  # files of a Delta table never change: one look is enough
    if storage.uri.startswith("s3://"):
        _reach_s3(con, storage)
    # As a URL: in a bare path the extension takes `%` for the beginning of an escape.
    root = _root(storage) if storage.uri.startswith("s3://") else f"file://{quote(_root(storage))}"

    def pin(name: str, changes: int | None) -> int | None:
        version, done = _version(tables, name, changes)
        if version is not None:
            with con.cursor() as cursor:
                how = f"TYPE delta, VERSION {version}, PIN_SNAPSHOT"
                cursor.execute(f'ATTACH {_literal(f"{root}/{name}")} AS "lake_{name}" ({how})')
                cursor.execute(f'DESCRIBE "lake_{name}"')  # reads the log now, not when it is first asked for
        return done

    schemas = load_schemas()
    others = [name for name in schemas if name != "videos"]
    pinned = {"videos": (changes := pin("videos", None))}
    with ThreadPoolExecutor(len(others)) as pool:  # each costs a few requests, one after another
        # Runs are no part of changes: their newest rows are shown.
        pinned |= zip(others, pool.map(lambda n: pin(n, None if n == "runs" else changes or 0), others), strict=True)

    con.execute("CREATE SCHEMA empty")
    for name, done in pinned.items():
        con.register("as_declared", schemas[name].stored.empty_table())
        con.execute(f'CREATE TABLE empty."{name}" AS FROM as_declared')
        con.unregister("as_declared")
        rows = f'empty."{name}"' if done is None else f'"lake_{name}"'
        con.execute(f'CREATE VIEW "{name}" AS SELECT {_columns(con, name, rows)} FROM {rows}')
    return tuple(pinned)


def _version(tables: Tables, name: str, changes: int | None) -> tuple[int | None, int | None]:
    """The newest version of the table that holds no change after number `changes` (None: the newest of
    all), and the number of the last change in it; Nones for a table that is not there (yet)."""
    from deltalake import DeltaTable

    storage = tables.storage
    if not DeltaTable.is_deltatable(storage.delta_uri(name), storage.delta_options()):
        return None, None
    table = tables.open(name)
    with translated(f"{storage.uri}/{name}"):
        while changes is not None and taken(table) > changes:
            # A change is one commit, and at most one is in progress: seldom more than a step or two.
            table.load_as_version(table.version() - 1)
        return table.version(), taken(table)


def _columns(con: duckdb.DuckDBPyConnection, name: str, rows: str) -> str:
    """The columns as declared, NULL where an older table has none, and then what a newer one has."""
    declared = {r[0]: r[1] for r in con.execute(f'DESCRIBE empty."{name}"').fetchall()}
    stored = [r[0] for r in con.execute(f"DESCRIBE {rows}").fetchall()]
    parts = [f'"{c}"' if c in stored else f'CAST(NULL AS {kind}) AS "{c}"' for c, kind in declared.items()]
    return ", ".join(parts + [f'"{c}"' for c in stored if c not in declared])


def _reach_s3(con: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    con.execute(f"LOAD {_literal(_extension('httpfs'))}")
    # It takes keys from the environment into its settings, where SQL could read them: a secret hides them.
    for name in ("s3_access_key_id", "s3_secret_access_key", "s3_session_token"):
        con.execute(f"SET GLOBAL {name} = ''")
    con.execute("SET enable_server_cert_verification = true")
    con.execute("SET s3_url_compatibility_mode = true")  # `?` and `*` in a prefix are letters
    con.execute("SET enable_http_metadata_cache = true")
    con.execute("SET validate_external_file_cache = 'NO_VALIDATION'")  # Delta's files never change
    parts = [f"{name} {_literal(value)}" for name, value in storage.duckdb_secret().items()]
    con.execute(f"CREATE SECRET lake (TYPE s3, {', '.join(parts)}, SCOPE {_literal(storage.uri)})")


def _lock(con: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    con.execute(f"SET allowed_directories = [{_literal(_root(storage) + '/')}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")


_LINE = re.compile(r"^LINE (\d+): ", re.M)


@contextmanager
def _translated(added_lines: int = 0) -> Iterator[None]:
    """DuckDB's errors as ours, its line numbers less the lines that we put before the query."""
    try:
        yield
    except duckdb.Error as e:
        # Its own prefix (`Binder Error: `) stays: it tells a typing mistake from a missing column.
        message = redact(str(e)).strip()
        message = _LINE.sub(lambda m: f"LINE {int(m[1]) - added_lines}: ".ljust(len(m[0])), message)
        if isinstance(e, duckdb.InterruptException):
            raise KeyboardInterrupt from None
        if isinstance(e, duckdb.InternalException | duckdb.FatalException):
            raise
        if isinstance(e, duckdb.OutOfMemoryException):
            raise ConfigError(
                f"SQL: the query needs more memory than it may have; ask for less, or set memory_limit: {message}"
            ) from e
        if isinstance(e, duckdb.HTTPException | duckdb.IOException):
            raise TransientError(
                f"the lake could not be read, try again (a vacuum may have removed what was being read): {message}"
            ) from e
        raise ConfigError(f"SQL: {message}") from e


_INTERRUPT = "INTERRUPT Error"
_OF_STREAM: dict[str, type[duckdb.Error]] = {
    "IO Error": duckdb.IOException,
    "HTTP Error": duckdb.HTTPException,
    "Out of Memory Error": duckdb.OutOfMemoryException,
    "INTERNAL Error": duckdb.InternalException,
    "FATAL Error": duckdb.FatalException,
    # Whose reason did not come again: as what passes by itself.
    _INTERRUPT: duckdb.IOException,
}


@contextmanager
def _streamed(ask: Callable[[], Iterable[object]]) -> Iterator[None]:
    """Around the reading of an answer: through Arrow's stream DuckDB's errors come as OSErrors, and only
    how their text begins tells what they were. `ask` asks the same again."""
    try:
        yield
    except OSError as e:
        e = _reason(ask, e)
        kind = next((kind for begin, kind in _OF_STREAM.items() if str(e).startswith(begin)), duckdb.Error)
        raise kind(str(e)) from e


def _reason(ask: Callable[[], Iterable[object]], error: OSError) -> OSError:
    """An error in one of DuckDB's threads interrupts the others, and now and then the interruption is
    what the reader is told. Nobody interrupts here, so the question is asked again for its own error."""
    for _ in range(3):
        if not str(error).startswith(_INTERRUPT):
            break
        try:
            deque(ask(), maxlen=0)
        except OSError as again:
            error = again
    return error


# --- search ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """What is looked for in `segments`. What is not given, is not asked.

    A label is looked for among presences, an action among actions; with both, a hit is the time in
    which a presence and an action of one video overlap. With neither, both kinds are listed.
    """

    label: str | None = None
    action: str | None = None
    min_seconds: float = 0.0
    """Shorter hits are left out; of an overlap, its own length counts."""
    min_score: float = 0.0
    """Of an overlap, the lower of both scores counts."""
    since: datetime | None = None
    until: datetime | None = None
    """Hits that share a moment with [since, until), by the wall clock. Naive times are in `timezone`.
    Videos whose `recorded_at` is not known have no wall clock, and are left out once one is asked for."""
    time_of_day: tuple[time, time] | None = None
    """Hits that begin in [from, to) of a day in `timezone`; from later than to goes over midnight."""
    date: date | None = None
    """Hits that begin on that day in `timezone`."""
    timezone: str = "UTC"
    """IANA name, such as `Europe/Berlin`."""
    video: str | None = None
    """Shell glob (`*`, `?`, `[a-z]`) for the whole URI or for what follows any of its slashes."""
    limit: int = 100
    offset: int = 0
    after: str | None = None
    """`token` of the last hit of the page before: the next page begins behind it, whatever the lake
    has got in between."""

    def __post_init__(self) -> None:
        if self.limit < 1 or self.offset < 0 or self.min_seconds < 0:
            raise ConfigError(f"limit must be positive, offset and min_seconds not negative: {self}")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as e:
            raise ConfigError(f"there is no time zone {self.timezone!r}; give a name such as Europe/Berlin") from e


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One stretch of one video: `[start_s, end_s)` on the video's clock, in seconds."""

    uri: str
    start_s: float
    end_s: float
    label: str | None
    action: str | None
    score: float
    recorded_at: datetime | None
    """UTC wall-clock time of `start_s`, None where the video's `recorded_at` is not known."""
    track_ids: tuple[int, ...]
    """Of the objects in view, local to the video (and so to be joined with `video_id`)."""
    video_id: str
    pipeline: str
    token: str
    """Place of this hit in the order of all hits: `SearchQuery.after` of the next page."""


_SEGMENT = """
    SELECT video_id, pipeline, model, start_s, end_s, score, track_ids,
           CASE kind WHEN 'presence' THEN label END AS label, CASE kind WHEN 'action' THEN label END AS action
    FROM segments WHERE kind IN ('presence', 'action')
        AND ($label IS NULL OR kind = 'presence' AND label = $label)
        AND ($action IS NULL OR kind = 'action' AND label = $action)"""

_OVERLAP = """
    SELECT p.video_id, p.pipeline, concat(p.model, '+', a.model) AS model,
           greatest(p.start_s, a.start_s) AS start_s, least(p.end_s, a.end_s) AS end_s,
           least(p.score, a.score) AS score, p.track_ids, p.label, a.label AS action
    FROM segments p JOIN segments a ON p.video_id = a.video_id AND p.pipeline = a.pipeline
    WHERE p.kind = 'presence' AND p.label = $label AND a.kind = 'action' AND a.label = $action
        AND p.start_s < a.end_s AND a.start_s < p.end_s"""

# Ties cannot be: the key ends with all that tells one segment from another. Infinity: no wall clock.
_KEY = (
    "coalesce(epoch(began), 'inf'::DOUBLE)", "uri", "start_s", "end_s",
    "coalesce(label, '')", "coalesce(action, '')", "pipeline", "model",
)  # fmt: skip

_SEARCH = """
WITH found AS ({found}),
placed AS (
    SELECT f.*, v.uri, v.recorded_at + to_microseconds((f.start_s * 1e6)::BIGINT) AS began,
           v.recorded_at + to_microseconds((f.end_s * 1e6)::BIGINT) AS ended
    FROM found f JOIN videos v ON f.video_id = v.video_id AND f.pipeline = v.pipeline
    WHERE f.end_s - f.start_s >= $min_seconds - 1e-9 AND f.score >= $min_score
        AND ($video IS NULL OR v.uri GLOB $video OR v.uri GLOB concat('*/', $video))
),
keyed AS (SELECT *, {key} AS key FROM placed WHERE {conditions})
SELECT uri, start_s, end_s, label, action, score, began AS recorded_at, track_ids, video_id, pipeline, key
FROM keyed {after} ORDER BY key LIMIT $limit OFFSET $offset"""


def search(lake: LakeDatabase, query: SearchQuery) -> list[Hit]:
    """One page of hits, by wall clock (videos without one last), then by URI and time.

    Pages follow each other without loss or repetition by `after`; by `offset` too while the lake
    stays as it is.
    """
    zone = ZoneInfo(query.timezone)
    params: dict[str, Any] = {
        "label": query.label,
        "action": query.action,
        "min_seconds": query.min_seconds,
        "min_score": query.min_score,
        "video": query.video,
        "limit": query.limit,
        "offset": query.offset,
    }
    conditions = ["true"]

    def ask(condition: str, **values: Any) -> None:
        conditions.append(condition)
        params.update(values)

    if query.since is not None:
        ask("ended > $since", since=_aware(query.since, zone))
    if query.until is not None:
        ask("began < $until", until=_aware(query.until, zone))
    if query.date is not None:
        ask("timezone($zone, began)::DATE = $date", zone=query.timezone, date=query.date)
    if query.time_of_day is not None:
        first, last = query.time_of_day
        clock = "timezone($zone, began)::TIME"
        ask(
            f"({clock} >= $first {'AND' if first <= last else 'OR'} {clock} < $last)",
            zone=query.timezone,
            first=first,
            last=last,
        )
    after = ""
    if query.after is not None:
        key = _read_token(query.after)
        after = f"WHERE key > {_struct([f'$key{i}' for i in range(len(key))])}"
        params |= {f"key{i}": value for i, value in enumerate(key)}
    both = query.label is not None and query.action is not None
    text = _SEARCH.format(
        found=_OVERLAP if both else _SEGMENT, key=_struct(_KEY), conditions=" AND ".join(conditions), after=after
    )
    rows = lake._stream(text, params).read_all().to_pylist()
    return [_hit(row) for row in rows]


def _struct(values: Sequence[str]) -> str:
    """A struct compares from its first member to its last."""
    return "{" + ", ".join(f"k{i}: {value}" for i, value in enumerate(values)) + "}"


def _aware(moment: datetime, zone: tzinfo) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def _hit(row: dict[str, Any]) -> Hit:
    key = list(row.pop("key").values())
    token = base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")
    return Hit(**row | {"track_ids": tuple(row["track_ids"] or ()), "token": token})


def _read_token(token: str) -> list[Any]:
    try:
        key = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if [type(k) for k in key] != [float, str, float, float, str, str, str, str]:
            raise ValueError(token)
    except (ValueError, TypeError) as e:
        raise ConfigError(f"{token!r} is no page token of a search; give the `token` of a hit") from e
    return list(key)


# --- writing answers ---------------------------------------------------------------------------

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
