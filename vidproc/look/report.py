"""Write what a lake says for a person who was not there: one file, at most 8 MB."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from vidproc.ask import LakeDatabase
from vidproc.ask.scenes import scenes
from vidproc.errors import ConfigError
from vidproc.look.facts import Facts, gather
from vidproc.look.frames import Frame, read_scenes
from vidproc.look.page import Picture, page
from vidproc.look.sheet import tile
from vidproc.look.show import put_file, sheet_item, when
from vidproc.progress import spell
from vidproc.storage import StorageOptions

MAX_BYTES = 8_000_000
PICTURE_WIDTH = 480
QUALITIES = (82, 60, 35)
"""Of JPEG: pictures that would not fit are pressed harder, and then left out from the end."""

VIDEO_LIMIT_S = 60.0
"""For the pictures of one video: a report does not wait long for a store that does not answer."""


TOTAL_S = 300.0
"""For all pictures together: what is not read by then is missing, so that a night does not wait for a slow store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What was written."""

    out: str
    bytes: int
    videos: int
    pictures: int
    missing: int
    """Pictures of which the page says why they are missing."""


def report(
    lake: LakeDatabase,
    out: str,
    *,
    archive: str | None = None,
    options: StorageOptions | None = None,
    archive_options: StorageOptions | None = None,
    zone: str = "UTC",
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Reported:
    """Write the report of a lake to a file or an s3:// object, whole or not at all; an earlier one is replaced.

    `archive`: where the archive is now, if it was moved. `options`: how the place of the report is reached, and the
    archive too unless `archive_options` says otherwise. `zone`: IANA name of the time zone of hours and days. Raises
    ConfigError for a place that cannot be written.
    """
    if not out.lower().endswith((".html", ".htm")):
        raise ConfigError(f"{out}: a report is an .html file; name it such as report.html")
    try:
        own_zone = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise ConfigError(f"there is no time zone {zone!r}; give a name such as Europe/Berlin") from e
    facts = gather(lake, zone=zone)
    asked = [(heading, row) for heading, rows in facts.pictures.items() for row in rows]
    wanted = scenes(lake, [row for _, row in asked], archive=archive)
    late = f"it was not read within the {TOTAL_S:g} s that a report takes for its pictures"
    found = [Frame(scene=scene, state="away", reason=late) for scene in wanted]
    over = time.monotonic() + TOTAL_S
    read = read_scenes(
        wanted, options=archive_options or options, workers=workers, max_width=PICTURE_WIDTH, limit_s=VIDEO_LIMIT_S
    )
    with closing(read):
        for done, (place, frame) in enumerate(read, 1):
            found[place] = frame
            progress(done, len(asked))
            if time.monotonic() > over:
                break
    frames = [(heading, frame) for (heading, _), frame in zip(asked, found, strict=True)]
    data = _fitted(facts, frames, own_zone)
    put_file(out, data, options)
    shown = sum(frame.pixels is not None for _, frame in frames)
    return Reported(out=out, bytes=len(data), videos=facts.videos, pictures=shown, missing=len(frames) - shown)


def _fitted(facts: Facts, frames: list[tuple[str, Frame]], zone: tzinfo) -> bytes:
    """The page, within MAX_BYTES."""
    data = b""
    for quality in QUALITIES:
        data = page(facts, _pictures(frames, zone, quality))
        if len(data) <= MAX_BYTES:
            return data
    while frames and len(data) > MAX_BYTES:
        frames = frames[: len(frames) * 3 // 4]
        data = page(facts, _pictures(frames, zone, QUALITIES[-1]))
    return data


def _pictures(frames: list[tuple[str, Frame]], zone: tzinfo, quality: int) -> Mapping[str, list[Picture]]:
    made: dict[str, list[Picture]] = {}
    for heading, frame in frames:
        scene = frame.scene
        length = "" if scene.start_s is None or scene.end_s is None else spell(scene.end_s - scene.start_s)
        score = "" if scene.score is None else f"score {scene.score:.2f}"
        jpeg = None
        if frame.pixels is not None:
            jpeg = tile(
                sheet_item(frame, zone), width=min(PICTURE_WIDTH, max(320, frame.pixels.shape[1])), quality=quality
            )
        made.setdefault(heading, []).append(
            Picture(
                label=scene.label.replace("_", " "),
                where=f"{scene.title}, {when(scene, zone)}",
                detail=", ".join(filter(None, [length, score])),
                jpeg=jpeg,
                reason=frame.reason,
            )
        )
    return made
