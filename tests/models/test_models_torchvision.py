"""torchvision's builders through our loading: the same networks, the same answers, on frames that the
decoder has scaled already. Random weights, saved to a file, stand in for downloaded ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import WeightsEnum, get_model, get_model_weights

from vidproc.errors import ConfigError
from vidproc.models import ModelSettings, check_model, describe_model, fetch_model, load_model
from vidproc.models.actions import build as build_actions
from vidproc.models.descriptions import COCO80
from vidproc.models.detector import build as build_detector
from vidproc.models.detector import prepare
from vidproc.models.device import half_dtype, in_half, to_device
from vidproc.models.torchvision_recipes import torchvision_names, torchvision_recipe

NAMES = torchvision_names()
DETECTORS = [n for n, kind in NAMES.items() if kind == "detector"]
VIDEO = [n for n, kind in NAMES.items() if kind == "actions"]


def make_alive(network: Any, size: tuple[int, int]) -> None:
    """Random weights with which a detector finds things: normalisation as after training on noise, and
    class scores far enough apart."""
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    network.train()
    spread = 2.0
    with torch.no_grad():
        features = network.backbone(network.transform.normalize(torch.rand(4, 3, *size)))
        if hasattr(network, "head"):
            network.head(list(features.values()))
        if hasattr(network.backbone, "fpn"):
            scale = torch.cat([f.flatten() for f in features.values()]).std()
            for p in network.backbone.fpn.layer_blocks.parameters():
                p.div_(scale)
            spread = 100.0 if hasattr(network, "head") else 20.0
        for name, p in network.named_parameters():
            if re.search("cls_logits|cls_score|classification_head.module_list", name) and p.ndim > 1:
                p.mul_(spread)
    network.eval()


def with_seed(name: str, folder: Path, size: tuple[int, int] = (320, 320)) -> Path:
    """A weights file for a torchvision name."""
    recipe = torchvision_recipe(name)
    torch.manual_seed(0)
    if recipe.kind == "detector":
        network = build_detector(recipe)
        make_alive(network, size)
    else:
        network = build_actions(recipe)
    path = folder / f"{name}.pth"
    torch.save(network.state_dict(), path)
    return path


@contextmanager
def torchvision_loads(state: dict[str, torch.Tensor]) -> Iterator[None]:
    """torchvision's own way from a weights entry to a network, without the download."""
    before = WeightsEnum.get_state_dict
    WeightsEnum.get_state_dict = lambda *args, **kwargs: state
    try:
        yield
    finally:
        WeightsEnum.get_state_dict = before


def test_all_builders_are_known() -> None:
    assert {"ssd300_vgg16", "fcos_resnet50_fpn", "maskrcnn_resnet50_fpn_v2", "keypointrcnn_resnet50_fpn"} <= set(
        DETECTORS
    )
    assert {"mc3_18", "mvit_v1_b", "r2plus1d_18", "s3d", "swin3d_b"} <= set(VIDEO)
    assert len(DETECTORS) >= 12 and len(VIDEO) >= 9


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_is_built_with_its_own_size_and_classes(name: str) -> None:
    recipe = torchvision_recipe(name)
    with torch.device("meta"):
        network = build_detector(recipe)
    own, size = network.transform, recipe.grid.size
    if own.fixed_size is None:
        assert (size.mode, size.height, size.width) == ("fit", own.min_size[-1], own.max_size)
    else:
        assert (size.mode, size.width, size.height) == ("stretch", *own.fixed_size)
    categories = get_model_weights(name).DEFAULT.meta["categories"]
    assert [categories[i] for i in recipe.outputs_of_labels] == list(recipe.labels)
    assert recipe.labels == (("person",) if name.startswith("keypoint") else COCO80)
    assert recipe.args["num_classes"] == len(categories)
    assert prepare(network, recipe, ModelSettings()).transform.image_mean == own.image_mean


@pytest.mark.parametrize("name", VIDEO)
def test_a_video_network_takes_the_windows_of_its_grid(name: str) -> None:
    recipe = torchvision_recipe(name)
    with torch.device("meta"):
        network = build_actions(recipe).eval()
        grid, crop = recipe.grid, recipe.preprocessing.crop
        height, width = (crop, crop) if crop else (grid.size.height, grid.size.width)
        clip = torch.empty(1, 3, grid.window, height, width)
        assert network(clip).shape == (1, len(recipe.labels)) == (1, 400)
    documented = get_model_weights(name).DEFAULT.meta["_docs"]
    fps, frames = (re.search(rf"`{key}=([\d.]+)`", documented)[1] for key in ("frame_rate", "clip_len"))  # type: ignore[index]
    assert (float(grid.fps), grid.window) == (float(fps), int(frames))


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("ssdlite320_mobilenet_v3_large", 320, 320),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 320, 426),
        ("retinanet_resnet50_fpn", 96, 128),
        ("maskrcnn_resnet50_fpn", 96, 128),
    ],
)
def test_detections_equal_torchvisions_own(name: str, height: int, width: int, tmp_path: Path) -> None:
    path = with_seed(name, tmp_path, (height, width))
    frames = np.random.default_rng(1).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    settings = ModelSettings(weights=str(path), score_threshold=0.02, batch_size=2, max_detections=20)
    found = load_model(name, device="cpu", settings=settings).detect(frames)  # type: ignore[union-attr]

    with torchvision_loads(torch.load(path, weights_only=True)):
        reference = get_model(name, weights="DEFAULT").eval()
    reference.transform.min_size, reference.transform.max_size = (height,), width
    with torch.inference_mode():
        theirs = reference([torch.from_numpy(f).permute(2, 0, 1) / 255 for f in frames])
    kept = torchvision_recipe(name).outputs_of_labels
    for i, expected in enumerate(theirs):
        keep = [j for j, c in enumerate(expected["labels"].tolist()) if c in kept and expected["scores"][j] >= 0.02]
        keep, ours = keep[:20], found[found.frame == i]
        # The cut at 20 comes before ours drops classes without a label
        n = len(ours)
        assert 0 < n <= 20
        assert [kept[c] for c in ours.class_id] == expected["labels"][keep][:n].tolist()
        np.testing.assert_allclose(ours.score, expected["scores"][keep][:n], atol=1e-4)
        np.testing.assert_allclose(ours.boxes, expected["boxes"][keep][:n], atol=0.02)


def test_the_epsilon_of_the_first_resnet_detectors_is_kept(tmp_path: Path) -> None:
    from dataclasses import replace

    recipe = torchvision_recipe("retinanet_resnet50_fpn")
    network = prepare(build_detector(recipe), recipe, ModelSettings())
    assert {m.eps for m in network.backbone.body.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.0}
    other = replace(recipe, batch_norm_eps=None)
    network = prepare(build_detector(other), other, ModelSettings())
    assert {m.eps for m in network.backbone.body.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-5}


@pytest.mark.parametrize(("name", "height", "width"), [("r3d_18", 128, 171), ("swin3d_t", 224, 224)])
def test_action_scores_equal_torchvisions_own(name: str, height: int, width: int, tmp_path: Path) -> None:
    """On windows that the decoder has resized, so that torchvision's own resizing has nothing to do."""
    path = with_seed(name, tmp_path)
    window = 4
    windows = np.random.default_rng(1).integers(0, 256, (2, window, height, width, 3), dtype=np.uint8)
    model = load_model(name, device="cpu", settings=ModelSettings(weights=str(path), window=window, batch_size=1))
    scores = model.classify(windows)  # type: ignore[union-attr]
    assert scores.dtype == np.float32 and scores.shape == (2, 400)

    weights = get_model_weights(name).DEFAULT
    with torchvision_loads(torch.load(path, weights_only=True)):
        reference = get_model(name, weights=weights).eval()
    transform = weights.transforms()
    transform.resize_size = [height, width]
    with torch.inference_mode():
        expected = reference(transform(torch.from_numpy(windows).permute(0, 1, 4, 2, 3))).softmax(1)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert scores[0].argmax() == expected[0].argmax()


def test_batches_change_nothing(tmp_path: Path) -> None:
    path = with_seed("ssdlite320_mobilenet_v3_large", tmp_path)
    frames = np.random.default_rng(1).integers(0, 256, (5, 320, 320, 3), dtype=np.uint8)
    one, three = (
        load_model(
            "ssdlite320_mobilenet_v3_large",
            device="cpu",
            settings=ModelSettings(weights=str(path), score_threshold=0.05, batch_size=n),
        ).detect(frames)  # type: ignore[union-attr]
        for n in (1, 3)
    )
    assert len(one) > 20
    np.testing.assert_array_equal(one.frame, three.frame)
    np.testing.assert_array_equal(one.class_id, three.class_id)
    np.testing.assert_allclose(one.boxes, three.boxes, atol=0.01)
    np.testing.assert_allclose(one.score, three.score, atol=1e-4)


def test_no_frames_and_nothing_found_are_ordinary(tmp_path: Path) -> None:
    path = with_seed("ssdlite320_mobilenet_v3_large", tmp_path)
    settings = ModelSettings(weights=str(path), score_threshold=1.0)
    model: Any = load_model("ssdlite320_mobilenet_v3_large", device="cpu", settings=settings)
    assert len(model.detect(np.zeros((0, 320, 320, 3), np.uint8))) == 0
    assert len(model.detect(np.zeros((2, 320, 320, 3), np.uint8))) == 0
    path = with_seed("r3d_18", tmp_path)
    actions: Any = load_model(
        "r3d_18", device="cpu", settings=ModelSettings(weights=str(path), size=(32, 32), window=2)
    )
    assert actions.classify(np.zeros((0, 2, 32, 32, 3), np.uint8)).shape == (0, 400)


def test_frames_of_the_object_store_are_read_only_and_stay_so() -> None:
    frames = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    frames.flags.writeable = False
    assert to_device(frames, torch.device("cpu")).sum() == frames.sum()


def test_half_precision_is_for_the_features_alone(tmp_path: Path) -> None:
    """What the wrapper gives on is float32, and near what the backbone gives without it."""
    recipe = torchvision_recipe("ssdlite320_mobilenet_v3_large")
    torch.manual_seed(0)
    network = build_detector(recipe)
    make_alive(network, (320, 320))
    x = torch.rand(1, 3, 320, 320)
    with torch.inference_mode():
        whole = network.backbone(x)
        half = in_half(network.backbone, torch.device("cpu"), torch.float16)(x)
    assert list(half) == list(whole) and len(half) > 1
    for name in whole:
        assert half[name].dtype == torch.float32 and not torch.equal(half[name], whole[name])
        assert (half[name] - whole[name]).abs().mean() < 0.2 * whole[name].abs().mean()


def test_scores_in_half_precision_are_float32_and_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision is for GPUs; here the CPU computes as one would."""
    settings = ModelSettings(weights=str(with_seed("r3d_18", tmp_path)), window=4)
    windows = np.random.default_rng(1).integers(0, 256, (2, 4, 128, 171, 3), dtype=np.uint8)
    whole = load_model("r3d_18", device="cpu", settings=settings).classify(windows)  # type: ignore[union-attr]
    monkeypatch.setattr("vidproc.models.actions.half_dtype", lambda device, settings: torch.bfloat16)
    half = load_model("r3d_18", device="cpu", settings=settings).classify(windows)  # type: ignore[union-attr]
    assert half.dtype == np.float32 and not np.array_equal(half, whole)
    np.testing.assert_allclose(half, whole, atol=2e-3)
    np.testing.assert_allclose(half.sum(axis=1), 1, atol=1e-5)


def test_half_precision_is_for_gpus_that_are_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda:1")
    for brain in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda brain=brain: brain)
        assert half_dtype(gpu, ModelSettings()) == (torch.bfloat16 if brain else torch.float16)
    assert half_dtype(gpu, ModelSettings(half=False)) is half_dtype(cpu, ModelSettings()) is None


# Cards, checks and refusals


def test_card_check_and_fetch_agree(tmp_path: Path) -> None:
    path = with_seed("ssdlite320_mobilenet_v3_large", tmp_path)
    settings = ModelSettings(kind="detector", weights=str(path), fps=5)
    card = describe_model("ssdlite320_mobilenet_v3_large", settings)
    assert card is not None and card.grid.fps == 5 and card.weights_uri == str(path)
    assert fetch_model("ssdlite320_mobilenet_v3_large", settings) == path
    checked = check_model("ssdlite320_mobilenet_v3_large", device="cpu", settings=settings)
    assert checked.card == card and checked.run_seconds > 0


def test_without_network_the_error_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDPROC_MODEL_CACHE", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # nobody listens: an offline machine, at once
    url = "https://download.pytorch.org/models/ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
    with pytest.raises(ConfigError) as refused:
        describe_model("auto", ModelSettings(kind="detector", device="cpu"))
    assert f"Fetch {url} where there is a network, and put it here as {tmp_path / url.rpartition('/')[2]}" in str(
        refused.value
    )


def test_a_file_with_another_hash_under_the_cached_name_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDPROC_MODEL_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with_seed("ssdlite320_mobilenet_v3_large", tmp_path).rename(
        tmp_path / "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
    )
    with pytest.raises(ConfigError, match="the file there has the wrong sha256"):
        load_model("ssdlite320_mobilenet_v3_large", device="cpu")


def test_weights_of_another_architecture_fail(tmp_path: Path) -> None:
    path = with_seed("ssdlite320_mobilenet_v3_large", tmp_path)
    message = rf"The weights {re.escape(str(path))} do not fit r3d_18: Missing key.*"
    with pytest.raises(ConfigError, match=message):
        load_model("r3d_18", device="cpu", settings=ModelSettings(weights=str(path)))
    with pytest.raises(ConfigError, match="do not fit fcos_resnet50_fpn") as refused:
        load_model("fcos_resnet50_fpn", device="cpu", settings=ModelSettings(weights=str(path)))
    assert len(str(refused.value)) < 600


def trained(folder: Path, **changes: Any) -> None:
    """What a training run leaves: model.yaml and the weights beside it."""
    import yaml

    values = {
        "format": 1,
        "name": "helmets",
        "kind": "detector",
        "family": "torchvision-detection",
        "arch": "ssdlite320_mobilenet_v3_large",
        "labels": ["helmet", "vest"],
        "grid": {"fps": 4, "size": {"mode": "stretch", "height": 320, "width": 320}},
        "weights": "model.safetensors",
        "license": "Apache-2.0",
    } | changes
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    make_alive(network, (320, 320))
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "model.yaml").write_text(yaml.safe_dump(values))


def test_a_model_folder_is_a_model(tmp_path: Path) -> None:
    trained(tmp_path)
    model: Any = load_model(str(tmp_path), device="cpu", settings=ModelSettings(kind="detector", score_threshold=0.3))
    assert model.card.labels == ("helmet", "vest") and model.card.grid.fps == 4
    found = model.detect(np.random.default_rng(0).integers(0, 256, (2, 320, 320, 3), dtype=np.uint8))
    assert len(found) > 0 and set(found.class_id.tolist()) <= {0, 1}


def test_a_model_folder_with_other_weights_than_promised_fails(tmp_path: Path) -> None:
    trained(tmp_path, sha256="0" * 64)
    with pytest.raises(ConfigError, match="are not the promised ones: their sha256 is"):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["a", "b", "c"]}, "do not fit ssdlite320.*size mismatch"),
        ({"arch": "r3d_18"}, "torchvision has no detector 'r3d_18'"),
        ({"args": {"norm_layer": 3}}, "cannot be built with"),
    ],
)
def test_a_model_folder_that_contradicts_itself_fails(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    trained(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message):
        load_model(str(tmp_path), device="cpu")
