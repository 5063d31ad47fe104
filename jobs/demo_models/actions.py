"""The embedded action model: batches, loss and validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from demo_models.augmentation import coloured
from demo_models.drawing import Played
from demo_models.settings import TrainSettings
from vidproc.demo.acts import ACTIONS
from vidproc.models.tiny import (
    ACTIONS_GRID,
)


def action_batches(played: Sequence[Played], settings: TrainSettings) -> Iterator[tuple[Tensor, Tensor]]:
    """Classes alike, "none of these" included, but those without motion more often: a pose is all that tells them."""
    rng = np.random.default_rng((settings.seed, 2))
    names = (*ACTIONS, "")
    where: dict[str, list[tuple[int, int]]] = {label: [] for label in names}
    for i, p in enumerate(played):
        for k, label in enumerate(p.labels):
            if label is not None:
                where[label].append((i, k))
    present = [label for label in names if where[label]]
    often = np.array([{"stand": 2.5, "sit": 2.0}.get(label, 1.0) for label in present])
    often /= often.sum()
    h, w = ACTIONS_GRID.size.height, ACTIONS_GRID.size.width
    while True:
        windows, labels = [], []
        for _ in range(settings.action_batch):
            label = present[int(rng.choice(len(present), p=often))]
            i, k = where[label][int(rng.integers(len(where[label])))]
            frames = played[i].window(k)
            zoom = float(np.exp(rng.uniform(-0.12, 0.18)))
            dx, dy = ((1 - zoom) * s / 2 + rng.uniform(-0.08, 0.08) * s for s in (w, h))
            move = np.array([[zoom, 0, dx], [0, zoom, dy]])
            frames = np.stack(
                [
                    cv2.warpAffine(f, move, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                    for f in frames
                ]
            )
            # Left and right mean nothing to these actions.
            windows.append(frames[:, :, ::-1] if rng.random() < 0.5 else frames)
            labels.append(names.index(label))
        flat = coloured(np.concatenate(windows), rng, len(windows))
        pixels = torch.from_numpy(flat).view(len(windows), -1, h, w, 3).permute(0, 1, 4, 2, 3)
        yield pixels, torch.tensor(labels)


def action_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.float(), labels, label_smoothing=0.03)


def validate_actions(network: nn.Module, played: Sequence[Played]) -> dict[str, float]:
    """Top-1 over the windows of the grid, and by label; `none` is how often street scenes give no sure action."""
    right: dict[str, list[bool]] = {}
    none: list[bool] = []
    with torch.inference_mode():
        for p in played:
            starts = [k for k in range(0, len(p.labels), ACTIONS_GRID.stride) if p.labels[k] is not None]
            for k in starts:
                pixels = torch.from_numpy(p.window(k)).permute(0, 3, 1, 2)[None].float()
                scores = network(pixels).softmax(1)[0, :-1]
                label = str(p.labels[k])
                if label:
                    right.setdefault(label, []).append(ACTIONS[int(scores.argmax())] == label)
                else:
                    none.append(float(scores.max()) < 0.5)
    every = [r for rs in right.values() for r in rs]
    out = {"top1": float(np.mean(every)), **{f"top1_{k}": float(np.mean(v)) for k, v in sorted(right.items())}}
    return out | ({"none": float(np.mean(none))} if none else {})
