"""Train a model and leave a model folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from vidproc.learn.train.checkpoint import LAST, load_checkpoint
from vidproc.learn.train.loop import training_loop
from vidproc.learn.train.preparation import prepare
from vidproc.learn.train.settings import TrainSettings
from vidproc.learn.workers import World, run_workers
from vidproc.storage import StorageOptions, open_storage, signed


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    folder: str
    """The model folder, to be given to `vidproc index` as --detector or --actions."""
    epochs: int
    best_epoch: int
    metrics: dict[str, float]
    """Metrics of the best epoch: of validation, or of training where there is none."""
    seconds: float


def train(
    settings: TrainSettings,
    *,
    options: StorageOptions | None = None,
    listen: Callable[[dict[str, float]], None] | None = None,
) -> TrainReport:
    """Train a model and leave a model folder. `listen` is called with the metrics of each epoch (inline executor).

    Raises ConfigError for what is wrong with the job or its labels, before training starts.
    """
    began = time.perf_counter()
    storage = open_storage(settings.out, options=signed(options))
    recipe, data = prepare(settings, options)
    checkpoint = load_checkpoint(storage, settings)
    # The last epoch's checkpoint comes before the folder: a kill between them leaves the folder to be written.
    if checkpoint is None or not checkpoint["finished"] or not storage.exists("model.yaml"):
        if checkpoint is None:  # what lies there is void from now on, also for a run that goes on after a kill
            storage.delete(key for key in (LAST, "model.yaml") if storage.exists(key))

        def loop(world: World) -> None:
            training_loop(settings, recipe, data, world, options)

        run_workers(loop, settings.workers, name=settings.name, listen=listen)
        checkpoint = load_checkpoint(storage, replace(settings, resume=True))
    assert checkpoint is not None, "a training that ended leaves its checkpoint"
    best = checkpoint["best"]
    return TrainReport(
        folder=storage.uri,
        epochs=checkpoint["epoch"],
        best_epoch=int(best["epoch"]),
        metrics={k: v for k, v in best.items() if k != "epoch"},
        seconds=time.perf_counter() - began,
    )
