"""One stage alone, in bare processes that each have one core: what `end_to_end` is compared with.

python -m tests.benchmarks.alone decode ARCHIVE --model M --processes 2 --cores 0,1
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=["decode", "models"])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--fps", type=Fraction, default=Fraction(2))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--cores", required=True, help="one a process: 0,1")
    o = parser.parse_args()
    cores = [int(c) for c in o.cores.split(",")]
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(o.processes + 1), context.Queue()
    work = {"decode": decode, "models": models}[o.stage]
    workers = [
        context.Process(target=work, args=(o.archive, o.model, o.fps, n, o.processes, cores[n], barrier, answers))
        for n in range(o.processes)
    ]
    for worker in workers:
        worker.start()
    barrier.wait()
    began = time.perf_counter()
    found = [answers.get() for _ in workers]
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    print(json.dumps({"seconds": seconds, "frames": sum(f for f, _ in found), "decoded": sum(d for _, d in found)}))


def _tasks(archive: Path, grid: Any) -> list[Any]:
    from tests.support.media import video_of
    from vidproc.video.container import MediaLimits, Source
    from vidproc.video.plan import CutSettings, cut
    from vidproc.video.probe import probe

    infos = [probe(video_of(p), Source(), MediaLimits()) for p in sorted(archive.iterdir())]
    return [task for info in infos for task in cut(info, CutSettings(), [grid], "alone")]


def _settings(model: str, fps: Fraction) -> tuple[Any, Any]:
    from vidproc.models import ModelSettings, describe_model

    settings = ModelSettings(kind="detector", device="cpu", threads=1, fps=fps)
    return settings, describe_model(model, settings).grid


def decode(
    archive: Path, model: str, fps: Fraction, n: int, of: int, core: int, barrier: Any, answers: Any
) -> None:  # fmt: skip
    """Every n-th task, decoded by vidproc's own decoder and thrown away."""
    from vidproc.video.container import MediaLimits, Source
    from vidproc.video.decode import decode

    os.sched_setaffinity(0, {core})
    _, grid = _settings(model, fps)
    tasks = _tasks(archive, grid)[n::of]
    barrier.wait()
    reports = [decode(task, [grid], Source(), MediaLimits())[1] for task in tasks]
    answers.put((sum(r.frames_sampled for r in reports), sum(r.frames_decoded for r in reports)))


def models(
    archive: Path, model: str, fps: Fraction, n: int, of: int, core: int, barrier: Any, answers: Any
) -> None:  # fmt: skip
    """As many frames as there are in every n-th task: those of the first, again and again."""
    from vidproc.models import load_model
    from vidproc.video.container import MediaLimits, Source
    from vidproc.video.decode import decode

    os.sched_setaffinity(0, {core})
    settings, grid = _settings(model, fps)
    tasks = _tasks(archive, grid)
    (batch,), _ = decode(tasks[0], [grid], Source(), MediaLimits())
    frames = sum(round((t.bytes) / (3 * grid.size.height * grid.size.width)) for t in tasks[n::of])
    loaded: Any = load_model(model, device="cpu", settings=settings)
    loaded.detect(batch.pixels[:1])
    barrier.wait()
    done = 0
    while done < frames:
        pixels: np.ndarray = batch.pixels[: frames - done]
        loaded.detect(pixels)
        done += len(pixels)
    answers.put((done, 0))


if __name__ == "__main__":
    main()
