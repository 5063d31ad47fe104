"""Makes small real videos whose every frame says which one it is, and files that are broken on purpose."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidproc.media import Video

BITS_ACROSS, BITS_DOWN = 4, 3
"""A frame's number is 12 bits, drawn as big blocks of dark and light grey: they survive any codec."""

DEFAULT_OPTIONS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "veryfast", "sc_threshold": "0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:scenecut=0:pools=1:frame-threads=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "10", "crf": "20", "svtav1-params": "lp=1"},
}
os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder greets at length


@dataclass(frozen=True)
class Made:
    """A video and the truth about it."""

    path: Path
    times: tuple[Fraction, ...]
    """When each frame is shown: seconds after the first, as the container's time base allows."""
    video: Video

    @property
    def frames(self) -> int:
        return len(self.times)

    def number_shown_at(self, seconds: Fraction) -> int:
        return max(n for n, t in enumerate(self.times) if t <= seconds)


def video_of(path: str | os.PathLike[str]) -> Video:
    """As a listing describes it."""
    info = os.stat(path)
    return Video(os.fspath(path), info.st_size, f"{info.st_mtime_ns}:{info.st_size}")


def draw(number: int, width: int, height: int) -> np.ndarray:
    """uint8 (height, width) luma: the number as blocks, with a texture that moves."""
    rows = np.arange(height) * BITS_DOWN // height
    columns = np.arange(width) * BITS_ACROSS // width
    bit = rows[:, None] * BITS_ACROSS + columns[None, :]
    luma = np.where((number >> bit) & 1, 190, 60)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return (luma + ((x * 3 + y * 5 + number * 7) % 23)).astype(np.uint8)


def read_number(pixels: np.ndarray) -> int:
    """Of an upright, unmirrored frame, uint8 (height, width, 3)."""
    height, width = pixels.shape[:2]
    number = 0
    for bit in range(BITS_ACROSS * BITS_DOWN):
        row, column = divmod(bit, BITS_ACROSS)
        block = pixels[
            (4 * row + 1) * height // (4 * BITS_DOWN) : (4 * row + 3) * height // (4 * BITS_DOWN),
            (4 * column + 1) * width // (4 * BITS_ACROSS) : (4 * column + 3) * width // (4 * BITS_ACROSS),
        ]
        number |= int(block.mean() > 130) << bit
    return number


def picture(number: int, width: int, height: int, pix_fmt: str) -> av.VideoFrame:
    luma = draw(number, width, height)
    return av.VideoFrame.from_ndarray(np.repeat(luma[:, :, None], 3, axis=2), format="rgb24").reformat(format=pix_fmt)


def make_video(
    path: Path,
    *,
    codec: str = "libx264",
    seconds: float = 2.0,
    fps: Fraction | int = 25,
    gop: int = 12,
    bframes: int = 2,
    size: tuple[int, int] = (96, 64),
    first_s: Fraction | float = 0,
    gaps: Sequence[int] | None = None,
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    mirrored: bool = False,
    aspect: Fraction | None = None,
    audio: bool = False,
    colour: tuple[int, int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    format: str | None = None,
    metadata: dict[str, str] | None = None,
    frames: Iterable[np.ndarray] | None = None,
) -> Made:
    """`gaps`: how many frame times each frame stays on screen, repeated as needed (variable rate).
    `rotation`: clockwise degrees that a player must turn. `colour`: (matrix, range) tags, as FFmpeg
    numbers them. `frames`: uint8 RGB pictures in place of the numbers."""
    width, height = size
    count = round(seconds * fps)
    tick = Fraction(1, Fraction(fps)) if not isinstance(fps, Fraction) else 1 / fps
    starts, now = [], 0
    for n in range(count):
        starts.append(now)
        now += gaps[n % len(gaps)] if gaps else 1
    drawn = iter(frames) if frames is not None else None
    with av.open(str(path), "w", format=format, options=container_options or {}) as out:
        out.metadata.update(metadata or {})
        stream: Any = out.add_stream(
            codec, rate=Fraction(fps), options=dict(DEFAULT_OPTIONS.get(codec, {})) | (options or {})
        )
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        context.gop_size, context.thread_count = gop, 1
        context.time_base = tick if codec in ("mpeg4", "mpeg2video", "mjpeg") else tick / 4
        if codec in ("libx264", "libx265", "mpeg4", "mpeg2video"):
            context.max_b_frames = bframes
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if colour is not None:
            context.colorspace, context.color_range = colour
        if rotation or mirrored:
            stream.set_display_rotation(-rotation, hflip=mirrored)
        sound: Any = out.add_stream("aac", rate=8000, layout="mono") if audio else None
        per_tick = int(tick / context.time_base)
        offset = round(Fraction(first_s) / context.time_base)
        for n, start in enumerate(starts):
            if drawn is not None:
                frame = av.VideoFrame.from_ndarray(next(drawn), format="rgb24").reformat(
                    format=pix_fmt,
                    dst_colorspace=colour[0] if colour else None,
                    dst_color_range=colour[1] if colour else None,
                )
            else:
                frame = picture(n, width, height, pix_fmt)
            frame.pts, frame.time_base = start * per_tick + offset, context.time_base
            if colour is not None:
                frame.colorspace, frame.color_range = colour
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            for n in range(int(seconds * 8000) // 1024):
                chunk = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                chunk.sample_rate, chunk.pts = 8000, n * 1024
                out.mux(sound.encode(chunk))
            out.mux(sound.encode(None))
    with av.open(str(path)) as made:
        video = made.streams.video[0]
        shown = sorted({p.pts for p in made.demux(video) if p.size and p.pts is not None and not p.is_discard})
        times = tuple((pts - shown[0]) * video.time_base for pts in shown)
    return Made(path, times, video_of(path))


def decode_whole(path: Path, stream: int = 0) -> list[av.VideoFrame]:
    """Every frame, by the plainest loop there is, in order of presentation: what ours is compared with."""
    with av.open(str(path)) as container:
        container.streams[stream].thread_count = 1
        frames = [f for f in container.decode(container.streams[stream]) if f.pts is not None]
    return sorted(frames, key=lambda f: f.pts)


def make_sound(path: Path, seconds: float = 1.0) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("aac", rate=8000, layout="mono")
        for n in range(max(1, int(seconds * 8000) // 1024)):
            chunk = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            chunk.sample_rate, chunk.pts = 8000, n * 1024
            out.mux(stream.encode(chunk))
        out.mux(stream.encode(None))
    return path


def cut_off(made: Made, path: Path, share: float) -> Video:
    """The first part of a file: with its index in front it opens, and decodes, without any error."""
    data = made.path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return video_of(path)


def damage(made: Made, path: Path, first: float, last: float, seed: int = 0) -> Video:
    """The bytes between two shares of the file replaced by noise."""
    data = bytearray(made.path.read_bytes())
    a, b = int(len(data) * first), int(len(data) * last)
    data[a:b] = np.random.default_rng(seed).integers(0, 256, b - a, np.uint8).tobytes()
    path.write_bytes(data)
    return video_of(path)
