"""Figures of detectors: trained on a clean camera, fine-tuned on a bad one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from learn_figures.figure import Figure
from learn_figures.reading import count_parameters, open_reader
from learn_figures.settings import DETECTOR, DETECTOR_EPOCHS, DETECTOR_LEARNING_RATES, DETECTORS
from learn_figures.worlds import World, worlds
from vidproc.learn.data.augmentation import Augmentation
from vidproc.learn.data.frames import FrameData
from vidproc.learn.labels.catalog import Catalog
from vidproc.learn.labels.coco import read_coco, to_coco
from vidproc.learn.networks import NetworkSettings
from vidproc.learn.scoring.coco import coco_ap
from vidproc.learn.train.settings import DataSettings, OptimisationSettings, TrainSettings
from vidproc.learn.train.training import train
from vidproc.learn.workers import WorkerSettings
from vidproc.models import load_model
from vidproc.models.settings import ModelSettings


def detector_figure(name: str, args: Any) -> Figure:
    """People in the studio from random weights first; then, its backbone frozen, fine-tuned on what a bad camera
    sees: noise, shake and changing light."""
    made, network = worlds(args), DETECTORS[name]
    first, more = DETECTOR_EPOCHS.get(name, args.detector_epochs)
    learning_rate = DETECTOR_LEARNING_RATES.get(name, 6e-4)

    def job(name: str, world: World, network: NetworkSettings, epochs: int) -> TrainSettings:
        boxes = str(world.labels("boxes"))
        return TrainSettings(
            task="detection",
            name=name,
            out=str(args.out / "models" / name),
            data=DataSettings(archive=world.videos, train=boxes, validation_share=0, cache_gb=1.0),
            network=network,
            optimisation=OptimisationSettings(epochs=epochs, batch=4, learning_rate=learning_rate, warmup_epochs=0.1),
            augmentation=Augmentation(flip=0.5),
            workers=WorkerSettings(executor="inline", gpu=False),
        )

    people = train(job(f"people-{name}", made["learn"], network, first))
    backbone = "backbone.features" if name == "ssdlite" else "backbone.body"
    tuned = replace(network, start=people.folder, freeze=(backbone,), freeze_norms=True)
    report = train(job(name, made["bad-camera"], tuned, more))
    ap50, frames = _ap50(report.folder, made["bad-camera-test"])
    note = f"{frames} unseen frames of a bad camera, backbone frozen"
    size = count_parameters(report.folder)
    return Figure(name, "AP at IoU 0.5", ap50, DETECTOR, folder=report.folder, parameters=size, note=note)


def _ap50(folder: str, world: World) -> tuple[float, int]:
    model: Any = load_model(folder, settings=ModelSettings(kind="detector", device="cpu", batch_size=8))
    truth = read_coco(world.labels("boxes"), Catalog.of(world.videos))
    data = FrameData(truth.frames, open_reader(), model.card.grid)
    frames, geometry = zip(*(data.read(i) for i in range(len(data))), strict=True)
    found = model.detect(np.stack(frames))
    boxes = geometry[0].to_upright(found.boxes).astype(float)
    results = [
        {"image_id": int(f) + 1, "category_id": int(c) + 1, "bbox": [*b[:2], b[2] - b[0], b[3] - b[1]], "score": s}
        for f, c, b, s in zip(found.frame, found.class_id, boxes, found.score.astype(float), strict=True)
    ]
    return coco_ap(to_coco(truth), results).summary["AP50"], len(frames)
