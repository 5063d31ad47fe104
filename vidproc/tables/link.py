"""What can be said only of a whole video, in order: tracks through it and segments of it.

Linking is a pure function of a video's rows in order of time, so its ids and segments are the same
however the video was cut into tasks, and a publication that is rolled forward repeats it exactly.

Tracks come from ByteTrack (Zhang et al. 2022, "ByteTrack: Multi-Object Tracking by Associating
Every Detection Box") in the `trackers` library, one tracker a label. Segments come from thresholding
with hysteresis (Canny 1986, there for edges): a time range begins where the score reaches `on`, lasts
while it stays above `off`, survives gaps up to `gap_s`, and is kept if it lasts `min_s`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidproc.settings import Hysteresis, LinkSettings
from vidproc.tables.schema import load_schema


@dataclass(frozen=True, slots=True)
class VideoKeys:
    """The columns that all linked rows of one video share."""

    video_id: str
    pipeline: str


def link(
    tables: Mapping[str, pa.Table],
    keys: VideoKeys,
    settings: LinkSettings,
    *,
    detector_fps: float | None,
    action_stride_s: float | None,
    duration_s: float | None = None,
) -> dict[str, pa.Table]:
    """The rows of one video, as staged -> the same with `track_id`, and the tables made from them.

    detector_fps: samples per second of the detector's grid (None: keyframes, or no detector).
    action_stride_s: seconds from one action window to the next.
    duration_s: where the video ends, and so its last segments at the latest; None: not known.
    """
    linked = dict(tables)
    end_s = duration_s if duration_s else float("inf")
    detections = tables.get("detections")
    segments: list[dict[str, Any]] = []
    if detections is not None and len(detections):
        detections = detections.sort_by(
            [(name, "ascending") for name in ("time_s", "label", "x_min", "y_min", "x_max", "y_max")]
        )
        columns = _Columns.of(detections)
        track_ids = _track(columns, settings, detector_fps) if settings.track else np.full(len(detections), -1)
        known = pa.array(track_ids, pa.int64(), mask=track_ids < 0)
        rest = [name for name in detections.column_names if name != "track_id"]
        linked["detections"] = detections.select(rest).append_column("track_id", known)
        model = detections["model"][0].as_py()
        linked["tracks"] = _track_table(columns, track_ids, keys, model)
        segments += [s | {"model": model} for s in _presence(columns, track_ids, settings, detector_fps, end_s)]
    actions = tables.get("actions")
    if actions is not None and len(actions) and action_stride_s:
        linked["actions"] = actions = actions.sort_by([("start_s", "ascending"), ("rank", "ascending")])
        model = actions["model"][0].as_py()
        segments += [s | {"model": model} for s in _action_segments(actions, settings.action, action_stride_s, end_s)]
    if segments:
        linked["segments"] = _table("segments", segments, keys)
    return linked


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    time_s: np.ndarray
    labels: tuple[str, ...]
    """Ascending."""
    label: np.ndarray
    """Places in `labels`."""
    class_id: np.ndarray
    score: np.ndarray
    boxes: np.ndarray

    @classmethod
    def of(cls, detections: pa.Table) -> _Columns:
        def values(name: str) -> np.ndarray:
            return np.asarray(detections[name].to_numpy(zero_copy_only=False))

        boxes = np.stack([values(n) for n in ("x_min", "y_min", "x_max", "y_max")], axis=1).astype(np.float32)
        labels = sorted(pc.unique(detections["label"]).to_pylist())
        label = pc.index_in(detections["label"], pa.array(labels, detections["label"].type))
        return cls(values("time_s"), tuple(labels), label.to_numpy(), values("class_id"), values("score"), boxes)


def _track(columns: _Columns, settings: LinkSettings, fps: float | None) -> np.ndarray:
    """int64 (m,): a track id for each detection, -1 for none; ids count from 0 in order of first sight."""
    import supervision as sv
    from trackers import ByteTrackTracker

    times = np.unique(columns.time_s)
    # Keyframe samples come at no fixed rate: the typical distance stands in for it.
    rate = fps or (1.0 / float(np.median(np.diff(times))) if len(times) > 1 else 1.0)
    lost_steps = max(1, round(settings.lost_seconds * rate))
    raw = np.full(len(columns.time_s), -1, dtype=np.int64)
    offset = 0
    for label in range(len(columns.labels)):
        rows = np.flatnonzero(columns.label == label)
        tracker = ByteTrackTracker(
            # The library scales its buffer from 30 frames a second to frame_rate.
            lost_track_buffer=round(30 * lost_steps / rate),
            frame_rate=rate,
            track_activation_threshold=settings.activation_score,
            minimum_consecutive_frames=1,
            minimum_iou_threshold=settings.minimum_iou,
            high_conf_det_threshold=settings.activation_score,
        )
        previous: float | None = None
        born: dict[int, tuple[Any, int]] = {}
        for time, here in _by_time(columns.time_s, rows):
            if previous is not None:
                missed = min(round((time - previous) * rate) - 1, lost_steps + 1)
                for _ in range(missed if tracker.tracks else 0):
                    tracker.update(sv.Detections.empty())
            previous = time
            found = tracker.update(
                sv.Detections(xyxy=columns.boxes[here], confidence=columns.score[here], data={"row": here})
            )
            if not len(found):
                continue
            found_rows, ids = np.asarray(found.data["row"]), np.asarray(found.tracker_id)
            raw[found_rows] = np.where(ids >= 0, ids + offset, -1)
            # The library names a track at its second detection. The first, which it spawned from,
            # belongs to it too: new tracks are appended in the order of the detections they spawned from.
            spawned = [t for t in tracker.tracks if id(t) not in born]
            sources = found_rows[(ids < 0) & (columns.score[found_rows] >= settings.activation_score)]
            born.update((id(t), (t, int(row))) for t, row in zip(spawned, sources, strict=True))
            for track, row in born.values():
                if track.tracker_id >= 0:
                    raw[row] = track.tracker_id + offset
            # Those that have ended are let go: ten hours have many, and each carries its filter's matrices.
            born = {id(t): born[id(t)] for t in tracker.tracks}
        offset = max(offset, int(raw[rows].max(initial=-1)) + 1)
    return _renumber(raw, settings.minimum_detections)


def _by_time(time_s: np.ndarray, rows: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """The rows (ascending in time) grouped by sample."""
    bounds = np.flatnonzero(np.diff(time_s[rows])) + 1
    for group in np.split(rows, bounds):
        yield float(time_s[group[0]]), group


def _renumber(raw: np.ndarray, minimum: int) -> np.ndarray:
    ids, first, counts = np.unique(raw, return_index=True, return_counts=True)
    kept = [(f, i) for i, f, c in zip(ids, first, counts, strict=True) if i >= 0 and c >= minimum]
    number = {i: n for n, (_, i) in enumerate(sorted(kept))}
    return np.array([number.get(i, -1) for i in raw], dtype=np.int64)


def _track_table(columns: _Columns, track_ids: np.ndarray, keys: VideoKeys, model: str) -> pa.Table:
    """One row a track, by number. Column by column: as Python objects the paths of ten hours would be ten times as
    large."""
    order = np.argsort(track_ids, kind="stable")
    order = order[track_ids[order] >= 0]
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(track_ids[order])) + 1, [len(order)]]) if len(order) else [0]
    first, last = order[bounds[:-1]], order[np.asarray(bounds[1:], np.int64) - 1]
    scores = [columns.score[order[a:b]] for a, b in pairwise(bounds)]
    schema = load_schema("tracks").arrow
    path = schema.field("path").type
    places = pa.StructArray.from_arrays(
        [pa.array(columns.time_s[order]), *(pa.array(columns.boxes[order, i]) for i in range(4))],
        fields=list(path.value_type),
    )
    values = {
        "video_id": pa.repeat(keys.video_id, len(first)),
        "pipeline": pa.repeat(keys.pipeline, len(first)),
        "model": pa.repeat(model, len(first)),
        "track_id": track_ids[first],
        "label": [columns.labels[i] for i in columns.label[first]],
        "class_id": columns.class_id[first],
        "start_s": columns.time_s[first],
        "end_s": columns.time_s[last],
        "detections": np.diff(bounds),
        "score_mean": [float(s.mean(dtype=np.float64)) for s in scores],
        "score_max": [float(s.max()) for s in scores],
        "path": pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), places, type=path),
    }
    rows = len(first)
    arrays = [
        pa.nulls(rows, f.type) if f.name not in values else v if isinstance(v := values[f.name], pa.Array)
        else pa.array(v, f.type) for f in schema
    ]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=schema)


def _presence(
    columns: _Columns, track_ids: np.ndarray, settings: LinkSettings, fps: float | None, end_s: float
) -> Iterator[dict[str, Any]]:
    """Time ranges in which at least one object of a label is in view."""
    times = np.unique(columns.time_s)
    step = 1.0 / fps if fps else (float(np.median(np.diff(times))) if len(times) > 1 else 1.0)
    for i, label in enumerate(columns.labels):
        of_label = columns.label == i
        seen, inverse = np.unique(columns.time_s[of_label], return_inverse=True)
        best = np.zeros(len(seen))
        np.maximum.at(best, inverse, columns.score[of_label])
        # A sample speaks for the time until the next one, but for none behind the video's end.
        for start, end, score in time_ranges(seen, np.minimum(seen + step, end_s), best, settings.presence):
            inside = of_label & (columns.time_s >= start) & (columns.time_s < end) & (track_ids >= 0)
            yield {
                "kind": "presence",
                "label": label,
                "start_s": start,
                "end_s": end,
                "score": score,
                "track_ids": sorted({int(i) for i in track_ids[inside]}),
            }


def _action_segments(
    actions: pa.Table, settings: Hysteresis, stride_s: float, video_end_s: float
) -> Iterator[dict[str, Any]]:
    """Time ranges in which a label's window scores stay high. Overlapping windows each speak for the
    stride around their centre, the first and the last also for the video's edges."""
    video_start, video_end = pc.min(actions["start_s"]).as_py(), pc.max(actions["end_s"]).as_py()
    for label in sorted(set(actions["label"].to_pylist())):
        rows = actions.filter(pc.equal(actions["label"], label))
        starts, ends, score = (rows[n].to_numpy() for n in ("start_s", "end_s", "score"))
        centre = (starts + ends) / 2
        left = np.where(starts <= video_start, starts, centre - stride_s / 2)
        right = np.where(ends >= video_end, ends, centre + stride_s / 2)
        for start, end, best in time_ranges(left, np.minimum(right, video_end_s), score, settings):
            yield {"kind": "action", "label": label, "start_s": start, "end_s": end, "score": best, "track_ids": None}


def time_ranges(
    starts: np.ndarray, ends: np.ndarray, score: np.ndarray, rule: Hysteresis
) -> Iterator[tuple[float, float, float]]:
    """Pieces `[starts[i], ends[i])` with scores, ascending in time -> (start, end, highest score) of each
    time range that the rule keeps. What is not among the pieces counts as score 0."""
    alive = score >= rule.off
    current: list[int] = []

    def close() -> Iterator[tuple[float, float, float]]:
        # Before the first and after the last sure piece there may be unsure ones: they belong to it.
        if current and score[current].max() >= rule.on:
            begin, finish = float(starts[current[0]]), float(ends[current[-1]])
            if finish - begin >= rule.min_s - 1e-9:
                yield begin, finish, float(score[current].max())

    for i in np.flatnonzero(alive):
        if current and starts[i] - ends[current[-1]] > rule.gap_s + 1e-9:
            yield from close()
            current = []
        current.append(int(i))
    yield from close()


def _table(name: str, rows: list[dict[str, Any]], keys: VideoKeys, model: str | None = None) -> pa.Table:
    common: dict[str, Any] = {
        "video_id": keys.video_id,
        "pipeline": keys.pipeline,
    }
    if model is not None:
        common["model"] = model
    return pa.Table.from_pylist([common | row for row in rows], schema=load_schema(name).arrow)
