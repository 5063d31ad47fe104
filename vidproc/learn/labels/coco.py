"""COCO JSON: boxes of images, or of frames of videos."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vidproc.errors import ConfigError
from vidproc.learn.labels.catalog import Catalog
from vidproc.learn.labels.fields import as_mapping, field_of, is_number, load_json, number_of, repeated
from vidproc.learn.labels.values import IMAGES, DetectionLabels, LabelledFrame, LabelledMoment
from vidproc.media import Video

BOX_SLACK = 1.0
"""Pixels by which a box may stick out of its image: rounding, not a mistake. It is clipped."""


def read_coco(path: Path, catalog: Catalog, labels: Sequence[str] | None = None) -> DetectionLabels:
    """COCO instances JSON over images, or over frames of videos: an image whose entry has `time_s`
    (seconds on the video's clock) or `frame` and `fps` beside the `file_name` is the frame on screen then.

    `labels`: the classes and their order, where another file (the training's) has set them; None: the
    categories by id. Crowd annotations are left out: they are no objects one could box.
    """
    data = load_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise ConfigError(f"{path}: not a COCO instances file, it has no list {key!r}.")
    categories = sorted(data["categories"], key=lambda c: number_of(c, "id", f"{path}: categories", least=-math.inf))
    names = tuple(str(field_of(c, "name", f"{path}: categories, id {c['id']}")) for c in categories)
    for key, values in (("id", [c["id"] for c in categories]), ("name", names)):
        if twice := repeated(values):
            raise ConfigError(f"{path}: categories: the {key} {twice[0]!r} is given twice.")
    order = tuple(labels) if labels is not None else names
    if unknown := [n for n in names if n not in order]:
        raise ConfigError(f"{path}: categories: {unknown[0]!r} is none of the labels {', '.join(order)}.")
    class_of = {c["id"]: order.index(n) for c, n in zip(categories, names, strict=True)}
    boxes: defaultdict[Any, list[tuple[tuple[float, ...], int]]] = defaultdict(list)
    sizes = {}
    for i, image in enumerate(data["images"]):
        where = f"{path}: images[{i}]"
        if field_of(image, "id", where) in sizes:
            raise ConfigError(f"{where}: the id {image['id']!r} is given twice.")
        sizes[image["id"]] = (
            number_of(image, "width", where, least=1),
            number_of(image, "height", where, least=1),
        )
    for i, annotation in enumerate(data["annotations"]):
        where = f"{path}: annotations[{i}]"
        where += f" (id {as_mapping(annotation, where).get('id')})"
        image_id, category = field_of(annotation, "image_id", where), field_of(annotation, "category_id", where)
        if image_id not in sizes:
            raise ConfigError(f"{where}: image_id {image_id!r} is none of the file's images.")
        if category not in class_of:
            raise ConfigError(f"{where}: category_id {category!r} is none of the file's categories.")
        if not annotation.get("iscrowd"):
            box = _box(field_of(annotation, "bbox", where), *sizes[image_id], where)
            boxes[image_id].append((box, class_of[category]))
    frames = []
    for i, image in enumerate(data["images"]):
        where = f"{path}: images[{i}]"
        source = catalog.find(str(field_of(image, "file_name", where)), where)
        own = boxes[image["id"]]
        frames.append(
            LabelledFrame(
                where=where,
                image_id=image["id"],
                source=source,
                time_s=_time_of(image, source, where),
                width=int(image["width"]),
                height=int(image["height"]),
                boxes=np.array([b for b, _ in own], np.float32).reshape(-1, 4),
                class_id=np.array([c for _, c in own], np.int64),
            )
        )
    return DetectionLabels(order, tuple(frames))


def _box(bbox: Any, width: float, height: float, where: str) -> tuple[float, float, float, float]:
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(is_number, bbox))):
        raise ConfigError(f"{where}: bbox must be four numbers x, y, width, height, not {bbox!r}.")
    x, y, w, h = map(float, bbox)
    if not (w > 0 and h > 0 and all(map(math.isfinite, (x, y, w, h)))):
        raise ConfigError(f"{where}: bbox {bbox} has no area.")
    if x < -BOX_SLACK or y < -BOX_SLACK or x + w > width + BOX_SLACK or y + h > height + BOX_SLACK:
        raise ConfigError(f"{where}: bbox {bbox} lies outside its image of {width:g} x {height:g} pixels.")
    return max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)


def _time_of(image: dict[str, Any], source: Video, where: str) -> float | None:
    if "time_s" in image:
        return number_of(image, "time_s", where, least=0)
    if "frame" in image:
        return number_of(image, "frame", where, least=0) / number_of(image, "fps", where, least=1e-6)
    if PurePosixPath(source.uri).suffix.lower() not in IMAGES:
        raise ConfigError(
            f"{where}: {source.uri} is no image, so `time_s` (or `frame` and `fps`) must say which frame."
        )
    return None


def read_moments(data: dict[str, Any], path: Path, catalog: Catalog) -> list[LabelledMoment]:
    """The images of a COCO instances file whose images are frames of videos. `path` is for messages. Raises
    ConfigError, also for an image without a time."""
    moments = []
    for i, image in enumerate(data["images"]):
        where = f"{path}: images[{i}]"
        source = catalog.find(str(field_of(image, "file_name", where)), where)
        time_s = _time_of(image, source, where)
        if time_s is None:
            raise ConfigError(f"{where}: a lake knows frames of videos, so the truth needs `time_s`.")
        moments.append(LabelledMoment(image_id=field_of(image, "id", where), source=source, time_s=time_s))
    return moments


def to_coco(labels: DetectionLabels) -> dict[str, Any]:
    """Labelled frames as a COCO truth: image i + 1 is frame i, category c + 1 is class c."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, f in enumerate(labels.frames):
        images.append({"id": i + 1, "file_name": f.source.uri, "width": f.width, "height": f.height})
        for (x0, y0, x1, y1), c in zip(f.boxes.astype(float).tolist(), f.class_id.tolist(), strict=True):
            bbox = [x0, y0, x1 - x0, y1 - y0]
            annotations.append({"id": len(annotations) + 1, "image_id": i + 1, "category_id": c + 1, "bbox": bbox})
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(labels.labels)]
    return {"images": images, "annotations": annotations, "categories": categories}
