"""What models say of one task -> rows as Arrow tables, in the order and types of `schemas/`.

Parts hold what a task knows: `recorded_date` is added when the video is published, `track_id` by the
link step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from vidproc.annotations import Detections
from vidproc.media import FrameBatch
from vidproc.models.base import ModelCard
from vidproc.tables.schema import load_schema


def detections_table(
    video_id: str, pipeline: str, card: ModelCard, batch: FrameBatch, detections: Detections
) -> pa.Table:
    """One row an object, by time. Boxes must be in pixels of the upright frame already
    (`batch.geometry.to_upright`). Objects in frames past the task's own (`batch.owned`) belong to the
    next task and are left out."""
    own = detections[detections.frame < batch.owned]
    own = own[np.argsort(own.frame, kind="stable")]
    boxes = own.boxes.astype(np.float32, copy=False)
    return _table(
        "detections",
        len(own),
        video_id=video_id,
        pipeline=pipeline,
        model=card.ref,
        time_s=pa.array(batch.time_s[own.frame], pa.float64()),
        pts=pa.array(batch.pts[own.frame], pa.int64()),
        label=_labels(card, own.class_id),
        class_id=pa.array(own.class_id, pa.int32()),
        score=pa.array(own.score, pa.float32()),
        x_min=pa.array(boxes[:, 0]),
        y_min=pa.array(boxes[:, 1]),
        x_max=pa.array(boxes[:, 2]),
        y_max=pa.array(boxes[:, 3]),
    )


def actions_table(
    video_id: str,
    pipeline: str,
    card: ModelCard,
    starts_s: np.ndarray,
    ends_s: np.ndarray,
    scores: np.ndarray,
    *,
    top_k: int,
) -> pa.Table:
    """One row per window and label, the `top_k` best of each window by score; equal scores by class.

    starts_s, ends_s: float64 (n,), seconds; scores: float (n, classes), 0 to 1.
    """
    n, classes = scores.shape
    k = min(top_k, classes)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    class_id = best.reshape(-1)
    return _table(
        "actions",
        n * k,
        video_id=video_id,
        pipeline=pipeline,
        model=card.ref,
        start_s=pa.array(np.repeat(np.asarray(starts_s, np.float64), k)),
        end_s=pa.array(np.repeat(np.asarray(ends_s, np.float64), k)),
        label=_labels(card, class_id),
        class_id=pa.array(class_id, pa.int32()),
        score=pa.array(np.take_along_axis(scores, best, axis=1).reshape(-1).astype(np.float32)),
        rank=pa.array(np.tile(np.arange(1, k + 1, dtype=np.int32), n)),
    )


def embeddings_table(
    video_id: str, pipeline: str, card: ModelCard, starts_s: np.ndarray, ends_s: np.ndarray, vectors: np.ndarray
) -> pa.Table:
    """One row a window or frame. vectors: float (n, d), kept as float16."""
    n, d = vectors.shape
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float16).reshape(-1), pa.float16())
    return _table(
        "embeddings",
        n,
        video_id=video_id,
        pipeline=pipeline,
        model=card.ref,
        start_s=pa.array(np.asarray(starts_s, np.float64)),
        end_s=pa.array(np.asarray(ends_s, np.float64)),
        embedding=pa.FixedSizeListArray.from_arrays(flat, d),
    )


def _labels(card: ModelCard, class_id: np.ndarray) -> pa.Array:
    if len(class_id) and (class_id.min() < 0 or class_id.max() >= len(card.labels)):
        raise ValueError(f"{card.name} named class {class_id.max()} and has {len(card.labels)} labels")
    return pa.array(card.labels, pa.string()).take(pa.array(class_id, pa.int64()))


def _table(name: str, rows: int, **columns: str | pa.Array) -> pa.Table:
    """Strings are constants. Columns come in the schema's order; those that a task cannot know are not there."""
    order: Sequence[str] = [n for n in load_schema(name).names if n in columns]
    arrays = [pa.repeat(pa.scalar(c), rows) if isinstance(c := columns[n], str) else c for n in order]
    return pa.table(dict(zip(order, arrays, strict=True)))
