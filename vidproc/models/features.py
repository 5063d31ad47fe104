"""Embeddings: any torchvision image model per frame, and the features of any action network per window."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vidproc.errors import ConfigError
from vidproc.media import FrameSize, Grid
from vidproc.models.actions import TorchActions
from vidproc.models.base import ModelCard
from vidproc.models.device import pick_device
from vidproc.models.families import ClipEncoder, load_verified
from vidproc.models.recipe import Preprocessing, Recipe, card_of
from vidproc.models.settings import ModelSettings
from vidproc.models.temporal import TorchvisionEncoder
from vidproc.models.tensors import fill as fill_network

if TYPE_CHECKING:
    from collections.abc import Mapping

FEATURE_FPS = Fraction(1)
"""Frames a second that are embedded: what is in view seldom changes faster than one would look for it."""


def load(recipe: Recipe, settings: ModelSettings) -> TorchEmbedding:
    # An action model's folder gives its features: its network is the one that knows actions.
    network, sha256 = load_verified(recipe if recipe.family == "features" else replace(recipe, kind="actions"))
    return TorchEmbedding(recipe, card_of(recipe, sha256), network, pick_device(settings.device), settings)


def build(recipe: Recipe) -> ImageFeatures:
    """The network with random weights; `arch` is a torchvision classification model."""
    return ImageFeatures(recipe.arch)


def image_recipe(name: str) -> Recipe:
    """The recipe of a torchvision classification model with its published weights. Raises ConfigError."""
    from torchvision import models

    if name not in models.list_models(models):
        raise ConfigError(f"There is no image model named {name!r} in torchvision (resnet18, convnext_tiny, ...).")
    weights = models.get_model_weights(name).DEFAULT
    transform = weights.transforms()
    (crop,), (resize,) = set(transform.crop_size), set(transform.resize_size)
    return Recipe(
        name=name,
        kind="embedding",
        family="features",
        arch=name,
        labels=(),
        grid=Grid(fps=FEATURE_FPS, size=FrameSize(mode="crop", short_side=resize, height=crop, width=crop)),
        preprocessing=Preprocessing(mean=tuple(transform.mean), std=tuple(transform.std)),
        weights=weights.url,
        license="BSD-3-Clause (torchvision); trained on ImageNet",
    )


class ImageFeatures(nn.Module):
    """The mean over a clip's frames of an image model's features (one frame: those of the frame)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.encoder = TorchvisionEncoder(name)

    def embed(self, clips: Tensor) -> Tensor:
        n, _, t = clips.shape[:3]
        features: Tensor = self.encoder(clips.transpose(1, 2).flatten(0, 1))
        return features.reshape(n, t, -1).mean(1)

    forward = embed


def fill(network: Any, state: Mapping[str, Tensor], path: Path) -> None:
    """torchvision's own state dict (its last layer is left out), or ours."""
    own = network.state_dict()
    renamed = {k if k.startswith("encoder.") else f"encoder.body.{k}": v for k, v in state.items()}
    for name, tensor in own.items():
        if name not in renamed or renamed[name].shape != tensor.shape:
            raise ConfigError(f"The weights {path} are of another architecture: {name} is missing or of another shape.")
    fill_network(network, {k: renamed[k] for k in own}, model="the encoder", arch="", path=path)


class VideoFeatures(nn.Module):
    """A torchvision video network without its last layer: clips (n, 3, t, h, w) -> (n, d)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for name in ("fc", "head", "classifier"):
            if hasattr(network, name):
                setattr(network, name, nn.Identity())
                break
        else:
            raise ConfigError(f"{type(network).__name__} has no last layer that is known here (fc, head, classifier)")
        self.network = network

    def embed(self, clips: Tensor) -> Tensor:
        return self.network(clips)  # type: ignore[no-any-return]

    forward = embed


def clip_encoder(network: nn.Module) -> ClipEncoder:
    """The part of an action network that comes before its answer."""
    return cast(ClipEncoder, network if hasattr(network, "embed") else VideoFeatures(network))


class TorchEmbedding(TorchActions):
    """A clip encoder on a device; windows are prepared for it as for an action network."""

    def __init__(
        self, recipe: Recipe, card: ModelCard, network: nn.Module, device: torch.device, settings: ModelSettings
    ) -> None:
        super().__init__(recipe, card, _AsForward(clip_encoder(network)), device, settings)

    def embed(self, windows: np.ndarray) -> np.ndarray:
        """uint8 (n, t, h, w, 3) RGB -> float32 (n, d)."""
        return self.classify(windows)

    def _answer(self, logits: Tensor) -> Tensor:
        return logits


class _AsForward(nn.Module):
    def __init__(self, encoder: ClipEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, clips: Tensor) -> Tensor:
        return self.encoder.embed(clips)
