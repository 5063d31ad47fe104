"""SlowFast: the published size and cost, and the published names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vidproc.errors import ConfigError
from vidproc.models.slowfast import SLOWFAST, SlowFast, SlowFastSettings, load_published, native_state

TINY = SlowFastSettings(frames=8, alpha=4, width=16, depths=(1, 1, 1, 1))


# Parameters: PyTorchVideo's model zoo. GFLOPs (multiply-adds): table 2 of the paper; PyTorchVideo
# counts 65.71 for 8x8 too, and 36.69 for 4x16, whose weights fit the same module as ours.
@pytest.mark.parametrize(
    ("name", "parameters_m", "gflops"), [("slowfast_r50_4x16", 34.48, 36.1), ("slowfast_r50_8x8", 34.57, 65.7)]
)
def test_parameters_and_flops_equal_the_published(name: str, parameters_m: float, gflops: float) -> None:
    with torch.device("meta"):
        module = SlowFast(400, SLOWFAST[name]).eval()
        with FlopCounterMode(display=False) as counter:
            module(torch.zeros(1, 3, 32, 256, 256))
    assert sum(p.numel() for p in module.parameters()) / 1e6 == pytest.approx(parameters_m, abs=0.005)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gflops, abs=0.05)


# What the two model zoos hold for a tensor each of every kind of R50 8x8 with 400 classes:
# (PyTorchVideo's name, PySlowFast's name, shape).
PUBLISHED = [
    ("blocks.0.multipathway_blocks.0.conv.weight", "s1.pathway0_stem.conv.weight", (64, 3, 1, 7, 7)),
    ("blocks.0.multipathway_blocks.1.conv.weight", "s1.pathway1_stem.conv.weight", (8, 3, 5, 7, 7)),
    ("blocks.0.multipathway_blocks.0.norm.running_var", "s1.pathway0_stem.bn.running_var", (64,)),
    ("blocks.0.multipathway_fusion.conv_fast_to_slow.weight", "s1_fuse.conv_f2s.weight", (16, 8, 7, 1, 1)),
    ("blocks.0.multipathway_fusion.norm.bias", "s1_fuse.bn.bias", (16,)),
    (
        "blocks.1.multipathway_blocks.0.res_blocks.0.branch1_conv.weight",
        "s2.pathway0_res0.branch1.weight",
        (256, 80, 1, 1, 1),
    ),
    (
        "blocks.1.multipathway_blocks.1.res_blocks.0.branch1_norm.weight",
        "s2.pathway1_res0.branch1_bn.weight",
        (32,),
    ),
    (
        "blocks.1.multipathway_blocks.1.res_blocks.0.branch2.conv_c.weight",
        "s2.pathway1_res0.branch2.c.weight",
        (32, 8, 1, 1, 1),
    ),
    (
        "blocks.3.multipathway_blocks.1.res_blocks.5.branch2.norm_a.running_mean",
        "s4.pathway1_res5.branch2.a_bn.running_mean",
        (32,),
    ),
    (
        "blocks.3.multipathway_fusion.conv_fast_to_slow.weight",
        "s4_fuse.conv_f2s.weight",
        (256, 128, 7, 1, 1),
    ),
    (
        "blocks.4.multipathway_blocks.0.res_blocks.0.branch2.conv_a.weight",
        "s5.pathway0_res0.branch2.a.weight",
        (512, 1280, 3, 1, 1),
    ),
    (
        "blocks.4.multipathway_blocks.0.res_blocks.0.branch2.conv_b.weight",
        "s5.pathway0_res0.branch2.b.weight",
        (512, 512, 1, 3, 3),
    ),
    ("blocks.6.proj.weight", "head.projection.weight", (400, 2304)),
    ("blocks.6.proj.bias", "head.projection.bias", (400,)),
]


@pytest.mark.parametrize("zoo", [0, 1], ids=["pytorchvideo", "pyslowfast"])
def test_published_names_and_shapes_find_their_place(zoo: int) -> None:
    with torch.device("meta"):
        own = SlowFast(400).state_dict()
    for row in PUBLISHED:
        (name,) = native_state({row[zoo]: torch.zeros(0)})
        assert tuple(own[name].shape) == row[2], row[zoo]


def whole_zoo_state(zoo: str, module: SlowFast) -> dict[str, Tensor]:
    """All tensors of `module` under the names of a zoo, put together from how the zoo builds its
    names (nested blocks), not from our map."""
    out: dict[str, Tensor] = {}
    own = module.state_dict()

    def put(name: str, ours: str) -> None:
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            if f"{ours}.{part}" in own:
                out[f"{name}.{part}"] = own[f"{ours}.{part}"]

    ptv = zoo == "pytorchvideo"
    for stage in range(5):
        if stage < 4:
            fuse = f"blocks.{stage}.multipathway_fusion" if ptv else f"s{stage + 1}_fuse"
            put(fuse + (".conv_fast_to_slow" if ptv else ".conv_f2s"), f"stages.{stage}.lateral.conv")
            put(fuse + (".norm" if ptv else ".bn"), f"stages.{stage}.lateral.norm")
        for p, path in enumerate(("slow", "fast")):
            if stage == 0:
                stem = f"blocks.0.multipathway_blocks.{p}" if ptv else f"s1.pathway{p}_stem"
                put(stem + ".conv", f"stages.0.{path}.conv")
                put(stem + (".norm" if ptv else ".bn"), f"stages.0.{path}.norm")
                continue
            for block in range(module.settings.depths[stage - 1]):
                there = f"blocks.{stage}.multipathway_blocks.{p}.res_blocks.{block}"
                there = there if ptv else f"s{stage + 1}.pathway{p}_res{block}"
                here = f"stages.{stage}.{path}.{block}"
                put(there + (".branch1_conv" if ptv else ".branch1"), here + ".shortcut.0")
                put(there + (".branch1_norm" if ptv else ".branch1_bn"), here + ".shortcut.1")
                for letter in "abc":
                    put(f"{there}.branch2.{'conv_' if ptv else ''}{letter}", f"{here}.conv_{letter}")
                    put(
                        there + (f".branch2.norm_{letter}" if ptv else f".branch2.{letter}_bn"), f"{here}.norm_{letter}"
                    )
    put("blocks.6.proj" if ptv else "head.projection", "head")
    return out


@pytest.mark.parametrize("zoo", ["pytorchvideo", "pyslowfast"])
def test_a_whole_published_checkpoint_gives_the_same_model(zoo: str) -> None:
    torch.manual_seed(0)
    theirs, ours = SlowFast(5, TINY).eval(), SlowFast(5, TINY).eval()
    published = whole_zoo_state(zoo, theirs)
    assert len(published) == len(theirs.state_dict())
    clips = torch.randn(1, 3, 8, 64, 64)
    assert not torch.allclose(theirs(clips), ours(clips))
    load_published(ours, published, source="SLOWFAST.pyth")
    torch.testing.assert_close(theirs(clips), ours(clips), rtol=0, atol=0)


def test_a_checkpoint_of_another_architecture_fails_with_its_name_and_the_tensor() -> None:
    module = SlowFast(5, TINY)
    published = whole_zoo_state("pyslowfast", module)
    with pytest.raises(ConfigError, match=r"r3d.pth: .* lacks stages\.0\.slow\.conv\.weight"):
        load_published(module, {"layer1.0.conv1.0.weight": torch.zeros(3)}, source="r3d.pth")
    with pytest.raises(ConfigError, match=r"x.pyth: .*head\.weight is \(7, 576\) where this variant has \(5, 576\)"):
        load_published(module, published | {"head.projection.weight": torch.zeros(7, 576)}, source="x.pyth")
    with pytest.raises(ConfigError, match=r"x.pyth: .*s9\.odd has no place"):
        load_published(module, published | {"s9.odd": torch.zeros(1)}, source="x.pyth")


def test_slow_sees_first_and_last_frame_and_alpha_must_divide() -> None:
    module = SlowFast(2, TINY)
    clips = torch.arange(8.0).reshape(1, 1, 8, 1, 1).expand(1, 3, 8, 1, 1)
    assert module.pathways(clips).slow[0, 0, :, 0, 0].tolist() == [0, 7]
    with pytest.raises(ConfigError, match="no multiple of alpha"):
        SlowFast(2, SlowFastSettings(frames=30, alpha=4))
    with pytest.raises(ValueError, match="no multiple of alpha"):
        module.embed(torch.zeros(1, 3, 7, 32, 32))


def test_it_learns_from_both_pathways() -> None:
    module = SlowFast(2, TINY)
    # Each block begins as the identity, so gradients reach the inner convolutions after one step only.
    nonzero_heads = [p for n, p in module.named_parameters() if n.endswith("norm_c.weight")]
    for p in nonzero_heads:
        torch.nn.init.ones_(p)
    module(torch.randn(2, 3, 8, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
