"""Settings of drawn scenes: size, seeds and what an actor may do."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from vidproc.demo.acts import ACTIONS

Kind = Literal["street", "activity"]

WIDTH: Final = 384
HEIGHT: Final = 288
MARGIN: Final = 10

TRAIN_SEEDS: Final = range(0, 1_000_000)
"""Seeds for training. Validation and demonstrations use seeds above, so they never meet."""
VALIDATION_SEED: Final = 1_000_000
DEMO_SEED: Final = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSettings:
    seconds: float = 10.0
    fps: Fraction = Fraction(20)
    actions: tuple[str, ...] = ACTIONS
    """What the actor of an activity scene may do; see `acts.ACTIONS` and `acts.MORE_ACTIONS`."""
    noise: float = 1.0
    """Strength of sensor noise, shake and changes of light; 0 switches them off."""
    plain: bool = False
    """Put a plain wall behind everything. Networks then learn within minutes."""

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.fps <= 0:
            raise ValueError(f"a scene needs a length and a frame rate above 0: {self}")
