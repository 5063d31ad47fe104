"""The synthetic world: what is drawn is what the truth says, and both follow from the seed alone."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vidproc.demo.actors import Vehicle
from vidproc.demo.acts import ACTIONS, MORE_ACTIONS, REVERSED, Manner, act
from vidproc.demo.archive import RECORDED_PATTERN, draw_archive
from vidproc.demo.scene import Scene
from vidproc.demo.score import AveragePrecision, Found, Identity, Scores, iou, label_of_window, score
from vidproc.demo.settings import HEIGHT, WIDTH, SceneSettings
from vidproc.demo.truth import ActionSegment, Box, Truth, VideoTruth
from vidproc.errors import ConfigError
from vidproc.look.sheet import SheetBox, SheetItem, contact_sheet, track_colour

KINDS = ("street", "activity")
STILL = SceneSettings(seconds=4.0, noise=0.0)


# Scenes


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_follows_from_its_seed_alone(kind):
    one, same, other = (Scene.generate(seed, kind=kind) for seed in (11, 11, 12))
    assert np.array_equal(one.frame(37), same.frame(37)) and one.truth("a") == same.truth("a")
    assert not np.array_equal(one.frame(37), other.frame(37))
    assert one.frame(0).shape == (HEIGHT, WIDTH, 3) and one.frame(0).dtype == np.uint8


@pytest.mark.parametrize("seed", range(6))
def test_a_box_holds_just_the_pixels_that_its_object_changes(seed):
    scene = Scene.generate(seed, STILL, kind="street")
    t = 2.0
    checked = 0
    for thing in list(scene.things):
        parts = [p for p in thing.parts(t) if p.label is not None]
        if len(parts) != 1:
            continue
        scene.things.remove(thing)
        without = scene.picture(t).astype(int)
        scene.things.append(_Shadowless(thing))
        alone = [b for b in scene.boxes_at(t) if b.track_id == parts[0].track_id]
        changed = (np.abs(scene.picture(t) - without) > 8).any(-1)
        scene.things[-1] = thing
        if not alone:
            assert changed.sum() < 12
            continue
        columns, rows = np.flatnonzero(changed.any(0)), np.flatnonzero(changed.any(1))
        edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        box = alone[0]
        # Smooth edges, and colours that happen to equal the background's.
        assert np.abs(np.array(edges) - (box.x_min, box.y_min, box.x_max, box.y_max)).max() <= 4
        checked += 1
    assert checked > 0


class _Shadowless:
    def __init__(self, thing):
        self.thing = thing

    def parts(self, t):
        from dataclasses import replace

        return [replace(p, shadow=None) for p in self.thing.parts(t)]


def test_what_is_hidden_is_not_in_the_box():
    scene = Scene.generate(0, STILL, kind="street")
    behind = Vehicle("car", 1, (200, 40, 40), 2, 120, 180, 150, 0.0)
    scene.things = [behind]
    (whole,) = scene.boxes_at(0)
    scene.things = [behind, Vehicle("car", 2, (40, 40, 200), 2, 120, 185, 210, 0.0)]
    first, second = scene.boxes_at(0)
    assert whole.visible == pytest.approx(1.0, abs=0.02) and not whole.difficult
    assert second.visible == pytest.approx(1.0, abs=0.02)
    assert 0.3 < first.visible < 0.7 and first.x_min == whole.x_min
    assert second.x_min < first.x_max < whole.x_max - 10

    scene.things = [Vehicle("car", 1, (200, 40, 40), 2, 120, 180, -30, 0.0)]
    (leaving,) = scene.boxes_at(0)
    assert leaving.x_min == 0 and leaving.visible < 0.4 and leaving.difficult


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([ACTIONS, MORE_ACTIONS, ("sit_down", "stand_up"), ("walk",)]))
def test_actions_follow_each_other_without_gaps_and_as_a_body_can(seed, actions):
    scene = Scene.generate(seed, SceneSettings(seconds=8.0, actions=actions), kind="activity")
    segments = scene.segments
    assert segments[0].start_s == 0 and segments[-1].end_s == 8.0
    for before, after in pairwise(segments):
        assert before.end_s == after.start_s and before.start_s < before.end_s
        assert (before.label in ("fall", "lie")) == (after.label in ("lie", "get_up"))
        assert (before.label in ("sit_down", "sit")) == (after.label in ("sit", "stand_up"))
    assert {s.label for s in segments} <= {*actions, "walk", "stand"} | {"sit_down", "stand_up", "fall", "get_up"}


@pytest.mark.parametrize(("forth", "back"), REVERSED)
def test_some_actions_differ_only_in_the_direction_of_time(forth, back):
    for t in np.linspace(0, 1.4, 8):
        assert np.allclose(act(forth, t, 1.4, Manner()), act(back, 1.4 - t, 1.4, Manner()))


def test_the_main_actor_stays_in_the_picture():
    for seed in range(8):
        scene = Scene.generate(seed, SceneSettings(seconds=6.0), kind="activity")
        for t in np.arange(0, 6, 0.5):
            (actor,) = (b for b in scene.boxes_at(t) if b.track_id == 1)
            assert actor.visible > 0.6, (seed, t)


# Archives


def test_an_archive_holds_what_its_truth_says(tmp_path):
    import av

    settings_ = SceneSettings(seconds=1.5, fps=Fraction(20))
    truth = draw_archive(tmp_path, 2, 5, settings=settings_)
    assert Truth.load(tmp_path / "truth.json") == truth
    assert [v.name.split("/")[0] for v in truth.videos] == ["gate-north", "hall-1"]
    for i, video in enumerate(truth.videos):
        recorded = datetime.strptime(Path(video.name).stem, RECORDED_PATTERN).replace(tzinfo=UTC)
        scene = Scene.generate(5 + i, settings_, kind=KINDS[i])
        with av.open(str(tmp_path / video.name)) as container:
            assert container.metadata["creation_time"].startswith(recorded.strftime("%Y-%m-%dT%H:%M:%S"))
            shown = list(container.decode(video=0))
        assert [f.time for f in shown] == pytest.approx([k / 20 for k in range(30)])
        assert len(video.frames) == 30 and video.duration_s == 1.5
        for k in (0, 13, 29):
            error = shown[k].to_ndarray(format="rgb24").astype(float) - scene.frame(k)
            assert np.sqrt((error**2).mean()) < 12, "another picture than the scene's"
            assert video.at(k / 20) == scene.boxes(k)


def test_the_same_archive_is_drawn_again(tmp_path):
    short = SceneSettings(seconds=0.4)
    for folder, workers in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        draw_archive(tmp_path / folder, 2, 9, settings=short, workers=workers)
    names = [p.relative_to(tmp_path / "a") for p in sorted((tmp_path / "a").rglob("*.*"))]
    assert len(names) == 3
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_frame_is_on_screen_until_the_next():
    frames = tuple((Box("dog", i, 0, 0, 30, 30, 1.0),) for i in range(1, 31))
    video = VideoTruth("v", Fraction(30000, 1001), frames, ())
    for k in range(5):
        # The last frame i with i / fps <= k / 5.
        shown = int(Fraction(k, 5) * video.fps)
        assert video.at(k / 5)[0].track_id == shown + 1
    assert video.at(99.0)[0].track_id == 30


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"labels": [], "videos": [{"name": "a"}]}'])
def test_reading_a_truth_that_is_none_fails(tmp_path, text):
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(ConfigError, match=r"truth\.json is not a truth file"):
        Truth.load(tmp_path / "truth.json")
    with pytest.raises(ConfigError, match="draw the archive first"):
        Truth.load(tmp_path / "nothing.json")


# Scoring


def _random_frames(rng, frames):
    """Boxes of two classes, and detections which are mostly right, at distinct scores."""
    for _ in range(frames):
        there, here = [], []
        for k in range(int(rng.integers(0, 6))):
            x, y = rng.uniform(0, 250, 2)
            w, h = rng.uniform(20, 80, 2)
            label = ("person", "car")[int(rng.integers(2))]
            there.append(Box(label, k + 1, x, y, x + w, y + h, 1.0))
            for _ in range(int(rng.choice(3, p=(0.15, 0.7, 0.15)))):
                jitter = rng.normal(0, 6, 4)
                box = np.array([x, y, x + w, y + h]) + jitter
                box[2:] = np.maximum(box[2:], box[:2] + 2)
                name = label if rng.random() < 0.9 else "car"
                here.append(Found(name, float(rng.random()), box, int(rng.integers(1, 5))))
        for _ in range(int(rng.integers(0, 2))):
            x, y = rng.uniform(0, 250, 2)
            here.append(Found("person", float(rng.random()), np.array([x, y, x + 30, y + 50]), None))
        yield there, here


def test_average_precision_is_cocos():
    from faster_coco_eval import COCO, COCOeval_faster

    labels = ("person", "car")
    average = AveragePrecision()
    images, annotations, results = [], [], []
    for i, (there, here) in enumerate(_random_frames(np.random.default_rng(4), 60), start=1):
        average.add(there, here)
        images.append({"id": i, "width": 400, "height": 400})
        for b in there:
            w, h = b.x_max - b.x_min, b.y_max - b.y_min
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": labels.index(b.label) + 1,
                    "bbox": [b.x_min, b.y_min, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        for f in here:
            x0, y0, x1, y1 = (float(v) for v in f.box)
            results.append(
                {
                    "image_id": i,
                    "category_id": labels.index(f.label) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": f.score,
                }
            )
    coco = COCO(
        {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": i + 1, "name": n} for i, n in enumerate(labels)],
        }
    )
    run = COCOeval_faster(coco, coco.loadRes(results), iouType="bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    assert 0.3 < run.stats[1] < 0.99
    assert np.mean(list(average.by_label().values())) == pytest.approx(run.stats[1], abs=1e-6)


def test_identity_f1_is_motmetrics():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import motmetrics as mm

        identity, accumulator = Identity(), mm.MOTAccumulator(auto_id=True)
        for there, here in _random_frames(np.random.default_rng(2), 80):
            there = [b for b in there if b.label == "person"]
            # One box an identity and frame, as a tracker gives.
            here = list({f.track_id: f for f in here if f.label == "person" and f.track_id is not None}.values())
            identity.add("v", there, here)
            boxes = np.array([[b.x_min, b.y_min, b.x_max, b.y_max] for b in there]).reshape(-1, 4)
            overlap = iou(boxes, np.array([f.box for f in here]).reshape(-1, 4))
            distance = np.where(overlap >= 0.5, 1 - overlap, np.nan)
            accumulator.update([b.track_id for b in there], [f.track_id for f in here], distance)
        expected = mm.metrics.create().compute(accumulator, metrics=["idf1"])["idf1"].iloc[0]
    assert 0.2 < expected < 0.95
    assert identity.idf1() == pytest.approx(expected, abs=1e-9)


def _lake(truth, *, shift=0.0, swap=False, fps=5.0):
    """Rows as an index of that archive would hold them, right but for what the arguments spoil."""
    videos, detections, actions = [], [], []
    for n, video in enumerate(truth.videos):
        videos.append({"video_id": f"id{n}", "uri": f"s3://bucket/deep/{video.name}", "status": "indexed"})
        for k in range(int(video.duration_s * fps)):
            for b in video.at(k / fps):
                if b.difficult:
                    continue
                track = b.track_id + (100 if swap and k >= video.duration_s * fps / 2 else 0)
                detections.append(
                    {
                        "video_id": f"id{n}",
                        "time_s": k / fps,
                        "label": b.label,
                        "score": 0.9,
                        "x_min": b.x_min + shift,
                        "y_min": b.y_min,
                        "x_max": b.x_max + shift,
                        "y_max": b.y_max,
                        "track_id": track,
                    }
                )
        for start in np.arange(0, video.duration_s - 1, 0.5):
            right = label_of_window(video, start, start + 1.0)
            for label, p in ((right or "jump", 0.8), ("stand" if right != "stand" else "walk", 0.1)):
                row = {"video_id": f"id{n}", "start_s": start, "end_s": start + 1.0, "label": label, "score": p}
                actions.append(row)
    return pa.Table.from_pylist(videos), pa.Table.from_pylist(detections), actions


@pytest.fixture(scope="module")
def truth():
    short = SceneSettings(seconds=6.0, fps=Fraction(10))
    return Truth(tuple(Scene.generate(i, short, kind=KINDS[i % 2]).truth(f"cam/{i}.mp4") for i in range(4)))


def test_a_perfect_index_scores_one(truth):
    videos, detections, actions = _lake(truth)
    scores = score(truth, videos, detections, actions, detector_fps=5.0)
    assert (scores.map50, scores.idf1, scores.top1) == (1.0, 1.0, 1.0)
    assert scores.frames == 4 * 30 and scores.objects == len(detections) and scores.windows > 10


def test_what_is_wrong_costs(truth):
    def scores_of(spoil=lambda rows: rows, **faults) -> Scores:
        videos, detections, actions = _lake(truth, **faults)
        return score(truth, videos, spoil(detections), actions, detector_fps=5.0)

    assert scores_of(shift=300.0).map50 == 0.0
    half = scores_of(swap=True)
    assert half.map50 == 1.0 and 0.4 < half.idf1 < 0.8
    missing = scores_of(lambda rows: rows.filter(pa.compute.greater(rows["time_s"], 2.9)))
    assert 0.3 < missing.map50 < 0.7, "frames without any row count as well"

    videos, detections, actions = _lake(truth)
    wrong = [{**r, "score": 1 - r["score"]} for r in actions]
    assert score(truth, videos, detections, wrong, detector_fps=5.0).top1 == 0.0


def test_difficult_objects_count_neither_way():
    plain, hidden = Box("person", 1, 0, 0, 50, 100, 1.0), Box("person", 2, 200, 0, 250, 100, 0.2)
    for found, expected in (((plain,), 1.0), ((plain, hidden), 1.0), ((hidden,), 0.0)):
        average, identity = AveragePrecision(), Identity()
        here = [
            Found("person", 0.9 - i / 10, np.array([b.x_min, b.y_min, b.x_max, b.y_max]), b.track_id)
            for i, b in enumerate(reversed(found))
        ]
        average.add((plain, hidden), here)
        identity.add("v", (plain, hidden), here)
        assert average.by_label() == {"person": expected}
        assert identity.idf1() == expected


@pytest.mark.parametrize(
    ("start", "expected"), [(0.0, "walk"), (1.2, "walk"), (1.3, None), (1.7, None), (1.75, "wave"), (2.6, None)]
)
def test_only_windows_that_are_clear_are_scored(start, expected):
    segments = (ActionSegment("walk", 0.0, 2.0, 1), ActionSegment("wave", 2.0, 3.0, 1))
    assert label_of_window(VideoTruth("v", Fraction(10), (), segments), start, start + 1.0) == expected


def test_scoring_another_archive_fails(truth):
    videos, detections, actions = _lake(truth)
    with pytest.raises(ConfigError, match=r"0 indexed videos have the name cam/0\.mp4"):
        score(truth, videos.slice(1), detections, actions, detector_fps=5.0)


# The contact sheet


def test_a_contact_sheet_shows_frames_boxes_and_captions():
    grey = np.full((288, 384, 3), 90, np.uint8)
    items = [SheetItem(grey, "a.mp4", "0:01", "walk", (SheetBox("person", 100, 80, 180, 250, 3),))] * 5
    png = contact_sheet(items, heading="demo", figures=(("mAP", "0.93"),), columns=3)
    sheet = np.asarray(Image.open(BytesIO(png)))
    assert sheet.shape[1] == 2 * 36 + 3 * 384 + 2 * 18
    colour = np.array(track_colour(3))
    found = (np.abs(sheet.astype(int) - colour) < 12).all(-1)
    assert found[:, : 36 + 384].sum() > 600, "no box in the first frame"
    assert not found[-300:, -300:].any(), "there is no sixth frame"
    with pytest.raises(ValueError, match="at least one frame"):
        contact_sheet([])
