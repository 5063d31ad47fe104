"""When to try again. Pure: no clock, no cluster.

What failed is first understood as one of a few kinds; then the unit's tally of failures decides.

  kind             counts as            then
  config           -                    the run stops: an operator must change something
  media            -                    give up at once: the same bytes fail the same way
  changed          -                    give up at once: these bytes do not come back; the next run lists the new ones
  denied           -                    give up at once: this object may not be read; the next run asks again
  transient        1/infra_strikes      again, after a wait which doubles
  infrastructure   1/infra_strikes      again, after a wait which doubles
  full             4/infra_strikes      again, after a wait which doubles; then the run stops, for nothing else has room
  crash, hang, memory, exception
                   1/strikes            again at once, on another worker

A unit whose counts add up to one is given up (quarantined).
"""

from __future__ import annotations

import traceback as tb
from dataclasses import dataclass, replace
from typing import Literal

from vidproc.errors import ConfigError, Denied, DiskFull, MediaError, SourceChanged, TransientError, VidprocError
from vidproc.settings import ATTEMPTS

Kind = Literal[
    "config",
    "media",
    "changed",
    "denied",
    "transient",
    "infrastructure",
    "full",
    "crash",
    "hang",
    "memory",
    "exception",
]

PASSING: frozenset[Kind] = frozenset({"transient", "infrastructure"})
"""Faults that most likely are not the unit's: they count little against it."""

FULL_COUNTS = 4
"""As many passing failures as a full disk counts for: somebody may clear it within a minute, but seldom later."""

INPUT_FAULTS: frozenset[Kind] = frozenset({"media", "changed", "denied"})
"""Faults of the input itself: never retried, and not counted towards stopping the run."""

ERROR_CLASSES: dict[Kind, str] = {
    "infrastructure": "infrastructure",
    "crash": "crash",
    "hang": "timeout",
    "memory": "memory",
    "exception": VidprocError.error_class,
}
"""What the tables call a failure that has no class of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why one attempt failed. Holds text only, so that it can be read where the exception's class
    cannot be imported."""

    kind: Kind
    stage: str
    """Name of the step."""
    error_class: str
    error: str
    """One sentence."""
    traceback: str | None = None
    host: str = ""


def understand(error: BaseException, *, stage: str, host: str) -> Fault:
    """What an exception that a step raised means."""
    kind: Kind = "exception"
    match error:
        case ConfigError():
            kind = "config"
        case MediaError():
            kind = "media"
        case Denied():
            kind = "denied"
        case SourceChanged():
            kind = "changed"
        case DiskFull():
            kind = "full"
        case TransientError():
            kind = "transient"
        case MemoryError():
            kind = "memory"
    ours = isinstance(error, VidprocError)
    name = type(error).__name__
    return Fault(
        kind=kind,
        stage=stage,
        error_class=error.error_class if isinstance(error, VidprocError) else ERROR_CLASSES[kind],
        error=str(error) if ours and str(error) else f"{name}: {error}" if str(error) else name,
        traceback="".join(tb.format_exception(error)),
        host=host,
    )


@dataclass(frozen=True, slots=True)
class Tally:
    """Failures of one unit so far."""

    strikes: int = 0
    passing: int = 0

    def add(self, kind: Kind) -> Tally:
        if kind in PASSING:
            return replace(self, passing=self.passing + 1)
        if kind == "full":
            return replace(self, passing=self.passing + FULL_COUNTS)
        return replace(self, strikes=self.strikes + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRules:
    strikes: int = ATTEMPTS
    infra_strikes: int = 12
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Retry:
    wait_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    pass


@dataclass(frozen=True, slots=True)
class Abort:
    """Nothing else will fare better: stop the run."""


def verdict(kind: Kind, tally: Tally, rules: RetryRules) -> Retry | GiveUp | Abort:
    """What becomes of a unit after a failure of this kind; `tally` counts this failure too."""
    if kind == "config":
        return Abort()
    # strikes / rules.strikes + passing / rules.infra_strikes >= 1, in whole numbers
    spent = tally.strikes * rules.infra_strikes + tally.passing * rules.strikes
    if kind in INPUT_FAULTS or spent >= rules.strikes * rules.infra_strikes:
        return Abort() if kind == "full" else GiveUp()
    if kind in PASSING or kind == "full":
        return Retry(min(rules.first_wait_s * 2.0 ** (tally.passing - 1), rules.longest_wait_s))
    return Retry(0.0)
