"""The lake: made and refused, looked into, compacted, vacuumed, and told to forget."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Root
from tests.support.lakes import RUN, contents, failure, link, objects, outcome
from vidproc.errors import ConfigError
from vidproc.run.places import check_place
from vidproc.storage import LocalStorage, Storage, open_storage
from vidproc.tables import changes
from vidproc.tables.committed import Committed, CommittedVideo
from vidproc.tables.lake import FORMAT, Lake
from vidproc.tables.outcome import VideoOutcome
from vidproc.tables.publish import RunInfo, publish, recover
from vidproc.tables.schema import MODEL_TABLES, TABLES, load_schema
from vidproc.tables.staging import Staging

NOW = timedelta(0)


def make(root: Root) -> Lake:
    return Lake.create(root.uri, root.options)


def add(lake: Lake, *names: str, run: RunInfo = RUN, **more: Any) -> list[VideoOutcome]:
    """One batch, so one file a date and table."""
    batch = [outcome(name, storage=lake.storage, run=run, tasks=1, frames=3, **more) for name in names]
    publish(lake, batch, link, run)
    return batch


# --- made and refused --------------------------------------------------------------------------------


def test_made_once_and_opened(lake_root: Root) -> None:
    lake = make(lake_root)
    marker = json.loads(lake.storage.get("vidproc.json"))
    assert marker["format"] == FORMAT
    assert make(lake_root) == lake == Lake.open(lake_root.uri, lake_root.options)
    assert json.loads(lake.storage.get("vidproc.json")) == marker
    for name in TABLES:
        assert lake.tables.read(name).num_rows == 0
        assert lake.tables.open(name).version() == 0
    assert pickle.loads(pickle.dumps(lake)) == lake


def test_a_lake_that_another_job_makes_meanwhile_is_no_stranger(
    local_root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs begin at once on a new place: one looks for the marker just before the other puts it."""
    made = make(local_root)
    looks = iter([False])
    real = LocalStorage.exists
    monkeypatch.setattr(LocalStorage, "exists", lambda self, key: next(looks, None) is None and real(self, key))
    assert make(local_root) == made
    looks = iter([False])
    check_place(local_root.storage, local_root.uri)
    assert next(looks, None) is None


def test_many_make_it_at_once(lake_root: Root) -> None:
    with ThreadPoolExecutor(4) as pool:
        lakes = list(pool.map(lambda _: make(lake_root), range(4)))
    assert len({lake.storage.get("vidproc.json") for lake in lakes}) == 1
    assert len(add(lakes[0], "a")) == 1


def test_made_on_after_a_kill(lake_root: Root) -> None:
    """Only the marker and one table are there: whoever creates goes on."""
    lake = make(lake_root)
    lake.storage.delete([o.key for o in lake.storage.list() if o.key.partition("/")[0] not in ("vidproc.json", "runs")])
    add(make(lake_root), "a")
    assert lake.status().videos == 1


def test_a_lake_in_a_place_with_something_else_fails(lake_root: Root) -> None:
    lake_root.storage.put("holiday.mp4", b"x")
    with pytest.raises(ConfigError, match=r"neither empty nor a lake \(there is 'holiday.mp4'"):
        make(lake_root)
    assert [o.key for o in lake_root.storage.list()] == ["holiday.mp4"]


def test_what_is_not_a_lake_fails(lake_root: Root) -> None:
    with pytest.raises(ConfigError, match=r"is not a lake: it has no vidproc.json"):
        Lake.open(lake_root.uri, lake_root.options)
    lake_root.storage.put("vidproc.json", b"[not json")
    with pytest.raises(ConfigError, match="damaged"):
        Lake.open(lake_root.uri, lake_root.options)
    lake_root.storage.put("vidproc.json", json.dumps({"format": FORMAT + 1, "created_by": "vidproc 9.0"}).encode())
    with pytest.raises(ConfigError, match=r"made by vidproc 9\.0.*upgrade"):
        Lake.open(lake_root.uri, lake_root.options)


def test_a_file_is_not_a_lake(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for call in (Lake.open, Lake.create):
        with pytest.raises(ConfigError):
            call(str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["100% sure, with space", "a#b?c=d&e+f", "-ünïcödé 日本 'quoted'"])
def test_a_lake_at_an_odd_place(lake_root: Root, name: str) -> None:
    lake = make(lake_root.below(name))
    add(lake, "a", "b")
    add(lake, "a", content="2")
    before = contents(lake)
    lake.compact()
    lake.vacuum(NOW, exclusive=True)
    assert contents(lake) == before and lake.status().videos == 2


@pytest.mark.parametrize("name", ["50%20off", "new\nline"])
def test_a_lake_where_the_library_cannot_go_fails(lake_root: Root, name: str) -> None:
    with pytest.raises(ConfigError, match="choose another"):
        make(lake_root.below(name))
    assert not list(lake_root.storage.list()) if os.path.isdir(lake_root.uri) else True


# --- looked into ------------------------------------------------------------------------------------


def test_committed(lake_root: Root) -> None:
    lake = make(lake_root)
    assert len(lake.committed("night")) == 0 and "x" not in lake.committed("night")
    batch = add(lake, "a", "b")
    bad = add(lake, "bad", status="failed", error="broken")[0]
    other = RunInfo(run_id="r", pipeline="other", pipeline_id="pid-2")
    add(lake, "c", run=other)
    found = lake.committed("night")
    assert sorted(found) == sorted(o.video.video_id for o in [*batch, bad])
    for o in batch:
        assert o.video.video_id in found
        assert found.get(o.video.video_id) == CommittedVideo("1:1000", "pid-1", "indexed", None)
    assert found.get(bad.video.video_id) == CommittedVideo("1:1000", "pid-1", "failed", "decode")
    assert found.get("0" * 24) is None and "f" * 24 not in found and 7 not in found
    assert len(lake.committed("other")) == 1 and len(lake.committed("it's none")) == 0
    copy = pickle.loads(pickle.dumps(found))
    assert copy.get(bad.video.video_id) == found.get(bad.video.video_id)


def test_committed_is_right_over_many_batches_of_any_order() -> None:
    chance = random.Random(3)
    rows = [
        {
            # With zero bytes at their ends, which arrays of bytes do not keep.
            "video_id": f"{chance.getrandbits(96) >> (i % 20) * 4 << (i % 20) * 4:024x}",
            "content_id": f"{chance.getrandbits(128):032x}:{chance.getrandbits(30)}",
            "pipeline_id": f"p{chance.randrange(3)}",
            "status": chance.choice(["indexed", "failed"]),
            "error_class": chance.choice([None, "decode", "limit"]),
        }
        for i in range(5000)
    ]
    schema = pa.schema([f for f in load_schema("videos").stored if f.name in rows[0]])
    batches = pa.Table.from_pylist(rows, schema=schema).to_batches(max_chunksize=700)
    found = Committed.of(pa.RecordBatchReader.from_batches(schema, batches))
    assert len(found) == len(rows)
    for row in rows:
        expected = CommittedVideo(row["content_id"], row["pipeline_id"], row["status"], row["error_class"])
        assert found.get(row["video_id"]) == expected


COMMITTED_CHILD = """
import gc, random, resource, sys, time
import numpy as np, pyarrow as pa
from vidproc.tables.committed import Committed
n, step = int(sys.argv[1]), 50_000
chance = random.Random(0)
names = ["video_id", "content_id", "pipeline_id", "status", "error_class"]
schema = pa.schema([(name, pa.string()) for name in names])
def batches():
    for i in range(0, n, step):
        ids = [f"{chance.getrandbits(96):024x}" for _ in range(step)]
        columns = [ids, [f"{x}{x[:8]}:123456789" for x in ids], ["p" * 24] * step, ["indexed"] * step, [None] * step]
        yield pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in columns], schema=schema)
next(batches()); gc.collect()
Committed.of(pa.RecordBatchReader.from_batches(schema, iter([next(batches())])))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.monotonic()
found = Committed.of(pa.RecordBatchReader.from_batches(schema, batches()))
assert len(found) == n
began = time.monotonic()
assert sum(i in found for i in list(found)[:20000]) == 20000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, (time.monotonic() - began) / 20000 * 1e6)
"""


def test_committed_of_a_million_videos_fits() -> None:
    out = subprocess.run(
        [sys.executable, "-c", COMMITTED_CHILD, "1000000"], capture_output=True, text=True, check=True
    ).stdout
    peak_mb, microseconds = map(float, out.split())
    print(f"{peak_mb = :.0f}, {microseconds = :.1f} a lookup")
    assert peak_mb < 200


def test_status(lake_root: Root) -> None:
    lake = make(lake_root)
    empty = lake.status()
    assert (empty.videos, empty.video_hours, empty.last_run, empty.pending_change) == (0, 0.0, None, None)
    add(lake, "a", "b")
    add(lake, "c", status="partial", error="cut short")
    lake.record_run(_run("r1"))
    status = lake.status()
    assert status.videos == 3
    assert status.by_status == {"indexed": 2, "partial": 1}
    assert status.by_error_class == {"decode": 1}
    assert status.by_pipeline == {"night": 3}
    assert status.video_hours == pytest.approx(3 * 60 / 3600)
    assert status.archive_bytes == 3000
    assert status.last_run is not None and status.last_run["run_id"] == "r1"
    for name in MODEL_TABLES:
        assert status.tables[name].rows == lake.tables.read(name).num_rows
        assert (status.tables[name].bytes > 0) == (status.tables[name].rows > 0) == (status.tables[name].files > 0)


def _run(run_id: str, **more: Any) -> dict[str, Any]:
    started = datetime(2026, 3, 1, 22, int(run_id[1:]), tzinfo=UTC)
    keys = {
        "run_id": run_id,
        "pipeline": "night",
        "pipeline_id": "pid-1",
        "command": "vidproc index",
        "outcome": "running",
    }
    return keys | {"started_at": started} | more


def test_runs(lake_root: Root) -> None:
    lake = make(lake_root)
    lake.record_run(_run("r1"))
    lake.record_run(_run("r2"))
    assert lake.runs()["run_id"].to_pylist() == ["r2", "r1"]
    lake.record_run(_run("r1", outcome="ok", exit_code=0, videos_listed=7))
    assert lake.runs()["outcome"].to_pylist() == ["running", "ok"]
    assert lake.runs(limit=1)["run_id"].to_pylist() == ["r2"]
    with pytest.raises(ValueError, match=r"no columns \['colour'\]"):
        lake.record_run(_run("r3", colour="red"))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: lake.record_run(_run(f"r{i}")), range(10, 18)))
    assert lake.runs().num_rows == 10


def test_failures_by_what_they_are(local_root: Root) -> None:
    lake = make(local_root)
    bad = outcome("it's bad", tasks=0, status="failed", error="broken")
    worse = outcome("worse", tasks=0, status="failed", error="broken")
    limit = replace(failure(worse, 3), error_class="limit", stage="infer")
    batch = [replace(bad, failures=(failure(bad, 1), failure(bad, 2))), replace(worse, failures=(limit,))]
    publish(lake, batch, link, RUN)
    assert lake.failures()["attempt"].to_pylist() == [3, 2, 1]
    assert lake.failures(uri=bad.video.uri)["attempt"].to_pylist() == [2, 1]
    assert lake.failures(error_class="limit")["uri"].to_pylist() == [worse.video.uri]
    assert lake.failures(stage="decode", limit=1)["attempt"].to_pylist() == [2]
    for limit in (1, 2, 9):
        assert lake.failures(limit=limit).equals(lake.failures().slice(0, limit))
    assert lake.failures(run_id="none").num_rows == 0
    assert lake.videos(status="failed").num_rows == 2


# --- schemas that grew -------------------------------------------------------------------------------


def test_a_lake_that_is_older_or_newer_than_vidproc(local_root: Root) -> None:
    import deltalake

    lake = make(local_root)
    add(lake, "a")
    # Newer: somebody added a field that we do not know.
    field = deltalake.Field("mood", deltalake.schema.PrimitiveType("string"), nullable=True)
    lake.tables.open("tracks").alter.add_columns([field])
    add(lake, "b")
    add(lake, "a", content="2")
    assert set(lake.tables.read("tracks").column_names) == set(load_schema("tracks").names)
    newer = pa.RecordBatchReader.from_stream(lake.tables.open("tracks").scan(columns=["mood"])).read_all()
    assert newer["mood"].null_count == newer.num_rows > 2
    # Older: the table lacks a field that we have.
    with pytest.MonkeyPatch.context() as patch:
        shots = load_schema("shots")
        old = replace(shots, fields=tuple(f for f in shots.fields if f.name != "transition"))
        patch.setattr("vidproc.tables.delta.load_schema", lambda name: old if name == "shots" else load_schema(name))
        older = Lake.create(local_root.uri + "-older")
    assert "transition" not in {f.name for f in older.tables.open("shots").schema().fields}
    assert older.tables.read("shots").column_names == list(shots.names)

    def with_shots(o: VideoOutcome, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
        row = {"model": "m", "shot": 0, "start_s": 0.0, "end_s": 1.0, "transition": "cut"}
        keys = {"video_id": o.video.video_id, "pipeline": "night"}
        return link(o, tables) | {"shots": pa.Table.from_pylist([keys | row])}

    publish(older, [outcome("a", storage=older.storage)], with_shots, RUN)
    assert older.tables.read("shots")["transition"].to_pylist() == ["cut"]


# --- upkeep -----------------------------------------------------------------------------------------


def test_compaction_keeps_every_row_and_orders_by_video(lake_root: Root) -> None:
    lake = make(lake_root)
    for i in range(6):
        add(lake, *(f"{i}-{j}" for j in range(4)))
    before, files = contents(lake), lake.status().tables["detections"].files
    report = lake.compact()
    assert contents(lake) == before
    after = lake.status().tables["detections"]
    assert (report["detections"].files_before, report["detections"].files_after) == (files, after.files)
    dates = set(lake.videos()["recorded_date"].to_pylist())
    assert None in dates and after.files == len(dates) < files, "one file a date, and one without"
    assert lake.compact()["detections"].files_before == after.files, "nothing is left to do"
    for file in pa.table(lake.tables.open("detections").get_add_actions())["path"].to_pylist():
        data = lake.storage.get(f"detections/{file}")
        ids = pq.read_table(pa.BufferReader(data), columns=["video_id"])["video_id"].to_pylist()
        assert ids == sorted(ids)
    # Rows are still replaced and numbers still count.
    add(lake, "0-0", content="2")
    assert lake.videos(pipeline="night").num_rows == 24
    assert lake.tables.done("videos") == 7


def test_compaction_of_a_little_beside_much_leaves_the_much(local_root: Root) -> None:
    lake = make(local_root)
    add(lake, *(f"v{i}" for i in range(40)))
    lake.compact(file_bytes=8000)
    large = set(_paths(lake))
    assert len(large) >= 4
    add(lake, "n1")
    add(lake, "n2")
    add(lake, "n3")
    before = contents(lake)
    lake.compact(file_bytes=8000)
    assert contents(lake) == before
    assert len(large & set(_paths(lake))) >= len(large) - 2


def _paths(lake: Lake) -> list[str]:
    found: list[str] = pa.table(lake.tables.open("detections").get_add_actions())["path"].to_pylist()
    return found


def test_upkeep_beside_publishers(lake_root: Root) -> None:
    """Compaction and vacuum without waiting, while batches arrive and replace each other."""
    lake, calm = make(lake_root.below("busy")), make(lake_root.below("calm"))

    def nights(of: Lake) -> None:
        for i in range(6):
            run = replace(RUN, run_id=f"run-{i}")
            add(of, f"{i}", f"{i}-b", run=run)
            if i % 2:
                add(of, f"{i - 1}", run=run, content=str(i))

    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(nights, lake)
        while not publishing.done():
            lake.compact()
            lake.vacuum(NOW)
        publishing.result()
    nights(calm)
    assert contents(lake) == contents(calm)


def test_vacuum_removes_what_was_replaced_and_keeps_what_may_be_needed(lake_root: Root) -> None:
    lake = make(lake_root)
    add(lake, "a", "b")
    add(lake, "a", content="2")
    staged = outcome("staged", storage=lake.storage)
    lake.storage.put("_changes/deadbeef/detections.parquet", b"rows of a change that was never written down")
    orphan = "detections/part-orphan.parquet"
    lake.storage.put(orphan, b"left by a killed writer")
    before = contents(lake)
    assert sum(lake.vacuum().files.values()) == 0, "nothing is a day old"
    report = lake.vacuum(NOW)
    assert report.files["detections"] > 0 and report.leftovers == 0
    assert len(_data_files(lake, "detections")) == lake.status().tables["detections"].files + 1
    assert lake.storage.exists(orphan) and len(objects(lake.storage)) == 7
    assert publish(lake, [staged], link, RUN).missing == ()
    outcome("staged too", storage=lake.storage)
    report = lake.vacuum(NOW, exclusive=True)
    assert report.leftovers == 7 and not lake.storage.exists(orphan) and objects(lake.storage) == []
    after = contents(lake)
    assert {r for r in before["videos"]} < {r for r in after["videos"]}
    assert lake.status().videos == 3
    add(lake, "c")
    assert lake.status().videos == 4


def test_vacuum_finishes_the_change_in_progress(lake_root: Root) -> None:
    lake = make(lake_root)
    batch = [outcome("a", storage=lake.storage)]
    finish = changes.finish
    with pytest.MonkeyPatch.context() as patch, suppress(InterruptedError):
        patch.setattr(changes, "finish", _interrupt)
        publish(lake, batch, link, RUN)
    assert finish is changes.finish and lake.status().pending_change == 1
    lake.vacuum(NOW, exclusive=True)
    assert lake.status().pending_change is None and recover(lake) == []
    assert lake.status().videos == 1 and lake.tables.read("detections").num_rows > 0
    assert objects(lake.storage) == []


def _interrupt(*arguments: Any) -> None:
    raise InterruptedError


def _data_files(lake: Lake, name: str) -> list[str]:
    return [o.key for o in lake.storage.list(f"{name}/") if "_delta_log" not in o.key]


# --- forgotten --------------------------------------------------------------------------------------


def _traces(storage: Storage, *needles: str) -> list[str]:
    """Objects in which one of the texts is found, also inside of Parquet."""
    found = []
    for item in storage.list():
        data = storage.get(item.key)
        if item.key.endswith(".parquet"):
            data = data + repr(pq.read_table(pa.BufferReader(data)).to_pylist()).encode()
        if any(n.encode() in data + item.key.encode() for n in needles):
            found.append(item.key)
    return found


@pytest.mark.parametrize("compacted", [False, True], ids=["fresh", "compacted"])
def test_forgotten_to_the_last_byte(lake_root: Root, compacted: bool) -> None:
    lake = make(lake_root)
    other = RunInfo(run_id="r", pipeline="other", pipeline_id="pid-2")
    secret = outcome("secret", storage=lake.storage, attempts=2)
    secret = replace(secret, failures=(failure(secret),))
    publish(lake, [secret, *(outcome(n, storage=lake.storage) for n in "abc")], link, RUN)
    publish(lake, [outcome("secret", storage=lake.storage, run=other)], link, other)
    keep = {name: [r for r in rows if secret.video.video_id not in repr(r)] for name, rows in contents(lake).items()}
    staged = outcome("secret", content="3", storage=lake.storage)
    Staging(lake.storage, "pid-1").put_failure(failure(secret, 9))
    if compacted:
        lake.compact()
    needles = secret.video.uri, secret.video.video_id
    assert len(_traces(lake.storage, *needles)) > 10
    report = lake.forget([secret.video.uri, "s3://archive/never-seen.mp4"])
    assert report.forgotten == (secret.video.uri,) and report.unknown == ("s3://archive/never-seen.mp4",)
    assert report.rows["videos"] == 2 and report.rows["detections"] > 0
    assert contents(lake) == keep
    assert objects(lake.storage) == []
    assert publish(lake, [staged], link, RUN).missing == (secret.video.video_id,)
    lake.vacuum(NOW, exclusive=True)
    assert _traces(lake.storage, *needles) == []
    assert contents(lake) == keep
    add(lake, "d")
    assert lake.status().videos == 4


def test_vacuum_without_exclusive_leaves_at_most_hashes_of_what_was_forgotten(lake_root: Root) -> None:
    """Beside running jobs the table logs stay: they name files by the least and greatest video_id in them."""
    lake = make(lake_root)
    secret = add(lake, "secret")[0]
    add(lake, "a")
    lake.forget([secret.video.uri])
    lake.vacuum(NOW)
    assert _traces(lake.storage, secret.video.uri) == []
    assert all("/_delta_log/" in key for key in _traces(lake.storage, secret.video.video_id))


def test_a_killed_forget_is_finished_by_recover(lake_root: Root) -> None:
    lake = make(lake_root)
    batch = add(lake, "a", "b")
    replace_rows = type(lake.tables).replace
    for kill_at in ("failures", "detections", "segments", "videos"):

        def killed(self: Any, name: str, *arguments: Any, at: str = kill_at, **named: Any) -> bool:
            if name == at:
                raise InterruptedError
            return replace_rows(self, name, *arguments, **named)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
            patch.setattr(type(lake.tables), "replace", killed)
            lake.forget([batch[0].video.uri], patience_s=0)
        assert lake.status().pending_change is not None
    assert [c.kind for c in recover(lake)] == ["forget"]
    for name in (*MODEL_TABLES, "videos"):
        assert batch[0].video.video_id not in lake.tables.read(name)["video_id"].to_pylist()
    assert lake.status().videos == 1 and objects(lake.storage) == []


def test_what_is_not_there_is_forgotten_without_a_commit(lake_root: Root) -> None:
    lake = make(lake_root)
    add(lake, "a")
    before = {name: lake.tables.open(name).version() for name in TABLES}
    report = lake.forget(["s3://archive/never-seen.mp4"])
    assert (report.forgotten, report.unknown) == ((), ("s3://archive/never-seen.mp4",))
    assert not any(report.rows.values())
    assert {name: lake.tables.open(name).version() for name in TABLES} == before
    assert lake.status().videos == 1 and objects(lake.storage) == []


def test_what_only_failed_or_was_only_staged_is_forgotten_too(local_root: Root) -> None:
    lake = make(local_root)
    staged = outcome("staged", storage=lake.storage)
    failed = outcome("failed", tasks=0, status="failed", error="broken")
    publish(lake, [replace(failed, failures=(failure(failed),))], link, RUN)
    other = replace(RUN, pipeline="other")
    publish(lake, [outcome("failed", tasks=0, run=other)], link, other)
    for uri in (staged.video.uri, failed.video.uri):
        assert lake.forget([uri]).forgotten == (uri,)
    assert lake.failures().num_rows == lake.status().videos == 0 and objects(lake.storage) == []


def test_forgetting_many_at_once(local_root: Root) -> None:
    lake = make(local_root)
    batch = [outcome(f"v{i}", tasks=0, status="declined") for i in range(1100)]
    publish(lake, batch, link, RUN)
    report = lake.forget([o.video.uri for o in batch[:1050]])
    assert len(report.forgotten) == 1050 and lake.status().videos == 50


def test_other_readers_need_nothing_of_ours(lake_root: Root) -> None:
    """A Delta table is read by its address alone, here with DuckDB over the library's own scan."""
    import duckdb
    from deltalake import DeltaTable

    lake = make(lake_root)
    add(lake, "a", "b")
    table = DeltaTable(
        f"{lake_root.uri}/detections",
        storage_options=open_storage(lake_root.uri, options=lake_root.options).delta_options(),
    )
    with duckdb.connect() as connection:
        connection.register("d", pa.RecordBatchReader.from_stream(table.scan()))
        row = connection.sql("SELECT count(*), count(DISTINCT video_id) FROM d").fetchone()
    assert row == (lake.tables.read("detections").num_rows, 2)
    assert table.protocol().min_reader_version == 1 and table.protocol().min_writer_version == 2
