"""Frames at chosen moments: the pictures that indexing sees, read in one pass of one opening."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidproc.video.decode as decoding
from tests.support.media import damage, make_video, read_number, video_of
from vidproc.media import Clip, FrameSize, Grid, Task
from vidproc.video.decode import MediaLimits, Source, decode
from vidproc.video.moments import pictures_at, tick_at
from vidproc.video.probe import probe

KINDS: dict[str, dict[str, Any]] = {
    "cut.mp4": {"gop": 12, "bframes": 2},
    "film.mkv": {"codec": "libx265", "gop": 25},
    "stream.ts": {"gop": 15, "first_s": 3},
    "old.avi": {"codec": "mpeg4", "bframes": 0},
    "turned.mp4": {"rotation": 90, "size": (64, 96)},
    "uneven.mp4": {"gaps": [1, 3, 1, 2]},
    "ntsc.mp4": {"fps": Fraction(30000, 1001)},
}
TIMES = [0.0, 0.04, 2.2, 2.24, 7.96, 5.0, 5.04, 11.5, 2.2]


@pytest.mark.parametrize("name", KINDS)
def test_each_moment_has_the_picture_that_decoding_all_gives(name: str, tmp_path: Path) -> None:
    made = make_video(tmp_path / name, seconds=12, **KINDS[name])
    info = probe(made.video, Source(), MediaLimits())
    ticks = [tick_at(info, t) for t in TIMES]
    whole = Task(info, (Clip(None, None),), 0, 1, "", 0)
    (all_,), _ = decode(whole, (Grid(fps=Fraction(50), size=FrameSize()),), Source(), MediaLimits())
    found = list(pictures_at(info, ticks, Source(), MediaLimits()))
    assert [m.tick for m in found] == sorted(set(ticks))
    for moment in found:
        on_screen = int(np.searchsorted(all_.pts, moment.tick, side="right")) - 1
        assert moment.pixels is not None and moment.pts == all_.pts[on_screen] <= moment.tick
        assert np.array_equal(moment.pixels, all_.pixels_of(np.int64(on_screen)))  # type: ignore[arg-type]
        shown = made.number_shown_at((moment.tick - info.origin_pts) * info.time_base)
        assert info.rotation or read_number(moment.pixels) == shown


def test_a_time_that_floats_round_is_its_sample(tmp_path: Path) -> None:
    made = make_video(tmp_path / "a.mp4", seconds=1, fps=Fraction(30000, 1001))
    info = probe(made.video, Source(), MediaLimits())
    for k in range(0, 30_000_000, 99_991):
        time_s = float(Fraction(k * 1001, 30000))
        assert tick_at(info, time_s) == info.origin_pts + Fraction(k * 1001, 30000) // info.time_base


def test_one_opening_serves_all_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_video(tmp_path / "a.mp4", seconds=40, gop=25)
    info = probe(made.video, Source(), MediaLimits())
    openings: list[str] = []
    opened = decoding.open_container

    @contextmanager
    def counted(video: Any, *args: Any, **options: Any) -> Iterator[Any]:
        openings.append(video.uri)
        with opened(video, *args, **options) as container:
            yield container

    monkeypatch.setattr(decoding, "open_container", counted)
    times = [0.0, 3.0, 3.4, 17.0, 39.96]
    found = list(pictures_at(info, [tick_at(info, t) for t in times], Source(), MediaLimits()))
    assert [read_number(m.pixels) for m in found if m.pixels is not None] == [0, 75, 85, 425, 999]
    assert len(openings) == 1


def test_what_is_damaged_or_not_there_has_a_reason_and_no_picture(tmp_path: Path) -> None:
    made = make_video(tmp_path / "whole.mp4", seconds=12, gop=25, options={"preset": "veryfast", "crf": "10"})
    video = damage(made, tmp_path / "torn.mp4", 0.45, 0.55)
    info = probe(video, Source(), MediaLimits())
    found = list(pictures_at(info, [tick_at(info, t) for t in (1.0, 6.0, 11.0, 300.0)], Source(), MediaLimits()))
    numbers = [None if m.pixels is None else read_number(m.pixels) for m in found]
    assert numbers == [25, None, 275, None]
    assert "damaged" in found[1].reason and "ends" in found[3].reason


def test_memory_is_that_of_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_video(tmp_path / "a.mp4", seconds=4)
    info = probe(video_of(made.path), Source(), MediaLimits())
    monkeypatch.setattr("vidproc.video.moments.PASS_BYTES", 3 * 96 * 64 * 10)
    found = list(pictures_at(info, [tick_at(info, k / 25) for k in range(100)], Source(), MediaLimits()))
    assert [read_number(m.pixels) for m in found if m.pixels is not None] == list(range(100))
    assert all(m.pixels is None or m.pixels.base is None or m.pixels.base.shape[0] <= 10 for m in found)
