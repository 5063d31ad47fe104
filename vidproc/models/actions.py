"""Action models on torch, and torchvision's video classifiers (R3D, MC3, R(2+1)D, S3D, MViT, Swin3D)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vidproc.errors import ConfigError
from vidproc.models.base import ModelCard
from vidproc.models.device import Batches, half_dtype, pick_device, pixels_at_once, to_device, use_threads
from vidproc.models.recipe import Recipe, card_of
from vidproc.models.settings import ModelSettings
from vidproc.models.tensors import network_with
from vidproc.models.torchvision_recipes import torchvision_names
from vidproc.models.weights import read_weights

if TYPE_CHECKING:
    import torch


def load(recipe: Recipe, settings: ModelSettings) -> TorchActions:
    device = pick_device(settings.device)
    weights = read_weights(recipe.weights, recipe.sha256, model=recipe.name)
    network = network_with(weights, lambda: build(recipe), model=recipe.name, arch=recipe.arch)
    return TorchActions(recipe, card_of(recipe, weights.sha256), network.eval(), device, settings)


def build(recipe: Recipe) -> Any:
    """The network as its weights know it, with random ones: normalised float (n, 3, t, h, w) -> logits.
    `args` are the builder's own, and `narrow`: by which to divide the channels. MViT's may say too for which clips
    its positions are: `temporal_size` frames of `spatial_size` [height, width]; Swin3D's, as MViT's, which share of
    its last blocks training leaves out: `stochastic_depth_prob`."""
    from torchvision.models import get_model_builder

    from vidproc.models.narrow import PoolWhatIsThere, mvit, narrowed, with_stochastic_depth

    if recipe.kind != "actions" or torchvision_names().get(recipe.arch) != "actions":
        raise ConfigError(f"{recipe.name}: torchvision has no video model {recipe.arch!r}.")
    args = {"num_classes": len(recipe.labels), **recipe.args}
    swin = recipe.arch.startswith("swin3d")
    own = {k: v for k, v in args.items() if k != "narrow" and not (swin and k == "stochastic_depth_prob")}
    builder = get_model_builder(recipe.arch)
    try:
        if recipe.arch.startswith("mvit"):
            return mvit(builder, **args)
        network: Any = builder(weights=None, **own)
        if recipe.arch == "s3d":
            network.avgpool = PoolWhatIsThere(network.avgpool)
        if "narrow" in args:
            narrowed(network, int(args["narrow"]))
        if swin and "stochastic_depth_prob" in args:
            with_stochastic_depth(network, float(args["stochastic_depth_prob"]))
    except (TypeError, ValueError, RuntimeError) as e:  # torch's own, of a clip too small for MViT's positions
        raise ConfigError(f"{recipe.name}: {recipe.arch} cannot be built with {args}: {e}") from e
    return network


class TorchActions:
    """A video network on a device. Windows of uint8 are cropped, normalised and
    classified there."""

    card: ModelCard

    def __init__(
        self, recipe: Recipe, card: ModelCard, network: Any, device: torch.device, settings: ModelSettings
    ) -> None:
        import torch

        self.card = card
        self._device = device
        self._crop = recipe.preprocessing.crop
        self._bgr = recipe.preprocessing.color == "bgr"
        self._batches = Batches(settings.batch_size, pixels_at_once(device))
        self._outputs = list(recipe.outputs_of_labels)
        use_threads(settings)
        p = recipe.preprocessing
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1, 1) for v in (p.mean, p.std))
        # (x / divisor - mean) / std as one multiplication and one addition
        self._scale = 1 / (p.divisor * std)
        self._shift = -mean / std
        self._network = network.to(device)
        self._dtype = half_dtype(device, settings)

    def classify(self, windows: np.ndarray) -> np.ndarray:
        """uint8 (n, t, h, w, 3) RGB -> float32 (n, classes), softmax scores from 0 to 1."""
        parts = [scores for _, scores in self._batches.run(windows, self._infer)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.card.labels)), np.float32)

    def _infer(self, windows: np.ndarray) -> np.ndarray:
        import torch

        if self._crop:
            height, width = windows.shape[2:4]
            # torchvision's CenterCrop rounds half to even
            top, left = (round((side - self._crop) / 2) for side in (height, width))
            windows = windows[:, :, top : top + self._crop, left : left + self._crop]
        if self._bgr:
            windows = windows[..., ::-1]
        with torch.inference_mode():
            x = to_device(windows, self._device).permute(0, 4, 1, 2, 3).float() * self._scale + self._shift
            with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
                logits = self._network(x)
            scores: np.ndarray = self._answer(logits.float()).cpu().numpy()
        return scores[:, self._outputs] if self._outputs else scores

    def _answer(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(dim=1)
