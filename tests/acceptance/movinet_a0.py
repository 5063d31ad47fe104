"""A user's action model, as it would lie outside the package: MoViNet-A0 (Kondratyuk et al., CVPR 2021)
as an ONNX graph over clips of 16 frames, run by onnxruntime. Given as `movinet_a0:MoViNetA0`, with the
graph as the job's `weights` and a file of its 600 labels as the option `labels`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime

from vidproc.media import FrameSize, Grid
from vidproc.models import ModelCard, ModelSettings
from vidproc.models.fetching import file_sha256

SIDE, FRAMES = 172, 16


class MoViNetA0:
    def __init__(self, settings: ModelSettings) -> None:
        self.card = self.describe(settings)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads or 1
        self._session = onnxruntime.InferenceSession(settings.weights, options, providers=["CPUExecutionProvider"])

    @staticmethod
    def describe(settings: ModelSettings) -> ModelCard:
        """The card without the graph in memory."""
        return ModelCard(
            name="movinet_a0",
            kind="actions",
            labels=tuple(Path(settings.options["labels"]).read_text().split("\n")[:600]),
            grid=Grid(
                fps=Fraction(5),
                size=FrameSize(mode="crop", short_side=SIDE, height=SIDE, width=SIDE),
                window=FRAMES,
                stride=settings.stride or FRAMES // 2,
            ),
            licence="Apache-2.0",
            weights_uri=str(settings.weights),
            weights_sha256=file_sha256(str(settings.weights)),
        )

    def classify(self, windows: np.ndarray) -> np.ndarray:
        """uint8 (n, 16, 172, 172, 3) RGB -> float32 (n, 600)."""
        parts = [np.zeros((0, len(self.card.labels)), np.float32)]
        for window in windows:
            clip = np.ascontiguousarray(window.transpose(3, 0, 1, 2)[None], np.float32) / 255
            (logits,) = self._session.run(None, {"clip": clip})
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            parts.append((odds / odds.sum(axis=1, keepdims=True)).astype(np.float32))
        return np.concatenate(parts)
