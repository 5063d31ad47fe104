"""The embedded pair: what it answers, how it refuses, and that the job makes the same weights again."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vidproc.demo.acts import ACTIONS
from vidproc.demo.scene import Scene
from vidproc.demo.score import AveragePrecision, Found, label_of_window
from vidproc.demo.settings import DEMO_SEED, HEIGHT, TRAIN_SEEDS, VALIDATION_SEED, WIDTH, SceneSettings
from vidproc.demo.truth import LABELS
from vidproc.errors import ConfigError
from vidproc.models import tiny
from vidproc.models.settings import ModelSettings

ROOT = Path(__file__).resolve().parents[2]
CPU = ModelSettings(device="cpu", threads=1)


@pytest.fixture(scope="module")
def detector():
    return tiny.load("detector", settings=CPU)


@pytest.fixture(scope="module")
def actions():
    return tiny.load("actions", settings=CPU)


def _small(scene: Scene, t: float, size) -> np.ndarray:
    return cv2.resize(scene.picture(t), (size.width, size.height), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def frames():
    """Frames of scenes that were never trained on, and the boxes in them."""
    scenes = [Scene.generate(DEMO_SEED + 500 + i, kind="activity" if i % 4 == 3 else "street") for i in range(24)]
    times = (1.0, 4.0, 8.0)
    size = tiny.DETECTOR_GRID.size
    return np.stack([_small(s, t, size) for s in scenes for t in times]), [s.boxes_at(t) for s in scenes for t in times]


def test_the_detector_finds_what_is_there(detector, frames):
    pixels, there = frames
    found = detector.detect(pixels)
    scale = np.array([WIDTH / pixels.shape[2], HEIGHT / pixels.shape[1]] * 2)
    average = AveragePrecision()
    for i, boxes in enumerate(there):
        here = found[found.frame == i]
        columns = zip(here.boxes, here.score, here.class_id, strict=True)
        average.add(boxes, [Found(LABELS[k], float(p), b * scale) for b, p, k in columns])
    assert np.mean(list(average.by_label().values())) >= 0.85
    assert average.by_label()["person"] >= 0.85


def test_the_action_model_tells_actions_apart(actions):
    size, window, fps = actions.card.grid.size, actions.card.grid.window, float(actions.card.grid.fps)
    windows, wanted = [], []
    for i in range(14):
        scene = Scene.generate(DEMO_SEED + 700 + i, SceneSettings(seconds=8.0), kind="activity")
        truth = scene.truth("", boxes=False)
        for start in np.arange(0, 7, 1.0):
            label = label_of_window(truth, start, start + window / fps)
            if label is not None:
                windows.append(np.stack([_small(scene, start + k / fps, size) for k in range(window)]))
                wanted.append(label)
    scores = actions.classify(np.stack(windows))
    right = [actions.card.labels[s.argmax()] == w for s, w in zip(scores, wanted, strict=True)]
    assert len(right) > 40 and np.mean(right) >= 0.85


def test_a_street_is_none_of_the_actions(actions):
    size = actions.card.grid.size
    scenes = [Scene.generate(DEMO_SEED + 800 + i, kind="street") for i in range(6)]
    windows = np.stack([[_small(s, 3 + k / 8, size) for k in range(8)] for s in scenes])
    scores = actions.classify(windows)
    assert (scores.sum(1) < 1).all() and (scores.max(1) < 0.5).mean() >= 0.8


@pytest.mark.parametrize("batch", [1, 3])
def test_answers_do_not_depend_on_the_batch(detector, actions, frames, batch):
    settings = ModelSettings(device="cpu", threads=1, batch_size=batch)
    pixels = frames[0][:7]
    one, other = detector.detect(pixels), tiny.load("detector", settings=settings).detect(pixels)
    assert np.array_equal(one.frame, other.frame) and np.array_equal(one.class_id, other.class_id)
    assert np.allclose(one.boxes, other.boxes, atol=0.01) and np.allclose(one.score, other.score, atol=1e-4)

    windows = np.random.default_rng(0).integers(0, 255, (5, 8, 96, 128, 3), dtype=np.uint8)
    again = tiny.load("actions", settings=settings).classify(windows)
    assert np.allclose(actions.classify(windows), again, atol=1e-4)


def test_columns_are_as_promised(detector, actions, frames):
    pixels = frames[0][:3].copy()
    pixels.flags.writeable = False  # as frames of the shared-memory store are
    found = detector.detect(pixels)
    assert len(found) > 0
    assert found.frame.dtype == np.int64 and (np.diff(found.frame) >= 0).all()
    assert found.boxes.dtype == np.float32 and found.class_id.dtype == np.int64
    assert (found.boxes[:, :2] < found.boxes[:, 2:]).all() and found.boxes.min() >= 0
    assert found.boxes[:, 2].max() <= 256 and found.boxes[:, 3].max() <= 192
    assert (found.score >= tiny.SCORE_THRESHOLD).all()
    nothing = detector.detect(np.zeros((0, 192, 256, 3), np.uint8))
    assert len(nothing) == 0
    assert actions.classify(np.zeros((0, 8, 96, 128, 3), np.uint8)).shape == (0, len(ACTIONS))


def test_folding_the_normalisation_changes_nothing():
    network = tiny.load_network("detector")
    images = torch.from_numpy(np.random.default_rng(1).uniform(0, 255, (1, 3, 64, 96)).astype(np.float32))
    with torch.inference_mode():
        heat, sides = network(images)
        fused_heat, fused_sides = tiny.fused(network)(images)
    assert torch.allclose(heat, fused_heat, atol=1e-3) and torch.allclose(sides, fused_sides, rtol=1e-3)


def test_the_cards_say_what_the_models_are():
    detector, actions = tiny.describe("detector"), tiny.describe("actions", ModelSettings(stride=2))
    assert detector.labels == LABELS and actions.labels == ACTIONS
    assert (detector.name, detector.kind, detector.licence) == ("demo-detector", "detector", "Apache-2.0")
    assert (actions.grid.window, actions.grid.stride) == (8, 2)
    assert tiny.describe("detector", ModelSettings(fps=2)).grid.fps == Fraction(2)
    folder = ROOT / "vidproc" / "models" / "demo"
    assert sum(p.stat().st_size for p in folder.glob("*.safetensors")) < 12e6


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("actions", ModelSettings(window=16), "windows of exactly 8 frames, not 16"),
        ("detector", ModelSettings(stride=2), "single frames"),
        ("detector", ModelSettings(kind="actions"), "of kind detector, but it was given as actions"),
        ("detector", ModelSettings(size=(100, 256)), "multiples of 32, not 100 x 256"),
        ("detector", ModelSettings(weights="other.safetensors"), "brings its own weights"),
    ],
)
def test_asking_for_what_it_cannot_do_fails(kind, settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny.load(kind, settings=settings)


def test_scenes_to_learn_from_are_never_shown_again():
    sys.path.insert(0, str(ROOT / "jobs"))
    try:
        import train_demo_models as job
    finally:
        sys.path.pop(0)
    settings = job.TrainSettings(seed=49)
    assert settings.detector_scenes < 10_000 and settings.action_scenes < 10_000
    assert job.first_scene(49) + 20_000 - 1 in TRAIN_SEEDS
    assert VALIDATION_SEED not in TRAIN_SEEDS and DEMO_SEED - VALIDATION_SEED > 20_000


def test_training_again_makes_the_same_weights(tmp_path):
    def weights(folder: str, seed: int) -> dict[str, bytes]:
        command = [sys.executable, "jobs/train_demo_models.py", "--steps-scale", "0.001", "--seed", str(seed)]
        subprocess.run([*command, "--out", str(tmp_path / folder)], cwd=ROOT, check=True, capture_output=True)
        return {p.name: p.read_bytes() for p in (tmp_path / folder).glob("*.safetensors")}

    once, again, other = weights("once", 1), weights("again", 1), weights("other", 2)
    assert once.keys() == {"detector.safetensors", "actions.safetensors"}
    assert once == again
    assert all(once[name] != other[name] for name in once)
