"""Every family as a user meets it: `vidproc train`, the folder it leaves, `vidproc index` with it, `vidproc eval`
of that lake. Each is made as small as its architecture allows, and learns for one epoch: what it learns is
measured elsewhere (jobs/learn_demo.py); here nothing may be missing on the way."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from vidproc.cli import main
from vidproc.demo.archive import write_video
from vidproc.demo.scene import Scene
from vidproc.demo.settings import SceneSettings
from vidproc.learn.labels.catalog import Catalog
from vidproc.learn.labels.coco import read_coco
from vidproc.learn.networks import TEMPORAL as TEMPORAL_NETWORKS
from vidproc.models import load_model
from vidproc.models.settings import ModelSettings
from vidproc.models.slowfast import SLOWFAST as SLOWFAST_NETWORKS
from vidproc.models.torchvision_recipes import torchvision_names

SECONDS, FPS = 2, Fraction(10)

SMALL = {"mode": "stretch", "height": 48, "width": 64}
SQUARE = {"mode": "stretch", "height": 64, "width": 64}
FEW = {"rpn_pre_nms_top_n_train": 40, "rpn_post_nms_top_n_train": 20, "rpn_post_nms_top_n_test": 20}
FASTER = {"args": FEW, "size": SMALL, "freeze": ["backbone.body.layer1"]}
TEMPORAL = {"size": SMALL, "window": 6}
VIDEO = {"size": SQUARE, "window": 4}
SLOWFAST = {"size": SMALL, "args": {"frames": 8}}

NETWORKS: dict[str, dict[str, Any]] = {
    "fasterrcnn_resnet50_fpn": FASTER,
    "fasterrcnn_resnet50_fpn_v2": FASTER,
    "fasterrcnn_mobilenet_v3_large_fpn": {"args": FEW, "size": SMALL},
    "fasterrcnn_mobilenet_v3_large_320_fpn": {"args": FEW, "size": SMALL},
    "retinanet_resnet50_fpn": {"size": SMALL},
    "retinanet_resnet50_fpn_v2": {"size": SMALL},
    "fcos_resnet50_fpn": {"size": SMALL},
    "ssd300_vgg16": {},
    "ssdlite320_mobilenet_v3_large": {},
    "cnn+mean": TEMPORAL,
    "cnn+lstm": TEMPORAL,
    "cnn+gru": TEMPORAL,
    "cnn+tcn": TEMPORAL,
    "demo": {},
    "r3d_18": VIDEO,
    "mc3_18": VIDEO,
    "r2plus1d_18": VIDEO,
    "s3d": {"window": 14, "size": {"mode": "stretch", "height": 224, "width": 224}},
    "mvit_v1_b": {},
    "mvit_v2_s": {},
    "swin3d_t": VIDEO,
    "slowfast_r50_4x16": SLOWFAST,
    "slowfast_r50_8x8": SLOWFAST,
}
QUICK = {
    "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "cnn+mean",
    "cnn+lstm",
    "cnn+gru",
    "cnn+tcn",
    "slowfast_r50_8x8",
}
"""The others are wider, or see 224 pixels and more whatever one wants."""


def test_no_family_is_left_out() -> None:
    can = {n for n in torchvision_names() if not n.startswith(("maskrcnn", "keypointrcnn"))}
    assert set(NETWORKS) | {"swin3d_s", "swin3d_b"} == can | {*TEMPORAL_NETWORKS, *SLOWFAST_NETWORKS, "demo"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four drawn scenes, what is in view twice a second, and which way each was filmed."""
    root = tmp_path_factory.mktemp("world")
    (root / "videos").mkdir()
    settings = SceneSettings(seconds=SECONDS, fps=FPS, noise=0, plain=True)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    database = {}
    for i, kind in enumerate(("street", "activity") * 2):
        scene = Scene.generate(40 + i, settings, kind=kind)
        frames = [scene.frame(k) for k in range(scene.frame_count)]
        height, width = frames[0].shape[:2]
        write_video(root / "videos" / f"{i}.mp4", iter(frames), fps=FPS, gop=10)
        database[str(i)] = {"duration": SECONDS, "annotations": [{"label": kind, "segment": [0, SECONDS]}]}
        for k in range(0, scene.frame_count, 5):
            at = {"file_name": f"{i}.mp4", "time_s": float(k / FPS)}
            images.append({"id": len(images) + 1, **at, "width": width, "height": height})
            for b in scene.boxes(k):
                box = [b.x_min, b.y_min, b.x_max - b.x_min, b.y_max - b.y_min]
                boxes.append({"id": len(boxes) + 1, "image_id": len(images), "category_id": 7, "bbox": box})
    categories = [{"id": 7, "name": "thing"}]
    truth = {"images": images, "annotations": boxes, "categories": categories}
    (root / "detection.json").write_text(json.dumps(truth))
    (root / "actions.json").write_text(json.dumps({"database": database}))
    return root


@pytest.fixture
def vidproc(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The console script in this process, which must succeed -> its answer as JSON."""

    def run(*arguments: object) -> Any:
        monkeypatch.setattr(sys, "argv", ["vidproc", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        assert left.value.code == 0, err
        return json.loads(out)

    return run


@pytest.mark.timeout(900)
@pytest.mark.parametrize("arch", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NETWORKS])
def test_a_family_trains_saves_loads_indexes_and_is_scored(
    arch: str, world: Path, vidproc: Callable[..., Any], tmp_path: Path
) -> None:
    detects = arch.startswith(("fasterrcnn", "retinanet", "fcos", "ssd"))
    task, kind, truth = ("detection", "detector", "detection") if detects else ("actions", "actions", "actions")
    job = {
        "task": task,
        "name": "mine",
        "out": str(tmp_path / "model"),
        "data": {
            "archive": str(world / "videos"),
            "train": str(world / f"{truth}.json"),
            "validation": str(world / f"{truth}.json"),
        },
        "network": {"arch": arch, "fps": 2 if detects else 8, **NETWORKS[arch]},
        "optimisation": {"epochs": 1, "batch": 4, "learning_rate": 1e-4},
        "workers": {"executor": "inline", "gpu": False},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    trained = vidproc("train", tmp_path / "job.yaml", "--json")
    folder = tmp_path / "model"
    assert trained["folder"] == str(folder) and trained["epochs"] == 1
    assert 0 <= trained["metrics"]["AP" if detects else "top1"] <= 1
    weights = load_file(folder / "weights.safetensors")
    assert all(bool(torch.isfinite(v).all()) for v in weights.values() if v.is_floating_point())

    settings = ModelSettings(kind=kind, device="cpu")  # type: ignore[arg-type]
    model: Any = load_model(str(folder), settings=settings)
    assert model.card.labels == (("thing",) if detects else ("activity", "street"))

    index = {
        "archive": str(world / "videos"),
        "lake": str(tmp_path / "lake"),
        "detector": {"model": str(folder), "score_threshold": 0.0} if detects else "none",
        "actions": "none" if detects else str(folder),
        "execution": {"executor": "inline", "device": "cpu"},
    }
    (tmp_path / "index.yaml").write_text(yaml.safe_dump(index))
    vidproc("index", "--job", tmp_path / "index.yaml", "--json")
    table = "detections" if detects else "actions"
    sql = f"SELECT count(DISTINCT video_id) AS videos, any_value(model) AS model FROM {table}"
    (rows,) = vidproc("query", tmp_path / "lake", sql, "--format", "json")
    assert rows == {"videos": 4, "model": model.card.ref}

    scored = "detection" if detects else "classification"
    found = vidproc("eval", scored, world / f"{truth}.json", "--lake", tmp_path / "lake", "--json")
    assert 0 <= found["summary"]["AP" if detects else "top1"] <= 1

    if detects:
        again = vidproc("dataset", tmp_path / "lake", tmp_path / "found.json", "--where", "d.time_s < 1", "--json")
        frames = read_coco(Path(again["path"]), Catalog.of(str(world / "videos"))).frames
        assert len(frames) == again["frames"] > 0 and all(f.time_s is not None and f.time_s < 1 for f in frames)
    else:
        segments = ("eval", "segments", world / f"{truth}.json", "--lake", tmp_path / "lake", "--source", "windows")
        assert 0 <= vidproc(*segments, "--json")["summary"]["mAP"] <= 1
