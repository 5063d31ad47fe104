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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from vidproc.demo.acts import ACTIONS
from vidproc.demo.scene import Scene
from vidproc.demo.score import AveragePrecision, Found, label_of_window
from vidproc.demo.settings import HEIGHT, TRAIN_SEEDS, VALIDATION_SEED, WIDTH, Kind, SceneSettings
from vidproc.demo.truth import LABELS, Box
from vidproc.models.tiny import (
    ACTIONS_GRID,
    DETECTOR_GRID,
    STRIDE,
    ActionNet,
    DetectorNet,
    find_peaks,
    fused,
)
from vidproc.text import say

HERE = Path(__file__).resolve().parent.parent / "vidproc" / "models" / "demo"


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    seed: int = 0
    detector_scenes: int = 900
    """A third of them activity scenes; five frames of each."""
    detector_steps: int = 1300
    detector_batch: int = 24
    action_scenes: int = 700
    action_steps: int = 1800
    action_batch: int = 24
    validation_scenes: int = 60

    def scaled(self, factor: float) -> TrainSettings:
        def few(n: int) -> int:
            return max(2, round(n * factor))

        return TrainSettings(
            seed=self.seed,
            detector_scenes=few(self.detector_scenes),
            detector_steps=few(self.detector_steps),
            action_scenes=few(self.action_scenes),
            action_steps=few(self.action_steps),
            validation_scenes=few(self.validation_scenes),
        )


# --- drawing -------------------------------------------------------------------------------------------------------

# Frames are kept as JPEG: a tenth of the memory, and traces of compression such as video has.


@dataclass(frozen=True, slots=True)
class Shown:
    jpeg: bytes
    boxes: tuple[Box, ...]

    def pixels(self) -> np.ndarray:
        return np.asarray(cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR))


@dataclass(frozen=True, slots=True)
class Played:
    """A scene at the action model's rate and size."""

    jpegs: tuple[bytes, ...]
    labels: tuple[str | None, ...]
    """Of the window that begins with that frame; None: not clear."""

    def window(self, start: int) -> np.ndarray:
        n = ACTIONS_GRID.window
        return np.stack(
            [cv2.imdecode(np.frombuffer(j, np.uint8), cv2.IMREAD_COLOR) for j in self.jpegs[start : start + n]]
        )


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def draw_frames(order: tuple[int, Kind, int]) -> list[Shown]:
    """A few moments of one scene, at its own size."""
    cv2.setNumThreads(1)
    seed, kind, count = order
    scene = Scene.generate(seed, kind=kind)
    rng = np.random.default_rng((seed, 7))
    times = np.sort(rng.uniform(0, scene.settings.seconds, count))
    return [Shown(_jpeg(scene.picture(t), int(rng.integers(70, 97))), scene.boxes_at(t)) for t in times]


def draw_windows(order: tuple[int, Kind]) -> Played:
    cv2.setNumThreads(1)
    seed, kind = order
    scene = Scene.generate(seed, SceneSettings(seconds=9.0), kind=kind)
    rng = np.random.default_rng((seed, 8))
    grid, size = ACTIONS_GRID, (ACTIONS_GRID.size.width, ACTIONS_GRID.size.height)
    fps, offset = float(grid.fps), float(rng.uniform(0, 1 / grid.fps))
    quality = int(rng.integers(80, 97))
    jpegs, labels = [], []
    truth = scene.truth("", boxes=False)
    for k in range(int(scene.settings.seconds * fps)):
        t = k / fps + offset
        small = cv2.resize(scene.picture(t), size, interpolation=cv2.INTER_AREA)
        jpegs.append(_jpeg(small, quality))
        labels.append("" if kind == "street" else label_of_window(truth, t, t + grid.window / fps))
    return Played(tuple(jpegs), tuple(labels[: len(jpegs) - grid.window + 1]))


def detector_orders(first: int, scenes: int, frames: int) -> list[tuple[int, Kind, int]]:
    return [(first + i, "activity" if i % 3 == 2 else "street", frames) for i in range(scenes)]


def action_orders(first: int, scenes: int) -> list[tuple[int, Kind]]:
    return [(first + i, "street" if i % 8 == 7 else "activity") for i in range(scenes)]


# --- training ------------------------------------------------------------------------------------------------------


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm-up over the first 5 %, then half a cosine down to zero."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return float(0.5 * peak * (1 + np.cos(np.pi * (step - warm) / max(1, steps - warm))))


def fit(
    name: str,
    network: nn.Module,
    batches: Iterator[tuple[Tensor, Any]],
    loss_of: Callable[[Any, Any], Tensor],
    steps: int,
    peak: float,
) -> nn.Module:
    """AdamW with a cosine schedule; gives back the running average of the weights."""
    fast = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(network).requires_grad_(False)
    decay, plain = [], []
    for p in network.parameters():
        (decay if p.ndim > 1 else plain).append(p)
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}])
    network.train()
    started, seen = time.perf_counter(), 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        inputs, targets = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            outputs = network(inputs)
        loss = loss_of(outputs, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        keep = min(0.995, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - keep)
                else:
                    mean.copy_(now)
        seen = float(loss.detach()) if step == 0 else 0.98 * seen + 0.02 * float(loss.detach())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            say(f"{name} step {step + 1}/{steps} loss {seen:.4f} {time.perf_counter() - started:.0f} s")
    return average.eval()


def coloured(images: np.ndarray, rng: np.random.Generator, groups: int) -> np.ndarray:
    """(n, h, w, 3) uint8 -> float32: brightness, contrast and tint changed alike for each of `groups` equal parts."""
    out = images.astype(np.float32).reshape(groups, -1, *images.shape[1:])
    gain = rng.uniform(0.75, 1.25, (groups, 1, 1, 1, 1)) * rng.uniform(0.92, 1.08, (groups, 1, 1, 1, 3))
    shift = rng.uniform(-20, 20, (groups, 1, 1, 1, 1))
    out = (out - 114) * gain.astype(np.float32) + (114 + shift).astype(np.float32)
    out += rng.normal(0, 1, out.shape[1:]).astype(np.float32) * rng.uniform(0, 4, (groups, 1, 1, 1, 1)).astype(
        np.float32
    )
    return np.clip(out, 0, 255).reshape(images.shape)


def framed(rng: np.random.Generator, out_h: int, out_w: int, spread: float) -> np.ndarray:
    """A random 2 x 3 map from the scene to the model's frame: a little closer or farther, moved, maybe mirrored.

    One time in five the picture is made to leave a part of the frame empty on the right or below, as letterboxing
    of another aspect does.
    """
    sx, sy = out_w / WIDTH, out_h / HEIGHT
    if rng.random() < 0.2:
        squeeze = rng.uniform(0.7, 1.0)
        sx, sy = sx * squeeze, sy * squeeze
        dx = dy = 0.0
    else:
        zoom = np.exp(rng.uniform(-spread, spread))
        sx, sy = sx * zoom, sy * zoom
        dx, dy = ((o - s * i) * rng.random() for o, s, i in ((out_w, sx, WIDTH), (out_h, sy, HEIGHT)))
    if rng.random() < 0.5:
        return np.array([[-sx, 0, dx + sx * (WIDTH - 1)], [0, sy, dy]])
    return np.array([[sx, 0, dx], [0, sy, dy]])


def detector_batches(shown: Sequence[Shown], settings: TrainSettings) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    rng = np.random.default_rng((settings.seed, 1))
    h, w = DETECTOR_GRID.size.height, DETECTOR_GRID.size.width
    # People and cars are everywhere: frames with something else come more often.
    often = np.array([1.0 + 1.5 * any(b.label in ("bus", "bicycle", "dog") for b in s.boxes) for s in shown])
    often /= often.sum()
    while True:
        images, targets = [], []
        for i in rng.choice(len(shown), settings.detector_batch, p=often):
            move = framed(rng, h, w, 0.22)
            # A smoothed copy first, as when a decoder scales by areas.
            pixels = cv2.GaussianBlur(shown[i].pixels(), (3, 3), float(rng.uniform(0.45, 0.7)))
            images.append(cv2.warpAffine(pixels, move, (w, h), flags=cv2.INTER_LINEAR, borderValue=(114, 114, 114)))
            targets.append(maps(shown[i].boxes, move, h, w))
        pixels = coloured(np.stack(images), rng, len(images))
        inputs = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
        yield inputs, tuple(torch.from_numpy(np.stack(t)) for t in zip(*targets, strict=True))


def maps(boxes: Iterable[Box], move: np.ndarray, h: int, w: int) -> tuple[np.ndarray, ...]:
    """What the network should say of one frame: heat (classes, h/4, w/4), the weight of each heat (same shape), boxes
    (4, h/4, w/4) in pixels and their weight (h/4, w/4)."""
    rows, columns = h // STRIDE, w // STRIDE
    heat, care = np.zeros((len(LABELS), rows, columns), np.float32), np.ones((len(LABELS), rows, columns), np.float32)
    sides, weight = np.zeros((4, rows, columns), np.float32), np.zeros((rows, columns), np.float32)
    y, x = (np.arange(rows) + 0.5) * STRIDE, (np.arange(columns) + 0.5) * STRIDE
    for b in sorted(boxes, key=lambda b: -(b.x_max - b.x_min) * (b.y_max - b.y_min)):
        # The map is of pixel centres, boxes are of pixel edges: half a pixel there, half of the scaled one back.
        (ax, _, dx), (_, ay, dy) = move
        x0, x1 = sorted(ax * (v - 0.5) + dx + 0.5 for v in (b.x_min, b.x_max))
        y0, y1 = (ay * (v - 0.5) + dy + 0.5 for v in (b.y_min, b.y_max))
        left, right = max(x0, 0.0), min(x1, float(w))
        top, bottom = max(y0, 0.0), min(y1, float(h))
        if right - left < 1 or bottom - top < 1:
            continue
        shown = (right - left) * (bottom - top) / ((x1 - x0) * (y1 - y0))
        kind = LABELS.index(b.label)
        cx, cy = (left + right) / 2, (top + bottom) / 2
        if b.difficult or b.visible * shown < 0.35:
            inside = (x[None] >= left) & (x[None] <= right) & (y[:, None] >= top) & (y[:, None] <= bottom)
            care[kind][inside & (heat[kind] < 1)] = 0
            continue
        sx, sy = max((right - left) / 9, 0.55 * STRIDE), max((bottom - top) / 9, 0.55 * STRIDE)
        bump = np.exp(-(((x - cx) / sx) ** 2)[None] / 2 - (((y - cy) / sy) ** 2)[:, None] / 2).astype(np.float32)
        row, column = min(int(cy / STRIDE), rows - 1), min(int(cx / STRIDE), columns - 1)
        bump[row, column] = 1
        heat[kind] = np.maximum(heat[kind], bump)
        care[kind][bump > 0.1] = 1
        near = bump > 0.45
        weight[near] = bump[near]
        for i, value in enumerate((left, top, right, bottom)):
            sides[i][near] = value
    return heat, care, sides, weight


def detector_loss(outputs: tuple[Tensor, Tensor], targets: tuple[Tensor, ...]) -> Tensor:
    heat, care, sides, weight = targets
    logits, distance = (o.float() for o in outputs)
    # Penalty-reduced focal loss of "Objects as Points".
    score, log_yes, log_no = logits.sigmoid(), nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)
    peak = heat >= 1
    loss = torch.where(peak, -((1 - score) ** 2) * log_yes, -((1 - heat) ** 4) * score**2 * log_no) * care
    focal = loss.sum() / peak.sum().clamp(min=1)
    # Generalised IoU (Rezatofighi et al. 2019) of the boxes of cells near a peak.
    rows, columns = heat.shape[2:]
    x = ((torch.arange(columns) + 0.5) * STRIDE).view(1, 1, -1)
    y = ((torch.arange(rows) + 0.5) * STRIDE).view(1, -1, 1)
    le, to, ri, bo = x - distance[:, 0], y - distance[:, 1], x + distance[:, 2], y + distance[:, 3]
    tl, tt, tr, tb = sides.unbind(1)
    wide = (torch.minimum(ri, tr) - torch.maximum(le, tl)).clamp(min=0)
    high = (torch.minimum(bo, tb) - torch.maximum(to, tt)).clamp(min=0)
    inter = wide * high
    union = (ri - le) * (bo - to) + (tr - tl) * (tb - tt) - inter
    round_ = (torch.maximum(ri, tr) - torch.minimum(le, tl)) * (torch.maximum(bo, tb) - torch.minimum(to, tt))
    giou = inter / union.clamp(min=1e-6) - (round_ - union) / round_.clamp(min=1e-6)
    boxes = ((1 - giou) * weight).sum() / weight.sum().clamp(min=1)
    return focal + 2.0 * boxes


def action_batches(played: Sequence[Played], settings: TrainSettings) -> Iterator[tuple[Tensor, Tensor]]:
    """Classes alike, "none of these" included, but those without motion more often: a pose is all that tells them."""
    rng = np.random.default_rng((settings.seed, 2))
    names = (*ACTIONS, "")
    where: dict[str, list[tuple[int, int]]] = {label: [] for label in names}
    for i, p in enumerate(played):
        for k, label in enumerate(p.labels):
            if label is not None:
                where[label].append((i, k))
    present = [label for label in names if where[label]]
    often = np.array([{"stand": 2.5, "sit": 2.0}.get(label, 1.0) for label in present])
    often /= often.sum()
    h, w = ACTIONS_GRID.size.height, ACTIONS_GRID.size.width
    while True:
        windows, labels = [], []
        for _ in range(settings.action_batch):
            label = present[int(rng.choice(len(present), p=often))]
            i, k = where[label][int(rng.integers(len(where[label])))]
            frames = played[i].window(k)
            zoom = float(np.exp(rng.uniform(-0.12, 0.18)))
            dx, dy = ((1 - zoom) * s / 2 + rng.uniform(-0.08, 0.08) * s for s in (w, h))
            move = np.array([[zoom, 0, dx], [0, zoom, dy]])
            frames = np.stack(
                [
                    cv2.warpAffine(f, move, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                    for f in frames
                ]
            )
            # Left and right mean nothing to these actions.
            windows.append(frames[:, :, ::-1] if rng.random() < 0.5 else frames)
            labels.append(names.index(label))
        flat = coloured(np.concatenate(windows), rng, len(windows))
        pixels = torch.from_numpy(flat).view(len(windows), -1, h, w, 3).permute(0, 1, 4, 2, 3)
        yield pixels, torch.tensor(labels)


def action_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.float(), labels, label_smoothing=0.03)


# --- validation ----------------------------------------------------------------------------------------------------


def validate_detector(network: nn.Module, shown: Sequence[Shown]) -> dict[str, float]:
    """AP at IoU 0.5 by label, and their mean, on whole frames."""
    average = AveragePrecision()
    h, w = DETECTOR_GRID.size.height, DETECTOR_GRID.size.width
    scale = np.array([WIDTH / w, HEIGHT / h] * 2)
    with torch.inference_mode():
        for s in shown:
            small = cv2.resize(s.pixels(), (w, h), interpolation=cv2.INTER_AREA)
            heat, sides = network(torch.from_numpy(small).permute(2, 0, 1)[None].float())
            boxes, score, kind = find_peaks(heat.sigmoid(), sides, 0.05)[0]
            found = [
                Found(LABELS[int(k)], float(p), b.numpy() * scale) for b, p, k in zip(boxes, score, kind, strict=True)
            ]
            average.add(s.boxes, found)
    by_label = average.by_label()
    return {"map50": float(np.mean(list(by_label.values()))), **{f"ap50_{k}": v for k, v in by_label.items()}}


def validate_actions(network: nn.Module, played: Sequence[Played]) -> dict[str, float]:
    """Top-1 over the windows of the grid, and by label; `none` is how often street scenes give no sure action."""
    right: dict[str, list[bool]] = {}
    none: list[bool] = []
    with torch.inference_mode():
        for p in played:
            starts = [k for k in range(0, len(p.labels), ACTIONS_GRID.stride) if p.labels[k] is not None]
            for k in starts:
                pixels = torch.from_numpy(p.window(k)).permute(0, 3, 1, 2)[None].float()
                scores = network(pixels).softmax(1)[0, :-1]
                label = str(p.labels[k])
                if label:
                    right.setdefault(label, []).append(ACTIONS[int(scores.argmax())] == label)
                else:
                    none.append(float(scores.max()) < 0.5)
    every = [r for rs in right.values() for r in rs]
    out = {"top1": float(np.mean(every)), **{f"top1_{k}": float(np.mean(v)) for k, v in sorted(right.items())}}
    return out | ({"none": float(np.mean(none))} if none else {})


def first_scene(seed: int) -> int:
    """Each seed learns from 20,000 scenes of its own: the lower half for the detector, the upper for actions."""
    return TRAIN_SEEDS.start + seed * 20_000


# --- all of it -----------------------------------------------------------------------------------------------------


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
