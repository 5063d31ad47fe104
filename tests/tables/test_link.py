"""Linking: tracks and segments of one whole video, whatever its cut."""

import weakref
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trackers.core.bytetrack.tracklet import ByteTrackTracklet

from vidproc.tables.link import Hysteresis, LinkSettings, VideoKeys, link, time_ranges
from vidproc.tables.schema import load_schema

KEYS = VideoKeys("v1", "default")
FPS = 5.0


def detections(rows: list[tuple[float, str, float, tuple[float, float, float, float]]]) -> pa.Table:
    names = ["car", "person"]
    return pa.Table.from_pylist(
        [
            {
                "video_id": "v1",
                "pipeline": "default",
                "model": "m@0",
                "time_s": t,
                "pts": round(t * 1000),
                "label": label,
                "class_id": names.index(label),
                "score": score,
                **dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True)),
            }
            for t, label, score, box in rows
        ],
        schema=load_schema("detections").arrow,
    )


def walk(start_s: float, end_s: float, x: float, step: float = 4.0, score: float = 0.9, label: str = "person") -> list:
    """Someone 40 x 80 pixels large who moves `step` pixels a sample."""
    times = np.arange(round(start_s * FPS), round(end_s * FPS)) / FPS
    return [(float(t), label, score, (x + i * step, 50.0, x + i * step + 40, 130.0)) for i, t in enumerate(times)]


def linked(rows: list, **given: object) -> dict[str, pa.Table]:
    return link({"detections": detections(rows)}, KEYS, LinkSettings(**given), detector_fps=FPS, action_stride_s=None)


def test_two_people_who_walk_apart_are_two_tracks() -> None:
    tables = linked(walk(0, 4, x=10) + walk(0, 4, x=400, step=-4))
    tracks = tables["tracks"].to_pylist()
    assert [(t["label"], t["detections"], t["start_s"], t["end_s"]) for t in tracks] == [("person", 20, 0.0, 3.8)] * 2
    assert [len(t["path"]) for t in tracks] == [20, 20]
    by_track = tables["detections"].group_by("track_id").aggregate([("x_min", "min")]).to_pylist()
    assert {r["track_id"]: r["x_min_min"] for r in by_track} == {0: 10.0, 1: 400 - 19 * 4} or {
        r["track_id"]: r["x_min_min"] for r in by_track
    } == {1: 10.0, 0: 400 - 19 * 4}


def test_a_short_gap_keeps_the_track_and_a_long_one_ends_it() -> None:
    one = linked(walk(0, 2, x=10, step=0) + walk(3, 5, x=10, step=0), lost_seconds=1.5)
    two = linked(walk(0, 2, x=10, step=0) + walk(5, 7, x=10, step=0), lost_seconds=1.5)
    assert len(one["tracks"]) == 1
    assert len(two["tracks"]) == 2


def test_tracks_that_have_ended_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    there = weakref.WeakSet[ByteTrackTracklet]()
    most = 0
    make = ByteTrackTracklet.__init__

    def made(self: ByteTrackTracklet, *given: Any, **named: Any) -> None:
        nonlocal most
        make(self, *given, **named)
        there.add(self)
        most = max(most, len(there))

    monkeypatch.setattr(ByteTrackTracklet, "__init__", made)
    tables = linked([row for start in range(0, 60, 3) for row in walk(start, start + 1, x=10)])
    assert len(tables["tracks"]) == 20
    assert most <= 2  # the one before may still be waited for


def test_a_lone_detection_is_no_track() -> None:
    tables = linked(walk(0, 0.2, x=10))
    assert len(tables["tracks"]) == 0
    assert tables["detections"]["track_id"].null_count == 1


def test_an_unsure_detection_continues_a_track_but_starts_none() -> None:
    unsure = linked(walk(0, 4, x=10, score=0.4))
    assert len(unsure["tracks"]) == 0
    faded = linked(walk(0, 2, x=10) + [(t + 2, lab, 0.4, b) for t, lab, _, b in walk(0, 1, x=10 + 40)])
    assert [t["detections"] for t in faded["tracks"].to_pylist()] == [15]


def test_labels_are_tracked_apart() -> None:
    tables = linked(walk(0, 2, x=10) + walk(0, 2, x=12, label="car"))
    assert sorted((t["label"], t["class_id"]) for t in tables["tracks"].to_pylist()) == [("car", 0), ("person", 1)]


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_in_which_parts_come_changes_nothing(random: object) -> None:
    rows = walk(0, 4, x=10) + walk(1, 5, x=400, step=-4) + walk(2, 3, x=200, label="car")
    straight = linked(rows)
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert linked(rows) == straight


def test_presence_bridges_short_absences_only() -> None:
    rows = walk(1, 4, x=10) + walk(5, 8, x=10) + walk(20, 24, x=10)
    segments = linked(rows)["segments"].to_pylist()
    assert [(s["kind"], s["label"], s["start_s"], s["end_s"]) for s in segments] == [
        ("presence", "person", 1.0, 8.0),
        ("presence", "person", 20.0, 24.0),
    ]
    assert all(s["track_ids"] for s in segments)


def test_action_windows_become_segments_with_the_edges_of_the_video() -> None:
    rows = []
    for i in range(10):  # windows of 2 s each 1 s: 0-2, 1-3, ... 9-11
        walking = i < 5
        for rank, (label, score) in enumerate(
            [("walk", 0.9), ("run", 0.1)] if walking else [("run", 0.8), ("walk", 0.2)]
        ):
            rows.append(
                {"video_id": "v1", "pipeline": "default", "model": "a@0", "start_s": float(i), "end_s": i + 2.0,
                 "label": label, "class_id": 0, "score": score, "rank": rank + 1}
            )  # fmt: skip
    actions = pa.Table.from_pylist(rows, schema=load_schema("actions").arrow)
    tables = link({"actions": actions}, KEYS, LinkSettings(), detector_fps=None, action_stride_s=1.0)
    assert [(s["kind"], s["label"], s["start_s"], s["end_s"]) for s in tables["segments"].to_pylist()] == [
        ("action", "run", 5.5, 11.0),
        ("action", "walk", 0.0, 5.5),
    ]


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ([0.2, 0.9, 0.9, 0.2], [(1.0, 3.0)]),
        ([0.4, 0.9, 0.4, 0.2], [(0.0, 3.0)]),  # unsure pieces beside a sure one belong to it
        ([0.4, 0.4, 0.4, 0.4], []),  # unsure ones alone are nothing
        ([0.9, 0.0, 0.9, 0.0], [(0.0, 3.0)]),  # a gap of one is bridged
        ([0.9, 0.0, 0.0, 0.9], []),  # a gap of two is not, and what is left is too short
    ],
)
def test_time_ranges(score: list[float], expected: list[tuple[float, float]]) -> None:
    starts = np.arange(4.0)
    rule = Hysteresis(on=0.5, off=0.3, gap_s=1.0, min_s=1.5)
    found = [(s, e) for s, e, _ in time_ranges(starts, starts + 1, np.array(score), rule)]
    assert found == expected


def test_nothing_to_link_is_ordinary() -> None:
    assert link({}, KEYS, LinkSettings(), detector_fps=FPS, action_stride_s=None) == {}
