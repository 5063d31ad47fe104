"""From labels to a trained model, into an index, to a score, to labels again: the whole round."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Root
from tests.support.media import make_video
from vidproc.demo.archive import write_video
from vidproc.demo.scene import Scene
from vidproc.demo.settings import SceneSettings
from vidproc.learn.data.augmentation import Augmentation
from vidproc.learn.dataset import DatasetSettings, make_dataset
from vidproc.learn.explain.explaining import explain
from vidproc.learn.explain.settings import ExplainSettings
from vidproc.learn.labels.catalog import Catalog
from vidproc.learn.labels.coco import read_coco
from vidproc.learn.networks import NetworkSettings
from vidproc.learn.scoring.evaluate import evaluate
from vidproc.learn.scoring.settings import EvalSettings
from vidproc.learn.train.settings import DataSettings, OptimisationSettings, TrainSettings
from vidproc.learn.train.training import train
from vidproc.learn.workers import WorkerSettings
from vidproc.run.driver import index
from vidproc.settings import load_job

INLINE = WorkerSettings(executor="inline", gpu=False)
W, H = 128, 96


pytestmark = pytest.mark.usefixtures("one_thread")


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
            optimisation=OptimisationSettings(epochs=14, batch=5, learning_rate=2e-3),
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
            optimisation=OptimisationSettings(epochs=1, batch=4, learning_rate=5e-4),
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


def drawn(folder: Path, scenes: int, seed: int, noise: float) -> str:
    """People before a plain wall, 4 s each, in folder/videos; and their boxes twice a second as COCO JSON."""
    settings = SceneSettings(seconds=4.0, fps=Fraction(4), noise=noise, plain=True)
    (folder / "videos").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(scenes):
        scene = Scene.generate(seed + i, settings, kind="activity")
        frames = (scene.frame(k) for k in range(scene.frame_count))
        write_video(folder / "videos" / f"{i}.mp4", frames, fps=settings.fps, gop=8)
        for k in range(0, scene.frame_count, 2):
            size = {"width": 384, "height": 288}
            images.append({"id": len(images) + 1, "file_name": f"{i}.mp4", "time_s": k / 4, **size})
            for b in scene.boxes(k):
                bbox = [b.x_min, b.y_min, b.x_max - b.x_min, b.y_max - b.y_min]
                own = {"id": len(annotations) + 1, "image_id": len(images), "category_id": 1, "bbox": bbox}
                annotations.append(own)
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (folder / "boxes.json").write_text(json.dumps(document))
    return str(folder / "boxes.json")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_make_learn_in_short(tmp_path: Path) -> None:
    """What `make learn` proves at length: on unseen scenes a network that follows time beats one that sees single
    frames by the margin, and few-shot reaches its figure on classes that its backbone was never shown."""
    job = Path(__file__).parents[2] / "jobs" / "learn_demo.py"
    words = ["--only", "gru,frame,few-shot", "--out", str(tmp_path)]
    ran = subprocess.run([sys.executable, str(job), *words], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    figures = {f["name"]: f for f in json.loads((tmp_path / "figures.json").read_text())}
    assert figures["gru"]["value"] >= 0.75 and figures["margin"]["value"] >= 0.15
    assert figures["few-shot"]["value"] >= 0.8 and "5-way 5-shot" in figures["few-shot"]["note"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_faster_rcnn_fine_tuned_on_the_drawn_world_is_used_by_index(tmp_path: Path) -> None:
    """From random weights on a clean camera; then fine-tuned, the backbone frozen, on a bad one; then `index` on
    videos of the bad one that it never saw."""
    train_boxes, tune_boxes = drawn(tmp_path / "clean", 18, 7_000, 0), drawn(tmp_path / "bad", 6, 8_000, 1)
    truth = drawn(tmp_path / "unseen", 4, 2_070_000, 1)
    few = {"rpn_pre_nms_top_n_train": 100, "rpn_post_nms_top_n_train": 50, "box_batch_size_per_image": 16}
    network = NetworkSettings(
        arch="fasterrcnn_mobilenet_v3_large_320_fpn",
        args=few,
        fps=2,
        size={"mode": "stretch", "height": 96, "width": 128},
    )

    def job(name: str, boxes: str, network: NetworkSettings, epochs: int) -> TrainSettings:
        archive = str(Path(boxes).parent / "videos")
        return TrainSettings(
            task="detection",
            name=name,
            out=str(tmp_path / name),
            data=DataSettings(archive=archive, train=boxes, validation_share=0),
            network=network,
            optimisation=OptimisationSettings(epochs=epochs, batch=4, learning_rate=6e-4, warmup_epochs=0.2),
            augmentation=Augmentation(flip=0.5),
            workers=INLINE,
        )

    first = train(job("first", train_boxes, network, 5))
    tuned = replace(network, start=first.folder, freeze=("backbone.body",), freeze_norms=True)
    report = train(job("tuned", tune_boxes, tuned, 2))
    before, after = (load_file(Path(r.folder) / "weights.safetensors") for r in (first, report))
    frozen = {k for k in after if torch.equal(before[k], after[k])}
    assert {k for k in after if k.startswith("backbone.body")} <= frozen and "rpn.head.cls_logits.weight" not in frozen

    lake = str(tmp_path / "lake")
    models = {"detector": {"model": report.folder, "score_threshold": 0.05}, "actions": "none"}
    execution = {"executor": "inline", "device": "cpu"}
    index(
        load_job(None, {"archive": str(tmp_path / "unseen" / "videos"), "lake": lake, "execution": execution} | models)
    )
    found = evaluate(EvalSettings(task="detection", truth=truth, lake=lake))
    assert found.summary["AP50"] > 0.1


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
