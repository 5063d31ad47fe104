"""The frames on screen at chosen moments of one video, by the decoder that indexing uses.

The moments are read in order of time in one pass: what needs the same group of pictures shares it, and what lies
between is leapt over. A frame that does not decode whole is none, with the reason.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np

from vidproc.media import Clip, FrameSize, Grid, Task, VideoInfo
from vidproc.video.container import MediaLimits, Source
from vidproc.video.decode import decoded
from vidproc.video.passes import MERGED_S, Result, Sweep
from vidproc.video.pictures import Layout, Samples

PASS_BYTES = 192 << 20
"""Frames kept of one pass at most; more moments are read in further passes."""

FLOAT_ERROR_S = Fraction(1, 10**9)
"""By which a time that is a fraction of seconds may be off as a float."""


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """What is on screen at one moment."""

    tick: int
    """The moment, in ticks of the video's time base on its own clock, as `pts` in the tables."""
    pixels: np.ndarray | None
    """uint8 (height, width, 3), RGB, upright. None: nothing whole is on screen then."""
    pts: int | None = None
    """Timestamp of the frame."""
    reason: str = ""
    """Why there is no picture."""


def load_codecs() -> None:
    """Load the codec library, which whoever decodes first loads otherwise."""
    import av  # noqa: F401


def tick_at(info: VideoInfo, time_s: float, *, rounding_ticks: Fraction = Fraction(0)) -> int:
    """Return the last tick at or before a time on the video's clock, in seconds. A time that misses the next tick by
    no more than floats (or by `rounding_ticks`) means that tick."""
    ticks = Fraction(time_s) / info.time_base
    slack = max(FLOAT_ERROR_S / info.time_base, rounding_ticks)
    return info.origin_pts + floor(ticks + min(slack, Fraction(1, 2)))


def pictures_at(
    info: VideoInfo, ticks: Sequence[int], source: Source, limits: MediaLimits, size: FrameSize | None = None
) -> Iterator[Moment]:
    """Yield what is on screen at each of the ticks, in order of time, each tick once. `info` is what `probe` says now.

    Raises what `decode` raises where the video cannot be read at all.
    """
    size = size or FrameSize()
    wanted = sorted(set(ticks))
    layout = Layout.of(size, info.width, info.height)
    at_once = max(1, PASS_BYTES // (3 * layout.height * layout.width))
    for start in range(0, len(wanted), at_once):
        yield from _one_pass(info, wanted[start : start + at_once], source, limits, size)


def _one_pass(
    info: VideoInfo, ticks: Sequence[int], source: Source, limits: MediaLimits, size: FrameSize
) -> Iterator[Moment]:
    task = Task(info, (Clip(ticks[0], ticks[-1] + 1),), 0, 1, "", 0)
    grid = Grid(fps=1 / info.time_base, size=size)
    result = decoded(task, lambda: _Moments(task, grid, limits, ticks), source)
    assert isinstance(result, _Moments)
    (batch,) = result.batches()
    place = {int(sample): n for n, sample in enumerate(batch.sample)}
    for i, tick in enumerate(ticks):
        n = place.get(i)
        if n is None:
            yield Moment(tick, None, reason=result.why_not(tick))
        else:
            yield Moment(tick, batch.pixels_of(np.int64(n)), int(batch.pts[n]))  # type: ignore[arg-type]


@dataclass(slots=True)
class _Chosen(Samples):
    """Samples at any ticks. Sample k is the k-th of them."""

    ticks: Sequence[int]

    def at_or_after(self, pts: int) -> int:
        return bisect_left(self.ticks, pts)

    def last_tick(self) -> int | None:
        return self.ticks[-1]


class _Moments(Result):
    """What comes of reading chosen moments."""

    def __init__(self, task: Task, grid: Grid, limits: MediaLimits, ticks: Sequence[int]) -> None:
        self._ticks = ticks
        super().__init__(task, (grid,), limits)

    def samples_of(self, grid: Grid) -> Samples:
        n = len(self._ticks)
        return _Chosen(grid, self.task.info.origin_pts, 1, 1, 0, n, n, self._ticks)

    def sweeps(self) -> list[Sweep]:
        """One for each neighbourhood of moments. A video that is only read in order is swept once."""
        info = self.info
        if info.edits:
            shown = (
                (*piece, edit)
                for tick in self._ticks
                for edit in self.edits
                if (piece := edit.media_of(tick, tick + 1)) is not None
            )
            pieces = sorted(shown, key=lambda piece: piece[:2])
        else:
            pieces = [(tick, tick, None) for tick in self._ticks]  # type: ignore[misc]
        in_order = not info.exact_timestamps or info.plain or info.counted
        near = int(MERGED_S / info.time_base)
        made: list[Sweep] = []
        for first, last, edit in pieces:
            edits = () if edit is None else (edit,)
            before = made[-1] if made else None
            if before is None or before.last is None:
                made.append(Sweep(first, last, edits))
            elif in_order or first <= before.last + near or self._share_a_group(before.last, first):
                known = tuple(e for e in edits if e not in before.edits)
                made[-1] = Sweep(before.start, max(before.last, last), (*before.edits, *known))
            else:
                made.append(Sweep(first, last, edits))
        return made

    def _share_a_group(self, earlier: int, later: int) -> bool:
        keys = self.info.keyframe_pts
        return not self.info.edits and bisect_right(keys, earlier) == bisect_right(keys, later)

    def conclude(self) -> None:
        # Whether the rest of the video is whole was not asked.
        if any(self._damage_at(tick) for tick in self._ticks):
            self.fail(f"frames are damaged or do not decode from {self._named(self.damaged)}")

    def _damage_at(self, tick: int) -> bool:
        return any(start <= tick < end for start, end in self.damaged)

    def why_not(self, tick: int) -> str:
        """Why no picture came for a moment."""
        if self._damage_at(tick):
            return "this frame is damaged or does not decode"
        if self.ended and self.end_pts is not None and tick >= self.end_pts:
            return f"the video ends before, at {self.info.pts_to_seconds(self.end_pts):.3f} s"
        if self.error:
            return self.error
        return "no frame is on screen then"
