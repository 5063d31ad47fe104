"""Models that cost next to nothing, so that what remains is vidproc and decoding. They come in by
`tests.benchmarks.models:Name`, as any user's model does."""

from __future__ import annotations

import hashlib
import time
from fractions import Fraction
from typing import Literal

import numpy as np

from vidproc.annotations import Detections
from vidproc.media import FrameSize, Grid
from vidproc.models import ModelCard, ModelSettings


def _card(name: str, kind: Literal["detector", "actions"], grid: Grid) -> ModelCard:
    return ModelCard(
        name=name,
        kind=kind,
        labels=("dark", "bright"),
        grid=grid,
        licence="Apache-2.0",
        weights_uri="",
        weights_sha256=hashlib.sha256(name.encode()).hexdigest(),
    )


class Brightness:
    """A detector: one box a frame, labelled by how bright one pixel is."""

    def __init__(self, settings: ModelSettings) -> None:
        size = FrameSize(mode="letterbox", height=416, width=416)
        self.card = _card("brightness", "detector", Grid(fps=Fraction(settings.fps or 2), size=size))

    def detect(self, frames: np.ndarray) -> Detections:
        n = len(frames)
        boxes = np.tile(np.array([[100, 100, 200, 200]], np.float32), (n, 1))
        return Detections(np.arange(n), boxes, np.full(n, 0.9, np.float32), (frames[:, 8, 8, 0] > 127).astype(np.int64))


class Late(Brightness):
    """Keeps its first frames for ten seconds: meanwhile the decoders fill the window of tasks under way."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self._wait_s = 10.0

    def detect(self, frames: np.ndarray) -> Detections:
        time.sleep(self._wait_s)
        self._wait_s = 0.0
        return super().detect(frames)


class Change:
    """An action model: windows of 16 frames, named by whether they grow brighter."""

    def __init__(self, settings: ModelSettings) -> None:
        size = FrameSize(mode="crop", height=112, width=112, short_side=128)
        grid = Grid(fps=Fraction(settings.fps or 5), size=size, window=16, stride=8)
        self.card = _card("change", "actions", grid)

    def classify(self, windows: np.ndarray) -> np.ndarray:
        brighter = windows[:, -1, 8, 8, 0] > windows[:, 0, 8, 8, 0]
        return np.stack([~brighter, brighter], axis=1).astype(np.float32)
