"""How far a training has come, and which epoch was the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from vidproc.learn.train.settings import OptimisationSettings


@dataclass(slots=True)
class Progress:
    """The epochs that are done."""

    history: list[dict[str, float]] = field(default_factory=list)
    """Metrics of each epoch, in order."""
    best: dict[str, float] = field(default_factory=dict)
    """Metrics of the best epoch."""
    finished: bool = False
    """No epoch follows: all are done, or patience is at its end."""

    @property
    def epoch(self) -> int:
        """Number of epochs that are done, and index of the next one."""
        return len(self.history)

    def add(self, row: dict[str, float], watch: str, settings: OptimisationSettings) -> bool:
        """Add the metrics of one epoch and return whether it is the best so far. `watch`: the metric to judge by."""
        self.history.append(row)
        better = not self.best or goodness(row, watch) > goodness(self.best, watch)
        if better:
            self.best = row
        # A tie in the watched metric is broken by the loss, but it is no progress: patience goes on waiting.
        watched = [goodness(r, watch)[0] for r in self.history]
        waited = len(watched) - 1 - watched.index(max(watched))
        self.finished = self.epoch == settings.epochs or 0 < settings.patience <= waited
        return better


def goodness(row: Mapping[str, float], watch: str) -> tuple[float, float]:
    """Return a key that is larger for better epochs: the watched metric, then a lower validation loss."""
    return -row["loss"] if watch == "loss" else row.get(watch, -math.inf), -row.get("val_loss", 0.0)
