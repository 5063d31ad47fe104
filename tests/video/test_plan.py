"""Cutting is pure: no file is opened here."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Root
from vidproc.errors import ConfigError
from vidproc.media import FrameSize, Grid, Video, VideoInfo
from vidproc.video.archive import Skipped
from vidproc.video.plan import READ_FROM_THE_START_CLIP_S, CutSettings, Plan, PlanWriter, cut, load_plan

HD = Grid(fps=Fraction(2), size=FrameSize())
SMALL = Grid(fps=Fraction(5), size=FrameSize(mode="stretch", height=172, width=172), window=16, stride=8)
HOUR = 3600.0


def make_info(
    duration_s: float = 600.0, gop_s: float = 2.0, origin: int = 0, time_base: Fraction = Fraction(1, 90000)
) -> VideoInfo:
    ticks = int(gop_s / time_base)
    return VideoInfo(
        video=Video("/a/v.mp4", 1000, "1:1000", datetime(2026, 1, 1, tzinfo=UTC)),
        container="mov",
        codec="h264",
        pixel_format="yuv420p",
        width=1280,
        height=720,
        rotation=0,
        fps=25.0,
        time_base=time_base,
        origin_pts=origin,
        duration_s=duration_s,
        frames_promised=int(duration_s * 25),
        keyframe_pts=tuple(range(origin, origin + max(1, int(duration_s / time_base)), ticks)),
        recorded_at=None,
    )


@given(
    duration_s=st.floats(0, 5000),
    gop_s=st.sampled_from([0.04, 2.0, 7.3, 100.0, 10_000.0]),
    origin=st.sampled_from([0, 126000, -3003]),
    clip_seconds=st.floats(0.1, 500),
    clips_per_task=st.integers(1, 5),
    grids=st.sampled_from([(), (HD,), (SMALL,), (HD, SMALL), (replace(HD, keyframes_only=True),)]),
)
@settings(max_examples=150, deadline=None)
def test_clips_cover_the_video_without_gaps(
    duration_s: float,
    gop_s: float,
    origin: int,
    clip_seconds: float,
    clips_per_task: int,
    grids: tuple[Grid, ...],
) -> None:
    if gop_s == 0.04:
        duration_s = min(duration_s, 300)
    info = make_info(duration_s, gop_s, origin)
    tasks = cut(info, CutSettings(clip_seconds=clip_seconds, clips_per_task=clips_per_task), grids, "p")
    clips = [c for t in tasks for c in t.clips]
    assert clips[0].start_pts is None and clips[-1].end_pts is None
    for a, b in pairwise(clips):
        assert a.end_pts is not None and a.end_pts == b.start_pts
    bounds = [c.end_pts for c in clips[:-1]]
    assert bounds == sorted(set(bounds))
    assert all(origin < b < origin + duration_s * 90000 for b in bounds if b is not None)
    assert [t.index for t in tasks] == [*range(len(tasks))] and {t.count for t in tasks} == {len(tasks)}
    assert len({t.task_id for t in tasks}) == len(tasks)
    assert all(len(t.clips) <= clips_per_task for t in tasks)


def test_cuts_lie_at_the_keyframes_nearest_to_the_multiples() -> None:
    tasks = cut(make_info(600, gop_s=7), CutSettings(clip_seconds=30, clips_per_task=1), [], "p")
    bounds = [t.range.end_pts for t in tasks[:-1]]
    assert bounds[:4] == [28 * 90000, 63 * 90000, 91 * 90000, 119 * 90000]
    assert len(tasks) == 20


def test_the_same_video_is_cut_the_same_and_named_by_its_content() -> None:
    info = make_info()
    a, b = (cut(info, CutSettings(), [HD], "p") for _ in range(2))
    assert [t.task_id for t in a] == [t.task_id for t in b]
    changed = replace(info, video=replace(info.video, content_id="2:1000"))
    assert not {t.task_id for t in a} & {t.task_id for t in cut(changed, CutSettings(), [HD], "p")}
    assert not {t.task_id for t in a} & {t.task_id for t in cut(info, CutSettings(), [HD], "q")}


def test_tasks_shrink_to_the_soft_limit() -> None:
    tasks = cut(make_info(600), CutSettings(clip_seconds=30, clips_per_task=4), [HD], "p")
    assert len(tasks) == 20  # 30 s of 720p at 2 fps are 166 MB: one clip a task, not four
    assert all(t.bytes <= 300 << 20 for t in tasks)


def test_a_group_of_pictures_above_the_hard_limit_is_cut_between_samples() -> None:
    info = make_info(HOUR, gop_s=10_000)
    assert info.keyframe_pts == (0,)
    tasks = cut(info, CutSettings(), [HD], "p")
    assert len(tasks) > 15 and all(t.bytes <= 1.1 * (1 << 30) for t in tasks)
    period = 45000
    assert all(t.range.end_pts is not None and t.range.end_pts % period == 0 for t in tasks[:-1])


def test_what_is_read_from_the_start_is_cut_into_few_long_tasks() -> None:
    small = Grid(fps=Fraction(2), size=SMALL.size)
    for info in (replace(make_info(HOUR), plain=True), replace(make_info(HOUR), exact_timestamps=False)):
        tasks = cut(info, CutSettings(), [small], "p")
        clips = [c for t in tasks for c in t.clips]
        starts = [c.start_pts - info.origin_pts for c in clips[1:] if c.start_pts is not None]
        assert starts == [round(n * READ_FROM_THE_START_CLIP_S / info.time_base) for n in range(1, 12)]
        assert len(tasks) == 6
        # And what would not fit into a worker is cut between samples.
        big = cut(info, CutSettings(), [HD], "p")
        assert len(big) > 15 and all(t.bytes <= 1.1 * (1 << 30) for t in big)


def test_a_task_carries_only_its_own_keyframes() -> None:
    tasks = cut(make_info(36000), CutSettings(clip_seconds=30), [SMALL], "p")
    assert all(1 <= len(t.info.keyframe_pts) <= 35 for t in tasks)
    assert tasks[5].info.keyframe_pts[0] == tasks[5].range.start_pts


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"clip_seconds": 0}, {"clips_per_task": 0}, {"soft_bytes": 2 << 30}):
        with pytest.raises(ValueError, match="limit"):
            CutSettings(**wrong)


def test_a_plan_is_saved_while_it_is_made_and_read_back(lake_root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidproc.video.plan.VIDEOS_A_PART", 2)
    plan, made = Plan(), []
    empty, odd = Skipped("/a/\udcff.mp4", "an empty file", "empty"), Video("/a/odd.mp4", 9, "7:9")
    with PlanWriter(lake_root.storage, "plans/a", plan, {"archive": "/a"}) as writer:
        with pytest.raises(ConfigError, match="no finished plan"):
            load_plan(lake_root.storage, "plans/a", {})
        for n in range(5):
            info = make_info(100 + n, origin=n)
            info = replace(info, video=replace(info.video, uri=f"/a/ü {n}.mp4"), warnings=("odd",))
            tasks = cut(info, CutSettings(), [HD], "p")
            plan.add(info, tasks, [HD])
            writer.add(info)
            made.append(info)
        plan.decline("not_media")
        writer.add(odd, "not_media", "no format that we know")
        writer.add(empty)
    made += [odd, empty]
    loaded, videos = load_plan(lake_root.storage, "plans/a", {"archive": "/a"})
    assert loaded == plan and [*videos] == made
    text = loaded.summary()
    assert "5 videos" in text and "h264 5" in text and "not_media 1" in text
    with pytest.raises(ConfigError, match="no finished plan"):
        load_plan(lake_root.storage, "plans/b", {})
    with pytest.raises(ConfigError, match="is of archive '/a', and the job's is '/b'"):
        load_plan(lake_root.storage, "plans/a", {"archive": "/b"})


def test_a_header_that_lies_about_its_length_costs_no_time() -> None:
    info = replace(make_info(10, gop_s=2), duration_s=1e9)
    assert len(cut(info, CutSettings(clip_seconds=1, clips_per_task=1), [], "p")) == 5
