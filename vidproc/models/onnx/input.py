"""What a graph takes: one batch of frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidproc.errors import ConfigError
from vidproc.media import FrameSize
from vidproc.models.onnx.graph_file import GraphValue
from vidproc.models.recipe import Preprocessing, Recipe

_DTYPES: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8}
_NAMELESS = frozenset(("", "?", "-1", "None", "none", "unknown", "unk"))
"""What exporters call an open size when they give it no name."""


class GraphInput:
    """What the graph wants to be given. Raises ConfigError for a graph that does not take frames alone."""

    def __init__(self, inputs: Sequence[GraphValue], path: Path) -> None:
        listed = "; ".join(str(i)[:120] for i in inputs[:6]) or "none"
        if len(inputs) != 1:
            raise ConfigError(
                f"{path}: the graph has {len(inputs)} inputs ({listed}), and a detector is given frames alone. Export "
                "it with one input: what else it asks for (image sizes, thresholds) goes into the graph as constants."
            )
        (taken,) = inputs
        if taken.element not in _DTYPES:
            raise ConfigError(
                f"{path}: the graph's input is {taken}, and frames are given as {', '.join(_DTYPES)}. Export it with "
                "one of these, or put a Cast in front."
            )
        shape = taken.shape
        wanted = "a batch of frames, (n, 3, height, width) or (n, height, width, 3)"
        if shape is None or len(shape) != 4:
            raise ConfigError(f"{path}: the graph's input is {taken}, not {wanted}. Export it with such an input.")
        sizes = [None if isinstance(side, str) or side == -1 else side for side in shape]
        if any(side is not None and side < 1 for side in sizes):
            raise ConfigError(f"{path}: the graph's input is {taken}: no frames have such sizes. Export it again.")
        self.name: str = taken.name
        self.dtype = _DTYPES[taken.element]
        self.channels_last = sizes[3] == 3 and sizes[1] != 3
        if sizes[3 if self.channels_last else 1] not in (3, None):
            raise ConfigError(
                f"{path}: the graph's input is {taken}, not {wanted}. Frames have three channels, red, green and blue."
            )
        self.batch: int | None = sizes[0]
        rows, columns = (1, 2) if self.channels_last else (2, 3)
        self.height: int | None = sizes[rows]
        self.width: int | None = sizes[columns]
        names = [side if isinstance(side, str) and side not in _NAMELESS else i for i, side in enumerate(shape)]
        self.square = names[rows] == names[columns]
        others = {names[i] for i in range(4) if i != 0}
        if names[0] in others or names[6 - rows - columns] in {names[rows], names[columns]}:
            raise ConfigError(
                f"{path}: the graph's input is {taken}: one name stands for the number of frames or channels and for a "
                "side, which then must be equal. Export it with names of their own for the open sizes."
            )

    def bytes_of(self, height: int, width: int) -> int:
        """Return the bytes of the input of one pass: over one frame, or over the graph's fixed batch."""
        return (self.batch or 1) * 3 * height * width * int(np.dtype(self.dtype).itemsize)

    def accepts(self, height: int, width: int) -> bool:
        fits = self.height in (None, height) and self.width in (None, width)
        return fits and (not self.square or height == width)

    def prepare(self, frames: np.ndarray, recipe: Recipe) -> np.ndarray:
        """uint8 (n, h, w, 3) RGB -> the graph's input."""
        p = recipe.preprocessing
        x = frames[..., ::-1] if p.color == "bgr" else frames
        if not self.channels_last:
            x = x.transpose(0, 3, 1, 2)
        if not is_identity(p):
            axes = (1, 1, 1, 3) if self.channels_last else (1, 3, 1, 1)
            mean, std = (np.array(v, np.float32).reshape(axes) for v in (p.mean, p.std))
            x = (x * np.float32(1 / p.divisor) - mean) / std
        return np.ascontiguousarray(x, dtype=self.dtype)


def example_size(size: FrameSize) -> tuple[int, int]:
    """Height and width of a frame as the grid would have it."""
    return (size.height, size.width) if size.mode in ("letterbox", "stretch", "crop") else (360, 640)


def is_identity(p: Preprocessing) -> bool:
    return (p.divisor, p.mean, p.std) == (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
