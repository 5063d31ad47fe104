"""What is to be explained and how, and the explanation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vidproc.errors import ConfigError

Method = Literal["auto", "grad-cam", "occlusion"]
Kind = Literal["detector", "actions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainSettings:
    kind: Kind
    out: str
    """Folder or s3:// prefix for overlay.mp4, overlay.png and explanation.json."""
    video: str | None = None
    """Path or URI; or give `lake` and `row`."""
    time_s: float = 0.0
    """Time of the frame (detector), or of the first sample of the window (actions), in seconds."""
    lake: str | None = None
    row: str | None = None
    """SQL condition that picks a row of detections or actions; the one that scored best is taken."""
    pipeline: str | None = None
    model: str | None = None
    """A name or folder; None: the one that wrote the row, with the settings of the run that wrote it."""
    label: str | None = None
    """Label to explain. None: the one that scored best."""
    method: Method = "auto"
    """auto: grad-cam where the network is one of torch with maps of features, else occlusion."""
    cells: tuple[int, int] = (8, 8)
    """Occlusion: places down and across; each patch covers 2 x 2 of them."""
    moments: int = 4
    """Occlusion: number of parts into which the window is cut; each is hidden in turn."""
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.method not in ("auto", "grad-cam", "occlusion"):
            raise ConfigError(f"the method must be auto, grad-cam or occlusion, not {self.method!r}")
        if self.kind not in ("detector", "actions"):
            raise ConfigError(f"the kind must be detector or actions, not {self.kind!r}")
        if (self.video is None) == (self.lake is None) or (self.lake is None) != (self.row is None):
            raise ConfigError("give either a video, or a lake and a row of it")
        if self.video is not None and self.model is None:
            raise ConfigError(f"say which model is to be asked about {self.video}")
        if min(self.cells) < 2 or self.moments < 1:
            raise ConfigError(f"cells from 2 x 2, moments from 1: {self}")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Explanation:
    label: str
    score: float
    method: str
    peak: tuple[float, float, float]
    """time_s, x, y of the highest value: seconds, and pixels of the upright frame."""
    heat: np.ndarray
    """float32 (t, h, w), 0 to 1, over the model's frames."""
    files: tuple[str, ...]
