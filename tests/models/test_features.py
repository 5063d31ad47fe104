"""Embeddings by image models and action networks; few-shot model folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from vidproc.errors import ConfigError
from vidproc.models import EmbeddingModel, load_model
from vidproc.models.features import ImageFeatures, clip_encoder, image_recipe
from vidproc.models.prototypes import Answer, FewShotNetwork
from vidproc.models.settings import ModelSettings
from vidproc.models.temporal import TemporalClassifier, TemporalSettings

CPU = ModelSettings(device="cpu")


def folder(path: Path, network: torch.nn.Module, **description: object) -> str:
    path.mkdir()
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path / "weights.safetensors")
    base = {
        "name": path.name,
        "weights": "weights.safetensors",
        "grid": {"fps": 4, "window": 3, "size": {"mode": "stretch", "height": 32, "width": 32}},
    }
    (path / "model.yaml").write_text(yaml.safe_dump(base | description))
    return str(path)


def test_a_torchvision_image_model_embeds_frames(tmp_path: Path) -> None:
    torch.manual_seed(0)
    from torchvision.models import resnet18

    published = resnet18(weights=None).eval()  # its state dict, last layer and all, as torchvision publishes it
    spec = folder(tmp_path / "r18", published, kind="embedding", family="features", arch="resnet18", grid={"fps": 1})
    model = load_model(spec, settings=CPU)
    assert isinstance(model, object) and model.card.kind == "embedding" and model.card.labels == ()
    frames = np.random.default_rng(0).integers(0, 255, (2, 1, 64, 64, 3), np.uint8)
    vectors = cast_embedding(model).embed(frames)
    published.fc = torch.nn.Identity()
    expected = published(torch.from_numpy(frames[:, 0]).permute(0, 3, 1, 2).float() / 255).detach().numpy()
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)


def cast_embedding(model: object) -> EmbeddingModel:
    return model  # type: ignore[return-value]


def test_weights_of_another_architecture_fail_with_file_and_tensor(tmp_path: Path) -> None:
    spec = folder(tmp_path / "x", ImageFeatures("resnet18"), kind="embedding", family="features", arch="resnet34")
    with pytest.raises(ConfigError, match=r"weights\.safetensors are of another architecture: encoder\.body\.layer"):
        load_model(spec, settings=CPU)


@pytest.mark.parametrize("name", ["r3d_18", "s3d", "mvit_v2_s", "swin3d_t"])
def test_torchvision_video_networks_give_vectors(name: str) -> None:
    from torchvision.models import get_model_builder

    with torch.device("meta"):
        network = get_model_builder(name)(weights=None, num_classes=5).eval()
        frames = 16
        vectors = clip_encoder(network).embed(torch.zeros(2, 3, frames, 224, 224))
    assert vectors.shape[0] == 2 and vectors.ndim == 2 and vectors.shape[1] >= 512


@pytest.mark.parametrize("head", ["gru", "lstm", "tcn", "mean"])
def test_temporal_networks_give_vectors_that_know_the_order_but_for_the_mean(head: str) -> None:
    torch.manual_seed(0)
    network = TemporalClassifier(3, TemporalSettings(head=head)).eval()  # type: ignore[arg-type]
    clips = 3 * torch.randn(1, 3, 5, 1, 1) + torch.randn(1, 3, 5, 32, 32)
    with torch.inference_mode():
        there, back = network.embed(clips), network.embed(clips.flip(2))
    assert torch.allclose(there, back, atol=1e-5) == (head == "mean")


def few_shot(encoder: TemporalClassifier) -> FewShotNetwork:
    d = 64 + 64
    return FewShotNetwork(encoder, Answer(torch.randn(d), torch.randn(2, d), torch.randn(2)))


@pytest.mark.parametrize("wrong", [None, {"dimensions": 4}, {"encoder": {"family": "temporal", "labels": 3}}])
def test_a_few_shot_folder_loads_as_an_action_model(wrong: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = TemporalClassifier(3, TemporalSettings(head="gru")).eval()
    network = few_shot(encoder).eval()
    args = {"encoder": {"family": "temporal", "labels": 3, "args": {"head": "gru"}}, "dimensions": 128}
    make: Callable[[], str] = lambda: folder(  # noqa: E731
        tmp_path / "f", network, kind="actions", family="few-shot", labels=["a", "b"], args=wrong or args
    )
    if wrong:
        spec = make()
        with pytest.raises(ConfigError, match="args of a few-shot model are encoder and dimensions"):
            load_model(spec, settings=CPU)
        return
    model = load_model(make(), settings=CPU)
    windows = np.random.default_rng(0).integers(0, 255, (2, 3, 32, 32, 3), np.uint8)
    scores = model.classify(windows)  # type: ignore[union-attr]
    clips = torch.from_numpy(windows).permute(0, 4, 1, 2, 3).float() / 255
    np.testing.assert_allclose(scores, network(clips).softmax(1).detach().numpy(), rtol=1e-4, atol=1e-6)


def test_published_image_models_are_known_by_name() -> None:
    recipe = image_recipe("resnet18")
    assert recipe.grid.window == 1 and recipe.grid.size.height == 224 and recipe.weights.endswith("f37072fd.pth")
    with pytest.raises(ConfigError, match="no image model named 'r3d_18'"):
        image_recipe("r3d_18")


def test_the_embedded_action_network_is_a_family_too(tmp_path: Path) -> None:
    from vidproc.models.embedded import EmbeddedActions
    from vidproc.models.tiny import ActionNet

    torch.manual_seed(0)
    inner = ActionNet(3, 8).eval()  # as the package's file names its tensors
    described = {
        "family": "embedded",
        "labels": ["a", "b", "c"],
        "args": {"width": 8},
        "preprocessing": {"divisor": 1.0},
    }
    spec = folder(tmp_path / "e", inner, kind="actions", **described)
    windows = np.random.default_rng(0).integers(0, 255, (2, 3, 32, 32, 3), np.uint8)
    frames = torch.from_numpy(windows).permute(0, 1, 4, 2, 3).float()
    vectors = cast_embedding(load_model(spec, settings=ModelSettings(kind="embedding", device="cpu"))).embed(windows)
    with torch.inference_mode():
        np.testing.assert_allclose(vectors, inner.features(inner.frames(frames)).numpy(), rtol=1e-3, atol=1e-4)
        scores = load_model(spec, settings=CPU).classify(windows)  # type: ignore[union-attr]
        np.testing.assert_allclose(scores, inner(frames)[:, :-1].softmax(1).numpy(), rtol=1e-3, atol=1e-4)
    assert clip_encoder(EmbeddedActions(3, 8)).embed(frames.transpose(1, 2)).shape == (2, 64)


def test_an_action_model_gives_its_features_when_asked_for_an_embedding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TemporalClassifier(3, TemporalSettings(head="gru")).eval()
    spec = folder(
        tmp_path / "g", network, kind="actions", family="temporal", labels=["a", "b", "c"], args={"head": "gru"}
    )
    model = load_model(spec, settings=ModelSettings(kind="embedding", device="cpu"))
    windows = np.random.default_rng(0).integers(0, 255, (2, 3, 32, 32, 3), np.uint8)
    clips = torch.from_numpy(windows).permute(0, 4, 1, 2, 3).float() / 255
    assert model.card.kind == "embedding"
    np.testing.assert_allclose(
        cast_embedding(model).embed(windows), network.embed(clips).detach().numpy(), rtol=1e-3, atol=1e-5
    )
    with pytest.raises(ConfigError, match="is an action model, but it was given as a detector"):
        load_model(spec, settings=ModelSettings(kind="detector", device="cpu"))
