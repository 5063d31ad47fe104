"""A lake that version 0.1.0 wrote: read, added to and tidied by today's code.

`old_lake/` was made by the released command of commit 961c257 (`vidproc index --job nightly.yaml`, the embedded models,
no GPU) from two drawn scenes of ten seconds and an empty file, in `/archive`, which nobody needs any more.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support.media import make_video
from vidproc.ask import SearchQuery, connect, search
from vidproc.run.driver import index
from vidproc.settings import load_job
from vidproc.tables.lake import Lake

ROWS = {"videos": 3, "detections": 247, "tracks": 8, "actions": 114, "segments": 9, "failures": 1, "embeddings": 0}
PIPELINE_ID = "97bffa946e586c6ea4e94ab7"
FIRST = "/archive/gate-north/2025-03-03_06-00-40.mp4"


@pytest.fixture
def lake(tmp_path: Path) -> str:
    shutil.copytree(Path(__file__).parent / "old_lake", tmp_path / "lake")
    return str(tmp_path / "lake")


def rows(lake: str, table: str) -> pa.Table:
    with connect(lake, pipeline="all") as database:
        return database.sql(f"SELECT * FROM {table} ORDER BY ALL").read_all()


def counts(lake: str) -> dict[str, int]:
    return {table: rows(lake, table).num_rows for table in ROWS}


def test_it_is_read(lake: str) -> None:
    assert counts(lake) == ROWS
    with connect(lake) as database:
        hits = search(database, SearchQuery(label="person"))
    assert hits and {hit.uri for hit in hits} <= set(rows(lake, "videos")["uri"].to_pylist())
    opened = Lake.open(lake)
    assert opened.runs()["outcome"].to_pylist() == ["ok"]
    assert opened.failures()["error_class"].to_pylist() == ["empty"]


def test_it_is_added_to_and_tidied(lake: str, tmp_path: Path) -> None:
    before = {table: rows(lake, table) for table in ROWS}
    (tmp_path / "archive").mkdir()
    make_video(tmp_path / "archive" / "new.mp4", seconds=1)
    given: dict[str, Any] = {"archive": str(tmp_path / "archive"), "lake": lake, "name": "nightly", "detector": "demo"}
    given |= {"actions": "demo", "execution": {"executor": "inline", "device": "cpu"}}
    summary = index(load_job(None, given))
    assert summary.exit_code == 0 and summary.statuses == {"indexed": 1}
    after = rows(lake, "videos").to_pylist()
    assert {row["pipeline_id"] for row in after} == {PIPELINE_ID}, "the same job is the same pipeline"
    assert len(after) == 4

    opened = Lake.open(lake)
    opened.compact()
    opened.vacuum()
    for table, old in before.items():
        videos = set(old["video_id"].to_pylist())
        kept = [row for row in rows(lake, table).to_pylist() if row["video_id"] in videos]
        assert kept == old.to_pylist(), table
    opened.forget([FIRST])
    assert FIRST not in rows(lake, "videos")["uri"].to_pylist()
