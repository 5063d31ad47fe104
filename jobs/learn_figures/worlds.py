"""The drawn world as archives with label files beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2

from learn_figures.settings import DETECTORS, STUDIO, TRANSFORMERS
from vidproc.demo.acts import MORE_ACTIONS
from vidproc.demo.archive import write_video
from vidproc.demo.scene import Scene
from vidproc.demo.settings import HEIGHT, WIDTH, SceneSettings
from vidproc.demo.truth import LABELS, Truth, VideoTruth


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
