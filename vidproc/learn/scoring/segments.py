"""Temporal action detection: from window scores to segments, and ActivityNet's score of segments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vidproc.errors import ConfigError

TIOUS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""ActivityNet's thresholds: 0.50, 0.55, ... 0.95."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Something named happens in `video` from start_s to end_s (seconds on the video's clock)."""

    video: str
    label: str
    start_s: float
    end_s: float
    score: float = 1.0


# From window scores to segments


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSettings:
    thresholds: tuple[float, ...] = (0.2, 0.35, 0.5, 0.65, 0.8)
    """Each gives the runs of windows that score at least this: candidates of several lengths."""
    gap_s: float = 0.0
    """A run goes on over a pause up to this long."""
    sigma: float = 0.5
    """Width of soft-NMS: a score is multiplied by exp(-tIoU^2 / sigma) for each better overlapping segment."""
    min_score: float = 0.01
    """Segments that fall below are dropped."""
    most: int = 200
    """Segments a video and label."""

    def __post_init__(self) -> None:
        if self.sigma <= 0 or not self.thresholds or not all(0 < t <= 1 for t in self.thresholds):
            raise ConfigError(f"sigma must be positive and thresholds lie in (0, 1]: {self}")


def segments_of_windows(
    video: str,
    starts_s: np.ndarray,
    ends_s: np.ndarray,
    scores: np.ndarray,
    labels: Sequence[str],
    settings: SegmentSettings = SegmentSettings(),
) -> list[Segment]:
    """Windows in order of time, float64 (n,) and (n,), with scores (n, classes) -> segments, best first.

    Windows overlap, so each stands for its own stretch of time: from halfway between its middle and
    the middle of the one before to halfway to the next; the first reaches back to its start and the
    last on to its end. Runs of stretches at or above each threshold are candidates. Their score is
    the mean inside less the mean around (a quarter of their length on each side): so the bounds where
    the score falls win over shorter runs within them (outer-inner contrast, Shou et al., ECCV 2018).
    They are thinned by soft-NMS label by label.
    """
    if not len(starts_s) == len(ends_s) == len(scores):
        raise ValueError(f"one start, end and row of scores a window: {len(starts_s)=}, {len(ends_s)=}, {len(scores)=}")
    if not len(starts_s):
        return []
    middles = (starts_s + ends_s) / 2
    between = (middles[1:] + middles[:-1]) / 2
    begins, ends = np.concatenate([starts_s[:1], between]), np.concatenate([between, ends_s[-1:]])
    out: list[Segment] = []
    for c, label in enumerate(labels):
        candidates: dict[tuple[float, float], float] = {}
        for threshold in settings.thresholds:
            for run in _runs(scores[:, c] >= threshold, begins, ends, settings.gap_s):
                first, last = run[0], run[-1]
                candidates[float(begins[first]), float(ends[last])] = _contrast(scores[:, c], first, last)
        kept = soft_nms(
            np.array(list(candidates), np.float64).reshape(-1, 2),
            np.array(list(candidates.values()), np.float64),
            sigma=settings.sigma,
            min_score=settings.min_score,
        )[: settings.most]
        out += [Segment(video, label, start, end, score) for (start, end), score in kept]
    return sorted(out, key=lambda s: (-s.score, s.start_s, s.end_s, s.label))


def _runs(on: np.ndarray, begins: np.ndarray, ends: np.ndarray, gap_s: float) -> list[list[int]]:
    runs: list[list[int]] = []
    for i in np.flatnonzero(on):
        if runs and begins[i] - ends[runs[-1][-1]] <= gap_s + 1e-9:
            runs[-1].append(int(i))
        else:
            runs.append([int(i)])
    return runs


def _contrast(scores: np.ndarray, first: int, last: int) -> float:
    reach = max(1, (last - first + 1) // 4)
    around = np.concatenate([scores[max(0, first - reach) : first], scores[last + 1 : last + 1 + reach]])
    return max(0.0, float(scores[first : last + 1].mean() - (around.mean() if len(around) else 0.0)))


def soft_nms(
    segments: np.ndarray, scores: np.ndarray, *, sigma: float = 0.5, min_score: float = 0.01
) -> list[tuple[tuple[float, float], float]]:
    """Gaussian soft-NMS over time (Bodla, Singh, Chellappa, Davis, ICCV 2017, equation of section 3).

    segments float64 (n, 2), scores (n,) -> ((start, end), decayed score), in the order in which they
    were chosen: always the best of what remains, each choice lowering those that overlap it.
    """
    rest, left, out = segments.copy(), scores.copy(), []
    while len(rest) and left.max() >= min_score:
        best = int(left.argmax())
        chosen = rest[best]
        out.append(((float(chosen[0]), float(chosen[1])), float(left[best])))
        rest, left = np.delete(rest, best, 0), np.delete(left, best)
        left = left * np.exp(-(tiou(chosen, rest) ** 2) / sigma)
    return out


def tiou(segment: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union in time of one (2,) with many (n, 2) -> (n,), 0 to 1."""
    inside = np.minimum(segment[1], others[:, 1]) - np.maximum(segment[0], others[:, 0])
    inside = inside.clip(0)
    union = (segment[1] - segment[0]) + (others[:, 1] - others[:, 0]) - inside
    out: np.ndarray = np.divide(inside, union, out=np.zeros_like(inside, np.float64), where=union > 0)
    return out


# ActivityNet's score


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSegmentAp:
    label: str
    ap: float
    """Mean over the thresholds."""
    ap50: float
    truths: int
    predictions: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SegmentScores:
    average_map: float
    """ActivityNet's figure: the mean over classes and over tIoU 0.5:0.05:0.95."""
    map_at: dict[float, float]
    """tIoU -> mean AP over the classes of the truth."""
    per_class: tuple[ClassSegmentAp, ...]
    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    """Label -> (recall, precision) at the first threshold, in falling order of score."""


def activitynet_map(
    truth: Iterable[Segment], predictions: Iterable[Segment], tious: Sequence[float] = TIOUS
) -> SegmentScores:
    """Mean average precision of temporal detection, by ActivityNet's public definition.

    Class by class, over all videos: predictions in falling order of score; each is right if, among
    the truths of its video not yet taken, the one of greatest tIoU reaches the threshold, which it then
    takes; else it is wrong, as in a video that holds no such truth. AP is the area under the precision
    curve made monotonous. Classes of the truth count equally; predictions of other classes do not count.
    """
    by_label, predicted = _group(truth), _group(predictions)
    if not by_label:
        raise ConfigError("the truth holds no segment, so there is nothing to score against")
    aps = np.zeros((len(by_label), len(tious)))
    per_class, curves = [], {}
    for i, label in enumerate(sorted(by_label)):
        hits = _hits(by_label[label], predicted.get(label, []), tious)
        truths = len(by_label[label])
        precision, recall = _curve(hits, truths)
        aps[i] = [_area(precision[:, j], recall[:, j]) for j in range(len(tious))]
        curves[label] = (recall[:, 0], precision[:, 0])
        per_class.append(
            ClassSegmentAp(
                label=label, ap=float(aps[i].mean()), ap50=float(aps[i, 0]), truths=truths, predictions=len(hits)
            )
        )
    return SegmentScores(
        average_map=float(aps.mean()),
        map_at={t: float(aps[:, j].mean()) for j, t in enumerate(tious)},
        per_class=tuple(per_class),
        curves=curves,
    )


def _group(segments: Iterable[Segment]) -> Mapping[str, list[Segment]]:
    out: defaultdict[str, list[Segment]] = defaultdict(list)
    for segment in segments:
        out[segment.label].append(segment)
    return out


def _hits(truths: Sequence[Segment], predictions: Sequence[Segment], tious: Sequence[float]) -> np.ndarray:
    """bool (predictions in falling order of score, thresholds)."""
    at: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for t in truths:
        at[t.video].append((t.start_s, t.end_s))
    spans = {video: np.array(rows) for video, rows in at.items()}
    taken = {video: np.zeros((len(rows), len(tious)), bool) for video, rows in at.items()}
    ranked = sorted(predictions, key=lambda p: -p.score)
    hits = np.zeros((len(ranked), len(tious)), bool)
    for i, p in enumerate(ranked):
        if p.video not in spans:
            continue
        overlap = tiou(np.array([p.start_s, p.end_s]), spans[p.video])
        for j, threshold in enumerate(tious):
            free = np.where(taken[p.video][:, j], -1.0, overlap)
            best = int(free.argmax())
            if free[best] >= threshold:
                hits[i, j] = taken[p.video][best, j] = True
    return hits


def _curve(hits: np.ndarray, truths: int) -> tuple[np.ndarray, np.ndarray]:
    right = hits.cumsum(0).astype(np.float64)
    return right / np.arange(1, len(hits) + 1)[:, None], right / truths


def _area(precision: np.ndarray, recall: np.ndarray) -> float:
    """Under the curve whose precision is, at each recall, the best reached at that recall or beyond."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())
