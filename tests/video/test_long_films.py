"""Films that last, and of which no index tells where a decoder can be entered: they come in tasks that end in time."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from tests.support.containers import avi
from tests.support.containers.kinds import avi_payload
from tests.support.containers.numbers import read
from tests.support.containers.streams import encode, recipe
from tests.support.media import video_of
from vidproc.media import DecodeReport, FrameBatch, FrameSize, Grid, VideoInfo
from vidproc.video.container import MediaLimits, Source
from vidproc.video.decode import coverage, decode
from vidproc.video.plan import CutSettings, cut, task_seconds
from vidproc.video.probe import probe

GRID = Grid(fps=Fraction(1, 7), size=FrameSize())
PICTURES = 3000
"""One a second: fifty minutes."""
NUMBERS = [(k, 7 * k) for k in range(-(-PICTURES // 7))]


def made(path: Path, codec: str, bframes: int, index: str) -> VideoInfo:
    stream = encode(recipe(codec, frames=PICTURES, gop=50, bframes=bframes, size=(96, 64)))
    payloads = [avi_payload(stream, p) for p in stream.packets]
    path.write_bytes(avi.write(stream, payloads, Fraction(1), avi.Layout(index=index))[0])
    return probe(video_of(path), Source(), MediaLimits())


def decoded(info: VideoInfo) -> tuple[list[tuple[int, int | None]], list[DecodeReport], float]:
    """Samples with the numbers they show, and the seconds of the longest task."""
    tasks = cut(info, CutSettings(clip_seconds=60, clips_per_task=1), [GRID], "p")
    found: list[tuple[int, int | None]] = []
    reports = []
    for task in tasks:
        batch: FrameBatch
        (batch,), report = decode(task, [GRID], Source(), MediaLimits())
        owned = batch.sample[: batch.owned]
        found += zip((int(k) for k in owned), read(batch.pixels[: batch.owned]), strict=True)
        reports.append(report)
    return found, reports, max(map(task_seconds, tasks))


@pytest.mark.parametrize(("codec", "bframes", "longest_s"), [("msmpeg4v3", 0, 100), ("mpeg4", 1, 300)])
def test_an_avi_without_its_index_comes_in_tasks_as_short_as_others(
    codec: str, bframes: int, longest_s: float, tmp_path: Path
) -> None:
    """With B-frames its clock is repaired: every task reads from the start, and so they are fewer."""
    info = made(tmp_path / "v.avi", codec, bframes, "never")
    assert info.duration_s == PICTURES
    found, reports, longest = decoded(info)
    assert found == NUMBERS and coverage(info, reports) == 1.0
    assert longest <= longest_s


def test_a_film_that_is_decoded_plainly_is_no_single_task(tmp_path: Path) -> None:
    """Nor does a task decode all that lies before it."""
    info = replace(made(tmp_path / "v.avi", "mpeg4", 0, "true"), plain=True)
    found, reports, longest = decoded(info)
    assert found == NUMBERS and coverage(info, reports) == 1.0
    assert longest <= 300 and len(reports) == 10
    assert sum(r.frames_decoded for r in reports) < 1.5 * PICTURES
