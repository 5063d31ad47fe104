"""The embedded detector: batches, loss and validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from demo_models.augmentation import coloured, framed
from demo_models.drawing import Shown
from demo_models.settings import TrainSettings
from vidproc.demo.score import AveragePrecision, Found
from vidproc.demo.settings import HEIGHT, WIDTH
from vidproc.demo.truth import LABELS, Box
from vidproc.models.tiny import (
    DETECTOR_GRID,
    STRIDE,
    find_peaks,
)


def detector_batches(shown: Sequence[Shown], settings: TrainSettings) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    rng = np.random.default_rng((settings.seed, 1))
    h, w = DETECTOR_GRID.size.height, DETECTOR_GRID.size.width
    # People and cars are everywhere: frames with something else come more often.
    often = np.array([1.0 + 1.5 * any(b.label in ("bus", "bicycle", "dog") for b in s.boxes) for s in shown])
    often /= often.sum()
    while True:
        images, targets = [], []
        for i in rng.choice(len(shown), settings.detector_batch, p=often):
            move = framed(rng, h, w, 0.22)
            # A smoothed copy first, as when a decoder scales by areas.
            pixels = cv2.GaussianBlur(shown[i].pixels(), (3, 3), float(rng.uniform(0.45, 0.7)))
            images.append(cv2.warpAffine(pixels, move, (w, h), flags=cv2.INTER_LINEAR, borderValue=(114, 114, 114)))
            targets.append(maps(shown[i].boxes, move, h, w))
        pixels = coloured(np.stack(images), rng, len(images))
        inputs = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
        yield inputs, tuple(torch.from_numpy(np.stack(t)) for t in zip(*targets, strict=True))


def maps(boxes: Iterable[Box], move: np.ndarray, h: int, w: int) -> tuple[np.ndarray, ...]:
    """What the network should say of one frame: heat (classes, h/4, w/4), the weight of each heat (same shape), boxes
    (4, h/4, w/4) in pixels and their weight (h/4, w/4)."""
    rows, columns = h // STRIDE, w // STRIDE
    heat, care = np.zeros((len(LABELS), rows, columns), np.float32), np.ones((len(LABELS), rows, columns), np.float32)
    sides, weight = np.zeros((4, rows, columns), np.float32), np.zeros((rows, columns), np.float32)
    y, x = (np.arange(rows) + 0.5) * STRIDE, (np.arange(columns) + 0.5) * STRIDE
    for b in sorted(boxes, key=lambda b: -(b.x_max - b.x_min) * (b.y_max - b.y_min)):
        # The map is of pixel centres, boxes are of pixel edges: half a pixel there, half of the scaled one back.
        (ax, _, dx), (_, ay, dy) = move
        x0, x1 = sorted(ax * (v - 0.5) + dx + 0.5 for v in (b.x_min, b.x_max))
        y0, y1 = (ay * (v - 0.5) + dy + 0.5 for v in (b.y_min, b.y_max))
        left, right = max(x0, 0.0), min(x1, float(w))
        top, bottom = max(y0, 0.0), min(y1, float(h))
        if right - left < 1 or bottom - top < 1:
            continue
        shown = (right - left) * (bottom - top) / ((x1 - x0) * (y1 - y0))
        kind = LABELS.index(b.label)
        cx, cy = (left + right) / 2, (top + bottom) / 2
        if b.difficult or b.visible * shown < 0.35:
            inside = (x[None] >= left) & (x[None] <= right) & (y[:, None] >= top) & (y[:, None] <= bottom)
            care[kind][inside & (heat[kind] < 1)] = 0
            continue
        sx, sy = max((right - left) / 9, 0.55 * STRIDE), max((bottom - top) / 9, 0.55 * STRIDE)
        bump = np.exp(-(((x - cx) / sx) ** 2)[None] / 2 - (((y - cy) / sy) ** 2)[:, None] / 2).astype(np.float32)
        row, column = min(int(cy / STRIDE), rows - 1), min(int(cx / STRIDE), columns - 1)
        bump[row, column] = 1
        heat[kind] = np.maximum(heat[kind], bump)
        care[kind][bump > 0.1] = 1
        near = bump > 0.45
        weight[near] = bump[near]
        for i, value in enumerate((left, top, right, bottom)):
            sides[i][near] = value
    return heat, care, sides, weight


def detector_loss(outputs: tuple[Tensor, Tensor], targets: tuple[Tensor, ...]) -> Tensor:
    heat, care, sides, weight = targets
    logits, distance = (o.float() for o in outputs)
    # Penalty-reduced focal loss of "Objects as Points".
    score, log_yes, log_no = logits.sigmoid(), nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)
    peak = heat >= 1
    loss = torch.where(peak, -((1 - score) ** 2) * log_yes, -((1 - heat) ** 4) * score**2 * log_no) * care
    focal = loss.sum() / peak.sum().clamp(min=1)
    # Generalised IoU (Rezatofighi et al. 2019) of the boxes of cells near a peak.
    rows, columns = heat.shape[2:]
    x = ((torch.arange(columns) + 0.5) * STRIDE).view(1, 1, -1)
    y = ((torch.arange(rows) + 0.5) * STRIDE).view(1, -1, 1)
    le, to, ri, bo = x - distance[:, 0], y - distance[:, 1], x + distance[:, 2], y + distance[:, 3]
    tl, tt, tr, tb = sides.unbind(1)
    wide = (torch.minimum(ri, tr) - torch.maximum(le, tl)).clamp(min=0)
    high = (torch.minimum(bo, tb) - torch.maximum(to, tt)).clamp(min=0)
    inter = wide * high
    union = (ri - le) * (bo - to) + (tr - tl) * (tb - tt) - inter
    round_ = (torch.maximum(ri, tr) - torch.minimum(le, tl)) * (torch.maximum(bo, tb) - torch.minimum(to, tt))
    giou = inter / union.clamp(min=1e-6) - (round_ - union) / round_.clamp(min=1e-6)
    boxes = ((1 - giou) * weight).sum() / weight.sum().clamp(min=1)
    return focal + 2.0 * boxes


def validate_detector(network: nn.Module, shown: Sequence[Shown]) -> dict[str, float]:
    """AP at IoU 0.5 by label, and their mean, on whole frames."""
    average = AveragePrecision()
    h, w = DETECTOR_GRID.size.height, DETECTOR_GRID.size.width
    scale = np.array([WIDTH / w, HEIGHT / h] * 2)
    with torch.inference_mode():
        for s in shown:
            small = cv2.resize(s.pixels(), (w, h), interpolation=cv2.INTER_AREA)
            heat, sides = network(torch.from_numpy(small).permute(2, 0, 1)[None].float())
            boxes, score, kind = find_peaks(heat.sigmoid(), sides, 0.05)[0]
            found = [
                Found(LABELS[int(k)], float(p), b.numpy() * scale) for b, p, k in zip(boxes, score, kind, strict=True)
            ]
            average.add(s.boxes, found)
    by_label = average.by_label()
    return {"map50": float(np.mean(list(by_label.values()))), **{f"ap50_{k}": v for k, v in by_label.items()}}
