"""Score action labels of whole examples: a file or a lake against Kinetics or ActivityNet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidproc.errors import ConfigError
from vidproc.learn.labels.values import ActionLabels
from vidproc.learn.lake import LakeRows
from vidproc.learn.plots import confusion_png
from vidproc.learn.scoring.classification import as_matrix, classification_scores
from vidproc.learn.scoring.files import activitynet_results, csv_rows, read_action_truth
from vidproc.learn.scoring.settings import EvalSettings, Evaluation, Made


def score_classification(s: EvalSettings, lake: LakeRows | None) -> Made:
    labels = read_action_truth(s, lake)
    if lake is None and str(s.predictions).endswith(".json"):
        # ActivityNet's answers are for whole videos, in which one thing often happens several times.
        once = {(c.source.uri, c.class_id): c for c in reversed(labels.clips)}
        labels = replace(labels, clips=tuple(c for c in labels.clips if once[c.source.uri, c.class_id] is c))
    keys = [_key(c.source.uri, c.start_s) for c in labels.clips]
    if lake is not None:
        answers = _answers_of(s, lake, labels)
        if unknown := sorted({label for a in answers.values() for label, _ in a} - set(labels.labels)):
            answers = {k: [(label, v) for label, v in a if label not in unknown] for k, a in answers.items()}
    else:
        answers = _read_answers(Path(s.predictions or ""), labels)
    scores = classification_scores(
        as_matrix(answers, keys, labels.labels), np.array([c.class_id for c in labels.clips]), labels.labels
    )
    summary = {
        "top1": scores.top1,
        "top5": scores.top5,
        "mean_class_accuracy": scores.mean_class_accuracy,
        "examples": float(scores.examples),
    }
    made = Evaluation(task=s.task, summary=summary, per_class=tuple(asdict(c) for c in scores.per_class))
    return made, {"confusion.png": confusion_png(scores.confusion, labels.labels)}


def _key(uri: str, start_s: float) -> str:
    return f"{uri}\n{start_s:.3f}"


def _answers_of(s: EvalSettings, lake: LakeRows, labels: ActionLabels) -> dict[str, list[tuple[str, float]]]:
    """The mean over the windows that lie in the example by more than half."""
    model = lake.model("actions", s.model)
    by_uri = {uri: video_id for video_id, uri in lake.uris.items()}
    answers = {}
    for clip in labels.clips:
        rows = lake.rows(
            "SELECT start_s, label, score FROM actions WHERE video_id = $video AND pipeline = $pipeline "
            "AND model = $model AND least(end_s, $end) - greatest(start_s, $start) > 0.5 * (end_s - start_s)",
            video=by_uri[clip.source.uri],
            model=model,
            start=clip.start_s,
            end=clip.end_s if clip.end_s is not None else 1e12,
        ).to_pylist()
        answers[_key(clip.source.uri, clip.start_s)] = _mean_over_views(
            [(str(r["start_s"]), r["label"], r["score"]) for r in rows]
        )
    return answers


def _mean_over_views(rows: Sequence[tuple[str, str, float]]) -> list[tuple[str, float]]:
    """(view, label, score) -> (label, mean score): a label that a view does not name scored 0 there."""
    views = len({view for view, *_ in rows})
    total: defaultdict[str, float] = defaultdict(float)
    for _, label, score in rows:
        total[label] += score / views
    return list(total.items())


def _read_answers(path: Path, labels: ActionLabels) -> dict[str, list[tuple[str, float]]]:
    starts: defaultdict[str, list[str]] = defaultdict(list)
    for clip in labels.clips:
        starts[clip.source.uri].append(_key(clip.source.uri, clip.start_s))
    out: dict[str, list[tuple[str, float]]] = {}

    def keys(name: str, start: str | None, where: str) -> list[str]:
        if name not in starts:
            raise ConfigError(f"{where}: there is no {name!r} in the truth.")
        try:
            key = _key(name, float(start)) if start else None
        except ValueError:
            raise ConfigError(f"{where}: start_s must be seconds, not {start!r}.") from None
        if key is None and len(starts[name]) > 1 and path.suffix != ".json":
            raise ConfigError(
                f"{where}: {name!r} has {len(starts[name])} examples in the truth; start_s must say which."
            )
        if key is not None and key not in starts[name]:
            raise ConfigError(f"{where}: no example of {name!r} in the truth starts at {start} s.")
        return [key] if key else starts[name]

    if path.suffix == ".json":
        for name, rows in activitynet_results(path).items():
            where = f"{path}: results.{name}"
            for key in keys(name, None, where):
                out[key] = [_answer(r, labels.labels, f"{where}[{i}]") for i, r in enumerate(rows)]
        return out
    views: defaultdict[str, list[tuple[str, str, float]]] = defaultdict(list)
    for number, row in csv_rows(path, ("uri", "label", "score")):
        where = f"{path}, line {number}"
        try:
            score = float(row["score"])
        except ValueError:
            raise ConfigError(f"{where}: the score must be a number, not {row['score']!r}.") from None
        if row["label"] not in labels.labels:
            raise ConfigError(f"{where}: {row['label']!r} is none of the truth's labels.")
        for key in keys(row["uri"], row.get("start_s"), where):
            views[key].append((row.get("view") or "", row["label"], score))
    return {key: _mean_over_views(rows) for key, rows in views.items()}


def _answer(row: Any, labels: Sequence[str], where: str) -> tuple[str, float]:
    try:
        label, score = str(row["label"]), float(row["score"])
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{where}: needs label and score, is {str(row)[:80]}.") from None
    if label not in labels:
        raise ConfigError(f"{where}: {label!r} is none of the truth's labels.")
    return label, score
