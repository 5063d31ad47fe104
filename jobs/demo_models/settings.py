"""How much the embedded models learn from, and from which scenes."""

from __future__ import annotations

from dataclasses import dataclass

from vidproc.demo.settings import TRAIN_SEEDS


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    seed: int = 0
    detector_scenes: int = 900
    """A third of them activity scenes; five frames of each."""
    detector_steps: int = 1300
    detector_batch: int = 24
    action_scenes: int = 700
    action_steps: int = 1800
    action_batch: int = 24
    validation_scenes: int = 60

    def scaled(self, factor: float) -> TrainSettings:
        def few(n: int) -> int:
            return max(2, round(n * factor))

        return TrainSettings(
            seed=self.seed,
            detector_scenes=few(self.detector_scenes),
            detector_steps=few(self.detector_steps),
            action_scenes=few(self.action_scenes),
            action_steps=few(self.action_steps),
            validation_scenes=few(self.validation_scenes),
        )


def first_scene(seed: int) -> int:
    """Each seed learns from 20,000 scenes of its own: the lower half for the detector, the upper for actions."""
    return TRAIN_SEEDS.start + seed * 20_000
