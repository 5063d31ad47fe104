"""Rows of a lake as pictures: a contact sheet, or a folder with one picture a row."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Any

from vidproc.ask import LakeDatabase
from vidproc.ask.scenes import Scene, scenes
from vidproc.errors import ConfigError, NotFound
from vidproc.look.frames import Frame, read_scenes
from vidproc.look.sheet import Format, SheetBox, SheetItem, captioned, contact_sheet
from vidproc.storage import StorageOptions, open_storage

FORMATS: Mapping[str, Format] = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}

TILE_WIDTH = 384
"""Of a contact sheet, in pixels."""

MAX_ON_A_SHEET = 400

INDEX = "index.json"
"""In a folder of pictures, written last: which file shows which row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What was made of some rows."""

    out: str
    """The contact sheet, or the folder; empty where there were no rows and nothing was written."""
    rows: int
    videos: int
    pictures: int
    """Rows that a picture shows. The others have a grey tile."""
    missing: Mapping[str, int]
    """Rows without a picture, by what became of it: gone, changed, denied, archived, away, damaged, ..."""
    reasons: Mapping[str, str]
    """One sentence for each of these."""


def show(
    lake: LakeDatabase,
    rows: Sequence[Any],
    out: str,
    *,
    heading: str = "",
    archive: str | None = None,
    options: StorageOptions | None = None,
    zone: tzinfo = UTC,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Shown:
    """Write a contact sheet (`out` ends in .jpg, .jpeg or .png) or a folder with one picture a row.

    A sheet replaces the file of its name. A folder must be empty or new, unless `force` lets pictures be replaced.
    Nothing is written where there are no rows. `progress(done, total)` counts rows. Raises ConfigError for a place
    that cannot be written.
    """
    sheet = sheet_format(out)
    if sheet is None:
        _check_folder(out, options, force=force)
    elif len(rows) > MAX_ON_A_SHEET:
        raise ConfigError(f"a contact sheet holds {MAX_ON_A_SHEET} rows, not {len(rows)}: lower --limit, or give OUT/")
    asked = scenes(lake, rows, archive=archive)
    if not asked:
        return Shown(out="", rows=0, videos=0, pictures=0, missing={}, reasons={})
    states: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    items: list[SheetItem | None] = [None] * len(asked)
    folder = None if sheet else _Folder(out, options)
    read = read_scenes(asked, options=options, max_width=TILE_WIDTH if sheet else None)
    for done, (place, frame) in enumerate(read, 1):
        states[frame.state] += 1
        if frame.state != "shown":
            reasons.setdefault(frame.state, frame.reason)
        item = sheet_item(frame, zone)
        if folder is not None:
            folder.put(place, frame.scene, item)
        else:
            items[place] = item
        progress(done, len(asked))
    videos = len({scene.video.video_id for scene in asked})
    if folder is not None:
        folder.conclude()
    elif sheet is not None:
        figures = (("rows", f"{len(asked):,}"), ("videos", f"{videos:,}"))
        made = [item for item in items if item is not None]
        put_file(out, contact_sheet(made, heading=heading, figures=figures, format=sheet), options)
    pictures = states.pop("shown", 0)
    return Shown(out=out, rows=len(asked), videos=videos, pictures=pictures, missing=dict(states), reasons=reasons)


def sheet_item(frame: Frame, zone: tzinfo = UTC) -> SheetItem:
    """A row's picture with its box, label and score, and below it video and time."""
    scene = frame.scene
    score = "" if scene.score is None else f" {scene.score:.2f}"
    sure = scene.score if len(scene.boxes) == 1 else None
    boxes = tuple(SheetBox(b.label, b.x_min, b.y_min, b.x_max, b.y_max, b.track_id, sure) for b in scene.boxes)
    badge = f"{scene.label.replace('_', ' ')}{score}".strip()
    return SheetItem(
        pixels=frame.pixels,
        title=scene.title,
        detail=when(scene, zone),
        badge="" if frame.pixels is not None and len(boxes) == 1 else badge,
        boxes=boxes,
        width=frame.width or None,
        reason=f"{frame.state}: {frame.reason}",
    )


def when(scene: Scene, zone: tzinfo = UTC) -> str:
    """The moment by the wall clock, or into the video where its date is not known."""
    if scene.recorded_at is not None:
        try:
            return f"{scene.recorded_at.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"
        except (OverflowError, ValueError):
            pass
    return f"at {clock(scene.time_s)}"


def clock(seconds: float) -> str:
    minutes, s = divmod(seconds, 60)
    h, m = divmod(int(minutes), 60)
    return f"{h}:{m:02d}:{s:05.2f}" if h else f"{m}:{s:05.2f}"


# --- places ------------------------------------------------------------------------------------------------


def sheet_format(out: str) -> Format | None:
    """The format of a contact sheet; None: a folder. Raises ConfigError for a name that is neither."""
    name = out.rpartition("/")[2]
    suffix = f".{name.rpartition('.')[2].lower()}" if "." in name.strip(".") else ""
    if suffix in FORMATS:
        return FORMATS[suffix]
    if suffix:
        raise ConfigError(f"{out}: a contact sheet is a .jpg or .png file; for one picture a row write {out}/")
    return None


def put_file(address: str, data: bytes, options: StorageOptions | None = None) -> None:
    """Write a file or an object whole, or not at all. Raises ConfigError where it cannot be."""
    folder, _, name = address.rpartition("/")
    if not name:
        raise ConfigError(f"{address!r} names a folder: name a file in it")
    try:
        open_storage(folder or ("/" if address.startswith("/") else "."), options=options).put(name, data)
    except NotFound as error:
        raise ConfigError(f"{address} cannot be written: {error}") from error


def _check_folder(out: str, options: StorageOptions | None, *, force: bool) -> None:
    from vidproc.storage import LocalStorage

    storage = open_storage(out, options=options)
    if isinstance(storage, LocalStorage):
        import os

        if not os.path.lexists(storage.root):
            return
    if not force and (first := next((item.key for item in storage.list()), None)) is not None:
        raise ConfigError(f"{out} is not empty (there is {first!r}): give an empty or new folder, or --force")


class _Folder:
    """One picture a row, and an index that names them."""

    def __init__(self, out: str, options: StorageOptions | None) -> None:
        self._storage = open_storage(out, options=options)
        self._rows: dict[int, dict[str, Any]] = {}
        try:
            stale = [row["file"] for row in json.loads(self._storage.get(INDEX))]
            self._storage.delete([INDEX, *(name for name in stale if re.fullmatch(r"[\w.-]+\.jpg", name))])
        except (NotFound, ValueError, TypeError, LookupError):
            pass

    def put(self, place: int, scene: Scene, item: SheetItem) -> None:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", scene.title.rpartition("/")[2].rpartition(".")[0])[:60].strip("_")
        name = f"{place + 1:04d}-{stem or 'video'}-{scene.time_s:.2f}s.jpg"
        self._storage.put(name, captioned(item))
        self._rows[place] = {
            "file": name, "uri": scene.listed_uri, "time_s": scene.time_s, "start_s": scene.start_s,
            "end_s": scene.end_s, "label": scene.label, "score": scene.score,
            "recorded_at": scene.recorded_at and scene.recorded_at.isoformat(),
            "missing": item.reason if item.pixels is None else None,
        }  # fmt: skip

    def conclude(self) -> None:
        rows = [self._rows[place] for place in sorted(self._rows)]
        self._storage.put(INDEX, json.dumps(rows, indent=1).encode() + b"\n")
