"""Families of networks learn on the drawn world and reach a stated figure on scenes that they never saw.

    python jobs/learn_demo.py                      all of it, in out/learn; under 8 minutes on 2 quiet cores
    python jobs/learn_demo.py --only gru,frame     some of it; what is drawn and trained already is kept
    python jobs/learn_demo.py --all                with R3D, R(2+1)D, S3D and MC3 as well: some twenty minutes more
    python jobs/learn_demo.py --only retinanet     by name alone: the larger detectors and the transformers

Actions: sitting down, standing up, picking up and putting down. Their single frames are the same
(standing up is sitting down played backwards), so what one frame can tell is one pair from the other,
half of all answers; a network that follows time must do better by a margin. That is what it is for.

Seeds, and so scenes: learning from TRAIN_SEED, figures from TEST_SEED. Nothing was chosen by the latter: which
epoch is kept is decided on a tenth of the learning scenes, and the settings below were found on other seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from vidproc.demo.acts import MORE_ACTIONS
from vidproc.demo.archive import write_video
from vidproc.demo.scene import Scene
from vidproc.demo.settings import DEMO_SEED, HEIGHT, WIDTH, SceneSettings
from vidproc.demo.truth import LABELS, Truth, VideoTruth
from vidproc.learn.data.augmentation import Augmentation
from vidproc.learn.data.clips import sample_range, spread, windows_of
from vidproc.learn.data.frames import FrameData
from vidproc.learn.data.reader import Reader
from vidproc.learn.explain.checks import points_at, randomise
from vidproc.learn.explain.gradcam import mirrored_grad_cam
from vidproc.learn.fewshot import FewShotSettings, few_shot
from vidproc.learn.labels.actions import read_activitynet
from vidproc.learn.labels.catalog import Catalog
from vidproc.learn.labels.coco import read_coco, to_coco
from vidproc.learn.labels.values import LabelledClip
from vidproc.learn.networks import NetworkSettings
from vidproc.learn.scoring.coco import coco_ap
from vidproc.learn.train.settings import DataSettings, OptimisationSettings, TrainSettings
from vidproc.learn.train.training import train
from vidproc.learn.workers import WorkerSettings
from vidproc.media import Grid
from vidproc.models import load_model
from vidproc.models.families import load_network
from vidproc.models.registry import find_recipe
from vidproc.models.settings import ModelSettings
from vidproc.text import say
from vidproc.video.decode import MediaLimits, Source

AMBIGUOUS = ("sit_down", "stand_up", "pick_up", "put_down")
STUDIO = SceneSettings(seconds=10.0, fps=Fraction(8), actions=AMBIGUOUS, noise=0, plain=True)
"""Somebody before a plain wall, with a stool and a parcel: before drawn rooms and streets the same networks
have learned nothing after as many steps (top-1 0.34 where chance is 0.25)."""
TRAIN_SEED, TEST_SEED = 7_000, DEMO_SEED + 11_000
VIEW = {"fps": 8, "window": 12, "size": {"mode": "stretch", "height": 48, "width": 64}}
NARROW_SLOWFAST = {"frames": 12, "alpha": 4, "width": 16, "depths": [1, 1, 1, 1], "fusion_kernel": 5, "dropout": 0.2}
NETWORKS: dict[str, NetworkSettings] = {
    "frame": NetworkSettings(arch="cnn+mean", **(VIEW | {"window": 1})),
    "mean": NetworkSettings(arch="cnn+mean", **VIEW),
    "lstm": NetworkSettings(arch="cnn+lstm", args={"hidden": 64}, **VIEW),
    "gru": NetworkSettings(arch="cnn+gru", args={"hidden": 64}, **VIEW),
    "tcn": NetworkSettings(arch="cnn+tcn", args={"hidden": 64, "layers": 3}, **VIEW),
    "slowfast": NetworkSettings(arch="slowfast_r50_8x8", args=NARROW_SLOWFAST, **VIEW),
}
COARSE = {"fps": 4, "window": 8, "size": {"mode": "stretch", "height": 32, "width": 40}}
"""An action lasts 1.2 to 1.8 s: two seconds hold all of it, and its ends stay two apart where a network has halved
time twice. With 12 frames of 48 x 64 a step costs four times as much."""
ON_DEMAND: dict[str, NetworkSettings] = {
    "r2plus1d": NetworkSettings(arch="r2plus1d_18", args={"narrow": 4}, **COARSE),
    "r3d": NetworkSettings(arch="r3d_18", args={"narrow": 4}, **COARSE),
    "mc3": NetworkSettings(arch="mc3_18", args={"narrow": 4}, **(VIEW | {"fps": 4, "window": 6})),
    "s3d": NetworkSettings(arch="s3d", args={"narrow": 4}, **(VIEW | {"window": 14})),
    "mean-coarse": NetworkSettings(arch="cnn+mean", **COARSE),
}
"""torchvision's, with a quarter of the channels: a step of the whole ones takes seconds on one core. And what the
coarse frames tell without order. MC3 looks over time in its first layers alone: on 12 frames of 32 x 40, 8 a second, at
twice the rate, it was near chance for 13 epochs, and with these right about half of unseen actions after six (which of
the changes did it was not tried). S3D takes no fewer than 14 frames."""
TRANSFORMERS: dict[str, NetworkSettings] = {
    "swin3d": NetworkSettings(
        arch="swin3d_t",
        args={"narrow": 4, "stochastic_depth_prob": 0.0},
        **(COARSE | {"size": {"mode": "stretch", "height": 28, "width": 28}}),
    ),
    "mvit": NetworkSettings(
        arch="mvit_v2_s",
        args={
            "narrow": 4,
            "temporal_size": 8,
            "spatial_size": [32, 40],
            "dropout": 0.0,
            "stochastic_depth_prob": 0.0,
        },
        **COARSE,
    ),
}
"""They know nothing of pictures at first, not even that neighbours belong together, and want to see more scenes."""
BLIND = ("frame", "mean", "mean-coarse")
"""One frame; and all frames of the window without their order, which is the most that single frames can give."""
SEEING = tuple(name for name in (*NETWORKS, *ON_DEMAND, *TRANSFORMERS) if name not in BLIND)
TEMPORAL, MARGIN = 0.75, 0.15
"""Chance is 0.25 and what single frames can tell about 0.5: 0.75 is halfway from there to all of it, and
the margin, over the better of the blind ones, is more than three standard errors of 200 answers."""
EPOCHS = {"slowfast": 20} | dict.fromkeys(ON_DEMAND, 15) | {"mc3": 25, "s3d": 25} | {"swin3d": 30, "mvit": 40}
"""R3D and R(2+1)D tell the pairs apart and find the order of frames at the sixth epoch."""
LEARNING_RATES = dict.fromkeys(NETWORKS, 1.5e-3) | {"mc3": 5e-4, "s3d": 5e-4} | dict.fromkeys(TRANSFORMERS, 3e-4)
"""Others: 1e-3. S3D, whose weights begin small, stayed at chance for 19 epochs at 2e-3 and for six at 5e-4."""
CROPPED = (*NETWORKS, "mc3", "s3d", *TRANSFORMERS)
"""Those that see a random part of each scene, at least 0.8 of it, brought back to size."""
FEW_SHOT, POINTING = 0.8, 0.8
SMALL_RCNN = {
    "rpn_pre_nms_top_n_train": 100,
    "rpn_post_nms_top_n_train": 50,
    "rpn_batch_size_per_image": 64,
    "box_batch_size_per_image": 16,
}
"""Proposals a frame: a drawn scene holds fewer objects than a photograph."""
SMALL_FRAMES = {"size": {"mode": "stretch", "height": 96, "width": 128}, "fps": 2}
"""The least anchors of ResNet-50's pyramid are as large as a person here."""
DETECTORS: dict[str, NetworkSettings] = {
    "faster-rcnn": NetworkSettings(
        arch="fasterrcnn_mobilenet_v3_large_320_fpn",
        size={"mode": "stretch", "height": 192, "width": 256},  # its cells are 32 pixels wide: six by eight
        args=SMALL_RCNN,
        fps=2,
    ),
    "fasterrcnn-resnet50": NetworkSettings(arch="fasterrcnn_resnet50_fpn", args=SMALL_RCNN, **SMALL_FRAMES),
    "retinanet": NetworkSettings(arch="retinanet_resnet50_fpn", **SMALL_FRAMES),
    "fcos": NetworkSettings(arch="fcos_resnet50_fpn", **SMALL_FRAMES),
    "ssdlite": NetworkSettings(arch="ssdlite320_mobilenet_v3_large", fps=2),
}
DETECTOR_EPOCHS = {"ssdlite": (4, 3)}
"""From random weights, then fine-tuned; others as the command line says."""
DETECTOR_LEARNING_RATES = {"ssdlite": 1e-3}
"""Others: 6e-4."""
LONG = tuple(name for name in DETECTORS if name != "faster-rcnn")
"""Run by name alone: some ten minutes of processor time each."""
DETECTOR = 0.6
"""AP at IoU 0.5 of a detector that began from random weights minutes before; on three other sets of scenes
MobileNetV3 reached 0.77 to 0.91, and ResNet-50 on one 0.90 before it had seen a bad camera at all."""


@dataclass(frozen=True)
class Figure:
    name: str
    what: str
    value: float
    least: float | None
    seconds: float = 0.0
    folder: str = ""
    """Of the model, where the figure is one's."""
    parameters: int | None = None
    rate: str = ""
    note: str = ""

    @property
    def reached(self) -> bool:
        return self.least is None or self.value >= self.least

    def row(self) -> str:
        least = "" if self.least is None else f"{self.least:.2f}"
        size = "" if self.parameters is None else f"{self.parameters / 1e6:.2f} M"
        state = "" if self.reached else "MISSED: "
        return (
            f"{self.name:12} {size:>9} {self.rate:>15} {self.what:14} {self.value:6.3f} {least:>6} "
            f"{self.seconds:6.0f} s  {state}{self.note}"
        )


HEADING = f"{'':12} {'weights':>9} {'on 2 cores':>15} {'figure':14} {'':6} {'least':>6} {'took':>8}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/learn"))
    parser.add_argument("--only", default="", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--all", action="store_true", help=f"{', '.join(ON_DEMAND)} as well")
    parser.add_argument("--scenes", type=int, default=105, help="activity scenes to learn from")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument(
        "--detector-epochs", type=int, nargs=2, default=(3, 4), help="from random weights, then fine-tuned"
    )
    parser.add_argument("--train-seed", type=int, default=TRAIN_SEED)
    parser.add_argument("--test-seed", type=int, default=TEST_SEED)
    parser.add_argument(
        "--processes", type=int, default=2, help="of one thread each, which do one figure after another"
    )
    args = parser.parse_args()
    by_name = {*TRANSFORMERS, *LONG} if args.all else {*TRANSFORMERS, *LONG, *ON_DEMAND}
    wanted = args.only.split(",") if args.only else [n for n in FIGURES if n not in by_name]
    if unknown := set(wanted) - set(FIGURES):
        parser.error(f"no figure is named {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    began = time.perf_counter()
    figures: list[Figure] = []
    needed = {world for name in wanted for world in NEEDS.get(name, ("learn", "test"))}
    for name in sorted(needed):
        worlds(args)[name].drawn(args.processes)
    say(*HEADING.splitlines())
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        learning = [name for name in FIGURES if name in wanted and name != "explain"]
        for done in as_completed([pool.submit(_timed, name, args) for name in learning]):
            figures.append(done.result())
            say(figures[-1].row())
        if "explain" in wanted:
            figures.append(pool.submit(_timed, "explain", args).result())
    scores = {f.name: f.value for f in figures}
    blind, seeing = [scores[n] for n in BLIND if n in scores], [scores[n] for n in SEEING if n in scores]
    if blind and seeing:
        note = "weakest of those that follow time, less the better of those that cannot"
        figures.append(Figure("margin", "top-1", min(seeing) - max(blind), MARGIN, note=note))
    # Speeds by themselves, on both cores: while others learn, a clock says nothing.
    torch.set_num_threads(2)
    figures = [replace(f, rate=_rate(f)) for f in sorted(figures, key=lambda f: [*FIGURES, "margin"].index(f.name))]
    say("", *HEADING.splitlines(), *(f.row() for f in figures))
    (args.out / "figures.json").write_text(json.dumps([asdict(f) for f in figures], indent=1))
    missed = [f.name for f in figures if not f.reached]
    say(
        f"{len(figures) - len(missed)} of {len(figures)} figures reached in {time.perf_counter() - began:.0f} s"
        + (f"; not: {', '.join(missed)}" if missed else "")
    )
    return 1 if missed else 0


def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _timed(name: str, args: Any) -> Figure:
    began = time.perf_counter()
    made = FIGURES[name](name, args)
    return replace(made, seconds=time.perf_counter() - began)


# The world as an archive with label files beside it


@dataclass(frozen=True)
class World:
    folder: Path
    scenes: int
    seed: int
    settings: SceneSettings

    @property
    def videos(self) -> str:
        return str(self.folder / "videos")

    def labels(self, name: str) -> Path:
        """`actions` (ActivityNet), `boxes` (COCO) or `truth`."""
        return self.folder / f"{name}.json"

    def drawn(self, workers: int) -> World:
        """Draws what is not there yet."""
        done = self.labels("done")
        made = {"scenes": self.scenes, "seed": self.seed, "settings": repr(self.settings)}
        if done.exists() and json.loads(done.read_text()) == made:
            return self
        (self.folder / "videos").mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            truth = Truth(tuple(pool.map(partial(_draw, self), range(self.scenes), chunksize=4)))
        truth.save(self.labels("truth"))
        self.labels("actions").write_text(json.dumps(_activitynet(truth, self.settings.actions)))
        self.labels("boxes").write_text(json.dumps(_coco(truth)))
        done.write_text(json.dumps(made))
        return self


def _draw(world: World, i: int) -> VideoTruth:
    cv2.setNumThreads(1)
    scene = Scene.generate(world.seed + i, world.settings, kind="activity")
    frames = (scene.frame(k) for k in range(scene.frame_count))
    write_video(world.folder / "videos" / f"{i:03d}.mp4", frames, fps=world.settings.fps, gop=24)
    return scene.truth(f"{i:03d}.mp4")


def _activitynet(truth: Truth, labels: Sequence[str], least_s: float = 0.8) -> dict[str, Any]:
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


def _coco(truth: Truth, every_s: float = 2.0) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for v in truth.videos:
        for k in range(int(v.duration_s / every_s)):
            time_s = (k + 0.5) * every_s
            size = {"width": WIDTH, "height": HEIGHT}
            images.append({"id": len(images) + 1, "file_name": v.name, "time_s": time_s, **size})
            for b in v.at(time_s):
                x0, y0, x1, y1 = max(b.x_min, 0), max(b.y_min, 0), min(b.x_max, WIDTH), min(b.y_max, HEIGHT)
                if not b.difficult and x1 > x0 and y1 > y0:
                    of = {"image_id": images[-1]["id"], "category_id": LABELS.index(b.label) + 1}
                    annotations.append({"id": len(annotations) + 1, **of, "bbox": [x0, y0, x1 - x0, y1 - y0]})
    seen = {a["category_id"] for a in annotations}
    categories = [{"id": i + 1, "name": label} for i, label in enumerate(LABELS) if i + 1 in seen]
    return {"images": images, "annotations": annotations, "categories": categories}


# The figures


def worlds(args: Any) -> dict[str, World]:
    bad = replace(STUDIO, noise=1.0)
    held_out = replace(STUDIO, actions=MORE_ACTIONS, seconds=12.0, noise=0.3, plain=False)
    made = {
        "learn": (args.scenes, args.train_seed, STUDIO),
        "learn-more": (4 * args.scenes, args.train_seed, STUDIO),
        "test": (36, args.test_seed, STUDIO),
        "bad-camera": (24, args.train_seed + 500, bad),
        "bad-camera-test": (24, args.test_seed + 500, bad),
        "held-out": (36, args.test_seed + 900, held_out),
    }
    return {name: World(args.out / "world" / name, *rest) for name, rest in made.items()}


NEEDS = dict.fromkeys(DETECTORS, ("learn", "bad-camera", "bad-camera-test"))
NEEDS |= dict.fromkeys(TRANSFORMERS, ("learn-more", "test"))
NEEDS |= {"few-shot": ("held-out",), "explain": ("test",)}
"""Other figures: `learn` and `test`."""


def _family(name: str, args: Any) -> Figure:
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
        parameters=_parameters(report.folder),
        note=f"{len(windows)} unseen actions; epoch {report.best_epoch}, {report.metrics['top1']:.2f} where chosen",
    )


def _windows(world: World, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The window in the middle of each action, uint8 (n, t, h, w, 3), and its class."""
    catalog, reader = Catalog.of(world.videos), _reader()
    clips = read_activitynet(world.labels("actions"), catalog, AMBIGUOUS).clips
    out = []
    for clip in clips:
        first, last = sample_range(clip, grid, reader.info(clip.source).duration_s)
        frames, _ = reader.samples(clip.source, grid, first, last)
        out.append(windows_of(frames, grid.window, spread(0, last - first, grid.window, 1))[0])
    return np.stack(out), np.array([c.class_id for c in clips])


def _parameters(folder: str) -> int:
    recipe = find_recipe(folder, ModelSettings())
    return sum(p.numel() for p in load_network(recipe).parameters())


def _reader() -> Reader:
    return Reader(Source(), MediaLimits())


def _detector(name: str, args: Any) -> Figure:
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
    size = _parameters(report.folder)
    return Figure(name, "AP at IoU 0.5", ap50, DETECTOR, folder=report.folder, parameters=size, note=note)


def _ap50(folder: str, world: World) -> tuple[float, int]:
    model: Any = load_model(folder, settings=ModelSettings(kind="detector", device="cpu", batch_size=8))
    truth = read_coco(world.labels("boxes"), Catalog.of(world.videos))
    data = FrameData(truth.frames, _reader(), model.card.grid)
    frames, geometry = zip(*(data.read(i) for i in range(len(data))), strict=True)
    found = model.detect(np.stack(frames))
    boxes = geometry[0].to_upright(found.boxes).astype(float)
    results = [
        {"image_id": int(f) + 1, "category_id": int(c) + 1, "bbox": [*b[:2], b[2] - b[0], b[3] - b[1]], "score": s}
        for f, c, b, s in zip(found.frame, found.class_id, boxes, found.score.astype(float), strict=True)
    ]
    return coco_ap(to_coco(truth), results).summary["AP50"], len(frames)


def _few_shot(name: str, args: Any) -> Figure:
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
    size = _parameters(report.folder)
    return Figure(name, "accuracy", e.accuracy, FEW_SHOT, folder=report.folder, parameters=size, note=note)


def _pointing(name: str, args: Any) -> Figure:
    """Does the map of a trained network fall on the one who acts? (a quarter of a person's height of slack)"""
    test = worlds(args)["test"]
    recipe = find_recipe(str(args.out / "models" / "tcn"), ModelSettings())
    network, blind = load_network(recipe), randomise(recipe)
    truth = {v.name: v for v in Truth.load(test.labels("truth")).videos}
    clips = read_activitynet(test.labels("actions"), Catalog.of(test.videos), recipe.labels).clips
    reader = _reader()
    hits, chance = [], []
    for clip in clips:
        frames, boxes = _actor(clip, truth[Path(clip.source.uri).name], recipe.grid, reader)
        slack = float(np.mean([b[:, 3] - b[:, 1] for b in boxes if len(b)])) / 4
        hits.append(points_at(mirrored_grad_cam(network, frames, recipe.preprocessing, clip.class_id), boxes, slack))
        chance.append(points_at(mirrored_grad_cam(blind, frames, recipe.preprocessing, clip.class_id), boxes, slack))
    note = f"Grad-CAM of tcn, {len(hits)} actions; with random weights {np.mean(chance):.2f}"
    return Figure(name, "pointing game", float(np.mean(hits)), POINTING, note=note)


def _actor(clip: LabelledClip, video: VideoTruth, grid: Grid, reader: Reader) -> tuple[np.ndarray, list[np.ndarray]]:
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


def _rate(figure: Figure) -> str:
    """How much of its input a model sees in a second."""
    if not figure.folder:
        return ""
    kind: Any = "detector" if figure.name in DETECTORS else "actions"
    model: Any = load_model(figure.folder, settings=ModelSettings(kind=kind, device="cpu", batch_size=8))
    grid = model.card.grid
    frames = np.random.default_rng(0).integers(
        0, 255, (32, grid.window, grid.size.height, grid.size.width, 3), np.uint8
    )
    look = (lambda x: model.detect(x[:, 0])) if kind == "detector" else model.classify
    look(frames[:8])
    began = time.perf_counter()
    look(frames)
    return f"{len(frames) / (time.perf_counter() - began):.0f} {'frames' if grid.window == 1 else 'windows'}/s"


FIGURES: dict[str, Callable[[str, Any], Figure]] = {
    **dict.fromkeys(DETECTORS, _detector),
    **{name: _family for name in (*TRANSFORMERS, *ON_DEMAND, "slowfast", "gru", "lstm", "tcn", "mean", "frame")},
    "few-shot": _few_shot,
    "explain": _pointing,
}
"""In the order in which they begin: the long ones first, and last what asks a model of an earlier one."""

if __name__ == "__main__":
    sys.exit(main())
