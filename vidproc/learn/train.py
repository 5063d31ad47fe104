"""Training a detector or an action model, in the five steps of `training_loop`: data to tensors, the model,
its parameters, the optimisation of the loss, and the use of what was learned. Read that function first.

Everything follows from the job and its seed. After each epoch a checkpoint lies beside the model; the
same command goes on from there, and ends where an unbroken run would have ended.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from vidproc.errors import ConfigError, VidprocError
from vidproc.learn.data import (
    Augmentation,
    Balance,
    ClipData,
    FrameData,
    Reader,
    batches,
    check_size,
    epoch_order,
    is_image,
    normalise,
)
from vidproc.learn.labels import (
    ActionLabels,
    Catalog,
    DetectionLabels,
    LabelledClip,
    LabelledFrame,
    read_actions,
    read_coco,
    require_examples,
    split_by_video,
    to_coco,
)
from vidproc.learn.networks import (
    WEIGHTS,
    NetworkSettings,
    check_input,
    freezes_norms,
    network_for,
    recipe_for,
    set_training,
)
from vidproc.learn.plots import confusion_png, curves_png, precision_recall_png
from vidproc.learn.scoring.classification import ClassificationScores, classification_scores
from vidproc.learn.scoring.coco import CocoScores, coco_ap
from vidproc.learn.workers import WorkerSettings, World, run_workers
from vidproc.models.recipe import Recipe
from vidproc.models.tensors import fill, fitting, state_dict_of
from vidproc.models.weights import Weights
from vidproc.secrets import redact_values
from vidproc.storage import Storage, StorageOptions, is_s3, open_storage, signed
from vidproc.video.decode import MediaLimits, Source

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


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """Labels, read and checked. Small: names, times and boxes, no frames."""

    labels: tuple[str, ...]
    train: ActionLabels | DetectionLabels
    validation: ActionLabels | DetectionLabels | None
    sha256: Mapping[str, str]
    """Of each label file, by the name that the job gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    folder: str
    """The model folder, to be given to `vidproc index` as --detector or --actions."""
    epochs: int
    best_epoch: int
    metrics: dict[str, float]
    """Of the best epoch, on the validation (or of training where there is none)."""
    seconds: float


def train(
    settings: TrainSettings,
    *,
    options: StorageOptions | None = None,
    listen: Callable[[dict[str, float]], None] | None = None,
) -> TrainReport:
    """Trains and leaves a model folder. All that is wrong with the job or its labels is raised as
    ConfigError before training starts. `listen` hears each epoch's metrics (inline executor)."""
    began = time.perf_counter()
    storage = open_storage(settings.out, options=signed(options))
    recipe, data = prepare(settings, options)
    checkpoint = _load_checkpoint(storage, settings)
    # The last epoch's checkpoint comes before the folder: a kill between them leaves the folder to be written.
    if checkpoint is None or not checkpoint["finished"] or not storage.exists("model.yaml"):
        if checkpoint is None:  # what lies there is void from now on, also for a run that goes on after a kill
            storage.delete(key for key in (_LAST, "model.yaml") if storage.exists(key))

        def loop(world: World) -> None:
            training_loop(settings, recipe, data, world, options)

        run_workers(loop, settings.workers, name=settings.name, listen=listen)
        checkpoint = _load_checkpoint(storage, replace(settings, resume=True))
    assert checkpoint is not None, "a training that ended leaves its checkpoint"
    best = checkpoint["best"]
    return TrainReport(
        folder=storage.uri,
        epochs=checkpoint["epoch"],
        best_epoch=int(best["epoch"]),
        metrics={k: v for k, v in best.items() if k != "epoch"},
        seconds=time.perf_counter() - began,
    )


def prepare(settings: TrainSettings, options: StorageOptions | None = None) -> tuple[Recipe, TrainingData]:
    """Everything that can be found wrong before training: labels, classes, the network, its first weights,
    the videos that the labels name. Raises ConfigError."""
    data = read_data(settings, options)
    recipe = recipe_for(settings.name, data.labels, settings.network, _KIND[settings.task])
    check_input(recipe)
    network_for(recipe, settings.network, options)
    _check_videos(data, _reader(settings, options), settings.data.check_videos)
    return recipe, data


_KIND: dict[Task, Literal["detector", "actions"]] = {"detection": "detector", "actions": "actions"}


def read_data(settings: TrainSettings, options: StorageOptions | None = None) -> TrainingData:
    d = settings.data
    catalog = Catalog.of(d.archive, options)
    if settings.task == "detection":
        boxes = read_coco(Path(d.train), catalog, d.labels)
        held = read_coco(Path(d.validation), catalog, boxes.labels) if d.validation else None
        if held is None and d.validation_share:
            boxes, held = _split_frames(boxes, d.validation_share, settings.seed)
        require_examples((int(c) for f in boxes.frames for c in f.class_id), boxes.labels, d.train)
        return TrainingData(boxes.labels, boxes, held if held and held.frames else None, _hashes(d))
    clips = read_actions(d.train, catalog, d.labels, subset=d.train_subset)
    kept = None
    if d.validation:
        kept = read_actions(d.validation, catalog, clips.labels, subset=d.validation_subset)
    elif d.validation_share:
        clips, kept = split_by_video(clips, d.validation_share, settings.seed)
    require_examples((c.class_id for c in clips.clips), clips.labels, d.train)
    return TrainingData(clips.labels, clips, kept if kept and kept.clips else None, _hashes(d))


def _hashes(d: DataSettings) -> dict[str, str]:
    files = [name for name in (d.train, d.validation) if name and Path(name).is_file()]
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files}


def _split_frames(boxes: DetectionLabels, share: float, seed: int) -> tuple[DetectionLabels, DetectionLabels]:
    """By video (or image), never by frame."""
    sources = sorted({f.source.uri for f in boxes.frames})
    held = set(np.random.default_rng(seed).permutation(sources)[: min(round(share * len(sources)), len(sources) - 1)])
    return (
        replace(boxes, frames=tuple(f for f in boxes.frames if f.source.uri not in held)),
        replace(boxes, frames=tuple(f for f in boxes.frames if f.source.uri in held)),
    )


def _check_videos(data: TrainingData, reader: Reader, most: int) -> None:
    seen: set[str] = set()
    for item in _items(data):
        if item.source.uri not in seen and len(seen) >= most:
            return
        seen.add(item.source.uri)
        if isinstance(item, LabelledFrame) and is_image(item.source):
            check_size(item, *reader.image_size(item.source, item.where))
            continue
        info = reader.info(item.source, item.where)
        start = item.start_s if isinstance(item, LabelledClip) else item.time_s
        if start is not None and info.duration_s and start >= info.duration_s:
            raise ConfigError(
                f"{item.where}: begins at {start:g} s, but {item.source.uri} ends at {info.duration_s:g} s."
            )
        if isinstance(item, LabelledFrame):
            check_size(item, info.width, info.height)


def _items(data: TrainingData) -> Iterator[LabelledClip | LabelledFrame]:
    for labels in (data.train, data.validation):
        if labels is not None:
            yield from labels.clips if isinstance(labels, ActionLabels) else labels.frames


# The five steps


def training_loop(
    settings: TrainSettings, recipe: Recipe, data: TrainingData, world: World, options: StorageOptions | None
) -> None:
    """What one worker does. Rank 0 alone writes."""
    o, storage = settings.optimisation, open_storage(settings.out, options=signed(options))
    torch.manual_seed(settings.seed)

    # 1. Data to tensors
    examples = _examples(settings, recipe, data, options)
    class_ids = examples.class_ids
    steps = -(-len(class_ids) // o.batch)

    # 2. The model
    network = quick_layout(network_for(recipe, settings.network, options), world.device)
    frozen_norms = freezes_norms(recipe, settings.network)
    wrapped = world.wrap(network)

    # 3. Its parameters
    optimiser = _optimiser(network, o)
    checkpoint = _load_checkpoint(storage, settings)
    history: list[dict[str, float]] = []
    best: dict[str, float] = {}
    first, finished = 0, False
    if checkpoint is not None:
        with fitting(recipe.name, "this job's network", Path(storage.uri_of(_LAST))):
            network.load_state_dict(checkpoint["network"])
            optimiser.load_state_dict(checkpoint["optimiser"])
            history, best, first = checkpoint["history"], checkpoint["best"], checkpoint["epoch"]
            finished = checkpoint["finished"]

    # 4. The optimisation of the loss
    scaler, autocast = _precision(o, world.device)
    loss_of = examples.loss(world.device)
    board = _tensorboard(storage) if world.rank == 0 else None
    for epoch in range(first, o.epochs if not finished else first):
        began, total, seen = time.perf_counter(), 0.0, 0
        torch.manual_seed(int(np.random.SeedSequence((settings.seed, epoch, world.rank)).generate_state(1)[0]))
        set_training(network, frozen_norms=frozen_norms)
        order = epoch_order(
            class_ids,
            seed=settings.seed,
            epoch=epoch,
            balanced=o.balance == "sample",
            rank=world.rank,
            world=world.size,
        )
        for step, batch in enumerate(examples.batches(epoch, order, max(1, o.batch // world.size))):
            for group in optimiser.param_groups:
                group["lr"] = o.rate * rate_factor(epoch * steps + step, o.epochs * steps, o.warmup_epochs * steps)
            with autocast():
                loss = loss_of(wrapped, batch)
            if not torch.isfinite(loss):
                raise ConfigError(
                    f"the loss became {loss.item()} in epoch {epoch + 1}: lower optimisation.rate ({o.rate:g}) or clip."
                )
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if o.clip:
                scaler.unscale_(optimiser)
                nn.utils.clip_grad_norm_(network.parameters(), o.clip)
            scaler.step(optimiser)
            scaler.update()
            total, seen = total + float(loss.detach()) * len(batch[1]), seen + len(batch[1])
        sums = world.gather((total, seen))
        row = {"epoch": float(epoch + 1), "loss": sum(t for t, _ in sums) / max(1, sum(s for _, s in sums))}
        row |= examples.validate(network, world) if examples.has_validation else {}
        row["seconds"] = time.perf_counter() - began
        history.append(row)
        better = not best or _goodness(row, examples.watch) > _goodness(best, examples.watch)
        best = row if better else best
        # Patience waits for more of what is watched: a tie is broken, but it is no progress.
        watched = [_goodness(r, examples.watch)[0] for r in history]
        waited = epoch - watched.index(max(watched))
        finished = epoch + 1 == o.epochs or (o.patience > 0 and waited >= o.patience)
        if world.rank == 0:
            if better:
                storage.put(_BEST, tensor_bytes(network))
            _save_checkpoint(storage, settings, network, optimiser, history, best, finished=finished)
            storage.put("metrics.csv", _metrics(history))  # to be looked at while it trains
            if board is not None:
                for key, value in row.items():
                    board.add_scalar(key, value, epoch + 1)
        world.report(row)
        if finished:
            break

    # 5. The use of what was learned: a folder that `vidproc index` takes as a model
    if world.rank == 0:
        best_weights = Weights(Path(storage.uri_of(_BEST)), storage.get(_BEST))
        fill(network, state_dict_of(best_weights), model=recipe.name, arch="", path=best_weights.path)
        pictures = examples.pictures(network, world.device)
        _write_folder(storage, settings, recipe, data, history, best, pictures)
        if board is not None:
            board.close()


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """Share of the highest rate at a step: a line up from a small value, then half a cosine down to 0.01."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1e-9, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _optimiser(network: nn.Module, o: OptimisationSettings) -> torch.optim.Optimizer:
    trained = [p for p in network.parameters() if p.requires_grad]
    # Vectors are biases and norms; shrinking those does not make a network simpler.
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": o.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if o.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=o.rate, momentum=o.momentum, nesterov=o.momentum > 0)
    return torch.optim.AdamW(groups, lr=o.rate)


def quick_layout(network: nn.Module, device: torch.device) -> nn.Module:
    """On a processor the gradient of a convolution by channels over space and time (MViT's pooling) takes most of a
    step, and half as long with channels last in memory: a step of 16 clips of 8 frames of 32 x 40 took 0.23 s in
    place of 0.43. Other networks of three dimensions are as quick either way."""
    by_channel = any(isinstance(m, nn.Conv3d) and m.groups > 1 for m in network.modules())
    if device.type == "cpu" and by_channel:
        network = network.to(memory_format=torch.channels_last_3d)
    return network


def _precision(o: OptimisationSettings, device: torch.device) -> tuple[torch.amp.GradScaler, Callable[[], Any]]:
    """bfloat16 where the device has it: its range needs no scaling of the loss; else float16 with scaling."""
    half = o.precision == "16" or (o.precision == "auto" and device.type == "cuda")
    brain = device.type == "cpu" or torch.cuda.is_bf16_supported()
    dtype = torch.bfloat16 if brain else torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=half and not brain)
    return scaler, lambda: torch.autocast(device.type, dtype, enabled=half)


def _goodness(row: Mapping[str, float], watch: str) -> tuple[float, float]:
    """What is watched; and of two epochs alike in it, that which was surer is the better one."""
    return -row["loss"] if watch == "loss" else row.get(watch, -math.inf), -row.get("val_loss", 0.0)


# Examples of the two tasks


class _ClipExamples:
    def __init__(
        self,
        settings: TrainSettings,
        recipe: Recipe,
        train: ActionLabels,
        validation: ActionLabels | None,
        reader: Reader,
    ) -> None:
        self.settings, self.labels, self.p = settings, train.labels, recipe.preprocessing
        make = dict(reader=reader, grid=recipe.grid, preprocessing=recipe.preprocessing, seed=settings.seed)
        self.train = ClipData(train.clips, augmentation=settings.augmentation, **make)  # type: ignore[arg-type]
        self.held = ClipData(validation.clips, **make) if validation else None  # type: ignore[arg-type]
        self._loader = _Loader(self.train, settings.optimisation.loaders, _stack_clips)
        self.has_validation = self.held is not None
        self.watch = "top1" if self.held else "loss"
        self.class_ids = np.array([c.class_id for c in train.clips], np.int64)

    def batches(self, epoch: int, order: Sequence[int], size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self._loader.epoch(epoch, order, size)

    def loss(self, device: torch.device) -> Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]:
        o = self.settings.optimisation
        weight = None
        if o.balance == "loss":
            counts = np.bincount(self.class_ids, minlength=len(self.labels))
            weight = torch.tensor(len(self.class_ids) / (len(counts) * counts), dtype=torch.float32, device=device)
        criterion = nn.CrossEntropyLoss(weight, label_smoothing=o.label_smoothing)

        def loss_of(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            out: Tensor = criterion(network(batch[0].to(device)).float(), batch[1].to(device))
            return out

        return loss_of

    def validate(self, network: nn.Module, world: World) -> dict[str, float]:
        scores = self._scores(network, world.device, range(world.rank, len(self._held()), world.size))
        everything: dict[int, np.ndarray] = {}
        for part in world.gather(scores):
            everything |= part
        matrix, truth = self._matrix(everything)
        found = classification_scores(matrix, truth, self.labels)
        sure = matrix[np.arange(len(truth)), truth].clip(1e-9)
        return {
            "top1": found.top1,
            "top5": found.top5,
            "mean_class_accuracy": found.mean_class_accuracy,
            "val_loss": float(-np.log(sure).mean()),
        }

    def _held(self) -> ClipData:
        assert self.held is not None
        return self.held

    def _scores(self, network: nn.Module, device: torch.device, which: range) -> dict[int, np.ndarray]:
        """Example -> mean softmax over its views, float64 (classes,)."""
        network.eval()
        views, out = self.settings.optimisation.views, {}
        with torch.inference_mode():
            for i in which:
                windows = torch.from_numpy(self._held().views(i, views)).permute(0, 1, 4, 2, 3)
                clips = normalise(windows, self.p).transpose(1, 2).contiguous()
                out[i] = network(clips.to(device)).float().softmax(1).mean(0).cpu().double().numpy()
        return out

    def _matrix(self, scores: Mapping[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        order = sorted(scores)
        truth = np.array([self._held().clips[i].class_id for i in order], np.int64)
        return np.stack([scores[i] for i in order]), truth

    def pictures(self, network: nn.Module, device: torch.device) -> dict[str, bytes]:
        if self.held is None:
            return {}
        scores, truth = self._matrix(self._scores(network, device, range(len(self.held))))
        found: ClassificationScores = classification_scores(scores, truth, self.labels)
        rows = [(c.label, c.examples, c.accuracy, c.most_confused_with) for c in found.per_class]
        table = _csv(("label", "examples", "accuracy", "most_confused_with"), rows)
        return {"confusion.png": confusion_png(found.confusion, self.labels), "per_class.csv": table}


class _FrameExamples:
    def __init__(
        self,
        settings: TrainSettings,
        recipe: Recipe,
        train: DetectionLabels,
        validation: DetectionLabels | None,
        reader: Reader,
    ) -> None:
        self.settings, self.labels = settings, train.labels
        self.train = FrameData(
            train.frames, reader, recipe.grid, seed=settings.seed, augmentation=settings.augmentation
        )
        self._loader = _Loader(self.train, settings.optimisation.loaders, _list_frames)
        self.validation = validation
        self.held = FrameData(validation.frames, reader, recipe.grid) if validation else None
        self.has_validation = validation is not None
        self.watch = "AP" if validation else "loss"
        # To balance by: the rarest class in view.
        counts = np.bincount([c for f in train.frames for c in f.class_id], minlength=len(train.labels))
        self.class_ids = np.array(
            [min(f.class_id, key=lambda c: counts[c], default=int(counts.argmax())) for f in train.frames], np.int64
        )

    def batches(self, epoch: int, order: Sequence[int], size: int) -> Iterator[tuple[Any, Any]]:
        return self._loader.epoch(epoch, order, size)

    def loss(self, device: torch.device) -> Callable[[nn.Module, tuple[Any, Any]], Tensor]:
        def loss_of(network: nn.Module, batch: tuple[Any, Any]) -> Tensor:
            images = [image.to(device) for image in batch[0]]
            targets = [{k: v.to(device) for k, v in target.items()} for target in batch[1]]
            return torch.stack([v.float() for v in network(images, targets).values()]).sum()

        return loss_of

    def validate(self, network: nn.Module, world: World) -> dict[str, float]:
        assert self.validation is not None
        mine = self._results(network, world.device, range(world.rank, len(self.validation.frames), world.size))
        results = [r for part in world.gather(mine) for r in part]
        found = coco_ap(to_coco(self.validation), results)
        return {k: found.summary[k] for k in ("AP", "AP50", "AP75", "AR100")}

    def _results(self, network: nn.Module, device: torch.device, which: range) -> list[dict[str, Any]]:
        assert self.held is not None
        network.eval()
        out: list[dict[str, Any]] = []
        with torch.inference_mode():
            for i in which:
                pixels, geometry = self.held.read(i)
                found = network([torch.from_numpy(pixels).permute(2, 0, 1).to(device).float() / 255])[0]
                boxes = geometry.to_upright(found["boxes"].cpu().numpy())
                for box, score, label in zip(boxes, found["scores"].tolist(), found["labels"].tolist(), strict=True):
                    xywh = [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]
                    out.append({"image_id": i + 1, "category_id": int(label), "bbox": xywh, "score": score})
        return out

    def pictures(self, network: nn.Module, device: torch.device) -> dict[str, bytes]:
        if self.validation is None:
            return {}
        results = self._results(network, device, range(len(self.validation.frames)))
        found: CocoScores = coco_ap(to_coco(self.validation), results)
        curves = {k: (found.recall, v) for k, v in found.precision.items() if not np.isnan(v).any()}
        rows = [(c.label, c.truths, c.predictions, c.ap, c.ap50) for c in found.per_class]
        return {
            "precision_recall.png": precision_recall_png(curves, "IoU 0.5"),
            "per_class.csv": _csv(("label", "truths", "predictions", "ap", "ap50"), rows),
        }


def _examples(
    settings: TrainSettings, recipe: Recipe, data: TrainingData, options: StorageOptions | None
) -> _ClipExamples | _FrameExamples:
    reader = _reader(settings, options)
    if isinstance(data.train, ActionLabels):
        held = data.validation
        assert held is None or isinstance(held, ActionLabels)
        return _ClipExamples(settings, recipe, data.train, held, reader)
    held = data.validation
    assert held is None or isinstance(held, DetectionLabels)
    return _FrameExamples(settings, recipe, data.train, held, reader)


def _reader(settings: TrainSettings, options: StorageOptions | None) -> Reader:
    return Reader(Source(options=options), MediaLimits(), round(settings.data.cache_gb * (1 << 30)))


class _Loader:
    """Batches of one epoch after another. Processes that decode ahead live, with their caches, as long as the
    training, and change nothing in what comes out."""

    def __init__(self, data: Any, loaders: int, collate: Callable[[list[Any]], Any]) -> None:
        self._groups: list[list[tuple[int, int]]] = []
        self._loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
            data,
            batch_sampler=self._groups,
            num_workers=loaders,
            collate_fn=collate,
            multiprocessing_context="spawn" if loaders else None,
            persistent_workers=loaders > 0,
            generator=torch.Generator(),  # its own, or the loader would draw from the network's
        )

    def epoch(self, epoch: int, order: Sequence[int], size: int) -> Iterator[Any]:
        self._groups[:] = [[(epoch, i) for i in group] for group in batches(order, size)]
        try:
            yield from self._loader
        except VidprocError as e:  # another process gives its whole traceback for the message
            last = str(e).strip().splitlines()[-1]
            raise type(e)(last.removeprefix(f"{type(e).__module__}.{type(e).__qualname__}: ")) from e


def _stack_clips(items: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return torch.stack([clip for clip, _ in items]), torch.tensor([c for _, c in items])


def _list_frames(items: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    return [image for image, _ in items], [target for _, target in items]


# What is written

_LAST, _BEST = "checkpoints/last.pt", "checkpoints/best.safetensors"


def _save_checkpoint(
    storage: Storage,
    settings: TrainSettings,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    history: list[dict[str, float]],
    best: dict[str, float],
    *,
    finished: bool,
) -> None:
    data = io.BytesIO()
    torch.save(
        {
            "job": settings.fingerprint,
            "epoch": len(history),
            "history": history,
            "best": best,
            "finished": finished,
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
        },
        data,
    )
    storage.put(_LAST, data.getvalue())


def _load_checkpoint(storage: Storage, settings: TrainSettings) -> dict[str, Any] | None:
    """Raises ConfigError where it is another job's."""
    if not settings.resume or not storage.exists(_LAST):
        return None
    try:
        checkpoint: dict[str, Any] = torch.load(io.BytesIO(storage.get(_LAST)), map_location="cpu", weights_only=True)
        job = checkpoint["job"]
    except Exception as e:  # torch names no error for a damaged file
        raise ConfigError(f"{storage.uri}/{_LAST} is no checkpoint of a training ({e}); say resume: false.") from e
    if job != settings.fingerprint:
        raise ConfigError(
            f"{storage.uri}/{_LAST} belongs to a job of other settings: give another `out`, or say resume: false."
        )
    return checkpoint


def tensor_bytes(network: nn.Module) -> bytes:
    from safetensors.torch import save

    return save({k: v.detach().cpu().contiguous().clone() for k, v in network.state_dict().items()})


def _write_folder(
    storage: Storage,
    settings: TrainSettings,
    recipe: Recipe,
    data: TrainingData,
    history: Sequence[Mapping[str, float]],
    best: Mapping[str, float],
    pictures: Mapping[str, bytes],
) -> None:
    weights = storage.get(_BEST)
    card = {
        "name": settings.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "job": redact_values(_yaml_plain(asdict(settings)), names=False),
        "job_fingerprint": settings.fingerprint,
        "data": {
            "labels": list(data.labels),
            "train_examples": _count(data.train),
            "validation_examples": _count(data.validation),
            "label_files_sha256": dict(data.sha256),
        },
        "best": dict(best),
        "epochs": len(history),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    storage.put("metrics.csv", _metrics(history))
    storage.put("curves.png", curves_png(history, best["epoch"]))
    for name, picture in pictures.items():
        storage.put(name, picture)
    storage.put("training.yaml", yaml.safe_dump(card, sort_keys=False).encode())
    write_model(storage, recipe, weights)


def write_model(storage: Storage, recipe: Recipe, weights: bytes) -> None:
    """A model folder as `load_model` takes it: the weights, and model.yaml last."""
    storage.put(WEIGHTS, weights)
    whole = replace(recipe, weights=WEIGHTS, sha256=hashlib.sha256(weights).hexdigest())
    storage.put("model.yaml", yaml.safe_dump(whole.to_mapping(), sort_keys=False).encode())


def _count(labels: ActionLabels | DetectionLabels | None) -> int:
    if labels is None:
        return 0
    return len(labels.clips if isinstance(labels, ActionLabels) else labels.frames)


def _yaml_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _yaml_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_yaml_plain(v) for v in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _metrics(history: Sequence[Mapping[str, float]]) -> bytes:
    names = list(dict.fromkeys(k for row in history for k in row))
    return _csv(names, [[row.get(k, "") for k in names] for row in history])


def _csv(names: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows(rows)
    return out.getvalue().encode()


def _tensorboard(storage: Storage) -> Any:
    """A writer beside the model, where TensorBoard is installed and the folder is local."""
    if is_s3(storage.uri):
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(f"{storage.uri}/tensorboard")
