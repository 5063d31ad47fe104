"""How well an index found what is in a drawn archive: mAP@50, IDF1 and top-1, from rows of the lake.

Detections count as in COCO's evaluation (Lin et al. 2014) at IoU 0.5: matched by falling score, average precision
at 101 recalls, the mean over classes. Objects marked difficult count neither way. Tracks count by IDF1 (Ristani et
al. 2016, "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking"). Of the action windows those
count whose middle lies in exactly one segment of the truth and of which at least three quarters lie in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vidproc.demo.truth import Box, Truth, VideoTruth
from vidproc.errors import ConfigError

IOU: Final = 0.5
INSIDE: Final = 0.75
Rows: TypeAlias = pa.Table | Sequence[Mapping[str, Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures from 0 to 1; nan where there was nothing to score."""

    map50: float
    idf1: float
    top1: float
    ap50: Mapping[str, float] = field(default_factory=dict)
    """By label."""
    top1_by_label: Mapping[str, float] = field(default_factory=dict)
    frames: int = 0
    objects: int = 0
    """Boxes of the truth in the sampled frames, without the difficult ones."""
    windows: int = 0


def score(
    truth: Truth,
    videos: Rows,
    detections: Rows,
    actions: Rows,
    *,
    detector_fps: float,
) -> Scores:
    """Scores the rows of a lake, as pyarrow tables or sequences of dicts.

    videos: video_id, uri (the truth's names are the ends of the URIs). detections: video_id, time_s, label, score,
    x_min, y_min, x_max, y_max and track_id (may be null). actions: video_id, start_s, end_s, label, score (and rank).
    detector_fps: of the detector's grid, since a frame in which nothing was found has no row. Raises ConfigError if
    a video of the truth is not among the videos.
    """
    id_of = _ids(truth, _records(videos, ("video_id", "uri")))
    found: dict[str, dict[int, list[Found]]] = defaultdict(lambda: defaultdict(list))
    columns = ("video_id", "time_s", "label", "score", "x_min", "y_min", "x_max", "y_max", "track_id")
    for r in _records(detections, columns):
        box = np.array([r["x_min"], r["y_min"], r["x_max"], r["y_max"]], np.float64)
        sample = round(r["time_s"] * detector_fps)
        found[r["video_id"]][sample].append(Found(r["label"], float(r["score"]), box, r["track_id"]))

    average = AveragePrecision()
    identity = Identity()
    frames = objects = 0
    for video in truth.videos:
        mine = found.get(id_of[video.name], {})
        for k in range(ceil(video.duration_s * detector_fps - 1e-9)):
            there, here = video.at(k / detector_fps), mine.get(k, [])
            frames += 1
            objects += sum(not b.difficult for b in there)
            average.add(there, here)
            identity.add(video.name, there, here)
    ap50 = average.by_label()
    top1, by_label, windows = _top1(truth, id_of, _records(actions, ("video_id", "start_s", "end_s", "label", "score")))
    return Scores(
        map50=float(np.mean(list(ap50.values()))) if ap50 else float("nan"),
        idf1=identity.idf1(),
        top1=top1,
        ap50=ap50,
        top1_by_label=by_label,
        frames=frames,
        objects=objects,
        windows=windows,
    )


def _records(rows: Rows, columns: Sequence[str]) -> Iterable[Mapping[str, Any]]:
    if isinstance(rows, pa.Table):
        return rows.select(list(columns)).to_pylist()  # type: ignore[no-any-return]
    return rows


def _ids(truth: Truth, videos: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    uris = {str(v["uri"]): str(v["video_id"]) for v in videos}
    out = {}
    for video in truth.videos:
        ids = [i for uri, i in uris.items() if uri == video.name or uri.endswith("/" + video.name)]
        if len(ids) != 1:
            raise ConfigError(
                f"{len(ids)} indexed videos have the name {video.name} of the truth, where it should be one: "
                "score an index of the archive that was drawn with this truth."
            )
        out[video.name] = ids[0]
    return out


@dataclass(frozen=True, slots=True)
class Found:
    """One row of `detections`."""

    label: str
    score: float
    box: Floats
    track_id: int | None = None


def iou(a: Floats, b: Floats) -> Floats:
    """(n, 4) and (m, 4) boxes -> (n, m) intersection over union."""
    if len(a) == 0 or len(b) == 0:
        return np.zeros((len(a), len(b)))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.clip(high - low, 0, None), -1)
    area_a, area_b = np.prod(a[:, 2:] - a[:, :2], -1), np.prod(b[:, 2:] - b[:, :2], -1)
    out: Floats = inter / np.maximum(area_a[:, None] + area_b[None] - inter, 1e-9)
    return out


def _array(boxes: Sequence[Box]) -> Floats:
    return np.array([[b.x_min, b.y_min, b.x_max, b.y_max] for b in boxes], np.float64).reshape(-1, 4)


class AveragePrecision:
    """Average precision at IoU 0.5 of each class, fed frame by frame."""

    def __init__(self, max_detections: int = 100) -> None:
        self._most = max_detections
        self._hits: dict[str, list[tuple[float, bool]]] = defaultdict(list)
        self._total: dict[str, int] = defaultdict(int)

    def add(self, truth: Sequence[Box], found: Sequence[Found]) -> None:
        for label in {b.label for b in truth} | {f.label for f in found}:
            # Ordinary objects first: a detection is given to a difficult one only if it fits no other.
            there = sorted((b for b in truth if b.label == label), key=lambda b: b.difficult)
            here = sorted((f for f in found if f.label == label), key=lambda f: -f.score)[: self._most]
            plain = sum(not b.difficult for b in there)
            self._total[label] += plain
            overlap = iou(np.array([f.box for f in here]).reshape(-1, 4), _array(there))
            taken: set[int] = set()
            for i, f in enumerate(here):
                free = [j for j in range(plain) if j not in taken and overlap[i, j] >= IOU]
                if free:
                    # On a tie COCO takes the last.
                    best = max(free, key=lambda j: (overlap[i, j], j))
                    taken.add(best)
                    self._hits[label].append((f.score, True))
                elif not any(overlap[i, j] >= IOU for j in range(plain, len(there))):
                    self._hits[label].append((f.score, False))

    def by_label(self) -> dict[str, float]:
        """Return the average precision of each class that occurs in the truth."""
        return {label: self._of(label) for label in sorted(self._total) if self._total[label]}

    def _of(self, label: str) -> float:
        if not self._hits[label]:
            return 0.0
        hits = np.array(self._hits[label])
        right = hits[np.argsort(-hits[:, 0], kind="stable"), 1]
        true, false = np.cumsum(right), np.cumsum(1 - right)
        recall, precision = true / self._total[label], true / (true + false)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
        return float(np.where(at < len(envelope), envelope[np.minimum(at, len(envelope) - 1)], 0).mean())


class Identity:
    """IDF1 over videos, fed frame by frame; labels are told apart."""

    def __init__(self) -> None:
        self._both: dict[str, dict[tuple[Any, Any], int]] = defaultdict(lambda: defaultdict(int))
        self._true: dict[str, dict[Any, int]] = defaultdict(lambda: defaultdict(int))
        self._found: dict[str, dict[Any, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, video: str, truth: Sequence[Box], found: Sequence[Found]) -> None:
        tracked = [f for f in found if f.track_id is not None]
        overlap = iou(np.array([f.box for f in tracked]).reshape(-1, 4), _array(truth))
        same = np.array([[f.label == b.label for b in truth] for f in tracked], bool).reshape(overlap.shape)
        overlap = np.where(same, overlap, 0)
        for b in truth:
            if not b.difficult:
                self._true[video][b.label, b.track_id] += 1
        for i, f in enumerate(tracked):
            fits = [j for j in range(len(truth)) if overlap[i, j] >= IOU]
            if fits and all(truth[j].difficult for j in fits):
                continue
            self._found[video][f.label, f.track_id] += 1
            for j in fits:
                if not truth[j].difficult:
                    b = truth[j]
                    self._both[video][(b.label, b.track_id), (f.label, f.track_id)] += 1

    def idf1(self) -> float:
        """2 IDTP / (boxes of the truth + tracked boxes), identities paired as well as can be, video by video."""
        from scipy.optimize import linear_sum_assignment

        hits = total = 0
        for video in set(self._true) | set(self._found):
            true, found = list(self._true[video]), list(self._found[video])
            total += sum(self._true[video].values()) + sum(self._found[video].values())
            both = np.array([[self._both[video].get((a, b), 0) for b in found] for a in true])
            if both.size:
                rows, columns = linear_sum_assignment(-both)
                hits += int(both[rows, columns].sum())
        return 2 * hits / total if total else float("nan")


def label_of_window(video: VideoTruth, start_s: float, end_s: float) -> str | None:
    """What happens in a window, None where the truth does not say it clearly."""
    middle = (start_s + end_s) / 2
    holding = [s for s in video.segments if s.start_s <= middle < s.end_s]
    if len(holding) != 1:
        return None
    inside = min(end_s, holding[0].end_s) - max(start_s, holding[0].start_s)
    return holding[0].label if inside >= INSIDE * (end_s - start_s) - 1e-9 else None


def _top1(
    truth: Truth, id_of: Mapping[str, str], actions: Iterable[Mapping[str, Any]]
) -> tuple[float, dict[str, float], int]:
    best: dict[tuple[str, float, float], tuple[float, str]] = {}
    for r in actions:
        key = (r["video_id"], float(r["start_s"]), float(r["end_s"]))
        if key not in best or r["score"] > best[key][0]:
            best[key] = (float(r["score"]), r["label"])
    video_of = {id_of[v.name]: v for v in truth.videos}
    right: dict[str, list[bool]] = defaultdict(list)
    for (video_id, start, end), (_, label) in best.items():
        if video_id in video_of:
            wanted = label_of_window(video_of[video_id], start, end)
            if wanted is not None:
                right[wanted].append(label == wanted)
    count = sum(len(r) for r in right.values())
    top1 = sum(sum(r) for r in right.values()) / count if count else float("nan")
    return top1, {label: float(np.mean(r)) for label, r in sorted(right.items())}, count
