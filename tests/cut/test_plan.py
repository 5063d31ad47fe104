"""Plans of clips: every answer is shown, inside its video, once, under a name that is safe everywhere."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidproc.ask.scenes import Scene
from vidproc.cut.plan import Widening, plan_clips
from vidproc.errors import ConfigError
from vidproc.media import Video


def scene(start_s: float, end_s: float | None = None, uri: str = "/a/gate/1.mp4", **more: Any) -> Scene:
    given = {"duration_s": 60.0, "label": "person"} | more
    time_s = start_s if end_s is None else (start_s + end_s) / 2
    stretch = {} if end_s is None else {"start_s": start_s, "end_s": end_s}
    return Scene(video=Video(uri, 1000, "1:1000"), listed_uri=uri, time_s=time_s, **stretch, **given)


def ranges(*scenes: Scene, **how: Any) -> list[tuple[float, float]]:
    return [(c.start_s, c.end_s) for c in plan_clips(scenes, Widening(**how))]


def test_answers_are_widened_and_kept_inside_their_video() -> None:
    assert ranges(scene(1, 3), scene(30.0), scene(59, 60)) == [(0, 5), (28, 32), (57, 60)]
    assert ranges(scene(7.0), before_s=0, after_s=0) == [(7, 7.001)]
    assert ranges(scene(1, 3, duration_s=None), after_s=100) == [(0, 103)]


def test_answers_that_overlap_are_one_clip_that_names_all() -> None:
    [clip] = plan_clips([scene(14, 15, label="run"), scene(10, 12), scene(11.0, label="car")], Widening())
    assert (clip.start_s, clip.end_s, clip.label) == (8, 17, "person + car + run") and len(clip.answers) == 3
    assert ranges(scene(10, 12), scene(10, 12, "/a/gate/2.mp4")) == [(8, 14), (8, 14)], "of two videos"


def test_long_stretches_are_divided_into_equal_parts() -> None:
    clips = plan_clips([scene(10, 12), scene(12, 41, label="car")], Widening(max_s=10))
    assert [(c.start_s, c.end_s) for c in clips] == [(8, 16.75), (16.75, 25.5), (25.5, 34.25), (34.25, 43)]
    assert [c.label for c in clips] == ["person + car", "car", "car", "car"]


def test_the_wall_clock_is_that_of_the_first_frame() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    [clip] = plan_clips([scene(10, 12, recorded_at=at)], Widening())
    assert clip.recorded_at == at - timedelta(seconds=3), "11 s, where the row stands, was `at`; the clip begins at 8 s"


HOSTILE = [
    "/a/../../etc/passwd", "/a/-rf/--help.mp4", "/a/.hidden/.mp4", "/a/x/$(reboot);`id`|&>'\".mp4", "/a/ü/ 日本.mp4",
    "/a/b/" + "n" * 300, "s3://bucket/k\n\x1b[31m/\x00.mp4", "/a/CON.mp4", "/",
]  # fmt: skip


@given(uri=st.sampled_from(HOSTILE) | st.text(), label=st.sampled_from(["", "../x", "-a b\n", "=1+1"]) | st.text())
def test_names_are_safe(uri: str, label: str) -> None:
    [clip] = plan_clips([scene(3723.5, 3724, uri, label=label, duration_s=None)], Widening())
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,150}", clip.name), clip.name
    assert clip.camera == clip.camera.strip("/")


def test_names_sort_by_time_and_never_meet() -> None:
    scenes = [scene(t, uri=f"/{folder}/gate/1.mp4") for folder in "ab" for t in (5000.0, 50.0, 500.0)]
    names = [c.name for c in plan_clips([s for s in scenes], Widening(before_s=0, after_s=0))]
    assert len({n.lower() for n in names}) == 6
    for of_one in (names[:3], names[3:]):
        assert of_one == sorted(of_one) and all(n.startswith("gate_1-") and n.endswith("-person") for n in of_one)


@given(st.lists(st.tuples(st.floats(0, 59), st.floats(0, 20), st.sampled_from("ab")), max_size=8), st.randoms())
def test_every_answer_is_shown_once_in_any_order(rows: list[tuple[float, float, str]], chance: Any) -> None:
    scenes = [scene(start, start + length, f"/x/{name}.mp4") for start, length, name in rows]
    clips = plan_clips(scenes, Widening(before_s=1, after_s=1))
    chance.shuffle(scenes)
    assert plan_clips(scenes, Widening(before_s=1, after_s=1)) == clips
    for each in scenes:
        holding = [c for c in clips if c.listed_uri == each.listed_uri and c.start_s <= (each.start_s or 0) < c.end_s]
        assert len(holding) == 1
    for a, b in pairwise(clips):
        assert a.listed_uri != b.listed_uri or a.end_s < b.start_s


@pytest.mark.parametrize(("start", "end"), [(float("nan"), 2.0), (5.0, 4.0), (0.0, float("inf")), (-5.0, -1.0)])
def test_times_that_are_none_are_refused(start: float, end: float) -> None:
    with pytest.raises(ConfigError, match="which is no stretch of a video"):
        plan_clips([scene(start, end)], Widening())
    with pytest.raises(ConfigError, match="--before is a number of seconds"):
        Widening(before_s=start - 100 if start == start else start)
