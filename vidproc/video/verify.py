"""The fast path checks itself: some tasks are decoded plainly too, and the sampled frames are compared.

Which tasks is decided by a hash of their id, so it does not depend on the machine, the order or the run. Where a frame
differs, the fast path is wrong on that file, and nothing that it gave of it can be trusted: FastPathWrong tells the
driver, which has the whole video decoded plainly.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidproc.errors import FastPathWrong, MediaError
from vidproc.media import DecodeReport, FrameBatch, Grid, Task, content_hash
from vidproc.video.container import MediaLimits, Source
from vidproc.video.decode import decode, decode_plainly

MAX_SHARE_OF_TIME = 0.8
"""Share of an attempt's time limit after which verifying gives up. Checking a task must not cost it a strike."""


def is_chosen(task_id: str, share: float) -> bool:
    """Whether a task is among the `share` (0 to 1) of tasks that are verified."""
    return int(content_hash("verify", task_id)[:13], 16) < share * 16**13


def decode_and_verify(
    task: Task, grids: Sequence[Grid], source: Source, limits: MediaLimits, *, share: float, time_limit_s: float
) -> tuple[tuple[FrameBatch, ...], DecodeReport]:
    """As `decode`, and where the task is among the `share` that is verified, plainly too.

    Raises FastPathWrong where the two differ. Where plain decoding cannot be done, or not in time, the fast path's
    frames stand and the report does not say `verified`."""
    began = time.monotonic()
    batches, report = decode(task, grids, source, limits)
    if task.info.plain or not is_chosen(task.task_id, share):
        return batches, report
    until = began + MAX_SHARE_OF_TIME * time_limit_s
    try:
        plain, plain_report = decode_plainly(task, grids, source, replace(limits, until=until))
    except (MediaError, MemoryError):
        return batches, report
    damaged = not plain_report.reached_end or plain_report.missing_s > 0
    first = first_difference(task, grids, batches, plain, damaged=damaged)
    if first is not None:
        raise FastPathWrong(f"{task.video.uri}: the fast path gave other pictures than plain decoding {_range(task)}: "
                            f"{first}")  # fmt: skip
    both = {name: getattr(report, name) + getattr(plain_report, name) for name in ("seconds", "bytes_read")}
    return batches, replace(report, **both, verified=True)


def first_difference(
    task: Task,
    grids: Sequence[Grid],
    fast: Sequence[FrameBatch],
    plain: Sequence[FrameBatch],
    *,
    damaged: bool,
) -> str | None:
    """The earliest sample of any grid at which the two differ, and how, in words; None where all are equal.

    damaged: not all of the range decodes. Then a sample that only one of the two has is no difference."""
    found = [d for g, f, p in zip(grids, fast, plain, strict=True) for d in _differences(task, g, f, p, damaged)]
    if not found:
        return None
    first = min(found, key=lambda d: d.time_s)
    return f"{first.text} ({len(found)} of {sum(len(p.sample) for p in plain)} samples differ)"


@dataclass(frozen=True, slots=True)
class _Difference:
    time_s: float
    text: str


def _differences(task: Task, grid: Grid, fast: FrameBatch, plain: FrameBatch, damaged: bool) -> list[_Difference]:
    seconds = task.info.pts_to_seconds
    places = [{int(k): i for i, k in enumerate(batch.sample)} for batch in (fast, plain)]
    out = []
    for k in sorted(places[0].keys() | places[1].keys()):
        i, j = (place.get(k) for place in places)
        if i is None or j is None:
            if damaged:
                continue
            batch, at, who = (plain, j, "only plain decoding") if i is None else (fast, i, "only the fast path")
            assert at is not None
            time_s = float(batch.time_s[at])
            how = f"{who} has a frame there (of {seconds(int(batch.pts[at])):.3f} s)"
        elif fast.pts[i] != plain.pts[j]:
            time_s = float(plain.time_s[j])
            how = f"the fast path shows the frame of {seconds(int(fast.pts[i])):.3f} s, plain decoding that of " \
                  f"{seconds(int(plain.pts[j])):.3f} s"  # fmt: skip
        elif not np.array_equal(fast.pixels_of(np.asarray(i)), plain.pixels_of(np.asarray(j))):
            time_s = float(plain.time_s[j])
            apart = np.abs(fast.pixels_of(np.asarray(i)).astype(np.int16) - plain.pixels_of(np.asarray(j)))
            how = f"the pictures of the frame of {seconds(int(plain.pts[j])):.3f} s differ by {apart.mean():.2f} of " \
                  f"255 on average, by {apart.max()} at most"  # fmt: skip
        else:
            continue
        name = f"keyframe {k}" if grid.keyframes_only else f"sample {k} of {float(grid.fps):g}/s"
        out.append(_Difference(time_s, f"{name} at {time_s:.3f} s: {how}"))
    return out


def _range(task: Task) -> str:
    info, r = task.info, task.range
    start = 0.0 if r.start_pts is None else info.pts_to_seconds(r.start_pts)
    end = "its end" if r.end_pts is None else f"{info.pts_to_seconds(r.end_pts):.3f} s"
    return f"from {start:.3f} s to {end}"
