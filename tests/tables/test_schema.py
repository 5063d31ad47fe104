"""The schema files: read, rendered, and never taken back."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vidproc.annotations import Detections
from vidproc.media import FrameBatch, FrameSize, Geometry, Grid
from vidproc.models.base import ModelCard
from vidproc.tables.rows import actions_table, detections_table, embeddings_table
from vidproc.tables.schema import (
    MODEL_TABLES,
    TABLES,
    broken_promises,
    load_schema,
    load_schemas,
    parse_type,
    render_markdown,
    render_release,
)

SCHEMAS = Path(__file__).parents[2] / "schemas"


def test_every_file_is_a_table_and_every_table_a_file() -> None:
    assert {p.stem for p in SCHEMAS.glob("*.yaml")} == set(TABLES)
    for schema in load_schemas().values():
        assert schema.arrow.names == list(schema.names)
        assert all(f.meaning.endswith(".") for f in schema.fields), schema.name


def test_keys_of_all_tables() -> None:
    for name in TABLES:
        fields = {f.name: f for f in load_schema(name).fields}
        assert fields["pipeline"].type == "string" and not fields["pipeline"].nullable
        if name != "runs":
            assert not fields["video_id"].nullable
        if name in MODEL_TABLES:
            assert not fields["model"].nullable
            assert load_schema(name).partition_by == ("recorded_date",)
            assert f"n_{name}" in load_schema("videos").names


def test_the_readme_is_rendered_from_the_files() -> None:
    command = [sys.executable, "-m", "vidproc.tables.schema", "--markdown"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out == render_markdown()
    assert (SCHEMAS / "README.md").read_text() == out, "run the command that its third line names"


def test_nothing_that_was_released_is_taken_back() -> None:
    assert broken_promises(json.loads((SCHEMAS / "released.json").read_text()), load_schemas()) == []


def test_taking_back_fails() -> None:
    released = json.loads(render_release())
    tracks = load_schema("tracks")
    first = tracks.fields[0]

    def broken(*fields: object) -> list[str]:
        return broken_promises(released, load_schemas() | {"tracks": replace(tracks, fields=fields)})

    assert broken(*tracks.fields) == []
    assert broken(*tracks.fields[1:]) == ["tracks.video_id is gone"]
    assert broken(replace(first, type="int64"), *tracks.fields[1:]) == ["tracks.video_id was string and is int64"]
    assert "may be now" in broken(replace(first, nullable=True), *tracks.fields[1:])[0]
    added = replace(first, name="new", nullable=True)
    assert broken(*tracks.fields, added) == ["tracks has new fields, so its version must grow"]
    assert "must be nullable" in broken(*tracks.fields, replace(added, nullable=False))[0]
    assert broken_promises(released, {}) == [f"table {name} is gone" for name in released]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("int64", pa.int64()),
        ("list<string>", pa.list_(pa.string())),
        (
            "list<struct<a: float64, b: list<struct<c: int32, d: bool>>>>",
            pa.list_(
                pa.struct([("a", pa.float64()), ("b", pa.list_(pa.struct([("c", pa.int32()), ("d", pa.bool_())])))])
            ),
        ),
        ("fixed_size_list<float16>", pa.list_(pa.float16())),
    ],
)
def test_types(text: str, kind: pa.DataType) -> None:
    assert parse_type(text) == kind


@pytest.mark.parametrize("text", ["int63", "list<int64", "struct<a: nope>", ""])
def test_an_unknown_type_fails(text: str) -> None:
    with pytest.raises(ValueError, match="unknown type"):
        parse_type(text)


# --- rows ----------------------------------------------------------------------------------------


def _card(*labels: str) -> ModelCard:
    grid = Grid(fps=2, size=FrameSize())  # type: ignore[arg-type]
    return ModelCard(
        name="m", kind="detector", labels=labels, grid=grid, licence="MIT", weights_uri="", weights_sha256="ab" * 32
    )


def _batch(n: int, owned: int) -> FrameBatch:
    k = np.arange(n)
    return FrameBatch(np.zeros((n, 2, 2, 3), np.uint8), k, k / 2, k * 100 + 7, Geometry(2, 2), owned, False)


def test_detections_table() -> None:
    frame = np.array([2, 0, 3, 0])
    boxes = np.arange(16, dtype=np.float32).reshape(4, 4)
    found = Detections(frame, boxes, np.array([0.5, 0.6, 0.7, 0.8], np.float32), np.array([1, 0, 1, 1]))
    table = detections_table("v", "p", _card("cat", "dog"), _batch(4, owned=3), found)
    assert table.to_pydict() == {
        "video_id": ["v"] * 3,
        "pipeline": ["p"] * 3,
        "model": ["m@abababab"] * 3,
        "time_s": [0.0, 0.0, 1.0],
        "pts": [7, 7, 207],
        "label": ["cat", "dog", "dog"],
        "class_id": [0, 1, 1],
        "score": pytest.approx([0.6, 0.8, 0.5]),
        "x_min": [4, 12, 0],
        "y_min": [5, 13, 1],
        "x_max": [6, 14, 2],
        "y_max": [7, 15, 3],
    }
    stored = load_schema("detections").conform(table, recorded_date=date(2026, 1, 2))
    assert stored.schema == load_schema("detections").stored
    assert stored["track_id"].null_count == 3
    assert stored["recorded_date"].to_pylist() == [date(2026, 1, 2)] * 3
    nothing = detections_table("v", "p", _card("cat"), _batch(2, 2), Detections.empty())
    assert nothing.num_rows == 0 and nothing.schema == table.schema


def test_a_class_without_a_label_fails() -> None:
    found = Detections(np.zeros(1, np.int64), np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.array([5]))
    with pytest.raises(ValueError, match="class 5 and has 1 labels"):
        detections_table("v", "p", _card("cat"), _batch(1, 1), found)


def test_actions_table() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.4, 0.2, 0.4]], np.float32)
    table = actions_table(
        "v", "p", _card("run", "sit", "wave"), np.array([0.0, 1.0]), np.array([2.0, 3.0]), scores, top_k=2
    )
    assert table["label"].to_pylist() == ["sit", "wave", "run", "wave"]
    assert table["rank"].to_pylist() == [1, 2, 1, 2]
    assert table["start_s"].to_pylist() == [0.0, 0.0, 1.0, 1.0]
    assert table["score"].to_pylist() == pytest.approx([0.7, 0.2, 0.4, 0.4])
    assert actions_table("v", "p", _card("a"), np.zeros(1), np.ones(1), np.ones((1, 1)), top_k=5).num_rows == 1
    load_schema("actions").conform(table)


def test_embeddings_are_half_floats_in_parts_and_floats_in_the_lake() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    part = embeddings_table("v", "p", _card("a"), np.zeros(3), np.ones(3), vectors)
    assert part.schema.field("embedding").type == pa.list_(pa.float16(), 8)
    stored = load_schema("embeddings").conform(part)
    assert stored.schema.field("embedding").type == pa.list_(pa.float32())
    assert np.array_equal(np.array(stored["embedding"].to_pylist()), vectors.astype(np.float16).astype(np.float64))


def test_rows_that_break_the_schema_fail() -> None:
    schema = load_schema("shots")
    good = pa.table(
        {"video_id": ["v"], "pipeline": ["p"], "model": ["m"], "shot": [0], "start_s": [0.0], "end_s": [1.0]}
    )
    assert schema.conform(good).num_rows == 1
    with pytest.raises(ValueError, match=r"shots has no columns \['colour'\]"):
        schema.conform(good.append_column("colour", pa.array(["red"])))
    with pytest.raises(ValueError, match=r"shots\.model is missing"):
        schema.conform(good.drop(["model"]))
    with pytest.raises(ValueError, match=r"shots\.end_s must be float64"):
        schema.conform(good.set_column(5, "end_s", pa.array(["late"])))
    with pytest.raises(ValueError, match=r"shots\.shot may not be null"):
        schema.conform(good.set_column(3, "shot", pa.array([None], pa.int64())))
