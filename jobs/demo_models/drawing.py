"""Drawn examples, kept as JPEG: that takes a tenth of the memory and leaves traces of compression as video has."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vidproc.demo.scene import Scene
from vidproc.demo.score import label_of_window
from vidproc.demo.settings import Kind, SceneSettings
from vidproc.demo.truth import Box
from vidproc.models.tiny import (
    ACTIONS_GRID,
)


@dataclass(frozen=True, slots=True)
class Shown:
    jpeg: bytes
    boxes: tuple[Box, ...]

    def pixels(self) -> np.ndarray:
        return np.asarray(cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR))


@dataclass(frozen=True, slots=True)
class Played:
    """A scene at the action model's rate and size."""

    jpegs: tuple[bytes, ...]
    labels: tuple[str | None, ...]
    """Action in the window that begins with that frame; None: not clear."""

    def window(self, start: int) -> np.ndarray:
        n = ACTIONS_GRID.window
        return np.stack(
            [cv2.imdecode(np.frombuffer(j, np.uint8), cv2.IMREAD_COLOR) for j in self.jpegs[start : start + n]]
        )


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def draw_frames(order: tuple[int, Kind, int]) -> list[Shown]:
    """A few moments of one scene, at its own size."""
    cv2.setNumThreads(1)
    seed, kind, count = order
    scene = Scene.generate(seed, kind=kind)
    rng = np.random.default_rng((seed, 7))
    times = np.sort(rng.uniform(0, scene.settings.seconds, count))
    return [Shown(_jpeg(scene.picture(t), int(rng.integers(70, 97))), scene.boxes_at(t)) for t in times]


def draw_windows(order: tuple[int, Kind]) -> Played:
    cv2.setNumThreads(1)
    seed, kind = order
    scene = Scene.generate(seed, SceneSettings(seconds=9.0), kind=kind)
    rng = np.random.default_rng((seed, 8))
    grid, size = ACTIONS_GRID, (ACTIONS_GRID.size.width, ACTIONS_GRID.size.height)
    fps, offset = float(grid.fps), float(rng.uniform(0, 1 / grid.fps))
    quality = int(rng.integers(80, 97))
    jpegs, labels = [], []
    truth = scene.truth("", boxes=False)
    for k in range(int(scene.settings.seconds * fps)):
        t = k / fps + offset
        small = cv2.resize(scene.picture(t), size, interpolation=cv2.INTER_AREA)
        jpegs.append(_jpeg(small, quality))
        labels.append("" if kind == "street" else label_of_window(truth, t, t + grid.window / fps))
    return Played(tuple(jpegs), tuple(labels[: len(jpegs) - grid.window + 1]))


def detector_orders(first: int, scenes: int, frames: int) -> list[tuple[int, Kind, int]]:
    return [(first + i, "activity" if i % 3 == 2 else "street", frames) for i in range(scenes)]


def action_orders(first: int, scenes: int) -> list[tuple[int, Kind]]:
    return [(first + i, "street" if i % 8 == 7 else "activity") for i in range(scenes)]
