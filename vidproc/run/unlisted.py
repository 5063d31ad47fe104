"""Videos of earlier runs that the archive no longer lists: what a job does about them.

They are taken for deleted only where a listing came to its end without them and nothing in the job
can have hidden them. In doubt they are kept, and the next run looks again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vidproc.media import Video
from vidproc.settings import Filters, Job
from vidproc.storage import is_s3
from vidproc.storage.folders import why_perhaps_there
from vidproc.tables import changes
from vidproc.tables.committed import Committed
from vidproc.tables.delta import quoted
from vidproc.tables.lake import Lake
from vidproc.video.archive import Skipped

AT_ONCE = 500
"""Videos a change: keeps predicates short."""


class Unlisted:
    """Sees what is listed, one bit for each video that the pipeline has; the rest can be removed then."""

    def __init__(self, job: Job, committed: Committed, archive_uri: str) -> None:
        self._job, self._committed = job, committed
        self._below = archive_uri.rstrip("/") + "/"
        self._seen = np.zeros(len(committed), bool)
        self._listed = False
        filters = job.filters
        self.doubt = ""
        """Why nothing may be removed, if so."""
        if job.follow is not None:
            self.doubt = "this run follows the archive, so its listing has no end"
        elif job.plan is not None:
            self.doubt = "a plan names what was due when it was made, not the archive"
        elif job.limit is not None:
            self.doubt = "with a limit the archive is not listed to its end"
        elif any((filters.min_bytes, filters.max_bytes, filters.modified_since, filters.modified_before)):
            self.doubt = "filters by size or date may hide them"

    def see(self, item: Video | Skipped) -> None:
        self._listed |= not isinstance(item, Skipped)
        place = self._committed.place(item.video_id)
        if place is not None:
            self._seen[place] = True
        if isinstance(item, Skipped) and item.error_class == "unreadable":
            self.doubt = f"{item.uri} could not be read"

    def remove(self, lake: Lake) -> int:
        """Remove them, and return how many they were. To be called when the listing has come to its end."""
        if self._seen.all():
            self.doubt = ""
        elif not self._listed:
            self.doubt = "the archive is empty: is its disk mounted?"
        if self.doubt or self._seen.all():
            return 0
        gone = tuple(self._gone(lake))
        for i in range(0, len(gone), AT_ONCE):
            chunk = gone[i : i + AT_ONCE]
            change = changes.Change(id=changes.new_id(), kind="forget", videos=chunk, pipeline=self._job.name)
            changes.submit(lake.tables, change)
        return len(gone)

    def _gone(self, lake: Lake) -> Iterator[str]:
        filters = Filters(include=self._job.filters.include, exclude=self._job.filters.exclude)
        predicate = f"pipeline = {quoted([self._job.name])}"
        for batch in lake.tables.scan("videos", ["video_id", "uri"], predicate):
            for video_id, uri in zip(batch["video_id"].to_pylist(), batch["uri"].to_pylist(), strict=True):
                place = self._committed.place(video_id)  # None: this run has just added it
                if place is None or self._seen[place] or not uri.startswith(self._below):
                    continue
                key = uri.removeprefix(self._below)
                if not filters.admits_name(key):
                    continue
                if not is_s3(self._below) and (why := why_perhaps_there(self._below.rstrip("/"), key)):
                    self.doubt = self.doubt or why
                else:
                    yield video_id
