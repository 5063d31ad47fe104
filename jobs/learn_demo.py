"""Every family of networks learns on the synthetic world and reaches a stated figure on scenes it never saw.

    python jobs/learn_demo.py                      all of it, in out/learn; under 8 minutes on 2 quiet cores
    python jobs/learn_demo.py --only gru,mean      some of it; what is drawn and trained already is kept

Actions: sitting down, standing up, picking up and putting down. Their single frames are the same
(standing up is sitting down played backwards), so what one frame can tell is one pair from the other,
half of all answers; a network that follows time must do better by a margin. That is what it is for.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidproc.demo.people import MORE_ACTIONS
from vidproc.demo.truth import LABELS, Truth, VideoTruth
from vidproc.demo.world import DEMO_SEED, HEIGHT, WIDTH, SceneSettings, draw_archive
from vidproc.learn.data import Augmentation, Reader, sample_range, windows_of
from vidproc.learn.explain import grad_cam, points_at, randomise
from vidproc.learn.fewshot import FewShotSettings, few_shot
from vidproc.learn.labels import Catalog, LabelledClip, read_actions
from vidproc.learn.networks import NetworkSettings
from vidproc.learn.train import DataSettings, OptimisationSettings, TrainSettings, train
from vidproc.learn.workers import WorkerSettings
from vidproc.models.families import load_network
from vidproc.models.registry import ModelSettings, find_recipe

AMBIGUOUS = ("sit_down", "stand_up", "pick_up", "put_down")
SCENES = SceneSettings(seconds=10.0, fps=Fraction(8), actions=AMBIGUOUS, noise=0.3)
TRAIN_SEED, TEST_SEED = 7_000, DEMO_SEED + 7_000
"""Scenes for learning are drawn from TRAIN_SEEDS, those for the figures from the seeds of demonstrations."""

NARROW_SLOWFAST = {"frames": 12, "alpha": 4, "width": 16, "depths": [1, 1, 1, 1], "fusion_kernel": 5, "dropout": 0.2}
FAMILIES: dict[str, NetworkSettings] = {
    "mean": NetworkSettings(arch="cnn+mean"),
    "gru": NetworkSettings(arch="cnn+gru", args={"hidden": 64}),
    "lstm": NetworkSettings(arch="cnn+lstm", args={"hidden": 64}),
    "tcn": NetworkSettings(arch="cnn+tcn", args={"hidden": 64, "layers": 3}),
    "slowfast": NetworkSettings(arch="slowfast_r50_8x8", args=NARROW_SLOWFAST),
}
VIEW = {"fps": 8, "window": 12, "size": {"mode": "stretch", "height": 72, "width": 96}}
SINGLE_FRAME, MARGIN, TEMPORAL = "mean", 0.15, 0.75
"""Chance is 0.25 and the best that single frames can do about 0.5: a temporal network must reach 0.75,
and beat the order-blind one, which sees all frames of the window but not their order, by the margin."""
FEW_SHOT = 0.8
POINTING = 0.8


@dataclass(frozen=True)
class Figure:
    name: str
    value: float
    least: float
    seconds: float
    note: str = ""

    @property
    def reached(self) -> bool:
        return self.value >= self.least


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/learn"))
    parser.add_argument("--only", default="", help=f"of {', '.join((*FAMILIES, 'fewshot', 'explain', 'detector'))}")
    parser.add_argument("--scenes", type=int, default=80, help="activity scenes to learn from")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    wanted = set(filter(None, args.only.split(","))) or {*FAMILIES, "fewshot", "explain"}
    figures: list[Figure] = []

    def run(name: str, least: float, work: Callable[[], tuple[float, str]]) -> None:
        began = time.perf_counter()
        value, note = work()
        figures.append(Figure(name, value, least, time.perf_counter() - began, note))
        f = figures[-1]
        print(f"{f.name:12} {f.value:6.3f}  at least {f.least:.2f}  {f.seconds:6.1f} s  {f.note}", flush=True)

    learn = _world(args.out / "world" / "train", args.scenes, TRAIN_SEED, args.threads)
    test = _world(args.out / "world" / "test", max(10, args.scenes // 3), TEST_SEED, args.threads)
    scores: dict[str, float] = {}
    for name, network in FAMILIES.items():
        if name in wanted:
            least = 0.0 if name == SINGLE_FRAME else TEMPORAL
            run(name, least, lambda name=name, network=network: _family(name, network, learn, test, args, scores))  # type: ignore[misc]
    temporal = [v for k, v in scores.items() if k != SINGLE_FRAME]
    if SINGLE_FRAME in scores and temporal:
        run("margin", MARGIN, lambda: (min(temporal) - scores[SINGLE_FRAME], "weakest temporal over order-blind"))
    if "fewshot" in wanted:
        run("few-shot", FEW_SHOT, lambda: _few_shot(args.out, args.threads))
    if "explain" in wanted:
        run("pointing", POINTING, lambda: _pointing(args.out, test))
    if "detector" in wanted:
        run("detector", 0.3, lambda: _detector(args, learn, test))
    (args.out / "figures.json").write_text(json.dumps([f.__dict__ for f in figures], indent=1))
    missed = [f.name for f in figures if not f.reached]
    print(
        f"{len(figures) - len(missed)} of {len(figures)} figures reached"
        + (f"; not: {', '.join(missed)}" if missed else "")
    )
    return 1 if missed else 0


# The world as label files


def _world(folder: Path, scenes: int, seed: int, workers: int, settings: SceneSettings = SCENES) -> Path:
    """An archive of that many activity scenes (and as many of streets), with its labels beside it."""
    done = folder / "labels" / "done.json"
    made = {"scenes": scenes, "seed": seed, "settings": repr(settings)}
    if done.exists() and json.loads(done.read_text()) == made:
        return folder
    truth = draw_archive(folder / "videos", 2 * scenes, seed, settings=settings, workers=workers)
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "actions.json").write_text(json.dumps(_activitynet(truth, settings.actions)))
    (folder / "labels" / "boxes.json").write_text(json.dumps(_coco(truth)))
    done.write_text(json.dumps(made))
    return folder


def _activitynet(truth: Truth, labels: tuple[str, ...], least_s: float = 0.8) -> dict[str, Any]:
    """The actions of `labels` that last long enough to be seen; walks in between are left out."""
    database = {}
    for v in truth.videos:
        annotations = [
            {"label": s.label, "segment": [s.start_s, s.end_s]}
            for s in v.segments
            if s.label in labels and s.end_s - s.start_s >= least_s
        ]
        if annotations:
            database[v.name] = {"subset": "all", "duration": v.duration_s, "annotations": annotations}
    return {"database": database}


def _coco(truth: Truth, every_s: float = 1.0) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for v in truth.videos:
        for k in range(int(v.duration_s / every_s)):
            time_s = (k + 0.5) * every_s
            images.append(
                {"id": len(images) + 1, "file_name": v.name, "time_s": time_s, "width": WIDTH, "height": HEIGHT}
            )
            for b in v.at(time_s):
                x0, y0, x1, y1 = max(b.x_min, 0), max(b.y_min, 0), min(b.x_max, WIDTH), min(b.y_max, HEIGHT)
                if not b.difficult and x1 > x0 and y1 > y0:
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": images[-1]["id"],
                            "category_id": LABELS.index(b.label) + 1,
                            "bbox": [x0, y0, x1 - x0, y1 - y0],
                        }
                    )
    categories = [{"id": i + 1, "name": label} for i, label in enumerate(LABELS)]
    return {"images": images, "annotations": annotations, "categories": categories}


# The figures


def _job(name: str, network: NetworkSettings, learn: Path, test: Path, args: Any) -> TrainSettings:
    # Both archives under one root, so that one listing knows the videos of both label files.
    root = learn.parent
    return TrainSettings(
        task="actions",
        name=name,
        out=str(args.out / "models" / name),
        data=DataSettings(
            archive=str(root),
            train=str(_rooted(learn, root)),
            validation=str(_rooted(test, root)),
            labels=AMBIGUOUS,
            cache_gb=1.0,
        ),
        network=replace(network, **VIEW),
        optimisation=OptimisationSettings(epochs=args.epochs, batch=16, rate=1.5e-3, warmup_epochs=1, views=1),
        augmentation=Augmentation(flip=0.5),
        workers=WorkerSettings(executor="inline", gpu=False),
    )


def _rooted(world: Path, root: Path, kind: str = "actions") -> Path:
    """The labels of one archive with names below the root of both."""
    document = json.loads((world / "labels" / f"{kind}.json").read_text())
    prefix = f"{world.relative_to(root)}/videos/"
    if kind == "actions":
        document["database"] = {prefix + name: entry for name, entry in document["database"].items()}
    else:
        for image in document["images"]:
            image["file_name"] = prefix + image["file_name"]
    path = world / "labels" / f"{kind}-rooted.json"
    path.write_text(json.dumps(document))
    return path


def _family(
    name: str, network: NetworkSettings, learn: Path, test: Path, args: Any, scores: dict[str, float]
) -> tuple[float, str]:
    report = train(_job(name, network, learn, test, args))
    scores[name] = report.metrics["top1"]
    recipe = find_recipe(report.folder, ModelSettings())
    module = load_network(recipe)
    parameters = sum(p.numel() for p in module.parameters())
    clip = torch.zeros(1, 3, recipe.grid.window, 72, 96)
    with torch.inference_mode():
        module(clip)
        began = time.perf_counter()
        for _ in range(10):
            module(clip)
    rate = 10 / (time.perf_counter() - began)
    return scores[name], f"{parameters / 1e3:.0f} k parameters, {rate:.0f} windows/s, best epoch {report.best_epoch}"


def _few_shot(out: Path, workers: int) -> tuple[float, str]:
    """Five ways, five shots, on classes that the embedded action model was never shown."""
    settings = replace(SCENES, actions=MORE_ACTIONS, seconds=12.0)
    world = _world(out / "world" / "held-out", 24, TEST_SEED + 500, workers, settings)
    rows = ["label,uri,start_s,end_s"]
    for name, entry in json.loads((world / "labels" / "actions.json").read_text())["database"].items():
        rows += [f"{a['label']},{name},{a['segment'][0]},{a['segment'][1]}" for a in entry["annotations"]]
    (out / "few-shot.csv").write_text("\n".join(rows) + "\n")
    report = few_shot(
        FewShotSettings(
            examples=str(out / "few-shot.csv"),
            archive=str(world / "videos"),
            backbone="demo",
            out=str(out / "models" / "few-shot"),
            views=2,
            device="cpu",
        )
    )
    e = report.evaluation
    assert e is not None
    return e.accuracy, f"± {e.interval:.3f}, {e.ways}-way {e.shots}-shot, {len(report.labels)} held-out classes"


def _pointing(out: Path, test: Path) -> tuple[float, str]:
    """Does the map of a trained network fall on the one who acts? (a quarter of a person's height of slack)"""
    folder = out / "models" / "gru"
    recipe = find_recipe(str(folder), ModelSettings())
    network, blind = load_network(recipe), randomise(recipe)
    truth = {v.name: v for v in Truth.load(test / "videos" / "truth.json").videos}
    read = read_actions(test / "labels" / "actions.json", Catalog.of(str(test / "videos")), recipe.labels)
    reader = Reader(**_local())
    hits, chance = [], []
    for clip in read.clips[:40]:
        video = next(v for name, v in truth.items() if clip.source.uri.endswith(name))
        frames, boxes = _window(clip, video, recipe.grid, reader)
        slack = float(np.mean([b[:, 3] - b[:, 1] for b in boxes if len(b)])) / 4
        hits.append(points_at(grad_cam(network, frames, recipe.preprocessing, clip.class_id), boxes, slack))
        chance.append(points_at(grad_cam(blind, frames, recipe.preprocessing, clip.class_id), boxes, slack))
    return float(np.mean(hits)), f"pointing game over {len(hits)} actions; with random weights {np.mean(chance):.2f}"


def _window(clip: LabelledClip, video: VideoTruth, grid: Any, reader: Reader) -> tuple[np.ndarray, list[np.ndarray]]:
    """The window in the middle of an action, and the actor's box in each of its frames, in the model's pixels."""
    first, last = sample_range(clip, grid, video.duration_s)
    start = first + max(0, last - first - grid.window) // 2
    frames, geometry = reader.samples(clip.source, grid, start, start + grid.window)
    actor = next(s.track_id for s in video.segments if abs(s.start_s - clip.start_s) < 1e-6)
    boxes = []
    for k in range(start, start + grid.window):
        own = [(b.x_min, b.y_min, b.x_max, b.y_max) for b in video.at(float(k / grid.fps)) if b.track_id == actor]
        scale = np.array([geometry.scale_x, geometry.scale_y] * 2)
        boxes.append(np.array(own, np.float64).reshape(-1, 4) * scale)
    return windows_of(frames, grid.window, [0])[0], boxes


def _local() -> dict[str, Any]:
    from vidproc.decode import MediaLimits, Source

    return {"source": Source(), "limits": MediaLimits()}


def _detector(args: Any, learn: Path, test: Path) -> tuple[float, str]:
    """Faster R-CNN (MobileNetV3, FPN) from random weights; minutes rather than seconds, so on demand."""
    root = learn.parent
    report = train(
        TrainSettings(
            task="detection",
            name="faster-rcnn",
            out=str(args.out / "models" / "faster-rcnn"),
            data=DataSettings(
                archive=str(root),
                train=str(_rooted(learn, root, "boxes")),
                validation=str(_rooted(test, root, "boxes")),
                labels=LABELS,
                cache_gb=1.0,
            ),
            network=NetworkSettings(
                arch="fasterrcnn_mobilenet_v3_large_320_fpn",
                size={"mode": "stretch", "height": 192, "width": 256},
                args={"trainable_backbone_layers": 6},
                fps=2,
            ),
            optimisation=OptimisationSettings(epochs=6, batch=8, rate=1e-3, warmup_epochs=0.5),
            augmentation=Augmentation(flip=0.5),
            workers=WorkerSettings(executor="inline", gpu=False),
        )
    )
    return report.metrics["AP50"], f"AP {report.metrics['AP']:.3f}"


if __name__ == "__main__":
    sys.exit(main())
