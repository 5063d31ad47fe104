"""Data to tensors: labelled clips and frames, read through the decoder that indexing uses.

Nothing is unpacked to disk. What was decoded stays in memory up to `cache_bytes`, so that the epochs
after the first need not decode again where the data is small. Everything random about an example
follows from (seed, epoch, its index), so a resumed training sees what the unbroken one would have seen.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vidproc.errors import ConfigError, MediaError
from vidproc.learn.labels import IMAGES, LabelledClip, LabelledFrame
from vidproc.media import Clip, FrameSize, Geometry, Grid, Task, Video, VideoInfo
from vidproc.models.recipe import Preprocessing
from vidproc.storage import open_storage
from vidproc.video.decode import MediaLimits, Source, decode
from vidproc.video.probe import probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

EPS = 1e-6
"""Seconds of rounding in a label file that do not move a bound to the next sample."""


class Reader:
    """Frames of videos and images by time. One a process; holds the cache."""

    def __init__(self, source: Source, limits: MediaLimits, cache_bytes: int = 2 << 30) -> None:
        self.source, self.limits, self.cache_bytes = source, limits, cache_bytes
        self._infos: dict[str, VideoInfo] = {}
        self._cache: dict[object, Any] = {}
        self._held = 0

    def __reduce__(self) -> tuple[type[Reader], tuple[Source, MediaLimits, int]]:
        return type(self), (self.source, self.limits, self.cache_bytes)  # another process fills a cache of its own

    def info(self, video: Video, where: str = "") -> VideoInfo:
        """Probed once. Raises ConfigError, naming the label, where the object is no video we can use."""
        if video.uri not in self._infos:
            try:
                self._infos[video.uri] = probe(video, self.source, self.limits)
            except MediaError as e:
                raise ConfigError(f"{where or video.uri}: {e}") from e
        return self._infos[video.uri]

    def samples(self, video: Video, grid: Grid, first: int, last: int, where: str = "") -> tuple[np.ndarray, Geometry]:
        """The samples first ... last - 1 of the grid, uint8 (n, h, w, 3); fewer where the video ends
        before, but at least one. Raises ConfigError where not even the first can be decoded."""
        key = (video.uri, grid.fps, grid.size, first, last)
        if key in self._cache:
            return cast(tuple[np.ndarray, Geometry], self._cache[key])
        info = self.info(video, where)
        period = 1 / (grid.fps * info.time_base)
        start = None if first <= 0 else info.origin_pts + floor(first * period)
        clip = Clip(start, info.origin_pts + floor((last - 1) * period) + 1)
        still = Grid(fps=grid.fps, size=grid.size)
        (batch,), _ = decode(Task(info, (clip,), 0, 1, "", 0), (still,), self.source, self.limits)
        if not len(batch.pixels):
            raise ConfigError(
                f"{where or video.uri}: {video.uri} shows nothing from {float(first / grid.fps):g} to "
                f"{float(last / grid.fps):g} s (it ends at {info.duration_s:g} s, or does not decode there)."
            )
        self._keep(key, (batch.pixels, batch.geometry), batch.pixels.nbytes)
        return batch.pixels, batch.geometry

    def moment(self, video: Video, time_s: float, size: FrameSize, where: str = "") -> tuple[np.ndarray, Geometry]:
        """The frame on screen at `time_s`, uint8 (h, w, 3), however the times of a label file lie."""
        tick = self.info(video, where).time_base
        # A grid as fine as the video's clock: then every moment is a sample.
        k = floor(time_s / tick + 1e-3)
        pixels, geometry = self.samples(video, Grid(fps=1 / tick, size=size), k, k + 1, where)
        return pixels[0], geometry

    def image(self, image: Video, size: FrameSize, where: str = "") -> tuple[np.ndarray, Geometry]:
        """An image file as a model's frame, uint8 (h, w, 3). Raises ConfigError where it is none."""
        key = (image.uri, size)
        if key not in self._cache:
            with self._opened(image, where) as opened:
                frame, geometry = fit_image(np.asarray(opened.convert("RGB")), size)
            self._keep(key, (frame, geometry), frame.nbytes)
            return frame, geometry
        return cast(tuple[np.ndarray, Geometry], self._cache[key])

    def image_size(self, image: Video, where: str = "") -> tuple[int, int]:
        """Width and height, from its head. Raises ConfigError where it is no image."""
        with self._opened(image, where) as opened:
            return opened.size  # type: ignore[no-any-return]

    @contextmanager
    def _opened(self, image: Video, where: str) -> Iterator[Any]:
        from PIL import Image, UnidentifiedImageError

        folder, _, name = image.uri.rpartition("/")
        data = open_storage(folder or "/", options=self.source.options).get(name)
        try:
            with Image.open(io.BytesIO(data)) as opened:
                yield opened
        except (UnidentifiedImageError, OSError) as e:
            raise ConfigError(f"{where or image.uri}: {image.uri} is no image that can be read: {e}") from e

    def _keep(self, key: object, value: object, size: int) -> None:
        # What is in stays in: with a new random order every epoch, dropping one for another gains nothing.
        if self._held + size <= self.cache_bytes:
            self._cache[key] = value
            self._held += size


def fit_image(image: np.ndarray, size: FrameSize) -> tuple[np.ndarray, Geometry]:
    """An RGB image uint8 (h, w, 3) brought to a model's frame, as the decoder does with a video's."""
    from PIL import Image

    from vidproc.video.pictures import Layout

    layout = Layout.of(size, image.shape[1], image.shape[0])
    scaled = np.array(
        Image.fromarray(image).resize((layout.scaled_width, layout.scaled_height), Image.Resampling.BILINEAR)
    )
    if (layout.height, layout.width) == scaled.shape[:2]:
        return scaled, layout.geometry
    out = np.full((layout.height, layout.width, 3), layout.fill, np.uint8)
    top, left = max(layout.top, 0), max(layout.left, 0)
    part = scaled[max(-layout.top, 0) :, max(-layout.left, 0) :][: layout.height - top, : layout.width - left]
    out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return out, layout.geometry


# Actions


def sample_range(clip: LabelledClip, grid: Grid, duration_s: float) -> tuple[int, int]:
    """The samples of a labelled stretch, first ... last - 1. A stretch shorter than the window is widened
    on both sides, into what the window would see when indexing. Raises ConfigError for one past the end."""
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
        """A window at a random place of the stretch, anew each epoch."""
        rng, i = np.random.default_rng((self.seed, *at)), at[1]
        clip = self.clips[i]
        first, last, frames = self._frames(clip)
        start = int(rng.integers(0, max(1, last - first - self.grid.window + 1)))
        window = torch.from_numpy(windows_of(frames, self.grid.window, [start])[0]).permute(0, 3, 1, 2)
        if self.augmentation is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(rng.integers(1 << 62)))
                window = _augment_video(window, self.augmentation)
        return normalise(window, self.preprocessing).transpose(0, 1).contiguous(), clip.class_id

    def views(self, i: int, count: int) -> np.ndarray:
        """uint8 (count, t, h, w, 3): windows spread evenly over the stretch, for testing."""
        first, last, frames = self._frames(self.clips[i])
        return windows_of(frames, self.grid.window, spread(0, last - first, self.grid.window, count))

    def _frames(self, clip: LabelledClip) -> tuple[int, int, np.ndarray]:
        first, last = sample_range(clip, self.grid, self.reader.info(clip.source, clip.where).duration_s)
        return first, last, self.reader.samples(clip.source, self.grid, first, last, clip.where)[0]


def _augment_video(frames: Tensor, a: Augmentation) -> Tensor:
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


# Detection


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
                image, boxes, labels = _augment_boxes(image, boxes, labels, self.augmentation)
        _, h, w = image.shape
        boxes = boxes.clamp(min=0).minimum(torch.tensor([w, h, w, h]))
        keep = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
        target = {"boxes": boxes[keep], "labels": labels[keep], "image_id": torch.tensor(i)}
        return image.float() / 255, target


def check_size(frame: LabelledFrame, width: int, height: int) -> None:
    """Boxes are pixels of the frame that the label file describes: it must be the one that we see."""
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


def _augment_boxes(image: Tensor, boxes: Tensor, labels: Tensor, a: Augmentation) -> tuple[Tensor, Tensor, Tensor]:
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


# Order

Balance = Literal["none", "sample", "loss"]


def epoch_order(
    class_ids: NDArray[np.int64], *, seed: int, epoch: int, balanced: bool, rank: int = 0, world: int = 1
) -> list[int]:
    """The examples that one worker sees in one epoch, in order: as many for each worker.

    `balanced`: drawn with replacement, so that each class is seen equally often; else each example once,
    but for the few which fill up the last round of workers.
    """
    rng = np.random.default_rng((seed, epoch))
    n = len(class_ids)
    if balanced:
        counts = np.bincount(class_ids)
        weight = 1.0 / counts[class_ids]
        order = rng.choice(n, n, p=weight / weight.sum())
    else:
        order = rng.permutation(n)
    order = np.resize(order, -(-n // world) * world)
    return [int(i) for i in order[rank::world]]


def batches(order: Sequence[int], size: int) -> Iterator[list[int]]:
    """A last one that would be alone joins those before it: no batch norm can be trained on one value (SSDlite's
    last ones see one cell an image)."""
    starts = list(range(0, len(order), size))
    if size > 1 and len(starts) > 1 and starts[-1] == len(order) - 1:
        starts.pop()
    for start, end in pairwise([*starts, len(order)]):
        yield list(order[start:end])


def is_image(video: Video) -> bool:
    return PurePosixPath(video.uri).suffix.lower() in IMAGES


def as_fps(value: float | str | Fraction) -> Fraction:
    return value if isinstance(value, Fraction) else Fraction(str(value))
