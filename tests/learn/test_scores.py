"""The scores, against cases counted by hand and, where there is one, a second library."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidproc.errors import ConfigError
from vidproc.learn.plots import confusion_png, curves_png, precision_recall_png
from vidproc.learn.scoring.classification import as_matrix, classification_scores
from vidproc.learn.scoring.coco import coco_ap
from vidproc.learn.scoring.segments import (
    Segment,
    SegmentSettings,
    activitynet_map,
    segments_of_windows,
    soft_nms,
    tiou,
)
from vidproc.learn.scoring.tracking import Boxes, box_iou, read_motchallenge, tracking_scores

REAL = Path(os.environ.get("VIDPROC_ACCEPTANCE_DATA", Path(__file__).parents[3] / "shared" / "data"))


# Detection


def coco(images: int, boxes: list[tuple[int, int, list[float]]]) -> dict[str, object]:
    return {
        "images": [{"id": i, "width": 100, "height": 100, "file_name": f"{i}.jpg"} for i in range(1, images + 1)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": bbox}
            for i, (image, category, bbox) in enumerate(boxes, 1)
        ],
    }


def result(image: int, category: int, bbox: list[float], score: float) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": bbox, "score": score}


def test_coco_ap_of_a_case_counted_by_hand() -> None:
    # Two cats in two images. The best result is right, the second is nowhere, the third is right:
    # precision 1 up to recall 0.5, then 2/3. Of the 101 recall points 51 (0 ... 0.50) see 1, 50 see 2/3.
    truth = coco(2, [(1, 1, [10, 10, 40, 40]), (2, 1, [20, 20, 40, 40])])
    results = [
        result(1, 1, [10, 10, 40, 40], 0.9),
        result(1, 1, [60, 60, 20, 20], 0.8),
        result(2, 1, [20, 20, 40, 40], 0.7),
    ]
    scores = coco_ap(truth, results)
    by_hand = (51 * 1 + 50 * 2 / 3) / 101
    assert scores.summary["AP"] == pytest.approx(by_hand) and scores.summary["AP50"] == pytest.approx(by_hand)
    cat, dog = scores.per_class
    assert (cat.label, cat.truths, cat.predictions) == ("cat", 2, 3) and cat.ap == pytest.approx(by_hand)
    assert math.isnan(dog.ap) and dog.truths == 0


def test_an_image_without_results_counts_as_missed() -> None:
    truth = coco(2, [(1, 1, [10, 10, 40, 40]), (2, 1, [20, 20, 40, 40])])
    scores = coco_ap(truth, [result(1, 1, [10, 10, 40, 40], 0.9)])
    assert scores.summary["AP"] == pytest.approx(51 / 101)
    assert coco_ap(truth, []).summary["AP"] == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (result(7, 1, [0, 0, 1, 1], 0.5), r"r\.json: result 0 has image_id 7, which t\.json does not have"),
        (result(1, 9, [0, 0, 1, 1], 0.5), r"r\.json: result 0 has category_id 9, which t\.json"),
        ({"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}, r"r\.json: result 0 has no 'score'"),
    ],
)
def test_results_that_do_not_fit_the_truth_fail_with_file_and_place(row: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        coco_ap(coco(1, [(1, 1, [0, 0, 5, 5])]), [row], truth_name="t.json", name="r.json")


@pytest.mark.acceptance
def test_coco_ap_equals_the_published_figures() -> None:
    folder = REAL / "groundtruth" / "cocoeval_val2014_100"
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    assert len(truth["images"]) == 100
    summary = coco_ap(truth, results).summary
    published = [0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.387, 0.594, 0.595]
    assert [round(v, 3) for v in list(summary.values())[:9]] == published


# Classification


def test_top1_top5_and_confusion_by_hand() -> None:
    labels = list("abcdefg")
    scores = np.array(
        [
            [0.9, 0.1, 0.0, 0, 0, 0, 0],  # a: first
            [0.6, 0.4, 0.0, 0, 0, 0, 0],  # b: second
            [0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.0],  # f: sixth
            [0.1, 0.0, 0.0, 0, 0, 0, 0.9],  # g: first
        ]
    )
    found = classification_scores(scores, np.array([0, 1, 5, 6]), labels)
    assert (found.top1, found.top5, found.mean_class_accuracy) == (0.5, 0.75, 0.5)
    assert found.confusion[1, 0] == 1 and found.confusion[5, 0] == 1 and found.confusion.sum() == 4
    assert found.per_class[1].most_confused_with == "a" and math.isnan(found.per_class[2].accuracy)


def test_nobody_is_right_by_a_tie() -> None:
    found = classification_scores(np.zeros((2, 7)), np.array([0, 6]), list("abcdefg"))
    assert (found.top1, found.top5) == (0, 0)


def test_an_unknown_label_in_predictions_fails() -> None:
    with pytest.raises(ConfigError, match="'v1' name the label 'fly'"):
        as_matrix({"v1": [("fly", 0.3)]}, ["v1"], ["run", "walk"])


# Segments


def test_activitynet_map_by_hand() -> None:
    truth = [Segment("v", "run", 0, 10), Segment("v", "run", 20, 30), Segment("w", "jump", 0, 4)]
    predictions = [
        Segment("v", "run", 0, 10, 0.9),  # right at every threshold
        Segment("v", "run", 0, 10, 0.8),  # the same again: wrong
        Segment("v", "run", 20, 27, 0.7),  # tIoU 0.7: right up to 0.70
        Segment("u", "run", 0, 10, 0.6),  # in a video without truth: wrong
        Segment("w", "sing", 0, 4, 0.9),  # a class without truth: does not count
    ]
    scores = activitynet_map(truth, predictions)
    # run: precision 1 at recall 1/2; 2/3 at recall 1 where the third is right. jump: found by nobody.
    low, high = (0.5 + 0.5 * 2 / 3) / 2, 0.5 / 2
    assert [scores.map_at[t] for t in (0.5, 0.7, 0.75, 0.95)] == pytest.approx([low, low, high, high])
    assert scores.average_map == pytest.approx((5 * low + 5 * high) / 10)
    jump, run = scores.per_class
    assert (jump.label, jump.ap, run.truths, run.predictions) == ("jump", 0, 2, 4)


def test_a_prediction_takes_the_truth_it_overlaps_most_that_is_free() -> None:
    truth = [Segment("v", "a", 0, 10), Segment("v", "a", 2, 12)]
    both = [Segment("v", "a", 0, 10, 0.9), Segment("v", "a", 0, 10, 0.8)]
    # The second overlaps [2, 12) by 8/12: right at 0.50 ... 0.65, wrong from 0.70.
    scores = activitynet_map(truth, both)
    assert scores.map_at[0.65] == pytest.approx(1.0) and scores.map_at[0.7] == pytest.approx(0.5)


def test_no_truth_fails() -> None:
    with pytest.raises(ConfigError, match="no segment"):
        activitynet_map([], [Segment("v", "a", 0, 1)])


def test_soft_nms_by_hand() -> None:
    found = soft_nms(np.array([[0, 10], [0, 10], [5, 15], [40, 50.0]]), np.array([0.9, 0.8, 0.7, 0.6]), sigma=0.5)
    spans, scores = zip(*found, strict=True)
    # [5, 15) overlaps [0, 10) by 1/3, twice; its copy of tIoU 1 falls to 0.8 e^-2.
    once = math.exp(-((1 / 3) ** 2) / 0.5)
    assert spans == ((0, 10), (40, 50), (5, 15), (0, 10))
    assert scores == pytest.approx((0.9, 0.6, 0.7 * once, 0.8 * math.exp(-2) * once))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 20), st.floats(0.02, 1)), max_size=12),
    st.floats(0.1, 2),
)
def test_soft_nms_only_lowers_and_keeps_order(rows: list[tuple[float, float, float]], sigma: float) -> None:
    spans = np.array([(a, a + d) for a, d, _ in rows]).reshape(-1, 2)
    scores = np.array([s for *_, s in rows])
    found = soft_nms(spans, scores, sigma=sigma, min_score=0.01)
    given_scores = sorted(((*map(float, span), float(s)) for span, s in zip(spans, scores, strict=True)), reverse=True)
    assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)
    assert all(any((a, b) == span and s <= g + 1e-12 for a, b, g in given_scores) for span, s in found)
    if len(rows):
        assert found[0][1] == scores.max()


def test_windows_become_segments_with_their_true_bounds() -> None:
    # Windows of 2 s every second over 30 s; "wave" lies in [8, 16): a window scores by its share of it.
    starts = np.arange(0, 29.0)
    ends = starts + 2
    share = (np.minimum(ends, 16) - np.maximum(starts, 8)).clip(0) / 2
    scores = np.stack([share, 1 - share], 1)
    best = next(s for s in segments_of_windows("v", starts, ends, scores, ["wave", "rest"]) if s.label == "wave")
    assert best.score > 0.8
    assert tiou(np.array([best.start_s, best.end_s]), np.array([[8.0, 16.0]]))[0] > 0.85
    truth = [Segment("v", "wave", 8, 16), Segment("v", "rest", 0, 8), Segment("v", "rest", 16, 30)]
    found = segments_of_windows("v", starts, ends, scores, ["wave", "rest"])
    assert activitynet_map(truth, found).map_at[0.8] == pytest.approx(1.0)


def test_no_window_is_no_segment_and_bad_settings_fail() -> None:
    assert segments_of_windows("v", np.zeros(0), np.zeros(0), np.zeros((0, 2)), ["a", "b"]) == []
    with pytest.raises(ConfigError, match="sigma"):
        SegmentSettings(sigma=0)


# Tracking


def one_switch() -> tuple[Boxes, Boxes]:
    """Two objects over 5 frames, perfectly boxed; the second one's track changes its id after frame 3."""
    frame = np.repeat(np.arange(1, 6), 2)
    track = np.tile([1, 2], 5)
    xyxy = np.array([[0, 0, 10, 10], [50, 50, 60, 60.0]] * 5)
    renamed = np.where((track == 2) & (frame > 3), 3, track)
    return Boxes(frame, track, xyxy), Boxes(frame, renamed, xyxy)


def test_mota_idf1_and_hota_by_hand() -> None:
    scores = tracking_scores(*({"s": boxes} for boxes in one_switch()))["s"]
    # 10 boxes, all matched, one switch: MOTA = 1 - 1/10. IDF1: ids keep 5 + 3 of 10: 2*8/20.
    assert (scores.mota, scores.idf1) == pytest.approx((0.9, 0.8))
    assert (scores.id_switches, scores.false_positives, scores.false_negatives, scores.truths) == (1, 0, 0, 10)
    # Association (Luiten et al. 2020, equation 16): object 1: 5 boxes of A = 1. Object 2: 3 boxes shared by
    # track 2 (3 of the union 5), 2 boxes by track 3 (2 of 5). AssA = (5 + 3 * 3/5 + 2 * 2/5) / 10.
    assa = (5 + 3 * 0.6 + 2 * 0.4) / 10
    assert (scores.deta, scores.assa, scores.loca) == pytest.approx((1, assa, 1))
    assert scores.hota == pytest.approx(math.sqrt(assa))


def test_mota_and_idf1_agree_with_motmetrics_on_noise() -> None:
    import motmetrics

    rng = np.random.default_rng(0)
    frame, track = np.repeat(np.arange(1, 41), 3), np.tile([1, 2, 3], 40)
    low = np.stack([frame * 2.0 + 40 * track, 30.0 * track], 1)
    truth = Boxes(frame, track, np.concatenate([low, low + 20], 1))
    seen = rng.random(len(frame)) > 0.2
    moved = truth.xyxy + rng.normal(0, 3, truth.xyxy.shape)
    ids = np.where(rng.random(len(frame)) < 0.05, track + 10, track)
    predicted = Boxes(frame[seen], ids[seen], moved[seen])
    ours = tracking_scores({"s": truth}, {"s": predicted})["all"]

    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for f in np.unique(frame):
        a, b = truth.frame == f, predicted.frame == f
        distance = 1 - box_iou(truth.xyxy[a], predicted.xyxy[b])
        accumulator.update(truth.track[a], predicted.track[b], np.where(distance > 0.5, np.nan, distance))
    theirs = motmetrics.metrics.create().compute(
        accumulator, metrics=["mota", "idf1", "num_false_positives", "num_misses"], name="s"
    )
    assert ours.idf1 == pytest.approx(theirs["idf1"].iloc[0], abs=1e-9)
    assert ours.false_negatives == theirs["num_misses"].iloc[0]
    assert ours.false_positives == theirs["num_false_positives"].iloc[0]
    assert ours.mota == pytest.approx(theirs["mota"].iloc[0], abs=0.02)  # they count switches back differently


def test_sequences_are_pooled_and_a_missing_one_is_all_missed() -> None:
    truth, predicted = one_switch()
    scores = tracking_scores({"a": truth, "b": truth}, {"a": predicted})
    assert scores["b"].mota == 0 and scores["b"].false_negatives == 10
    assert scores["all"].mota == pytest.approx(1 - 11 / 20)
    with pytest.raises(ConfigError, match="'c' have no truth"):
        tracking_scores({"a": truth}, {"c": predicted})


def test_motchallenge_text_is_read_and_a_bad_line_named(tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    path.write_text("1,1,399,182,121,229,1,-1,-1,-1\n\n1,2,282,201,92,184,0,-1,-1,-1\n2,2,0.5,0,10,10\n")
    boxes = read_motchallenge(path)
    assert boxes.frame.tolist() == [1, 2] and boxes.track.tolist() == [1, 2]
    assert boxes.xyxy[0].tolist() == [399, 182, 520, 411]
    path.write_text("1,1,0,0,5,5\n1,x,0,0,5,5\n")
    with pytest.raises(ConfigError, match=r"gt\.txt, line 2"):
        read_motchallenge(path)
    path.write_text("1,1,0,0,0,5\n")
    with pytest.raises(ConfigError, match=r"gt\.txt, line 1: a box needs a positive width"):
        read_motchallenge(path)


# Pictures


def test_pictures_are_pngs_of_a_size_that_one_can_read() -> None:
    import io

    from PIL import Image

    recall = np.linspace(0, 1, 11)
    for data in (
        confusion_png(np.array([[3, 1, 0], [0, 0, 0], [2, 0, 5]]), ["a", "b", "c"]),
        precision_recall_png({f"c{i}": (recall, 1 - recall * i / 20) for i in range(15)}, "IoU 0.5"),
        curves_png([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "top1": 0.5}]),
        curves_png([{"epoch": e, "loss": 2.0 / e, "val_loss": 1.0, "AP": 0.5, "seconds": 3.0} for e in (1, 2)], 2),
    ):
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "PNG" and min(image.size) > 200
