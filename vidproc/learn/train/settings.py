"""Settings of a training job."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from vidproc.errors import ConfigError
from vidproc.learn.data.augmentation import Augmentation
from vidproc.learn.data.order import Balance
from vidproc.learn.networks import (
    NetworkSettings,
)
from vidproc.learn.workers import WorkerSettings

Task = Literal["detection", "actions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    archive: str
    """Folder or s3:// prefix of the videos (or images) that the labels name."""
    train: str
    """A label file (COCO JSON; Kinetics CSV, ActivityNet JSON), or for actions `folders`: a folder a class."""
    validation: str | None = None
    """Another label file; None: a share of `train`, whole videos."""
    train_subset: str | None = None
    """Rows of this `split` (Kinetics) or `subset` (ActivityNet) alone."""
    validation_subset: str | None = None
    validation_share: float = 0.2
    """Of the videos, where there is no label file for it; 0: no validation."""
    labels: tuple[str, ...] | None = None
    """The classes in order; None: those of `train`."""
    check_videos: int = 2000
    """So many videos and images are looked at before training; what is wrong with others is found on the way."""
    cache_gb: float = 2.0
    """Decoded examples kept in memory, a worker."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share < 1:
            raise ConfigError(f"data.validation_share must lie from 0 to below 1, not {self.validation_share}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimisationSettings:
    epochs: int = 20
    batch: int = 8
    """Examples a step, over all workers."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    rate: float = 1e-3
    """The highest learning rate, reached after the warm-up, then lowered along a cosine to a hundredth."""
    weight_decay: float = 0.01
    """Not on biases and norms."""
    momentum: float = 0.9
    warmup_epochs: float = 1.0
    clip: float = 5.0
    """Longest gradient; 0: any."""
    balance: Balance = "none"
    """For classes of unequal size: `sample` draws rare ones more often, `loss` weighs them more (actions)."""
    label_smoothing: float = 0.0
    precision: Literal["auto", "16", "32"] = "auto"
    """auto: 16 bits on a GPU, 32 on a CPU."""
    patience: int = 0
    """Stop after so many epochs without a better validation; 0: never."""
    views: int = 1
    """Windows of each clip whose scores are averaged at validation (actions)."""
    loaders: int = 0
    """Processes that decode ahead of each worker; 0: the worker itself."""

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.views) < 1 or self.rate <= 0 or self.warmup_epochs < 0:
            raise ConfigError(f"epochs, batch, views and rate must be positive: {self}")
        choices = {
            "optimiser": ("adamw", "sgd"),
            "balance": ("none", "sample", "loss"),
            "precision": ("auto", "16", "32"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"optimisation.{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """A training job: what jobs/train_*.yaml holds, by these names."""

    task: Task
    name: str
    out: str
    """The model folder to be: a path or s3:// prefix."""
    data: DataSettings
    network: NetworkSettings
    optimisation: OptimisationSettings = field(default_factory=OptimisationSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    seed: int = 0
    resume: bool = True
    """Go on from the checkpoint in `out`; False: begin anew over it."""

    def __post_init__(self) -> None:
        if self.task not in ("detection", "actions"):
            raise ConfigError(f"task must be detection or actions, not {self.task!r}")
        if self.task == "detection":
            for name, given, plain in (
                ("balance: loss", self.optimisation.balance == "loss", "take balance: sample"),
                ("label_smoothing", self.optimisation.label_smoothing > 0, "leave it out"),
                ("views", self.optimisation.views > 1, "leave it out"),
            ):
                if given:
                    raise ConfigError(f"optimisation.{name} is for actions, a detector brings its own loss: {plain}")

    @property
    def fingerprint(self) -> str:
        """Of all that decides which numbers come out."""
        workers = WorkerSettings(workers=self.workers.workers)
        data, optimisation = replace(self.data, cache_gb=0, check_videos=0), replace(self.optimisation, loaders=0)
        same = replace(self, resume=True, out="", workers=workers, data=data, optimisation=optimisation)
        meaning = asdict(same)
        return hashlib.sha256(json.dumps(meaning, sort_keys=True, default=str).encode()).hexdigest()[:16]
