"""A decoder whose fast path is wrong: frames that it gives are not those that plain decoding gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidproc.media import DecodeReport, FrameBatch, Task
from vidproc.run import pipeline
from vidproc.video import decode, verify

MARK = "wrong"
"""In the name of a file: the fast path is wrong on it."""


def exchanged(batch: FrameBatch) -> FrameBatch:
    """The first two pictures changed places, as where frames are put in order by the wrong clock."""
    pixels = batch.pixels.copy()
    pixels[[0, 1]] = pixels[[1, 0]]
    return replace(batch, picture=None, pictures=pixels)


def one_less(batch: FrameBatch) -> FrameBatch:
    """Without its second frame."""
    kept = np.arange(len(batch.sample)) != 1
    columns = {name: getattr(batch, name)[kept] for name in ("sample", "time_s", "pts")}
    columns |= {"pictures": batch.pixels[kept], "picture": None}
    return replace(batch, owned=batch.owned - 1, **columns)


def earlier(batch: FrameBatch) -> FrameBatch:
    """The second sample shows the frame of the first."""
    pixels, pts = batch.pixels.copy(), batch.pts.copy()
    pixels[1], pts[1] = pixels[0], pts[0]
    return replace(batch, picture=None, pictures=pixels, pts=pts)


def shade(batch: FrameBatch) -> FrameBatch:
    """One value of one pixel is another by one."""
    pixels = batch.pixels.copy()
    pixels[1, 0, 0, 0] ^= 1
    return replace(batch, picture=None, pictures=pixels)


@dataclass(frozen=True)
class FastPath:
    """`vidproc.video.decode.decode`, but wrong in the second task of every marked file."""

    fault: Callable[[FrameBatch], FrameBatch] = exchanged

    def __call__(self, task: Task, *rest: Any) -> tuple[tuple[FrameBatch, ...], DecodeReport]:
        batches, report = decode.decode(task, *rest)
        if MARK in Path(task.video.uri).name and task.index == 1 and not task.info.plain:
            batches = (self.fault(batches[0]), *batches[1:])
        return batches, report


class Decode(pipeline.Decode):
    """The step with that fast path, also in the worker of a cluster."""

    def __call__(self, task: Task) -> pipeline.DecodedTask:
        with wrong_fast_path():
            return super().__call__(task)


@contextmanager
def wrong_fast_path(fault: Callable[[FrameBatch], FrameBatch] = exchanged) -> Iterator[None]:
    """Meanwhile what vidproc takes for its fast path is wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "decode", FastPath(fault))
        yield
