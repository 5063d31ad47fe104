"""Heat maps: scaled to one, and padded to the size of the frames."""

from __future__ import annotations

import numpy as np


def scaled_to_one(heat: np.ndarray) -> np.ndarray:
    top = float(heat.max(initial=0.0))
    return (heat / top if top > 0 else heat).astype(np.float32)


def padded(heat: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return the heat of a centre crop at the size of the whole frame, zero outside of the crop."""
    if heat.shape[1:] == tuple(size):
        return heat
    out = np.zeros((len(heat), *size), heat.dtype)
    top, left = (round((a - b) / 2) for a, b in zip(size, heat.shape[1:], strict=True))
    out[:, top : top + heat.shape[1], left : left + heat.shape[2]] = heat
    return out
