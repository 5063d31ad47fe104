"""Frames first, then time: a CNN for each frame, and an LSTM, a GRU, a TCN or a plain mean over them.

Every head is causal: its output at frame t depends on frames 0 ... t alone. So there are two equal
forms: windowed (`forward`, all frames at once) and streaming (`Stream`, one frame at a time with the
state kept). They agree for a window that begins where the stream began; a TCN, whose memory ends,
also agrees on any later window of at least `receptive_field` frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vidproc.errors import ConfigError
from vidproc.models.actions import TorchActions
from vidproc.models.families import load_actions, settings_from
from vidproc.models.recipe import Recipe
from vidproc.models.settings import ModelSettings

# Of ImageNet, as torchvision's backbones were trained; pixels 0 to 1, then (x - mean) / std.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

MAX_WIDTH, MAX_LAYERS, MAX_KERNEL = 1 << 16, 64, 1024
"""Beyond what anybody trains. A description that asks for more would exhaust who reads it."""

HeadName = Literal["lstm", "gru", "tcn", "mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalSettings:
    head: HeadName = "gru"
    backbone: str = "tiny"
    """`tiny`, or any torchvision classification model that ends in a linear layer."""
    hidden: int = 64
    """Width of the recurrent state, or channels of the TCN."""
    layers: int = 1
    """Recurrent layers, or residual blocks of the TCN (dilations 1, 2, 4, ...)."""
    kernel: int = 3
    """Kernel of the TCN, in frames."""
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if min(self.hidden, self.layers) < 1 or self.kernel < 2 or not 0 <= self.dropout < 1:
            raise ConfigError(f"hidden and layers from 1, kernel from 2, dropout from 0 to below 1: {self}")
        if self.hidden > MAX_WIDTH or self.layers > MAX_LAYERS or self.kernel > MAX_KERNEL:
            raise ConfigError(
                f"hidden up to {MAX_WIDTH:,}, layers up to {MAX_LAYERS}, kernel up to {MAX_KERNEL:,} frames: {self}"
            )
        if self.head not in ("lstm", "gru", "tcn", "mean"):
            raise ConfigError(f"unknown head {self.head!r}: choose lstm, gru, tcn or mean")


class TinyEncoder(nn.Sequential):
    """A small CNN that keeps where things are: frames (n, 3, h, w) -> (n, 64). Made for CPUs.

    Pooled to 4 x 4 cells, not to one: which way a thing moves is told by where it is in each frame.
    """

    features = 64

    def __init__(self) -> None:
        channels = (3, 16, 32, 48, 64)
        layers: list[nn.Module] = []
        for taken, given in pairwise(channels):
            layers += [nn.Conv2d(taken, given, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(given), nn.ReLU()]
        cells = 4
        layers += [nn.AdaptiveAvgPool2d(cells), nn.Flatten()]
        layers += [nn.Linear(channels[-1] * cells**2, self.features), nn.ReLU()]
        super().__init__(*layers)


class TorchvisionEncoder(nn.Module):
    """A torchvision classification model without its last linear layer: (n, 3, h, w) -> (n, features)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision import models

        if name not in models.list_models(models):
            raise ConfigError(
                f"unknown backbone {name!r}: `tiny`, or a torchvision classification model (resnet18, ...)"
            )
        self.body = models.get_model(name, weights=None)
        last = [path for path, module in self.body.named_modules() if isinstance(module, nn.Linear)]
        if not last or name.startswith(("inception", "googlenet", "squeezenet")):
            raise ConfigError(f"backbone {name!r} does not end in one linear layer; choose another (resnet18, ...)")
        parent, _, leaf = last[-1].rpartition(".")
        self.features = cast(nn.Linear, self.body.get_submodule(last[-1])).in_features
        setattr(self.body.get_submodule(parent), leaf, nn.Identity())

    def forward(self, frames: Tensor) -> Tensor:
        return self.body(frames)  # type: ignore[no-any-return]


def build_encoder(name: str) -> TinyEncoder | TorchvisionEncoder:
    return TinyEncoder() if name == "tiny" else TorchvisionEncoder(name)


class Head(Protocol):
    out: nn.Linear

    def __call__(self, features: Tensor) -> Tensor:
        """Features (n, t, f) of frames in order -> logits (n, t, classes) after each frame."""

    def hidden(self, features: Tensor) -> Tensor:
        """Features (n, t, f) -> what the last layer, `out`, reads (n, t, out.in_features)."""

    def step(self, features: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Features (n, f) of the next frame and the state (None before the first) -> logits
        (n, classes) and the state to give with the frame after it."""


class RecurrentHead(nn.Module):
    """LSTM (Hochreiter and Schmidhuber 1997) or GRU (Cho et al. 2014), one direction."""

    def __init__(self, cell: Literal["lstm", "gru"], features: int, classes: int, settings: TemporalSettings) -> None:
        super().__init__()
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        between = settings.dropout if settings.layers > 1 else 0.0
        self.cell = kind(features, settings.hidden, settings.layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(settings.dropout)
        self.out = nn.Linear(settings.hidden, classes)

    def hidden(self, features: Tensor) -> Tensor:
        return self.cell(features)[0]  # type: ignore[no-any-return]

    def forward(self, features: Tensor) -> Tensor:
        return self.out(self.dropout(self.hidden(features)))  # type: ignore[no-any-return]

    def step(self, features: Tensor, state: Any) -> tuple[Tensor, Any]:
        out, state = self.cell(features[:, None], state)
        return self.out(self.dropout(out[:, 0])), state


class CausalConv(nn.Module):
    """A dilated convolution over time that sees its own and earlier moments: (n, c, t) -> (n, d, t)."""

    def __init__(self, taken: int, given: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv1d(taken, given, kernel, dilation=dilation))
        self.past = (kernel - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pad(x, (self.past, 0)))  # type: ignore[no-any-return]

    def step(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (n, c), and the last `past` inputs (n, c, past): zeros before the first, as padded above."""
        if state is None:
            state = x.new_zeros(*x.shape, self.past)
        seen = torch.cat([state, x[..., None]], -1)
        return self.conv(seen)[..., 0], seen[..., 1:]


class TcnBlock(nn.Module):
    """Two causal convolutions of one dilation, added to the input (Bai, Kolter and Koltun 2018, figure 1)."""

    def __init__(self, taken: int, given: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.first = CausalConv(taken, given, kernel, dilation)
        self.second = CausalConv(given, given, kernel, dilation)
        self.shortcut = nn.Conv1d(taken, given, 1) if taken != given else None
        self.dropout = nn.Dropout(dropout)

    def _join(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.relu(y + (x if self.shortcut is None else self.shortcut(x)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(torch.relu(self.first(x)))
        return self._join(x, self.dropout(torch.relu(self.second(y))))

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        first, second = state or (None, None)
        y, first = self.first.step(x, first)
        y, second = self.second.step(self.dropout(torch.relu(y)), second)
        y = self.dropout(torch.relu(y))
        return self._join(x[..., None], y[..., None])[..., 0], (first, second)


class TcnHead(nn.Module):
    """Temporal convolutional network (Bai et al. 2018, arXiv 1803.01271): blocks of dilation 1, 2, 4, ..."""

    def __init__(self, features: int, classes: int, settings: TemporalSettings) -> None:
        super().__init__()
        width, kernel = settings.hidden, settings.kernel
        self.blocks = nn.ModuleList(
            TcnBlock(width if i else features, width, kernel, 1 << i, settings.dropout) for i in range(settings.layers)
        )
        self.out = nn.Linear(width, classes)
        self.receptive_field = receptive_field(kernel, settings.layers)

    def hidden(self, features: Tensor) -> Tensor:
        x = features.transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return x.transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(self.hidden(features))  # type: ignore[no-any-return]

    def step(self, features: Tensor, state: Any) -> tuple[Tensor, Any]:
        x, kept = features, []
        for block, before in zip(self.blocks, state or [None] * len(self.blocks), strict=True):
            x, after = cast(TcnBlock, block).step(x, before)
            kept.append(after)
        return self.out(x), kept


def receptive_field(kernel: int, blocks: int) -> int:
    """Frames that a TCN's output depends on: 1 + 2 (kernel - 1) (2^blocks - 1), for two convolutions
    a block and dilations 1, 2, 4, ..."""
    return 1 + 2 * (kernel - 1) * ((1 << blocks) - 1)


class MeanHead(nn.Module):
    """The mean of the frames so far: blind to their order. What one frame can tell, and the baseline
    that a temporal model must beat."""

    def __init__(self, features: int, classes: int, settings: TemporalSettings) -> None:
        super().__init__()
        self.dropout = nn.Dropout(settings.dropout)
        self.out = nn.Linear(features, classes)

    def hidden(self, features: Tensor) -> Tensor:
        count = torch.arange(1, features.shape[1] + 1, device=features.device)[:, None]
        return features.cumsum(1) / count

    def forward(self, features: Tensor) -> Tensor:
        return self.out(self.dropout(self.hidden(features)))  # type: ignore[no-any-return]

    def step(self, features: Tensor, state: Any) -> tuple[Tensor, Any]:
        total, count = state or (torch.zeros_like(features), 0)
        total, count = total + features, count + 1
        return self.out(self.dropout(total / count)), (total, count)


def load(recipe: Recipe, settings: ModelSettings) -> TorchActions:
    return load_actions(recipe, settings, build)


def build(recipe: Recipe) -> TemporalClassifier:
    """The network with random weights; `args` are the fields of TemporalSettings."""
    return TemporalClassifier(len(recipe.labels), settings_from(TemporalSettings, recipe))


class TemporalClassifier(nn.Module):
    """Normalised clips float (n, 3, t, h, w) -> logits (n, classes): the head's after the last frame."""

    def __init__(self, classes: int, settings: TemporalSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = build_encoder(settings.backbone)
        f = self.encoder.features
        self.head: nn.Module
        if settings.head == "tcn":
            self.head = TcnHead(f, classes, settings)
        elif settings.head == "mean":
            self.head = MeanHead(f, classes, settings)
        else:
            self.head = RecurrentHead(settings.head, f, classes, settings)

    def encode(self, clips: Tensor) -> Tensor:
        """Clips (n, 3, t, h, w) -> features of the frames (n, t, f)."""
        n, _, t = clips.shape[:3]
        return self.encoder(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (n, t))  # type: ignore[no-any-return]

    def embed(self, clips: Tensor) -> Tensor:
        """Clips -> (n, d): what the head remembers after the last frame, beside the mean of the frames'
        features (which is all that the mean head remembers)."""
        features = self.encode(clips)
        last = cast(Head, self.head).hidden(features)[:, -1]
        return last if self.settings.head == "mean" else torch.cat([features.mean(1), last], 1)

    def every_frame(self, clips: Tensor) -> Tensor:
        """Clips -> logits (n, t, classes) after each frame."""
        return self.head(self.encode(clips))  # type: ignore[no-any-return]

    def forward(self, clips: Tensor) -> Tensor:
        return self.every_frame(clips)[:, -1]


class Stream:
    """A temporal classifier online: one frame in, the logits so far out; the memory does not grow."""

    def __init__(self, module: TemporalClassifier) -> None:
        self._module = module.eval()
        self._state: Any = None

    @torch.inference_mode()
    def push(self, frames: Tensor) -> Tensor:
        """The next frame of n streams, normalised (n, 3, h, w) -> logits (n, classes)."""
        head = cast(Head, self._module.head)
        logits, self._state = head.step(self._module.encoder(frames), self._state)
        return logits
