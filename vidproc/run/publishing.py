"""Batches of videos whose tasks have ended, on their way into the tables."""

from __future__ import annotations

import itertools
import time

from vidproc.errors import RunAborted
from vidproc.progress import Reporter
from vidproc.run.summary import RunTally
from vidproc.runtime.metrics import Metrics
from vidproc.runtime.units import Unit, UnitEnd
from vidproc.settings import Execution
from vidproc.tables.outcome import VideoOutcome
from vidproc.tables.publish import PublishReport

MAX_ROWS_PER_COMMIT = 2_000_000
"""Rows published in one commit, at most: bounds the memory of the publishing task."""

ROWS_WORTH_LINKING = 20_000
"""Publish a batch of at least this many rows as soon as no other is being published: linking them takes a second or
two, which would otherwise be left for the end of the run."""


class Publishing:
    """Gathers videos into batches, and reads what their publication gave."""

    def __init__(self, settings: Execution, *, tally: RunTally, metrics: Metrics, reporter: Reporter) -> None:
        self._settings, self._tally, self._metrics, self._reporter = settings, tally, metrics, reporter
        self._batch: list[VideoOutcome] = []
        self._rows, self._since = 0, 0.0
        self._numbers = itertools.count()
        self._on_the_way: dict[str, tuple[VideoOutcome, ...]] = {}
        """By unit."""

    def add(self, outcome: VideoOutcome, rows: int) -> None:
        """`rows`: how many it has staged, in all tables."""
        if not self._batch:
            self._since = time.monotonic()
        self._batch.append(outcome)
        self._rows += rows

    @property
    def waiting(self) -> int:
        """Videos of the batch that is being gathered."""
        return len(self._batch)

    @property
    def held(self) -> int:
        """Videos that have ended and are not in the tables yet."""
        return len(self._batch) + sum(map(len, self._on_the_way.values()))

    @property
    def unpublished(self) -> list[VideoOutcome]:
        return [*self._batch, *itertools.chain.from_iterable(self._on_the_way.values())]

    def is_due(self, *, all_is_here: bool) -> bool:
        """Whether the batch should be published now. `all_is_here`: nothing more is on its way to it."""
        if not self._batch:
            return False
        return (
            len(self._batch) >= self._settings.publish_videos
            or self._rows >= (MAX_ROWS_PER_COMMIT if self._on_the_way else ROWS_WORTH_LINKING)
            or time.monotonic() - self._since >= self._settings.publish_seconds
            or all_is_here
        )

    def take(self) -> Unit:
        """The batch, as a unit of work; a new one is gathered from here on."""
        batch, self._batch, self._rows = tuple(self._batch), [], 0
        unit = Unit(f"publish-{next(self._numbers)}", batch, "publish")
        self._on_the_way[unit.id] = batch
        return unit

    def ended(self, end: UnitEnd) -> tuple[VideoOutcome, ...]:
        """The batch that was published. Raises RunAborted where it could not be."""
        batch = self._on_the_way[end.unit.id]
        if end.failure is not None:
            raise RunAborted(
                f"{len(batch)} finished videos could not be published: {end.failure.error}. Their work is kept in the "
                "lake's staging area: mend the cause and run the same command again."
            )
        del self._on_the_way[end.unit.id]
        report: PublishReport = end.result
        self._tally.rows.update(report.rows)
        for outcome in batch:
            if outcome.video.video_id in report.link_failed:
                self._tally.recount(outcome, "failed", "internal", "linking failed: see the failures table")
            elif outcome.video.video_id in report.missing:
                why = "its staged parts were taken away meanwhile (forget, or another run); the next run does it again"
                self._tally.recount(outcome, "failed", "transient", why)
                self._tally.taken_away += 1
                self._reporter.say(f"{outcome.video.uri}: {why}")
            self._metrics.count("vidproc_videos_total", status=outcome.status)
        self._tally.done += len(batch)
        return batch
