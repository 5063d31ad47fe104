"""The archive's listing, or a saved plan, read ahead on a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from vidproc.run.due import Listed
from vidproc.run.pipeline import storage_options
from vidproc.settings import Job
from vidproc.storage import Storage, open_storage
from vidproc.video.archive import check_there, list_videos
from vidproc.video.plan import load_plan

MAX_LISTED_AHEAD = 4096
"""Objects of a listing."""
MAX_PLANNED_AHEAD = 64
"""Videos of a saved plan. Few, because each carries its keyframe list."""

PLAN = "plan"
"""Key of a plan below the place where it was saved."""


def plan_of(job: Job, archive: Storage) -> dict[str, Any]:
    """What a saved plan depends on."""
    return {
        "archive": archive.uri,
        "recorded_at": job.recorded_at,
        "follow_links": job.follow_links,
        "max_frame_duration": job.limits.max_frame_duration,
    }


class Listing:
    """The archive's listing, read ahead so that a slow page holds nothing up. Where the job names a saved plan, that is
    read in its place: then nothing is listed, and what was probed is VideoInfo already."""

    def __init__(self, job: Job, archive: Storage) -> None:
        self._open: Callable[[], Iterator[Listed]] = lambda: list_videos(
            archive, filters=job.filters, follow_links=job.follow_links
        )
        if job.plan:
            place = open_storage(job.plan, options=storage_options(job))
            self._open = lambda: load_plan(place, PLAN, plan_of(job, archive))[1]
        self._follow = job.follow
        self._queue: queue.Queue[Listed | BaseException | None] = queue.Queue(
            MAX_PLANNED_AHEAD if job.plan else MAX_LISTED_AHEAD
        )
        self._closed = threading.Event()
        self.done = False
        self.idle = False
        """Nothing more is known of just now: at the end, or between two listings."""
        self.rounds = 0
        """How many listings have come to their end."""
        # The first object is asked for here and now: an archive that is not there is refused at once.
        self._objects = self._open()
        self._first = next(self._objects, None)
        if self._first is None and job.follow is None and job.plan is None:
            check_there(archive)

    def start(self) -> None:
        threading.Thread(target=self._read, name="listing", daemon=True).start()

    def _read(self) -> None:
        try:
            if self._first is not None:
                self._put(self._first)
            while not self._closed.is_set():
                for item in self._objects:
                    if not self._put(item):
                        return
                self._put(None)
                if self._follow is None or self._closed.wait(self._follow):
                    return
                self._objects = self._open()
        except BaseException as error:
            self._put(error)

    def _put(self, item: Listed | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.5)
                return True
            except queue.Full:
                continue
        return False

    def take(self) -> Listed | None:
        """The next object, or None: nothing just now. Then `done` says whether more may come."""
        if self.done:
            return None
        try:
            item = self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        self.idle = item is None
        self.rounds += item is None
        self.done = item is None and self._follow is None
        return item

    def close(self) -> None:
        """No more is wanted."""
        self.done = self.idle = True
        self._closed.set()
