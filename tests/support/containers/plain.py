"""The plainest reading of a file there is: open it, decode everything in order."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from tests.support.containers.numbers import read


@dataclass(frozen=True)
class Picture:
    at: Fraction | None
    """Seconds, as FFmpeg has it; None where it gives no time."""
    number: int | None


@dataclass(frozen=True)
class Reading:
    pictures: tuple[Picture, ...]
    """In the order in which they come. What does not decode is left out."""
    first_sign: Fraction | None
    """When the decoder or demuxer first said that something is wrong (an error, a corrupt flag, a line in its log), by
    the time of the picture before; None: never."""


def decode(path: Path, stream: int = 0) -> Reading:
    """`stream`: among the video streams."""
    out: list[Picture] = []
    sign: Fraction | None = None
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as lines, av.open(str(path), metadata_errors="replace") as container:
            video: Any = container.streams.video[stream]
            video.thread_count = 1
            packets = container.demux(video)
            while True:
                wrong = False
                try:
                    packet = next(packets, None)
                except (av.error.FFmpegError, IndexError):
                    packet, wrong = None, True
                try:
                    frames = video.decode(packet)
                except av.error.FFmpegError:
                    frames, wrong = [], True
                for frame in frames:
                    wrong |= frame.is_corrupt
                    number = read(frame.to_ndarray(format="rgb24")[None])[0]
                    out.append(Picture(None if frame.pts is None else frame.pts * Fraction(frame.time_base), number))
                if sign is None and (wrong or lines):
                    times = [p.at for p in out[:-1] if p.at is not None]
                    sign = max(times) - times[0] if times else Fraction(0)
                if packet is None or not packet.size:
                    return Reading(tuple(out), sign)
    finally:
        av.logging.set_level(av.logging.PANIC)
