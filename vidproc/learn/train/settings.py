"""Settings of a training job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar, Literal

from vidproc.errors import ConfigError
from vidproc.learn.data.augmentation import Augmentation
from vidproc.learn.data.order import Balance
from vidproc.learn.networks import NetworkSettings
from vidproc.learn.workers import WorkerSettings

Task = Literal["detection", "actions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """What training learns from, and what it is validated on."""

    archive: str
    """Folder or s3:// prefix of the videos or images that the labels name."""
    train: str
    """Label file: COCO JSON for detection, Kinetics CSV or ActivityNet JSON for actions. For actions also the word
    `folders`: the archive holds one folder for each class."""
    validation: str | None = None
    """Label file for validation. None: a share of `train`, in whole videos."""
    train_subset: str | None = None
    """Use only the rows of `train` with this `split` (Kinetics) or `subset` (ActivityNet). None: all rows."""
    validation_subset: str | None = None
    """The same for `validation`."""
    validation_share: float = 0.2
    """Share of the videos held back for validation where there is no label file for it, 0 to below 1. 0: none."""
    labels: tuple[str, ...] | None = None
    """The classes in order. None: those of `train`."""
    check_videos: int = 2000
    """Number of videos and images that are opened before training starts, to find faults early."""
    cache_gb: float = 2.0
    """Memory for decoded examples, in GiB for each worker."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share < 1:
            raise ConfigError(f"data.validation_share must lie from 0 to below 1, not {self.validation_share}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimisationSettings:
    """How the loss is minimised."""

    OLD_NAMES: ClassVar[Mapping[str, str]] = {
        "rate": "learning_rate",
        "clip": "max_grad_norm",
        "loaders": "num_workers",
        "optimiser": "optimizer",
    }
    """Keys of job files written for version 0.1, and their names now."""

    epochs: int = 20
    """Passes over the examples."""
    batch: int = 8
    """Examples in one step, over all workers together."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`adamw`, or `sgd` with Nesterov momentum."""
    learning_rate: float = 1e-3
    """Highest learning rate. It is reached after the warm-up, then lowered along a cosine to a hundredth."""
    weight_decay: float = 0.01
    """Weight decay of matrices and kernels. Biases and norms have none."""
    momentum: float = 0.9
    """Momentum of `sgd`."""
    warmup_epochs: float = 1.0
    """Length of the warm-up, in epochs."""
    max_grad_norm: float = 5.0
    """Norm to which a longer gradient is shortened. 0: no limit."""
    balance: Balance = "none"
    """For classes of unequal size: `sample` draws rare ones more often, `loss` weighs them more (actions only)."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes, 0 to 1 (actions only)."""
    precision: Literal["auto", "16", "32"] = "auto"
    """Bits of the arithmetic. auto: 16 on a GPU, 32 on a CPU."""
    patience: int = 0
    """Stop after this many epochs without a better validation. 0: never."""
    views: int = 1
    """Windows of each clip whose scores are averaged at validation (actions only)."""
    num_workers: int = 0
    """Processes of each worker that decode ahead. 0: the worker decodes by itself."""

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.views) < 1 or self.learning_rate <= 0 or self.warmup_epochs < 0:
            raise ConfigError(f"epochs, batch, views and learning_rate must be positive: {self}")
        choices = {
            "optimizer": ("adamw", "sgd"),
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
    """`detection` or `actions`."""
    name: str
    """Name of the model to be trained."""
    out: str
    """Where the model folder is written: a path or s3:// prefix."""
    data: DataSettings
    network: NetworkSettings
    optimisation: OptimisationSettings = field(default_factory=OptimisationSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    seed: int = 0
    """Start of every random choice. The same job and seed give the same weights on the same kind of machine."""
    resume: bool = True
    """Go on from the checkpoint in `out`. False: begin anew and overwrite it."""

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
        """Hash of everything that decides the resulting numbers. A checkpoint bears it, so that no other job goes on
        from there."""
        workers = WorkerSettings(workers=self.workers.workers)
        data, optimisation = replace(self.data, cache_gb=0, check_videos=0), replace(self.optimisation, num_workers=0)
        meaning = asdict(replace(self, resume=True, out="", workers=workers, data=data, optimisation=optimisation))
        # Hashed by their first names, so that a training begun with version 0.1 can go on.
        for old, new in OptimisationSettings.OLD_NAMES.items():
            meaning["optimisation"][old] = meaning["optimisation"].pop(new)
        return hashlib.sha256(json.dumps(meaning, sort_keys=True, default=str).encode()).hexdigest()[:16]
