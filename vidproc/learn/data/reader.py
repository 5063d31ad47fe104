"""Frames of videos and images by time, read through the decoder that indexing uses.

Nothing is unpacked to disk. Decoded frames stay in memory up to `cache_bytes`, so that where the data is small the
epochs after the first do not decode again.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from math import floor
from pathlib import PurePosixPath
from typing import Any, cast

import numpy as np

from vidproc.errors import ConfigError, MediaError
from vidproc.learn.labels.values import IMAGES
from vidproc.media import Clip, FrameSize, Geometry, Grid, Task, Video, VideoInfo
from vidproc.storage import open_storage
from vidproc.video.decode import MediaLimits, Source, decode
from vidproc.video.moments import tick_at
from vidproc.video.probe import probe


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
        info = self.info(video, where)
        # A grid as fine as the video's clock: then every moment is a sample.
        k = tick_at(info, time_s, rounding_ticks=Fraction(1, 1000)) - info.origin_pts
        pixels, geometry = self.samples(video, Grid(fps=1 / info.time_base, size=size), k, k + 1, where)
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


def is_image(video: Video) -> bool:
    return PurePosixPath(video.uri).suffix.lower() in IMAGES
