"""A unit of work, and how it ended: what a feed gives to an executor, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidproc.runtime.retry import Fault


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work: what is tried, retried and reported as one."""

    id: str
    item: Any
    """Input of the route's first step. Picklable; small, for it travels with the call."""
    route: str
    bytes: int = 0
    """Memory that it will hold between its steps; counted from admission to its end."""
    attempts_before: int = 0
    """Strikes from earlier runs."""


@dataclass(frozen=True, slots=True)
class UnitEnd:
    """A unit went through all its steps (`result`), or was given up (`failure`)."""

    unit: Unit
    result: Any
    """Output of the route's last step."""
    failure: Fault | None
    attempts: int
    """Attempts in this run: one, and one more for each time that one of its steps was tried again."""
    seconds: Mapping[str, float]
    """Spent inside each step, by its name, by the attempts that succeeded."""
