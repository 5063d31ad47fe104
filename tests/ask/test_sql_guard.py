"""SQL that does more than read the lake is refused by each of two locks alone, and ordinary questions are answered."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ask.test_query import NOON, detection, segment, video, write
from tests.conftest import Root
from tests.support.attempts import ATTEMPTS
from vidproc.ask import LakeDatabase, connect, guard
from vidproc.ask.twin import HARMLESS, REFUSED_FUNCTIONS, REFUSED_PREFIXES, Twin
from vidproc.errors import ConfigError
from vidproc.storage import StorageOptions
from vidproc.tables.lake import Lake

secret_of_this_module = pa.table({"a": ["a Python variable"]})


class Opened:
    """Which files below some folders are opened from now on, by anybody (inotify; nothing is seen elsewhere)."""

    def __init__(self, *folders: Path) -> None:
        self._names: dict[int, str] = {}
        self._fd = -1
        if sys.platform != "linux":
            return
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK)
        for folder in (f for top in folders for f in (top, *(p for p in top.rglob("*") if p.is_dir()))):
            self._names[libc.inotify_add_watch(self._fd, str(folder).encode(), 0x20)] = str(folder)  # IN_OPEN
        assert self._fd >= 0 and -1 not in self._names

    def read(self) -> list[str]:
        """Those since the last call, without folders."""
        found = []
        try:
            data = os.read(self._fd, 1 << 20) if self._fd >= 0 else b""
        except BlockingIOError:
            return []
        while data:
            watch, mask, _, length = struct.unpack_from("iIII", data)
            name = data[16 : 16 + length].rstrip(b"\0").decode()
            if not mask & 0x40000000:  # IN_ISDIR
                found.append(f"{self._names[watch]}/{name}")
            data = data[16 + length :]
        return found


@dataclass
class Ground:
    """A lake with a secret outside of it, and with rows that were forgotten but not vacuumed away."""

    db: LakeDatabase
    places: dict[str, str]
    state: Callable[[], object]
    """Of every byte below the lake and beside it."""
    opened: Opened
    called: list[str] = field(default_factory=list)
    """Connections to the listening address."""

    def attempt(self, text: str) -> str:
        return text.format(**{name: place.replace("'", "''") for name, place in self.places.items()})


def fill(root: Root) -> None:
    Lake.create(root.uri, root.options)
    videos = [video(f"s3://cams/2026-03-0{d + 1}.mp4", NOON) for d in range(2)]
    for number, v in enumerate(videos, 1):
        write(root, "detections", [detection(v, k, "person" if k % 2 else "car") for k in range(20)], number)
        write(
            root, "segments", [segment(v, "presence", "car", 1.0, 5.0), segment(v, "action", "run", 3.0, 4.0)], number
        )
        write(root, "videos", [v], number)
    write(root, "detections", [detection(videos[0], 0, "car")], 3, f"video_id = '{videos[0]['video_id']}'")
    write(root, "videos", [videos[0]], 3, f"video_id = '{videos[0]['video_id']}'")


def hashed(*folders: Path) -> dict[str, str]:
    files = (p for folder in folders for p in folder.rglob("*") if p.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def host() -> Iterator[tuple[str, list[str]]]:
    """An address, and the connections that are made to it."""
    called: list[str] = []
    server = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                connection, address = server.accept()
            except OSError:
                return
            called.append(str(address))
            connection.close()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.getsockname()[1]}", called
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    (folder / "data.csv").write_text("a,b\nof another,1\n")
    (folder / "data.json").write_text('{"a": "of another"}\n')
    (folder / "schema.sql").write_text("CREATE TABLE t AS SELECT 1;\n")
    pq.write_table(pa.table({"a": ["of another"]}), folder / "data.parquet")
    write_deltalake(str(folder / "table"), pa.table({"a": ["of another"]}))
    duckdb.connect(str(folder / "x.db")).execute("CREATE TABLE t AS SELECT 'of another' AS a").close()
    return folder


@pytest.fixture(scope="module")
def ground(other: Path, host: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    place = tmp_path_factory.mktemp("lakes") / "it's a lake"
    root = Root(str(place), StorageOptions(endpoint_url=None))
    fill(root)
    kept = {str(place / "detections" / p) for p in DeltaTable(str(place / "detections")).file_uris()}
    old = next(str(p) for p in (place / "detections").rglob("*.parquet") if str(p) not in kept)
    places = {"lake": root.uri, "other": str(other), "host": host[0], "old": old}
    with connect(root.uri, root.options) as db:
        yield Ground(db, places, lambda: hashed(place, other), Opened(place, other), host[1])


def ask_first(db: LakeDatabase, text: str, params: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second lock lets everything through."""
    with monkeypatch.context() as patch:
        patch.setattr(Twin, "check", lambda *_: None)
        db.sql(text, params).read_all()


def ask_second(db: LakeDatabase, text: str, params: Any, _: pytest.MonkeyPatch) -> None:
    """The first lock is not asked: as SQL and, where the caller asks for the plan only, behind EXPLAIN."""
    for explain in ("EXPLAIN", "EXPLAIN ANALYZE"):
        with pytest.raises(ConfigError):
            db._stream(text, params, explain=explain).read_all()
    db._stream(text, params).read_all()


def ask_both(db: LakeDatabase, text: str, params: Any, _: pytest.MonkeyPatch) -> None:
    db.sql(text, params).read_all()


LOCKS = {"first": ask_first, "second": ask_second, "both": ask_both}


def refused(ground: Ground, text: str, params: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By each lock, with nothing opened, written or called."""
    before = ground.state()
    ground.opened.read()
    for lock, ask in LOCKS.items():
        with pytest.raises(ConfigError, match=r"^SQL: ") as error:
            ask(ground.db, text, params, monkeypatch)
        assert "of another" not in str(error.value), lock
        assert ground.opened.read() == [], f"{lock}: opened"
        assert not ground.called, f"{lock}: called"
    assert ground.state() == before


@pytest.mark.parametrize("text", ATTEMPTS)
def test_each_lock_alone_refuses(ground: Ground, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(ground, ground.attempt(text), None, monkeypatch)


def test_the_attempts_are_many() -> None:
    assert len({" ".join(a.split()) for a in ATTEMPTS}) >= 350


def test_the_watch_sees_what_it_is_meant_to_see(ground: Ground) -> None:
    """Else the tests above would show nothing: with neither lock the same attempts do harm."""
    open_engine = duckdb.connect()
    ground.opened.read()
    open_engine.execute(ground.attempt("FROM read_text('{other}/data.csv')")).to_arrow_table()
    assert sys.platform != "linux" or any(name.endswith("data.csv") for name in ground.opened.read())
    before = ground.state()
    open_engine.execute(ground.attempt("COPY (SELECT 1) TO '{other}/x.csv'"))
    assert ground.state() != before
    (Path(ground.places["other"]) / "x.csv").unlink()
    assert ground.state() == before
    host, port = ground.places["host"].split(":")
    socket.create_connection((host, int(port))).close()
    for _ in range(1000):
        if ground.called:
            break
        threading.Event().wait(0.01)
    assert len(ground.called) == 1
    ground.called.clear()


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("FROM read_text(?)", ["{other}/data.csv"]),
        ("FROM read_text($f)", {"f": "{other}/data.csv"}),
        ("FROM read_csv(?)", ["http://{host}/x"]),
        ("FROM glob(?)", ["{other}/*"]),
        ("FROM query(?)", ["FROM pg_settings"]),
        ("FROM query_table(?)", ["pg_settings"]),
        ("FROM delta_scan(?)", ["{other}/table"]),
        ("COPY (SELECT ?) TO '{lake}/x.csv'", ["a"]),
        ("EXPLAIN ANALYZE COPY (SELECT ?) TO '{lake}/x.csv'", ["a"]),
        ("SELECT current_setting(?)", ["threads"]),
        ("SELECT json_serialize_plan(?)", ["FROM read_text('{other}/data.csv')"]),
        ("SELECT write_log(?)", ["x"]),
        ("EXECUTE p(?)", [1]),
        ("SET VARIABLE a = ?", [1]),
    ],
)
def test_parameters_open_no_door(ground: Ground, text: str, params: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(params, dict):
        params = {name: value.format(**ground.places) for name, value in params.items()}
    else:
        params = [p.format(**ground.places) if isinstance(p, str) else p for p in params]
    refused(ground, ground.attempt(text), params, monkeypatch)


ON_S3 = [a for a in ATTEMPTS if "{lake}" in a or "{old}" in a or "s3" in a]


def test_each_lock_alone_refuses_on_s3(
    s3_root: Root, other: Path, host: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(s3_root)
    storage = s3_root.storage

    def state() -> object:
        return sorted((o.key, o.etag, o.size) for o in storage.list())

    stored = DeltaTable(storage.delta_uri("detections"), storage_options=storage.delta_options())
    kept = {uri.rpartition("/")[2] for uri in stored.file_uris()}
    old = next(
        o.key for o in storage.list("detections/") if o.key.endswith("t") and o.key.rpartition("/")[2] not in kept
    )
    places = {"lake": s3_root.uri, "other": str(other), "host": host[0], "old": f"{s3_root.uri}/{old}"}
    with connect(s3_root.uri, s3_root.options) as db:
        ground = Ground(db, places, state, Opened(other), host[1])
        before = state()
        for text in ON_S3:
            for ask in LOCKS.values():
                with pytest.raises(ConfigError, match=r"^SQL: "):
                    ask(db, ground.attempt(text), None, monkeypatch)
        assert state() == before and not ground.called and not ground.opened.read()
        assert db.sql("SELECT count(*) AS n FROM detections").read_all().to_pylist() == [{"n": 21}]
    assert len(ON_S3) >= 90


# --- made by chance ------------------------------------------------------------------------------------

COMMENTS = st.recursive(
    st.sampled_from(["", " ", "EXPLAIN", "SELECT 1;", "'", '"', "--", "a", "\n", "*", "/ *", "FROM videos", "$$"]),
    lambda inner: st.builds(lambda a, b, c: f"{a}/*{b}*/{c}", inner, inner, inner),
    max_leaves=6,
).map(lambda text: f"/*{text}*/")
SPACE = st.lists(
    st.one_of(
        COMMENTS, st.sampled_from([" ", "\n", "\t", "\r\n", "\f", "-- x\n", "-- /*\n", "--\n", "-- ; SELECT 1\n", " "])
    ),
    min_size=1,
    max_size=4,
).map("".join)
FORMS = st.sampled_from(
    ["", "", "EXPLAIN", "EXPLAIN ANALYZE", "EXPLAIN (ANALYZE)", "EXPLAIN (FORMAT json)",
     "EXPLAIN (ANALYZE, FORMAT json)", "EXPLAIN ANALYZE (FORMAT json)", "DESCRIBE", "SUMMARIZE", "FROM (DESCRIBE",
     "PREPARE p AS", "EXPLAIN EXPLAIN",
     "CREATE MACRO f() AS TABLE", "CREATE TEMP TABLE t AS", "WITH a AS (SELECT 1)", "SELECT 1;"]
)  # fmt: skip
READS = st.builds(
    lambda name, args, way: way.replace("{}", f"{name}({args})"),
    st.sampled_from(
        ["read_text", '"read_text"', "READ_CSV", "read_blob", "parquet_scan", "glob", "system.main.read_text",
         "sniff_csv", "delta_scan", "delta_list_files", "read_json", "query", "query_table", "duckdb_settings",
         "duckdb_secrets", "pragma_version", "which_secret", "enable_logging", "checkpoint", "read_duckdb", "histogram"]
    ),
    st.sampled_from(["'{other}/data.csv'", "'{lake}/vidproc.json'", "'{old}'", "'http://{host}/x'", "?",
                     "$a$pg_class$a$",
                     "'{other}/' || 'data.csv'", "['{old}']", "E'{other}/\\x64ata.csv'", "", "'FROM pg_settings'"]),
    st.sampled_from(["SELECT * FROM {}", "FROM {}", "SELECT (SELECT count(*) FROM {})", "FROM videos, {}",
                     "SELECT EXISTS (FROM {})", "WITH a AS (FROM {}) FROM a", "FROM videos WHERE uri IN (FROM {})",
                     "FROM (SELECT * FROM {}) t", "(FROM {}) UNION (FROM {})", "VALUES ((SELECT 1 FROM {}))",
                     "FROM videos v, LATERAL (FROM {} WHERE v.uri = '')",
                     "FROM videos LIMIT (SELECT count(*) FROM {})"]),
)  # fmt: skip
ACTS = st.sampled_from(
    ["COPY (SELECT 1) TO '{lake}/vidproc.json'", "COPY videos TO '{other}/y.csv'",
     "COPY (SELECT 1) TO 'http://{host}/y'",
     "ATTACH '{other}/x.db'", "INSTALL spatial FROM 'http://{host}'", "SET lock_configuration = false", "LOAD httpfs",
     "PRAGMA enable_profiling", "CALL enable_logging()", "EXPORT DATABASE '{lake}/videos'", "DROP VIEW videos",
     "CREATE TABLE t AS FROM '{other}/data.csv'", "DELETE FROM lake_videos", "FROM pg_settings", "FROM '{old}'",
     "FROM (WITH pg_settings AS (SELECT 1) FROM pg_settings), pg_settings", "TABLE '{other}/data.csv'",
     "WITH \"{old}\" AS (FROM \"{old}\") FROM \"{old}\"", "SELECT current_setting('threads')", "SELECT write_log('x')"]
)  # fmt: skip


def cased(text: str, chance: Any) -> str:
    """The words in any case, but not what stands in quotes or braces."""
    parts = re.split(r"('[^']*'|\"[^\"]*\"|\$a\$.*?\$a\$|\{\w+\})", text)
    return "".join(
        part if i % 2 else "".join(c.upper() if chance.random() < 0.5 else c.lower() for c in part)
        for i, part in enumerate(parts)
    )


@st.composite
def statements(draw: Any) -> str:
    body = draw(st.one_of(READS, ACTS))
    chance = draw(st.randoms(use_true_random=False))
    words = [w for w in (draw(FORMS), body) if w]
    text = draw(SPACE) if draw(st.booleans()) else ""
    for word in words:
        pieces = re.split(r" (?=(?:[^'\"$]|'[^']*'|\"[^\"]*\"|\$a\$.*?\$a\$)*$)", word)
        text += "".join(cased(piece, chance) + draw(SPACE) for piece in pieces)
    return text + draw(st.sampled_from(["", ";", ")", "-- x", "/* */", "; --"]))


def fuzz(ground: Ground, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    text = ground.attempt(text)
    for params in (None, ["FROM pg_settings"]) if "?" in text else (None,):
        refused(ground, text, params, monkeypatch)


QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]


@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
@given(text=statements())
def test_statements_by_chance(ground: Ground, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    fuzz(ground, monkeypatch, text)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=5000, deadline=None, suppress_health_check=QUIET)
@given(text=statements())
def test_many_statements_by_chance(ground: Ground, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    fuzz(ground, monkeypatch, text)


NOTES = st.recursive(
    st.sampled_from([" ", " EXPLAIN ", " SELECT 1; ", " ' ", ' " ', " -- ", "\n", " $$ ", " FROM videos "]),
    lambda inner: st.builds(lambda a, b: f"{a}/*{b}*/ ", inner, inner),
    max_leaves=6,
).map(lambda text: f" /*{text}*/ ")
GAP = st.lists(
    st.one_of(NOTES, st.sampled_from([" ", "\n", "\t", "\r\n", "\f", "-- x\n", "--/*\n"])), min_size=1, max_size=3
).map("".join)


@settings(max_examples=30, deadline=None, suppress_health_check=QUIET)
@given(before=GAP, between=GAP, after=GAP, chance=st.randoms(use_true_random=False))
def test_comments_and_case_change_no_answer(ground: Ground, before: str, between: str, after: str, chance: Any) -> None:
    text = cased("SELECT label, count(*) AS n FROM detections GROUP BY label ORDER BY label", chance)
    text = before + text.replace(" ", between) + after
    found = ground.db.sql(text).read_all().to_pydict()
    assert {k.lower(): v for k, v in found.items()} == {"label": ["car", "person"], "n": [11, 10]}
    [*_, last] = ground.db.sql(before + "ExPlain" + between + text).read_all()["explain_value"].to_pylist()
    assert "detections" in last.lower() or "DELTA" in last


QUESTIONS = [q for q in (Path(__file__).parent / "questions.sql").read_text().splitlines() if not q.startswith("--")]
"""DuckDB's own answer over the same rows is the right one, in names, types and values."""

ANSWERED = [  # without a fixed answer, or with one of vidproc's own
    "SHOW TABLES",
    "FROM (SHOW TABLES) ORDER BY name",
    "EXPLAIN SELECT * FROM videos",
    "EXPLAIN ANALYZE SELECT count(*) FROM detections",
    "EXPLAIN (FORMAT json) FROM videos",
    "EXPLAIN (ANALYZE, FORMAT json) FROM videos",
    "explain /* why /* nested */ */ analyze -- now\n SELECT 1",
    "EXPLAIN (SELECT 1)",
    "EXPLAIN WITH a AS (FROM videos) FROM a",
    "EXPLAIN SUMMARIZE videos",
    "SELECT now() - recorded_at, current_date, current_timestamp, today() FROM videos",
    "SELECT uuid(), random() < 2, gen_random_uuid(), setseed(0.5)",
    "SELECT count(*) FROM detections USING SAMPLE 50% (bernoulli, 42)",
    "SELECT * FROM detections TABLESAMPLE reservoir(20 ROWS) REPEATABLE (3)",
    "SELECT version(), current_database(), current_schema()",
    "-- a; comment\nFROM videos",
    "/* one /* in another */ */ SELECT 1 /* ; */ ;",
    "SELECT 1 -- at the end",
]

# --- ordinary questions ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(ground: Ground) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB as it comes, with the rows of the lake's tables."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        for name in ground.db.tables:
            con.register("rows_of_the_lake", ground.db.sql(f"FROM {name}").read_all())
            con.execute(f"CREATE TABLE {name} AS FROM rows_of_the_lake")
        yield con


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_ordinary_question_is_answered_as_by_duckdb(
    ground: Ground, plain: duckdb.DuckDBPyConnection, question: str
) -> None:
    found, want = ground.db.sql(question).read_all(), plain.execute(question).to_arrow_table()
    assert len(set(found.schema.names)) == len(found.schema.names)
    if len(set(want.schema.names)) == len(want.schema.names):
        assert found.schema.names == want.schema.names
    assert found.schema.types == want.schema.types
    rows = [[str(v) for v in column.to_pylist()] for column in found.columns]
    assert rows == [[str(v) for v in column.to_pylist()] for column in want.columns]


@pytest.mark.parametrize("question", ANSWERED)
def test_an_ordinary_question_is_answered(ground: Ground, question: str) -> None:
    assert ground.db.sql(question).read_all().num_rows > 0


def test_show_tables_names_the_lakes_tables_alone(ground: Ground) -> None:
    names = ground.db.sql("SHOW TABLES").read_all()["name"].to_pylist()
    assert sorted(names) == sorted(ground.db.tables)
    assert ground.db.sql("FROM (SHOW TABLES) AS t SELECT count(t.name) AS n").read_all()["n"][0].as_py() == len(names)


def test_what_runs_is_written_from_the_tree(ground: Ground) -> None:
    read = guard.read(ground.db._engine.twin, "/* a */ SELECT\n'x' -- b\n, uri FROM videos ;", ground.db.tables)
    assert read.select == "SELECT 'x', uri FROM videos" and read.explain is None
    read = guard.read(ground.db._engine.twin, "EXPLAIN/**/(FORMAT json, ANALYZE) FROM videos", ground.db.tables)
    assert (read.select, read.explain) == ("SELECT * FROM videos", "EXPLAIN (FORMAT JSON, ANALYZE)")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT 1 + " * 3000 + "1", "nested too deeply|expression depth|syntax error"),
        ("SELECT " + "(" * 500 + "1" + ")" * 500, "nested too deeply|expression depth|syntax error|memory exhausted"),
        ("EXPLAIN (NONSENSE) SELECT 1", "nonsense"),
        ("EXPLAIN (FORMAT xml) SELECT 1", "xml"),
    ],
)
def test_a_statement_that_cannot_be_checked_is_refused(ground: Ground, text: str, said: str) -> None:
    try:
        ground.db.sql(text).read_all()
    except ConfigError as refusal:
        assert re.search(said, str(refusal))
    else:
        assert "(" * 500 in text, "a number in brackets is a number"


def test_every_function_that_acts_is_known(plain: duckdb.DuckDBPyConnection) -> None:
    """A new version of the engine that brings another one fails here."""
    acting = {
        row[0]
        for row in plain.execute(
            "SELECT function_name FROM duckdb_functions() WHERE has_side_effects OR stability = 'VOLATILE'"
        ).fetchall()
    }
    harmless = {"random", "uuid", "uuidv4", "uuidv7", "gen_random_uuid", "setseed", "error"}
    known = REFUSED_FUNCTIONS | harmless | HARMLESS
    assert {f for f in acting if f not in known and not f.startswith(REFUSED_PREFIXES)} == set()
