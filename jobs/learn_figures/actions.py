"""Figures of action models: a family trained from random weights, and few-shot learning."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from learn_figures.figure import Figure
from learn_figures.reading import count_parameters, open_reader
from learn_figures.settings import (
    AMBIGUOUS,
    BLIND,
    CROPPED,
    EPOCHS,
    FEW_SHOT,
    LEARNING_RATES,
    NETWORKS,
    ON_DEMAND,
    TEMPORAL,
    TRANSFORMERS,
)
from learn_figures.worlds import World, worlds
from vidproc.learn.data.augmentation import Augmentation
from vidproc.learn.data.clips import sample_range, spread, windows_of
from vidproc.learn.fewshot import FewShotSettings, few_shot
from vidproc.learn.labels.actions import read_activitynet
from vidproc.learn.labels.catalog import Catalog
from vidproc.learn.train.settings import DataSettings, OptimisationSettings, TrainSettings
from vidproc.learn.train.training import train
from vidproc.learn.workers import WorkerSettings
from vidproc.media import Grid
from vidproc.models import load_model
from vidproc.models.settings import ModelSettings


def action_figure(name: str, args: Any) -> Figure:
    made = worlds(args)
    many = name in TRANSFORMERS
    learn, test = made["learn-more" if many else "learn"], made["test"]
    job = TrainSettings(
        task="actions",
        name=name,
        out=str(args.out / "models" / name),
        data=DataSettings(
            archive=learn.videos,
            train=str(learn.labels("actions")),
            validation_share=0.1,
            labels=AMBIGUOUS,
            cache_gb=1.0,
        ),
        network=(NETWORKS | ON_DEMAND | TRANSFORMERS)[name],
        optimisation=OptimisationSettings(
            epochs=EPOCHS.get(name, args.epochs),
            batch=16 if many else 8,
            learning_rate=LEARNING_RATES.get(name, 1e-3),
            warmup_epochs=1,
        ),
        augmentation=Augmentation(flip=0.5, crop=0.8 if name in CROPPED else 1.0),
        workers=WorkerSettings(executor="inline", gpu=False),
    )
    report = train(job)
    model: Any = load_model(report.folder, settings=ModelSettings(kind="actions", device="cpu", batch_size=16))
    windows, class_ids = _windows(test, model.card.grid)
    found = model.classify(windows).argmax(1)
    return Figure(
        name,
        "top-1",
        float((found == class_ids).mean()),
        None if name in BLIND else TEMPORAL,
        folder=report.folder,
        parameters=count_parameters(report.folder),
        note=f"{len(windows)} unseen actions; epoch {report.best_epoch}, {report.metrics['top1']:.2f} where chosen",
    )


def _windows(world: World, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The window in the middle of each action, uint8 (n, t, h, w, 3), and its class."""
    catalog, reader = Catalog.of(world.videos), open_reader()
    clips = read_activitynet(world.labels("actions"), catalog, AMBIGUOUS).clips
    out = []
    for clip in clips:
        first, last = sample_range(clip, grid, reader.info(clip.source).duration_s)
        frames, _ = reader.samples(clip.source, grid, first, last)
        out.append(windows_of(frames, grid.window, spread(0, last - first, grid.window, 1))[0])
    return np.stack(out), np.array([c.class_id for c in clips])


def few_shot_figure(name: str, args: Any) -> Figure:
    """Five ways, five shots, on classes that the embedded action model was never shown."""
    world = worlds(args)["held-out"]
    rows = ["label,uri,start_s,end_s"]
    for video, entry in json.loads(world.labels("actions").read_text())["database"].items():
        rows += [f"{a['label']},{video},{a['segment'][0]},{a['segment'][1]}" for a in entry["annotations"]]
    examples = args.out / "few-shot.csv"
    examples.write_text("\n".join(rows) + "\n")
    out = str(args.out / "models" / "few-shot")
    report = few_shot(
        FewShotSettings(examples=str(examples), archive=world.videos, backbone="demo", out=out, device="cpu")
    )
    e = report.evaluation
    assert e is not None
    note = f"± {e.interval:.3f} (95 %), {e.ways}-way {e.shots}-shot, {len(report.labels)} classes never shown"
    size = count_parameters(report.folder)
    return Figure(name, "accuracy", e.accuracy, FEW_SHOT, folder=report.folder, parameters=size, note=note)
