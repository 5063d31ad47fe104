"""The training loop: data to tensors, the model, its parameters, the optimisation of the loss, and the model folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidproc.learn.data.order import epoch_order
from vidproc.learn.networks import (
    freezes_norms,
    network_for,
    set_training,
)
from vidproc.learn.train.checkpoint import BEST, LAST, load_checkpoint, save_checkpoint
from vidproc.learn.train.examples import ClipExamples, FrameExamples, make_examples
from vidproc.learn.train.folder import metrics_csv, tensor_bytes, tensorboard, write_folder
from vidproc.learn.train.optimisation import Optimisation, quick_layout
from vidproc.learn.train.preparation import TrainingData
from vidproc.learn.train.progress import Progress
from vidproc.learn.train.settings import TrainSettings
from vidproc.learn.workers import World
from vidproc.models.recipe import Recipe
from vidproc.models.tensors import fill, fitting, state_dict_of
from vidproc.models.weights import Weights
from vidproc.storage import StorageOptions, open_storage, signed


def training_loop(
    settings: TrainSettings, recipe: Recipe, data: TrainingData, world: World, options: StorageOptions | None
) -> None:
    """Train on one worker. Only the worker of rank 0 writes."""
    o, storage = settings.optimisation, open_storage(settings.out, options=signed(options))
    torch.manual_seed(settings.seed)

    # 1. Data to tensors
    examples = make_examples(settings, recipe, data, options)
    steps = -(-len(examples.class_ids) // o.batch)

    # 2. The model
    network = quick_layout(network_for(recipe, settings.network, options), world.device)
    frozen_norms = freezes_norms(recipe, settings.network)
    wrapped = world.wrap(network)

    # 3. Its parameters
    optimisation = Optimisation(network, o, world.device, steps=steps)
    progress = Progress()
    if (checkpoint := load_checkpoint(storage, settings)) is not None:
        with fitting(recipe.name, "this job's network", Path(storage.uri_of(LAST))):
            network.load_state_dict(checkpoint["network"])
            optimisation.optimizer.load_state_dict(checkpoint["optimizer"])
            progress = Progress(checkpoint["history"], checkpoint["best"], checkpoint["finished"])

    # 4. The optimisation of the loss
    loss_of = examples.loss(world.device)
    board = tensorboard(storage) if world.rank == 0 else None
    while not progress.finished and progress.epoch < o.epochs:
        began, epoch = time.perf_counter(), progress.epoch
        set_training(network, frozen_norms=frozen_norms)
        sums = world.gather(
            optimisation.run_epoch(epoch, wrapped, epoch_batches(examples, settings, epoch, world), loss_of)
        )
        row = {"epoch": float(epoch + 1), "loss": sum(t for t, _ in sums) / max(1, sum(s for _, s in sums))}
        row |= examples.validate(network, world) if examples.has_validation else {}
        row["seconds"] = time.perf_counter() - began
        better = progress.add(row, examples.watch, o)
        if world.rank == 0:
            if better:
                storage.put(BEST, tensor_bytes(network))
            save_checkpoint(storage, settings, network, optimisation.optimizer, progress)
            storage.put("metrics.csv", metrics_csv(progress.history))  # to be looked at while it trains
            if board is not None:
                for key, value in row.items():
                    board.add_scalar(key, value, epoch + 1)
        world.report(row)

    # 5. The use of what was learned: a folder that `vidproc index` takes as a model
    if world.rank == 0:
        best_weights = Weights(Path(storage.uri_of(BEST)), storage.get(BEST))
        fill(network, state_dict_of(best_weights), model=recipe.name, arch="", path=best_weights.path)
        pictures = examples.pictures(network, world.device)
        write_folder(storage, settings, recipe, data, progress=progress, pictures=pictures)
        if board is not None:
            board.close()


def epoch_batches(
    examples: ClipExamples | FrameExamples, settings: TrainSettings, epoch: int, world: World
) -> Iterator[Any]:
    """One worker's batches of an epoch. All that is random in them follows from the seed, the epoch and the rank."""
    torch.manual_seed(int(np.random.SeedSequence((settings.seed, epoch, world.rank)).generate_state(1)[0]))
    order = epoch_order(
        examples.class_ids,
        seed=settings.seed,
        epoch=epoch,
        balanced=settings.optimisation.balance == "sample",
        rank=world.rank,
        world=world.size,
    )
    return examples.batches(epoch, order, max(1, settings.optimisation.batch // world.size))
