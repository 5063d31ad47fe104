"""Models of a user's own that read what tests/support/media.py draws: exact, instant, and sensitive to every
mistake in sampling, sharding or geometry. They come in as `tests.support.fakes:Name`, as any user's model does."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from fractions import Fraction

import numpy as np

from tests.support.media import read_number
from vidproc.annotations import Detections
from vidproc.media import FrameSize, Grid
from vidproc.models import ModelCard, ModelSettings

SIZE = FrameSize(mode="stretch", height=64, width=96)
SHA = hashlib.sha256(b"tests.support.fakes 1").hexdigest()


def card(kind: str, labels: tuple[str, ...], grid: Grid, name: str) -> ModelCard:
    return ModelCard(
        name=name, kind=kind, labels=labels, grid=grid, licence="Apache-2.0", weights_uri="", weights_sha256=SHA
    )  # type: ignore[arg-type]


class Numbers:
    """A detector: in each frame one box whose place says the frame's number; odd numbers are people."""

    def __init__(self, settings: ModelSettings) -> None:
        fps = Fraction(settings.fps or 4).limit_denominator(1000)
        self.card = card("detector", ("car", "person"), Grid(fps=fps, size=SIZE), "numbers")

    def detect(self, frames: np.ndarray) -> Detections:
        n = len(frames)
        numbers = np.array([read_number(f) for f in frames], np.int64)
        x = (numbers % 64).astype(np.float32)
        y = (numbers // 64).astype(np.float32)
        boxes = np.stack([x, y, x + 24, y + 32], axis=1).reshape(n, 4)
        return Detections(np.arange(n), boxes, np.full(n, 0.9, np.float32), numbers % 2)


class Order:
    """An action model: windows of four frames, named by whether their numbers rise."""

    def __init__(self, settings: ModelSettings) -> None:
        fps = Fraction(settings.fps or 5).limit_denominator(1000)
        self.card = card("actions", ("falls", "rises", "stays"), Grid(fps=fps, size=SIZE, window=4, stride=2), "order")

    def classify(self, windows: np.ndarray) -> np.ndarray:
        out = np.full((len(windows), 3), 0.05, np.float32)
        for i, window in enumerate(windows):
            first, last = read_number(window[0]), read_number(window[-1])
            out[i, 1 if last > first else 0 if last < first else 2] = 0.8 + 0.0001 * (first % 1000)
        return out


class Fragile(Numbers):
    """The same, but it does what VIDPROC_TEST_FAULT says when it sees a frame of number 13."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.card = card("detector", self.card.labels, self.card.grid, "fragile")

    def detect(self, frames: np.ndarray) -> Detections:
        fault = os.environ.get("VIDPROC_TEST_FAULT", "")
        if fault and any(read_number(f) == 13 for f in frames):
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "hang":
                time.sleep(3600)
            raise RuntimeError("a model that cannot stand the number 13")
        return super().detect(frames)


class Slow(Numbers):
    """The same, slowly: a run that can be interrupted."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.card = card("detector", self.card.labels, self.card.grid, "slow")

    def detect(self, frames: np.ndarray) -> Detections:
        time.sleep(0.05 * len(frames))
        return super().detect(frames)


class Pairs:
    """An embedding: two frames that follow each other, as a vector that says which."""

    def __init__(self, settings: ModelSettings) -> None:
        fps = Fraction(settings.fps or 3).limit_denominator(1000)
        self.card = card("embedding", (), Grid(fps=fps, size=SIZE, window=2), "pairs")

    def embed(self, windows: np.ndarray) -> np.ndarray:
        numbers = [[read_number(frame) for frame in window] for window in windows]
        return np.array([[a, b, a - b] for a, b in numbers], np.float32)
