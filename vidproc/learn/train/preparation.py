"""What training learns from, read and checked before it starts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from vidproc.errors import ConfigError
from vidproc.learn.data.frames import check_size
from vidproc.learn.data.reader import Reader, is_image
from vidproc.learn.labels.actions import read_actions
from vidproc.learn.labels.catalog import Catalog
from vidproc.learn.labels.coco import read_coco
from vidproc.learn.labels.splits import require_examples, split_by_video
from vidproc.learn.labels.values import ActionLabels, DetectionLabels, LabelledClip, LabelledFrame
from vidproc.learn.networks import (
    check_input,
    network_for,
    recipe_for,
)
from vidproc.learn.train.settings import DataSettings, Task, TrainSettings
from vidproc.models.recipe import Recipe
from vidproc.storage import StorageOptions
from vidproc.video.decode import MediaLimits, Source


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """Labels, read and checked. Small: names, times and boxes, no frames."""

    labels: tuple[str, ...]
    train: ActionLabels | DetectionLabels
    validation: ActionLabels | DetectionLabels | None
    sha256: Mapping[str, str]
    """Hash of each label file, by the name in the job."""


def prepare(settings: TrainSettings, options: StorageOptions | None = None) -> tuple[Recipe, TrainingData]:
    """Read and check everything before training: labels, classes, the network, its first weights, and the videos that
    the labels name. Raises ConfigError."""
    data = read_data(settings, options)
    recipe = recipe_for(settings.name, data.labels, settings.network, _KIND[settings.task])
    check_input(recipe)
    network_for(recipe, settings.network, options)
    _check_videos(data, open_reader(settings, options), settings.data.check_videos)
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
    """Split by video or image, never by frame: frames of one video are alike."""
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


def open_reader(settings: TrainSettings, options: StorageOptions | None) -> Reader:
    return Reader(Source(options=options), MediaLimits(), round(settings.data.cache_gb * (1 << 30)))
