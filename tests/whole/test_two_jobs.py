"""Several processes at work on one lake: the tables of one undisturbed run after another."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Root
from tests.support.kills import Nursery, Run
from tests.support.media import make_video
from tests.support.s3 import SeaweedFS
from tests.whole.test_end_to_end import job, tables, upload
from vidproc.ask import connect
from vidproc.run.driver import index
from vidproc.storage import open_storage
from vidproc.tables.lake import Lake

GIVEN = ["--actions", "tests.support.fakes:Order", "--clip-seconds", "0.5", "--executor", "inline", "--device", "cpu"]
CALM: dict[str, Any] = {"cut": {"clip_seconds": 0.5}, "execution": {"executor": "inline", "device": "cpu"}}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two-jobs")
    for i in range(8):
        make_video(folder / f"{'ab'[i % 2]}{i}.{'mp4' if i < 4 else 'mkv'}", seconds=1, gop=6)
    return folder


@dataclass
class Running:
    run: Run
    log: Path

    def end(self) -> str:
        """What it said; it ended with 0, or says why not."""
        code, said = self.run.wait(240), self.log.read_text()
        assert "Traceback" not in said, said
        assert code == 0 or "taken away" in said, said
        return said


Start = Callable[..., Running]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, s3_server: SeaweedFS) -> Iterator[Start]:
    """Starts `vidproc index` in a process of its own."""
    folder, nursery = tmp_path_factory.mktemp("logs"), Nursery(os.environ | {"OMP_NUM_THREADS": "1"})
    numbers = itertools.count()

    def started(archive: str, lake: str, *options: str) -> Running:
        log = folder / f"{next(numbers)}.log"
        arguments = ["index", archive, lake, "--detector", "tests.support.fakes:Slow", *GIVEN, *options]
        return Running(nursery.start(arguments, log, None), log)

    yield started
    nursery.close()


def calm(archive: str, lake: str, **given: Any) -> dict[str, list[dict[str, Any]]]:
    assert index(job(archive, lake, **{"detector": "tests.support.fakes:Slow"} | CALM | given)).exit_code == 0
    return tables(lake)


def places(root: Root, archive: Path) -> tuple[str, str, str]:
    """Archive, lake, and a place for an undisturbed one."""
    there = upload(archive, root.below("in")) if root.uri.startswith("s3://") else str(archive)
    return there, root.below("lake").uri, root.below("calm").uri


def test_two_jobs_on_different_videos(archive: Path, lake_root: Root, start: Start) -> None:
    there, lake, elsewhere = places(lake_root, archive)
    for one in [start(there, lake, "--include", f"{letter}*") for letter in "ab"]:
        one.end()
    assert tables(lake) == calm(there, elsewhere)
    assert list(open_storage(lake).list("_staging/")) == []


def test_two_jobs_on_the_same_videos(archive: Path, lake_root: Root, start: Start) -> None:
    there, lake, elsewhere = places(lake_root, archive)
    for one in [start(there, lake) for _ in range(2)]:
        one.end()
    assert tables(lake) == calm(there, elsewhere)
    assert calm(there, lake) == tables(elsewhere), "and nothing is left that a later run trips over"


def test_two_pipelines(archive: Path, local_root: Root, start: Start) -> None:
    """Under two names they stand side by side; under one, of each video one of them wins whole."""
    there, lake, elsewhere = places(local_root, archive)
    for one in [start(there, lake, "--name", name, "--fps", fps) for name, fps in (("four", "4"), ("five", "5"))]:
        one.end()
    for name, fps in (("four", 4), ("five", 5)):
        calm(there, elsewhere, name=name, detector={"model": "tests.support.fakes:Slow", "fps": fps})
    assert tables(lake) == tables(elsewhere)
    for one in [start(there, lake, "--fps", fps) for fps in ("4", "5")]:
        one.end()
    with connect(lake) as database:
        rows = database.sql(
            "SELECT uri, n_detections, count(*) AS n, count(DISTINCT time_s) AS times FROM videos "
            "JOIN detections USING (video_id, pipeline) WHERE pipeline = 'default' GROUP BY ALL"
        ).read_all().to_pylist()  # fmt: skip
    assert len(rows) == 8
    assert all(r["n_detections"] == r["n"] == r["times"] and r["n"] in (4, 5) for r in rows), rows


@pytest.mark.parametrize(("upkeep", "place"), [("compact", "s3"), ("vacuum", "local"), ("vacuum", "s3")])
def test_upkeep_during_a_run(
    upkeep: str, place: str, archive: Path, start: Start, request: pytest.FixtureRequest
) -> None:
    there, lake, elsewhere = places(request.getfixturevalue(f"{place}_root"), archive)
    calm(there, lake, filters={"include": ["a*"]})
    running = start(there, lake)
    times = 0
    while running.run.poll() is None:
        if upkeep == "compact":
            Lake.open(lake).compact(file_bytes=1 << 20)
        else:
            Lake.open(lake).vacuum(timedelta(0))
        times += 1
        time.sleep(0.1)
    running.end()
    assert times > 1
    assert tables(lake) == calm(there, elsewhere)


def test_forget_during_a_run(archive: Path, local_root: Root, start: Start) -> None:
    """What is forgotten while it is indexed is in the lake whole, or not at all; and the next run, which finds
    it in the archive still, makes the lake complete."""
    there, lake, elsewhere = places(local_root, archive)
    uris = [open_storage(there).uri_of(o.key) for o in open_storage(there).list()]
    calm(there, lake, filters={"include": ["a*"]})
    running = start(there, lake)
    forgotten = 0
    while running.run.poll() is None:
        forgotten += len(Lake.open(lake).forget(uris[::3]).forgotten)
        time.sleep(0.2)
    running.end()
    assert forgotten
    with connect(lake) as database:
        torn = database.sql(
            "SELECT uri, n_detections, count(time_s) AS n FROM videos LEFT JOIN detections USING (video_id, pipeline) "
            "GROUP BY ALL HAVING n <> n_detections"
        ).read_all()  # fmt: skip
    assert torn.to_pylist() == []
    assert calm(there, lake) == calm(there, elsewhere)
