"""The main job on the world's files: YOLOX-nano and MoViNet-A0 over everything, archive and lake on S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.test_media import DATA, TABLE, VIDEOS
from tests.conftest import Root
from vidproc.ask import connect

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1500)]

YOLOX = DATA / "models/yolox_nano/yolox_nano.onnx"
MOVINET = DATA / "models/movinet_a0_stream/movinet_a0_clip16_k600_fp32.onnx"
LABELS = DATA / "models/labels/kinetics600_labels.txt"


def vidproc(*arguments: str) -> tuple[int, str]:
    """Runs the command as an operator does: in a process of its own, with a model of the user's on PYTHONPATH."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-m", "vidproc", *arguments],
        env=os.environ | {"PYTHONPATH": str(here)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1400,
    )
    return done.returncode, done.stdout


def job_file(path: Path, archive: str, lake: str, **given: Any) -> Path:
    job = {
        "archive": archive,
        "lake": lake,
        "verify": "100%",
        "detector": {"model": str(YOLOX), "fps": 2, "options": {"decoding": "yolox"}},
        "actions": {"model": "movinet_a0:MoViNetA0", "weights": str(MOVINET), "options": {"labels": str(LABELS)}},
    }
    path.write_text(yaml.safe_dump(job | given))
    return path


def test_the_whole_archive_on_s3(tmp_path: Path, s3_root: Root) -> None:
    """Nothing lost, nothing silent, the exit code right; and the same command again does nothing."""
    archive, lake = s3_root.below("archive"), s3_root.below("lake").uri
    files = sorted(p for p in VIDEOS.rglob("*") if p.is_file())
    for path in files:
        archive.storage.put(path.relative_to(VIDEOS).as_posix(), path.read_bytes())
    job = job_file(tmp_path / "job.yaml", archive.uri, lake)
    code, text = vidproc("index", "--job", str(job), "--max-failures", "0")
    print(text)
    assert code == 0, text
    with connect(lake) as database:
        videos = database.sql("SELECT * FROM videos").read_all().to_pylist()
        sampled = (
            database.sql("SELECT count(*) AS n, count(DISTINCT video_id) AS v FROM detections").read_all().to_pylist()
        )
        why = database.sql("SELECT DISTINCT uri, error_class, error FROM failures").read_all().to_pylist()
    ended = {v["uri"].removeprefix(archive.uri + "/"): v for v in videos}
    assert set(ended) == set(TABLE) == {p.relative_to(VIDEOS).as_posix() for p in files}
    wrong = {
        name: (ended[name]["status"], ended[name]["error_class"], ended[name]["error"])
        for name, expected in TABLE.items()
        if expected.status
        not in (ended[name]["status"], ended[name]["error_class"] if ended[name]["status"] == "declined" else None)
    }
    assert not wrong
    assert not [row for row in why if row["error_class"] == "verify"], "the fast path is right on all of them"
    explained = {row["uri"] for row in why}
    assert all(v["uri"] in explained for v in videos if v["status"] != "indexed")
    assert all(v["error"] and "X-Amz" not in v["error"] for v in videos if v["status"] != "indexed")
    assert sampled[0]["v"] > 20
    began = time.monotonic()
    code, text = vidproc("index", "--job", str(job))
    took = time.monotonic() - began
    assert code == 0 and "nothing was due" in text, text
    print(f"second run: {took:.1f} s for {len(files)} objects")
    assert took < 60


def test_six_visits_are_six_presence_segments(tmp_path: Path) -> None:
    truth = json.loads((DATA / "groundtruth/events/intel_one_by_one_person.json").read_text())
    job = job_file(
        tmp_path / "job.yaml",
        str(VIDEOS),
        str(tmp_path / "lake"),
        actions="none",
        filters={"include": ["intel/one-by-one*"]},
        detector={"model": str(YOLOX), "fps": 5, "options": {"decoding": "yolox"}},
    )
    code, text = vidproc("index", "--job", str(job))
    assert code == 0, text
    sql = "SELECT start_s, end_s FROM segments WHERE kind = 'presence' AND label = 'person' ORDER BY start_s"
    code, answer = vidproc("query", str(tmp_path / "lake"), sql, "--format", "json")
    assert code == 0, answer
    found = [(row["start_s"], row["end_s"]) for row in json.loads(answer)]
    print(found)
    assert len(found) == len(truth["present_intervals_s"]) == 6
    for (start, end), (true_start, true_end) in zip(found, truth["present_intervals_s"], strict=True):
        assert abs(start - true_start) <= 1 and abs(end - true_end) <= 1, (start, end, true_start, true_end)
