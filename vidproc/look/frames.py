"""Rows of a lake -> the frames that they are about, as arrays."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vidproc.ask import LakeDatabase
from vidproc.ask.scenes import Scene, scenes
from vidproc.look.pool import read_all
from vidproc.look.reader import Answer, Request, State
from vidproc.storage import StorageOptions

VIDEO_LIMIT_S = 120.0
"""For reading the frames of one video."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """What one row looks like."""

    scene: Scene
    state: State
    """`shown`, or why there is no picture: gone, changed, denied, archived, away, damaged, unreadable, crashed."""
    reason: str = ""
    pixels: np.ndarray | None = None
    """uint8 (height, width, 3), RGB, upright, as the models saw it; None unless `state` is shown."""
    pts: int | None = None
    """Timestamp of the frame, in the time base of its video."""
    width: int = 0
    height: int = 0
    """Of the upright frame, which the boxes are pixels of, whatever the size of `pixels`."""


def frames(
    lake: LakeDatabase,
    rows: pa.Table | Iterable[Any],
    *,
    archive: str | None = None,
    options: StorageOptions | None = None,
    workers: int | None = None,
    max_width: int | None = None,
) -> list[Frame]:
    """Return the frame of each row, in order: rows of detections, tracks, segments or actions, or hits of a search.

    Frames come from the archive by the decoder that indexing uses, so their pixels are those that the models saw. The
    rows of one video are read in one pass, several videos at a time. A video that is gone, moved or changed since it
    was indexed gives no picture but a reason; so does a frame that does not decode.

    `archive`: where the archive is now, if it was moved. `options`: how S3 is reached. `workers`: videos read at a
    time; by default one a CPU. `max_width`: wider frames are made smaller. All frames are held in memory: use
    `read_scenes` for many. Raises ConfigError for rows that name no video of the lake, or no moment.
    """
    asked = scenes(lake, rows, archive=archive)
    found: list[Frame | None] = [None] * len(asked)
    for place, frame in read_scenes(asked, options=options, workers=workers, max_width=max_width):
        found[place] = frame
    return [frame for frame in found if frame is not None]


def read_scenes(
    asked: Sequence[Scene],
    *,
    options: StorageOptions | None = None,
    workers: int | None = None,
    max_width: int | None = None,
    limit_s: float = VIDEO_LIMIT_S,
) -> Generator[tuple[int, Frame], None, None]:
    """Yield the frame of each scene with its place, as they come; closing it ends the readers. `limit_s`: for all
    scenes of one video."""
    by_video: dict[Any, list[int]] = {}
    for place, scene in enumerate(asked):
        by_video.setdefault((scene.video, scene.plain), []).append(place)
    groups = list(by_video.values())
    requests = [
        Request(
            video=asked[places[0]].video,
            times_s=tuple(asked[p].time_s for p in places),
            pts=tuple(asked[p].pts for p in places),
            plain=asked[places[0]].plain,
            max_width=max_width,
            options=options or StorageOptions(),
            limit_s=limit_s,
        )
        for places in groups
    ]
    with closing(read_all(requests, workers=workers)) as answers:
        for group, answer in answers:
            for inside in answer.places:
                place = groups[group][inside]
                yield place, _frame(asked[place], answer)


def _frame(scene: Scene, answer: Answer) -> Frame:
    reason = answer.reason
    if answer.state != "shown" and scene.away:
        reason = f"{reason}; when it was last looked for: {scene.away}"
    width, height = answer.size
    return Frame(
        scene=scene, state=answer.state, reason=reason, pixels=answer.pixels, pts=answer.pts, width=width, height=height
    )
