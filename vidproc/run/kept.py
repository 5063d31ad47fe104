"""Videos that cannot be looked at just now: what the lake has of them is kept, and the run says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vidproc.errors import Archived
from vidproc.media import ArchiveObject
from vidproc.progress import Reporter
from vidproc.run.away import Away
from vidproc.run.due import Answers
from vidproc.run.summary import RunTally, counts_as_failure, named
from vidproc.tables.lake import Lake
from vidproc.tables.outcome import Failure, Status, failure_of
from vidproc.tables.publish import RunInfo, record_failures
from vidproc.video.archive import Skipped

FAILURES_PER_COMMIT = 5_000
"""Failures of videos whose answers are kept, written in one commit: bounds the memory that they take."""


class KeptAnswers:
    """Keeps the rows of videos that could not be looked at, and counts and reports them."""

    def __init__(
        self,
        lake: Lake,
        run: RunInfo,
        answers: Answers,
        away: Away,
        *,
        tally: RunTally,
        reporter: Reporter,
        follows: bool,
    ) -> None:
        self._lake, self._run, self._answers, self._away = lake, run, answers, away
        self._tally, self._reporter, self._follows = tally, reporter, follows
        self._failures: list[Failure] = []
        """Not in the lake yet."""

    def keep(
        self, source: ArchiveObject, error_class: str, reason: str, listed_as: str, failures: Sequence[Failure] = ()
    ) -> None:
        """Leave the answer as it is, and count the video as failed, or as declined where it is archived. `failures`: of
        the attempts to look at it."""
        if self._keep(source, error_class, reason, listed_as, failures):
            status = _counted_as(error_class)
            text = named(source.uri, self._why(source, reason))
            self._reporter.say(f"{status}: {text}", status=status, error_class=error_class)

    def _keep(
        self, source: ArchiveObject, error_class: str, reason: str, listed_as: str, failures: Sequence[Failure] = ()
    ) -> bool:
        """False where that was done before, while following the archive."""
        answer = self._answers.known(source.video_id)
        assert answer is not None
        if self._follows:
            self._answers.remember(source.video_id, listed_as, answer)
        if not self._away.keep(source.video_id, f"{error_class}: {reason.removeprefix(f'{source.uri}: ')}"):
            return False
        why = self._why(source, reason)
        self._failures += failures or [
            failure_of(source, self._run.run_id, stage="list", error_class=error_class, error=why)
        ]
        self._tally.kept += 1
        self._tally.count(source, _counted_as(error_class), error_class, why)
        return True

    @staticmethod
    def _why(source: ArchiveObject, reason: str) -> str:
        told = reason.removeprefix(f"{source.uri}: ")
        return f"it could not be looked at, and what the lake has of it is kept: {told}"

    def settle(self, *, complete: bool) -> None:
        """At the end of a listing: what lies below places that could not be looked into is away too, and the rows of
        all that is away say so. `complete`: all of the archive was listed."""
        for why in self._away.returned():
            error_class = why.partition(":")[0]
            status = _counted_as(error_class)
            self._tally.kept -= 1
            self._tally.statuses[status] -= 1
            self._tally.errors[error_class] -= 1
            self._tally.over_budget -= counts_as_failure(status, error_class)
        below: Counter[str] = Counter()
        for video_id, uri, place in self._away.below(self._lake):
            if self._answers.answer(video_id) is not None:
                why = f"{place.uri}: {place.reason}"
                below[why] += self._keep(Skipped(uri, why, place.error_class), place.error_class, why, "")
                self._write(FAILURES_PER_COMMIT)
        self._write(1)
        self._away.settle(self._lake, complete=complete)
        for why, number in (+below).items():  # a line for each place, not for each video
            what = f"{number} video(s) could not be looked at, and what the lake has of them is kept"
            self._reporter.say(f"{what}: {why}")

    def _write(self, at_least: int) -> None:
        if len(self._failures) >= at_least:
            record_failures(self._lake, tuple(self._failures), self._run)
            self._failures = []


def _counted_as(error_class: str) -> Status:
    """The status as which a video counts that cannot be looked at and keeps its answer."""
    return "declined" if error_class == Archived.error_class else "failed"
