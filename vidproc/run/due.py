"""Which listed objects are due: what the archive lists, against what the lake knows of it."""

from __future__ import annotations

from vidproc.media import ArchiveObject, Video, VideoInfo
from vidproc.run.release import ReleaseMarks
from vidproc.runtime.retry import ERROR_CLASSES
from vidproc.tables.committed import Committed, CommittedVideo
from vidproc.video.archive import Skipped

Listed = Video | Skipped | VideoInfo
"""An object of the archive, as a listing or a saved plan gives it."""

REFUSED_CLASSES = frozenset({"denied", "kms", "archived", "unreadable"})
"""Error classes of what may not be read as things stand, though nothing may be wrong with it."""

PASSING_CLASSES = REFUSED_CLASSES | {"transient", "source_changed", ERROR_CLASSES["infrastructure"]}
"""A video that ended so is due again in the next run; any other end is remembered."""

AWAY_CLASSES = frozenset({"unreadable", "broken_link"})
"""Error classes of what is listed and cannot be looked at just now."""

NO_ANSWER = PASSING_CLASSES | AWAY_CLASSES
"""Error classes of videos that nobody could look at."""


def source_of(item: Listed) -> ArchiveObject:
    """The object itself, without what a plan knows of its content."""
    return item.video if isinstance(item, VideoInfo) else item


def listed_as(item: Listed) -> str:
    """A text that differs whenever the content does, or whether it can be read."""
    content_id = source_of(item).content_id
    return f"{item.error_class}:{content_id}" if isinstance(item, Skipped) else content_id


def is_due(item: Listed, committed: CommittedVideo | None, pipeline_id: str) -> bool:
    """New, changed, made by another pipeline, or ended for a passing reason. What lies in an archive tier is due once
    it is restored."""
    if committed is None or committed.content_id != source_of(item).content_id or committed.pipeline_id != pipeline_id:
        return True
    if committed.status == "indexed" or committed.error_class not in PASSING_CLASSES:
        return False
    still_archived = isinstance(item, Skipped) and item.error_class == committed.error_class == "archived"
    return not still_archived


class Answers:
    """What the lake has of each video of one pipeline: by earlier runs, and by this one while it follows the
    archive."""

    def __init__(self, committed: Committed, pipeline_id: str, releases: ReleaseMarks) -> None:
        self.committed, self.releases, self._pipeline_id = committed, releases, pipeline_id
        self._by_this_run: dict[str, tuple[str, CommittedVideo]] = {}
        """By video_id how it was listed, and what was published of it."""

    def known(self, video_id: str) -> CommittedVideo | None:
        return self._by_this_run[video_id][1] if video_id in self._by_this_run else self.committed.get(video_id)

    def answer(self, video_id: str) -> CommittedVideo | None:
        """What is known; None where nobody could ever look at the video."""
        known = self.known(video_id)
        if known is None or (known.status in ("failed", "declined") and known.error_class in NO_ANSWER):
            return None
        return known

    def is_due(self, item: Listed) -> bool:
        video_id = source_of(item).video_id
        return video_id in self.releases or is_due(item, self.known(video_id), self._pipeline_id)

    def is_away(self, item: Skipped) -> bool:
        """Whether the lake has an answer for what cannot be looked at just now: that is no new content."""
        if (answer := self.answer(item.video_id)) is None:
            return False
        return item.error_class in AWAY_CLASSES or (item.video is not None and is_due(item, answer, self._pipeline_id))

    def remember(self, video_id: str, listed_as: str, answer: CommittedVideo) -> None:
        """Keep what this run has of a video, for when it is listed again."""
        self._by_this_run[video_id] = listed_as, answer

    def is_listed_again(self, video_id: str, listed_as: str) -> bool:
        """Whether this run is done with the very object."""
        return video_id in self._by_this_run and self._by_this_run[video_id][0] == listed_as
