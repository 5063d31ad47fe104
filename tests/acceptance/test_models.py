"""Published accuracy on real images and videos, through decoding, scaling, model and geometry."""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest
import yaml
from PIL import Image

from tests.support.media import video_of
from vidproc.media import FrameBatch, FrameSize, Grid
from vidproc.models import Detector, ModelSettings, load_model
from vidproc.run.pipeline import detect_upright, on_windows
from vidproc.video.container import MediaLimits, Source
from vidproc.video.decode import decode
from vidproc.video.plan import CutSettings, cut
from vidproc.video.probe import probe

DATA = Path(os.environ.get("VIDPROC_ACCEPTANCE_DATA", Path(__file__).parents[3] / "shared" / "data"))
COCO = DATA / "groundtruth" / "coco_val_ccby_dev"

pytestmark = pytest.mark.acceptance


def decoded(path: Path, grid: Grid) -> list[FrameBatch]:
    info = probe(video_of(path), Source(), MediaLimits())
    tasks = cut(info, CutSettings(), [grid], "acceptance")
    return [decode(task, [grid], Source(), MediaLimits())[0][0] for task in tasks]


def as_video(image: np.ndarray, path: Path) -> Path:
    """One frame of uint8 RGB as a video that holds it to the bit (FFV1 in RGB)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=2)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "bgr0"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((COCO / "instances.json").read_text())
    return found


@pytest.fixture(scope="module")
def videos(truth: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Each image of the set as a video, by the image's id."""
    folder = tmp_path_factory.mktemp("coco")
    return {
        image["id"]: as_video(
            np.asarray(Image.open(COCO / "images" / image["file_name"]).convert("RGB")), folder / f"{image['id']}.mkv"
        )
        for image in truth["images"]
    }


@pytest.fixture(scope="module", params=["yolox_nano_dynbatch", "yolox_nano"])
def yolox(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """With a free batch, and with one frame a batch."""
    described = tmp_path_factory.mktemp("yolox") / "yolox_nano.yaml"
    weights = DATA / "models" / "yolox_nano" / f"{request.param}.onnx"
    values = {"family": "onnx", "decoding": "yolox", "weights": str(weights), "license": "Apache-2.0"}
    described.write_text(yaml.safe_dump(values))
    # As the reference was measured: boxes above 0.01, at most 100 an image
    settings = ModelSettings(kind="detector", score_threshold=0.01, threads=2)
    return load_model(str(described), device="cpu", settings=settings)  # type: ignore[return-value]


def average_precision(model: Detector, size: FrameSize, truth: dict[str, Any], videos: dict[int, Path]) -> list[float]:
    """COCO's AP, AP50, ... of a detector over the images as videos."""
    from faster_coco_eval import COCO as Coco
    from faster_coco_eval import COCOeval_faster

    numbers = json.loads((DATA / "models" / "labels" / "coco80_to_category_id.json").read_text())
    category_ids = numbers["index80_to_coco_category_id"]
    results = []
    for image_id, path in videos.items():
        (batch,) = decoded(path, replace(model.card.grid, size=size))
        assert len(batch.pixels) == 1
        found = detect_upright(model, batch)
        for box, score, class_id in zip(found.boxes.tolist(), found.score, found.class_id, strict=True):
            x0, y0, x1, y1 = box
            results.append(
                {
                    "image_id": image_id,
                    "category_id": category_ids[class_id],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": float(score),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = Coco(truth)
        evaluation = COCOeval_faster(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(v) for v in evaluation.stats]


def test_the_videos_hold_the_images_to_the_bit(truth: dict[str, Any], videos: dict[int, Path]) -> None:
    from fractions import Fraction

    for image in truth["images"]:
        (batch,) = decoded(videos[image["id"]], Grid(fps=Fraction(2), size=FrameSize()))
        original = np.asarray(Image.open(COCO / "images" / image["file_name"]).convert("RGB"))
        np.testing.assert_array_equal(batch.pixels[0], original)


@pytest.mark.parametrize("interpolation", ["bilinear", "area", "bicubic"])
def test_yolox_nano_reaches_its_accuracy(
    interpolation: Literal["bilinear", "area", "bicubic"],
    yolox: Detector,
    truth: dict[str, Any],
    videos: dict[int, Path],
) -> None:
    size = replace(yolox.card.grid.size, interpolation=interpolation)
    ap, ap50 = average_precision(yolox, size, truth, videos)[:2]
    print(f"\nYOLOX-nano, 25 images, {interpolation}: AP {ap:.4f}, AP50 {ap50:.4f}")
    assert ap == pytest.approx(0.3231, abs=0.01 if interpolation == yolox.card.grid.size.interpolation else 0.02)


def test_a_users_action_model_names_every_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """MoViNet-A0 as `module:Class` from outside the package: 12 of 12 windows that lie wholly inside a
    labelled part are right, and the unlabelled part stays weak."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    settings = ModelSettings(
        kind="actions",
        weights=str(DATA / "models" / "movinet_a0_stream" / "movinet_a0_clip16_k600_fp32.onnx"),
        options={"labels": str(DATA / "models" / "labels" / "kinetics600_labels.txt")},
        threads=2,
    )
    model: Any = load_model("movinet_a0:MoViNetA0", settings=settings)
    grid = model.card.grid
    entry = json.loads((DATA / "groundtruth" / "actions" / "dev_splice.json").read_text())
    inside, right, weak = 0, 0, []
    for batch in decoded(DATA / "videos" / "spliced" / "dev_splice.mp4", grid):
        starts, ends, scores = on_windows(model.classify, batch, grid)
        for start, end, score in zip(starts, ends, scores, strict=True):
            for part in entry["all_parts"]:
                if part["segment"][0] <= start and end <= part["segment"][1] and end - start >= 16 / 5 - 1e-9:
                    if part["label"] is None:
                        weak.append(float(score.max()))
                    else:
                        inside += 1
                        right += model.card.labels[int(score.argmax())] == part["label"]
    print(f"\nMoViNet-A0: {right} of {inside} windows; background at most {max(weak):.3f}")
    assert (right, inside) == (12, 12)
    assert max(weak) < 0.15
