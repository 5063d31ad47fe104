"""The second lock: a closed database engine that runs nothing but readings of the lake's tables.

It does not trust what comes: a statement is first bound and planned by the twin, which has the same tables
and nothing else. The kinds of steps in that plan, and the functions named in the text, are compared with
what is known to read the lake only. So nothing is written, no other file is read and no other machine is
spoken to, even where the first lock lets a statement through.

The engine itself is closed as far as DuckDB can be: tables are attached read-only, files outside the tables'
folders are refused, settings, extensions and databases cannot be changed. That alone would not do: the Delta
extension reads a table's log by itself, past DuckDB's file permissions, and a folder that may be read may be
written to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow as pa

from vidproc.ask.faults import streamed, translated
from vidproc.ask.twin import EVERY, MAIN, Params, Twin, identifier
from vidproc.errors import ConfigError
from vidproc.storage import Storage, is_s3, resolved_address
from vidproc.tables.delta import Tables, taken
from vidproc.tables.schema import load_schemas

REQUEST_S, REQUEST_TRIES = 20, 4
"""How long one of DuckDB's requests to a store may take that does not answer, and how often it is made: a question
ends after a minute and a half at most. Not less: a request on a slow line takes its time, too."""
ROWS_A_BATCH = 50_000
"""Rows of a result that are made at a time: some 10 MB of detections."""


class Engine:
    """The tables of a lake as they were when it was opened. Close it, or use it in a `with`."""

    def __init__(
        self, tables: Tables, pipeline: str | None, spill: str, threads: int | None, memory_limit: str | None
    ) -> None:
        """`pipeline` is the one to choose; None: the one with the most videos, of equals the first by name. "all"
        chooses none. Raises ConfigError where the lake has no such pipeline."""
        with ExitStack() as undo:
            con = undo.enter_context(duckdb.connect(":memory:", config=_settings(spill, threads, memory_limit)))
            sources = _pin(con, tables)
            self.pipelines = _pipelines(con, sources["videos"])
            """Names of the pipelines, the one with the most videos first."""
            self.pipeline = _chosen(tables.storage.uri, self.pipelines, pipeline)
            """The one whose rows are shown; None: the rows of all."""
            columns = _make_views(con, sources, self.pipeline if len(self.pipelines) > 1 else None)
            self.twin = Twin(columns)
            undo.callback(self.twin.close)
            _lock(con, tables.storage)
            undo.pop_all()
        self.tables = tuple(columns)
        """Names of the views, `videos` first."""
        self.__con = con

    def close(self) -> None:
        self.__con.close()
        self.twin.close()

    def run(self, select: str, params: Params = None, explain: str | None = None) -> pa.RecordBatchReader:
        """The rows of one SELECT, made as they are read, or its plan where `explain` asks for it.

        Raises ConfigError for whatever is not one SELECT over the lake's tables.
        """
        with translated(1):  # the twin's plan stands one line lower
            self.twin.check(select, params)
        text, kind = select, duckdb.StatementType.SELECT
        if explain is not None:
            text, kind = f"{explain} {select}", duckdb.StatementType.EXPLAIN
        with translated():
            cursor = self.__con.cursor()
            statements = cursor.extract_statements(text)
            if [s.type for s in statements] != [kind]:
                raise ConfigError("SQL: a lake is only read here, by one SELECT")

            def ask() -> pa.RecordBatchReader:
                # The very statement that was looked at: a text would be read again.
                return cursor.execute(cursor.extract_statements(text)[0], params).to_arrow_reader(ROWS_A_BATCH)

            reader = ask()

        def batches() -> Iterator[pa.RecordBatch]:
            with cursor, translated(), streamed(ask):
                yield from reader

        return pa.RecordBatchReader.from_batches(reader.schema, batches())


# --- opening ---------------------------------------------------------------------------------------------


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
    return resolved_address(storage.uri)


def _pin(con: duckdb.DuckDBPyConnection, tables: Tables) -> dict[str, str]:
    """Pins a version of each table -> name, `videos` first, and what SQL calls its rows."""
    storage = tables.storage
    con.execute(f"LOAD {_literal(_extension('delta'))}")
    con.execute("SET GLOBAL TimeZone = 'UTC'")  # for each cursor, whatever the zone of the machine
    con.execute("SET parquet_metadata_cache = true")  # files of a Delta table never change: one look is enough
    if is_s3(storage.uri):
        _reach_s3(con, storage)
    # As a URL: in a bare path the extension takes `%` for the beginning of an escape.
    root = _root(storage) if is_s3(storage.uri) else f"file://{quote(_root(storage))}"

    def pin(name: str, changes: int | None) -> int | None:
        version, done = _version(tables, name, changes)
        if version is not None:
            with con.cursor() as cursor:
                how = f"TYPE delta, READ_ONLY, VERSION {version}, PIN_SNAPSHOT"
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
    for name in pinned:
        con.register("as_declared", schemas[name].stored.empty_table())
        con.execute(f'CREATE TABLE empty."{name}" AS FROM as_declared')
        con.unregister("as_declared")
    return {name: f'empty."{name}"' if done is None else f'"lake_{name}"' for name, done in pinned.items()}


def _version(tables: Tables, name: str, changes: int | None) -> tuple[int | None, int | None]:
    """The newest version of the table that holds no change after number `changes` (None: the newest of
    all), and the number of the last change in it; Nones for a table that is not there (yet)."""
    from deltalake import DeltaTable

    storage = tables.storage
    if not DeltaTable.is_deltatable(storage.delta_uri(name), storage.delta_options()):
        return None, None
    table = tables.open(name)
    while changes is not None and taken(table) > changes:
        # A change is one commit, and at most one is in progress: seldom more than a step or two.
        tables.step_back(name, table)
    return table.version(), taken(table)


def _pipelines(con: duckdb.DuckDBPyConnection, videos: str) -> tuple[str, ...]:
    rows = con.execute(f"SELECT pipeline FROM {videos} GROUP BY pipeline ORDER BY count(*) DESC, pipeline").fetchall()
    return tuple(row[0] for row in rows)


def _chosen(uri: str, pipelines: Sequence[str], wanted: str | None) -> str | None:
    if wanted is None or wanted == ALL:
        return pipelines[0] if pipelines and wanted is None else None
    if wanted not in pipelines:
        has = f"it has {', '.join(pipelines)}" if pipelines else "no video is indexed there yet"
        raise ConfigError(f"{uri}: there is no pipeline {wanted!r} in this lake; {has}")
    return wanted


ALL = "all"
"""In place of a pipeline's name: the rows of all of them."""


def _make_views(
    con: duckdb.DuckDBPyConnection, sources: Mapping[str, str], pipeline: str | None
) -> dict[str, list[tuple[str, str]]]:
    """A view of each table with the rows of the pipeline (None: of all), and one with all -> their columns."""
    con.execute(f"CREATE SCHEMA {EVERY}")
    columns = {}
    for name, rows in sources.items():
        view, select = identifier(name), f"SELECT {_columns(con, name, rows)} FROM {rows}"
        con.execute(f"CREATE VIEW {EVERY}.{view} AS {select}")
        only = "" if pipeline is None else f" WHERE pipeline = {_literal(pipeline)}"
        con.execute(f"CREATE VIEW {MAIN}.{view} AS {select}{only}")
        columns[name] = [(r[0], r[1]) for r in con.execute(f"DESCRIBE {MAIN}.{view}").fetchall()]
    return columns


def _columns(con: duckdb.DuckDBPyConnection, name: str, rows: str) -> str:
    """The columns as declared, NULL where an older table has none, and then what a newer one has."""
    declared = {r[0]: r[1] for r in con.execute(f'DESCRIBE empty."{name}"').fetchall()}
    stored = [r[0] for r in con.execute(f"DESCRIBE {rows}").fetchall()]
    parts = [
        identifier(c) if c in stored else f"CAST(NULL AS {kind}) AS {identifier(c)}" for c, kind in declared.items()
    ]
    return ", ".join(parts + [identifier(c) for c in stored if c not in declared])


def _reach_s3(con: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    con.execute(f"LOAD {_literal(_extension('httpfs'))}")
    # It takes keys from the environment into its settings, where SQL could read them: a secret hides them.
    for name in ("s3_access_key_id", "s3_secret_access_key", "s3_session_token"):
        con.execute(f"SET GLOBAL {name} = ''")
    con.execute("SET enable_server_cert_verification = true")
    con.execute(f"SET http_timeout = {REQUEST_S}")
    con.execute(f"SET http_retries = {REQUEST_TRIES - 1}")
    con.execute("SET s3_url_compatibility_mode = true")  # `?` and `*` in a prefix are letters
    con.execute("SET enable_http_metadata_cache = true")
    con.execute("SET validate_external_file_cache = 'NO_VALIDATION'")  # Delta's files never change
    logs, files = storage.duckdb_secrets()
    of_files = [f"{storage.uri}/{name}/{begin}" for name in load_schemas() for begin in ("part-", "recorded_date=")]
    for name, secret, scope in (("logs", logs, [storage.uri]), ("files", files, of_files)):
        parts = [f"{key} {_literal(value)}" for key, value in secret.items()]
        con.execute(f"CREATE SECRET {name} (TYPE s3, {', '.join(parts)}, SCOPE [{', '.join(map(_literal, scope))}])")


def _lock(con: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    folders = ", ".join(_literal(f"{_root(storage)}/{name}/") for name in load_schemas())
    con.execute(f"SET allowed_directories = [{folders}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
