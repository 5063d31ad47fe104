"""Videos to measure with: H.264 with B-frames, drawn once and kept in a temporary folder, made longer by
copying packets. Nothing is encoded twice."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

FPS = 25
VERSION = 1
"""Grows when the drawing changes: older files are then made again."""


def cache() -> Path:
    """Where generated files are kept between runs: VIDPROC_BENCH_CACHE, or a folder of this user's below /tmp."""
    given = os.environ.get("VIDPROC_BENCH_CACHE")
    folder = Path(given) if given else Path(tempfile.gettempdir()) / f"vidproc-benchmarks-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def drawn(seconds: float, gop: int, *, width: int = 1280, height: int = 720, crf: int = 20) -> Path:
    """A textured scene under a moving camera, with things that move and a sensor's noise: `veryfast` x264
    with two B-frames and exact GOPs costs a decoder about what a film does."""
    path = cache() / f"drawn-{VERSION}-{width}x{height}-{seconds:g}s-gop{gop}-crf{crf}.mp4"
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    options = {"preset": "veryfast", "crf": str(crf), "sc_threshold": "0", "keyint_min": str(gop)}
    with av.open(str(partial), "w", format="mp4", options={"movflags": "faststart"}) as out:
        stream: Any = out.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, 2
        stream.codec_context.thread_count = 2
        for n, planes in enumerate(pictures(round(seconds * FPS), width, height)):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = n
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    partial.rename(path)
    return path


def pictures(count: int, width: int, height: int, seed: int = 0) -> Iterator[np.ndarray]:
    """uint8 (3/2 height, width): frames as yuv420p, as PyAV takes them."""
    chance = np.random.default_rng(seed)
    margin = 128
    luma = _texture(chance, height + margin, width + margin)
    u, v = (_texture(chance, (height + margin) // 2, (width + margin) // 2) // 4 + 96 for _ in range(2))
    grain = chance.normal(0, 2.5, (8, height, width)).astype(np.int8)
    things = [_Thing(chance, width, height) for _ in range(8)]
    for n in range(count):
        t = n / FPS
        x = 2 * int(margin / 4 * (1 + np.sin(t / 2)))
        y = 2 * int(margin / 4 * (1 + np.sin(t / 3)))
        out = np.empty((height * 3 // 2, width), np.uint8)
        picture = luma[y : y + height, x : x + width].copy()
        for thing in things:
            thing.draw(picture, t)
        np.clip(picture + grain[n % 8].astype(np.int16), 16, 235, out=out[:height], casting="unsafe")
        for plane, top in ((u, height), (v, height * 5 // 4)):
            part = plane[y // 2 : y // 2 + height // 2, x // 2 : x // 2 + width // 2]
            out[top : top + height // 4] = part.reshape(height // 4, width)
        yield out


def _texture(chance: np.random.Generator, height: int, width: int) -> np.ndarray:
    """int16: random detail at many scales, as ground, foliage and walls have."""
    total = np.zeros((height, width), np.float32)
    for cell, weight in ((256, 60.0), (64, 35.0), (16, 14.0), (4, 7.0)):
        coarse = chance.normal(0, 1, (height // cell + 2, width // cell + 2)).astype(np.float32)
        fine = np.kron(coarse, np.ones((cell, cell), np.float32))
        kernel = np.ones(cell, np.float32) / cell  # blurred by its own size: no hard edges
        for axis in (0, 1):
            summed = np.cumsum(fine, axis=axis)
            fine = (np.roll(summed, -cell, axis) - summed) * kernel[0]
        total += weight * fine[:height, :width]
    return np.clip(total + 120, 16, 235).astype(np.int16)


class _Thing:
    """A textured ellipse that goes its way."""

    def __init__(self, chance: np.random.Generator, width: int, height: int) -> None:
        self.h, self.w = (int(s) for s in chance.integers(height // 10, height // 4, 2))
        self.pixels = np.clip(_texture(chance, self.h, self.w) + int(chance.integers(-80, 80)), 16, 235)
        y, x = np.mgrid[-1 : 1 : self.h * 1j, -1 : 1 : self.w * 1j]
        self.mask = x * x + y * y < 1
        self.speed = chance.uniform(0.05, 0.4, 2)
        self.phase = chance.uniform(0, 6.28, 2)
        self.room = (height - self.h, width - self.w)

    def draw(self, picture: np.ndarray, t: float) -> None:
        y, x = (int(r * (1 + np.sin(s * t + p)) / 2) for r, s, p in zip(self.room, self.speed, self.phase, strict=True))
        np.copyto(picture[y : y + self.h, x : x + self.w], self.pixels, where=self.mask)


def repeated(base: Path, name: str, *, seconds: float = 0, size_bytes: int = 0) -> Path:
    """The base again and again, its packets copied with later timestamps, until it is that long or large.
    The index lies at the end, as a camera leaves it."""
    path = cache() / f"{base.stem}-{name}.mp4"
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    with av.open(str(base)) as source:
        stream = source.streams.video[0]
        packets = [
            (bytes(p), p.pts, p.dts, p.duration, p.is_keyframe)
            for p in source.demux(stream)
            if p.size and p.pts is not None
        ]
        tick = stream.time_base
        assert tick is not None
        length = round(stream.frames / FPS / tick)
        weight = sum(len(p[0]) for p in packets)
        times = round(seconds / float(length * tick)) if seconds else -(-size_bytes // weight)
        with av.open(str(partial), "w", format="mp4") as out:
            copy: Any = out.add_stream_from_template(stream)
            for n in range(times):
                for data, pts, dts, duration, key in packets:
                    packet = av.Packet(data)
                    packet.pts, packet.dts, packet.duration = pts + n * length, dts + n * length, duration
                    packet.time_base, packet.is_keyframe, packet.stream = tick, key, copy
                    out.mux_one(packet)
    partial.rename(path)
    return path


def archive(name: str, files: int, seconds: float, base_seconds: float) -> Path:
    """A folder of so many videos of 720p25, every other with GOPs of 60 and of 250 frames."""
    folder = cache() / f"{name}-{VERSION}-{files}x{seconds:g}s"
    if folder.exists():
        return folder
    partial = folder.with_suffix(".partial")
    partial.mkdir(exist_ok=True)
    for n in range(files):
        gop = (60, 250)[n % 2]
        path = repeated(drawn(base_seconds, gop), f"{seconds:g}s", seconds=seconds)
        target = partial / f"camera-{n:03d}-gop{gop}.mp4"
        target.unlink(missing_ok=True)
        os.link(path, target)
    partial.rename(folder)
    return folder


def duration_s(folder: Path) -> float:
    """Of all videos of a folder, together."""
    total = 0.0
    for path in folder.iterdir():
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            total += stream.frames / FPS
    return total


def bytes_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.iterdir())
