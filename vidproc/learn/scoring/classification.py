"""Classification scores: top-1 and top-5 over multi-clip views (the protocol of Kinetics), and the confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vidproc.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAccuracy:
    label: str
    accuracy: float
    """Share of the examples of this class that top-1 gets right; NaN where there is none."""
    examples: int
    most_confused_with: str
    """The wrong answer given most often; empty where there is none."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ClassificationScores:
    top1: float
    top5: float
    mean_class_accuracy: float
    """Over the classes that have examples."""
    examples: int
    confusion: np.ndarray
    """int64 (classes, classes): truth by row, answer by column."""
    per_class: tuple[ClassAccuracy, ...]


def classification_scores(scores: np.ndarray, truth: np.ndarray, labels: Sequence[str]) -> ClassificationScores:
    """Scores (n, classes), true class ids int64 (n,). Where scores tie, the true class comes last, so that an
    example without scores counts as wrong."""
    n, classes = scores.shape
    if not n:
        raise ConfigError("the truth holds no example, so there is nothing to score against")
    if len(truth) != n or classes != len(labels):
        raise ValueError(f"one truth a row and one label a column: {scores.shape=}, {len(truth)=}, {len(labels)=}")
    own = scores[np.arange(n), truth][:, None]
    place = (scores >= own).sum(1) - 1  # the classes that are as good or better, itself left out
    masked = scores.astype(np.float64).copy()
    masked[np.arange(n), truth] = np.where(place == 0, np.inf, -np.inf)
    answer = masked.argmax(1)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (truth, answer), 1)
    return ClassificationScores(
        top1=float((place < 1).mean()),
        top5=float((place < 5).mean()),
        mean_class_accuracy=float(np.mean([confusion[c, c] / confusion[c].sum() for c in np.unique(truth)])),
        examples=n,
        confusion=confusion,
        per_class=tuple(_class(c, labels, confusion) for c in range(classes)),
    )


def _class(c: int, labels: Sequence[str], confusion: np.ndarray) -> ClassAccuracy:
    row = confusion[c].copy()
    right, total = int(row[c]), int(row.sum())
    row[c] = 0
    return ClassAccuracy(
        label=labels[c],
        accuracy=right / total if total else float("nan"),
        examples=total,
        most_confused_with=labels[int(row.argmax())] if row.any() else "",
    )


def as_matrix(
    answers: Mapping[str, Sequence[tuple[str, float]]], order: Sequence[str], labels: Sequence[str]
) -> np.ndarray:
    """Video -> (label, score) pairs, as ActivityNet's classification files list them, as scores
    float64 (len(order), len(labels)): zero where nothing is said. Raises ConfigError for an unknown label."""
    at = {label: i for i, label in enumerate(labels)}
    out = np.zeros((len(order), len(labels)))
    for i, video in enumerate(order):
        for label, score in answers.get(video, ()):
            if label not in at:
                raise ConfigError(
                    f"the predictions for {video!r} name the label {label!r}, which the truth does not have"
                )
            out[i, at[label]] = max(out[i, at[label]], score)
    return out
