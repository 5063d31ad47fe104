"""Steps and a model of the main job which crash, hang or bloat their worker process on cue.

The name of a video gives the cue: `decode-segfault.mp4`, `infer-hang.mp4`, `probe-bloat.mp4`. It is heeded
while the environment variable VIDPROC_TEST_CUES is set, in the video's second task (a probe: at once).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from tests.support.fakes import Numbers, card
from tests.support.faults import strike
from tests.support.media import read_number
from vidproc.annotations import Detections
from vidproc.media import Task, Video, VideoInfo
from vidproc.models import ModelSettings
from vidproc.run.pipeline import Decode, DecodedTask, Probe, routes

FIRST_NUMBERS = {"segfault": 1000, "hang": 2000, "bloat": 3000}
"""A model sees no names: the frames of `infer-*` videos are numbered from here on."""


def _heed(step: str, uri: str) -> None:
    cue = re.search(rf"/{step}-(\w+)\.\w+$", uri)
    if cue and os.environ.get("VIDPROC_TEST_CUES"):
        strike(cue[1])


@dataclass(frozen=True, kw_only=True)
class CuedProbe(Probe):
    def __call__(self, video: Video) -> VideoInfo:
        _heed("probe", video.uri)
        return Probe.__call__(self, video)


@dataclass(frozen=True, kw_only=True)
class CuedDecode(Decode):
    def __call__(self, task: Task) -> DecodedTask:
        if task.index == 1:
            _heed("decode", task.video.uri)
        return Decode.__call__(self, task)


def cued_routes(*arguments: Any, **named: Any) -> dict[str, tuple[Any, ...]]:
    """`vidproc.run.pipeline.routes` with these steps in place of their likes."""
    kinds = {Probe: CuedProbe, Decode: CuedDecode}

    def cued(step: Any) -> Any:
        kind = kinds.get(type(step))
        return kind(**{f.name: getattr(step, f.name) for f in fields(step)}) if kind else step

    return {route: tuple(cued(s) for s in steps) for route, steps in routes(*arguments, **named).items()}


class Cued(Numbers):
    """A user's detector that is struck when it sees frame 30 of an `infer-*` video."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.card = card("detector", self.card.labels, self.card.grid, "cued")

    def detect(self, frames: np.ndarray) -> Detections:
        if os.environ.get("VIDPROC_TEST_CUES"):
            seen = {read_number(f) for f in frames}
            for fault, first in FIRST_NUMBERS.items():
                if first + 30 in seen:
                    strike(fault)
        return super().detect(frames)
