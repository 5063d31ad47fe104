"""A Recipe: the description of a model as a value.

It is what model.yaml holds, what training writes, and what is made of torchvision's metadata. A family's loader turns
it into a model.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from vidproc.errors import ConfigError
from vidproc.media import FrameSize, Grid, content_hash
from vidproc.models.base import ModelCard
from vidproc.models.fetching import shown
from vidproc.models.settings import ModelSettings
from vidproc.secrets import refuse_credentials_in
from vidproc.settings import Kind

FAMILIES: dict[str, str] = {
    "torchvision-detection": "vidproc.models.detector",
    "torchvision-video": "vidproc.models.actions",
    "onnx": "vidproc.models.onnx",
    "slowfast": "vidproc.models.slowfast",
    "temporal": "vidproc.models.temporal",
    "few-shot": "vidproc.models.prototypes",
    "features": "vidproc.models.features",
    "embedded": "vidproc.models.embedded",
}
"""Family -> the module whose `load(recipe, settings) -> Model` builds it."""

DETECTOR_FPS = Fraction(2)
DETECTOR_THRESHOLD = 0.3
"""Low enough for a tracker to bridge weak frames, high enough to keep the table free of noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From uint8 RGB frames to what the network eats: x = (frame / divisor - mean) / std."""

    color: Literal["rgb", "bgr"] = "rgb"
    divisor: float = 255.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    crop: int = 0
    """Side of the centre square cut out of the grid's frames before the network; 0: none."""

    def __post_init__(self) -> None:
        if self.color not in ("rgb", "bgr"):
            raise ConfigError(f"preprocessing.color must be rgb or bgr, not {self.color!r}.")
        numbers = (self.divisor, *self.mean, *self.std)
        if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers) or (
            self.divisor <= 0 or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0
        ):
            raise ConfigError(f"preprocessing needs a positive divisor, three means and three positive stds: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is made. `model.yaml` holds these fields by these names."""

    name: str
    kind: Kind
    family: str
    labels: tuple[str, ...]
    grid: Grid
    weights: str
    """Path or URI; in a file, relative to it."""
    sha256: str = ""
    """Hash of the weights file: all 64 digits, or the first 8 or more where no more is known."""
    license: str = "unknown"
    arch: str = ""
    """torchvision families: the builder's name; slowfast: the variant."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """torchvision families: keyword arguments of the builder; temporal: TemporalSettings."""
    outputs_of_labels: tuple[int, ...] = ()
    """The network's output index of each label, where that is not the family's ordinary one
    (torchvision detection: label i is output i + 1, as 0 is the background; others: i)."""
    preprocessing: Preprocessing = Preprocessing()
    decoding: str = ""
    """onnx: `yolox` or `nms-in-graph`."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """onnx, nms-in-graph: names of the graph's outputs for boxes, scores, labels (and count)."""
    box_format: Literal["xyxy", "cxcywh"] = "xyxy"
    box_unit: Literal["pixel", "fraction"] = "pixel"
    score_threshold: float = DETECTOR_THRESHOLD
    nms_iou: float | None = None
    """None: the architecture's own."""
    batch_norm_eps: float | None = None
    """torchvision's first ResNet-50 detectors were trained with 0, which their files do not say."""
    windows: tuple[int, int] | None = None
    """Least and most frames a window that the weights allow; None: any."""

    def __post_init__(self) -> None:
        refuse_credentials_in(self.weights, f"weights of {self.name}")
        if self.family not in FAMILIES:
            raise ConfigError(
                f"{self.name}: unknown model family {self.family!r}{did_you_mean(self.family, FAMILIES)} "
                f"Families: {', '.join(sorted(FAMILIES))}."
            )
        if self.kind not in _KIND_NAMES:
            raise ConfigError(f"{self.name}: kind must be detector, actions or embedding, not {self.kind!r}.")
        if not self.labels and self.kind != "embedding":
            raise ConfigError(f"{self.name}: a model needs labels, one for each class.")
        if self.sha256 and not re.fullmatch("[0-9a-f]{8,64}", self.sha256):
            raise ConfigError(
                f"{self.name}: sha256 is all 64 hexadecimal digits of the file's, or the first 8 or more, in quotes; "
                f"not {self.sha256!r}."
            )
        if self.outputs_of_labels and len(self.outputs_of_labels) != len(self.labels):
            raise ConfigError(
                f"{self.name}: {len(self.labels)} labels, but outputs_of_labels has {len(self.outputs_of_labels)}."
            )
        if self.box_format not in ("xyxy", "cxcywh") or self.box_unit not in ("pixel", "fraction"):
            raise ConfigError(
                f"{self.name}: box_format must be xyxy or cxcywh and box_unit pixel or fraction, "
                f"not {self.box_format!r} and {self.box_unit!r}."
            )

    def with_settings(self, settings: ModelSettings) -> Recipe:
        """This recipe with what the job says over it. Raises ConfigError where the two disagree."""
        if settings.kind == "embedding" and self.kind == "actions":  # every action network has features
            return replace(self, kind="embedding").with_settings(settings)
        if settings.kind is not None and settings.kind != self.kind:
            raise ConfigError(
                f"{self.name} is {_KIND_NAMES[self.kind]}, but it was given as {_KIND_NAMES[settings.kind]}."
            )
        grid = self.grid
        size = grid.size
        preprocessing = self.preprocessing
        if settings.size is not None:
            height, width = settings.size
            if size.height and size.mode == "crop":
                size = replace(size, short_side=round(size.short_side * min(height, width) / size.height))
            if size.height and preprocessing.crop:
                preprocessing = replace(preprocessing, crop=round(preprocessing.crop * height / size.height))
            size = replace(size, height=height, width=width)
        window = settings.window or grid.window
        if self.kind == "detector" and (window != 1 or (settings.stride or 1) != 1):
            raise ConfigError(f"{self.name} is a detector: it sees single frames and has no window or stride.")
        if self.windows and not self.windows[0] <= window <= self.windows[1]:
            least, most = self.windows
            allowed = f"exactly {least}" if least == most else f"{least} to {most}"
            raise ConfigError(f"{self.name} takes windows of {allowed} frames, not {window}.")
        stride = settings.stride or (grid.stride if window == grid.window else max(1, window // 2))
        recipe = replace(
            self,
            preprocessing=preprocessing,
            grid=Grid(
                fps=settings.fps or grid.fps,
                size=size,
                window=window,
                stride=stride,
                keyframes_only=settings.keyframes_only or grid.keyframes_only,
            ),
            score_threshold=self.score_threshold if settings.score_threshold is None else settings.score_threshold,
            nms_iou=self.nms_iou if settings.nms_iou is None else settings.nms_iou,
        )
        if settings.weights is not None:
            recipe = replace(
                recipe, weights=absolute_uri(settings.weights, Path.cwd()), sha256=(settings.sha256 or "").lower()
            )
        return recipe

    def to_mapping(self) -> dict[str, Any]:
        """What model.yaml holds: plain values, and only what differs from the defaults."""
        out: dict[str, Any] = {"format": 1}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "grid":
                out["grid"] = _grid_to_mapping(value)
            elif f.name == "preprocessing":
                if value != Preprocessing():
                    out["preprocessing"] = {g.name: _plain(getattr(value, g.name)) for g in fields(value)}
            elif f.name in REQUIRED_FIELDS or (value not in ((), {}, "", None) and value != f.default):
                out[f.name] = _plain(value)
        return out


REQUIRED_FIELDS = ("name", "kind", "family", "labels", "weights")
_KIND_NAMES = {"detector": "a detector", "actions": "an action model", "embedding": "an embedding model"}


def _grid_to_mapping(grid: Grid) -> dict[str, Any]:
    default = FrameSize()
    size = {
        f.name: getattr(grid.size, f.name)
        for f in fields(FrameSize)
        if f.name == "mode" or getattr(grid.size, f.name) != getattr(default, f.name)
    }
    out: dict[str, Any] = {"fps": str(grid.fps), "size": size}
    if grid.window > 1:
        out |= {"window": grid.window, "stride": grid.stride}
    if grid.keyframes_only:
        out["keyframes_only"] = True
    return out


def absolute_uri(uri: str, base: Path) -> str:
    # A link is not resolved: an ONNX file's other files lie where the link lies.
    return uri if "://" in uri else os.path.abspath(base / Path(uri).expanduser())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def did_you_mean(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else "."


def card_of(recipe: Recipe, sha256: str) -> ModelCard:
    """The card of a recipe, the job's settings over it, whose weights have that sha256."""
    answers = {k: v for k, v in recipe.to_mapping().items() if k not in ("name", "weights", "sha256", "license")}
    return ModelCard(
        name=recipe.name,
        kind=recipe.kind,
        labels=recipe.labels,
        grid=recipe.grid,
        licence=recipe.license,
        weights_uri=shown(recipe.weights),
        weights_sha256=sha256,
        definition=content_hash(json.dumps(answers, sort_keys=True)),
    )
