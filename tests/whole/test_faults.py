"""Somebody dies at a random moment, the same command is given again: the tables of an undisturbed run.
And what crashes, hangs or bloats a worker costs its own task, and nothing else."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Root
from tests.support.cues import FIRST_NUMBERS, cued_routes
from tests.support.kills import Harness, Scene
from tests.support.media import cut_off, draw, make_sound, make_video
from tests.support.s3 import BUCKET, SeaweedFS
from tests.whole.test_end_to_end import job, statuses, tables, upload
from vidproc.ask import connect
from vidproc.run.driver import index
from vidproc.run.release import release
from vidproc.storage import StorageOptions


def make_archive(folder: Path) -> None:
    """Seven small videos of different make, one of them cut off, and two files that are none."""
    folder.mkdir(parents=True)
    for i, (gop, bframes, extension) in enumerate([(5, 0, "mp4"), (12, 2, "mp4"), (25, 2, "mkv"), (6, 0, "ts")]):
        make_video(folder / f"v{i}.{extension}", seconds=1 + 0.25 * i, gop=gop, bframes=bframes)
    make_video(folder / "late.mp4", seconds=1, gop=10, first_s=1.5)
    make_video(folder / "vfr.mp4", seconds=1, gop=10, gaps=[1, 3, 2])
    whole = make_video(folder / "w.mp4", seconds=2, gop=6, container_options={"movflags": "faststart"})
    cut_off(whole, folder / "cut off.mp4", 0.6)
    whole.path.unlink()
    make_sound(folder / "sound.m4a")
    (folder / "text.mp4").write_text("not a video at all\n" * 50)


OF_THE_KILLS = "('crash', 'infrastructure', 'transient')"


def rows(lake: str) -> dict[str, list[dict[str, Any]]]:
    """All rows without what differs from run to run; of the failures those that no kill explains. They are
    history, and a publication may outlive its killed driver, so two runs may tell of the same file, but each once."""
    with connect(lake) as database:
        failures = database.sql(
            f"""SELECT DISTINCT uri, video_id, task_id, stage, error_class, error, count(*) AS times FROM failures
            WHERE error_class NOT IN {OF_THE_KILLS}
            GROUP BY uri, video_id, task_id, stage, error_class, error, run_id ORDER BY ALL"""
        )
        return tables(lake) | {"failures": failures.read_all().to_pylist()}


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory, s3_server: SeaweedFS) -> Iterator[Harness]:
    folder, root = tmp_path_factory.mktemp("faults"), f"s3://{BUCKET}/faults-{os.getpid()}"
    make_archive(folder / "archive")
    on_s3 = upload(folder / "archive", Root(f"{root}/archive", StorageOptions()))
    made = Harness(
        int(os.environ.get("VIDPROC_TEST_SEED") or random.randrange(1 << 32)),
        {False: str(folder / "archive"), True: on_s3},
        lambda name, s3: f"{root}/{name}" if s3 else str(folder / name),
        rows,
        s3_server,
    )
    yield made
    print(f"{made.runs} runs, deaths: {dict(made.deaths)}")
    made.close()


SCENES = [
    Scene(victims=("effect",), kills=16),
    Scene(victims=("driver",), kills=8),
    Scene(victims=("driver", "effect"), kills=6, on_s3=True),
    Scene(victims=("server",), kills=3, on_s3=True),
    Scene(victims=("decode", "infer", "publish"), kills=6, executor="ray"),
    Scene(victims=("driver",), kills=1, executor="ray"),
    Scene(victims=("node",), kills=2, executor="ray"),
]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_killed_again_and_again(scene: Scene, harness: Harness) -> None:
    assert harness.perform(scene).total() >= scene.kills


def test_there_are_enough_kills() -> None:
    assert sum(scene.kills for scene in SCENES) >= 40


@pytest.mark.parametrize("executor", ["inline", "ray"])
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_in_time_and_the_next_run_goes_on(
    times: int, executor: str, harness: Harness, tmp_path: Path
) -> None:
    archive, lake, log = harness.archives[False], str(tmp_path / "lake"), tmp_path / "log"
    given = ["--detector", "tests.support.fakes:Slow", "--actions", "none", "--clip-seconds", "0.5"]
    arguments = ["index", archive, lake, *given, "--executor", executor]
    run = harness.nursery.start(arguments, log, None) if executor == "inline" else harness.spawn(arguments, log)
    while not list(Path(lake).rglob("report.json")):
        assert run.poll() is None, log.read_text()
        time.sleep(0.01)
    began = time.monotonic()
    for _ in range(times):
        os.kill(run.pid, signal.SIGINT)
        time.sleep(0.1)
    assert run.wait(60) == 130
    # Once: it waits up to 15 s for what runs. Twice: for nothing. The rest is for a machine that stalls.
    assert time.monotonic() - began < (25 if times == 1 else 10)
    said = log.read_text()
    assert "stopping" in said and ("run the same command again" in said or times == 2)
    assert "Traceback" not in said
    deadline = time.monotonic() + 90  # Ray's processes notice by themselves that a driver which left at once is gone
    while (left := harness.processes_of_ray()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, left
    cut = {"clip_seconds": 0.5, "clips_per_task": 2}  # as the command has it: the same tasks
    wanted = {"detector": "tests.support.fakes:Slow", "actions": "none", "cut": cut}
    assert index(job(archive, lake, **wanted)).tasks_resumed > 0
    calm = str(tmp_path / "calm")
    index(job(archive, calm, **wanted))
    assert tables(lake) == tables(calm)


# Files that kill their worker ---------------------------------------------------------------------------

CUES = {
    "probe-segfault.mp4": ("failed", "crash"),
    "decode-segfault.mp4": ("partial", "crash"),
    "decode-hang.mp4": ("partial", "timeout"),
    "decode-bloat.mp4": ("partial", "memory"),
    "infer-segfault.mp4": ("partial", "crash"),
    "infer-hang.mp4": ("partial", "timeout"),
    "infer-bloat.mp4": ("partial", "memory"),
    "good.mp4": ("indexed", None),
}


@pytest.mark.timeout(1200)
def test_what_kills_its_worker_is_quarantined_remembered_and_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, lake = tmp_path / "in", str(tmp_path / "lake")
    folder.mkdir()
    for name in CUES:
        step, _, fault = name.removesuffix(".mp4").partition("-")
        first = FIRST_NUMBERS[fault] if step == "infer" else 0
        pictures = [np.repeat(draw(first + n, 96, 64)[:, :, None], 3, axis=2) for n in range(60)]
        make_video(folder / name, seconds=3, fps=20, gop=20, bframes=0, frames=pictures)
    given: dict[str, Any] = {
        "detector": {"model": "tests.support.cues:Cued", "fps": 10},
        "cut": {"clip_seconds": 1.0, "clips_per_task": 1},
        "limits": {"time_limit_s": 10.0, "memory_bytes": 1 << 30},
        "execution": {"executor": "ray", "device": "cpu", "actors": 2},
    }
    monkeypatch.setattr("vidproc.run.driver.routes", cued_routes)
    monkeypatch.setenv("VIDPROC_TEST_CUES", "1")
    summary = index(job(str(folder), lake, **given))
    assert summary.exit_code == 1, summary.reason
    print(summary.reason)
    assert statuses(lake, str(folder)) == CUES
    with connect(lake) as database:
        counts = database.sql(
            "SELECT uri, n_detections AS n, count(*) FILTER (f.error_class = v.error_class) AS failures, "
            "max(attempt) AS attempt, max(stage) AS stage "
            "FROM videos v LEFT JOIN failures f USING (video_id, uri) GROUP BY ALL"
        )
        found = {r["uri"].rpartition("/")[2]: r for r in counts.read_all().to_pylist()}
    for name, row in found.items():
        step = name.partition("-")[0]
        if name == "good.mp4":
            assert row["n"] == 30
        else:
            assert row["n"] == (0 if step == "probe" else 20), "the other two of its tasks are whole"
            assert (row["failures"], row["attempt"], row["stage"]) == (3, 3, step)
    again = index(job(str(folder), lake, **given))
    assert again.due == 0, "what is quarantined is not tried again by itself"
    monkeypatch.delenv("VIDPROC_TEST_CUES")
    assert sum(release(lake, StorageOptions()).videos.values()) == len(CUES) - 1
    inline = given | {"execution": {"executor": "inline", "device": "cpu"}}
    healed = index(job(str(folder), lake, **inline))
    assert (healed.due, healed.exit_code, healed.statuses) == (7, 0, {"indexed": 7})
    calm = str(tmp_path / "calm")
    index(job(str(folder), calm, **inline))
    assert tables(lake) == tables(calm)
