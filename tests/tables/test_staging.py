"""Staging: a task is finished or not there; a folder and S3 are the same tests."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pytest

from tests.conftest import Root
from vidproc.errors import NotFound
from vidproc.media import Clip, DecodeReport, Task, Video, VideoInfo
from vidproc.tables.outcome import Failure
from vidproc.tables.staging import Staging, TaskReport

VIDEO = Video("s3://b/ünï 'code'.mp4", 10, "etag:10")
INFO = VideoInfo(VIDEO, "mp4", "h264", None, 4, 4, 0, 25.0, Fraction(1, 90000), 0, 60.0, 1500, (0,), None)
REPORT = DecodeReport(25, 2, 0.0, 1.0, 1000, 0.1, True, None, ("odd",))


def task(index: int, pipeline_id: str = "p1") -> Task:
    return Task(INFO, (Clip(index * 100, (index + 1) * 100),), index, 3, pipeline_id, 1)


def rows(index: int, n: int = 2) -> pa.Table:
    return pa.table({"time_s": [index + i / 10 for i in range(n)], "label": ["x"] * n})


def put(staging: Staging, index: int, **tables: pa.Table) -> Task:
    t = task(index, staging.pipeline_id)
    staging.put(t, tables, TaskReport.of(t, tables, REPORT, attempts=2, seconds={"decode": 1.5}))
    return t


def test_parts_come_back_in_order_of_time(lake_root: Root) -> None:
    staging = Staging(lake_root.storage, "p1")
    tasks = [put(staging, i, detections=rows(i, i), actions=rows(i)) for i in (2, 0, 1)]
    assert sorted(staging.finished()) == sorted((VIDEO.video_id, t.task_id) for t in tasks)
    tables, reports = staging.load(VIDEO.video_id, [t.task_id for t in tasks])
    assert tables["detections"]["time_s"].to_pylist() == [1.0, 2.0, 2.1]
    assert tables["actions"]["time_s"].to_pylist() == [0.0, 0.1, 1.0, 1.1, 2.0, 2.1]
    assert [r.index for r in reports] == [0, 1, 2]
    assert reports[0] == TaskReport.of(tasks[1], {"actions": rows(0)}, REPORT, attempts=2, seconds={"decode": 1.5})
    assert [r.rows for r in reports] == [
        {"actions": 2},
        {"detections": 1, "actions": 2},
        {"detections": 2, "actions": 2},
    ]


def test_a_retry_overwrites(lake_root: Root) -> None:
    staging = Staging(lake_root.storage, "p1")
    put(staging, 0, detections=rows(0, 5), actions=rows(0))
    t = put(staging, 0, detections=rows(0, 3))
    tables, _ = staging.load(VIDEO.video_id, [t.task_id])
    assert {name: table.num_rows for name, table in tables.items()} == {"detections": 3}


def test_pipelines_do_not_see_each_other(lake_root: Root) -> None:
    put(Staging(lake_root.storage, "p1"), 0)
    assert list(Staging(lake_root.storage, "p").finished()) == []
    assert len(list(Staging(lake_root.storage, "p1").finished())) == 1


def test_failures_outlive_the_driver_and_count_once(lake_root: Root) -> None:
    staging = Staging(lake_root.storage, "p1")
    failure = Failure(
        uri=VIDEO.uri,
        video_id=VIDEO.video_id,
        task_id="t",
        stage="decode",
        error_class="decode",
        error="ünreadable",
        traceback=None,
        attempt=1,
        host="h",
        run_id="r",
        at=datetime(2026, 1, 1, 12, 0, 0, 123456, UTC),
    )
    staging.put_failure(failure)
    staging.put_failure(failure)
    assert list(staging.failed()) == [VIDEO.video_id]
    assert staging.failures(VIDEO.video_id) == [failure]
    assert list(staging.finished()) == []
    staging.discard_failures([VIDEO.video_id])
    assert staging.failures(VIDEO.video_id) == []


def test_discarding_leaves_nothing(lake_root: Root) -> None:
    staging = Staging(lake_root.storage, "p1")
    first, second = put(staging, 0, detections=rows(0)), put(staging, 1, actions=rows(1))
    staging.discard_tasks([(VIDEO.video_id, first.task_id)])
    assert [t for _, t in staging.finished()] == [second.task_id]
    with pytest.raises(NotFound, match="done again"):
        staging.load(VIDEO.video_id, [first.task_id])
    staging.discard([VIDEO.video_id])
    assert list(lake_root.storage.list()) == [] if lake_root.uri.startswith("s3") else not os.listdir(lake_root.uri)


def test_an_unknown_table_fails(local_root: Root) -> None:
    with pytest.raises(ValueError, match="no such tables"):
        put(Staging(local_root.storage, "p1"), 0, colours=rows(0))


CHILD = """
import os, sys
from vidproc.storage import LocalStorage
from vidproc.tables.staging import Staging
from tests.tables.test_staging import put, rows
whole, count = LocalStorage.put, 0
def counted(self, *a, **k):
    global count
    if count == int(sys.argv[2]): os._exit(9)
    count += 1
    return whole(self, *a, **k)
LocalStorage.put = counted
put(Staging(LocalStorage(sys.argv[1]), "p1"), 0, detections=rows(0), actions=rows(0))
"""


@pytest.mark.parametrize("puts", [0, 1, 2, 3])
def test_a_task_that_was_killed_is_not_finished(local_root: Root, puts: int) -> None:
    out = subprocess.run([sys.executable, "-c", CHILD, local_root.uri, str(puts)], cwd=Path(__file__).parents[2])
    assert out.returncode == (0 if puts == 3 else 9)
    staging = Staging(local_root.storage, "p1")
    os.makedirs(local_root.uri, exist_ok=True)
    assert len(list(staging.finished())) == (1 if puts == 3 else 0)
    put(staging, 0, detections=rows(0), actions=rows(0))
    assert staging.load(VIDEO.video_id, [task(0).task_id])[0]["detections"] == rows(0)
