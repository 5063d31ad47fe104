"""Occlusion: hide one place at one time after another, and measure how much of the score is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vidproc.learn.explain.heat import scaled_to_one
from vidproc.learn.scoring.tracking import box_iou


def occlusion(
    classify: Callable[[np.ndarray], np.ndarray],
    frames: np.ndarray,
    class_id: int,
    *,
    cells: tuple[int, int] = (8, 8),
    moments: int = 4,
) -> np.ndarray:
    """Frames uint8 (t, h, w, 3) -> heat float32 (t, h, w), 0 to 1: how much of the class's
    score is lost when a place is hidden during one part of the window, as the mean over the patches that hide it."""
    t, h, w, _ = frames.shape
    whole = float(classify(frames[None])[0, class_id])
    loss, count = np.zeros((t, h, w), np.float32), np.zeros((t, h, w), np.float32)
    patches = _patches(h, w, cells)
    for span in np.array_split(np.arange(t), min(moments, t)):
        stretch = slice(int(span[0]), int(span[-1]) + 1)
        hidden = np.repeat(frames[None], len(patches), 0)
        for window, patch in zip(hidden, patches, strict=True):
            _hide(window, span, patch)
        scores = np.concatenate([classify(hidden[i : i + 16])[:, class_id] for i in range(0, len(hidden), 16)])
        for patch, score in zip(patches, scores, strict=True):
            loss[(stretch, *patch)] += max(0.0, whole - float(score))
            count[(stretch, *patch)] += 1
    return scaled_to_one(loss / np.maximum(count, 1))


Patch = tuple[slice, slice]


def _patches(h: int, w: int, cells: tuple[int, int]) -> list[Patch]:
    """Places two cells high and wide, one cell apart."""
    ys, xs = (np.linspace(0, side, n + 1).round().astype(int) for side, n in ((h, cells[0]), (w, cells[1])))
    return [
        (slice(int(ys[i]), int(ys[i + 2])), slice(int(xs[j]), int(xs[j + 2])))
        for i in range(cells[0] - 1)
        for j in range(cells[1] - 1)
    ]


def _hide(window: np.ndarray, which: np.ndarray, patch: Patch) -> None:
    """Paint a patch of some of the frames (n, h, w, 3) with the mean colour of what surrounds it there."""
    y, x = patch
    frames = window[which]
    grown = frames[:, max(0, y.start - 2) : y.stop + 2, max(0, x.start - 2) : x.stop + 2].astype(np.float32)
    inside = frames[:, y, x].astype(np.float32)
    ring = grown.shape[1] * grown.shape[2] - inside.shape[1] * inside.shape[2]
    colour = (grown.sum((1, 2)) - inside.sum((1, 2))) / max(1, ring)
    frames[:, y, x] = colour[:, None, None].astype(np.uint8)
    window[which] = frames


def occlusion_box(
    detect: Callable[[np.ndarray], Any],
    frame: np.ndarray,
    class_id: int,
    box: np.ndarray,
    *,
    cells: tuple[int, int] = (8, 8),
) -> np.ndarray:
    """A frame uint8 (h, w, 3) and a box (1, 4) in it -> heat float32 (1, h, w): what is lost of score times
    overlap of the best detection of the class, when a place is hidden."""
    h, w, _ = frame.shape
    patches = _patches(h, w, cells)
    frames = np.repeat(frame[None], len(patches) + 1, 0)
    for i, patch in enumerate(patches):
        _hide(frames, np.array([i]), patch)
    likeness = np.zeros(len(frames))
    for start in range(0, len(frames), 16):
        found = detect(frames[start : start + 16])
        for f, b, score, c in zip(found.frame, found.boxes, found.score, found.class_id, strict=True):
            if c == class_id:
                overlap = float(box_iou(box.astype(np.float64), b[None].astype(np.float64))[0, 0])
                likeness[start + f] = max(likeness[start + f], overlap * float(score))
    loss, count = np.zeros((1, h, w), np.float32), np.zeros((1, h, w), np.float32)
    for patch, left in zip(patches, likeness, strict=False):
        loss[(0, *patch)] += max(0.0, likeness[-1] - left)
        count[(0, *patch)] += 1
    return scaled_to_one(loss / np.maximum(count, 1))
