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
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import torch
from learn_figures.actions import action_figure, few_shot_figure
from learn_figures.detectors import detector_figure
from learn_figures.explanations import pointing_figure
from learn_figures.figure import HEADING, Figure
from learn_figures.reading import measure_speed
from learn_figures.settings import (
    BLIND,
    DETECTORS,
    LONG,
    MARGIN,
    ON_DEMAND,
    SEEING,
    TEST_SEED,
    TRAIN_SEED,
    TRANSFORMERS,
)
from learn_figures.worlds import NEEDS, worlds

from vidproc.text import say


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
    figures = [
        replace(f, rate=measure_speed(f)) for f in sorted(figures, key=lambda f: [*FIGURES, "margin"].index(f.name))
    ]
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


FIGURES: dict[str, Callable[[str, Any], Figure]] = {
    **dict.fromkeys(DETECTORS, detector_figure),
    **{name: action_figure for name in (*TRANSFORMERS, *ON_DEMAND, "slowfast", "gru", "lstm", "tcn", "mean", "frame")},
    "few-shot": few_shot_figure,
    "explain": pointing_figure,
}
"""In the order in which they begin: the long ones first, and last what asks a model of an earlier one."""


if __name__ == "__main__":
    sys.exit(main())
