"""From a graph's outputs to boxes: YOLOX's cells, and suppression of boxes that overlap."""

from __future__ import annotations

import numpy as np

from vidproc.annotations import Detections

STRIDES = (8, 16, 32)
YOLOX_NMS_IOU = 0.45
MAX_CANDIDATES = 1000
"""Boxes a frame which suppression looks at, the best by score: bounds its cost on noise."""


Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes, scores and class ids of one frame."""


def yolox_cells(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 (cells, 2) x, y of each cell in units of its stride, and (cells, 1) the strides, in the
    order of YOLOX's output: stride by stride, row by row."""
    cells, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def yolox_candidates(
    raw: np.ndarray, cells: np.ndarray, stride: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One frame's raw output (cells, 5 + classes) -> boxes (m, 4), scores (m,) and class (m,) of the
    cells whose best class reaches the threshold: score = objectness x class."""
    hopeful = np.flatnonzero(raw[:, 4] >= threshold)  # a class is at most 1
    raw, cells, stride = raw[hopeful], cells[hopeful], stride[hopeful]
    best = raw[:, 5:].argmax(axis=1)
    scores = raw[:, 4] * raw[np.arange(len(raw)), 5 + best]
    keep = np.flatnonzero(scores >= threshold)
    raw, cells, stride = raw[keep], cells[keep], stride[keep]
    centre, size = (raw[:, :2] + cells) * stride, np.exp(raw[:, 2:4]) * stride
    return corners(np.concatenate([centre, size], axis=1)), scores[keep], best[keep]


def corners(boxes: np.ndarray) -> np.ndarray:
    """centre x, y, width, height -> x_min, y_min, x_max, y_max."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1).astype(np.float32)


def suppress(boxes: np.ndarray, scores: np.ndarray, class_id: np.ndarray, iou: float) -> np.ndarray:
    """Greedy non-maximum suppression within each class -> int64 indices kept, best score first.

    A box goes if it overlaps a better one of its class by more than `iou`.
    """
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    x0, y0, x1, y1 = boxes[order].astype(np.float64).T
    area = (x1 - x0) * (y1 - y0)
    classes = class_id[order]
    alive = np.ones(len(order), bool)
    for i in range(len(order)):
        if not alive[i]:
            continue
        rest = slice(i + 1, None)
        overlap = np.maximum(np.minimum(x1[i], x1[rest]) - np.maximum(x0[i], x0[rest]), 0) * np.maximum(
            np.minimum(y1[i], y1[rest]) - np.maximum(y0[i], y0[rest]), 0
        )
        alive[rest] &= (classes[rest] != classes[i]) | (overlap <= iou * (area[i] + area[rest] - overlap))
    return order[alive]


def rows(frame: int, boxes: np.ndarray, scores: np.ndarray, class_id: np.ndarray) -> Detections:
    return Detections(
        np.full(len(boxes), frame, np.int64),
        boxes.astype(np.float32),
        scores.astype(np.float32),
        class_id.astype(np.int64),
    )
