"""Label files: what is read from them, and the one sentence for each thing that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidproc.errors import ConfigError
from vidproc.learn.labels.actions import read_actions
from vidproc.learn.labels.catalog import Catalog
from vidproc.learn.labels.coco import read_coco
from vidproc.learn.labels.splits import require_examples, split_by_video
from vidproc.learn.labels.values import ActionLabels, LabelledClip
from vidproc.media import Video


@pytest.fixture
def archive(tmp_path: Path) -> Catalog:
    """Labels point at objects by name; what is in those is not looked at here."""
    for name in ("a/one.mp4", "a/two.mp4", "b/two.mp4", "b/v_three.webm", "still.jpg", "abc_000010_000020.mp4"):
        path = tmp_path / "archive" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return Catalog.of(str(tmp_path / "archive"))


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


COCO: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "still.jpg", "width": 100, "height": 80},
        {"id": 8, "file_name": "a/one.mp4", "time_s": 1.5, "width": 64, "height": 48},
        {"id": 9, "file_name": "a/one.mp4", "frame": 50, "fps": 25, "width": 64, "height": 48},
    ],
    "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 20, 30, 40]},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [-0.5, 0, 100.9, 10]},
        {"id": 3, "image_id": 8, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1},
    ],
}


def test_coco_over_images_and_over_frames_of_videos(archive: Catalog, tmp_path: Path) -> None:
    read = read_coco(write(tmp_path / "x.json", COCO), archive)
    assert read.labels == ("cat", "dog")
    still, at_time, at_frame = read.frames
    np.testing.assert_allclose(still.boxes, [[10, 20, 40, 60], [0, 0, 100, 10]])
    assert still.class_id.tolist() == [1, 0] and still.time_s is None and still.boxes.dtype == np.float32
    assert at_time.time_s == 1.5 and at_frame.time_s == 2.0 and at_time.source.uri.endswith("archive/a/one.mp4")
    assert len(at_time.boxes) == 0


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(COCO))
    at = copy
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return copy  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("categories",), None, r"x\.json: not a COCO instances file, it has no list 'categories'"),
        (
            ("annotations", 0, "bbox"),
            [80, 20, 30, 40],
            r"annotations\[0\] \(id 1\): bbox .* outside its image of 100 x 80",
        ),
        (("annotations", 0, "bbox"), [1, 1, 0, 4], r"annotations\[0\] .*has no area"),
        (("annotations", 0, "bbox"), [1, 1, 4], r"annotations\[0\] .*four numbers"),
        (("annotations", 1, "image_id"), 99, r"annotations\[1\] \(id 2\): image_id 99 is none"),
        (("annotations", 1, "category_id"), 99, r"annotations\[1\] \(id 2\): category_id 99 is none"),
        (("images", 1, "file_name"), "gone.mp4", r"images\[1\]: there is no 'gone.mp4' in .*archive"),
        (("images", 1, "file_name"), "two", r"images\[1\]: 'two' is the name of 2 objects"),
        (("images", 1, "time_s"), None, r"images\[1\]: .*one.mp4 is no image, so `time_s`"),
        (("images", 1, "time_s"), -1, r"images\[1\]: time_s must be a number from 0, not -1"),
        (("images", 0, "width"), None, r"images\[0\]: has no 'width'"),
        (("images", 1, "id"), 7, r"images\[1\]: the id 7 is given twice"),
        (("images", 0), "one.mp4", r"images\[0\]: must be a mapping, not 'one.mp4'"),
        (("annotations", 0), 5, r"annotations\[0\]: must be a mapping, not '5'"),
        (("categories", 1, "id"), 3, r"x\.json: categories: the id 3 is given twice"),
        (("categories", 0), "dog", r"x\.json: categories: must be a mapping"),
    ],
)
def test_a_coco_file_that_is_wrong_fails_with_its_key(
    path: tuple[Any, ...], value: Any, message: str, archive: Catalog, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_coco(write(tmp_path / "x.json", changed(path, value)), archive)


def test_labels_of_the_training_bind_those_of_the_validation(archive: Catalog, tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", COCO)
    assert read_coco(path, archive, ["dog", "bird", "cat"]).frames[0].class_id.tolist() == [0, 2]
    with pytest.raises(ConfigError, match=r"x\.json: categories: 'dog' is none of the labels cat"):
        read_coco(path, archive, ["cat"])


def test_kinetics_csv(archive: Catalog, tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.csv",
        "label,youtube_id,time_start,time_end,split\nrun,one,2,12,train\njump,abc,10,20,train\nrun,three,0,1,val\n",
    )
    read = read_actions(path, archive, subset="train")
    assert read.labels == ("jump", "run")
    assert [(c.source.uri.split("/")[-1], c.start_s, c.end_s, c.class_id) for c in read.clips] == [
        ("one.mp4", 2, 12, 1),
        ("abc_000010_000020.mp4", 0, None, 0),
    ]


def test_activitynet_json(archive: Catalog, tmp_path: Path) -> None:
    entry = {"subset": "training", "duration": 9.0, "annotations": [{"label": "run", "segment": [1, 3.5]}]}
    read = read_actions(write(tmp_path / "x.json", {"database": {"three": entry}}), archive)
    (clip,) = read.clips
    assert (clip.start_s, clip.end_s, clip.source.uri.endswith("b/v_three.webm")) == (1, 3.5, True)


def test_a_folder_a_class(archive: Catalog) -> None:
    read = read_actions("folders", archive)
    assert read.labels == ("a", "b") and [c.class_id for c in read.clips] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "label,video\nrun,one\n", r"x\.csv, line 1: needs the columns label and uri"),
        ("x.csv", "label,uri\nrun,a/one.mp4\njump,gone.mp4\n", r"x\.csv, line 3: there is no 'gone.mp4'"),
        (
            "x.csv",
            "label,uri,time_start\nrun,a/one.mp4,soon\n",
            r"x\.csv, line 2: time_start must be seconds, not 'soon'",
        ),
        ("x.csv", "label,uri,time_start,time_end\nrun,one,5,5\n", r"line 2: the range from 5 to 5 s holds nothing"),
        ("x.csv", "label,uri\n,one\n", r"x\.csv, line 2: the label is empty"),
        ("x.csv", "label,uri\n", r"x\.csv: holds no example"),
        ("x.csv", "label,uri\nfly,one\n", r"x\.csv, line 2: 'fly' is none of the labels run, walk"),
        ("x.json", {"database": {"gone": {}}}, r"x\.json: database\.gone: there is no 'gone'"),
        (
            "x.json",
            {"database": {"one": {"annotations": [{"label": "run", "segment": [3, 1]}]}}},
            r"x\.json: database\.one\.annotations\[0\]: the range from 3 to 1",
        ),
        (
            "x.json",
            {"database": {"one": {"duration": 5, "annotations": [{"label": "run", "segment": [1, 9]}]}}},
            r"annotations\[0\]: ends at 9 s, after the video's 5 s",
        ),
        ("x.json", {"results": {}}, r"x\.json: not an ActivityNet file"),
        ("x.json", {"database": {"one": [1]}}, r"x\.json: database\.one: must be a mapping"),
        ("x.json", {"database": {"one": {"annotations": {"a": 1}}}}, r"database\.one: annotations must be a list"),
        ("x.json", {"database": {"one": {"annotations": ["run"]}}}, r"annotations\[0\]: must be a mapping, not 'run'"),
        (
            "x.json",
            {"database": {"one": {"annotations": [{"label": "run", "segment": ["0", None]}]}}},
            r"annotations\[0\]: segment must be two numbers",
        ),
        ("x.json", {"database": {"one": {"duration": "5 s"}}}, r"database\.one: duration must be a number"),
        ("x.csv", "label,uri,time_start\nrun,one,nan\n", r"x\.csv, line 2: the range from nan to the end"),
        ("x.json", "{", r"x\.json: not JSON"),
        ("x.txt", "", r"x\.txt: label files for actions are"),
    ],
)
def test_an_action_file_that_is_wrong_fails_with_its_line_or_key(
    name: str, content: Any, message: str, archive: Catalog, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_actions(write(tmp_path / name, content), archive, ["run", "walk"])


def test_a_file_or_archive_that_is_not_there_fails(archive: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.json: cannot be read"):
        read_coco(tmp_path / "no.json", archive)
    with pytest.raises(ConfigError, match=r"no\.csv: cannot be read"):
        read_actions(tmp_path / "no.csv", archive)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"nothing in .*empty"):
        Catalog.of(str(tmp_path / "empty"))


def test_a_class_without_examples_fails() -> None:
    require_examples([0, 1, 1], ["run", "walk"], "x.csv")
    with pytest.raises(ConfigError, match=r"x\.csv: the class 'walk' has no example"):
        require_examples([0, 0], ["run", "walk"], "x.csv")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=60),
    st.floats(0, 0.6),
    st.integers(0, 9),
)
def test_the_split_parts_videos_and_leaves_every_class_something_to_learn(
    rows: list[tuple[int, int]], share: float, seed: int
) -> None:
    clips = tuple(
        LabelledClip(where="", source=Video(f"/v{v}", 1, "x"), start_s=i, end_s=i + 1, class_id=c)
        for i, (v, c) in enumerate(rows)
    )
    train, val = split_by_video(ActionLabels(("a", "b", "c", "d"), clips), share, seed)
    assert sorted(train.clips + val.clips, key=lambda c: c.start_s) == list(clips)
    assert not {c.source.uri for c in train.clips} & {c.source.uri for c in val.clips}
    one_class_each = len({v for v, _ in rows}) == len(set(rows))
    if one_class_each:  # a video of two classes may have to go with its other class
        assert {c.class_id for c in train.clips} == {c for _, c in rows}
