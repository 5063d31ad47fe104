"""Labelled clips as normalised windows."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vidproc.errors import ConfigError
from vidproc.learn.data.augmentation import Augmentation, augment_video
from vidproc.learn.data.reader import Reader
from vidproc.learn.labels.values import LabelledClip
from vidproc.media import Grid
from vidproc.models.recipe import Preprocessing

EPS = 1e-6
"""Seconds of rounding in a label file that do not move a bound to the next sample."""


def sample_range(clip: LabelledClip, grid: Grid, duration_s: float) -> tuple[int, int]:
    """Return the samples first ... last - 1 of a labelled time range. A range shorter than the window is widened on
    both sides, to what the window would see when indexing. Raises ConfigError for one past the end."""
    if duration_s and clip.start_s >= duration_s:
        raise ConfigError(
            f"{clip.where}: begins at {clip.start_s:g} s, but {clip.source.uri} ends at {duration_s:g} s."
        )
    end_s = duration_s if clip.end_s is None else min(clip.end_s, duration_s)
    first, last = ceil((clip.start_s - EPS) * grid.fps), ceil((end_s - EPS) * grid.fps)
    if last - first < grid.window:
        first = max(0, (first + last - grid.window + 1) // 2)
        last = first + grid.window
    return first, last


def windows_of(frames: np.ndarray, window: int, starts: Sequence[int]) -> np.ndarray:
    """uint8 (n, h, w, 3) -> (len(starts), window, h, w, 3); past the last frame it is repeated."""
    at = np.minimum(np.asarray(starts)[:, None] + np.arange(window), len(frames) - 1)
    out: np.ndarray = frames[at]
    return out


def spread(first: int, last: int, window: int, count: int) -> list[int]:
    """`count` starts of windows in the samples first ... last - 1, evenly; one: in the middle."""
    room = max(0, last - first - window)
    if count == 1:
        return [first + room // 2]
    return [first + round(i * room / (count - 1)) for i in range(count)]


class ClipData(Dataset[tuple[Tensor, int]]):
    """Labelled clips as normalised windows: float32 (3, t, h, w) and the class, by (epoch, index)."""

    def __init__(
        self,
        clips: Sequence[LabelledClip],
        reader: Reader,
        grid: Grid,
        preprocessing: Preprocessing,
        *,
        seed: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.clips, self.reader, self.grid = clips, reader, grid
        self.preprocessing, self.seed = preprocessing, seed
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, at: tuple[int, int]) -> tuple[Tensor, int]:
        """Return a window at a random place of the time range, another one in each epoch."""
        rng, i = np.random.default_rng((self.seed, *at)), at[1]
        clip = self.clips[i]
        first, last, frames = self._frames(clip)
        start = int(rng.integers(0, max(1, last - first - self.grid.window + 1)))
        window = torch.from_numpy(windows_of(frames, self.grid.window, [start])[0]).permute(0, 3, 1, 2)
        if self.augmentation is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(rng.integers(1 << 62)))
                window = augment_video(window, self.augmentation)
        return normalise(window, self.preprocessing).transpose(0, 1).contiguous(), clip.class_id

    def views(self, i: int, count: int) -> np.ndarray:
        """uint8 (count, t, h, w, 3): windows spread evenly over the time range, for testing."""
        first, last, frames = self._frames(self.clips[i])
        return windows_of(frames, self.grid.window, spread(0, last - first, self.grid.window, count))

    def _frames(self, clip: LabelledClip) -> tuple[int, int, np.ndarray]:
        first, last = sample_range(clip, self.grid, self.reader.info(clip.source, clip.where).duration_s)
        return first, last, self.reader.samples(clip.source, self.grid, first, last, clip.where)[0]


def normalise(frames: Tensor, p: Preprocessing) -> Tensor:
    """uint8 RGB (..., 3, h, w) -> float32, cropped, in the network's colour order, (x / divisor - mean) / std."""
    if p.crop:
        height, width = frames.shape[-2:]
        top, left = (round((side - p.crop) / 2) for side in (height, width))
        frames = frames[..., top : top + p.crop, left : left + p.crop]
    if p.color == "bgr":
        frames = frames.flip(-3)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (p.mean, p.std))
    return (frames.float() / p.divisor - mean) / std
