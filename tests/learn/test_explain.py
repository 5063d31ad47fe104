"""Explanations: they fall on what the answer came from, in space and time, and change with the network."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from tests.support.media import make_video
from vidproc.annotations import Detections
from vidproc.cli import app
from vidproc.demo.scene import Scene
from vidproc.demo.settings import SceneSettings
from vidproc.errors import ConfigError
from vidproc.learn.data.reader import fit_image
from vidproc.learn.explain.checks import points_at, randomise
from vidproc.learn.explain.explaining import explain
from vidproc.learn.explain.gradcam import grad_cam, grad_cam_box, grad_cam_peak, mirrored_grad_cam
from vidproc.learn.explain.occlusion import occlusion, occlusion_box
from vidproc.learn.explain.settings import ExplainSettings
from vidproc.learn.networks import NetworkSettings, recipe_for
from vidproc.learn.overlay import captioned, overlay, write_mp4
from vidproc.learn.train.folder import tensor_bytes, write_model
from vidproc.models import load_model, tiny
from vidproc.models.embedded import embedded_recipe
from vidproc.models.families import build_network, load_network
from vidproc.models.recipe import Preprocessing, Recipe
from vidproc.models.settings import ModelSettings
from vidproc.run.driver import index
from vidproc.settings import load_job
from vidproc.storage import open_storage

H, W, T = 48, 64, 8


def clip(seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Textured ground, and a bright square that moves: frames uint8 (T, H, W, 3) and its box in each."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(20, 90, (H, W, 3), np.uint8)
    x, y, dx, dy = rng.integers(4, 20), rng.integers(4, 14), rng.integers(1, 4), rng.integers(0, 3)
    frames, boxes = [], []
    for t in range(T):
        frame = ground.copy()
        left, top = int(x + dx * t), int(y + dy * t)
        frame[top : top + 12, left : left + 12] = 240
        frames.append(frame)
        boxes.append(np.array([[left, top, left + 12, top + 12]], np.float64))
    return np.stack(frames), boxes


class BrightThings(nn.Module):
    """A network whose reasons are known: class 1 is the amount of light above 0.7, class 0 a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, padding=1)
        nn.init.constant_(self.conv.weight, 1 / 27)
        nn.init.constant_(self.conv.bias, -0.7)  # type: ignore[arg-type]
        self.relu = nn.ReLU()

    def forward(self, clips: Tensor) -> Tensor:
        n, _, t = clips.shape[:3]
        light = self.relu(self.conv(clips.transpose(1, 2).flatten(0, 1))).view(n, t, -1).mean((1, 2))
        return torch.stack([torch.full_like(light, 0.005), light], 1)

    def classify(self, windows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            out: np.ndarray = (
                (1000 * self(torch.from_numpy(windows).permute(0, 4, 1, 2, 3).float() / 255)).softmax(1).numpy()
            )
        return out


def test_a_mirrored_window_has_the_mirrored_map() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (4, 32, 48, 3), np.uint8)
    recipe = recipe_for("m", ("a", "b"), NetworkSettings(arch="cnn+tcn", fps=4, window=4), "actions")
    network = build_network(recipe)
    heat = mirrored_grad_cam(network, frames, recipe.preprocessing, 1)
    other = mirrored_grad_cam(network, np.ascontiguousarray(frames[:, :, ::-1]), recipe.preprocessing, 1)
    assert heat.max() == pytest.approx(1.0)
    np.testing.assert_allclose(other[:, :, ::-1], heat, atol=1e-5)


def test_grad_cam_points_at_what_the_answer_came_from() -> None:
    hits = []
    for seed in range(10):
        frames, boxes = clip(seed)
        heat = grad_cam(BrightThings(), frames, Preprocessing(), 1)
        assert heat.shape == (T, H, W) and heat.dtype == np.float32 and heat.min() >= 0 and heat.max() == 1
        hits.append(points_at(heat, boxes))
    assert np.mean(hits) == 1.0


def test_occlusion_points_at_it_too_and_needs_no_network() -> None:
    hits = []
    for seed in range(6):
        frames, boxes = clip(seed)
        hits.append(points_at(occlusion(BrightThings().classify, frames, 1, cells=(8, 10), moments=8), boxes, slack=4))
    assert np.mean(hits) >= 0.8


def test_occlusion_says_when() -> None:
    frames = np.full((T, H, W, 3), 60, np.uint8)
    frames[4:6, 10:22, 30:42] = 250  # a flash in two frames of eight
    heat = occlusion(BrightThings().classify, frames, 1, moments=4)
    t, y, x = np.unravel_index(int(heat.argmax()), heat.shape)
    assert t in (4, 5) and 6 <= y < 26 and 24 <= x < 48
    assert heat[:4].max() < 0.2 and heat[6:].max() < 0.2


@pytest.mark.parametrize("arch", ["cnn+gru", "cnn+tcn", "r3d_18", "slowfast_r50_4x16"])
def test_grad_cam_asks_every_family_with_maps(arch: str) -> None:
    args = {"frames": 8, "alpha": 4, "width": 16, "depths": [1, 1, 1, 1]} if arch.startswith("slowfast") else {}
    size = {"mode": "stretch", "height": 64, "width": 64}
    recipe = recipe_for("x", ("a", "b"), NetworkSettings(arch=arch, window=8, size=size, args=args), "actions")
    torch.manual_seed(0)
    network = build_network(recipe)
    frames = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), np.uint8)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    heat = grad_cam(network, frames, recipe.preprocessing, 1)
    assert heat.shape == (8, 64, 64) and np.isfinite(heat).all()
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())


def test_random_weights_change_the_map() -> None:
    """Adebayo et al. 2018: the map must be of the network, not of the picture."""
    from scipy.stats import spearmanr

    size = {"mode": "stretch", "height": H, "width": W}
    recipe = recipe_for("x", ("a", "b"), NetworkSettings(arch="cnn+gru", window=T, size=size), "actions")
    frames, _ = clip(0)

    def heat(seed: int) -> np.ndarray:
        return grad_cam(randomise(recipe, seed), frames, recipe.preprocessing, 1)

    # Weights against which no place speaks for the class give an empty map.
    maps = [m for m in map(heat, range(8)) if m.any()]
    assert len(maps) >= 3 and np.array_equal(heat(1), heat(1))
    alike = [abs(spearmanr(a.ravel(), b.ravel()).statistic) for a, b in pairwise(maps)]
    assert np.mean(alike) < 0.7


def find_bright(frames: np.ndarray) -> Detections:
    """A detector whose reasons are known: the box around what is brighter than 200."""
    rows = []
    for i, frame in enumerate(frames):
        ys, xs = np.nonzero(frame[..., 0] > 200)
        if len(ys):
            box = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32)
            rows.append(Detections(np.array([i]), box, np.float32([min(1.0, len(ys) / 144)]), np.array([0])))
    return Detections.concatenate(rows)


def test_occlusion_of_a_box_falls_on_the_object() -> None:
    for seed in range(5):
        frames, boxes = clip(seed)
        heat = occlusion_box(find_bright, frames[3], 0, boxes[3], cells=(8, 10))
        assert heat.shape == (1, H, W) and points_at(heat, [boxes[3]], slack=4)


def detector() -> Recipe:
    size = {"mode": "stretch", "height": 96, "width": 128}
    network = NetworkSettings(arch="fasterrcnn_mobilenet_v3_large_320_fpn", size=size)
    return replace(recipe_for("boxes", ("cat", "dog"), network, "detector"), score_threshold=0.0)


def test_grad_cam_asks_a_detector_for_one_box() -> None:
    recipe = detector()
    network = randomise(recipe, 3)
    frame = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    heat = grad_cam_box(network, recipe, frame, 1, np.array([[20, 20, 60, 60.0]]))
    assert heat.shape == (1, 96, 128) and np.isfinite(heat).all() and heat.max() == 1


# The command


def model_folder(path: Path, recipe: Recipe) -> str:
    write_model(open_storage(str(path)), recipe, tensor_bytes(randomise(recipe, 5)))
    return str(path)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("explain") / "v.mp4"
    return str(make_video(path, seconds=2, fps=10, size=(W, H)).path)


@pytest.mark.parametrize("method", ["auto", "occlusion"])
def test_an_action_of_a_file_is_explained_and_drawn(method: Any, video: str, tmp_path: Path) -> None:
    size = {"mode": "stretch", "height": H, "width": W}
    recipe = recipe_for("acts", ("a", "b"), NetworkSettings(arch="cnn+gru", fps=10, window=6, size=size), "actions")
    settings = ExplainSettings(
        model=model_folder(tmp_path / "m", recipe),
        kind="actions",
        out=str(tmp_path / "out"),
        video=video,
        time_s=0.5,
        method=method,
        device="cpu",
        cells=(3, 3),
        moments=2,
    )
    made = explain(settings)
    assert made.method == ("grad-cam" if method == "auto" else "occlusion")
    assert made.label in ("a", "b") and 0.5 <= made.score <= 1 and made.heat.shape == (6, H, W)
    assert 0.5 <= made.peak[0] < 1.1 and 0 <= made.peak[1] <= W and 0 <= made.peak[2] <= H
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 18  # its six frames, three times over
    with Image.open(tmp_path / "out" / "overlay.png") as image:
        assert image.width == 4 * 256 and image.height > 2 * 192  # four moments, with heat and without
    said = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert said["label"] == made.label and said["model"].startswith("acts@") and len(made.files) == 3
    other = explain(replace(settings, label="b" if made.label == "a" else "a"))
    assert other.label != made.label and other.score == pytest.approx(1 - made.score, abs=1e-5)
    with pytest.raises(ConfigError, match="has no label 'jump'"):
        explain(replace(settings, label="jump"))


def test_a_detection_of_a_file_is_explained(video: str, tmp_path: Path) -> None:
    settings = ExplainSettings(
        model=model_folder(tmp_path / "m", detector()),
        kind="detector",
        out=str(tmp_path / "out"),
        video=video,
        time_s=1.0,
        device="cpu",
    )
    made = explain(settings)
    assert made.method == "grad-cam" and made.label in ("cat", "dog") and made.heat.shape == (1, 96, 128)
    with Image.open(io.BytesIO((tmp_path / "out" / "overlay.png").read_bytes())) as image:
        assert image.size == (512, 216)  # the frame and the frame with the heat, doubled to be seen, and a line


def test_the_embedded_detectors_maps_fall_on_what_it_found() -> None:
    """The pointing game on drawn scenes: at least 8 of 10 peaks in the box; with random weights the map changes."""
    model = load_model("demo", device="cpu", settings=ModelSettings(kind="detector"))
    network: Any = tiny.load_network("detector")
    torch.manual_seed(0)
    blind = tiny.DetectorNet(len(model.card.labels), network.width).eval()
    hits, alike = [], []
    for seed in range(2_090_000, 2_090_020):
        scene = Scene.generate(seed, SceneSettings(seconds=1.0), kind=("street", "activity")[seed % 2])  # type: ignore[arg-type]
        frame, _ = fit_image(scene.frame(0), model.card.grid.size)
        found = model.detect(frame[None])  # type: ignore[union-attr]
        if len(found):
            best = int(found.score.argmax())
            box, class_id = found.boxes[best : best + 1], int(found.class_id[best])
            heat = grad_cam_peak(network, frame, class_id, box)
            hits.append(points_at(heat, [box], slack=4))
            alike.append(np.corrcoef(heat.ravel(), grad_cam_peak(blind, frame, class_id, box).ravel())[0, 1])
    assert len(hits) >= 15 and np.mean(hits) >= 0.8
    assert np.mean(np.abs(alike)) < 0.8


def test_a_row_is_explained_by_the_model_that_wrote_it(video: str, tmp_path: Path) -> None:
    """`vidproc explain LAKE --row ...` and no more: the run knows its model, and how many frames a second it saw."""
    lake = str(tmp_path / "lake")
    folder = model_folder(tmp_path / "m", detector())
    models = {"detector": {"model": folder, "score_threshold": 0.0, "fps": 5.0}, "actions": "demo"}
    execution = {"executor": "inline", "device": "cpu"}
    index(load_job(None, {"archive": str(Path(video).parent), "lake": lake, "execution": execution} | models))

    def asked(*words: str) -> Any:
        return CliRunner().invoke(app, ["explain", lake, str(tmp_path / "why"), *words])

    found = asked("--row", "d.time_s > 1", "--json")
    assert found.exit_code == 0, found.output
    said = json.loads((tmp_path / "why" / "explanation.json").read_text())
    assert said["model"].startswith("boxes@") and said["time_s"] > 1 and said["label"] in ("cat", "dog")
    assert json.loads(found.output)["peak"]["time_s"] == said["time_s"]
    action = asked("--kind", "actions", "--row", "d.rank = 1")
    assert action.exit_code == 0 and "by grad-cam" in action.output, action.output
    assert json.loads((tmp_path / "why" / "explanation.json").read_text())["model"].startswith("demo-actions@")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "of somebody else"))
        assert f"names the model {folder}" in said_of(asked("--row", "d.time_s > 1")), "whoever wrote the lake chose it"
        assert asked("--row", "d.time_s > 1", "--model", folder).exit_code == 0

    assert "no row of detections fits d.score > 2" in said_of(asked("--row", "d.score > 2"))
    write_model(open_storage(folder), detector(), tensor_bytes(randomise(detector(), 6)))
    assert "the row is of boxes@" in said_of(asked("--row", "d.time_s > 1"))
    shutil.rmtree(folder)
    assert "/m" in said_of(asked("--row", "d.time_s > 1"))


def said_of(failed: Any) -> str:
    """Errors leave the command as they are; `main` prints them."""
    assert isinstance(failed.exception, ConfigError), failed.output
    return str(failed.exception)


def test_the_embedded_action_models_maps_fall_on_the_one_who_moved() -> None:
    """The pointing game in space and time, in drawn rooms with noise and a shaking camera; with random weights the
    map is another."""
    recipe = embedded_recipe()
    network, blind = load_network(recipe), randomise(recipe)
    settings = SceneSettings(seconds=6.0, fps=Fraction(8), actions=("sit_down", "stand_up", "fall", "get_up", "jump"))
    hits, alike = [], []
    for seed in range(2_095_000, 2_095_012):
        scene = Scene.generate(seed, settings, kind="activity")
        truth = scene.truth("x")
        for s in [s for s in truth.segments if s.label in settings.actions and s.end_s - s.start_s >= 0.8][:2]:
            first = round((s.start_s + s.end_s) / 2 * 8) - 4
            fitted = [fit_image(scene.frame(k), recipe.grid.size) for k in range(first, first + 8)]
            frames, scale = np.stack([f for f, _ in fitted]), np.array([fitted[0][1].scale_x, fitted[0][1].scale_y] * 2)
            actor = [
                np.array([(b.x_min, b.y_min, b.x_max, b.y_max)], np.float64)
                for k in range(first, first + 8)
                for b in scene.boxes(k)
                if b.track_id == s.track_id
            ]
            if len(actor) == 8:
                class_id = recipe.labels.index(s.label)
                heat = grad_cam(network, frames, recipe.preprocessing, class_id)
                hits.append(points_at(heat, [b * scale for b in actor], slack=4))
                other = grad_cam(blind, frames, recipe.preprocessing, class_id)
                alike.append(np.corrcoef(heat.ravel(), other.ravel())[0, 1])
    assert len(hits) >= 12 and np.mean(hits) >= 0.8, hits
    assert np.nanmean(np.abs(alike)) < 0.8, alike


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": "/no/such/folder/v.mp4"}, "no/such/folder"),
        ({"model": None}, "say which model is to be asked about /v.mp4"),
        ({"lake": "x"}, "either a video, or a lake and a row"),
        ({"method": "lime"}, "method must be auto"),
        ({"cells": (1, 1)}, "cells from 2 x 2"),
    ],
)
def test_what_cannot_be_explained_is_said(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    base: dict[str, Any] = {"model": "r3d_18", "kind": "actions", "out": str(tmp_path), "video": "/v.mp4"}
    with pytest.raises(ConfigError, match=message):
        explain(ExplainSettings(**base | changes))


def test_the_overlay_shows_heat_and_boxes_and_odd_sizes_can_be_encoded() -> None:
    frames = np.full((3, 31, 41, 3), 100, np.uint8)
    heat = np.zeros((3, 31, 41), np.float32)
    heat[:, 5:10, 5:10] = 1
    drawn = overlay(frames, heat, np.array([[20, 10, 30, 20]]))
    assert drawn[0, 7, 7, 0] > 150 > drawn[0, 25, 35, 0] and (drawn[0, 10, 25] == 255).all()
    with av.open(io.BytesIO(write_mp4(drawn, 30.0))) as container:
        shown = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(shown) == 15 and shown[0].shape == (248, 328, 3)
    where = captioned(drawn, heat, [0.0, 0.1, 0.2], "falls 0.9")
    assert where.shape[:1] + where.shape[2:] == (3, 328, 3) and where.shape[1] > 248
    assert not np.array_equal(where[0], where[1])  # the mark moves on
    untouched = overlay(frames, np.zeros_like(heat))
    assert np.array_equal(untouched, frames)
