"""Random changes of colour and framing."""

from __future__ import annotations

import numpy as np

from vidproc.demo.settings import HEIGHT, WIDTH


def coloured(images: np.ndarray, rng: np.random.Generator, groups: int) -> np.ndarray:
    """(n, h, w, 3) uint8 -> float32: brightness, contrast and tint changed alike for each of `groups` equal parts."""
    out = images.astype(np.float32).reshape(groups, -1, *images.shape[1:])
    gain = rng.uniform(0.75, 1.25, (groups, 1, 1, 1, 1)) * rng.uniform(0.92, 1.08, (groups, 1, 1, 1, 3))
    shift = rng.uniform(-20, 20, (groups, 1, 1, 1, 1))
    out = (out - 114) * gain.astype(np.float32) + (114 + shift).astype(np.float32)
    out += rng.normal(0, 1, out.shape[1:]).astype(np.float32) * rng.uniform(0, 4, (groups, 1, 1, 1, 1)).astype(
        np.float32
    )
    return np.clip(out, 0, 255).reshape(images.shape)


def framed(rng: np.random.Generator, out_h: int, out_w: int, spread: float) -> np.ndarray:
    """A random 2 x 3 map from the scene to the model's frame: a little closer or farther, moved, maybe mirrored.

    One time in five the picture is made to leave a part of the frame empty on the right or below, as letterboxing
    of another aspect does.
    """
    sx, sy = out_w / WIDTH, out_h / HEIGHT
    if rng.random() < 0.2:
        squeeze = rng.uniform(0.7, 1.0)
        sx, sy = sx * squeeze, sy * squeeze
        dx = dy = 0.0
    else:
        zoom = np.exp(rng.uniform(-spread, spread))
        sx, sy = sx * zoom, sy * zoom
        dx, dy = ((o - s * i) * rng.random() for o, s, i in ((out_w, sx, WIDTH), (out_h, sy, HEIGHT)))
    if rng.random() < 0.5:
        return np.array([[-sx, 0, dx + sx * (WIDTH - 1)], [0, sy, dy]])
    return np.array([[sx, 0, dx], [0, sy, dy]])
