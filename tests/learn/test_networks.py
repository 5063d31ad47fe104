"""The networks that can be trained: every builder takes the classes of the job, and its input as the grid gives it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import StochasticDepth

from vidproc.errors import ConfigError
from vidproc.learn.networks import (
    TEMPORAL,
    NetworkSettings,
    begin_from,
    check_input,
    class_tensors,
    network_for,
    prepare_for_training,
    recipe_for,
    set_training,
)
from vidproc.models.families import build_network
from vidproc.models.slowfast import SLOWFAST
from vidproc.models.torchvision_recipes import torchvision_names

LABELS = ("a", "b", "c")
VIDEO = sorted(n for n, kind in torchvision_names().items() if kind == "actions")
DETECTION = sorted(n for n, kind in torchvision_names().items() if kind == "detector")


@pytest.mark.parametrize("arch", [*TEMPORAL, *SLOWFAST, *VIDEO])
def test_every_action_network_takes_the_classes_of_the_job(arch: str) -> None:
    recipe = recipe_for("x", LABELS, NetworkSettings(arch=arch), "actions")
    with torch.device("meta"):
        network = build_network(recipe).eval()
        side = recipe.preprocessing.crop or recipe.grid.size.height
        logits = network(
            torch.zeros(2, 3, recipe.grid.window, side, recipe.preprocessing.crop or recipe.grid.size.width)
        )
    assert logits.shape == (2, 3)
    assert 1 <= len(class_tensors(recipe)) <= 2  # the last layer, and nothing else


@pytest.mark.parametrize("arch", DETECTION)
def test_every_detector_takes_the_classes_and_its_head_alone_depends_on_them(arch: str) -> None:
    if arch.startswith(("maskrcnn", "keypointrcnn")):
        with pytest.raises(ConfigError, match="learns from masks or keypoints"):
            recipe_for("x", LABELS, NetworkSettings(arch=arch), "detector")
        return
    recipe = recipe_for("x", LABELS, NetworkSettings(arch=arch), "detector")
    names = class_tensors(recipe)
    assert names and not any(name.startswith("backbone") for name in names)


@pytest.mark.parametrize("arch", ["fasterrcnn_mobilenet_v3_large_320_fpn", "fcos_resnet50_fpn"])
@pytest.mark.parametrize(
    ("size", "frame"),
    [
        ({"mode": "stretch", "height": 96, "width": 160}, (96, 160)),
        ({"mode": "letterbox", "height": 128, "width": 128}, (128, 128)),
        ({"mode": "fit", "height": 96, "width": 140}, (96, 128)),
        ({"mode": "fit", "height": 96, "width": 140}, (74, 140)),
    ],
)
def test_a_detector_does_not_resize_what_the_grid_has_sized(
    arch: str, size: dict[str, Any], frame: tuple[int, int]
) -> None:
    recipe = recipe_for("x", LABELS, NetworkSettings(arch=arch, size=size), "detector")
    network: Any = prepare_for_training(build_network(recipe), recipe)
    images, _ = network.transform([torch.zeros(3, *frame)], None)
    assert images.image_sizes == [frame]


def test_a_detector_of_fixed_size_refuses_another() -> None:
    network = NetworkSettings(arch="ssd300_vgg16", size={"mode": "stretch", "height": 200, "width": 200})
    with pytest.raises(ConfigError, match=r"ssd300_vgg16 sees 300 x 300 pixels; leave network\.size out"):
        network_for(recipe_for("x", LABELS, network, "detector"), network)


def test_weights_of_other_classes_are_taken_but_for_the_last_layer() -> None:
    old = NetworkSettings(arch="fasterrcnn_mobilenet_v3_large_320_fpn")
    torch.manual_seed(0)
    before = build_network(recipe_for("x", ("p", "q", "r", "s"), old, "detector")).state_dict()
    recipe = recipe_for("y", LABELS, old, "detector")
    network = build_network(recipe)
    begin_from(network, recipe, before, "old.safetensors")
    after, by_class = network.state_dict(), class_tensors(recipe)
    assert all(torch.equal(after[k], before[k]) for k in after if k not in by_class)
    assert after["roi_heads.box_predictor.cls_score.weight"].shape[0] == 4


@pytest.mark.parametrize("frozen_norms", [False, True])
def test_frozen_parts_and_norms_stay_as_they_were(frozen_norms: bool) -> None:
    frozen = ("encoder.0", "encoder.1", "encoder.3")  # 1 is the batch norm behind 0, and 4 that behind 3
    settings = NetworkSettings(arch="cnn+gru", freeze=frozen)
    network = network_for(recipe_for("x", LABELS, settings, "actions"), settings)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    set_training(network, frozen_norms=frozen_norms)
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.5)
    network(
        torch.from_numpy(np.random.default_rng(0).normal(0, 1, (2, 3, 4, 32, 32)).astype(np.float32))
    ).sum().backward()
    optimiser.step()
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert not any(k.startswith(frozen) for k in changed)
    assert ("encoder.4.running_mean" in changed) is not frozen_norms
    assert any(k.startswith("encoder.6") for k in changed) and "head.out.weight" in changed


def test_torchvisions_own_word_for_frozen_layers_is_refused_as_it_would_do_nothing() -> None:
    network = NetworkSettings(arch="fasterrcnn_resnet50_fpn", args={"trainable_backbone_layers": 2})
    with pytest.raises(ConfigError, match=r"name the layers .* in network\.freeze"):
        network_for(recipe_for("x", LABELS, network, "detector"), network)


@pytest.mark.parametrize("arch", ["r3d_18", "mc3_18", "r2plus1d_18", "s3d", "swin3d_t"])
def test_a_narrow_network_is_the_same_with_fewer_channels_and_takes_small_clips(arch: str) -> None:
    def made(**args: Any) -> torch.nn.Module:
        size = {"mode": "stretch", "height": 48, "width": 64}
        settings = NetworkSettings(arch=arch, args=args, window=14, size=size)
        recipe = recipe_for("x", LABELS, settings, "actions")
        assert class_tensors(recipe) <= set(build_network(recipe).state_dict())
        return build_network(recipe)

    torch.manual_seed(0)
    wide, narrow = made(), made(narrow=4)
    assert wide.state_dict().keys() == narrow.state_dict().keys()
    weights = [sum(p.numel() for p in n.parameters()) for n in (wide, narrow)]
    assert weights[0] / 17 < weights[1] < weights[0] / 10
    clips = torch.randn(2, 3, 14, 48, 64)
    logits = narrow.train()(clips)
    logits.sum().backward()
    assert logits.shape == (2, 3) and all(p.grad is not None for p in narrow.parameters())


@pytest.mark.parametrize("arch", ["r3d_18", "swin3d_t"])
def test_a_narrow_networks_random_weights_add_up_to_as_much(arch: str) -> None:
    """Each weight's variance is one over how many are added up, as in the wide network."""

    def spread_of(**args: Any) -> dict[str, float]:
        torch.manual_seed(0)
        recipe = recipe_for("x", LABELS, NetworkSettings(arch=arch, args=args), "actions")
        weights = {k: v for k, v in build_network(recipe).named_parameters() if k.endswith("weight") and v.ndim > 1}
        return {k: float(v.detach().var() * v[0].numel()) for k, v in weights.items() if v.numel() > 1000}

    wide, narrow = spread_of(), spread_of(narrow=4)
    narrow = {k: v for k, v in narrow.items() if not k.endswith("qkv.weight")}
    assert len(narrow) > 10 and all(narrow[k] == pytest.approx(wide[k], rel=0.2) for k in narrow)


def test_narrow_attention_does_not_begin_as_an_even_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its entropy, of the most that is possible, in each of the twelve blocks."""
    softmax = torch.nn.functional.softmax
    shares: list[float] = []

    def noted(logits: torch.Tensor, **how: Any) -> torch.Tensor:
        attention = softmax(logits, **how)
        entropy = -(attention * attention.clamp_min(1e-12).log()).sum(-1).mean()
        shares.append(float(entropy) / math.log(attention.shape[-1]))
        return attention

    def entropies(**args: int) -> list[float]:
        shares.clear()
        torch.manual_seed(0)
        recipe = recipe_for("x", LABELS, NetworkSettings(arch="swin3d_t", args=args), "actions")
        with torch.inference_mode():
            build_network(recipe).eval()(torch.randn(2, 3, 8, 28, 28))
        return list(shares)

    monkeypatch.setattr(torch.nn.functional, "softmax", noted)
    assert len(published := entropies()) == 12 and sum(published) / 12 > 0.98
    assert len(awake := entropies(narrow=4)) == 12 and sum(awake) / 12 < 0.9


def test_how_much_of_swin_is_left_out_in_training_can_be_said() -> None:
    def shares(**args: float) -> list[float]:
        network = build_network(recipe_for("x", LABELS, NetworkSettings(arch="swin3d_t", args=args), "actions"))
        return [m.p for m in network.modules() if isinstance(m, StochasticDepth)]

    assert shares(stochastic_depth_prob=0.1) == pytest.approx(shares()) and max(shares()) == pytest.approx(0.1)
    assert shares(stochastic_depth_prob=0, narrow=4) == [0] * 12
    with pytest.raises(ConfigError, match="stochastic depth of 2"):
        shares(stochastic_depth_prob=2)


@pytest.mark.parametrize(("arch", "classes"), [("r3d_18", 64), ("s3d", 192), ("swin3d_t", 96)])
def test_as_many_classes_as_a_layer_has_channels_leave_it_no_wider(arch: str, classes: int) -> None:
    def shapes(classes: int) -> dict[str, torch.Size]:
        labels = tuple(str(i) for i in range(classes))
        recipe = recipe_for("x", labels, NetworkSettings(arch=arch, args={"narrow": 4}), "actions")
        with torch.device("meta"):
            network = build_network(recipe)
        by_class = class_tensors(recipe)
        assert {v.shape[0] for k, v in network.state_dict().items() if k in by_class} == {classes}
        return {k: v.shape for k, v in network.state_dict().items() if k not in by_class}

    assert shapes(classes) == shapes(3)


@pytest.mark.parametrize("arch", ["mvit_v1_b", "mvit_v2_s"])
def test_mvit_is_built_for_small_clips_with_fewer_channels(arch: str) -> None:
    size = {"mode": "stretch", "height": 32, "width": 40}
    args = {"narrow": 4, "temporal_size": 8, "spatial_size": [32, 40]}
    settings = NetworkSettings(arch=arch, args=args, window=8, size=size)
    recipe = recipe_for("x", LABELS, settings, "actions")
    check_input(recipe)
    assert recipe.windows == (8, 8)
    with torch.device("meta"):
        published = build_network(recipe_for("x", LABELS, NetworkSettings(arch=arch), "actions"))
    network = build_network(recipe)
    assert network.state_dict().keys() == published.state_dict().keys()
    weights = [sum(p.numel() for p in n.parameters()) for n in (published, network)]
    assert weights[0] / 18 < weights[1] < weights[0] / 10
    logits = network.train()(torch.randn(2, 3, 8, 32, 40))
    logits.sum().backward()
    assert logits.shape == (2, 3) and all(p.grad is not None for p in network.parameters())


def test_s3d_pools_as_published_where_the_clip_is_as_large() -> None:
    from torchvision.models.video import s3d

    recipe = recipe_for("x", LABELS, NetworkSettings(arch="s3d", window=16), "actions")
    ours, published = build_network(recipe).eval(), s3d(weights=None, num_classes=3).eval()
    published.load_state_dict(ours.state_dict())
    clips = torch.randn(1, 3, 16, 256, 224)
    with torch.inference_mode():
        assert torch.equal(ours(clips), published(clips))


@pytest.mark.parametrize(("arch", "factor"), [("mvit_v1_b", 5), ("mvit_v2_s", 0), ("r3d_18", 0)])
def test_what_cannot_be_narrowed_is_said(arch: str, factor: int) -> None:
    recipe = recipe_for("x", LABELS, NetworkSettings(arch=arch, args={"narrow": factor}), "actions")
    with pytest.raises(ConfigError, match=f"{arch} cannot be built with .*narrow"):
        build_network(recipe)


def test_a_clip_too_small_for_mvit_is_said() -> None:
    args = {"temporal_size": 16, "spatial_size": [28, 28]}
    with pytest.raises(ConfigError, match=r"mvit_v2_s cannot be built with .*28"):
        build_network(recipe_for("x", LABELS, NetworkSettings(arch="mvit_v2_s", args=args), "actions"))
