"""A process that reads frames of videos for its parent (see pool.py): one that runs `main`.

Videos are hostile input, and the codec library tells of damage by its log, which is one for a whole process. So each
reader is a process with one thread. Requests come on standard input and answers go out on standard output, both as
pickles, which only the parent and its own child exchange. A closed standard input ends the reader.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

import numpy as np

from vidproc.errors import (
    Archived,
    ConfigError,
    Denied,
    MediaError,
    NotFound,
    SourceChanged,
    TransientError,
    VidprocError,
)
from vidproc.media import Video
from vidproc.secrets import redact
from vidproc.storage import StorageOptions
from vidproc.video.container import MediaLimits, Source
from vidproc.video.moments import load_codecs, pictures_at, tick_at
from vidproc.video.probe import probe

State = Literal["shown", "gone", "changed", "denied", "archived", "away", "damaged", "unreadable", "crashed"]
"""Whether there is a picture, or why there is none."""

LIMITS = MediaLimits(max_pixels=8192 * 8192, max_frame_duration=1e9)
"""What was indexed is shown, so these are as wide as any job's: what a job declined has no rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Moments of one video."""

    video: Video
    """As it was when it was indexed."""
    times_s: tuple[float, ...]
    """Seconds on the video's clock."""
    pts: tuple[int | None, ...]
    """The frame's timestamp, where the row has one; it wins over the time."""
    plain: bool
    """The video was decoded plainly."""
    max_width: int | None
    """Wider frames are made smaller, in pixels. None: frames as they are."""
    options: StorageOptions
    limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What came of some of the moments of a request."""

    places: tuple[int, ...]
    """Which moments, by their place in the request."""
    state: State
    reason: str = ""
    pixels: np.ndarray | None = None
    """uint8 (height, width, 3), RGB, upright."""
    pts: int | None = None
    size: tuple[int, int] = (0, 0)
    """Width and height of the upright frame before it was made smaller."""


def read(request: Request) -> Iterator[Answer]:
    """Yield an answer for every moment of the request; what cannot be read has a reason."""
    left = set(range(len(request.times_s)))
    try:
        for answer in _read(request):
            left -= set(answer.places)
            yield answer
    except VidprocError as error:
        state: State = next((state for kind, state in _STATES if isinstance(error, kind)), "unreadable")
        yield Answer(places=tuple(sorted(left)), state=state, reason=redact(str(error)))


_STATES: tuple[tuple[type[VidprocError], State], ...] = (
    (NotFound, "gone"),
    (SourceChanged, "changed"),
    (Archived, "archived"),
    (Denied, "denied"),
    (ConfigError, "denied"),
    (TransientError, "away"),
    (MediaError, "unreadable"),
)


def _read(request: Request) -> Iterator[Answer]:
    video = request.video
    source = Source(options=request.options)
    source.check_as_indexed(video)
    limits = replace(LIMITS, until=time.monotonic() + request.limit_s)
    info = replace(probe(video, source, limits), plain=request.plain)
    places: dict[int, list[int]] = {}
    for place, (time_s, pts) in enumerate(zip(request.times_s, request.pts, strict=True)):
        places.setdefault(tick_at(info, time_s) if pts is None else pts, []).append(place)
    for moment in pictures_at(info, list(places), source, limits):
        at = tuple(places[moment.tick])
        if moment.pixels is None:
            yield Answer(places=at, state="damaged", reason=moment.reason)
            continue
        pixels = _fitted(moment.pixels, request.max_width)
        yield Answer(places=at, state="shown", pixels=pixels, pts=moment.pts, size=(info.width, info.height))


def _fitted(pixels: np.ndarray, max_width: int | None) -> np.ndarray:
    height, width = pixels.shape[:2]
    if max_width is None or width <= max_width:
        return pixels
    from PIL import Image

    size = (max_width, max(1, round(height * max_width / width)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer one request after the other; None ends the answers to each."""
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        for answer in read(request):
            pickle.dump(answer, answers, protocol=5)
            answers.flush()
        pickle.dump(None, answers)
        answers.flush()


def main() -> None:
    load_codecs()  # while the parent asks its lake, so that the first request does not wait for it
    # Whatever a library prints must not stand between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, answers)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)
