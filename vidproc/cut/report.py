"""What is said of a clip that was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["copy", "exact", "encode"]


@dataclass(frozen=True, slots=True)
class ClipReport:
    """What was written. Times are seconds on the source's clock."""

    start_s: float
    """Of the first frame shown."""
    end_s: float
    """Of the end of the last frame shown."""
    mode: Mode
    """As it was done."""
    why: str = ""
    """Why it was not done as asked; empty where it was."""
    copied: int = 0
    encoded: int = 0
    """Frames."""
    encoders: tuple[str, ...] = ()
