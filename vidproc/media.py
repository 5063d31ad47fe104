"""The nouns that we take in: Video, VideoInfo, Clip, Task, Grid and FrameBatch.

Time. A video's own presentation clock starts at 0 with its first shown frame (`origin_pts`). Clip
bounds are integers in the stream's time base, so that cutting is exact; seconds are derived from
them. Sample k of a grid is the frame on screen at k / fps: the last one shown at or before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from hashlib import blake2b
from typing import Literal, Protocol

import numpy as np


def content_hash(*parts: str) -> str:
    """A 24-character id: the same parts give the same id on any machine, in any run."""
    return blake2b("\n".join(parts).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


class ArchiveObject(Protocol):
    """One object of the archive as it is named in the tables: a Video, or what is listed and not opened."""

    @property
    def uri(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def content_id(self) -> str: ...

    @property
    def modified_at(self) -> datetime | None: ...

    @property
    def video_id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Video:
    """One object of the archive, as listed. Nothing has been opened."""

    uri: str
    """`s3://bucket/key` (the key as it is, not percent-encoded) or an absolute local path."""
    size_bytes: int
    content_id: str
    """`<etag>:<size>` on S3, `<mtime_ns>:<size>` in a folder: changes when the content does."""
    modified_at: datetime | None = None
    """UTC."""

    @property
    def video_id(self) -> str:
        return content_hash(self.uri)


@dataclass(frozen=True, slots=True)
class Edit:
    """One stretch of a presentation, and the stretch of the media that is shown then. All in ticks of the stream."""

    start: int
    """On the presentation's clock, which begins at 0."""
    media: int
    """Timestamp of the media at `start`."""
    length: int
    still: bool = False
    """The picture at `media` stands for all of the stretch."""

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def last_tick(self) -> int:
        """Timestamp of what is shown last."""
        return self.media if self.still else self.media + self.length - 1

    def shows(self, start: int, end: int) -> tuple[int, int] | None:
        """When a frame of the media that lasts from `start` to `end` is on screen; None where it is not."""
        if self.still:
            return (self.start, self.end) if start <= self.media < end else None
        first, last = max(start, self.media), min(end, self.media + self.length)
        return (first - self.media + self.start, last - self.media + self.start) if first < last else None

    def media_of(self, start: int, end: int) -> tuple[int, int] | None:
        """Timestamps [first, last] of the media shown in [start, end) of the presentation; None where none is."""
        first, last = max(start, self.start), min(end, self.end)
        if first >= last:
            return None
        if self.still:
            return self.media, self.media
        return first - self.start + self.media, last - 1 - self.start + self.media


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a container's index says of one video. Sizes are of the upright frame (rotation and
    sample aspect ratio applied), in square pixels."""

    video: Video
    container: str
    codec: str
    pixel_format: str | None
    width: int
    height: int
    rotation: int
    """Degrees clockwise which make a decoded picture upright: 0, 90, 180 or 270."""
    fps: float | None
    """Average frames per second; None where the container does not say or is not believable."""
    time_base: Fraction
    origin_pts: int
    """Presentation timestamp of the first shown frame: `time_s` is 0 there."""
    duration_s: float
    """Seconds from the first shown frame to the end of the last; by the index, else by a scan."""
    frames_promised: int | None
    """Frames that the container says it holds, None where it does not say."""
    keyframe_pts: tuple[int, ...]
    """Timestamps where decoding may start, ascending; the first is not after `origin_pts`. One
    entry only where the stream cannot be entered elsewhere (no index, broken timestamps)."""
    recorded_at: datetime | None
    """UTC wall-clock time of time_s = 0."""
    stream_index: int = 0
    scanned: bool = False
    """True where the index was missing or lied, and the packets were read instead."""
    warnings: tuple[str, ...] = ()
    mirrored: bool = False
    """True where, after the rotation, left and right must be exchanged."""
    exact_timestamps: bool = True
    """False where timestamps are missing, double, go back or depend on where reading began: such a
    video is read from its start by each of its (few) tasks, on a repaired clock."""
    plain: bool = False
    """True: decoded in order, without the fast path, since the fast path was found wrong on it."""
    counted: bool = False
    """True: packets carry no presentation times that can be believed. Frames are shown in the order in which they
    leave the decoder, the n-th at the n-th decoding time."""
    edits: tuple[Edit, ...] = ()
    """Not empty: frames are shown as these say, and all timestamps here are of the presentation, not of the media."""
    held: bool = False
    """True: the last frame stays on screen until the end that the container gives, however short its own duration."""
    later_streams: tuple[int, ...] = ()
    """Indices of further video streams in which the video goes on where `stream_index` ends."""
    parameters: tuple[tuple[int, bytes], ...] = ()
    """Decoder parameters that changed on the way outside the frames: from which timestamp on, and what they are."""

    def pts_to_seconds(self, pts: int) -> float:
        return float((pts - self.origin_pts) * self.time_base)


@dataclass(frozen=True, slots=True)
class Clip:
    """A half-open range `[start_pts, end_pts)` of one video. None: from the very first frame, to
    the very last, whatever the container promised."""

    start_pts: int | None
    end_pts: int | None


@dataclass(frozen=True, slots=True)
class Task:
    """A few neighbouring clips of one video: what is decoded in one pass, retried as one, and
    what one staged part holds."""

    info: VideoInfo
    clips: tuple[Clip, ...]
    index: int
    """Place of this task in its video, from 0."""
    count: int
    """How many tasks its video has."""
    pipeline_id: str
    bytes: int
    """Predicted size of the decoded sample frames, for admission."""

    @property
    def video(self) -> Video:
        return self.info.video

    @property
    def range(self) -> Clip:
        return Clip(self.clips[0].start_pts, self.clips[-1].end_pts)

    @property
    def task_id(self) -> str:
        r, v = self.range, self.video
        # The same stretch decoded plainly is another piece of work: what the fast path staged is not its result.
        plain = ("plain",) if self.info.plain else ()
        return content_hash(v.video_id, v.content_id, f"{r.start_pts}:{r.end_pts}", self.pipeline_id, *plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSize:
    """How a model wants its frames: resized in the decoder's library, then padded or cropped.

    `native`     upright frame as it is; height and width are ignored
    `stretch`    resized to height x width whatever the aspect
    `letterbox`  resized to fit into height x width, placed at the top left, the rest is `fill`
    `crop`       shorter side resized to `short_side`, then the centre height x width cut out
    `fit`        shorter side resized to `height`, but the longer to no more than `width`
    """

    mode: Literal["native", "stretch", "letterbox", "crop", "fit"] = "native"
    height: int = 0
    width: int = 0
    short_side: int = 0
    fill: int = 114
    interpolation: Literal["bilinear", "area", "bicubic"] = "bilinear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The moments at which one model wants frames, and their size.

    Window j covers the samples j*stride ... j*stride + window - 1 and belongs to the task that
    holds the time of its first sample. Detectors have window = stride = 1.
    """

    fps: Fraction
    size: FrameSize
    window: int = 1
    stride: int = 1
    keyframes_only: bool = False
    """Sample every keyframe instead of k / fps: the cheapest look at a large archive."""

    def __post_init__(self) -> None:
        if self.fps <= 0 or self.window < 1 or self.stride < 1:
            raise ValueError(f"fps, window and stride must be positive: {self}")


@dataclass(frozen=True, slots=True)
class Geometry:
    """From a model's frame back to the upright frame: upright = (model - offset) / scale."""

    width: int
    height: int
    """Of the upright frame, pixels."""
    scale_x: float = 1.0
    scale_y: float = 1.0
    offset_x: float = 0.0
    offset_y: float = 0.0

    def to_upright(self, boxes: np.ndarray) -> np.ndarray:
        """float32 (n, 4) x_min, y_min, x_max, y_max of the model's frame -> the same in pixels of
        the upright frame, clipped to it."""
        out = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).copy()
        out[:, 0::2] = np.clip((out[:, 0::2] - self.offset_x) / self.scale_x, 0, self.width)
        out[:, 1::2] = np.clip((out[:, 1::2] - self.offset_y) / self.scale_y, 0, self.height)
        return out.astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class FrameBatch:
    """The sampled frames of one task for one grid, in order of time.

    For a grid with windows, frames past the task's end which its last windows need are here too.
    """

    pictures: np.ndarray
    """uint8, (m, height, width, 3), RGB, C-contiguous. One a sample, unless `picture` says which: a picture that
    stays on screen for many samples is kept once."""
    sample: np.ndarray
    """int64, (n,): k, the index on the grid, ascending by 1 except over frames that did not decode
    (in `keyframes_only`: the keyframe's pts - origin_pts, ascending)."""
    time_s: np.ndarray
    """float64, (n,): the sample's time k / fps on the video's clock (for keyframes: the frame's)."""
    pts: np.ndarray
    """int64, (n,): timestamp of the frame shown then, in the stream's time base."""
    geometry: Geometry
    owned: int
    """The first `owned` frames lie inside the task; the others only finish its windows."""
    is_last: bool
    """True if the video ends with this batch: its last windows may be padded."""
    picture: np.ndarray | None = None
    """int64, (n,): each sample's place in `pictures`; None where every sample has its own, in order."""

    def __post_init__(self) -> None:
        n = len(self.pictures) if self.picture is None else len(self.picture)
        if not (n == len(self.sample) == len(self.time_s) == len(self.pts)) or self.owned > n:
            raise ValueError(f"one picture, time and pts a sample: {n=}, {len(self.sample)=}, {self.owned=}")

    @property
    def pixels(self) -> np.ndarray:
        """uint8, (n, height, width, 3): the picture of each sample. A copy where pictures stand still."""
        return self.pictures if self.picture is None else self.pictures[self.picture]

    def pixels_of(self, samples: np.ndarray) -> np.ndarray:
        """uint8, (..., height, width, 3): the pictures of these samples, by their places in the batch."""
        found: np.ndarray = self.pictures[samples if self.picture is None else self.picture[samples]]
        return found


@dataclass(frozen=True, slots=True)
class DecodeReport:
    """What one task's decoding saw, compared later with what the container promised."""

    frames_decoded: int
    frames_sampled: int
    """Over all grids; a frame wanted by two grids counts once."""
    first_s: float | None
    """Time of the first frame that decoded inside the task's range, None if none did."""
    end_s: float | None
    """End (start + duration) of the last frame that decoded inside the range."""
    bytes_read: int
    seconds: float
    reached_end: bool
    """The task's range was read to its end without a demux or decode error."""
    error: str | None = None
    """The first demux or decode error inside the range, in one sentence; earlier frames stand."""
    warnings: tuple[str, ...] = field(default=())
    """Sentences on what was odd or damaged. Moments are written as `vidproc.run.remarks.moments` gives them, so that
    what several tasks say of one thing becomes one sentence of the video's row."""
    missing_s: float = 0.0
    """Seconds between `first_s` and `end_s` that are not whole: in which no frame is on screen, or one that did not
    decode or came out damaged, whether anybody wanted it or not."""
    verified: bool = False
    """The task was decoded plainly too, and gave the same frames."""
