"""Scoring files and lakes: the same truth gives the same figures, and files that do not fit are named."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.support.lakes import RUN, outcome
from vidproc.annotations import Detections
from vidproc.cli import app
from vidproc.errors import ConfigError
from vidproc.learn.dataset import DatasetSettings, make_dataset
from vidproc.learn.labels.actions import read_actions
from vidproc.learn.labels.catalog import Catalog
from vidproc.learn.labels.coco import read_coco
from vidproc.learn.scoring.evaluate import evaluate
from vidproc.learn.scoring.settings import EvalSettings
from vidproc.media import Clip, DecodeReport, FrameBatch, FrameSize, Geometry, Grid, Task, Video
from vidproc.models.base import ModelCard
from vidproc.tables.lake import Lake
from vidproc.tables.publish import publish
from vidproc.tables.rows import actions_table, detections_table
from vidproc.tables.staging import Staging, TaskReport

LABELS = ("walk", "jump", "sit")
REAL = Path(os.environ.get("VIDPROC_ACCEPTANCE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def card(kind: Any, labels: tuple[str, ...]) -> ModelCard:
    return ModelCard(
        name="m",
        kind=kind,
        labels=labels,
        grid=Grid(fps=Fraction(2), size=FrameSize()),
        licence="MIT",
        weights_uri="",
        weights_sha256="ab" * 32,
    )


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Two videos of 60 s, sampled twice a second: a cat that moves with a dog that stands (its track changes its
    number after 4 s) for 8 s; windows of 2 s that say jump in 10 ... 20 s and walk elsewhere."""
    made = Lake.create(str(tmp_path_factory.mktemp("lake") / "lake"))
    outcomes, linked = [], {}
    for name in ("one", "two"):
        of = outcome(name, tasks=1)
        assert of.info is not None
        task = Task(of.info, (Clip(0, 100),), 0, 1, RUN.pipeline_id, 1)
        assert task.task_id in of.task_ids
        k = np.arange(16)
        batch = FrameBatch(np.zeros((16, 1, 1, 3), np.uint8), k, k / 2, k, Geometry(64, 48), 16, is_last=True)
        boxes = np.concatenate([[[t, 5, t + 10, 15], [40, 20, 60, 40]] for t in range(16)]).astype(np.float32)
        found = Detections(np.repeat(k, 2), boxes, np.tile(np.float32([0.9, 0.8]), 16), np.tile([0, 1], 16))
        start = np.arange(0, 59.0)
        jump = ((np.minimum(start + 2, 20) - np.maximum(start, 10)).clip(0) / 2)[:, None]
        scores = np.concatenate([1 - jump, jump, 0 * jump], 1).astype(np.float32)
        tables = {
            "detections": detections_table(
                of.video.video_id, RUN.pipeline, card("detector", ("cat", "dog")), batch, found
            ),
            "actions": actions_table(
                of.video.video_id, RUN.pipeline, card("actions", LABELS), start, start + 2, scores, top_k=2
            ),
        }
        decode = DecodeReport(1, 1, 0.0, 60.0, 1, 0.1, True)
        Staging(made.storage, RUN.pipeline_id).put(task, tables, TaskReport.of(task, tables, decode))
        outcomes.append(of)
    del linked

    def link(of: Any, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
        rows = tables["detections"]
        dog, late = np.array(rows["class_id"]) == 1, np.array(rows["time_s"]) >= 4
        keys = {"video_id": of.video.video_id, "pipeline": RUN.pipeline, "model": tables["actions"]["model"][0].as_py()}
        spans = [("walk", 0.0, 10.0, 0.9), ("jump", 10.0, 20.0, 0.95), ("walk", 20.0, 60.0, 0.9)]
        segments = [
            keys | {"kind": "action", "label": label, "start_s": a, "end_s": b, "score": s, "track_ids": None}
            for label, a, b, s in spans
        ]
        tracked = rows.append_column("track_id", pa.array(np.where(dog, np.where(late, 3, 2), 1), pa.int64()))
        return tables | {"detections": tracked, "segments": pa.Table.from_pylist(segments)}

    publish(made, outcomes, link, RUN)
    return made


def save(path: Path, value: Any) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def boxes_truth(path: Path, *, shift: float = 0.0) -> str:
    """The cat and the dog of `one` at 0, 1, ... 7 s; moved by `shift` pixels."""
    images, annotations = [], []
    for t in range(8):
        images.append({"id": t, "file_name": "one.mp4", "time_s": t, "width": 64, "height": 48})
        for category, bbox in ((1, [2 * t + shift, 5, 10, 10]), (2, [40, 20, 20, 20])):
            annotations.append({"id": len(annotations), "image_id": t, "category_id": category, "bbox": bbox})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return save(path, {"images": images, "annotations": annotations, "categories": categories})


def test_a_lakes_detections_are_scored_at_the_labelled_frames(lake: Lake, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = evaluate(EvalSettings(task="detection", truth=boxes_truth(tmp_path / "t.json"), lake=lake.uri, out=str(out)))
    assert made.summary["AP"] == pytest.approx(1.0) and [c["truths"] for c in made.per_class] == [8, 8]
    assert json.loads((out / "scores.json").read_text())["AP50"] == pytest.approx(1.0)
    assert (out / "precision_recall.png").read_bytes()[:4] == b"\x89PNG"
    rows = list(csv.DictReader(io.StringIO((out / "per_class.csv").read_text())))
    assert [r["label"] for r in rows] == ["cat", "dog"] and len(made.files) == 3
    # Moved by 2 of 10 pixels the cat overlaps by 8 / 12: right up to IoU 0.65, 4 of 10 thresholds.
    moved = evaluate(EvalSettings(task="detection", truth=boxes_truth(tmp_path / "m.json", shift=2), lake=lake.uri))
    assert moved.summary["AP"] == pytest.approx((0.4 + 1) / 2)


def test_frames_that_the_lake_never_looked_at_are_no_zero(lake: Lake, tmp_path: Path) -> None:
    truth = json.loads(Path(boxes_truth(tmp_path / "t.json")).read_text())
    for image in truth["images"]:
        image["time_s"] += 0.25
    between = EvalSettings(task="detection", truth=save(tmp_path / "t.json", truth), lake=lake.uri)
    with pytest.raises(ConfigError, match=r"t\.json: no labelled frame is one .*the nearest was 0\.250 s away"):
        evaluate(between)
    assert evaluate(replace(between, tolerance_s=0.26)).summary["AP50"] > 0.5


def test_a_file_of_detections_gives_the_same_as_a_lake(lake: Lake, tmp_path: Path) -> None:
    truth = boxes_truth(tmp_path / "t.json", shift=2)
    results = [
        {"image_id": t, "category_id": c, "bbox": b, "score": s}
        for t in range(8)
        for c, b, s in ((1, [2 * t, 5, 10, 10], 0.9), (2, [40, 20, 20, 20], 0.8))
    ]
    by_file = evaluate(EvalSettings(task="detection", truth=truth, predictions=save(tmp_path / "r.json", results)))
    by_lake = evaluate(EvalSettings(task="detection", truth=truth, lake=lake.uri))
    assert by_file.summary == pytest.approx(by_lake.summary)


def lake_of(folder: Path, results: list[dict[str, Any]], labels: tuple[str, ...], moments: dict[Any, float]) -> Lake:
    """A lake with one video, `film`, whose detections are COCO results at the moment of their image."""
    made = Lake.create(str(folder / "lake"))
    of = outcome("film", tasks=1)
    assert of.info is not None
    task = Task(of.info, (Clip(0, 100),), 0, 1, RUN.pipeline_id, 1)
    results = sorted(results, key=lambda r: moments[r["image_id"]])
    times = sorted(set(moments.values()))
    k = np.arange(len(times))
    batch = FrameBatch(
        np.zeros((len(k), 1, 1, 3), np.uint8), k, np.array(times), k, Geometry(640, 640), len(k), is_last=True
    )
    boxes = np.array([r["bbox"] for r in results], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    found = Detections(
        np.array([times.index(moments[r["image_id"]]) for r in results], np.int64),
        boxes,
        np.array([r["score"] for r in results], np.float32),
        np.array([r["class"] for r in results], np.int64),
    )
    tables = {"detections": detections_table(of.video.video_id, RUN.pipeline, card("detector", labels), batch, found)}
    decode = DecodeReport(1, 1, 0.0, 60.0, 1, 0.1, True)
    Staging(made.storage, RUN.pipeline_id).put(task, tables, TaskReport.of(task, tables, decode))
    publish(made, [of], lambda _, tables: dict(tables), RUN)
    return made


def crowded() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Four images with ids of their own: a crowd with finds inside it, an object whose annotated area (of its
    outline) puts it among the small ones, one beyond the image's edge, one without width, and an image in which
    nothing was found."""
    box = [100.0, 100.0, 40.0, 40.0]
    annotations = [
        {"id": 9, "image_id": 70, "category_id": 44, "bbox": box, "area": 700.0, "iscrowd": 0},
        {"id": 8, "image_id": 70, "category_id": 44, "bbox": [200, 200, 300, 300], "area": 60000.0, "iscrowd": 1},
        {"id": 7, "image_id": 12, "category_id": 44, "bbox": [600.0, 600, 90, 90], "area": 8100.0, "iscrowd": 0},
        {"id": 6, "image_id": 12, "category_id": 18, "bbox": [10.0, 10, 0, 5], "area": 1.0, "iscrowd": 0},
        {"id": 5, "image_id": 33, "category_id": 18, "bbox": box, "area": 1600.0, "iscrowd": 0},
        {"id": 4, "image_id": 51, "category_id": 18, "bbox": box, "area": 1600.0, "iscrowd": 0},
    ]
    images = [
        {"id": i, "file_name": "film.mp4", "time_s": t, "width": 640, "height": 640}
        for t, i in enumerate((70, 12, 33, 51))
    ]
    truth = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 44, "name": "cat"}, {"id": 18, "name": "dog"}],
    }
    results = [
        {"image_id": 70, "category_id": 44, "bbox": [210 + 20.0 * i, 220, 40, 40], "score": 0.99 - 0.01 * i}
        for i in range(10)  # in the crowd, and surer than what is right: neither good nor bad
    ]
    results += [
        {"image_id": 70, "category_id": 44, "bbox": box, "score": 0.5},
        {"image_id": 12, "category_id": 44, "bbox": [600, 600, 80, 88], "score": 0.4},
        {"image_id": 33, "category_id": 18, "bbox": box, "score": 0.75},
        {"image_id": 33, "category_id": 44, "bbox": box, "score": 0.25},
    ]
    return truth, results


def test_a_lakes_detections_are_scored_as_coco_does(tmp_path: Path) -> None:
    truth, results = crowded()
    for r in results:
        r["class"] = {44: 0, 18: 1}[r["category_id"]]
    lake = lake_of(tmp_path, results, ("cat", "dog"), {i["id"]: float(i["time_s"]) for i in truth["images"]})
    path = save(tmp_path / "t.json", truth)
    of_lake = evaluate(EvalSettings(task="detection", truth=path, lake=lake.uri))
    plain = [{k: v for k, v in r.items() if k != "class"} for r in results]
    of_file = evaluate(EvalSettings(task="detection", truth=path, predictions=save(tmp_path / "r.json", plain)))
    assert of_lake.summary == pytest.approx(of_file.summary)
    assert of_lake.per_class[1]["ap50"] == of_file.per_class[1]["ap50"] == pytest.approx(1.0)
    # By hand. Dogs: one of three is found, 34 of the 101 recalls. Small by annotated area are one cat and one dog.
    assert of_lake.per_class[0] | {"ap": 0, "ap50": 0} == {
        "label": "dog",
        "ap": 0,
        "ap50": 0,
        "truths": 3,
        "predictions": 1,
    }
    assert of_lake.per_class[0]["ap50"] == pytest.approx(34 / 101)
    assert of_lake.summary["APs"] == pytest.approx((1.0 + 0.0) / 2)


@pytest.mark.acceptance
def test_a_lakes_figures_are_those_that_coco_published(tmp_path: Path) -> None:
    folder = REAL / "groundtruth" / "cocoeval_val2014_100"
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    for second, image in enumerate(truth["images"]):
        image |= {"file_name": "film.mp4", "time_s": second}
    ids = [c["id"] for c in truth["categories"]]
    for r in results:
        r["class"] = ids.index(r["category_id"])
    moments = {i["id"]: float(i["time_s"]) for i in truth["images"]}
    lake = lake_of(tmp_path, results, tuple(c["name"] for c in truth["categories"]), moments)
    path = save(tmp_path / "t.json", truth)
    made = evaluate(EvalSettings(task="detection", truth=path, lake=lake.uri))
    # A lake keeps corners as float32 and no order of equal scores: some of these boxes meet a threshold exactly, and
    # many scores are equal.
    published = [0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.387, 0.594, 0.595]
    assert list(made.summary.values())[:9] == pytest.approx(published, abs=0.002)


def test_samples_closer_than_the_tolerance_are_not_added_up(lake: Lake, tmp_path: Path) -> None:
    truth = boxes_truth(tmp_path / "t.json")
    exact = evaluate(EvalSettings(task="detection", truth=truth, lake=lake.uri))
    wide = evaluate(EvalSettings(task="detection", truth=truth, lake=lake.uri, tolerance_s=0.6))
    assert wide.summary == exact.summary and wide.per_class == exact.per_class


def activitynet(path: Path, names: tuple[str, ...] = ("one", "two")) -> str:
    annotations = [
        {"label": label, "segment": s} for label, s in (("walk", [0, 10]), ("jump", [10, 20]), ("walk", [20, 60]))
    ]
    return save(
        path, {"database": {n: {"subset": "validation", "duration": 60, "annotations": annotations} for n in names}}
    )


@pytest.mark.parametrize("source", ["segments", "windows"])
def test_a_lakes_segments_by_its_table_or_its_windows(source: Any, lake: Lake, tmp_path: Path) -> None:
    truth = activitynet(tmp_path / "t.json")
    made = evaluate(EvalSettings(task="segments", truth=truth, lake=lake.uri, source=source))
    assert made.summary["mAP"] == pytest.approx(1.0) or (source == "windows" and made.summary["mAP@0.80"] > 0.9)


def test_a_file_of_segments(tmp_path: Path) -> None:
    truth = activitynet(tmp_path / "t.json", ("one",))
    found = {
        "one": [
            {"label": "jump", "score": 0.9, "segment": [10, 20]},
            {"label": "walk", "score": 0.8, "segment": [0, 9]},
        ]
    }
    settings = EvalSettings(task="segments", truth=truth, predictions=save(tmp_path / "p.json", {"results": found}))
    made = evaluate(settings)
    # jump 1; walk: one of two, tIoU 0.9: precision 1 at recall 1/2, up to 0.90.
    assert made.summary["mAP@0.50"] == pytest.approx(0.75) and made.summary["mAP@0.95"] == pytest.approx(0.5)


def test_a_lakes_windows_name_what_happens_in_an_example(lake: Lake, tmp_path: Path) -> None:
    rows = ["label,uri,start_s,end_s", "walk,one,0,8", "jump,one,11,19", "jump,two,12,16", "sit,two,30,40"]
    made = evaluate(EvalSettings(task="classification", truth=save(tmp_path / "t.csv", "\n".join(rows)), lake=lake.uri))
    assert made.summary["top1"] == 0.75 and made.summary["examples"] == 4
    sit = next(c for c in made.per_class if c["label"] == "sit")
    assert sit["accuracy"] == 0 and sit["most_confused_with"] == "walk"


def test_files_of_classes_with_views(tmp_path: Path) -> None:
    truth = save(tmp_path / "t.csv", "label,youtube_id,time_start,time_end\na,x,0,10\nb,y,0,10\n")
    rows = "uri,label,score,view\nx,a,0.6,0\nx,b,0.4,0\nx,a,0.6,1\nx,b,0.4,1\nx,b,0.9,2\nx,a,0.1,2\ny,b,0.7,0\n"
    made = evaluate(EvalSettings(task="classification", truth=truth, predictions=save(tmp_path / "p.csv", rows)))
    assert made.summary["top1"] == 0.5  # x: the views' means are a 0.43, b 0.57
    listed = {"results": {"x": [{"label": "a", "score": 0.9}], "y": [{"label": "b", "score": 0.3}]}}
    made = evaluate(EvalSettings(task="classification", truth=truth, predictions=save(tmp_path / "p.json", listed)))
    assert made.summary["top1"] == 1.0


def test_activitynets_answers_are_for_whole_videos(tmp_path: Path) -> None:
    """`walk` happens twice in each video, which counts once."""
    truth = activitynet(tmp_path / "t.json")
    rows = [{"label": "walk", "score": 0.6}, {"label": "jump", "score": 0.4}]
    predictions = save(tmp_path / "p.json", {"results": {"one": rows}})
    made = evaluate(EvalSettings(task="classification", truth=truth, predictions=predictions))
    # Two videos in which two things happen; nobody spoke of the second video.
    assert (made.summary["examples"], made.summary["top1"]) == (4, 0.25)
    assert [c["examples"] for c in made.per_class] == [2, 2]


def test_a_lakes_tracks(lake: Lake, tmp_path: Path) -> None:
    """The truth runs at 10 frames a second, the detector saw every fifth."""
    lines = []
    for frame in range(1, 77):
        x = (frame - 1) // 5
        lines += [f"{frame},1,{x},5,10,10,1,-1,-1,-1", f"{frame},2,40,20,20,20,1,-1,-1,-1"]
    folder = tmp_path / "truth"
    folder.mkdir()
    save(folder / "one.txt", "\n".join(lines))
    made = evaluate(
        EvalSettings(
            task="tracking", truth=str(folder), lake=lake.uri, truth_fps=10, sample_fps=2, out=str(tmp_path / "o")
        )
    )
    # 32 boxes, all found, one switch (the dog's track at 4 s).
    assert made.summary["MOTA"] == pytest.approx(1 - 1 / 32) and made.summary["id_switches"] == 1
    assert made.summary["IDF1"] == pytest.approx((16 + 8) / 32) and 0.7 < made.summary["HOTA"] < 1
    assert [r["sequence"] for r in made.per_class] == ["one", "all"]


def test_files_of_tracks(tmp_path: Path) -> None:
    lines = "\n".join(f"{f},1,{f},5,10,10" for f in range(1, 6))
    truth, found = save(tmp_path / "gt.txt", lines), save(tmp_path / "found.txt", lines)
    made = evaluate(EvalSettings(task="tracking", truth=truth, predictions=found))
    assert made.summary["MOTA"] == made.summary["IDF1"] == made.summary["HOTA"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("task", "truth", "predictions", "message"),
    [
        ("segments", "activitynet", {"x": 1}, r"p\.json: not an ActivityNet prediction file"),
        ("segments", "activitynet", {"results": {"one": [{"label": "a"}]}}, r"p\.json: results\.one\[0\]: needs label"),
        ("classification", "activitynet1", {"results": {"z": []}}, r"p\.json: results\.z: there is no 'z'"),
        (
            "classification",
            "activitynet1",
            {"results": {"one": [{"label": "walk"}]}},
            r"results\.one\[0\]: needs label and",
        ),
        ("classification", "activitynet1", {"results": {"one": [{"label": "z", "score": 1}]}}, r"\[0\]: 'z' is none"),
        ("detection", "activitynet", [], r"t\.json: not a COCO instances file, it has no list 'images'"),
        ("detection", "coco", {"a": 1}, r"p\.json: COCO results are a list"),
        ("detection", "coco", "[", r"p\.json: not JSON"),
    ],
)
def test_predictions_that_do_not_fit_fail_with_file_and_key(
    task: Any, truth: str, predictions: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    made = boxes_truth(path) if truth == "coco" else activitynet(path, ("one",))
    with pytest.raises(ConfigError, match=message):
        evaluate(EvalSettings(task=task, truth=made, predictions=save(tmp_path / "p.json", predictions)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("uri,label\nx,a\n", r"p\.csv, line 1: lacks the column score"),
        ("uri,label,score\nx,a,much\n", r"p\.csv, line 2: the score must be a number"),
        ("uri,label,score\nx,a,1\nx,c,1\n", r"p\.csv, line 3: 'c' is none of the truth's labels"),
        ("uri,label,score\nz,a,1\n", r"p\.csv, line 2: there is no 'z' in the truth"),
        ("uri,label,score,start_s\nx,a,1,soon\n", r"p\.csv, line 2: start_s must be seconds, not 'soon'"),
        ("uri,label,score,start_s\nx,a,1,4\n", r"p\.csv, line 2: no example of 'x' in the truth starts at 4 s"),
    ],
)
def test_classes_that_do_not_fit_fail_with_file_and_line(rows: str, message: str, tmp_path: Path) -> None:
    truth = save(tmp_path / "t.csv", "label,uri,start_s\na,x,0\nb,y,0\n")
    with pytest.raises(ConfigError, match=message):
        evaluate(EvalSettings(task="classification", truth=truth, predictions=save(tmp_path / "p.csv", rows)))


def test_what_a_lake_does_not_hold_is_said(lake: Lake, tmp_path: Path) -> None:
    truth = boxes_truth(tmp_path / "t.json")
    with pytest.raises(ConfigError, match=r"no indexed video of the pipeline day; it has night"):
        evaluate(EvalSettings(task="detection", truth=truth, lake=lake.uri, pipeline="day"))
    with pytest.raises(ConfigError, match=r"holds no rows of the model other"):
        evaluate(EvalSettings(task="detection", truth=truth, lake=lake.uri, model="other"))
    with pytest.raises(ConfigError, match=r"database\.three: there is no 'three'"):
        evaluate(EvalSettings(task="segments", truth=activitynet(tmp_path / "a.json", ("three",)), lake=lake.uri))
    with pytest.raises(ConfigError, match="either a file of predictions or a lake"):
        EvalSettings(task="detection", truth=truth)
    with pytest.raises(ConfigError, match="at truth_fps and sample_fps"):
        EvalSettings(task="tracking", truth=truth, lake=lake.uri)


def test_the_command_prints_the_figures_and_a_row_a_class_and_its_json_is_json(tmp_path: Path) -> None:
    truth = boxes_truth(tmp_path / "t.json")
    labels = json.loads(Path(truth).read_text())
    labels["categories"].append({"id": 99, "name": "unicorn"})  # without an example: its AP is no number
    command = ["eval", "detection", save(tmp_path / "t.json", labels), "--predictions", save(tmp_path / "p.json", [])]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0 and "AP50" in shown.output
    assert re.search(r"label +ap +ap50 +truths +predictions", shown.output)
    assert re.search(r"unicorn +- +- +0 +0", shown.output)
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).output, parse_constant=pytest.fail)
    assert {c["label"]: c["ap"] for c in found["per_class"]}["unicorn"] is None


# From a lake back to labels


def test_rows_of_a_lake_become_label_files_that_training_reads(lake: Lake, tmp_path: Path) -> None:
    archive = Catalog("s3://archive", [(f"{n}.mp4", Video(f"s3://archive/{n}.mp4", 1, "x")) for n in ("one", "two")])
    condition = "d.label = 'dog' AND d.time_s < 2 AND v.uri LIKE '%one%' -- mine"
    report = make_dataset(DatasetSettings(lake=lake.uri, out=str(tmp_path / "c.json"), where=condition))
    assert (report.videos, report.frames, report.examples) == (1, 4, {"dog": 4})
    read = read_coco(Path(report.path), archive)
    assert [f.time_s for f in read.frames] == [0, 0.5, 1, 1.5] and read.frames[0].boxes.tolist() == [[40, 20, 60, 40]]
    segments = make_dataset(DatasetSettings(lake=lake.uri, out=str(tmp_path / "a.json"), kind="activitynet"))
    assert segments.examples == {"walk": 4, "jump": 2}
    clips = read_actions(segments.path, archive, subset="training").clips
    assert {(c.start_s, c.end_s) for c in clips} == {(0, 10), (10, 20), (20, 60)}
    with pytest.raises(ConfigError, match=r"no row of detections fits d\.score > 2"):
        make_dataset(DatasetSettings(lake=lake.uri, out=str(tmp_path / "x.json"), where="d.score > 2"))
    with pytest.raises(ConfigError):
        make_dataset(DatasetSettings(lake=lake.uri, out=str(tmp_path / "x.json"), where="TRUE); DROP TABLE d; --"))
    assert not (tmp_path / "x.json").exists()
