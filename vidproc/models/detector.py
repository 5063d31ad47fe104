"""torchvision's detectors (Faster, Mask and Keypoint R-CNN, RetinaNet, FCOS, SSD, SSDlite).

Frames arrive scaled by the decoder, so each network's own resizing is taken out; its mean and
standard deviation, padding and decoding of boxes stay torchvision's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vidproc.annotations import Detections
from vidproc.errors import ConfigError
from vidproc.models.base import ModelCard
from vidproc.models.device import Batches, in_half, pick_device, pixels_at_once, to_device, use_threads
from vidproc.models.recipe import Recipe, card_of
from vidproc.models.settings import ModelSettings
from vidproc.models.tensors import network_with
from vidproc.models.torchvision_recipes import torchvision_names
from vidproc.models.weights import read_weights

if TYPE_CHECKING:
    import torch


def load(recipe: Recipe, settings: ModelSettings) -> TorchDetector:
    device = pick_device(settings.device)
    weights = read_weights(recipe.weights, recipe.sha256, model=recipe.name)
    network = network_with(weights, lambda: build(recipe), model=recipe.name, arch=recipe.arch)
    return TorchDetector(recipe, card_of(recipe, weights.sha256), prepare(network, recipe, settings), device, settings)


def build(recipe: Recipe) -> Any:
    """The network as its weights know it, with random ones."""
    from torchvision.models import get_model_builder

    if recipe.kind != "detector" or torchvision_names().get(recipe.arch) != "detector":
        raise ConfigError(f"{recipe.name}: torchvision has no detector {recipe.arch!r}.")
    if "trainable_backbone_layers" in recipe.args:  # torchvision heeds it only with weights that it loads itself
        raise ConfigError(
            f"{recipe.name}: name the layers that stay as they are in network.freeze (backbone.body.layer1)."
        )
    args = {"num_classes": len(recipe.labels) + 1, **recipe.args}
    try:
        return get_model_builder(recipe.arch)(weights=None, weights_backbone=None, **args)
    except (TypeError, ValueError) as e:
        raise ConfigError(f"{recipe.name}: {recipe.arch} cannot be built with {args}: {e}") from e


def prepare(network: Any, recipe: Recipe, settings: ModelSettings) -> Any:
    """From the network as trained to the network as used here: for boxes alone, at one size."""
    import torch

    network.transform = _no_resizing(network.transform)
    heads = getattr(network, "roi_heads", network)
    heads.score_thresh = recipe.score_threshold  # weaker boxes never suppress stronger ones: the same result, sooner
    if recipe.nms_iou is not None:
        heads.nms_thresh = recipe.nms_iou
    heads.detections_per_img = min(heads.detections_per_img, settings.max_detections)
    for part in ("mask", "keypoint"):
        if hasattr(heads, f"{part}_roi_pool"):
            for name in ("roi_pool", "head", "predictor"):
                setattr(heads, f"{part}_{name}", None)
    if recipe.batch_norm_eps is not None:
        for module in network.backbone.body.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = recipe.batch_norm_eps
    return network.eval()


def _no_resizing(original: Any) -> Any:
    """GeneralizedRCNNTransform for a batch of frames of one size: normalised and padded, not resized."""
    import torch
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    class NoResizing(GeneralizedRCNNTransform):  # type: ignore[misc]
        def forward(self, images: torch.Tensor, targets: None = None) -> tuple[ImageList, None]:
            n, _, height, width = images.shape
            step = self.size_divisible
            padding = (0, -width % step, 0, -height % step)
            batch = torch.nn.functional.pad(self.normalize(images), padding)
            return ImageList(batch.contiguous(memory_format=torch.channels_last), [(height, width)] * n), None

    return NoResizing(
        original.min_size, original.max_size, original.image_mean, original.image_std, original.size_divisible
    )


class TorchDetector:
    """A torchvision detection network on a device."""

    card: ModelCard

    def __init__(
        self, recipe: Recipe, card: ModelCard, network: Any, device: torch.device, settings: ModelSettings
    ) -> None:
        import torch

        self.card = card
        self._device = device
        self._threshold = recipe.score_threshold
        self._most = settings.max_detections
        self._batches = Batches(settings.batch_size, pixels_at_once(device))
        outputs = recipe.outputs_of_labels or tuple(range(1, len(recipe.labels) + 1))
        self._class_of_output = np.full(max(outputs) + 1, -1, np.int64)
        self._class_of_output[list(outputs)] = np.arange(len(outputs))
        use_threads(settings)
        network = network.to(device=device, memory_format=torch.channels_last)
        if settings.half and device.type == "cuda":
            # fp16 rather than bf16, and only up to the features: 8 bits of mantissa would move a
            # box at x = 1300 by pixels.
            network.backbone = in_half(network.backbone, device, torch.float16)
        self._network = network

    def detect(self, frames: np.ndarray) -> Detections:
        """uint8 (n, h, w, 3) RGB, sized as the card's grid asks -> boxes in pixels of those frames."""
        return Detections.concatenate(
            [found for start, batch in self._batches.run(frames, self._infer) for found in self._rows(start, batch)]
        )

    def _infer(self, frames: np.ndarray) -> list[dict[str, np.ndarray]]:
        import torch

        with torch.inference_mode():
            # NHWC to NCHW by strides alone: the layout that convolutions here like best
            images = to_device(frames, self._device).permute(0, 3, 1, 2).float() / 255
            return [{k: v.cpu().numpy() for k, v in found.items()} for found in self._network(images)]

    def _rows(self, start: int, batch: list[dict[str, np.ndarray]]) -> list[Detections]:
        parts = []
        for i, found in enumerate(batch):
            output = found["labels"]
            known = output < len(self._class_of_output)
            class_id = np.where(known, self._class_of_output[np.where(known, output, 0)], -1)
            keep = np.flatnonzero((class_id >= 0) & (found["scores"] >= self._threshold))[: self._most]
            parts.append(
                Detections(
                    np.full(len(keep), start + i, np.int64),
                    found["boxes"][keep].astype(np.float32),
                    found["scores"][keep].astype(np.float32),
                    class_id[keep],
                )
            )
        return parts
