"""Random changes of examples during training (torchvision transforms v2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vidproc.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What training does to its examples at random (torchvision transforms v2); all off by default."""

    flip: float = 0.0
    """Chance of a left-right mirror. Not for classes that tell left from right."""
    crop: float = 1.0
    """Least share of the area that a random crop keeps, brought back to size; 1: no crop."""
    colour: float = 0.0
    """Strength of changes in brightness, contrast, saturation; 0.4 is usual."""

    def __post_init__(self) -> None:
        if not (0 <= self.flip <= 1 and 0 < self.crop <= 1 and 0 <= self.colour < 1):
            raise ConfigError(f"flip from 0 to 1, crop above 0 to 1, colour from 0 to below 1: {self}")


def augment_video(frames: Tensor, a: Augmentation) -> Tensor:
    """uint8 (t, 3, h, w), all frames alike."""
    from torchvision.transforms import v2
    from torchvision.tv_tensors import Video as VideoTensor

    steps: list[Any] = []
    if a.crop < 1:
        size = [frames.shape[-2], frames.shape[-1]]
        steps.append(v2.RandomResizedCrop(size, scale=(a.crop, 1.0), ratio=(0.9, 1.1), antialias=True))
    if a.flip:
        steps.append(v2.RandomHorizontalFlip(a.flip))
    if a.colour:
        steps.append(v2.ColorJitter(a.colour, a.colour, a.colour, a.colour / 8))
    out: Tensor = v2.Compose(steps)(VideoTensor(frames)) if steps else frames
    return out.as_subclass(Tensor)


def augment_boxes(image: Tensor, boxes: Tensor, labels: Tensor, a: Augmentation) -> tuple[Tensor, Tensor, Tensor]:
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    size = (image.shape[1], image.shape[2])
    steps: list[Any] = []
    if a.crop < 1:
        steps += [v2.RandomIoUCrop(min_scale=a.crop**0.5, max_scale=1.0), v2.Resize(size, antialias=True)]
    if a.flip:
        steps.append(v2.RandomHorizontalFlip(a.flip))
    if a.colour:
        steps.append(v2.ColorJitter(a.colour, a.colour, a.colour, a.colour / 8))
    steps.append(v2.SanitizeBoundingBoxes(min_size=1))
    inputs = {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "labels": labels,
    }
    out = v2.Compose(steps)(inputs)
    return out["image"].as_subclass(Tensor), out["boxes"].as_subclass(Tensor), out["labels"]
