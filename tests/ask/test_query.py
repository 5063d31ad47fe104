"""SQL and search over a small lake of known rows, in a folder and on S3."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.benchmarks import query as benchmark
from tests.conftest import Root
from tests.support.s3 import BUCKET, READ_ONLY_ACCESS_KEY, READ_ONLY_SECRET_KEY, SeaweedFS
from vidproc.ask import Hit, LakeDatabase, SearchQuery, connect, faults, search, write_result
from vidproc.errors import ConfigError, TransientError, VidprocError
from vidproc.media import content_hash
from vidproc.storage import StorageOptions
from vidproc.tables.lake import MARKER, Lake
from vidproc.tables.schema import TABLES, load_schema

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Rows:
    """What the small lake holds, as Python sees it."""

    videos: list[dict[str, Any]]
    detections: list[dict[str, Any]]
    segments: list[dict[str, Any]]


def video(uri: str, recorded_at: datetime | None, pipeline: str = "default") -> dict[str, Any]:
    return {
        "video_id": content_hash(uri),
        "pipeline": pipeline,
        "uri": uri,
        "content_id": "e:1",
        "size_bytes": 1,
        "duration_s": 60.0,
        "recorded_at": recorded_at,
        "recorded_date": recorded_at.date() if recorded_at else None,
        "status": "indexed",
        "coverage": 1.0,
        "attempts": 1,
        "frames_decoded": 120,
        "frames_sampled": 120,
        **{f"n_{name}": 0 for name in ("detections", "tracks", "actions", "segments", "shots", "embeddings")},
        "pipeline_id": "p",
        "run_id": "r",
        "indexed_at": NOON,
        "vidproc_version": "0",
    }


def keys(v: dict[str, Any]) -> dict[str, Any]:
    return {name: v[name] for name in ("video_id", "pipeline", "recorded_date")}


def detection(v: dict[str, Any], k: int, label: str) -> dict[str, Any]:
    box = {"x_min": 1.0, "y_min": 2.0, "x_max": 3.0 + k, "y_max": 4.0}
    where = {"time_s": k / 2, "pts": k * 500, "label": label, "class_id": 0, "score": 0.25 + k / 100, "track_id": k % 3}
    return keys(v) | {"model": "m@1"} | where | box


def segment(
    v: dict[str, Any], kind: str, label: str, start_s: float, end_s: float, score: float = 0.5
) -> dict[str, Any]:
    tracks = [1, 2] if kind == "presence" else None
    what = {"model": "m@1", "kind": kind, "label": label, "start_s": start_s, "end_s": end_s, "score": score}
    return keys(v) | what | {"track_ids": tracks}


UNLISTED = video("s3://cams/north/unlisted.mp4", NOON)


def write(root: Root, name: str, rows: list[dict[str, Any]], change: int, instead_of: str | None = None) -> None:
    """One commit, as publishing makes it: part of a change with that number."""
    schema = load_schema(name)
    given = pa.schema([f for f in schema.stored if f.name in rows[0]])
    batches = schema.conform(pa.Table.from_pylist(rows, schema=given)).to_batches()
    assert Lake.open(root.uri, root.options).tables.replace(name, lambda: iter(batches), instead_of, change)


def build(root: Root) -> Rows:
    """Three videos: two days of one camera, and one without a wall clock, each a change of its own. A
    fourth change stands between two of its commits: it brings a new video and replaces the first."""
    Lake.create(root.uri, root.options)
    cam = [video(f"s3://cams/north/2026-03-0{d + 1}.mp4", NOON + timedelta(days=d)) for d in range(2)]
    videos = [*cam, video("/data/it's #1 %.mp4", None)]
    detections, segments = [], []
    for number, v in enumerate(videos, 1):
        new = [detection(v, k, "person" if k % 2 else "car") for k in range(100)]
        found = [
            segment(v, "presence", "person", 0.0, 10.0, 0.9),
            segment(v, "presence", "person", 20.0, 22.0, 0.6),
            segment(v, "presence", "car", 5.0, 50.0, 0.8),
            segment(v, "action", "running", 8.0, 21.0, 0.7),
            segment(v, "action", "waving", 30.0, 31.0, 0.4),
        ]
        write(root, "detections", new, number)
        write(root, "segments", found, number)
        write(root, "videos", [v], number)
        detections += new
        segments += found
    first = f"video_id = '{videos[0]['video_id']}'"
    write(root, "detections", [detection(videos[0], 0, "second generation")], 4, instead_of=first)
    Lake.open(root.uri, root.options).compact()
    write(root, "segments", [segment(UNLISTED, "presence", "person", 0.0, 9.0)], 4)
    return Rows(videos, detections, segments)


@dataclass(frozen=True)
class Small:
    root: Root
    rows: Rows
    db: LakeDatabase

    def all(self, query: str, params: Any = None, **paging: Any) -> list[dict[str, Any]]:
        return list(self.db.sql(query, params, **paging).read_all().to_pylist())


@pytest.fixture(scope="module", params=["local", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    """One lake a module: nothing in this file can change it, which is what it shows."""
    if request.param == "local":
        root = Root(str(tmp_path_factory.mktemp("lake") / "it's #1 ü"), StorageOptions(endpoint_url=None))
    else:
        server: SeaweedFS = request.getfixturevalue("s3_server")
        options = StorageOptions(endpoint_url=server.endpoint, region="us-east-1")
        root = Root(f"s3://{BUCKET}/query-{os.getpid()}/it's one ü", options)
    rows = build(root)
    with connect(root.uri, root.options) as db:
        yield Small(root, rows, db)


# --- SQL ---------------------------------------------------------------------------------------


def test_sql_sees_each_table_and_the_declared_columns(lake: Small) -> None:
    assert {r["name"] for r in lake.all("SHOW TABLES")} == set(TABLES) == set(lake.db.tables)
    for name in TABLES:
        reader = lake.db.sql(f"FROM {name} LIMIT 0")
        assert reader.schema.names == list(load_schema(name).names)


def test_rows_are_those_that_were_written(lake: Small) -> None:
    names = list(load_schema("detections").names)
    got = lake.all("FROM detections ORDER BY video_id, time_s")
    want = sorted(lake.rows.detections, key=lambda d: (d["video_id"], d["time_s"]))
    stored = load_schema("detections").stored
    assert got == pa.Table.from_pylist(want, schema=stored).select(names).to_pylist()


def test_a_change_in_progress_is_not_seen(lake: Small) -> None:
    """Neither its new videos nor its second generation of old ones, in whatever tables it has reached."""
    stored = Lake.open(lake.root.uri, lake.root.options).tables
    assert stored.done("detections") == stored.done("segments") == 4 and stored.done("videos") == 3
    assert stored.read("detections").num_rows == 201 and stored.read("segments").num_rows == 16
    assert lake.all("SELECT DISTINCT label FROM detections ORDER BY 1") == [{"label": "car"}, {"label": "person"}]
    assert lake.all("SELECT count(*) AS n FROM detections ANTI JOIN videos USING (video_id, pipeline)") == [{"n": 0}]
    assert lake.all("SELECT count(*) AS n FROM segments") == [{"n": 15}]


def test_parameters_are_values_and_never_sql(lake: Small) -> None:
    odd = "/data/it's #1 %.mp4"
    assert lake.all("SELECT uri FROM videos WHERE uri = ?", [odd]) == [{"uri": odd}]
    assert lake.all("SELECT count(*) AS n FROM videos WHERE uri = $u", {"u": "x' OR true --"}) == [{"n": 0}]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM videos",
        "WITH a AS (SELECT * FROM videos), b AS (FROM a) SELECT * FROM b",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 3) FROM t",
        "FROM videos",
        "from Videos select URI",
        "TABLE videos",
        "VALUES (1), (2)",
        "DESCRIBE detections",
        "SUMMARIZE videos",
        "SHOW TABLES",
        "EXPLAIN SELECT * FROM videos",
        "/* why */ EXPLAIN ANALYZE SELECT * FROM videos",
        "EXPLAIN (FORMAT json) SELECT * FROM videos",
        "SELECT * FROM memory.main.videos -- the full name",
        "SELECT * FROM videos SEMI JOIN detections USING (video_id) ;",
        "SELECT unnest([1, 2]), x FROM range(3) t(x)",
        "PIVOT detections ON label IN ('car', 'person') USING count(*) GROUP BY video_id",
        "SELECT label FROM detections GROUP BY label HAVING count(*) > 1 QUALIFY rank() OVER (ORDER BY label) = 1",
    ],
)
def test_what_reads_the_lake_is_answered(lake: Small, query: str) -> None:
    assert lake.db.sql(query).read_all().num_rows > 0


OUTSIDE = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM read_parquet('{other}/*/*.parquet')",
    "SELECT * FROM read_parquet('{lake}/detections/*/*.parquet')",
    "SELECT * FROM read_parquet('{lake}/../*.parquet')",
    "SELECT * FROM parquet_metadata('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM glob('{lake}/*')",
    "SELECT * FROM '/etc/hostname'",
    'SELECT * FROM "/etc/hostname"',
    "SELECT * FROM 'https://example.com/x.parquet'",
    "SELECT * FROM '{lake}/{marker}'",
    "DESCRIBE '/etc/passwd'",
    "SUMMARIZE '/etc/passwd'",
    "SELECT * FROM delta_scan('{other}')",
    "SELECT * FROM delta_scan('http://127.0.0.1:9/x')",
    "SELECT * FROM delta_list_files('{other}')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('videos')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM lake_detections",
    "SELECT * FROM lake_videos.main.lake_videos",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM sys",
    "SELECT (SELECT max(content) FROM read_text('/etc/hostname'))",
    "WITH a AS (FROM read_text('/etc/hostname')) FROM a",
    "SELECT 1 WHERE EXISTS (FROM glob('/etc/*'))",
    "FROM videos ORDER BY (SELECT max(content) FROM read_text('/etc/hostname'))",
    "FROM videos LIMIT (SELECT count(*) FROM glob('/etc/*'))",
    "FROM detections AT (VERSION => 0)",
    "EXPLAIN ANALYZE SELECT * FROM read_text('/etc/hostname')",
    "EXPLAIN COPY videos TO '/tmp/x.csv'",
    "SELECT getenv('HOME')",
    "SELECT current_setting('s3_secret_access_key')",
    "SELECT write_log('x')",
    "SELECT pg_sleep(60)",
    "SHOW DATABASES",
    "SHOW ALL TABLES",
    "ATTACH '{other}/x.db'",
    "ATTACH ':memory:' AS m",
    "ATTACH '{other}' AS m (TYPE delta)",
    "COPY videos TO '{other}/x.csv'",
    "COPY videos TO '{lake}/x.csv'",
    "COPY (SELECT 1) TO '{other}/x.parquet'",
    "EXPORT DATABASE '{other}'",
    "IMPORT DATABASE '{other}'",
    "INSTALL spatial",
    "LOAD spatial",
    "SET threads = 1",
    "SET enable_external_access = true",
    "RESET allowed_directories",
    "SET VARIABLE a = 1",
    "PRAGMA threads = 1",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TEMP VIEW t AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "CREATE SECRET (TYPE s3)",
    "INSERT INTO videos SELECT * FROM videos",
    "UPDATE videos SET uri = ''",
    "DELETE FROM videos",
    "DROP VIEW videos",
    "ALTER TABLE videos RENAME TO v",
    "TRUNCATE videos",
    "USE lake_videos",
    "DETACH lake_videos",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW videos",
    "",
    "-- nothing",
    ";",
]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Delta table which is not the lake's, where nothing may be read or appear."""
    folder = tmp_path_factory.mktemp("other")
    write_deltalake(str(folder), pa.table({"secret": ["of another"]}))
    return folder


@pytest.mark.parametrize("query", OUTSIDE)
def test_what_does_more_than_read_the_lake_is_refused(lake: Small, other: Path, query: str) -> None:
    before = sorted(other.rglob("*")), sorted(o.key for o in lake.root.storage.list())
    query = query.format(other=other, lake=lake.root.uri.replace("'", "''"), marker=MARKER)
    with pytest.raises(ConfigError, match=r"^SQL: ") as refused:
        lake.db.sql(query).read_all()
    assert "of another" not in str(refused.value)
    assert (sorted(other.rglob("*")), sorted(o.key for o in lake.root.storage.list())) == before
    assert lake.all("SELECT count(*) AS n FROM detections") == [{"n": 300}]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM '/etc/hostname'",
        "SELECT * FROM delta_scan('{other}')",
        "COPY (SELECT 1) TO '{other}/x.csv'",
        "ATTACH '{other}/x.db'",
        "LOAD spatial",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET allowed_directories = ['/']",
        "FROM sys",
    ],
)
def test_the_database_is_closed_even_to_sql_that_was_not_read_first(lake: Small, other: Path, query: str) -> None:
    before = sorted(other.rglob("*"))
    with pytest.raises((ConfigError, TransientError)):
        lake.db._stream(query.format(other=other), None).read_all()
    assert sorted(other.rglob("*")) == before


def test_credentials_are_nowhere_to_be_read(s3_root: Root) -> None:
    build(s3_root)
    access_key, secret_key = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    with connect(s3_root.uri, s3_root.options) as db:
        # Asked past both locks: even then no answer holds them.
        engine = vars(db._engine)["_Engine__con"]
        values = [r["value"] for r in engine.execute("FROM duckdb_settings()").to_arrow_table().to_pylist()]
        assert len(values) > 100 and not {access_key, secret_key} & set(values)
        secrets = engine.execute("FROM duckdb_secrets()").to_arrow_table().to_pylist()
        assert len(secrets) == 2 and secret_key not in str(secrets)
        with pytest.raises(ConfigError) as refused:
            db.sql("SELECT current_setting('s3_secret_access_key')")
        assert secret_key not in str(refused.value)


def test_who_may_only_read_may_ask(s3_root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    build(s3_root)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READ_ONLY_ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READ_ONLY_SECRET_KEY)
    # Other options: clients, and the credentials with them, are kept by options for the process.
    with connect(s3_root.uri, replace(s3_root.options, path_style=True)) as db:
        assert db.sql("SELECT count(*) AS n FROM detections").read_all().to_pylist() == [{"n": 300}]


@pytest.mark.parametrize("name", ["100% x", "a*", "b?c", 'say "x"', "new lake/deep er"])
def test_a_lake_may_have_an_odd_name(local_root: Root, name: str) -> None:
    root = local_root.below(name)
    build(root)
    with connect(root.uri, root.options) as db:
        assert db.sql("SELECT count(*) AS n FROM detections WHERE label = 'car'").read_all().to_pylist() == [{"n": 150}]


def test_a_mistake_is_shown_where_it_is(lake: Small) -> None:
    with pytest.raises(ConfigError) as wrong:
        lake.db.sql("SELECT lable\nFROM detections")
    text = str(wrong.value)
    assert text.startswith("SQL: Binder Error") and "LINE 1: SELECT lable\n" in text and "Candidate" in text
    with pytest.raises(ConfigError) as paged:
        lake.db.sql("SELECT lable\nFROM detections", limit=3)
    assert str(paged.value) == text
    caret = text.splitlines()[-1]
    assert caret.index("^") == len("LINE 1: SELECT ")
    with pytest.raises(ConfigError, match="syntax error at or near"):
        lake.db.sql("SELEC 1")
    with pytest.raises(ConfigError, match="there is no table 'detection' in this lake; it has actions, detections"):
        lake.db.sql("FROM detection")
    with pytest.raises(ConfigError, match="PIVOT … ON column IN"):
        lake.db.sql("PIVOT detections ON label")


def test_an_error_in_the_middle_of_an_answer_is_ours_too(lake: Small) -> None:
    with pytest.raises(ConfigError, match="SQL: Conversion Error"):
        lake.db.sql("SELECT label::INTEGER FROM detections").read_all()
    late = "SELECT CASE WHEN range < 2_900_000 THEN range ELSE {} END FROM range(3_000_000)"
    batches = lake.db.sql(late.format("error('too far')"))
    next(batches)
    with pytest.raises(ConfigError, match="SQL: Invalid Input Error: too far"):
        batches.read_all()


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["INTERRUPT Error: Interrupted!", "Invalid Input Error: too far"], "SQL: Invalid Input Error: too far"),
        (["INTERRUPT Error: Interrupted!", "IO Error: gone"], "could not be read, try again"),
        (["INTERRUPT Error: Interrupted!"] * 9, "could not be read, try again"),
    ],
)
def test_an_interruption_by_another_thread_is_asked_for_its_reason(answers: list[str], said: str) -> None:
    """Some 3 in 100 errors of a busy machine come as an interruption (DuckDB 1.5.5)."""
    left = list(answers)

    def ask() -> Iterator[object]:
        yield "a batch"
        raise OSError(left.pop(0))

    with pytest.raises(VidprocError, match=said), faults.translated(), faults.streamed(ask):
        deque(ask(), maxlen=0)


def test_files_that_go_in_the_middle_of_an_answer_are_worth_another_try(local_root: Root) -> None:
    """As a vacuum takes them from under a slow reader."""
    Lake.create(local_root.uri, local_root.options)
    v = video("/data/long.mp4", NOON)
    for number in range(1, 9):
        write(local_root, "detections", [detection(v, k, "car") for k in range(20_000)], number)
    write(local_root, "videos", [v], 9)
    with connect(local_root.uri, local_root.options, threads=1) as db:
        batches = db.sql("FROM detections")
        next(batches)
        for path in Path(local_root.uri).glob("detections/**/*.parquet"):
            path.unlink()
        with pytest.raises(TransientError, match="could not be read, try again"):
            batches.read_all()


def test_columns_of_one_name_are_told_apart(lake: Small) -> None:
    [row] = lake.all("SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a")
    assert row == {"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}
    joined = lake.db.sql("FROM segments s JOIN videos v USING (video_id)").schema.names
    assert {"pipeline", "pipeline_1"} <= set(joined) and len(set(joined)) == len(joined)


@pytest.mark.parametrize("place", ["nothing there", "a folder of other things"])
def test_what_is_no_lake_is_refused(lake_root: Root, place: str) -> None:
    if place != "nothing there":
        lake_root.storage.put("holiday.mp4", b"x")
    with pytest.raises(ConfigError, match=r"is not a lake: it has no vidproc\.json"):
        connect(lake_root.uri, lake_root.options)


def test_a_lake_in_which_nothing_was_indexed_yet_answers(lake_root: Root) -> None:
    Lake.create(lake_root.uri, lake_root.options)
    write(lake_root, "detections", [detection(UNLISTED, 0, "person")], 1)  # the very first change, in progress
    with connect(lake_root.uri, lake_root.options) as db:
        for name in TABLES:
            assert db.sql(f"FROM {name}").read_all().num_rows == 0
        assert search(db, SearchQuery(label="person")) == []


def test_a_table_that_is_not_there_is_empty_and_typed(lake_root: Root) -> None:
    """A lake made before the table was thought of."""
    Lake.create(lake_root.uri, lake_root.options)
    lake_root.storage.delete([o.key for o in lake_root.storage.list("tracks/")])
    with connect(lake_root.uri, lake_root.options) as db:
        assert db.sql("SELECT count(*) AS n, max(score_max) AS s FROM tracks").read_all().to_pylist() == [
            {"n": 0, "s": None}
        ]
        assert pa.types.is_list(db.sql("SELECT path FROM tracks").schema.field("path").type)


def test_a_connection_sees_the_lake_as_it_was_when_it_was_made(lake_root: Root) -> None:
    build(lake_root)
    with connect(lake_root.uri, lake_root.options) as before:
        late = video("s3://cams/late.mp4", NOON)
        write(lake_root, "segments", [segment(late, "presence", "person", 0.0, 9.0)], 5)
        write(lake_root, "detections", [detection(late, k, "person") for k in range(7)], 5)
        write(lake_root, "videos", [late], 5)
        count = "SELECT count(*) AS n FROM detections"
        assert before.sql(count).read_all().to_pylist() == [{"n": 300}]
        assert before.sql("SELECT count(*) AS n FROM videos").read_all().to_pylist() == [{"n": 3}]
        with connect(lake_root.uri, lake_root.options) as after:
            # The fourth change is finished too: changes are in one order.
            assert after.sql(count).read_all().to_pylist() == [{"n": 208}]
            assert after.sql("SELECT count(*) AS n FROM segments").read_all().to_pylist() == [{"n": 17}]


def test_columns_of_older_and_newer_writers(local_root: Root) -> None:
    """A table made before a column was declared, with one that this version does not know."""
    build(local_root)
    shutil.rmtree(Path(local_root.uri) / "tracks")
    schema = load_schema("tracks").stored
    old = pa.schema([f for f in schema if f.name != "score_max"]).append(pa.field("colour", pa.string()))
    row = keys(video("s3://cams/north/2026-03-01.mp4", NOON)) | {
        "model": "m@1", "track_id": 1, "label": "car", "class_id": 2, "start_s": 0.0, "end_s": 1.0, "detections": 3,
        "score_mean": 0.5, "path": [], "colour": "red",
    }  # fmt: skip
    write_deltalake(local_root.storage.delta_uri("tracks"), pa.Table.from_pylist([row], schema=old))
    with connect(local_root.uri, local_root.options) as db:
        reader = db.sql("FROM tracks")
        assert reader.schema.names == [*load_schema("tracks").names, "colour"]
        assert reader.schema.field("score_max").type == schema.field("score_max").type
        [got] = reader.read_all().to_pylist()
        assert got["score_max"] is None and got["colour"] == "red" and got["track_id"] == 1


def test_a_lake_behind_a_symbolic_link(local_root: Root, tmp_path: Path) -> None:
    build(local_root)
    (tmp_path / "link").symlink_to(local_root.uri)
    with connect(str(tmp_path / "link"), local_root.options) as db:
        assert db.sql("SELECT count(*) AS n FROM detections").read_all().to_pylist() == [{"n": 300}]


def test_files_outside_what_a_query_asks_for_are_skipped(lake: Small) -> None:
    """By partition, and by the statistics in the table's log: an unread file cannot be missing."""
    stored = DeltaTable(lake.root.storage.delta_uri("detections"), storage_options=lake.root.storage.delta_options())
    [plan] = lake.all("EXPLAIN ANALYZE SELECT * FROM detections WHERE recorded_date = '2026-03-02'")
    files = [
        line.split("Scanning Files: ")[1] for line in plan["explain_value"].splitlines() if "Scanning Files" in line
    ]
    actions = pa.table(stored.get_add_actions(flatten=True)).to_pylist()
    of_that_day = [a for a in actions if str(a["partition.recorded_date"]) == "2026-03-02"]
    assert 0 < len(of_that_day) < len(actions)
    assert any(f"{len(of_that_day)}/{len(actions)}" in f for f in files), plan["explain_value"]


@pytest.mark.parametrize(
    "query", ["FROM detections ORDER BY video_id, time_s", "FROM detections ORDER BY score, video_id"]
)
def test_pages_are_the_whole_without_loss_or_repetition(lake: Small, query: str) -> None:
    whole = lake.all(query)
    pages = [lake.all(f"{query} -- page", limit=70, offset=at) for at in range(0, 300, 70)]
    assert [len(p) for p in pages] == [70, 70, 70, 70, 20]
    assert [row for page in pages for row in page] == whole
    assert lake.all(query, limit=10, offset=300) == []
    assert lake.all(query, offset=299) == whole[-1:]
    assert lake.all(query, limit=0) == []
    with pytest.raises(ConfigError, match="cannot be negative"):
        lake.db.sql(query, limit=-1)


def test_answers_are_streamed(lake: Small) -> None:
    """Ten million rows are begun, and two answers of one connection do not disturb each other."""
    endless = lake.db.sql("SELECT a.range + b.range AS n FROM range(10000) a, range(10000) b")
    first = next(endless)
    assert 0 < first.num_rows <= 100_000
    assert lake.all("SELECT count(*) AS n FROM videos") == [{"n": 3}]
    assert next(endless).num_rows > 0


def test_what_does_not_fit_into_memory_is_spilled(local_root: Root) -> None:
    build(local_root)
    with connect(local_root.uri, local_root.options, threads=1, memory_limit="100MB") as db:
        query = "SELECT hash(range) AS h, range AS n FROM range(10_000_000) ORDER BY h LIMIT 1 OFFSET 9_000_000"
        assert db.sql(query).read_all().num_rows == 1
        with pytest.raises(ConfigError, match="memory_limit"):
            db.sql("SELECT list(range) FROM range(50_000_000)").read_all()


# --- search ------------------------------------------------------------------------------------


def naive(rows: Rows, query: SearchQuery) -> list[tuple[str, float, float, str | None, str | None]]:
    """The same question to plain rows: (uri, start_s, end_s, label, action), without order."""
    uris = {v["video_id"]: v for v in rows.videos}
    presences = [s for s in rows.segments if s["kind"] == "presence" and query.label in (None, s["label"])]
    actions = [s for s in rows.segments if s["kind"] == "action" and query.action in (None, s["label"])]
    found: list[tuple[dict[str, Any], float, float, float, str | None, str | None]] = []
    if query.label and query.action:
        for p in presences:
            for a in actions:
                start, end = max(p["start_s"], a["start_s"]), min(p["end_s"], a["end_s"])
                if p["video_id"] == a["video_id"] and start < end:
                    found.append((uris[p["video_id"]], start, end, min(p["score"], a["score"]), p["label"], a["label"]))
    else:
        if query.action is None:
            found += [(uris[s["video_id"]], s["start_s"], s["end_s"], s["score"], s["label"], None) for s in presences]
        if query.label is None:
            found += [(uris[s["video_id"]], s["start_s"], s["end_s"], s["score"], None, s["label"]) for s in actions]
    hits = []
    for v, start, end, score, label, action in found:
        at = v["recorded_at"] and v["recorded_at"] + timedelta(seconds=start)
        until = v["recorded_at"] and v["recorded_at"] + timedelta(seconds=end)
        wanted = (
            end - start >= query.min_seconds
            and score >= query.min_score
            and (query.since is None or (until is not None and until > query.since))
            and (query.until is None or (at is not None and at < query.until))
            and (query.date is None or (at is not None and at.date() == query.date))
            and (
                query.time_of_day is None
                or (at is not None and query.time_of_day[0] <= at.time() < query.time_of_day[1])
            )
        )
        if wanted:
            hits.append((v["uri"], start, end, label, action))
    return hits


def seen(hits: list[Hit]) -> list[tuple[str, float, float, str | None, str | None]]:
    return [(h.uri, h.start_s, h.end_s, h.label, h.action) for h in hits]


def test_a_hit_names_video_time_and_score(lake: Small) -> None:
    [hit] = search(lake.db, SearchQuery(label="person", min_seconds=5, date=date(2026, 3, 2)))
    assert hit.uri == "s3://cams/north/2026-03-02.mp4" and hit.video_id == content_hash(hit.uri)
    assert (hit.start_s, hit.end_s, hit.label, hit.action) == (0.0, 10.0, "person", None)
    assert hit.score == pytest.approx(0.9) and hit.track_ids == (1, 2) and hit.pipeline == "default"
    assert hit.recorded_at == NOON + timedelta(days=1)


def test_label_and_action_together_are_their_overlap(lake: Small) -> None:
    hits = search(lake.db, SearchQuery(label="person", action="running", video="2026-03-01.mp4"))
    assert [(h.start_s, h.end_s) for h in hits] == [(8.0, 10.0), (20.0, 21.0)]
    assert [h.score for h in hits] == pytest.approx([0.7, 0.6])
    assert hits[1].recorded_at == NOON + timedelta(seconds=20)


SEARCHES = st.builds(
    SearchQuery,
    label=st.sampled_from([None, "person", "car", "nobody"]),
    action=st.sampled_from([None, "running", "waving"]),
    min_seconds=st.sampled_from([0.0, 1.0, 2.0, 10.0]),
    min_score=st.sampled_from([0.0, 0.55, 0.85]),
    since=st.sampled_from([None, NOON, NOON + timedelta(seconds=10), NOON + timedelta(days=1, seconds=21)]),
    until=st.sampled_from([None, NOON, NOON + timedelta(seconds=20), NOON + timedelta(days=2)]),
    date=st.sampled_from([None, date(2026, 3, 1), date(2026, 3, 2)]),
    time_of_day=st.sampled_from([None, (time(12), time(12, 0, 5)), (time(12, 0, 5), time(13))]),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=SEARCHES)
def test_search_finds_what_plain_loops_find(lake: Small, query: SearchQuery) -> None:
    hits = search(lake.db, query)
    assert sorted(map(str, seen(hits))) == sorted(map(str, naive(lake.rows, query)))
    clocks = [h.recorded_at for h in hits if h.recorded_at is not None]
    assert clocks == sorted(clocks) and all(h.recorded_at is None for h in hits[len(clocks) :])


@pytest.mark.parametrize(
    "query", [SearchQuery(), SearchQuery(label="person"), SearchQuery(label="car", action="waving")]
)
@pytest.mark.parametrize("size", [1, 4])
def test_pages_of_hits_follow_each_other(lake: Small, query: SearchQuery, size: int) -> None:
    whole = search(lake.db, query)
    assert len(whole) == len({h.token for h in whole}) >= 3
    by_token: list[Hit] = []
    while page := search(lake.db, replace(query, limit=size, after=by_token[-1].token if by_token else None)):
        by_token += page
    by_offset = [h for at in range(0, len(whole), size) for h in search(lake.db, replace(query, limit=size, offset=at))]
    assert by_token == by_offset == whole


def test_a_page_token_holds_while_the_lake_grows(local_root: Root) -> None:
    build(local_root)
    with connect(local_root.uri, local_root.options) as db:
        whole = search(db, SearchQuery(label="person"))
        first = search(db, SearchQuery(label="person", limit=2))
    earlier = video("s3://cams/earlier.mp4", NOON - timedelta(days=9))
    write(local_root, "segments", [segment(earlier, "presence", "person", 0, 9)], 5)
    write(local_root, "videos", [earlier], 5)
    with connect(local_root.uri, local_root.options) as db:
        assert len(search(db, SearchQuery(label="person"))) == len(whole) + 1
        assert seen(first + search(db, SearchQuery(label="person", after=first[-1].token))) == seen(whole)


def test_time_of_day_over_midnight_and_in_another_zone(lake: Small) -> None:
    # Noon UTC is 21:00 in Tokyo.
    tokyo = SearchQuery(label="car", time_of_day=(time(20), time(6)), timezone="Asia/Tokyo")
    assert len(search(lake.db, tokyo)) == 2
    assert search(lake.db, SearchQuery(label="car", time_of_day=(time(20), time(6)))) == []
    assert len(search(lake.db, SearchQuery(label="car", since=datetime(2026, 3, 2, 21), timezone="Asia/Tokyo"))) == 1


@pytest.mark.parametrize(
    ("glob", "found"),
    [("*", 3), ("*.mp4", 3), ("2026-03-0?.mp4", 2), ("north/*", 2), ("s3://cams/north/2026-03-01.mp4", 1),
     ("orth/*", 0), ("it's #1 %.mp4", 1), ("*' OR true", 0)],
)  # fmt: skip
def test_videos_by_glob(lake: Small, glob: str, found: int) -> None:
    assert len(search(lake.db, SearchQuery(label="car", video=glob))) == found


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"timezone": "Mars/Olympus"}, "there is no time zone 'Mars/Olympus'"),
        ({"timezone": "../../etc/passwd"}, "there is no time zone"),
        ({"limit": 0}, "limit must be positive"),
        ({"after": "nonsense"}, "'nonsense' is no page token"),
        ({"after": "WzFd"}, "is no page token"),
    ],
)
def test_a_search_that_makes_no_sense_fails(lake: Small, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(lake.db, SearchQuery(**wrong))


# --- writing answers ---------------------------------------------------------------------------

MIXED = """SELECT * FROM (VALUES
    (1, 0.1::FLOAT, 'a "quoted", one', [1, 2], TIMESTAMPTZ '2026-03-01 12:00:00.5+00', DATE '2026-03-01', 12::HUGEINT),
    (2, 'nan'::FLOAT, E'two\\nlines \\x1b[31m', NULL, NULL, NULL, NULL)
    ) t(n, x, text, items, "at", day, big) ORDER BY n"""


def written(lake: Small, query: str, format: Any, **options: Any) -> tuple[bytes, int]:
    out = io.BytesIO()
    rows = write_result(lake.db.sql(query), format, out, **options)
    return out.getvalue(), rows


def test_json_is_one_array_with_an_object_a_line(lake: Small) -> None:
    data, rows = written(lake, MIXED, "json")
    assert rows == 2 and json.loads(data)[0] == {
        "n": 1, "x": 0.1, "text": 'a "quoted", one', "items": [1, 2],
        "at": "2026-03-01T12:00:00.500000Z", "day": "2026-03-01", "big": 12,
    }  # fmt: skip
    assert json.loads(data)[1]["x"] is None
    assert len(data.splitlines()) == 4
    assert json.loads(written(lake, "FROM videos WHERE false", "json")[0]) == []


def test_a_table_keeps_a_row_on_a_line_whatever_is_in_it(lake: Small) -> None:
    text = written(lake, MIXED, "table")[0].decode()
    assert "two\\nlines \\x1b[31m" in text and "\x1b" not in text
    assert len(text.strip().splitlines()) == 5, "names, a rule, two rows, and how many"


def test_csv_is_read_back_as_it_was(lake: Small) -> None:
    data, rows = written(lake, MIXED, "csv")
    got = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    assert rows == len(got) == 2
    assert got[0]["text"] == 'a "quoted", one' and got[0]["items"] == "[1, 2]" and got[0]["x"] == "0.1"
    assert got[0]["at"] == "2026-03-01T12:00:00.500000Z" and got[0]["big"] == "12"
    assert got[1]["text"] == "two\nlines \x1b[31m" and got[1]["at"] == ""


def test_parquet_is_read_back_as_it_was(lake: Small) -> None:
    data, rows = written(lake, "FROM detections ORDER BY video_id, time_s", "parquet")
    table = pq.read_table(io.BytesIO(data))
    assert rows == 300 and table.to_pylist() == lake.all("FROM detections ORDER BY video_id, time_s")


@pytest.mark.parametrize("format", ["table", "csv", "json", "parquet"])
def test_intervals_are_durations_in_every_format(lake: Small, format: Any) -> None:
    query = "SELECT INTERVAL '2 months 3 days -1.5 seconds' AS i, NULL::INTERVAL AS n"
    data, rows = written(lake, query, format)
    text = str(pq.read_table(io.BytesIO(data)).to_pylist()) if format == "parquet" else data.decode()
    assert rows == 1 and "P2M3DT-1.5S" in text


@pytest.mark.parametrize(
    ("query", "format", "text"),
    [
        ("SELECT DATE 'infinity' AS v", "csv", "infinity"),
        ("SELECT TIMESTAMP '290000-01-01' AS v", "json", "290000-01-01T00:00:00"),
        ("SELECT [INTERVAL 1 DAY] AS v", "parquet", "P0M1DT0S"),
    ],
)
def test_a_value_that_python_cannot_hold_is_written(lake: Small, query: str, format: Any, text: str) -> None:
    data, _ = written(lake, query, format)
    assert text in (str(pq.read_table(io.BytesIO(data)).to_pylist()) if format == "parquet" else data.decode())


def test_a_table_counts_its_rows_and_says_where_it_ends(lake: Small) -> None:
    data, rows = written(lake, "SELECT uri, duration_s FROM videos ORDER BY uri", "table")
    lines = data.decode().splitlines()
    assert rows == 3 and lines[-1] == "3 rows" and "it's #1 %.mp4" in lines[2] and lines[2].endswith("60")
    data, rows = written(lake, "FROM detections", "table", rows_shown=10)
    assert rows == 10 and data.decode().splitlines()[-1] == "first 10 rows; there are more"
    assert written(lake, "FROM detections LIMIT 10", "table", rows_shown=10)[0].decode().splitlines()[-1] == "10 rows"
    assert written(lake, "FROM actions", "table")[0].decode().splitlines()[-1] == "0 rows"


def test_names_from_the_archive_do_not_reach_the_terminal_as_commands(lake: Small) -> None:
    data, _ = written(lake, "SELECT E'\\x1b]0;owned\\x07[bold]x[/bold].mp4' AS uri", "table")
    assert b"\x1b" not in data and b"\x07" not in data
    assert r"\x1b]0;owned\x07[bold]x[/bold].mp4" in data.decode()


def test_an_unknown_format_fails(lake: Small) -> None:
    with pytest.raises(ConfigError, match="no output format 'xml'; choose one of table, csv, json, parquet"):
        written(lake, "FROM videos", "xml")


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_a_large_answer_is_written_as_it_comes(local_root: Root, format: Any) -> None:
    Lake.create(local_root.uri, local_root.options)
    out = io.BytesIO()
    written_before_batch = []

    def watched(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in reader:
            written_before_batch.append(out.tell())
            yield batch

    with connect(local_root.uri, local_root.options) as db:
        reader = db.sql("SELECT range AS n, hash(range) AS h FROM range(300_000)")
        rows = write_result(pa.RecordBatchReader.from_batches(reader.schema, watched(reader)), format, out)
    batches = len(written_before_batch)
    assert rows == 300_000 and batches >= 5
    # No batch is asked for before the one before it is out.
    assert written_before_batch[-1] > 0.7 * (batches - 1) / batches * len(out.getvalue())


def test_times_are_utc_whatever_the_zone_of_the_machine(local_root: Root) -> None:
    build(local_root)
    code = (
        "import sys; from vidproc.ask import connect; db = connect(sys.argv[1]);"
        "print(db.sql('SELECT min(recorded_at)::VARCHAR AS t FROM videos').read_all()['t'][0])"
    )
    command = [sys.executable, "-c", code, local_root.uri]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"TZ": "Asia/Tokyo"})
    assert done.stdout.strip() == "2026-03-01 12:00:00+00"


def test_importing_stays_light() -> None:
    code = (
        "import sys, vidproc.ask; print([m for m in ('torch', 'ray', 'av', 'rich', 'deltalake') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_benchmark_checks_its_answers(tmp_path: Path) -> None:
    made = benchmark.make_lake(tmp_path / "lake", rows=40_000, videos=40, days=4)
    with connect(made.uri, StorageOptions(endpoint_url=None)) as db:
        videos = db.sql("SELECT video_id, uri, recorded_at, recorded_date FROM videos").read_all().to_pylist()
        assert len(videos) == 40 and benchmark.check(db, tmp_path / "lake", videos, 2) > 8000
        by_day = "one video by URI, joined by day too"
        latency = benchmark.measure(db, by_day, benchmark.QUESTIONS[by_day], videos, 2, files=4)
        # What `videos` says of the one video reaches the log of `detections`: one file of four is read.
        assert latency.files == "1 of 4" and latency.rows == 1000
