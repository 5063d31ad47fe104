"""The two surfaces of a model, and the card by which it introduces itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vidproc.annotations import Detections
from vidproc.media import Grid
from vidproc.settings import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    name: str
    kind: Kind
    labels: tuple[str, ...]
    """The label of class i is labels[i]."""
    grid: Grid
    licence: str
    weights_uri: str
    """Where the weights came from; empty for a model without any."""
    weights_sha256: str
    """Hash of the weights as loaded, or of what defines a model without any."""
    definition: str = ""
    """Hash of all else that decides what it answers (preprocessing, decoding, thresholds); may be
    empty where the weights and the code say it all."""

    @property
    def ref(self) -> str:
        """name@short hash: what the tables' `model` column holds."""
        return f"{self.name}@{self.weights_sha256[:8]}"


class Detector(Protocol):
    """Finds objects in frames."""

    card: ModelCard

    def detect(self, frames: np.ndarray) -> Detections:
        """uint8 (n, h, w, 3) RGB, sized as the card's grid asks -> boxes in pixels of those frames."""


class ActionModel(Protocol):
    """Names what happens in windows of frames."""

    card: ModelCard

    def classify(self, windows: np.ndarray) -> np.ndarray:
        """uint8 (n, t, h, w, 3) RGB -> float32 (n, classes), scores from 0 to 1."""


class EmbeddingModel(Protocol):
    """Turns windows of frames (of one frame, for an image model) into vectors that can be compared."""

    card: ModelCard

    def embed(self, windows: np.ndarray) -> np.ndarray:
        """uint8 (n, t, h, w, 3) RGB -> float32 (n, d)."""


Model = Detector | ActionModel | EmbeddingModel
