"""What is in a drawn archive: boxes and tracks in every frame, actions in time. Saved as one JSON file beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from vidproc.errors import ConfigError

LABELS: Final = ("person", "car", "bus", "bicycle", "dog")

# A person would not ask for an object of which less is seen; a detector may find it or not.
MIN_VISIBLE: Final = 0.4
MIN_HEIGHT: Final = 14.0
MIN_WIDTH: Final = 6.0


@dataclass(frozen=True, slots=True)
class Box:
    """What is visible of one object in one frame."""

    label: str
    track_id: int
    """Number of the object, from 1, local to the video."""
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    """Pixels of the frame, edges of the outermost visible pixels."""
    visible: float
    """Share of the object's outline that is neither hidden nor outside the frame, 0 to 1, to three digits."""

    @property
    def difficult(self) -> bool:
        """Neither missed when not found nor wrong when found (as in PASCAL VOC)."""
        small = self.y_max - self.y_min < MIN_HEIGHT or self.x_max - self.x_min < MIN_WIDTH
        return small or self.visible < MIN_VISIBLE


@dataclass(frozen=True, slots=True)
class ActionSegment:
    """A stretch of time in which the main actor does one thing."""

    label: str
    start_s: float
    end_s: float
    track_id: int


@dataclass(frozen=True, slots=True)
class VideoTruth:
    name: str
    """Path of the video inside the archive's folder, with forward slashes."""
    fps: Fraction
    frames: tuple[tuple[Box, ...], ...]
    """Frame i is shown from i / fps."""
    segments: tuple[ActionSegment, ...]

    @property
    def duration_s(self) -> float:
        return float(len(self.frames) / self.fps)

    def at(self, time_s: float) -> tuple[Box, ...]:
        """The boxes of the frame on screen at `time_s`: the last one shown at or before it."""
        # Sample times are k / fps in float64: half a microsecond forgives their rounding, never a frame.
        index = int((time_s + 5e-7) * float(self.fps))
        return self.frames[min(max(index, 0), len(self.frames) - 1)]


@dataclass(frozen=True, slots=True)
class Truth:
    videos: tuple[VideoTruth, ...]

    def save(self, path: Path) -> None:
        document = {
            "format": 1,
            "labels": LABELS,
            "box": ["label", "track_id", "x_min", "y_min", "x_max", "y_max", "visible"],
            "videos": [
                {
                    "name": v.name,
                    "fps": str(v.fps),
                    "segments": [[s.label, s.start_s, s.end_s, s.track_id] for s in v.segments],
                    "frames": [
                        [
                            [LABELS.index(b.label), b.track_id, b.x_min, b.y_min, b.x_max, b.y_max, b.visible]
                            for b in boxes
                        ]
                        for boxes in v.frames
                    ],
                }
                for v in self.videos
            ],
        }
        path.write_text(json.dumps(document, separators=(",", ":")))

    @classmethod
    def load(cls, path: Path) -> Truth:
        """Raises ConfigError if there is no such file or it is not one of ours."""
        try:
            document = json.loads(path.read_text())
            labels = document["labels"]
            return cls(
                tuple(
                    VideoTruth(
                        v["name"],
                        Fraction(v["fps"]),
                        tuple(tuple(Box(labels[b[0]], *b[1:]) for b in boxes) for boxes in v["frames"]),
                        tuple(ActionSegment(*s) for s in v["segments"]),
                    )
                    for v in document["videos"]
                )
            )
        except FileNotFoundError as e:
            raise ConfigError(f"{path} is not there: draw the archive first (vidproc demo does)") from e
        except (ValueError, KeyError, TypeError, IndexError) as e:
            raise ConfigError(f"{path} is not a truth file of a drawn archive: {e!r}; draw the archive again") from e
