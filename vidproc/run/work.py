"""One video between its listing and its batch, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from vidproc.media import ArchiveObject, Task, VideoInfo
from vidproc.run.remarks import merged
from vidproc.tables.outcome import Failure, Status, VideoOutcome
from vidproc.tables.staging import TaskReport
from vidproc.video.decode import coverage

PLAIN = "decoded plainly, in order: the fast path gave other pictures of it (see the failures of class verify)"
"""Warning in the row of a video on which the fast path was found wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEnd:
    """How a video ended."""

    status: Status
    error_class: str | None = None
    error: str | None = None
    coverage: float = 0.0
    """Share of the promised duration that decoded, 0 to 1."""
    found_at_the_end: bool = False
    """True: the error shows only now that all tasks have ended, so no failed attempt has told of it."""


@dataclass(slots=True, eq=False)
class VideoWork:
    """A video in work (the driver's own record, mutable)."""

    source: ArchiveObject
    listed_as: str = ""
    info: VideoInfo | None = None
    tasks: tuple[Task, ...] = ()
    waiting: set[str] = field(default_factory=set)
    """Tasks that have not ended."""
    reports: dict[str, TaskReport] = field(default_factory=dict)
    """By task_id, of tasks that are done."""
    failures: list[Failure] = field(default_factory=list)
    attempts: int = 1
    done_s: float = 0.0
    """Seconds of video in the tasks that this run has done."""
    abandoned: set[str] = field(default_factory=set)
    """Tasks of the fast path that the executor still has: what they give is thrown away."""

    @property
    def has_ended(self) -> bool:
        return not self.waiting and not self.abandoned

    def reports_in_order(self) -> list[TaskReport]:
        """Reports of the tasks that are done, in order of time."""
        return [self.reports[t.task_id] for t in self.tasks if t.task_id in self.reports]

    def end(self) -> VideoEnd:
        """Compare what decoded with what the container promised. All tasks must have ended."""
        assert self.info is not None
        reports = self.reports_in_order()
        share = coverage(self.info, [r.decode for r in reports])
        lost = {t.task_id for t in self.tasks} - set(self.reports)
        given_up = [f for f in self.failures if f.task_id in lost]
        errors = [r.decode.error for r in reports if r.decode.error]
        damaged_s = sum(r.decode.missing_s for r in reports)
        error_class: str | None = None
        error: str | None = None
        if given_up:
            error_class, error = given_up[-1].error_class, given_up[-1].error
        elif errors:
            error_class, error = "decode", errors[0]
        elif share < 1 and damaged_s > 0:
            error_class, error = "decode", f"{damaged_s:.3f} s of it are not whole: see the warnings"
        elif share < 1:
            error_class = "truncated"
            error = f"{share:.2%} of the {self.info.duration_s:.2f} s that the container promises could be decoded"
        decoded = any(r.decode.frames_decoded for r in reports)
        status: Status = "indexed" if error_class is None else "partial" if decoded else "failed"
        return VideoEnd(
            status=status,
            error_class=error_class,
            error=error,
            coverage=share if decoded else 0.0,
            found_at_the_end=bool(errors and not given_up) or error_class == "truncated",
        )

    def outcome(self, end: VideoEnd) -> VideoOutcome:
        reports = self.reports_in_order()
        return VideoOutcome(
            video=self.source,
            info=self.info,
            status=end.status,
            coverage=end.coverage,
            error_class=end.error_class,
            error=end.error,
            attempts=self.attempts,
            task_ids=tuple(r.task_id for r in reports),
            frames_decoded=sum(r.decode.frames_decoded for r in reports),
            frames_sampled=sum(r.decode.frames_sampled for r in reports),
            failures=tuple(self.failures),
            duration_s=max((r.decode.end_s or 0.0 for r in reports), default=0.0),
            warnings=self._warnings(reports),
        )

    def _warnings(self, reports: list[TaskReport]) -> tuple[str, ...]:
        """What the probe found odd, and what decoding did, each once."""
        if self.info is None:
            return ()
        plain = (PLAIN,) if self.info.plain else ()
        decoded = merged(w for r in reports for w in r.decode.warnings)
        return tuple(dict.fromkeys((*plain, *self.info.warnings, *decoded)))
