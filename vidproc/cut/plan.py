"""Answers become clips: widened, kept inside their video, merged where they overlap, divided where too long, and named.

Pure: the same answers give the same clips with the same names, in whatever order the answers come.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

from vidproc.ask.scenes import Scene
from vidproc.errors import ConfigError
from vidproc.media import Video, content_hash

SHORTEST_S = 0.001
"""A moment without a length: its one frame is shown."""
LONGEST_PART = 48
"""Characters of a video's name, and of a label, in the name of a clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One row that a clip shows. Seconds on the video's clock."""

    start_s: float
    end_s: float
    label: str
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedClip:
    """A stretch of one video that becomes a file. Seconds on the video's clock."""

    name: str
    """Name of the file without its suffix."""
    video: Video
    """As indexed; its URI is where the archive is now."""
    listed_uri: str
    """URI in the tables."""
    start_s: float
    end_s: float
    answers: tuple[Answer, ...]
    """In order of time."""
    recorded_at: datetime | None = None
    """UTC wall-clock time of `start_s`; None where it is not known."""
    duration_s: float | None = None
    """Of the whole video; None where it is not known."""
    plain: bool = False
    """Whether the video must be decoded without the fast path."""

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s

    @property
    def label(self) -> str:
        """The labels of its answers, each once, in order of time."""
        return " + ".join(dict.fromkeys(a.label for a in self.answers if a.label))

    @property
    def camera(self) -> str:
        """The last two parts of the video's name, without the suffix."""
        return _camera(self.listed_uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class Widening:
    """How much more than the answer a clip shows, in seconds."""

    before_s: float = 2.0
    after_s: float = 2.0
    max_s: float | None = None
    """Longest clip. A longer stretch is divided into equal parts; None: it stays whole."""

    def __post_init__(self) -> None:
        given = {"--before": self.before_s, "--after": self.after_s}
        for name, value in given.items():
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is a number of seconds, 0 or more, not {value:g}")
        if self.max_s is not None and not (math.isfinite(self.max_s) and self.max_s >= 0.1):
            raise ConfigError(f"--max-seconds is at least 0.1, not {self.max_s:g}")


def plan_clips(scenes: Iterable[Scene], widening: Widening) -> list[PlannedClip]:
    """Return the clips that show all scenes, in order of video and time.

    Raises ConfigError for a scene whose times are no times.
    """
    by_video: dict[str, list[Scene]] = {}
    for scene in scenes:
        _check(scene)
        by_video.setdefault(scene.listed_uri, []).append(scene)
    clips = [clip for group in by_video.values() for clip in _of_one_video(group, widening)]
    return _named(sorted(clips, key=lambda c: (c.listed_uri, c.video.uri, c.start_s)))


def _check(scene: Scene) -> None:
    start_s, end_s = _span(scene)
    if not (math.isfinite(start_s) and math.isfinite(end_s)) or end_s < start_s or end_s < 0:
        raise ConfigError(
            f"a row of {scene.listed_uri} is about {start_s:g} s to {end_s:g} s, which is no stretch of a video: "
            "start_s and end_s are seconds from its first frame on"
        )


def _span(scene: Scene) -> tuple[float, float]:
    if scene.start_s is None:
        return scene.time_s, scene.time_s
    return float(scene.start_s), float(scene.start_s if scene.end_s is None else scene.end_s)


def _of_one_video(scenes: Sequence[Scene], widening: Widening) -> list[PlannedClip]:
    answers = {
        Answer(start_s=span[0], end_s=span[1], label=scene.label, score=scene.score)
        for scene in scenes
        for span in [_span(scene)]
    }
    ordered = sorted(answers, key=lambda a: (a.start_s, a.end_s, a.label, -1.0 if a.score is None else a.score))
    duration_s = next((s.duration_s for s in scenes if s.duration_s), None)
    stretches: list[tuple[float, float]] = []
    for answer in ordered:
        start_s, end_s = _widened(answer, widening, duration_s)
        if stretches and start_s <= stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], max(stretches[-1][1], end_s))
        else:
            stretches.append((start_s, end_s))
    first = min(scenes, key=lambda s: (s.time_s, s.label))
    zero = None if first.recorded_at is None else first.recorded_at - timedelta(seconds=first.time_s)
    clips = []
    for start_s, end_s in (part for stretch in stretches for part in _divided(*stretch, widening.max_s)):
        shown = tuple(a for a in ordered if a.start_s < end_s and max(a.end_s, a.start_s + SHORTEST_S) > start_s)
        clips.append(PlannedClip(
            name="", video=first.video, listed_uri=first.listed_uri, start_s=start_s, end_s=end_s,
            # An answer behind the end of the video is shown by no frame: the clip fails, and says so.
            answers=shown or tuple(a for a in ordered if a.start_s >= start_s)[:1],
            recorded_at=_moment(zero, start_s), duration_s=duration_s, plain=any(s.plain for s in scenes),
        ))  # fmt: skip
    return clips


def _widened(answer: Answer, widening: Widening, duration_s: float | None) -> tuple[float, float]:
    start_s = max(0.0, answer.start_s - widening.before_s)
    end_s = max(answer.end_s + widening.after_s, answer.start_s + SHORTEST_S)
    if duration_s is not None and start_s < duration_s:
        end_s = min(end_s, duration_s)
    return round(start_s, 6), round(end_s, 6)


def _divided(start_s: float, end_s: float, max_s: float | None) -> list[tuple[float, float]]:
    parts = 1 if max_s is None else max(1, math.ceil((end_s - start_s) / max_s - 1e-9))
    edges = [round(start_s + (end_s - start_s) * n / parts, 6) for n in range(parts)] + [end_s]
    return list(pairwise(edges))


def _moment(zero: datetime | None, seconds: float) -> datetime | None:
    try:
        return None if zero is None else zero + timedelta(seconds=seconds)
    except OverflowError:
        return None


# --- names ---------------------------------------------------------------------------------------------------


def _named(clips: Sequence[PlannedClip]) -> list[PlannedClip]:
    taken: set[str] = set()
    named = []
    for clip in clips:
        where = safe(_camera(clip.listed_uri)) or "video"
        what = safe(clip.label)
        for digits in (6, 12, 24):  # of the video's id: two cameras may record files of one name
            name = "-".join(filter(None, (where, content_hash(clip.listed_uri)[:digits], _clock(clip.start_s), what)))
            if name.lower() not in taken:
                break
        else:
            raise ConfigError(f"two clips would be called {name}: choose a larger --max-seconds")
        taken.add(name.lower())
        named.append(replace(clip, name=name))
    return named


def safe(text: str) -> str:
    """Return the text as a part of a file's name that no shell, store or system takes for more: ASCII letters, digits
    and `_`, not too long; empty where nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "_", plain)[:LONGEST_PART].strip("_")


def _camera(uri: str) -> str:
    name = "/".join(uri.rsplit("/", 2)[-2:])
    stem, dot, suffix = name.rpartition(".")
    return (stem if dot and "/" not in suffix and stem.rpartition("/")[2] else name).strip("/")


def _clock(seconds: float) -> str:
    """Hours, minutes, seconds and milliseconds, such that the order of names is the order of time."""
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}h{ms // 60_000 % 60:02d}m{ms // 1000 % 60:02d}s{ms % 1000:03d}"
