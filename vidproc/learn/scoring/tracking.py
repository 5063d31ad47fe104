"""Tracking scores: MOTA (CLEAR), IDF1 and HOTA, by `trackers.eval`, a kept library (its counterpart of
TrackEval, MIT), pooled over sequences as TrackEval pools them.

MOTA: Bernardin and Stiefelhagen 2008; IDF1: Ristani et al. 2016; HOTA: Luiten et al. 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidproc.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Tracked boxes of one sequence, any order."""

    frame: np.ndarray
    """int64 (n,)."""
    track: np.ndarray
    """int64 (n,)."""
    xyxy: np.ndarray
    """float64 (n, 4) pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingScores:
    mota: float
    idf1: float
    hota: float
    deta: float
    assa: float
    loca: float
    id_switches: int
    false_positives: int
    false_negatives: int
    truths: int
    """Boxes of the truth."""


def tracking_scores(
    truth: Mapping[str, Boxes], predicted: Mapping[str, Boxes], *, iou: float = 0.5
) -> dict[str, TrackingScores]:
    """Sequence -> scores, and those of all together under "all". A sequence without predictions counts
    as all missed. `iou` is the least overlap of a match for MOTA and IDF1; HOTA takes 0.05:0.05:0.95."""
    from trackers.eval import (
        aggregate_clear_metrics,
        aggregate_hota_metrics,
        aggregate_identity_metrics,
        compute_clear_metrics,
        compute_hota_metrics,
        compute_identity_metrics,
    )

    if extra := set(predicted) - set(truth):
        raise ConfigError(f"tracks of {sorted(extra)[0]!r} have no truth to be scored against")
    if not truth:
        raise ConfigError("the truth holds no sequence, so there is nothing to score against")
    nothing = Boxes(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)))
    out, rows = {}, []
    for name in sorted(truth):
        frames = _by_frame(truth[name], predicted.get(name, nothing))
        row = (
            compute_clear_metrics(*frames, threshold=iou),
            compute_identity_metrics(*frames, threshold=iou),
            compute_hota_metrics(*frames),
        )
        rows.append(row)
        out[name] = _scores(*row)
    clear, identity, hota = zip(*rows, strict=True)
    out["all"] = _scores(
        aggregate_clear_metrics(list(clear)),
        aggregate_identity_metrics(list(identity)),
        aggregate_hota_metrics(list(hota)),
    )
    return out


def _scores(clear: dict[str, float], identity: dict[str, float], hota: dict[str, float]) -> TrackingScores:
    return TrackingScores(
        mota=float(clear["MOTA"]),
        idf1=float(identity["IDF1"]),
        hota=float(hota["HOTA"]),
        deta=float(hota["DetA"]),
        assa=float(hota["AssA"]),
        loca=float(hota["LocA"]),
        id_switches=int(clear["IDSW"]),
        false_positives=int(clear["CLR_FP"]),
        false_negatives=int(clear["CLR_FN"]),
        truths=int(clear["CLR_TP"]) + int(clear["CLR_FN"]),
    )


def _by_frame(truth: Boxes, predicted: Boxes) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    truths, predictions, overlaps = [], [], []
    for frame in np.union1d(truth.frame, predicted.frame):
        a, b = truth.frame == frame, predicted.frame == frame
        truths.append(truth.track[a])
        predictions.append(predicted.track[b])
        overlaps.append(box_iou(truth.xyxy[a], predicted.xyxy[b]))
    return truths, predictions, overlaps


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) and (m, 4), x_min, y_min, x_max, y_max -> intersection over union (n, m)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = (high - low).clip(0).prod(2)
    areas = [(x[:, 2:] - x[:, :2]).clip(0).prod(1) for x in (a, b)]
    union = areas[0][:, None] + areas[1][None] - inside
    out: np.ndarray = np.divide(inside, union, out=np.zeros_like(inside, np.float64), where=union > 0)
    return out


def read_motchallenge(path: Path) -> Boxes:
    """MOTChallenge text: frame, id, left, top, width, height, confidence, ... a line. In a truth file a
    confidence of 0 marks a box to be left out. Raises ConfigError naming the file and the line."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        parts = line.replace(",", " ").split()
        try:
            frame, track, left, top, width, height = (float(p) for p in parts[:6])
            sure = float(parts[6]) if len(parts) > 6 else 1.0
        except ValueError:
            raise ConfigError(
                f"{path}, line {number}: not MOTChallenge's frame, id, left, top, width, height: {line[:80]!r}"
            ) from None
        if width <= 0 or height <= 0:
            raise ConfigError(f"{path}, line {number}: a box needs a positive width and height: {line[:80]!r}")
        if sure != 0:
            rows.append((frame, track, left, top, left + width, top + height))
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Boxes(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2:])
