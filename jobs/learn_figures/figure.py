"""One figure: a value on unseen scenes, and the least that it must be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    name: str
    what: str
    value: float
    least: float | None
    seconds: float = 0.0
    folder: str = ""
    """Model folder, where the figure is of a model."""
    parameters: int | None = None
    rate: str = ""
    note: str = ""

    @property
    def reached(self) -> bool:
        return self.least is None or self.value >= self.least

    def row(self) -> str:
        least = "" if self.least is None else f"{self.least:.2f}"
        size = "" if self.parameters is None else f"{self.parameters / 1e6:.2f} M"
        state = "" if self.reached else "MISSED: "
        return (
            f"{self.name:12} {size:>9} {self.rate:>15} {self.what:14} {self.value:6.3f} {least:>6} "
            f"{self.seconds:6.0f} s  {state}{self.note}"
        )


HEADING = f"{'':12} {'weights':>9} {'on 2 cores':>15} {'figure':14} {'':6} {'least':>6} {'took':>8}"
