"""What is to be scored, and the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from vidproc.errors import ConfigError

Task = Literal["detection", "classification", "segments", "tracking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSettings:
    task: Task
    truth: str
    """Label file (tracking: file or folder)."""
    predictions: str | None = None
    """File in the field's format; or give `lake`."""
    lake: str | None = None
    pipeline: str | None = None
    """Pipeline of the lake, needed where it has several."""
    model: str | None = None
    """Model whose rows are scored, as name or name@hash, needed where there are several."""
    subset: str | None = None
    """Rows of the truth with this `split` or `subset` alone."""
    out: str | None = None
    """Folder or s3:// prefix for scores.json, per_class.csv and the pictures; None: none are written."""
    tolerance_s: float = 0.02
    """A lake's detection belongs to the labelled frame whose time is no farther than this."""
    source: Literal["segments", "windows"] = "segments"
    """For the task segments, from a lake: its segments table, or its windows joined by soft-NMS."""
    truth_fps: float | None = None
    """Tracking from a lake: frames a second of the truth; its frame 1 is at 0 s."""
    sample_fps: float | None = None
    """Tracking from a lake: the rate at which the detector sampled; other frames of the truth do not count."""
    iou: float = 0.5
    """Least overlap of a match, for MOTA and IDF1."""

    def __post_init__(self) -> None:
        if self.task not in ("detection", "classification", "segments", "tracking"):
            raise ConfigError(f"the task must be detection, classification, segments or tracking, not {self.task!r}")
        if self.source not in ("segments", "windows"):
            raise ConfigError(f"the source must be segments or windows, not {self.source!r}")
        if not 0 < self.iou <= 1:
            raise ConfigError(f"the iou must lie above 0 and up to 1, not {self.iou:g}")
        if (self.predictions is None) == (self.lake is None):
            raise ConfigError("give either a file of predictions or a lake to be scored")
        if self.task == "tracking" and self.lake is not None and not (self.truth_fps and self.sample_fps):
            raise ConfigError("tracks of a lake are scored at truth_fps and sample_fps: give both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    task: Task
    summary: dict[str, float]
    """Figures by the field's names: AP, AP50; top1, top5; mAP, mAP@0.50; MOTA, IDF1, HOTA; ..."""
    per_class: tuple[dict[str, Any], ...]
    """One row a class (tracking: a sequence), all with the same keys."""
    files: tuple[str, ...] = ()
    """What was written."""


Made = tuple[Evaluation, dict[str, bytes]]
