"""Labels as plain values: frames with boxes, and clips with a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vidproc.media import Video

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LabelledFrame:
    """An image, or a frame of a video, with the boxes in it."""

    where: str
    """File and key, for messages."""
    image_id: int
    source: Video
    """The video, or the image file."""
    time_s: float | None
    """On the video's clock; None: the source is an image."""
    width: int
    height: int
    boxes: np.ndarray
    """float32 (m, 4): x_min, y_min, x_max, y_max in pixels of the upright frame."""
    class_id: np.ndarray
    """int64 (m,): index into the labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledClip:
    """A time range of a video in which one thing happens."""

    where: str
    source: Video
    start_s: float
    end_s: float | None
    """None: to the end of the video."""
    class_id: int


@dataclass(frozen=True, slots=True, eq=False)
class DetectionLabels:
    labels: tuple[str, ...]
    frames: tuple[LabelledFrame, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ActionLabels:
    labels: tuple[str, ...]
    clips: tuple[LabelledClip, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledMoment:
    """When an image of a COCO file is on screen."""

    image_id: Any
    source: Video
    time_s: float
