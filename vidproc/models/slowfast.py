"""SlowFast networks for video recognition (Feichtenhofer, Fan, Malik, He, ICCV 2019; arXiv 1812.03982).

Two ResNets look at one clip: Slow at few frames with many channels, Fast at all frames with an
eighth of the channels; after the stem and after each stage but the last, Fast is convolved over
time onto Slow's frames and joined to its channels. Names such as 8x8 are (slow frames) x (their
distance in frames at 30 frames/s).

Published for a clip of 32 frames at 256 x 256, one view, 400 classes: R50 4x16 34.48 M parameters
and 36.1 GFLOPs, R50 8x8 34.57 M and 65.7 GFLOPs (parameters: PyTorchVideo's model zoo; FLOPs: table 2 of
the paper, where a multiplication and its addition count as one). That zoo's table gives 65.71 for 8x8 too,
but 36.69 for 4x16, which its own module does not have: counted here, create_slowfast of PyTorchVideo
f3142bb has 36.10 and 65.71. With random weights put through the name map below, that module and this one
gave the same logits to 2e-7 for both variants, and all 662 tensors found their place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vidproc.errors import ConfigError
from vidproc.models.actions import TorchActions
from vidproc.models.families import load_actions, settings_from
from vidproc.models.recipe import Recipe
from vidproc.models.settings import ModelSettings
from vidproc.models.tensors import fill as fill_network

MAX_DEPTH = 200
"""Blocks of a stage. The deepest stage of ResNet-152 has 36."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowFastSettings:
    frames: int = 32
    """Frames of the clip, as the Fast pathway sees it; 15 a second for the published weights."""
    alpha: int = 4
    """Fast frames to one slow frame."""
    fusion_kernel: int = 7
    """Kernel of the lateral convolutions, in fast frames."""
    beta_inverse: int = 8
    """Slow channels to one fast channel."""
    fusion_ratio: int = 2
    """Channels that a lateral convolution gives out for each that it takes."""
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Residual blocks a stage; these are ResNet-50's."""
    width: int = 64
    """Channels of the slow stem."""
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if len(self.depths) != 4 or not all(0 < depth <= MAX_DEPTH for depth in self.depths):
            raise ConfigError(f"depths are four numbers of blocks from 1 to {MAX_DEPTH}, not {self.depths}")


SLOWFAST = {
    "slowfast_r50_4x16": SlowFastSettings(alpha=8, fusion_kernel=5),
    "slowfast_r50_8x8": SlowFastSettings(alpha=4, fusion_kernel=7),
}

# Pixels 0 to 1, then (x - mean) / std, as both published sets of weights were trained.
MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
_POOL = 7  # of the head: a training crop of 224 pixels leaves 7 x 7 cells


class Pathways(NamedTuple):
    slow: Tensor
    fast: Tensor


class Bottleneck(nn.Module):
    """1x1x1 (over time: t x 1x1), 1x3x3, 1x1x1 convolutions, each normalised, added to the input."""

    def __init__(self, taken: int, inner: int, given: int, *, time_kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_a = nn.Conv3d(taken, inner, (time_kernel, 1, 1), padding=(time_kernel // 2, 0, 0), bias=False)
        self.norm_a = nn.BatchNorm3d(inner)
        self.conv_b = nn.Conv3d(inner, inner, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False)
        self.norm_b = nn.BatchNorm3d(inner)
        self.conv_c = nn.Conv3d(inner, given, 1, bias=False)
        self.norm_c = nn.BatchNorm3d(given)
        self.shortcut: nn.Module | None = None
        if taken != given or stride != 1:
            conv = nn.Conv3d(taken, given, 1, stride=(1, stride, stride), bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm3d(given))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm_a(self.conv_a(x)))
        y = torch.relu(self.norm_b(self.conv_b(y)))
        y = self.norm_c(self.conv_c(y))
        return torch.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Stem(nn.Sequential):
    def __init__(self, channels: int, *, time_kernel: int) -> None:
        super().__init__()
        padding = (time_kernel // 2, 3, 3)
        self.conv = nn.Conv3d(3, channels, (time_kernel, 7, 7), stride=(1, 2, 2), padding=padding, bias=False)
        self.norm = nn.BatchNorm3d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))


class Lateral(nn.Module):
    """Fast (n, c, t, h, w) -> (n, fusion_ratio * c, t / alpha, h, w), joined to Slow's channels."""

    def __init__(self, channels: int, settings: SlowFastSettings) -> None:
        super().__init__()
        k, given = settings.fusion_kernel, channels * settings.fusion_ratio
        self.conv = nn.Conv3d(
            channels, given, (k, 1, 1), stride=(settings.alpha, 1, 1), padding=(k // 2, 0, 0), bias=False
        )
        self.norm = nn.BatchNorm3d(given)

    def forward(self, x: Pathways) -> Pathways:
        return Pathways(torch.cat([x.slow, torch.relu(self.norm(self.conv(x.fast)))], 1), x.fast)


class TwoPaths(nn.Module):
    """One stage (or the stem) of both pathways, and the lateral connection behind it, if any."""

    def __init__(self, slow: nn.Module, fast: nn.Module, lateral: Lateral | None) -> None:
        super().__init__()
        self.slow, self.fast, self.lateral = slow, fast, lateral

    def forward(self, x: Pathways) -> Pathways:
        x = Pathways(self.slow(x.slow), self.fast(x.fast))
        return x if self.lateral is None else self.lateral(x)


def _stage(depth: int, taken: int, inner: int, *, time_kernel: int, stride: int) -> nn.Sequential:
    given = inner * 4
    return nn.Sequential(
        *(
            Bottleneck(given if i else taken, inner, given, time_kernel=time_kernel, stride=1 if i else stride)
            for i in range(depth)
        )
    )


class SlowFast(nn.Module):
    """Normalised clips float (n, 3, frames, h, w) -> logits (n, classes)."""

    def __init__(self, classes: int, settings: SlowFastSettings = SLOWFAST["slowfast_r50_8x8"]) -> None:
        super().__init__()
        if settings.frames % settings.alpha:
            raise ConfigError(f"SlowFast: {settings.frames} frames are no multiple of alpha = {settings.alpha}")
        self.settings = settings
        b, w = settings.beta_inverse, settings.width
        stages: list[nn.Module] = [
            TwoPaths(Stem(w, time_kernel=1), Stem(w // b, time_kernel=5), Lateral(w // b, settings))
        ]
        taken = w
        for i, depth in enumerate(settings.depths):
            inner = w << i
            slow_in = taken + settings.fusion_ratio * (taken // b)
            last = i + 1 == len(settings.depths)
            stages.append(
                TwoPaths(
                    # Slow convolves over time only in the last two stages: earlier it hurts (paper, 3.3).
                    _stage(depth, slow_in, inner, time_kernel=3 if i >= 2 else 1, stride=2 if i else 1),
                    _stage(depth, taken // b, inner // b, time_kernel=3, stride=2 if i else 1),
                    None if last else Lateral(inner * 4 // b, settings),
                )
            )
            taken = inner * 4
        self.stages = nn.Sequential(*stages)
        self.features = taken + taken // b
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(self.features, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.norm_c.weight)  # each block begins as the identity (Goyal et al. 2017)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def pathways(self, clips: Tensor) -> Pathways:
        """Slow gets frames / alpha of the frames, from the first to the last, evenly, rounded down."""
        t = clips.shape[2]
        chosen = torch.linspace(0, t - 1, t // self.settings.alpha, device=clips.device).long()
        return Pathways(clips.index_select(2, chosen), clips)

    def embed(self, clips: Tensor) -> Tensor:
        """Clips (n, 3, frames, h, w) -> features (n, 2304): slow and fast, pooled over time, then over
        7 x 7 cells at every place where those fit, and averaged (as the published weights are tested)."""
        if clips.shape[2] % self.settings.alpha:
            raise ValueError(f"{clips.shape[2]} frames are no multiple of alpha = {self.settings.alpha}")
        x = self.stages(self.pathways(clips))
        pooled = []
        for path in (x.slow, x.fast):
            cells = path.mean(2)
            size = (min(_POOL, cells.shape[2]), min(_POOL, cells.shape[3]))
            pooled.append(nn.functional.avg_pool2d(cells, size, stride=1).mean((2, 3)))
        return torch.cat(pooled, 1)

    def forward(self, clips: Tensor) -> Tensor:
        return self.head(self.dropout(self.embed(clips)))  # type: ignore[no-any-return]


def load(recipe: Recipe, settings: ModelSettings) -> TorchActions:
    return load_actions(recipe, settings, build, fill)


def build(recipe: Recipe) -> SlowFast:
    """The network with random weights: `arch` is one of SLOWFAST, `args` fields over its settings."""
    if recipe.arch not in SLOWFAST:
        raise ConfigError(f"{recipe.name}: there is no SlowFast {recipe.arch!r}; there are {', '.join(SLOWFAST)}.")
    return SlowFast(len(recipe.labels), settings_from(SlowFastSettings, recipe, SLOWFAST[recipe.arch]))


def fill(network: SlowFast, state: Mapping[str, Tensor], path: Path) -> None:
    load_published(network, state, source=str(path))


_PYTORCHVIDEO: tuple[tuple[str, str], ...] = (
    (r"blocks\.(\d)\.multipathway_fusion\.conv_fast_to_slow\.", r"stages.\1.lateral.conv."),
    (r"blocks\.(\d)\.multipathway_fusion\.norm\.", r"stages.\1.lateral.norm."),
    (r"blocks\.0\.multipathway_blocks\.0\.", r"stages.0.slow."),
    (r"blocks\.0\.multipathway_blocks\.1\.", r"stages.0.fast."),
    (r"blocks\.(\d)\.multipathway_blocks\.0\.res_blocks\.(\d+)\.", r"stages.\1.slow.\2."),
    (r"blocks\.(\d)\.multipathway_blocks\.1\.res_blocks\.(\d+)\.", r"stages.\1.fast.\2."),
    (r"\.branch1_conv\.", ".shortcut.0."),
    (r"\.branch1_norm\.", ".shortcut.1."),
    (r"\.branch2\.", "."),
    (r"^blocks\.6\.proj\.", "head."),
)
_PYSLOWFAST: tuple[tuple[str, str], ...] = (
    (r"\.branch1_bn\.", ".shortcut.1."),
    (r"\.branch1\.", ".shortcut.0."),
    (r"\.branch2\.([abc])_bn\.", r".norm_\1."),
    (r"\.branch2\.([abc])\.", r".conv_\1."),
    (r"^s1\.pathway0_stem\.", "stages.0.slow."),
    (r"^s1\.pathway1_stem\.", "stages.0.fast."),
    (r"^head\.projection\.", "head."),
)
_PYSLOWFAST_STAGE = re.compile(r"^s([1-5])(?:_fuse|\.pathway([01])_res(\d+))\.")


def native_name(published: str) -> str:
    """The name that this module gives to a tensor which PyTorchVideo (`blocks.…`) or PySlowFast
    (`s1…s5`, `head.projection`) published; its own names come back as they are."""
    if published.startswith("blocks."):
        return _rename(published, _PYTORCHVIDEO)
    if re.match(r"s[1-5][._]|head\.projection\.", published):
        name = _rename(published, _PYSLOWFAST)
        if found := _PYSLOWFAST_STAGE.match(name):
            stage, path, block = int(found[1]) - 1, found[2], found[3]
            inside = "lateral" if path is None else f"{('slow', 'fast')[int(path)]}.{block}"
            name = f"stages.{stage}.{inside}.{name[found.end() :]}"
        return name.replace(".conv_f2s.", ".conv.").replace(".bn.", ".norm.")
    return published


def _rename(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def native_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict (or the `model_state` inside a checkpoint, unpacked by the caller) in
    this module's names. Nothing is checked here: `load_published` does."""
    return {native_name(name): tensor for name, tensor in published.items()}


def load_published(module: SlowFast, published: Mapping[str, Tensor], *, source: str) -> None:
    """Put published weights into `module`. `source` names them in errors. ConfigError where they are
    another architecture's: the first tensor that is missing, not ours, or of another shape."""
    state, own = native_state(published), module.state_dict()
    for name in own:
        if name not in state and not name.endswith("num_batches_tracked"):
            raise ConfigError(f"{source}: not a SlowFast checkpoint of this variant, it lacks {name}")
    for name, tensor in state.items():
        if name not in own:
            raise ConfigError(f"{source}: not a SlowFast checkpoint of this variant, {name} has no place in it")
        if tensor.shape != own[name].shape:
            shapes = f"{tuple(tensor.shape)} where this variant has {tuple(own[name].shape)}"
            raise ConfigError(f"{source}: another variant of SlowFast or class count, {name} is {shapes}")
    kept = {name: state.get(name, tensor) for name, tensor in own.items()}  # counters may be missing
    fill_network(module, kept, model="SlowFast", arch="SlowFast", path=Path(source))
