"""The nouns that we give out: Detections and Actions, as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Objects found in a batch of frames, one entry an object, ordered by frame."""

    frame: np.ndarray
    """int64, (m,): index into the batch of frames."""
    boxes: np.ndarray
    """float32, (m, 4): x_min, y_min, x_max, y_max in pixels of the frame that the model saw."""
    score: np.ndarray
    """float32, (m,), 0 to 1."""
    class_id: np.ndarray
    """int64, (m,): index into the model's labels."""

    def __post_init__(self) -> None:
        m = len(self.frame)
        if self.boxes.shape != (m, 4) or len(self.score) != m or len(self.class_id) != m:
            raise ValueError(
                f"columns differ in length: {m=}, {self.boxes.shape=}, {len(self.score)=}, {len(self.class_id)=}"
            )

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, mask: np.ndarray) -> Detections:
        return Detections(self.frame[mask], self.boxes[mask], self.score[mask], self.class_id[mask])

    def repeated(self, frames: np.ndarray) -> Detections:
        """Those of other frames that show the same pictures. `frames`: int64 (n,), for each new frame the one
        here that it equals."""
        first = np.searchsorted(self.frame, frames)
        count = np.searchsorted(self.frame, frames, side="right") - first
        new = np.repeat(np.arange(len(frames)), count)
        rows = np.repeat(first, count) + np.arange(len(new)) - np.repeat(np.cumsum(count) - count, count)
        return Detections(new, self.boxes[rows], self.score[rows], self.class_id[rows])

    @classmethod
    def empty(cls) -> Detections:
        """A frame with nothing in it is ordinary."""
        return cls(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    @classmethod
    def concatenate(cls, parts: list[Detections]) -> Detections:
        if not parts:
            return cls.empty()
        return cls(
            *(np.concatenate([getattr(p, name) for p in parts]) for name in ("frame", "boxes", "score", "class_id"))
        )
