"""Checks of explanations: random weights, and the pointing game."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from vidproc.models.families import build_network
from vidproc.models.recipe import Recipe


def randomise(recipe: Recipe, seed: int = 0) -> nn.Module:
    """Return the same network with random weights. An explanation that does not change under this explains the
    picture, not the network (Adebayo et al. 2018, Sanity Checks for Saliency Maps)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(recipe).eval()


def points_at(heat: np.ndarray, boxes: list[np.ndarray], slack: float = 0.0) -> bool:
    """The pointing game (Zhang et al. 2016): does the highest value of heat (t, h, w) lie in one of the boxes
    of its frame, boxes[t] float (n, 4), within `slack` pixels?"""
    t, y, x = np.unravel_index(int(heat.argmax()), heat.shape)
    here = boxes[int(t)]
    low, high = here[:, :2] - slack, here[:, 2:] + slack
    at = np.array([x + 0.5, y + 0.5])
    return bool(((at >= low) & (at <= high)).all(1).any())
