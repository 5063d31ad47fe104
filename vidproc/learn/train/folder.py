"""Files that training writes: the model folder, metrics and curves."""

from __future__ import annotations

import csv
import hashlib
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from vidproc.documents import dump_yaml
from vidproc.learn.labels.values import ActionLabels, DetectionLabels
from vidproc.learn.networks import (
    WEIGHTS,
)
from vidproc.learn.plots import curves_png
from vidproc.learn.train.checkpoint import BEST
from vidproc.learn.train.preparation import TrainingData
from vidproc.learn.train.progress import Progress
from vidproc.learn.train.settings import TrainSettings
from vidproc.models.recipe import Recipe
from vidproc.secrets import redact_values
from vidproc.storage import Storage, is_s3


def tensor_bytes(network: nn.Module) -> bytes:
    from safetensors.torch import save

    return save({k: v.detach().cpu().contiguous().clone() for k, v in network.state_dict().items()})


def write_folder(
    storage: Storage,
    settings: TrainSettings,
    recipe: Recipe,
    data: TrainingData,
    *,
    progress: Progress,
    pictures: Mapping[str, bytes],
) -> None:
    """Write the model folder of a finished training; `pictures` are other files of it, by name."""
    weights = storage.get(BEST)
    card = {
        "name": settings.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "job": redact_values(yaml_plain(asdict(settings)), names=False),
        "job_fingerprint": settings.fingerprint,
        "data": {
            "labels": list(data.labels),
            "train_examples": _count(data.train),
            "validation_examples": _count(data.validation),
            "label_files_sha256": dict(data.sha256),
        },
        "best": dict(progress.best),
        "epochs": progress.epoch,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    storage.put("metrics.csv", metrics_csv(progress.history))
    storage.put("curves.png", curves_png(progress.history, progress.best["epoch"]))
    for name, picture in pictures.items():
        storage.put(name, picture)
    storage.put("training.yaml", dump_yaml(card))
    write_model(storage, recipe, weights)


def write_model(storage: Storage, recipe: Recipe, weights: bytes) -> None:
    """Write a model folder as `load_model` reads it: the weights first, model.yaml last."""
    storage.put(WEIGHTS, weights)
    whole = replace(recipe, weights=WEIGHTS, sha256=hashlib.sha256(weights).hexdigest())
    storage.put("model.yaml", dump_yaml(whole.to_mapping()))


def _count(labels: ActionLabels | DetectionLabels | None) -> int:
    if labels is None:
        return 0
    return len(labels.clips if isinstance(labels, ActionLabels) else labels.frames)


def yaml_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): yaml_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [yaml_plain(v) for v in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def metrics_csv(history: Sequence[Mapping[str, float]]) -> bytes:
    names = list(dict.fromkeys(k for row in history for k in row))
    return csv_bytes(names, [[row.get(k, "") for k in names] for row in history])


def csv_bytes(names: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows(rows)
    return out.getvalue().encode()


def tensorboard(storage: Storage) -> Any:
    """Return a TensorBoard writer beside the model, or None where TensorBoard is missing or the folder is not local."""
    if is_s3(storage.uri):
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(f"{storage.uri}/tensorboard")
