"""Labelled examples as batches, loss and validation: one class for each task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidproc.errors import VidprocError
from vidproc.learn.data.clips import ClipData, normalise
from vidproc.learn.data.frames import FrameData
from vidproc.learn.data.order import batches
from vidproc.learn.data.reader import Reader
from vidproc.learn.labels.coco import to_coco
from vidproc.learn.labels.values import ActionLabels, DetectionLabels
from vidproc.learn.plots import confusion_png, precision_recall_png
from vidproc.learn.scoring.classification import ClassificationScores, classification_scores
from vidproc.learn.scoring.coco import CocoScores, coco_ap
from vidproc.learn.train.folder import csv_bytes
from vidproc.learn.train.preparation import TrainingData, open_reader
from vidproc.learn.train.settings import TrainSettings
from vidproc.learn.workers import World
from vidproc.models.recipe import Recipe
from vidproc.storage import StorageOptions


class ClipExamples:
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
        self._loader = Loader(self.train, settings.optimisation.num_workers, _stack_clips)
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
        """Return the mean softmax over its views of each example, float64 (classes,)."""
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
        table = csv_bytes(("label", "examples", "accuracy", "most_confused_with"), rows)
        return {"confusion.png": confusion_png(found.confusion, self.labels), "per_class.csv": table}


class FrameExamples:
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
        self._loader = Loader(self.train, settings.optimisation.num_workers, _list_frames)
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
            "per_class.csv": csv_bytes(("label", "truths", "predictions", "ap", "ap50"), rows),
        }


def make_examples(
    settings: TrainSettings, recipe: Recipe, data: TrainingData, options: StorageOptions | None
) -> ClipExamples | FrameExamples:
    reader = open_reader(settings, options)
    if isinstance(data.train, ActionLabels):
        held = data.validation
        assert held is None or isinstance(held, ActionLabels)
        return ClipExamples(settings, recipe, data.train, held, reader)
    held = data.validation
    assert held is None or isinstance(held, DetectionLabels)
    return FrameExamples(settings, recipe, data.train, held, reader)


class Loader:
    """Batches of one epoch after another. Processes that decode ahead live, with their caches, as long as the
    training, and change nothing in what comes out."""

    def __init__(self, data: Any, num_workers: int, collate: Callable[[list[Any]], Any]) -> None:
        self._groups: list[list[tuple[int, int]]] = []
        self._loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
            data,
            batch_sampler=self._groups,
            num_workers=num_workers,
            collate_fn=collate,
            multiprocessing_context="spawn" if num_workers else None,
            persistent_workers=num_workers > 0,
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
