"""The pointing game: does the map of a trained network fall on the one who acts?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from learn_figures.figure import Figure
from learn_figures.reading import open_reader
from learn_figures.settings import POINTING
from learn_figures.worlds import worlds
from vidproc.demo.truth import Truth, VideoTruth
from vidproc.learn.data.clips import sample_range, windows_of
from vidproc.learn.data.reader import Reader
from vidproc.learn.explain.checks import points_at, randomise
from vidproc.learn.explain.gradcam import mirrored_grad_cam
from vidproc.learn.labels.actions import read_activitynet
from vidproc.learn.labels.catalog import Catalog
from vidproc.learn.labels.values import LabelledClip
from vidproc.media import Grid
from vidproc.models.families import load_network
from vidproc.models.registry import find_recipe
from vidproc.models.settings import ModelSettings


def pointing_figure(name: str, args: Any) -> Figure:
    """Does the map of a trained network fall on the one who acts? (a quarter of a person's height of slack)"""
    test = worlds(args)["test"]
    recipe = find_recipe(str(args.out / "models" / "tcn"), ModelSettings())
    network, blind = load_network(recipe), randomise(recipe)
    truth = {v.name: v for v in Truth.load(test.labels("truth")).videos}
    clips = read_activitynet(test.labels("actions"), Catalog.of(test.videos), recipe.labels).clips
    reader = open_reader()
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
