"""The embedded pair: a small detector and a small action model, trained on the synthetic world.

Both are plain convolutional networks of under a million parameters, made to be quick on one CPU core. The detector
finds objects as peaks of a heat map (Zhou et al. 2019, "Objects as Points") with the distances from the peak to
the four sides of the box (Tian et al. 2019, "FCOS"). The action model is a frame-wise network whose layers look
one frame back and forth in between (Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions").
`jobs/train_demo_models.py` makes the weights; they lie in the package, so no network is needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vidproc.annotations import Detections
from vidproc.errors import ConfigError
from vidproc.media import FrameSize, Grid, content_hash
from vidproc.models.base import ModelCard
from vidproc.models.device import Batches, pick_device, to_device, use_threads
from vidproc.models.settings import ModelSettings

Kind = Literal["detector", "actions"]

STRIDE = 4
"""Pixels of the frame per cell of the detector's maps."""
DETECTOR_GRID = Grid(fps=Fraction(5), size=FrameSize(mode="letterbox", height=192, width=256, interpolation="area"))
ACTIONS_GRID = Grid(
    fps=Fraction(8),
    size=FrameSize(mode="letterbox", height=96, width=128, interpolation="area"),
    window=8,
    stride=4,
)
SCORE_THRESHOLD = 0.2
"""Least score of the detector, unless the job says otherwise: low enough for the tracker to keep half-hidden things."""
NMS_IOU = 0.7
"""Peaks that lie side by side in one object; people who overlap more than this are seldom told apart anyway."""


class _Conv(nn.Sequential):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
        )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _Conv(channels, channels), _Conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.second(self.first(x)))


class DetectorNet(nn.Module):
    """float (n, 3, h, w) from 0 to 255, h and w multiples of 32 -> logits of the heat maps (n, classes, h/4, w/4) and
    distances to left, top, right and bottom in pixels (n, 4, h/4, w/4)."""

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        self.width = c = width
        self.stem = nn.Sequential(_Conv(3, c // 2, 2), _Conv(c // 2, c, 2), _Residual(c))
        self.down8 = nn.Sequential(_Conv(c, 2 * c, 2), _Residual(2 * c))
        self.down16 = nn.Sequential(_Conv(2 * c, 3 * c, 2), _Residual(3 * c))
        self.down32 = nn.Sequential(_Conv(3 * c, 4 * c, 2), _Residual(4 * c))
        self.from32, self.from16, self.from8 = _Conv(4 * c, 3 * c, kernel=1), _Conv(3 * c, 2 * c), _Conv(2 * c, c)
        self.head = nn.Sequential(_Conv(c, 2 * c), _Conv(2 * c, 2 * c, kernel=1))
        self.heat = nn.Conv2d(2 * c, classes, 1)
        self.sides = nn.Conv2d(2 * c, 4, 1)
        # Objects are rare: start from a score of 1 % everywhere, or the first steps are lost on the background.
        nn.init.constant_(self.heat.bias, -4.6)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x4 = self.stem((images - 114.0) / 64.0)
        x8 = self.down8(x4)
        x16 = self.down16(x8)
        x = self.from32(self.down32(x16))
        x = self.from16(x16 + nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = self.from8(x8 + nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = self.head(x4 + nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.heat(x), (self.sides(x).clamp(-4, 4) + 1.5).exp() * STRIDE


class _Mix(nn.Module):
    """Each frame's features with those of the frame before and after: a residual convolution over time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before, self.now, self.after = (nn.Conv2d(channels, channels, 1, bias=False) for _ in range(3))
        self.mixed = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        windows = (-1, frames, *x.shape[1:])
        mixed = self.now(x).view(windows)
        # The first frame has none before it and the last none after it.
        mixed[:, 1:] += self.before(x).view(windows)[:, :-1]
        mixed[:, :-1] += self.after(x).view(windows)[:, 1:]
        return cast(Tensor, x + self.mixed(mixed.flatten(0, 1)))


class ActionNet(nn.Module):
    """float (n, t, 3, h, w) from 0 to 255 -> logits (n, classes + 1); the last is "none of these"."""

    def __init__(self, classes: int, width: int = 24) -> None:
        super().__init__()
        self.width = c = width
        # The first layer sees each frame and, by weights of its own, the mean of the window.
        self.see = nn.Conv2d(3, c // 2, 3, 2, 1, bias=False)
        self.see_mean = nn.Conv2d(3, c // 2, 3, 2, 1, bias=False)
        self.seen = nn.Sequential(nn.BatchNorm2d(c // 2), nn.ReLU(inplace=True))
        self.down4 = _Conv(c // 2, c, 2)
        self.mix4, self.down8 = _Mix(c), nn.Sequential(_Conv(c, 2 * c, 2), _Residual(2 * c))
        self.mix8, self.down16 = _Mix(2 * c), nn.Sequential(_Conv(2 * c, 4 * c, 2), _Residual(4 * c))
        self.mix16 = _Mix(4 * c)
        self.squeeze = nn.Sequential(nn.Linear(8 * c, 4 * c), nn.ReLU(inplace=True))
        self.over_time = nn.Sequential(nn.Conv1d(4 * c, 4 * c, 3, padding=1), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.2)
        self.answer = nn.Linear(8 * c, classes + 1)
        with torch.no_grad():
            # Half of the first features begin as differences from the mean: whoever moves stands out at once.
            self.see_mean.weight.zero_()[: c // 4] -= self.see.weight[: c // 4]
            self.see.weight[: c // 4] *= 2
            self.see_mean.weight[: c // 4] *= 2

    def frames(self, windows: Tensor) -> Tensor:
        """(n, t, 4 * width): what is known of each frame, in the light of its neighbours."""
        n, t = windows.shape[:2]
        x = ((windows.flatten(0, 1) - 114.0) / 64.0).contiguous(memory_format=torch.channels_last)
        mean = x.view(n, t, *x.shape[1:]).mean(1).contiguous(memory_format=torch.channels_last)
        x = self.see(x)
        x = (x.view(n, t, *x.shape[1:]) + self.see_mean(mean)[:, None]).flatten(0, 1)
        x = self.down4(self.seen(x.contiguous(memory_format=torch.channels_last)))
        x = self.down8(self.mix4(x, t))
        x = self.down16(self.mix8(x, t))
        x = self.mix16(x, t)
        return cast(Tensor, self.squeeze(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)).view(n, t, -1))

    def features(self, frames: Tensor) -> Tensor:
        """(n, 8 * width): what is known of the window, and all that the last layer sees."""
        x = self.over_time(frames.transpose(1, 2))
        return torch.cat([x.mean(2), x.amax(2)], 1)

    def answer_of(self, frames: Tensor) -> Tensor:
        return cast(Tensor, self.answer(self.drop(self.features(frames))))

    def forward(self, windows: Tensor) -> Tensor:
        return self.answer_of(self.frames(windows))


def fused(network: nn.Module) -> nn.Module:
    """The network in inference form: each batch normalisation folded into its convolution, the rest as it was."""
    network.eval()
    for module in list(network.modules()):
        if isinstance(module, _Conv):
            module[0] = fuse_conv_bn_eval(cast(nn.Conv2d, module[0]), cast(nn.BatchNorm2d, module[1]))
            module[1] = nn.Identity()
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


def find_peaks(heat: Tensor, sides: Tensor, threshold: float, most: int = 100) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Scores (n, classes, h, w) and distances (n, 4, h, w) -> per frame boxes (m, 4), scores (m,) and classes (m,),
    best first: the cells that no neighbour of their class exceeds."""
    from torchvision.ops import batched_nms

    peaks = heat * (heat == nn.functional.max_pool2d(heat, 3, 1, 1))
    n, _, h, w = heat.shape
    out = []
    for i in range(n):
        kind, row, column = torch.nonzero(peaks[i] >= threshold, as_tuple=True)
        score = peaks[i, kind, row, column]
        x, y = (column + 0.5) * STRIDE, (row + 0.5) * STRIDE
        left, top, right, bottom = sides[i, :, row, column]
        boxes = torch.stack([x - left, y - top, x + right, y + bottom], 1)
        boxes[:, 0::2] = boxes[:, 0::2].clamp(0, w * STRIDE)
        boxes[:, 1::2] = boxes[:, 1::2].clamp(0, h * STRIDE)
        keep = batched_nms(boxes, score, kind, NMS_IOU)[:most]
        out.append((boxes[keep], score[keep], kind[keep]))
    return out


@dataclass(frozen=True, slots=True)
class _Packed:
    """One model as it lies in the package."""

    description: dict[str, Any]
    weights: bytes


@cache
def _packed(kind: Kind) -> _Packed:
    folder = resources.files("vidproc.models") / "demo"
    try:
        weights = (folder / f"{kind}.safetensors").read_bytes()
        description = json.loads((folder / f"{kind}.json").read_text())
    except FileNotFoundError as e:
        raise ConfigError(
            f"The embedded {kind} has no weights in this installation ({e.filename}): reinstall vidproc, or make them "
            "with jobs/train_demo_models.py."
        ) from e
    if sha256(weights).hexdigest() != description["sha256"]:
        raise ConfigError(
            f"The embedded {kind}'s weights are not the ones that its description names: reinstall vidproc."
        )
    return _Packed(description, weights)


def describe(kind: Kind, settings: ModelSettings | None = None) -> ModelCard:
    """The card that `load` would give. Raises ConfigError where the settings ask for what the model cannot do."""
    settings = settings or ModelSettings()
    description = _packed(kind).description
    name = description["name"]
    if settings.kind is not None and settings.kind != kind:
        raise ConfigError(f"{name} is of kind {kind}, but it was given as {settings.kind}.")
    if settings.weights is not None or settings.options:
        raise ConfigError(f"{name} brings its own weights and description: name a model folder to use others.")
    grid = DETECTOR_GRID if kind == "detector" else ACTIONS_GRID
    if settings.window not in (None, grid.window):
        raise ConfigError(f"{name} takes windows of exactly {grid.window} frames, not {settings.window}.")
    if kind == "detector" and settings.stride not in (None, 1):
        raise ConfigError(f"{name} is a detector: it sees single frames and has no stride.")
    size = grid.size
    if settings.size is not None:
        height, width = settings.size
        if height % 32 or width % 32:
            raise ConfigError(f"{name} takes frames whose sides are multiples of 32, not {height} x {width}.")
        size = replace(size, height=height, width=width)
    return ModelCard(
        name=name,
        kind=kind,
        labels=tuple(description["labels"]),
        grid=Grid(
            fps=settings.fps or grid.fps,
            size=size,
            window=grid.window,
            stride=settings.stride or grid.stride,
            keyframes_only=settings.keyframes_only,
        ),
        licence="Apache-2.0",
        weights_uri=f"package:vidproc/models/demo/{kind}.safetensors",
        weights_sha256=description["sha256"],
        definition=content_hash(kind, *(str(v) for v in _answers(kind, settings))),
    )


def _answers(kind: Kind, settings: ModelSettings) -> tuple[float, ...]:
    """What decides the answer beside weights, grid and code."""
    return (_threshold(settings), NMS_IOU, settings.max_detections) if kind == "detector" else ()


def _threshold(settings: ModelSettings) -> float:
    return SCORE_THRESHOLD if settings.score_threshold is None else settings.score_threshold


def load(kind: Kind, device: str = "auto", settings: ModelSettings | None = None) -> TinyDetector | TinyActions:
    """The embedded model of that kind on a device, ready to use. Raises ConfigError as `describe` does."""
    settings = settings or ModelSettings()
    if device != "auto":
        settings = replace(settings, device=device)
    card = describe(kind, settings)
    target = pick_device(settings.device)
    use_threads(settings)
    network = fused(load_network(kind)).to(target)
    if kind == "detector":
        return TinyDetector(card, cast(DetectorNet, network), target, settings)
    return TinyActions(card, cast(ActionNet, network), target, settings)


def load_network(kind: Kind) -> nn.Module:
    """The embedded network as it was trained, on the CPU: what few-shot learning and explanation start from."""
    from safetensors.torch import load as parse

    packed = _packed(kind)
    make = DetectorNet if kind == "detector" else ActionNet
    network = make(len(packed.description["labels"]), packed.description["width"])
    network.load_state_dict({k: v.float() for k, v in parse(packed.weights).items()})
    return network.eval()


class TinyDetector:
    """The embedded detector on a device."""

    card: ModelCard

    def __init__(self, card: ModelCard, network: DetectorNet, device: torch.device, settings: ModelSettings) -> None:
        self.card = card
        self._network, self._device = network, device
        self._threshold = _threshold(settings)
        self._most = settings.max_detections
        self._batches = Batches(settings.batch_size or (128 if device.type == "cuda" else 8))

    def detect(self, frames: np.ndarray) -> Detections:
        """uint8 (n, h, w, 3) RGB, sized as the card's grid asks -> boxes in pixels of those frames."""
        parts = []
        for start, found in self._batches.run(frames, self._infer):
            for i, (boxes, score, kind) in enumerate(found):
                m = len(score)
                parts.append(Detections(np.full(m, start + i, np.int64), boxes, score, kind.astype(np.int64)))
        return Detections.concatenate(parts)

    def _infer(self, frames: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        with torch.inference_mode():
            images = to_device(frames, self._device).permute(0, 3, 1, 2).float()
            heat, sides = self._network(images)
            found = find_peaks(heat.sigmoid(), sides, self._threshold, self._most)
            return [(b.cpu().numpy(), s.cpu().numpy(), k.cpu().numpy()) for b, s, k in found]


class TinyActions:
    """The embedded action model on a device."""

    card: ModelCard

    def __init__(self, card: ModelCard, network: ActionNet, device: torch.device, settings: ModelSettings) -> None:
        self.card = card
        self._network, self._device = network, device
        self._batches = Batches(settings.batch_size or (64 if device.type == "cuda" else 4))

    def classify(self, windows: np.ndarray) -> np.ndarray:
        """uint8 (n, t, h, w, 3) RGB -> float32 (n, classes): probabilities, which with that of "none of these" add
        up to 1."""
        if len(windows) == 0:
            return np.zeros((0, len(self.card.labels)), np.float32)
        return np.concatenate([scores for _, scores in self._batches.run(windows, self._infer)])

    def _infer(self, windows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels = to_device(windows, self._device).permute(0, 1, 4, 2, 3).float()
            scores = self._network(pixels).softmax(1)[:, :-1]
            return cast(np.ndarray, scores.cpu().numpy())
