"""Score detections: a file or a lake against COCO."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vidproc.errors import ConfigError
from vidproc.learn.labels.coco import read_moments
from vidproc.learn.labels.fields import load_json
from vidproc.learn.labels.values import LabelledMoment
from vidproc.learn.lake import LakeRows
from vidproc.learn.plots import precision_recall_png
from vidproc.learn.scoring.coco import check_truth, coco_ap
from vidproc.learn.scoring.files import load_list
from vidproc.learn.scoring.settings import EvalSettings, Evaluation, Made


def score_detection(s: EvalSettings, lake: LakeRows | None) -> Made:
    if lake is None:
        truth, results = load_json(Path(s.truth)), load_list(Path(s.predictions or ""))
        name = str(s.predictions)
    else:
        truth, results = _detections_of(s, lake)
        name = lake.lake.uri
    scores = coco_ap(truth, results, truth_name=s.truth, name=name)
    curves = {k: (scores.recall, v) for k, v in scores.precision.items() if not np.isnan(v).any()}
    made = Evaluation(task=s.task, summary=scores.summary, per_class=tuple(asdict(c) for c in scores.per_class))
    return made, {"precision_recall.png": precision_recall_png(curves, "IoU 0.5")}


def _detections_of(s: EvalSettings, lake: LakeRows) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The truth as the file has it, crowds and areas included, and the lake's detections at its images as results."""
    path = Path(s.truth)
    truth = load_json(path)
    check_truth(truth, s.truth)
    category_of = {str(c["name"]): c["id"] for c in truth["categories"]}
    if len(category_of) < len(truth["categories"]):
        raise ConfigError(f"{path}: categories: a name is given twice, and a lake's labels are names.")
    model = lake.model("detections", s.model)
    by_uri = {uri: video_id for video_id, uri in lake.uris.items()}
    wanted: defaultdict[str, list[LabelledMoment]] = defaultdict(list)
    for moment in read_moments(truth, path, lake.catalog):
        wanted[by_uri[moment.source.uri]].append(moment)
    results = []
    nearest = np.inf
    for video_id, moments in wanted.items():
        found: defaultdict[float, list[dict[str, Any]]] = defaultdict(list)
        for row in lake.rows(
            "SELECT time_s, label, score, x_min, y_min, x_max, y_max FROM detections "
            "WHERE video_id = $video AND pipeline = $pipeline AND model = $model ORDER BY time_s, score DESC",
            video=video_id,
            model=model,
        ).to_pylist():
            found[row["time_s"]].append(row)
        if not found:
            continue
        times = np.array(sorted(found))
        for moment in moments:
            # One sample an image: where samples lie closer than the tolerance, their boxes are not added up.
            sample = float(times[np.abs(times - moment.time_s).argmin()])
            nearest = min(nearest, abs(sample - moment.time_s))
            if abs(sample - moment.time_s) > s.tolerance_s:
                continue
            results += [
                {
                    "image_id": moment.image_id,
                    "category_id": category_of[r["label"]],
                    "bbox": [r["x_min"], r["y_min"], r["x_max"] - r["x_min"], r["y_max"] - r["y_min"]],
                    "score": r["score"],
                }
                for r in found[sample]
                if r["label"] in category_of  # classes that the truth does not know do not count
            ]
    if s.tolerance_s < nearest < np.inf:
        raise ConfigError(
            f"{s.truth}: no labelled frame is one that the lake's detector looked at; the nearest was {nearest:.3f} s "
            f"away, and the tolerance is {s.tolerance_s:g} s. Label frames at multiples of the sampling period, sample "
            "oftener, or allow more."
        )
    return truth, results
