"""The training loop: data to tensors, the model, its parameters, the optimisation of the loss, and the model folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vidproc.errors import ConfigError
from vidproc.learn.data.order import epoch_order
from vidproc.learn.networks import (
    freezes_norms,
    network_for,
    set_training,
)
from vidproc.learn.train.checkpoint import BEST, LAST, load_checkpoint, save_checkpoint
from vidproc.learn.train.examples import make_examples
from vidproc.learn.train.folder import metrics_csv, tensor_bytes, tensorboard, write_folder
from vidproc.learn.train.preparation import TrainingData
from vidproc.learn.train.settings import OptimisationSettings, TrainSettings
from vidproc.learn.workers import World
from vidproc.models.recipe import Recipe
from vidproc.models.tensors import fill, fitting, state_dict_of
from vidproc.models.weights import Weights
from vidproc.storage import StorageOptions, open_storage, signed


def training_loop(
    settings: TrainSettings, recipe: Recipe, data: TrainingData, world: World, options: StorageOptions | None
) -> None:
    """What one worker does. Rank 0 alone writes."""
    o, storage = settings.optimisation, open_storage(settings.out, options=signed(options))
    torch.manual_seed(settings.seed)

    # 1. Data to tensors
    examples = make_examples(settings, recipe, data, options)
    class_ids = examples.class_ids
    steps = -(-len(class_ids) // o.batch)

    # 2. The model
    network = quick_layout(network_for(recipe, settings.network, options), world.device)
    frozen_norms = freezes_norms(recipe, settings.network)
    wrapped = world.wrap(network)

    # 3. Its parameters
    optimizer = make_optimizer(network, o)
    checkpoint = load_checkpoint(storage, settings)
    history: list[dict[str, float]] = []
    best: dict[str, float] = {}
    first, finished = 0, False
    if checkpoint is not None:
        with fitting(recipe.name, "this job's network", Path(storage.uri_of(LAST))):
            network.load_state_dict(checkpoint["network"])
            optimizer.load_state_dict(checkpoint["optimizer"])
            history, best, first = checkpoint["history"], checkpoint["best"], checkpoint["epoch"]
            finished = checkpoint["finished"]

    # 4. The optimisation of the loss
    scaler, autocast = _precision(o, world.device)
    loss_of = examples.loss(world.device)
    board = tensorboard(storage) if world.rank == 0 else None
    for epoch in range(first, o.epochs if not finished else first):
        began, total, seen = time.perf_counter(), 0.0, 0
        torch.manual_seed(int(np.random.SeedSequence((settings.seed, epoch, world.rank)).generate_state(1)[0]))
        set_training(network, frozen_norms=frozen_norms)
        order = epoch_order(
            class_ids,
            seed=settings.seed,
            epoch=epoch,
            balanced=o.balance == "sample",
            rank=world.rank,
            world=world.size,
        )
        for step, batch in enumerate(examples.batches(epoch, order, max(1, o.batch // world.size))):
            for group in optimizer.param_groups:
                group["lr"] = o.learning_rate * learning_rate_factor(
                    epoch * steps + step, o.epochs * steps, o.warmup_epochs * steps
                )
            with autocast():
                loss = loss_of(wrapped, batch)
            if not torch.isfinite(loss):
                raise ConfigError(
                    f"the loss became {loss.item()} in epoch {epoch + 1}: lower "
                    f"optimisation.learning_rate ({o.learning_rate:g}) or max_grad_norm."
                )
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if o.max_grad_norm:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(network.parameters(), o.max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
            total, seen = total + float(loss.detach()) * len(batch[1]), seen + len(batch[1])
        sums = world.gather((total, seen))
        row = {"epoch": float(epoch + 1), "loss": sum(t for t, _ in sums) / max(1, sum(s for _, s in sums))}
        row |= examples.validate(network, world) if examples.has_validation else {}
        row["seconds"] = time.perf_counter() - began
        history.append(row)
        better = not best or goodness(row, examples.watch) > goodness(best, examples.watch)
        best = row if better else best
        # Patience waits for more of what is watched: a tie is broken, but it is no progress.
        watched = [goodness(r, examples.watch)[0] for r in history]
        waited = epoch - watched.index(max(watched))
        finished = epoch + 1 == o.epochs or (o.patience > 0 and waited >= o.patience)
        if world.rank == 0:
            if better:
                storage.put(BEST, tensor_bytes(network))
            save_checkpoint(storage, settings, network, optimizer, history, best, finished=finished)
            storage.put("metrics.csv", metrics_csv(history))  # to be looked at while it trains
            if board is not None:
                for key, value in row.items():
                    board.add_scalar(key, value, epoch + 1)
        world.report(row)
        if finished:
            break

    # 5. The use of what was learned: a folder that `vidproc index` takes as a model
    if world.rank == 0:
        best_weights = Weights(Path(storage.uri_of(BEST)), storage.get(BEST))
        fill(network, state_dict_of(best_weights), model=recipe.name, arch="", path=best_weights.path)
        pictures = examples.pictures(network, world.device)
        write_folder(storage, settings, recipe, data, history, best, pictures)
        if board is not None:
            board.close()


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Share of the highest rate at a step: a line up from a small value, then half a cosine down to 0.01."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1e-9, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def make_optimizer(network: nn.Module, o: OptimisationSettings) -> torch.optim.Optimizer:
    trained = [p for p in network.parameters() if p.requires_grad]
    # Vectors are biases and norms; shrinking those does not make a network simpler.
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": o.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if o.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=o.learning_rate, momentum=o.momentum, nesterov=o.momentum > 0)
    return torch.optim.AdamW(groups, lr=o.learning_rate)


def quick_layout(network: nn.Module, device: torch.device) -> nn.Module:
    """On a processor the gradient of a convolution by channels over space and time (MViT's pooling) takes most of a
    step, and half as long with channels last in memory: a step of 16 clips of 8 frames of 32 x 40 took 0.23 s in
    place of 0.43. Other networks of three dimensions are as quick either way."""
    by_channel = any(isinstance(m, nn.Conv3d) and m.groups > 1 for m in network.modules())
    if device.type == "cpu" and by_channel:
        network = network.to(memory_format=torch.channels_last_3d)
    return network


def _precision(o: OptimisationSettings, device: torch.device) -> tuple[torch.amp.GradScaler, Callable[[], Any]]:
    """bfloat16 where the device has it: its range needs no scaling of the loss; else float16 with scaling."""
    half = o.precision == "16" or (o.precision == "auto" and device.type == "cuda")
    brain = device.type == "cpu" or torch.cuda.is_bf16_supported()
    dtype = torch.bfloat16 if brain else torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=half and not brain)
    return scaler, lambda: torch.autocast(device.type, dtype, enabled=half)


def goodness(row: Mapping[str, float], watch: str) -> tuple[float, float]:
    """What is watched; and of two epochs alike in it, that which was surer is the better one."""
    return -row["loss"] if watch == "loss" else row.get(watch, -math.inf), -row.get("val_loss", 0.0)
