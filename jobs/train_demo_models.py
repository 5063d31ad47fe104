"""Trains the two embedded models on the synthetic world and writes them where the package finds them.

    python jobs/train_demo_models.py                     both, as released: under 20 minutes on 2 cores
    python jobs/train_demo_models.py --out DIR --seed 1  elsewhere, from another seed

The two are trained side by side, each by one thread: nothing waits for a slower neighbour, and the same seed gives
the same weights on the same kind of machine, bit for bit. Where the processor multiplies 16-bit matrices (AMX), the
convolutions use that, which halves the time. The figures that it prints and keeps in the description beside the
weights are of scenes that were never trained on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from demo_models.actions import action_batches, action_loss, validate_actions
from demo_models.detector import detector_batches, detector_loss, validate_detector
from demo_models.drawing import action_orders, detector_orders, draw_frames, draw_windows
from demo_models.fitting import fit
from demo_models.settings import TrainSettings, first_scene
from safetensors.torch import save
from torch import nn

from vidproc.demo.acts import ACTIONS
from vidproc.demo.settings import VALIDATION_SEED
from vidproc.demo.truth import LABELS
from vidproc.models.tiny import (
    ActionNet,
    DetectorNet,
    fused,
)
from vidproc.text import say

HERE = Path(__file__).resolve().parent.parent / "vidproc" / "models" / "demo"


def write(out: Path, kind: str, network: nn.Module, description: dict[str, Any]) -> None:
    """float16 halves the file; the network computes in float32 again when it is loaded."""
    state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in network.state_dict().items()}
    packed = save(state)
    (out / f"{kind}.safetensors").write_bytes(packed)
    card = {"name": f"demo-{kind}", **description, "bytes": len(packed), "sha256": sha256(packed).hexdigest()}
    (out / f"{kind}.json").write_text(json.dumps(card, indent=2) + "\n")
    say(f"{out / kind}.safetensors: {len(packed) / 1e6:.2f} MB, sha256 {card['sha256'][:16]}")


def train(kind: str, settings: TrainSettings, out: Path) -> dict[str, float]:
    started, cpu = time.perf_counter(), time.process_time()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(settings.seed)
    first = first_scene(settings.seed)
    if kind == "detector":
        shown = [s for part in map(draw_frames, detector_orders(first, settings.detector_scenes, 5)) for s in part]
        say(f"detector: {len(shown)} frames drawn in {time.perf_counter() - started:.0f} s")
        network: nn.Module = DetectorNet(len(LABELS))
        network = fit(kind, network, detector_batches(shown, settings), detector_loss, settings.detector_steps, 2e-3)
        orders = detector_orders(VALIDATION_SEED, settings.validation_scenes, 5)
        unseen = [s for part in map(draw_frames, orders) for s in part]
        half_and_back(network)
        metrics = validate_detector(fused(deepcopy(network)), unseen)
        labels: tuple[str, ...] = LABELS
    else:
        played = list(map(draw_windows, action_orders(first + 10_000, settings.action_scenes)))
        say(f"actions: {len(played)} scenes drawn in {time.perf_counter() - started:.0f} s")
        network = ActionNet(len(ACTIONS))
        network = fit(kind, network, action_batches(played, settings), action_loss, settings.action_steps, 2.5e-3)
        still = list(map(draw_windows, action_orders(VALIDATION_SEED + 10_000, settings.validation_scenes)))
        half_and_back(network)
        metrics = validate_actions(fused(deepcopy(network)), still)
        labels = ACTIONS
    say(f"{kind} {json.dumps({k: round(v, 4) for k, v in metrics.items()})}")
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    say(f"{kind}: {seconds:.0f} s, {cpu_seconds:.0f} of them computing")
    write(
        out,
        kind,
        network,
        {
            "labels": labels,
            "width": network.width,
            "license": "Apache-2.0",
            "trained_by": "jobs/train_demo_models.py",
            "data": "vidproc.demo, drawn",
            "seed": settings.seed,
            "steps": settings.detector_steps if kind == "detector" else settings.action_steps,
            "metrics": {k: round(v, 4) for k, v in metrics.items()},
        },
    )
    return metrics


def half_and_back(network: nn.Module) -> None:
    """Validation sees the weights as they are written."""
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half().float())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for weights and descriptions")
    parser.add_argument("--seed", type=int, default=0, help="0 to 49: others would draw scenes kept for validation")
    parser.add_argument("--only", choices=("detector", "actions"), help="train just one of the two")
    parser.add_argument("--steps-scale", type=float, default=1.0, help="fewer scenes and steps, to try things out")
    given = parser.parse_args(arguments)
    if not 0 <= given.seed < 50:
        parser.error("the seed must be from 0 to 49")
    settings = TrainSettings(seed=given.seed).scaled(given.steps_scale)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.only:
        train(given.only, settings, given.out)
        return
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(train, kind, settings, given.out) for kind in ("detector", "actions")]:
            done.result()


if __name__ == "__main__":
    main()
