"""Archives of drawn videos, with their truth."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from vidproc.demo.scene import Scene
from vidproc.demo.settings import DEMO_SEED, Kind, SceneSettings
from vidproc.demo.shapes import Image
from vidproc.demo.truth import Truth, VideoTruth

_CAMERAS: dict[Kind, tuple[str, ...]] = {"street": ("gate-north", "market-street"), "activity": ("hall-1", "studio")}
RECORDED_PATTERN: Final = "%Y-%m-%d_%H-%M-%S"
"""When a drawn video was recorded, UTC, as its name says it (without folder and ending)."""


@dataclass(frozen=True, slots=True)
class _Order:
    """One video to draw."""

    name: str
    path: str
    seed: int
    kind: Kind
    settings: SceneSettings
    gop: int
    b_frames: int
    recorded_at: datetime


def draw_archive(
    folder: Path,
    n_videos: int = 12,
    seed: int = DEMO_SEED,
    *,
    settings: SceneSettings | None = None,
    workers: int = 1,
) -> Truth:
    """Draw H.264 MP4 files and `truth.json` into `folder`; street and activity scenes by turns.

    Frame rates, groups of pictures and B-frames vary from file to file. The truth is returned as well.
    """
    base = settings or SceneSettings()
    orders = list(_orders(folder, n_videos, seed, base, vary_fps=settings is None))
    for order in orders:
        Path(order.path).parent.mkdir(parents=True, exist_ok=True)
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            truth = Truth(tuple(pool.map(_draw, orders)))
    else:
        truth = Truth(tuple(_draw(order) for order in orders))
    truth.save(folder / "truth.json")
    return truth


def _orders(folder: Path, n: int, seed: int, base: SceneSettings, *, vary_fps: bool) -> Iterator[_Order]:
    rng = np.random.default_rng(seed)
    start = datetime(2025, 3, 3, 6, 0, tzinfo=UTC)
    for i in range(n):
        kind: Kind = "street" if i % 2 == 0 else "activity"
        camera = _CAMERAS[kind][(i // 2) % 2]
        at = start + timedelta(minutes=97 * i, seconds=int(rng.integers(60)))
        name = f"{camera}/{at.strftime(RECORDED_PATTERN)}.mp4"
        fps = Fraction(int(rng.choice((15, 20, 24, 25)))) if vary_fps else base.fps
        gop, b_frames = int(rng.choice((12, 30, 60, 125))), int(rng.choice((0, 2, 3)))
        yield _Order(name, str(folder / name), seed + i, kind, replace(base, fps=fps), gop, b_frames, at)


def _draw(order: _Order) -> VideoTruth:
    cv2.setNumThreads(1)
    scene = Scene.generate(order.seed, order.settings, kind=order.kind)
    write_video(
        Path(order.path),
        (scene.frame(i) for i in range(scene.frame_count)),
        fps=order.settings.fps,
        gop=order.gop,
        b_frames=order.b_frames,
        recorded_at=order.recorded_at,
    )
    return scene.truth(order.name)


def write_video(
    path: Path,
    frames: Iterator[Image],
    *,
    fps: Fraction,
    gop: int = 30,
    b_frames: int = 2,
    recorded_at: datetime | None = None,
    crf: int = 21,
) -> None:
    """Encode uint8 (h, w, 3) RGB frames as H.264 in MP4; frame i is shown at exactly i / fps."""
    import av

    with av.open(str(path), "w") as out:
        if recorded_at is not None:
            out.metadata["creation_time"] = recorded_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        stream = out.add_stream("libx264", rate=fps)
        # One thread: the same bytes in every run.
        stream.options = {"crf": str(crf), "preset": "veryfast", "g": str(gop), "bf": str(b_frames), "threads": "1"}
        stream.pix_fmt = "yuv420p"
        for i, pixels in enumerate(frames):
            if i == 0:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, 1 / fps
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
