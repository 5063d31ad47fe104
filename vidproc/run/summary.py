"""What a run comes to: counted while it goes on, summed up at its end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from vidproc.media import ArchiveObject
from vidproc.quantities import parse_failure_budget
from vidproc.tables.outcome import Status, VideoOutcome

Ending = Literal["ok", "failed", "interrupted"]
"""How a run ended; failed: above the failure budget, or aborted."""

EXIT_CODES: Mapping[Ending, int] = {"ok": 0, "failed": 1, "interrupted": 130}

MOSTLY_BUSY = 0.8
"""Share of its time from which a pool of actors is what a run waits for: the rest is handing over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """How a run ended."""

    run_id: str
    outcome: Ending
    reason: str
    """Why the exit code is what it is, in one sentence."""
    exit_code: int
    listed: int
    current: int
    due: int
    removed: int
    """Videos whose rows went, since the archive no longer lists them."""
    plain: int
    """Videos that were decoded plainly, as the fast path gave other pictures of them: see `failures`, class verify."""
    statuses: Mapping[str, int]
    errors: Mapping[str, int]
    """Videos by error class."""
    examples: Mapping[str, str]
    """One sentence for each error class."""
    rows: Mapping[str, int]
    frames_decoded: int
    frames_sampled: int
    tasks_done: int
    tasks_resumed: int
    tasks_verified: int
    """Tasks that were decoded plainly too, and gave the same frames."""
    bytes_read: int
    video_s: float
    elapsed_s: float
    busy_s: Mapping[str, float]
    """Seconds spent inside each step, over all workers."""
    actors_s: Mapping[str, float]
    """Seconds that model actors were up, by step, over all actors; empty where models have none."""
    pipeline_id: str

    @property
    def limited_by(self) -> str | None:
        """The step where more machines would help: a pool of actors that was hardly ever idle, else
        that in which most time was spent. "start-up" where the steps hardly matter: machines were
        started and models loaded for most of the time."""
        if 0 < sum(self.busy_s.values()) < self.elapsed_s / 2:
            return "start-up"
        used = {step: self.busy_s.get(step, 0.0) / up for step, up in self.actors_s.items() if up}
        busiest = max(used, key=lambda step: used[step], default=None)
        if busiest is not None and used[busiest] >= MOSTLY_BUSY:
            return busiest
        others = {step: seconds for step, seconds in self.busy_s.items() if step not in used}
        return max(others, key=lambda step: others[step], default=None)

    @property
    def speed(self) -> float:
        """Seconds of video a second."""
        return self.video_s / self.elapsed_s if self.elapsed_s else 0.0


@dataclass(slots=True, eq=False)
class RunTally:
    """The counts of a run (mutable). Videos, unless another unit is said."""

    listed: int = 0
    current: int = 0
    due: int = 0
    probed: int = 0
    done: int = 0
    kept: int = 0
    """That could not be looked at, and keep what the lake has of them."""
    taken_away: int = 0
    """Whose staged parts were gone when they were to be published."""
    removed: int = 0
    plain: int = 0
    over_budget: int = 0
    """That count against the failure budget."""
    statuses: Counter[Status] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    frames_decoded: int = 0
    frames_sampled: int = 0
    video_s: float = 0.0
    video_s_known: float = 0.0
    """Seconds of video in what was probed."""
    tasks_done: int = 0
    tasks_resumed: int = 0
    tasks_verified: int = 0
    bytes_read: int = 0
    busy_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def count(
        self, source: ArchiveObject, status: Status, error_class: str | None, error: str | None, *, by: int = 1
    ) -> None:
        """Count a video as ended so; with `by=-1` take that back."""
        self.statuses[status] += by
        if error_class is not None:
            self.errors[error_class] += by
            self.examples.setdefault(error_class, named(source.uri, error))
        self.over_budget += by * counts_as_failure(status, error_class)

    def recount(self, outcome: VideoOutcome, status: Status, error_class: str, error: str) -> None:
        """Count a video otherwise than it was counted when its last task had ended."""
        self.count(outcome.video, outcome.status, outcome.error_class, outcome.error, by=-1)
        self.count(outcome.video, status, error_class, error)

    def add(self, outcome: VideoOutcome) -> None:
        """Count a video whose last task has ended."""
        self.count(outcome.video, outcome.status, outcome.error_class, outcome.error)
        self.plain += was_decoded_plainly(outcome)
        self.frames_decoded += outcome.frames_decoded
        self.frames_sampled += outcome.frames_sampled
        self.video_s += outcome.duration_s

    def without(self, unpublished: Iterable[VideoOutcome]) -> None:
        """Take back videos that no reader sees yet: the next run counts them."""
        for outcome in unpublished:
            self.count(outcome.video, outcome.status, outcome.error_class, outcome.error, by=-1)
            self.plain -= was_decoded_plainly(outcome)

    @property
    def began(self) -> bool:
        """Something was done that stays; probing leaves nothing."""
        return bool(self.tasks_done or self.done)

    def summary(
        self,
        run_id: str,
        pipeline_id: str,
        verdict: tuple[Ending, str],
        *,
        elapsed_s: float,
        actors_s: Mapping[str, float],
    ) -> RunSummary:
        """`verdict`: how the run ended, and why."""
        outcome, reason = verdict
        return RunSummary(
            run_id=run_id,
            outcome=outcome,
            reason=reason,
            exit_code=EXIT_CODES[outcome],
            listed=self.listed,
            current=self.current,
            due=self.due,
            removed=self.removed,
            plain=self.plain,
            statuses={status: n for status, n in self.statuses.items() if n > 0},
            errors=dict(+self.errors),
            examples=dict(self.examples),
            rows=dict(self.rows),
            frames_decoded=self.frames_decoded,
            frames_sampled=self.frames_sampled,
            tasks_done=self.tasks_done,
            tasks_resumed=self.tasks_resumed,
            tasks_verified=self.tasks_verified,
            bytes_read=self.bytes_read,
            video_s=self.video_s,
            elapsed_s=elapsed_s,
            busy_s=dict(self.busy_s),
            actors_s=dict(actors_s),
            pipeline_id=pipeline_id,
        )


def verdict_of(
    tally: RunTally, outcome: Ending, reason: str, *, max_failures: str, unpublished: int
) -> tuple[Ending, str]:
    """How a run ended by its own account (`outcome`, `reason`), its failure budget and what could not be published."""
    if outcome == "ok":
        ended = sum(tally.statuses.values())
        share, number = parse_failure_budget(max_failures)
        budget = number if number is not None else (share or 0.0) * ended
        failed = f"{tally.over_budget} of {ended} videos failed"
        if tally.over_budget > budget:
            outcome, reason = "failed", f"{failed}, above the budget of {max_failures}"
        else:
            reason = f"{failed}, within {max_failures}"
    if tally.plain:
        reason += f"; {tally.plain} decoded plainly, as the fast path gave other pictures of them"
    if tally.kept:
        reason += f"; {tally.kept} could not be looked at, and keep what the lake has of them"
    if outcome != "interrupted" and tally.taken_away:  # whatever the budget: they are not in the lake
        outcome = "failed"
        reason += (
            f"; what was staged of {tally.taken_away} video(s) was taken away before it was published "
            "(vacuum, forget, or another run): run the same command again"
        )
    if tally.removed:
        reason += f"; {tally.removed} removed that the archive no longer lists"
    if outcome == "interrupted" and unpublished:
        reason += f"; {unpublished} finished video(s) are kept for it, and not in the tables yet"
    return outcome, reason


def counts_as_failure(status: Status, error_class: str | None) -> bool:
    """Whether a video counts against the failure budget. What is wrong with a file alone (declined, cut short) does
    not."""
    return status == "failed" or (status == "partial" and error_class not in ("decode", "truncated"))


def was_decoded_plainly(outcome: VideoOutcome) -> bool:
    """Whether the video was decoded without the fast path, since that was found wrong on it."""
    return outcome.info is not None and outcome.info.plain


def named(uri: str, error: str | None) -> str:
    """The sentence with the video's URI in front, once."""
    return str(error) if error and error.startswith(uri) else f"{uri}: {error}"
