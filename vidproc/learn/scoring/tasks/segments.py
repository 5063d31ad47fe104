"""Score action segments: a file or a lake against ActivityNet."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from vidproc.errors import ConfigError
from vidproc.learn.lake import LakeRows
from vidproc.learn.plots import precision_recall_png
from vidproc.learn.scoring.files import activitynet_results, read_action_truth
from vidproc.learn.scoring.segments import Segment, SegmentSettings, activitynet_map, segments_of_windows
from vidproc.learn.scoring.settings import EvalSettings, Evaluation, Made


def score_segments(s: EvalSettings, lake: LakeRows | None) -> Made:
    labels = read_action_truth(s, lake)
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
    for name, rows in activitynet_results(path).items():
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
