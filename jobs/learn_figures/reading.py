"""What the figures share: readers, sizes and speeds of models."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from learn_figures.figure import Figure
from learn_figures.settings import DETECTORS
from vidproc.learn.data.reader import Reader
from vidproc.models import load_model
from vidproc.models.families import load_network
from vidproc.models.registry import find_recipe
from vidproc.models.settings import ModelSettings
from vidproc.video.decode import MediaLimits, Source


def count_parameters(folder: str) -> int:
    recipe = find_recipe(folder, ModelSettings())
    return sum(p.numel() for p in load_network(recipe).parameters())


def open_reader() -> Reader:
    return Reader(Source(), MediaLimits())


def measure_speed(figure: Figure) -> str:
    """How much of its input a model sees in a second."""
    if not figure.folder:
        return ""
    kind: Any = "detector" if figure.name in DETECTORS else "actions"
    model: Any = load_model(figure.folder, settings=ModelSettings(kind=kind, device="cpu", batch_size=8))
    grid = model.card.grid
    frames = np.random.default_rng(0).integers(
        0, 255, (32, grid.window, grid.size.height, grid.size.width, 3), np.uint8
    )
    look = (lambda x: model.detect(x[:, 0])) if kind == "detector" else model.classify
    look(frames[:8])
    began = time.perf_counter()
    look(frames)
    return f"{len(frames) / (time.perf_counter() - began):.0f} {'frames' if grid.window == 1 else 'windows'}/s"
