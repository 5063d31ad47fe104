"""Detection scores: COCO average precision, by faster-coco-eval (Apache-2.0), a kept library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidproc.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAp:
    label: str
    ap: float
    """Mean over IoU 0.50:0.05:0.95, all areas; NaN where the truth has no example."""
    ap50: float
    truths: int
    predictions: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CocoScores:
    """COCO's twelve figures (its definition: 101 recall points, crowds ignored, at most 100 boxes an image)."""

    summary: dict[str, float]
    """AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; -1 where there is no truth of that size."""
    per_class: tuple[ClassAp, ...]
    recall: np.ndarray
    """float64 (101,), 0 to 1."""
    precision: dict[str, np.ndarray]
    """Label -> precision at IoU 0.5 at each of `recall`, float64 (101,)."""


_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def coco_ap(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], *, truth_name: str = "truth", name: str = "results"
) -> CocoScores:
    """`truth` is a COCO instances file as read from JSON, `results` COCO's list of results
    ({image_id, category_id, bbox: x, y, w, h, score}); the names are those files', for errors.

    Every image of the truth counts, those with no result too: leaving them out flatters the score.
    Raises ConfigError for a result of an image or category that the truth does not have.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    check_truth(truth, truth_name)
    images = [image["id"] for image in truth["images"]]
    categories = {c["id"]: str(c["name"]) for c in truth["categories"]}
    _check(results, set(images), set(categories), truth_name, name)
    annotations = [
        # Numbered anew: to COCO's matching an id of 0 means unmatched.
        {"iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a, "id": i}
        for i, a in enumerate(truth["annotations"], 1)
    ]
    reference = COCO({**truth, "annotations": annotations}, print_function=_silent)
    found = reference.loadRes([dict(r) for r in results]) if results else COCO({**truth, "annotations": []})
    evaluation = COCOeval_faster(reference, found, "bbox", print_function=_silent)
    evaluation.params.imgIds = sorted(images)
    evaluation.params.catIds = sorted(categories)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    # (IoU, recall, category, area, most boxes an image)
    curves = np.asarray(evaluation.eval["precision"], np.float64)[:, :, :, 0, -1]
    per_class, precision = [], {}
    truths, predictions = (_count(rows) for rows in (annotations, results))
    for i, category in enumerate(sorted(categories)):
        curve = np.where(curves[:, :, i] < 0, np.nan, curves[:, :, i])
        label = categories[category]
        precision[label] = curve[0]
        per_class.append(
            ClassAp(
                label=label,
                ap=float(curve.mean()),
                ap50=float(curve[0].mean()),
                truths=truths.get(category, 0),
                predictions=predictions.get(category, 0),
            )
        )
    summary = dict(zip(_NAMES, map(float, evaluation.stats[:12]), strict=True))
    return CocoScores(
        summary=summary, per_class=tuple(per_class), recall=np.linspace(0, 1, curves.shape[1]), precision=precision
    )


def _silent(*_: object) -> None:
    """The library prints its table; ours is drawn elsewhere."""


def _count(rows: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    out: dict[int, int] = {}
    for row in rows:
        if not row.get("iscrowd"):
            out[row["category_id"]] = out.get(row["category_id"], 0) + 1
    return out


def check_truth(truth: Mapping[str, Any], name: str) -> None:
    """Raises ConfigError for what is no COCO instances file, with the place of what is wrong."""
    known: dict[str, set[Any]] = {}
    for key, needed in (("images", ("id",)), ("categories", ("id", "name")), ("annotations", ("image_id", "bbox"))):
        rows = truth.get(key)
        if not isinstance(rows, list):
            raise ConfigError(f"{name}: not a COCO instances file, it has no list {key!r}.")
        for i, row in enumerate(rows):
            if not isinstance(row, Mapping) or any(k not in row for k in needed):
                raise ConfigError(f"{name}: {key}[{i}] must be a mapping with {' and '.join(needed)}.")
        if key == "annotations":
            break
        ids = [row["id"] for row in rows]
        if any(isinstance(i, (list, dict)) for i in ids) or len(known.setdefault(key, set(ids))) != len(ids):
            raise ConfigError(f"{name}: {key}: each needs an id of its own.")
    for i, row in enumerate(truth["annotations"]):
        for key, place in (("image_id", "images"), ("category_id", "categories")):
            if isinstance(row.get(key), (list, dict)) or row.get(key) not in known[place]:
                raise ConfigError(f"{name}: annotations[{i}]: {key} {row.get(key)!r} is none of the file's {place}.")
        if not _is_box(row["bbox"]):
            raise ConfigError(f"{name}: annotations[{i}]: bbox must be four numbers, not {str(row['bbox'])[:80]}.")


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 4
        and all(isinstance(v, (int, float)) and math.isfinite(v) for v in value)
    )


def _check(
    results: Sequence[Mapping[str, Any]], images: set[Any], categories: set[Any], truth_name: str, name: str
) -> None:
    for i, row in enumerate(results):
        for key in ("image_id", "category_id", "bbox", "score"):
            if key not in row:
                raise ConfigError(
                    f"{name}: result {i} has no {key!r}; COCO's form is image_id, category_id, bbox, score"
                )
        if not _is_box(row["bbox"]) or not isinstance(row["score"], (int, float)) or not math.isfinite(row["score"]):
            raise ConfigError(f"{name}: result {i}: bbox must be four numbers and the score one")
        for key, known in (("image_id", images), ("category_id", categories)):
            if isinstance(row[key], (list, dict)) or row[key] not in known:
                raise ConfigError(f"{name}: result {i} has {key} {row[key]!r}, which {truth_name} does not have")
