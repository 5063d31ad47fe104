"""Vectors through the main job: from `--embedding` to rows that can be queried, replaced and forgotten."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import shufflenet_v2_x0_5
from typer.testing import CliRunner

from tests.models.test_features import folder
from tests.support.media import make_video
from vidproc.ask import connect
from vidproc.cli import app
from vidproc.errors import ConfigError
from vidproc.models import ModelSettings, load_model
from vidproc.run.driver import index
from vidproc.run.pipeline import make_pipeline
from vidproc.settings import Job, load_job
from vidproc.tables.lake import Lake


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("archive")
    make_video(made / "a.mp4", seconds=5, gop=12, bframes=2)
    make_video(made / "b.mkv", seconds=3.5, gop=10)
    return made


def job(archive: Path, lake: Path, **given: Any) -> Job:
    base = {
        "detector": "none",
        "actions": "none",
        "embedding": "tests.support.fakes:Pairs",
        "execution": {"executor": "inline"},
    }
    return load_job(None, {"archive": str(archive), "lake": str(lake)} | base | given)


def vectors(lake: Path) -> list[dict[str, Any]]:
    with connect(str(lake)) as database:
        sql = "SELECT v.uri, e.* EXCLUDE (video_id) FROM embeddings e JOIN videos v USING (video_id) ORDER BY ALL"
        return database.sql(sql).read_all().to_pylist()


def test_each_vector_says_what_was_on_screen_whatever_the_cut(archive: Path, tmp_path: Path) -> None:
    found = []
    for name, seconds in (("whole", 100.0), ("cut", 0.5)):
        lake = tmp_path / name
        summary = index(job(archive, lake, cut={"clip_seconds": seconds, "clips_per_task": 1}))
        assert summary.exit_code == 0 and summary.statuses == {"indexed": 2}
        found.append(vectors(lake))
    whole, cut = found
    assert whole == cut
    rows = [r for r in whole if r["uri"].endswith("a.mp4")]
    fps = 25  # of the video; the model looks three times a second
    assert [r["start_s"] for r in rows] == [k / 3 for k in range(len(rows))]
    for k, row in enumerate(rows[:-1]):
        first, second = (int(Fraction(k + i, 3) * fps) for i in (0, 1))
        assert row["embedding"] == [first, second, first - second]
        assert row["end_s"] == pytest.approx((k + 2) / 3)


def test_an_image_model_and_the_embedded_pair_on_the_command_line(archive: Path, tmp_path: Path) -> None:
    """Through `vidproc index`, counted in `videos`, replaced by another model, gone when forgotten."""
    torch.manual_seed(0)
    grid = {"fps": 2, "size": {"mode": "stretch", "height": 64, "width": 64}}
    network = shufflenet_v2_x0_5(weights=None)
    spec = folder(tmp_path / "eyes", network, kind="embedding", family="features", arch="shufflenet_v2_x0_5", grid=grid)
    lake = tmp_path / "lake"
    arguments = ["index", str(archive), str(lake), "--detector", "none", "--actions", "none", "--executor", "inline"]
    ran = CliRunner().invoke(app, [*arguments, "--embedding", spec])
    assert ran.exit_code == 0, ran.output
    rows = vectors(lake)
    assert {len(r["embedding"]) for r in rows} == {1024} and all(r["model"].startswith("eyes@") for r in rows)
    assert all(np.isfinite(r["embedding"]).all() and np.ptp(r["embedding"]) > 0 for r in rows)
    by_video = {Path(u).name: [r for r in rows if r["uri"] == u] for u in {r["uri"] for r in rows}}
    assert {name: len(of) for name, of in by_video.items()} == {"a.mp4": 10, "b.mkv": 8}
    assert by_video["a.mp4"][1]["embedding"] != by_video["a.mp4"][2]["embedding"]

    ran = CliRunner().invoke(app, [*arguments, "--embedding", "demo"])
    assert ran.exit_code == 0, ran.output
    rows = vectors(lake)
    card = load_model("demo", settings=ModelSettings(kind="embedding", device="cpu")).card
    assert {r["model"] for r in rows} == {card.ref}
    assert rows[0]["end_s"] - rows[0]["start_s"] == pytest.approx(card.grid.window / float(card.grid.fps))
    with connect(str(lake)) as database:
        counted = database.sql("SELECT uri, n_embeddings AS n FROM videos ORDER BY uri").read_all().to_pylist()
    assert [r["n"] for r in counted] == [sum(v["uri"] == r["uri"] for v in rows) for r in counted]

    forgotten = Lake.open(str(lake)).forget([str(archive / "a.mp4")])
    assert forgotten.rows["embeddings"] == counted[0]["n"]
    assert {r["uri"] for r in vectors(lake)} == {str(archive / "b.mkv")}


def test_an_embedding_beside_other_models_leaves_their_rows_alone(archive: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"detector": "tests.support.fakes:Numbers", "actions": "tests.support.fakes:Order"}
    alone, beside = (
        job(archive, tmp_path / "alone", embedding="none", **given),
        job(archive, tmp_path / "both", **given),
    )
    assert make_pipeline(alone).pipeline_id != make_pipeline(beside).pipeline_id
    index(alone)
    index(beside)
    answers = []
    for lake in (alone.lake, beside.lake):
        with connect(lake) as database:
            answers.append(
                [
                    database.sql(f"SELECT * FROM {table} ORDER BY ALL").read_all().to_pylist()
                    for table in ("detections", "tracks", "actions", "segments")
                ]
            )
    assert answers[0] == answers[1] and all(answers[0])
    assert vectors(Path(beside.lake)) and not vectors(Path(alone.lake))


def test_an_embedding_that_is_none_is_refused_by_name(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no image model named 'resnet19'"):
        index(job(archive, tmp_path / "lake", embedding="resnet19"))
    with pytest.raises(ConfigError, match="its card says detector, but it was given as embedding"):
        index(job(archive, tmp_path / "lake", embedding="tests.support.fakes:Numbers"))
    assert not (tmp_path / "lake").exists()
