"""Score tracks: a file or a lake against MOTChallenge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from vidproc.errors import ConfigError
from vidproc.learn.lake import LakeRows
from vidproc.learn.scoring.settings import EvalSettings, Evaluation, Made
from vidproc.learn.scoring.tracking import Boxes, read_motchallenge, tracking_scores


def score_tracking(s: EvalSettings, lake: LakeRows | None) -> Made:
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
