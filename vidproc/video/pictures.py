"""The samples that a task needs, and the pictures shown at them: scaled, turned upright and kept, one array a grid."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from vidproc.errors import LimitExceeded
from vidproc.media import FrameBatch, FrameSize, Geometry, Grid, Task, VideoInfo
from vidproc.video.container import MediaLimits

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

FIRST_BYTES = 512 << 20
"""Reserved at most for the frames of one grid before they come."""


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(slots=True)
class Samples:
    """The samples of one grid that a task needs, all in whole numbers: sample k is at
    k * period ticks after the origin, where period = step / scale."""

    grid: Grid
    origin: int
    step: int
    scale: int
    first: int
    """The first sample inside the task."""
    owned_end: int | None
    """One past the last sample inside the task; None: the end of the video."""
    needed_end: int | None
    """The same with what the last windows need beyond."""

    @classmethod
    def of(cls, grid: Grid, task: Task) -> Samples:
        info, bounds = task.info, task.range
        period = 1 / (grid.fps * info.time_base)
        made = cls(grid, info.origin_pts, period.numerator, period.denominator, 0, None, None)
        if bounds.start_pts is not None:
            made.first = max(0, made.at_or_after(bounds.start_pts))
        if bounds.end_pts is not None:
            made.owned_end = max(made.first, made.at_or_after(bounds.end_pts))
            made.needed_end = made.owned_end
            last_window = (made.owned_end - 1) // grid.stride * grid.stride
            if last_window >= made.first and not grid.keyframes_only:
                made.needed_end = max(made.owned_end, last_window + grid.window)
        return made

    def at_or_after(self, pts: int) -> int:
        """The first sample at or after that time."""
        return _ceil((pts - self.origin) * self.scale, self.step)

    def shown(self, start: int, end: int) -> range:
        """The needed samples at which a frame shown in [start, end) is on screen."""
        first, last = max(self.at_or_after(start), self.first), self.at_or_after(end)
        return range(first, last if self.needed_end is None else min(last, self.needed_end))

    def last_tick(self) -> int | None:
        """The last whole tick that must be known to be shown; None: the end of the video."""
        if self.needed_end is None:
            return None
        return self.origin + (self.needed_end - 1) * self.step // self.scale


@dataclass(frozen=True, slots=True)
class Layout:
    """How a decoded frame becomes a model's frame: scaled to `scaled` (upright), then placed."""

    height: int
    width: int
    scaled_height: int
    scaled_width: int
    top: int
    left: int
    """Of the scaled frame inside the model's frame; negative where it is cut."""
    fill: int
    geometry: Geometry

    @classmethod
    def of(cls, size: FrameSize, width: int, height: int) -> Layout:
        """For an upright frame of width x height."""
        h, w, top, left = height, width, 0, 0
        match size.mode:
            case "native":
                out_h, out_w = height, width
            case "stretch":
                h, w = out_h, out_w = size.height, size.width
            case "letterbox":
                out_h, out_w = size.height, size.width
                ratio = min(Fraction(out_h, height), Fraction(out_w, width))
                h, w = max(1, int(height * ratio)), max(1, int(width * ratio))
            case "crop":
                out_h, out_w = size.height, size.width
                ratio = Fraction(size.short_side, min(height, width))
                h, w = max(1, int(height * ratio)), max(1, int(width * ratio))
                top, left = -round((h - out_h) / 2), -round((w - out_w) / 2)
            case "fit":
                ratio = min(
                    Fraction(size.height, min(height, width)), Fraction(size.width or 1 << 30, max(height, width))
                )
                h, w = out_h, out_w = max(1, int(height * ratio)), max(1, int(width * ratio))
        geometry = Geometry(width, height, w / width, h / height, float(left), float(top))
        return cls(out_h, out_w, h, w, top, left, size.fill, geometry)


class Pictures:
    """The frames of one grid, written straight into one array as they come."""

    def __init__(self, samples: Samples, info: VideoInfo, limits: MediaLimits) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self.samples, self.info, self.limits = samples, info, limits
        size = samples.grid.size
        self.layout = Layout.of(size, info.width, info.height)
        self.turned = info.rotation in (90, 270)
        self._scaler = VideoReformatter()
        self._interpolation = {
            "bilinear": Interpolation.BILINEAR,
            "area": Interpolation.AREA,
            "bicubic": Interpolation.BICUBIC,
        }[size.interpolation]
        self.ids: list[int] = []
        self.times: list[float] = []
        self.pts: list[int] = []
        self.places: list[int] = []
        """Of each sample's picture in the array: a picture that stands still is kept once."""
        self._pixels = np.empty((self._expected(), self.layout.height, self.layout.width, 3), np.uint8)
        self._kept = 0
        self._last: VideoFrame | None = None

    def _expected(self) -> int:
        s = self.samples
        if s.grid.keyframes_only:
            return 16
        end = s.needed_end
        if end is None:
            end = s.at_or_after(s.origin + round(self.info.duration_s / self.info.time_base))
        # A header may claim any duration: beyond this the array grows with the frames that come.
        most = FIRST_BYTES // (3 * self.layout.height * self.layout.width) + 1
        return max(0, min(end - s.first, most))

    def add(self, frame: VideoFrame, sample: int, pts: int) -> None:
        if frame is not self._last:
            self._keep(frame)
        grid = self.samples.grid
        self.ids.append(sample)
        self.pts.append(pts)
        self.places.append(self._kept - 1)
        self.times.append(self.info.pts_to_seconds(pts) if grid.keyframes_only else float(sample / grid.fps))

    def _keep(self, frame: VideoFrame) -> None:
        if self._kept == len(self._pixels):
            if 2 * self._pixels.nbytes > self.limits.max_task_bytes:
                raise LimitExceeded(
                    f"{self.info.video.uri}: its timestamps ask for more sampled frames in one task than "
                    f"{self.limits.max_task_bytes} bytes hold"
                )
            more = np.empty((max(16, self._kept // 2), *self._pixels.shape[1:]), np.uint8)
            self._pixels = np.concatenate([self._pixels, more])
        self._draw(frame, self._pixels[self._kept])
        self._kept += 1
        self._last = frame

    def _draw(self, frame: VideoFrame, out: np.ndarray) -> None:
        y = self.layout
        h, w = (y.scaled_width, y.scaled_height) if self.turned else (y.scaled_height, y.scaled_width)
        rgb = self._scaler.reformat(
            frame, width=w, height=h, format="rgb24", interpolation=self._interpolation, threads=1
        )
        plane: Any = rgb.planes[0]
        picture = np.frombuffer(plane, np.uint8).reshape(h, plane.line_size)[:, : 3 * w].reshape(h, w, 3)
        if self.info.rotation:
            picture = np.rot90(picture, -(self.info.rotation // 90))
        if self.info.mirrored:
            picture = picture[:, ::-1]
        top, left = max(y.top, 0), max(y.left, 0)
        picture = picture[max(-y.top, 0) :, max(-y.left, 0) :][: y.height - top, : y.width - left]
        bottom, right = top + picture.shape[0], left + picture.shape[1]
        out[top:bottom, left:right] = picture
        for rest in (out[:top], out[bottom:], out[top:bottom, :left], out[top:bottom, right:]):
            rest[...] = y.fill

    def batch(self, *, at_end: bool) -> FrameBatch:
        order = np.argsort(np.asarray(self.ids, np.int64), kind="stable")
        n = len(order)
        pictures, places = self._pixels[: self._kept], np.asarray(self.places, np.int64)[order]
        if self._kept == n and not np.array_equal(places, np.arange(n)):
            pictures, places = np.ascontiguousarray(pictures[places]), np.arange(n)
        ids = np.asarray(self.ids, np.int64)[order]
        end = self.samples.owned_end
        owned = n if end is None or self.samples.grid.keyframes_only else int(np.searchsorted(ids, end))
        return FrameBatch(
            pictures,
            sample=ids,
            time_s=np.asarray(self.times, np.float64)[order],
            pts=np.asarray(self.pts, np.int64)[order],
            geometry=self.layout.geometry,
            owned=owned,
            is_last=at_end,
            picture=None if self._kept == n else places,
        )
