"""Labelled frames as images with boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vidproc.errors import ConfigError
from vidproc.learn.data.augmentation import Augmentation, augment_boxes
from vidproc.learn.data.reader import Reader
from vidproc.learn.labels.values import LabelledFrame
from vidproc.media import Geometry, Grid


class FrameData(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Labelled frames by (epoch, index): float32 (3, h, w) from 0 to 1, and torchvision's target {boxes,
    labels, image_id} in pixels of the model's frame. Labels count from 1, as 0 is the background there."""

    def __init__(
        self,
        frames: Sequence[LabelledFrame],
        reader: Reader,
        grid: Grid,
        *,
        seed: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.frames, self.reader, self.grid, self.seed = frames, reader, grid, seed
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, i: int) -> tuple[np.ndarray, Geometry]:
        """uint8 (h, w, 3) as the model would see it. Raises ConfigError where its size is not the label's."""
        frame = self.frames[i]
        if frame.time_s is None:
            pixels, geometry = self.reader.image(frame.source, self.grid.size, frame.where)
        else:
            pixels, geometry = self.reader.moment(frame.source, frame.time_s, self.grid.size, frame.where)
        check_size(frame, geometry.width, geometry.height)
        return pixels, geometry

    def __getitem__(self, at: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
        i = at[1]
        pixels, geometry = self.read(i)
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        boxes = torch.from_numpy(to_model(self.frames[i].boxes, geometry))
        labels = torch.from_numpy(self.frames[i].class_id) + 1
        if self.augmentation is not None:
            rng = np.random.default_rng((self.seed, *at))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(rng.integers(1 << 62)))
                image, boxes, labels = augment_boxes(image, boxes, labels, self.augmentation)
        _, h, w = image.shape
        boxes = boxes.clamp(min=0).minimum(torch.tensor([w, h, w, h]))
        keep = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
        target = {"boxes": boxes[keep], "labels": labels[keep], "image_id": torch.tensor(i)}
        return image.float() / 255, target


def check_size(frame: LabelledFrame, width: int, height: int) -> None:
    """Raise ConfigError where a frame has another size than its label says: its boxes would be of other pixels."""
    if (frame.width, frame.height) != (width, height):
        raise ConfigError(
            f"{frame.where}: says {frame.width} x {frame.height} pixels, but {frame.source.uri} has "
            f"{width} x {height} (upright, square pixels)."
        )


def to_model(boxes: np.ndarray, geometry: Geometry) -> np.ndarray:
    """float32 (n, 4) in pixels of the upright frame -> of the model's frame."""
    scale = np.array([geometry.scale_x, geometry.scale_y] * 2)
    offset = np.array([geometry.offset_x, geometry.offset_y] * 2)
    out: np.ndarray = (boxes * scale + offset).astype(np.float32)
    return out
