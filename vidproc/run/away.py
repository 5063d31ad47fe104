"""Videos of earlier runs that cannot be looked at just now: their answers stay, and their rows say so.

A disk that is away for a night, or an object that is denied, is no new content. The row of such a video keeps all that
it says and gets the reason in `away`; the first run that sees the video again takes it out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from vidproc.media import content_hash
from vidproc.run.due import AWAY_CLASSES, Listed
from vidproc.settings import Filters, Job
from vidproc.storage import is_s3
from vidproc.tables import changes
from vidproc.tables.committed import Committed
from vidproc.tables.delta import quoted
from vidproc.tables.lake import Lake
from vidproc.video.archive import Skipped

_NO_FILE = ("unreadable", "broken_link", "link", "special_file")
"""Error classes that the row of a folder may have."""
_AT_ONCE = 500
"""Videos a change: keeps predicates short."""


class Away:
    """Which videos are away, over the listings of one run."""

    def __init__(self, job: Job, committed: Committed, archive_uri: str) -> None:
        self._job, self._committed = job, committed
        self._root = archive_uri.rstrip("/")
        self._filters = Filters(include=job.filters.include, exclude=job.filters.exclude)
        self._marked: dict[str, str] = dict(committed.away)
        """By video_id: what its row says."""
        self._now: dict[str, str] = {}
        """By video_id: what its row should say."""
        self._back: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self._seen = np.zeros(len(self._committed), bool)
        self._places: dict[str, Skipped] = {}
        """By URI: what may be a folder, and cannot be looked into."""

    def see(self, item: Listed, video_id: str) -> None:
        """Something is listed."""
        if (place := self._committed.place(video_id)) is not None:
            self._seen[place] = True
        if isinstance(item, Skipped) and item.error_class in AWAY_CLASSES:
            self._places[item.uri] = item

    def welcome(self, video_id: str) -> None:
        """The video can be looked at again, as far as a listing can tell."""
        if video_id in self._now or video_id in self._marked:
            self._back.add(video_id)

    def keep(self, video_id: str, why: str) -> bool:
        """The video cannot be looked at. False where that is known of this run already."""
        known = video_id in self._now and video_id not in self._back
        self._now[video_id] = why
        self._back.discard(video_id)
        return not known

    def returned(self) -> Iterator[str]:
        """Why they were kept, of the videos that this run had kept and has seen again since."""
        yield from (self._now[video_id] for video_id in self._back & self._now.keys())

    def below(self, lake: Lake) -> Iterator[tuple[str, str, Skipped]]:
        """(video_id, uri, the place) of those that the lake knows below places that could not be looked into."""
        if not self._places:
            return
        predicate = f"pipeline = {quoted([self._job.name])}"
        for batch in lake.tables.scan("videos", ["video_id", "uri"], predicate):
            for video_id, uri in zip(batch["video_id"].to_pylist(), batch["uri"].to_pylist(), strict=True):
                place = self._committed.place(video_id)
                if place is not None and self._seen[place]:
                    continue
                if (above := self._place_above(uri)) and self._filters.admits_name(uri.removeprefix(f"{self._root}/")):
                    yield video_id, uri, above

    def _place_above(self, uri: str) -> Skipped | None:
        while uri.startswith(f"{self._root}/"):
            uri = uri.rpartition("/")[0]
            if uri in self._places:
                return self._places[uri]
        return None

    def settle(self, lake: Lake, *, complete: bool) -> None:
        """At the end of a listing: has the rows say what is so. `complete`: all of the archive was listed."""
        for video_id in self._back:
            self._now.pop(video_id, None)
        away = {video_id: why for video_id, why in self._now.items() if self._marked.get(video_id) != why}
        back = self._back & self._marked.keys()
        lake.mark_away(self._job.name, away | dict.fromkeys(back))
        self._marked = {v: why for v, why in (self._marked | self._now).items() if v not in back}
        self._back = set()
        if complete and (folders := tuple(self._folders_that_were_read(lake))):
            for i in range(0, len(folders), _AT_ONCE):
                chunk = folders[i : i + _AT_ONCE]
                change = changes.Change(id=changes.new_id(), kind="forget", videos=chunk, pipeline=self._job.name)
                changes.submit(lake.tables, change)
        self._begin()

    def _folders_that_were_read(self, lake: Lake) -> Iterator[str]:
        """Folders that an earlier run could not look into, and so gave a row: they have none any more."""
        if is_s3(self._root):
            return
        predicate = f"pipeline = {quoted([self._job.name])} AND error_class IN ({quoted(_NO_FILE)})"
        rows = lake.tables.read("videos", ["video_id", "uri"], predicate)
        for video_id, uri in zip(rows["video_id"].to_pylist(), rows["uri"].to_pylist(), strict=True):
            place = self._committed.place(video_id)
            known = place is not None and not self._seen[place]  # else it is listed still, or since this run
            if known and uri.startswith(f"{self._root}/") and content_hash(uri) == video_id and _is_open_folder(uri):
                yield video_id


def _is_open_folder(path: str) -> bool:
    try:
        with os.scandir(path) as entries:
            next(entries, None)
    except OSError:
        return False
    return True
