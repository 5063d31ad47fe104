"""A model for frames that the caller has in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from vidproc.extras import named_extras

if TYPE_CHECKING:
    import numpy as np

    from vidproc.annotations import Detections
    from vidproc.models import ActionModel, Detector, EmbeddingModel, ModelCard
    from vidproc.models import Model as Network


def load_model(
    model: str | os.PathLike[str],
    *,
    kind: Literal["detector", "actions", "embedding"] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    score_threshold: float | None = None,
    max_detections: int = 100,
    nms_iou: float | None = None,
    half: bool = True,
    threads: int | None = None,
    weights: str | None = None,
    sha256: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Model:
    """Load a model, its weights on the device.

    model: a name of `vidproc models list`, an .onnx file with its description beside it, a model folder, or
        `package.module:Class`.
    kind: needed only where a name stands for models of several kinds, such as `demo`.
    device: `auto`, `cpu`, `cuda` or `cuda:N`. batch_size: frames or windows a forward pass. threads: on the CPU.
    score_threshold (0 to 1), max_detections (a frame), nms_iou (0 to 1): for detectors.
    half: 16-bit arithmetic on a GPU. weights, sha256: a file or address in place of the model's own weights.
    options: what the description of a model file says, or would say.

    Raises ConfigError for an unknown name, weights that are not here and cannot be fetched or do not fit, and a
    device that is not there.
    """
    with named_extras():
        from vidproc.models import ModelSettings
        from vidproc.models import load_model as load

        settings = ModelSettings(
            kind=kind, batch_size=batch_size, score_threshold=score_threshold, max_detections=max_detections,
            nms_iou=nms_iou, half=half, threads=threads, weights=weights, sha256=sha256, options=options or {},
        )  # fmt: skip
        return Model(load(os.fspath(model), device=device, settings=settings))


class Model:
    """A loaded model. Made by `vidproc.load_model`.

    It takes frames of any size, as uint8 RGB, and resizes them as the decoder does for an indexed video.
    """

    def __init__(self, network: Network) -> None:
        self._network = network

    def __repr__(self) -> str:
        return f"<vidproc.Model {self.card.ref}, {self.kind}, {len(self.labels)} labels>"

    @property
    def card(self) -> ModelCard:
        """Name, kind, labels, frame size, license and weights."""
        return self._network.card

    @property
    def kind(self) -> Literal["detector", "actions", "embedding"]:
        return self.card.kind

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of class i is labels[i]."""
        return self.card.labels

    def detect(self, frames: np.ndarray) -> Detections:
        """Find objects in frames.

        frames: uint8 (n, height, width, 3) RGB, or one frame (height, width, 3).
        Returns boxes in pixels of the given frames, ordered by frame.
        Raises TypeError where the model is no detector, and ValueError for frames of another type or shape.
        """
        self._must_be("detector")
        small, geometry = self._fitted(frames, "frames", 4)
        found = cast("Detector", self._network).detect(small)
        return type(found)(found.frame, geometry.to_upright(found.boxes), found.score, found.class_id)

    def classify(self, windows: np.ndarray) -> np.ndarray:
        """Name what happens in windows of frames.

        windows: uint8 (n, t, height, width, 3) RGB, or one window (t, height, width, 3); t as `card.grid.window`.
        Returns float32 (n, labels), scores from 0 to 1. Raises as `detect`.
        """
        self._must_be("actions")
        small, _ = self._fitted(windows, "windows", 5)
        return cast("ActionModel", self._network).classify(small)

    def embed(self, windows: np.ndarray) -> np.ndarray:
        """Turn windows of frames into vectors that can be compared.

        windows: as for `classify`. Returns float32 (n, d). Raises as `detect`.
        """
        self._must_be("embedding")
        small, _ = self._fitted(windows, "windows", 5)
        return cast("EmbeddingModel", self._network).embed(small)

    def _must_be(self, kind: str) -> None:
        if self.kind != kind:
            call = {"detector": "detect", "actions": "classify", "embedding": "embed"}[self.kind]
            raise TypeError(f"{self.card.name} is of kind {self.kind}: use {call}()")

    def _fitted(self, pixels: np.ndarray, what: str, dimensions: int) -> Any:
        import numpy as np

        from vidproc.video.frames import fitted

        pixels = np.asarray(pixels)
        if pixels.ndim == dimensions - 1:
            pixels = pixels[None]
        if pixels.dtype != np.uint8 or pixels.ndim != dimensions or pixels.shape[-1] != 3 or 0 in pixels.shape[1:]:
            shape = "(n, height, width, 3)" if dimensions == 4 else "(n, t, height, width, 3)"
            raise ValueError(f"{what} must be uint8 {shape} RGB, not {pixels.dtype} {pixels.shape}")
        window = self.card.grid.window
        if dimensions == 5 and pixels.shape[1] != window:
            raise ValueError(f"{self.card.name} takes windows of {window} frames, not {pixels.shape[1]}")
        flat, geometry = fitted(pixels.reshape(-1, *pixels.shape[-3:]), self.card.grid.size)
        return flat.reshape(*pixels.shape[:-3], *flat.shape[1:]), geometry
