"""Run a model once, for `vidproc models check`."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import numpy as np

from vidproc.errors import ConfigError
from vidproc.media import Grid
from vidproc.models.base import ActionModel, Detector, EmbeddingModel, ModelCard
from vidproc.models.loading import DEFAULTS, load_model
from vidproc.models.settings import ModelSettings
from vidproc.models.user_class import is_user_class, users_code


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCheck:
    """What `vidproc models check` found: the model loads and answers as its card says."""

    card: ModelCard
    load_seconds: float
    run_seconds: float
    """Duration of the first forward pass, over one grey frame or window."""


def check_model(spec: str, *, device: str = "auto", settings: ModelSettings = DEFAULTS) -> ModelCheck:
    """Loads a model and runs it once on grey. Raises ConfigError where its answer is not what its
    card promises."""
    with users_code(spec) if is_user_class(spec) else nullcontext():
        return _checked_answer(spec, device, settings)


def _checked_answer(spec: str, device: str, settings: ModelSettings) -> ModelCheck:
    started = time.perf_counter()
    model = load_model(spec, device=device, settings=settings)
    loaded = time.perf_counter()
    card = model.card
    height, width = _example_size(card.grid)
    if card.kind == "detector":
        found = cast(Detector, model).detect(np.full((1, height, width, 3), 114, np.uint8))
        wrong = bool(len(found)) and (int(found.frame.max()) > 0 or int(found.class_id.max()) >= len(card.labels))
        answer = "boxes of frames or classes that there are not"
    elif card.kind == "embedding":
        vectors = cast(EmbeddingModel, model).embed(np.full((1, card.grid.window, height, width, 3), 114, np.uint8))
        wrong = vectors.ndim != 2 or len(vectors) != 1 or not np.isfinite(vectors).all()
        answer = f"vectors of shape {vectors.shape} for one window, or not finite"
    else:
        window = np.full((1, card.grid.window, height, width, 3), 114, np.uint8)
        scores = cast(ActionModel, model).classify(window)
        wrong = scores.shape != (1, len(card.labels)) or not (np.isfinite(scores).all() and 0 <= scores.min() <= 1)
        answer = f"scores of shape {scores.shape} for {len(card.labels)} labels, or not between 0 and 1"
    if wrong:
        raise ConfigError(f"{card.name} does not answer as its card says: it gave {answer}.")
    return ModelCheck(card=card, load_seconds=loaded - started, run_seconds=time.perf_counter() - loaded)


def _example_size(grid: Grid) -> tuple[int, int]:
    """Height and width of a 16:9 frame as the grid would have it."""
    size = grid.size
    if size.mode == "native":
        return 360, 640
    if size.mode == "fit":
        return min(size.height, round(size.width * 9 / 16)), min(size.width, round(size.height * 16 / 9))
    return size.height, size.width
