"""What becomes of each listed object: done already, kept as it is, or due."""

from __future__ import annotations

from dataclasses import dataclass

from vidproc.errors import TransientError
from vidproc.media import VideoInfo
from vidproc.progress import Reporter
from vidproc.run.away import Away
from vidproc.run.due import Answers, Listed, listed_as, source_of
from vidproc.run.kept import KeptAnswers
from vidproc.run.listing import Listing
from vidproc.run.summary import RunTally
from vidproc.run.unlisted import Unlisted
from vidproc.run.workload import Workload
from vidproc.settings import Job
from vidproc.video.archive import Skipped


@dataclass(slots=True, eq=False, kw_only=True)
class Intake:
    """Takes objects from the listing, and hands those that are due to the workload."""

    job: Job
    listing: Listing
    answers: Answers
    away: Away
    kept: KeptAnswers
    unlisted: Unlisted | None
    workload: Workload
    tally: RunTally
    reporter: Reporter
    _rounds: int = 0
    """Listings whose end was dealt with."""

    def take(self) -> bool:
        """Deal with the next listed object. False: there is none just now."""
        limit = self.job.limit
        if limit is not None and self.tally.due >= limit:
            self.listing.close()
            return False
        item = self.listing.take()
        if item is None:
            self._settle_round()
            return False
        if self.unlisted is not None and not isinstance(item, VideoInfo):
            self.unlisted.see(item)
        self._sort(self._as_released(item))
        return True

    def _as_released(self, item: Listed) -> Listed:
        """The item; where somebody released it who knows that it can be read all the same, as one that can."""
        if isinstance(item, Skipped) and item.video is not None and item.video_id in self.answers.releases:
            return item.video
        return item

    def _settle_round(self) -> None:
        """While following the archive: deal with the end of a listing."""
        if self.job.follow is None or self.listing.rounds <= self._rounds:
            return
        self._rounds = self.listing.rounds
        try:
            self.kept.settle(complete=True)
        except TransientError as error:  # after the next listing, then
            self.reporter.say(f"what could not be looked at is not written down yet: {error}")

    def _sort(self, item: Listed) -> None:
        source, listed = source_of(item), listed_as(item)
        self.away.see(item, source.video_id)
        if self.answers.is_listed_again(source.video_id, listed):
            return
        self.tally.listed += 1
        if isinstance(item, Skipped) and self.answers.is_away(item):
            self.kept.keep(source, item.error_class, item.reason, listed)
            return
        if not isinstance(item, Skipped) and self.job.plan is None:
            self.away.welcome(source.video_id)
        if not self.answers.is_due(item) or source.video_id in self.workload.videos:
            self.tally.current += 1
            return
        self.tally.due += 1
        self.workload.begin(item)
