"""Scoring: predictions in the field's file formats, or a lake, against truth in the field's file formats.

task            truth                                   predictions
detection       COCO instances JSON                     COCO results JSON, or a lake's detections
classification  Kinetics CSV or ActivityNet JSON        CSV uri,label,score[,start_s,view], ActivityNet
                                                        classification JSON, or a lake's actions
segments        ActivityNet JSON                        ActivityNet detection JSON, or a lake
tracking        MOTChallenge text: a file, or a folder  the same, or a lake's detections with tracks
                of <video>.txt or <video>/gt/gt.txt
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidproc.documents import load_json_file
from vidproc.errors import ConfigError
from vidproc.learn.labels import (
    ActionLabels,
    AnyName,
    Catalog,
    LabelledMoment,
    load_json,
    read_actions,
    read_moments,
)
from vidproc.learn.lake import LakeRows, open_rows
from vidproc.learn.plots import confusion_png, precision_recall_png
from vidproc.learn.scoring.classification import as_matrix, classification_scores
from vidproc.learn.scoring.coco import check_truth, coco_ap
from vidproc.learn.scoring.segments import Segment, SegmentSettings, activitynet_map, segments_of_windows
from vidproc.learn.scoring.tracking import Boxes, read_motchallenge, tracking_scores
from vidproc.storage import StorageOptions, open_storage, signed

Task = Literal["detection", "classification", "segments", "tracking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSettings:
    task: Task
    truth: str
    """Label file (tracking: file or folder)."""
    predictions: str | None = None
    """File in the field's format; or give `lake`."""
    lake: str | None = None
    pipeline: str | None = None
    """Of the lake; needed where it has several."""
    model: str | None = None
    """Of the lake's rows, as name or name@hash; needed where there are several."""
    subset: str | None = None
    """Rows of the truth with this `split` or `subset` alone."""
    out: str | None = None
    """Folder or s3:// prefix for scores.json, per_class.csv and the pictures; None: none are written."""
    tolerance_s: float = 0.02
    """A lake's detection belongs to the labelled frame whose time is no farther than this."""
    source: Literal["segments", "windows"] = "segments"
    """Of a lake, for the task segments: its segments table, or its windows by soft-NMS."""
    truth_fps: float | None = None
    """Tracking from a lake: frames a second of the truth; its frame 1 is at 0 s."""
    sample_fps: float | None = None
    """Tracking from a lake: the rate at which the detector sampled; other frames of the truth do not count."""
    iou: float = 0.5
    """Least overlap of a match, for MOTA and IDF1."""

    def __post_init__(self) -> None:
        if self.task not in ("detection", "classification", "segments", "tracking"):
            raise ConfigError(f"the task must be detection, classification, segments or tracking, not {self.task!r}")
        if self.source not in ("segments", "windows"):
            raise ConfigError(f"the source must be segments or windows, not {self.source!r}")
        if not 0 < self.iou <= 1:
            raise ConfigError(f"the iou must lie above 0 and up to 1, not {self.iou:g}")
        if (self.predictions is None) == (self.lake is None):
            raise ConfigError("give either a file of predictions or a lake to be scored")
        if self.task == "tracking" and self.lake is not None and not (self.truth_fps and self.sample_fps):
            raise ConfigError("tracks of a lake are scored at truth_fps and sample_fps: give both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    task: Task
    summary: dict[str, float]
    """Figures by the field's names: AP, AP50; top1, top5; mAP, mAP@0.50; MOTA, IDF1, HOTA; ..."""
    per_class: tuple[dict[str, Any], ...]
    """One row a class (tracking: a sequence), all with the same keys."""
    files: tuple[str, ...] = ()
    """What was written."""


def evaluate(settings: EvalSettings, *, options: StorageOptions | None = None) -> Evaluation:
    """Scores, and writes them where `out` says. Raises ConfigError for files that do not fit each other."""
    if settings.lake is None:
        made, pictures = _TASKS[settings.task](settings, None)
    else:
        with open_rows(settings.lake, settings.pipeline, signed(options)) as rows:
            made, pictures = _TASKS[settings.task](settings, rows)
    return made if settings.out is None else _written(made, pictures, settings.out, options)


Made = tuple[Evaluation, dict[str, bytes]]


def _detection(s: EvalSettings, lake: LakeRows | None) -> Made:
    if lake is None:
        truth, results = load_json(Path(s.truth)), _load_list(Path(s.predictions or ""))
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


def _classification(s: EvalSettings, lake: LakeRows | None) -> Made:
    labels = _action_truth(s, lake)
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


def _action_truth(s: EvalSettings, lake: LakeRows | None) -> ActionLabels:
    catalog: Catalog = lake.catalog if lake is not None else AnyName()
    return read_actions(s.truth, catalog, subset=s.subset)


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
        for name, rows in _results(path).items():
            where = f"{path}: results.{name}"
            for key in keys(name, None, where):
                out[key] = [_answer(r, labels.labels, f"{where}[{i}]") for i, r in enumerate(rows)]
        return out
    views: defaultdict[str, list[tuple[str, str, float]]] = defaultdict(list)
    for number, row in _csv_rows(path, ("uri", "label", "score")):
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


def _segments(s: EvalSettings, lake: LakeRows | None) -> Made:
    labels = _action_truth(s, lake)
    durations = {lake.uris[k]: v for k, v in lake.durations.items()} if lake is not None else {}
    truth = [
        Segment(c.source.uri, labels.labels[c.class_id], c.start_s, _end(c.end_s, durations.get(c.source.uri), c.where))
        for c in labels.clips
    ]
    if lake is None:
        found = _read_segments(Path(s.predictions or ""))
    else:
        found = _segments_of(s, lake, {t.video for t in truth})
    scores = activitynet_map(truth, found)
    summary = {"mAP": scores.average_map} | {f"mAP@{t:.2f}": v for t, v in scores.map_at.items()}
    made = Evaluation(task=s.task, summary=summary, per_class=tuple(asdict(c) for c in scores.per_class))
    return made, {"precision_recall.png": precision_recall_png(scores.curves, "tIoU 0.5")}


def _end(end_s: float | None, duration_s: float | None, where: str) -> float:
    if end_s is None and duration_s is None:
        raise ConfigError(f"{where}: a segment needs its end.")
    return end_s if end_s is not None else float(duration_s or 0)


def _read_segments(path: Path) -> list[Segment]:
    out = []
    for name, rows in _results(path).items():
        for i, r in enumerate(rows):
            try:
                start, end = r["segment"]
                out.append(Segment(name, str(r["label"]), float(start), float(end), float(r["score"])))
            except (KeyError, TypeError, ValueError):
                raise ConfigError(
                    f"{path}: results.{name}[{i}]: needs label, score and segment [start, end], is {str(r)[:80]}."
                ) from None
    return out


def _segments_of(s: EvalSettings, lake: LakeRows, videos: set[str]) -> list[Segment]:
    out: list[Segment] = []
    model = lake.model("actions", s.model)
    for video_id, uri in lake.uris.items():
        if uri not in videos:
            continue
        if s.source == "segments":
            rows = lake.rows(
                "SELECT label, start_s, end_s, score FROM segments WHERE kind = 'action' AND video_id = $video "
                "AND pipeline = $pipeline AND model = $model",
                video=video_id,
                model=model,
            ).to_pylist()
            out += [Segment(uri, r["label"], r["start_s"], r["end_s"], r["score"]) for r in rows]
            continue
        rows = lake.rows(
            "SELECT start_s, end_s, label, score FROM actions WHERE video_id = $video AND pipeline = $pipeline "
            "AND model = $model ORDER BY start_s",
            video=video_id,
            model=model,
        ).to_pylist()
        names = sorted({r["label"] for r in rows})
        starts = sorted({(r["start_s"], r["end_s"]) for r in rows})
        at = {start: i for i, (start, _) in enumerate(starts)}
        scores = np.zeros((len(starts), len(names)))
        for r in rows:
            scores[at[r["start_s"]], names.index(r["label"])] = r["score"]
        spans = np.array(starts, np.float64).reshape(-1, 2)
        out += segments_of_windows(uri, spans[:, 0], spans[:, 1], scores, names, SegmentSettings())
    return out


def _tracking(s: EvalSettings, lake: LakeRows | None) -> Made:
    truth = _read_sequences(Path(s.truth))
    if lake is None:
        found = _read_sequences(Path(s.predictions or ""))
        if len(truth) == len(found) == 1:
            found = dict(zip(truth, found.values(), strict=True))
    else:
        truth, found = _tracks_of(s, lake, truth)
    scores = tracking_scores(truth, found, iou=s.iou)
    every = asdict(scores["all"])
    summary = {k.upper(): v for k, v in every.items() if k in ("mota", "idf1", "hota", "deta", "assa", "loca")}
    summary |= {k: float(v) for k, v in every.items() if k.upper() not in summary}
    rows = tuple({"sequence": k, **asdict(v)} for k, v in scores.items())
    return Evaluation(task=s.task, summary=summary, per_class=rows), {}


def _read_sequences(path: Path) -> dict[str, Boxes]:
    if path.is_file():
        return {path.stem: read_motchallenge(path)}
    found = {p.stem: p for p in sorted(path.glob("*.txt"))}
    found |= {p.parent.parent.name: p for p in sorted(path.glob("*/gt/gt.txt"))}
    if not found:
        raise ConfigError(f"{path}: no MOTChallenge text, and no folder of <video>.txt or <video>/gt/gt.txt.")
    return {name: read_motchallenge(p) for name, p in found.items()}


def _tracks_of(
    s: EvalSettings, lake: LakeRows, truth: Mapping[str, Boxes]
) -> tuple[dict[str, Boxes], dict[str, Boxes]]:
    """Truth and tracks at the frames that the detector saw, numbered by sample."""
    assert s.truth_fps is not None and s.sample_fps is not None
    model, catalog = lake.model("detections", s.model), lake.catalog
    by_uri = {uri: video_id for video_id, uri in lake.uris.items()}
    seen, found = {}, {}
    for name, boxes in truth.items():
        uri = catalog.find(name, s.truth).uri
        rows = lake.rows(
            "SELECT time_s, track_id, x_min, y_min, x_max, y_max FROM detections WHERE video_id = $video "
            "AND pipeline = $pipeline AND model = $model AND track_id IS NOT NULL",
            video=by_uri[uri],
            model=model,
        ).to_pylist()
        found[name] = Boxes(
            np.array([round(r["time_s"] * s.sample_fps) for r in rows], np.int64),
            np.array([r["track_id"] for r in rows], np.int64),
            np.array([[r["x_min"], r["y_min"], r["x_max"], r["y_max"]] for r in rows], np.float64).reshape(-1, 4),
        )
        last = int(boxes.frame.max(initial=0))
        samples = np.arange(int(last / s.truth_fps * s.sample_fps) + 1)
        # Frame 1 is shown from 0 s: the frame on screen at k / sample_fps.
        shown = np.floor(samples / s.sample_fps * s.truth_fps + 1e-6).astype(np.int64) + 1
        at = {int(frame): int(k) for k, frame in zip(samples, shown, strict=True)}
        kept = np.array([f in at for f in boxes.frame.tolist()], bool)
        numbers = np.array([at[f] for f in boxes.frame[kept].tolist()], np.int64)
        seen[name] = Boxes(numbers, boxes.track[kept], boxes.xyxy[kept])
    return seen, found


_TASKS: dict[Task, Callable[[EvalSettings, LakeRows | None], Made]] = {
    "detection": _detection,
    "classification": _classification,
    "segments": _segments,
    "tracking": _tracking,
}


# Files


def _results(path: Path) -> dict[str, list[dict[str, Any]]]:
    results = load_json(path).get("results")
    if not isinstance(results, dict) or not all(isinstance(rows, list) for rows in results.values()):
        raise ConfigError(f"{path}: not an ActivityNet prediction file, it has no mapping 'results' of lists.")
    return results


def _load_list(path: Path) -> list[dict[str, Any]]:
    data = load_json_file(path)
    if not isinstance(data, list) or not all(isinstance(r, dict) for r in data):
        raise ConfigError(f"{path}: COCO results are a list of mappings, this is a {type(data).__name__}.")
    return data


def _csv_rows(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f)
            if missing := [c for c in needed if c not in (reader.fieldnames or ())]:
                raise ConfigError(f"{path}, line 1: lacks the column {missing[0]}.")
            return [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise ConfigError(f"{path}: cannot be read as CSV: {e}") from e


def _written(made: Evaluation, pictures: Mapping[str, bytes], out: str, options: StorageOptions | None) -> Evaluation:
    storage = open_storage(out, options=signed(options))
    files = dict(pictures)
    files["scores.json"] = json.dumps({"task": made.task, **made.summary}, indent=1).encode()
    table = io.StringIO()
    writer = csv.DictWriter(table, list(made.per_class[0]) if made.per_class else ["label"])
    writer.writeheader()
    writer.writerows(made.per_class)
    files["per_class.csv"] = table.getvalue().encode()
    for name, data in files.items():
        storage.put(name, data)
    return Evaluation(
        task=made.task,
        summary=made.summary,
        per_class=made.per_class,
        files=tuple(storage.uri_of(name) for name in sorted(files)),
    )
