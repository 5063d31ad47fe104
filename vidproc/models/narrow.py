"""A torchvision network with fewer channels: the same layers, for small inputs and for machines without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torchvision.models.video.mvit import MSBlockConfig, MultiscaleBlock, MViT
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d
from torchvision.ops import StochasticDepth

KEPT = 3
"""Colours are no channels to be spared."""


def narrowed(network: nn.Module, factor: int) -> nn.Module:
    """Divides the channels of every layer by `factor`, but for the network's input and what its last layer puts
    out, the classes; each tensor keeps its first channels' weights, made larger as there are fewer to add up.
    Raises ValueError where the layers no longer fit."""

    if factor < 1:
        raise ValueError(f"channels can be divided by 1 or more, not by {factor}")

    def less(n: int) -> int:
        return n if n == KEPT else max(1, n // factor)

    last = [layer for layer in network.modules() if isinstance(layer, nn.Conv3d | nn.Linear)][-1]
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            made = _like(layer, less, int if layer is last else less)
            if made is not None:
                setattr(parent, name, _filled(made, layer))
    for module in network.modules():
        if isinstance(module, ShiftedWindowAttention3d):
            _waken(module)
    return network


AWAKE_BIAS, AWAKE_SHARPNESS = 1.0, 3.0
"""Standard deviation of the first position biases of Swin's attention, and factor of its first queries and keys. See
`_waken`."""
AWAKE_PLACES = 0.6
"""Standard deviation of MViT's first position vectors, in place of 0.02 and for the same reason. The weights of its
layers are then twice as large as the wide network's. On the same 256 windows it came to a loss of 0.78 in 200 steps;
with 0.3 to 1.07, and with 0.3 and half of those weights to 1.39."""


def _waken(attention: ShiftedWindowAttention3d) -> None:
    """By itself it begins as an even mean over its window (0.999 of the largest entropy), blind to the order of frames,
    which hours of training overcome and minutes do not. Of four actions in two pairs, each the other played backwards,
    Swin3D knew 0.42 after 2,500 steps so, and 0.80 after 3,100 where places count from the start. On 64 windows again
    and again it came to a loss of 0.10 in 400 steps; to 0.06 with such a bias, and to 0.002 with sharper queries and
    keys too."""
    nn.init.normal_(attention.relative_position_bias_table, std=AWAKE_BIAS)
    queries_and_keys = attention.qkv.weight.data[: 2 * attention.qkv.out_features // 3]
    queries_and_keys *= AWAKE_SHARPNESS


def with_stochastic_depth(network: nn.Module, most: float) -> nn.Module:
    """Blocks are left out at random in training, from none of the first to `most` of the last (Huang et al. 2016), as
    torchvision's MViT takes it, but its Swin3D has it built in. Raises ValueError where there are no such blocks."""
    blocks = [m for m in network.modules() if isinstance(m, StochasticDepth)]
    if not blocks or not 0 <= most < 1:
        raise ValueError(f"no stochastic depth of {most} in {len(blocks)} blocks")
    for i, block in enumerate(blocks):
        block.p = most * i / max(1, len(blocks) - 1)
    return network


def mvit(
    builder: Callable[..., MViT],
    *,
    narrow: int = 1,
    temporal_size: int = 16,
    spatial_size: Any = (224, 224),
    **args: Any,
) -> MViT:
    """MViT of a builder's blocks with a `narrow`th of their channels, for clips of another size: what it learns
    of places and times has their shape, and its heads have one width, so that it cannot be cut afterwards."""
    blocks: list[MSBlockConfig] = []
    common: dict[str, Any] = {}

    def noted(cnf: MSBlockConfig, input_size: list[int], **same: Any) -> nn.Module:
        blocks.append(cnf)
        common.update(same)  # the last one's depth is the whole network's
        block: nn.Module = MultiscaleBlock(input_size, cnf, **same)
        return block

    published = builder(weights=None, block=noted, **args)
    size = (temporal_size, *spatial_size)
    if narrow == 1 and size == (16, 224, 224):
        return published
    if narrow < 1:
        raise ValueError(f"channels can be divided by 1 or more, not by {narrow}")
    cut = [
        replace(b, input_channels=b.input_channels // narrow, output_channels=b.output_channels // narrow)
        for b in blocks
    ]
    if any(n % b.num_heads for b in cut for n in (b.input_channels, b.output_channels)):
        raise ValueError(f"a {narrow}th of the channels cannot be shared out among the heads")
    network = MViT(
        tuple(spatial_size),
        temporal_size,
        cut,
        **args | {k: v for k, v in common.items() if k not in ("dropout", "norm_layer")},
    )
    for layer in network.blocks.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data *= narrow
    if narrow > 1:
        for name, parameter in network.named_parameters():
            if "rel_pos" in name:
                nn.init.normal_(parameter, std=AWAKE_PLACES)
    return network


class PoolWhatIsThere(nn.AvgPool3d):
    """S3D's last pooling, no larger than what a small clip leaves of itself; the published one on its own clips."""

    def __init__(self, published: nn.AvgPool3d) -> None:
        super().__init__(published.kernel_size, published.stride)

    def forward(self, maps: Tensor) -> Tensor:
        most: Any = self.kernel_size
        kernel = [min(k, n) for k, n in zip(most, maps.shape[2:], strict=True)]
        return nn.functional.avg_pool3d(maps, kernel, self.stride)


def _like(layer: nn.Module, less: Callable[[int], int], out: Callable[[int], int]) -> nn.Module | None:
    bias = getattr(layer, "bias", None) is not None
    if isinstance(layer, nn.Conv3d):
        if layer.groups != 1:
            raise ValueError("channels in groups cannot be divided")
        shape: Any = {k: getattr(layer, k) for k in ("kernel_size", "stride", "padding")}
        return nn.Conv3d(less(layer.in_channels), out(layer.out_channels), bias=bias, **shape)
    if isinstance(layer, nn.BatchNorm3d):
        return nn.BatchNorm3d(less(layer.num_features), layer.eps, layer.momentum)
    if isinstance(layer, nn.LayerNorm):
        return nn.LayerNorm([less(n) for n in layer.normalized_shape], layer.eps)
    if isinstance(layer, nn.Linear):
        return nn.Linear(less(layer.in_features), out(layer.out_features), bias=bias)
    return None


def _filled(made: nn.Module, wide: nn.Module) -> nn.Module:
    first = {k: v[tuple(slice(n) for n in v_made.shape)].clone() for (k, v), v_made in _pairs(wide, made)}
    if first["weight"].ndim > 1:
        # The variance of random weights is one over how many are added up; as small as the wide layer's, a step moves
        # them too far. On 64 windows again and again R3D came to a loss of 0.59 so (52 steps; 0.67 in 80 of
        # shorter windows), and to 0.04 with these (76 steps).
        first["weight"] *= (wide.get_parameter("weight")[0].numel() / first["weight"][0].numel()) ** 0.5
    made.load_state_dict(first, assign=True)
    return made


def _pairs(wide: nn.Module, made: nn.Module) -> Any:
    return zip(wide.state_dict().items(), made.state_dict().values(), strict=True)
