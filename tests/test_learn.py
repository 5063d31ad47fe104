"""From labels to a trained model, into an index, to a score, to labels again: the whole round."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import Root
from tests.media import make_video
from vidproc.config import load_job
from vidproc.learn.dataset import DatasetSettings, make_dataset
from vidproc.learn.evaluate import EvalSettings, evaluate
from vidproc.learn.explain import ExplainSettings, explain
from vidproc.learn.labels import Catalog, read_coco
from vidproc.learn.networks import NetworkSettings
from vidproc.learn.train import DataSettings, OptimisationSettings, TrainSettings, train
from vidproc.learn.workers import WorkerSettings
from vidproc.run import index

INLINE = WorkerSettings(executor="inline", gpu=False)
W, H = 128, 96


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Videos of 2 s in which a bright square falls or rises, and beside them their labels: what happens, and
    where the square is twice a second."""
    root, labels = tmp_path_factory.mktemp("archive"), tmp_path_factory.mktemp("labels")
    rng = np.random.default_rng(0)
    images, annotations, database = [], [], {}
    for v in range(10):
        label, frames = ("falls", "rises")[v % 2], []
        x, step = int(rng.integers(10, 80)), float(rng.uniform(2.4, 3.0))
        for t in range(20):
            image = np.full((H, W, 3), 60 + 5 * v, np.uint8)
            y = int(4 + step * (t if v % 2 == 0 else 19 - t))
            image[y : y + 30, x : x + 30] = (240, 220, 90)
            frames.append(image)
            if t % 5 == 0:
                images.append(
                    {"id": len(images) + 1, "file_name": f"v{v}.mp4", "time_s": t / 10, "width": W, "height": H}
                )
                own = {"id": len(images), "image_id": len(images), "category_id": 1, "bbox": [x, y, 30, 30]}
                annotations.append(own)
        make_video(root / f"v{v}.mp4", seconds=2, fps=10, size=(W, H), frames=frames)
        database[f"v{v}"] = {"subset": "all", "duration": 2.0, "annotations": [{"label": label, "segment": [0, 2]}]}
    boxes = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (labels / "boxes.json").write_text(json.dumps(boxes))
    (labels / "actions.json").write_text(json.dumps({"database": database}))
    return root, labels


def test_the_whole_round(archive: tuple[Path, Path], tmp_path: Path) -> None:
    root, labels = archive
    actions = train(
        TrainSettings(
            task="actions",
            name="ways",
            out=str(tmp_path / "ways"),
            data=DataSettings(archive=str(root), train=str(labels / "actions.json"), validation_share=0),
            network=NetworkSettings(
                arch="cnn+gru", fps=10, window=8, stride=4, size={"mode": "stretch", "height": 48, "width": 64}
            ),
            optimisation=OptimisationSettings(epochs=14, batch=5, rate=2e-3),
            workers=INLINE,
        )
    )
    detector = train(
        TrainSettings(
            task="detection",
            name="squares",
            out=str(tmp_path / "squares"),
            data=DataSettings(archive=str(root), train=str(labels / "boxes.json"), validation_share=0.2),
            network=NetworkSettings(
                arch="fasterrcnn_mobilenet_v3_large_320_fpn",
                fps=2,
                size={"mode": "stretch", "height": H, "width": W},
            ),
            optimisation=OptimisationSettings(epochs=2, batch=4, rate=5e-4),
            workers=INLINE,
        )
    )
    lake = str(tmp_path / "lake")
    chosen = {"detector": {"model": detector.folder, "score_threshold": 0.0}, "actions": {"model": actions.folder}}
    job = load_job(
        None, {"archive": str(root), "lake": lake, **chosen, "execution": {"executor": "inline", "device": "cpu"}}
    )
    index(job)

    named = evaluate(EvalSettings(task="classification", truth=str(labels / "actions.json"), lake=lake))
    assert named.summary["examples"] == 10 and named.summary["top1"] >= 0.8
    boxes = evaluate(EvalSettings(task="detection", truth=str(labels / "boxes.json"), lake=lake))
    assert [c["truths"] for c in boxes.per_class] == [40] and boxes.per_class[0]["predictions"] > 0

    report = make_dataset(DatasetSettings(lake=lake, out=str(tmp_path / "found.json"), where="d.score > 0"))
    again = read_coco(Path(report.path), Catalog.of(str(root)))
    assert again.labels == ("square",) and len(again.frames) == report.frames > 0

    made = explain(
        ExplainSettings(
            model=actions.folder,
            kind="actions",
            out=str(tmp_path / "why"),
            lake=lake,
            row="d.label = 'falls'",
            device="cpu",
        )
    )
    assert made.label == "falls" and made.method == "grad-cam" and made.heat.max() == 1


def test_training_into_s3_and_going_on_there(archive: tuple[Path, Path], s3_root: Root, tmp_path: Path) -> None:
    root, labels = archive
    settings = TrainSettings(
        task="actions",
        name="ways",
        out=f"{s3_root.uri}/model",
        data=DataSettings(archive=str(root), train=str(labels / "actions.json"), validation_share=0.2),
        network=NetworkSettings(arch="cnn+mean", fps=10, window=4, size={"mode": "stretch", "height": 24, "width": 32}),
        optimisation=OptimisationSettings(epochs=2, batch=8),
        workers=INLINE,
    )

    class Killed(BaseException):
        pass

    def kill(_: dict[str, float]) -> None:
        raise Killed

    with pytest.raises(Killed):
        train(settings, options=s3_root.options, listen=kill)
    heard: list[float] = []
    report = train(settings, options=s3_root.options, listen=lambda m: heard.append(m["epoch"]))
    assert heard == [2] and report.folder.startswith("s3://") and report.epochs == 2
    local = train(replace(settings, out=str(tmp_path / "m")))
    assert local.metrics["val_loss"] == pytest.approx(report.metrics["val_loss"], rel=1e-6)
