"""The checkpoint after each epoch, from which the same command goes on."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import nn

from vidproc.errors import ConfigError
from vidproc.learn.train.progress import Progress
from vidproc.learn.train.settings import TrainSettings
from vidproc.storage import Storage

LAST, BEST = "checkpoints/last.pt", "checkpoints/best.safetensors"


def save_checkpoint(
    storage: Storage,
    settings: TrainSettings,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    data = io.BytesIO()
    torch.save(
        {
            "job": settings.fingerprint,
            "epoch": progress.epoch,
            "history": progress.history,
            "best": progress.best,
            "finished": progress.finished,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        data,
    )
    storage.put(LAST, data.getvalue())


def load_checkpoint(storage: Storage, settings: TrainSettings) -> dict[str, Any] | None:
    """Return the last checkpoint, or None where there is none to go on from. Raises ConfigError where it is another
    job's."""
    if not settings.resume or not storage.exists(LAST):
        return None
    try:
        checkpoint: dict[str, Any] = torch.load(io.BytesIO(storage.get(LAST)), map_location="cpu", weights_only=True)
        job = checkpoint["job"]
    except Exception as e:  # torch names no error for a damaged file
        raise ConfigError(f"{storage.uri}/{LAST} is no checkpoint of a training ({e}); say resume: false.") from e
    if job != settings.fingerprint:
        raise ConfigError(
            f"{storage.uri}/{LAST} belongs to a job of other settings: give another `out`, or say resume: false."
        )
    if "optimiser" in checkpoint:  # by the name of version 0.1
        checkpoint["optimizer"] = checkpoint.pop("optimiser")
    return checkpoint
