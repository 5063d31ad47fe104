"""ONNX detectors: the two decodings on graphs made here, whose answer follows from their pixels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from vidproc.errors import ConfigError
from vidproc.models import ModelSettings, check_model, describe_model, load_model
from vidproc.models.onnx.decoding import suppress, yolox_candidates, yolox_cells

SIDE = 64
CELLS = 8 * 8 + 4 * 4 + 2 * 2


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(
        nodes, "made", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def yolox_graph(path: Path, raw: np.ndarray, batch: int | str = "n") -> Path:
    """Its output is `raw` (cells, 5 + classes), the objectness multiplied by the mean of the blue
    channel / 255: what it sees depends on the frame, the order of colours and the range."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, *raw.shape])
    gain = np.zeros((1, 1, raw.shape[1]), np.float32)
    gain[..., 4] = 1 / 255
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Slice", ["means", "zero", "one", "one"], ["first"]),
        helper.make_node("Unsqueeze", ["first", "two"], ["level"]),
        helper.make_node("Mul", ["level", "gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "rest"], ["factor"]),
        helper.make_node("Mul", ["factor", "raw"], ["output"]),
    ]
    constants = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "two": np.array([2]),
        "gain": gain,
        "rest": (gain == 0).astype(np.float32),
        "raw": raw[None],
    }
    return save(path, nodes, [images], [output], constants)


def raw_output(classes: int = 2) -> np.ndarray:
    """Three boxes: class 1 at (20, 12) of 16 x 8 in the finest stride, class 0 over most of the frame in
    the coarsest, and beside the first a weaker one of its class that overlaps it."""
    raw = np.zeros((CELLS, 5 + classes), np.float32)
    cell = 1 * 8 + 2  # row 1, column 2 of stride 8
    raw[cell] = [0.5, 0.5, np.log(2), 0, 1.0, 0, 0.9]
    raw[cell + 1] = [-0.4, 0.5, np.log(2), 0, 1.0, 0, 0.8]
    raw[-1] = [0, 0, np.log(1.5), np.log(1.5), 0.9, 0.5, 0]
    return raw


def describe(path: Path, **values: Any) -> None:
    path.with_suffix(".yaml").write_text(yaml.safe_dump(values))


@pytest.fixture
def yolox(tmp_path: Path) -> Path:
    path = yolox_graph(tmp_path / "tiny.onnx", raw_output())
    describe(path, decoding="yolox", labels=["a", "b"], license="MIT")
    return path


def blue(*levels: int) -> np.ndarray:
    """RGB frames whose blue alone is not black."""
    frames = np.zeros((len(levels), SIDE, SIDE, 3), np.uint8)
    frames[..., 2] = np.array(levels)[:, None, None]
    return frames


def test_yolox_finds_what_the_graph_says(yolox: Path) -> None:
    model: Any = load_model(str(yolox), device="cpu")
    assert (model.card.name, model.card.labels, model.card.licence) == ("tiny", ("a", "b"), "MIT")
    size = model.card.grid.size
    assert (size.mode, size.height, size.width, size.fill) == ("letterbox", SIDE, SIDE, 114)
    found = model.detect(blue(255, 0, 127))
    assert found.frame.tolist() == [0, 0, 2]  # of the last, the weaker box is below the threshold
    first = found[found.frame == 0]
    assert first.class_id.tolist() == [1, 0]
    np.testing.assert_allclose(first.score, [0.9, 0.45], atol=1e-6)
    np.testing.assert_allclose(first.boxes, [[12, 8, 28, 16], [8, 8, 56, 56]], atol=1e-4)
    third = found[found.frame == 2]
    np.testing.assert_allclose(third.score, [0.9 * 127 / 255], atol=1e-6)


def test_overlapping_boxes_stay_when_asked(yolox: Path) -> None:
    model: Any = load_model(str(yolox), device="cpu", settings=ModelSettings(nms_iou=1.0))
    assert sorted(model.detect(blue(255)).class_id.tolist()) == [0, 1, 1]
    model = load_model(str(yolox), device="cpu", settings=ModelSettings(nms_iou=1.0, max_detections=1))
    assert model.detect(blue(255)).score.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_fixed_and_free_batches_agree(batch: int | str, tmp_path: Path) -> None:
    path = yolox_graph(tmp_path / "tiny.onnx", raw_output(), batch)
    describe(path, decoding="yolox", labels=["a", "b"])
    model: Any = load_model(str(path), device="cpu", settings=ModelSettings(batch_size=2, score_threshold=0.2))
    found = model.detect(blue(255, 250, 245, 240, 235))
    assert found.frame.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    np.testing.assert_allclose(found.score[::2], 0.9 * np.array([255, 250, 245, 240, 235]) / 255, atol=1e-6)
    assert len(model.detect(blue())) == 0


def test_a_description_elsewhere_or_options_do_as_well(yolox: Path, tmp_path: Path) -> None:
    expected = load_model(str(yolox), device="cpu").detect(blue(255))  # type: ignore[union-attr]
    (tmp_path / "elsewhere").mkdir()
    bare = tmp_path / "elsewhere" / "tiny.onnx"
    bare.write_bytes(yolox.read_bytes())
    by_options = ModelSettings(options={"decoding": "yolox", "labels": ["a", "b"]})
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"family": "onnx", "decoding": "yolox", "labels": ["a", "b"], "weights": "elsewhere/tiny.onnx"})
    )
    for spec, given_settings in ((str(bare), by_options), (str(tmp_path / "mine.yaml"), ModelSettings())):
        model: Any = load_model(spec, device="cpu", settings=given_settings)
        np.testing.assert_array_equal(model.detect(blue(255)).boxes, expected.boxes)
    assert describe_model(str(tmp_path / "mine.yaml")).name == "mine"  # type: ignore[union-attr]


def test_the_card_costs_no_session_where_the_size_is_given(yolox: Path) -> None:
    describe(yolox, decoding="yolox", labels=["a", "b"], grid={"fps": 3, "size": {"height": SIDE, "width": SIDE}})
    code = (
        "import sys; from vidproc.models import describe_model; "
        f"print(describe_model({str(yolox)!r}).grid.fps, 'onnxruntime' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3 False False\n"


def test_the_card_changes_with_whatever_changes_the_answer(yolox: Path) -> None:
    card = describe_model(str(yolox))
    assert card is not None and card == describe_model(str(yolox))
    for values in (
        {"nms_iou": 0.6},
        {"preprocessing": {"color": "rgb"}},
        {"score_threshold": 0.5},
        {"labels": ["a", "c"]},
    ):
        describe(yolox, **{"decoding": "yolox", "labels": ["a", "b"], **values})
        changed = describe_model(str(yolox))
        assert changed is not None and changed.ref == card.ref and changed.definition != card.definition
    describe(yolox, decoding="yolox", labels=["a", "b"], license="another", name="other")
    assert describe_model(str(yolox)).definition == card.definition  # type: ignore[union-attr]


def test_onnx_alone_needs_no_torch(yolox: Path) -> None:
    code = (
        "import sys, numpy as np; from vidproc.models import load_model; "
        f"m = load_model({str(yolox)!r}); m.detect(np.zeros((1, {SIDE}, {SIDE}, 3), np.uint8)); "
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_check_runs_the_graph(yolox: Path) -> None:
    assert check_model(str(yolox), device="cpu").card.name == "tiny"


# nms-in-graph


def nms_graph(path: Path, names: tuple[str, str, str] = ("boxes", "scores", "labels"), *, count: bool = True) -> Path:
    """Three constant boxes for each frame, of which `count` says that two are meant; uint8 NHWC input. The scores
    are multiplied by the frame's mean of red / 255."""
    node = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", SIDE, SIDE, 3])
    outputs = [
        helper.make_tensor_value_info(names[0], TensorProto.FLOAT, ["n", 3, 4]),
        helper.make_tensor_value_info(names[1], TensorProto.FLOAT, ["n", 3]),
        helper.make_tensor_value_info(names[2], TensorProto.INT64, ["n", 3]),
    ]
    constants = {
        "b": np.array([[[0.5, 0.5, 0.5, 0.25], [0.25, 0.25, 0.1, 0.1], [0.5, 0.5, 1, 1]]], np.float32),
        "s": np.array([[0.8, 0.5, 0.9]], np.float32),
        "l": np.array([[2, 7, 2]], np.int64),
        "c": np.array([2], np.int64),
        "zero": np.array([0]),
        "one": np.array([1]),
        "full": np.array(255, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("Slice", ["means", "zero", "one", "one"], ["red"]),
        helper.make_node("Div", ["red", "full"], ["level"]),
        helper.make_node("Mul", ["level", "s"], [names[1]]),
        helper.make_node("Shape", ["frames"], ["n"], start=0, end=1),
        helper.make_node("Concat", ["n", "one", "one"], ["n11"], axis=0),
        helper.make_node("Concat", ["n", "one"], ["n1"], axis=0),
        helper.make_node("Expand", ["b", "n11"], [names[0]]),
        helper.make_node("Expand", ["l", "n1"], [names[2]]),
    ]
    if count:
        outputs.append(helper.make_tensor_value_info("count", TensorProto.INT64, ["n"]))
        nodes.append(helper.make_node("Expand", ["c", "n"], ["count"]))
    return save(path, nodes, [node], outputs, constants)


def red(*levels: int) -> np.ndarray:
    return np.ascontiguousarray(blue(*levels)[..., ::-1])


PLAIN = {"divisor": 1.0}


def test_nms_in_graph_takes_the_graphs_boxes(tmp_path: Path) -> None:
    path = nms_graph(tmp_path / "done.onnx")
    describe(
        path,
        decoding="nms-in-graph",
        labels=["seven", "two"],
        outputs_of_labels=[7, 2],
        outputs={"count": "count"},
        box_format="cxcywh",
        box_unit="fraction",
        preprocessing=PLAIN,
    )
    model: Any = load_model(str(path), device="cpu")
    assert model.card.grid.size.mode == "stretch"
    found = model.detect(red(255, 128))
    assert found.frame.tolist() == [0, 0, 1]
    assert [model.card.labels[c] for c in found.class_id] == ["two", "seven", "two"]
    np.testing.assert_allclose(found.score, [0.8, 0.5, 0.8 * 128 / 255], atol=1e-6)
    np.testing.assert_allclose(found.boxes[0], [16, 24, 48, 40], atol=1e-4)


def test_nms_in_graph_without_a_count_and_by_other_names(tmp_path: Path) -> None:
    path = nms_graph(tmp_path / "done.onnx", ("dets", "conf", "cls"), count=False)
    labels = [str(i) for i in range(8)]
    describe(path, decoding="nms-in-graph", labels=labels, preprocessing=PLAIN)
    with pytest.raises(ConfigError, match=r"the graph has the outputs dets, conf, cls; say which is what"):
        load_model(str(path), device="cpu")
    names = {"boxes": "dets", "scores": "conf", "labels": "cls"}
    model: Any = load_model(str(path), device="cpu", settings=ModelSettings(options={"outputs": names}))
    found = model.detect(red(255))
    assert found.score.tolist() == pytest.approx([0.9, 0.8, 0.5])
    assert found.class_id.tolist() == [2, 2, 7]
    np.testing.assert_allclose(found.boxes[1], [0.5, 0.5, 0.5, 0.25])  # pixels, unless told otherwise


# Refusals


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, r"Nothing says how to read the output of .*tiny\.onnx: write tiny\.yaml beside it"),
        (None, r"with the line 'decoding: yolox' \(80 COCO labels"),
        (None, r"Or the same in a job file: 'detector: \{model: .*tiny\.onnx, options: \{decoding: yolox\}\}'"),
        ({"labels": ["a", "b"]}, "decoding must be one of yolox, nms-in-graph, not None"),
        ({"decoding": "yolov5", "labels": ["a", "b"]}, "decoding must be one of yolox, nms-in-graph, not 'yolov5'"),
        ({"decoding": "yolox", "label": ["a"]}, "unknown key 'label'; did you mean labels"),
        ({"decoding": "yolox", "labels": ["a"]}, r"output is \(84, 7\), but yolox .* with 1 classes needs \(84, 6\)"),
        (
            {"decoding": "yolox", "labels": ["a", "b"], "grid": {"size": {"height": 32, "width": 32}}},
            "the graph takes frames of 64x64 .* say 32x32",
        ),
        ({"decoding": "nms-in-graph", "labels": ["a"]}, "the graph has the outputs output"),
        ({"decoding": "yolox", "labels": ["a", "b"], "sha256": "12345678"}, "not the promised ones"),
    ],
)
def test_a_wrong_description_is_refused(values: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    path = yolox_graph(tmp_path / "tiny.onnx", raw_output())
    if values is not None:
        describe(path, **values)
    with pytest.raises(ConfigError, match=message):
        check_model(str(path), device="cpu")


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"no graph")
    describe(tmp_path / "junk.onnx", decoding="yolox", grid={"size": {"height": 64, "width": 64}})
    with pytest.raises(ConfigError, match=r"junk\.onnx cannot be opened by onnxruntime"):
        load_model(str(tmp_path / "junk.onnx"), device="cpu")


def test_a_device_that_onnxruntime_lacks_is_refused(yolox: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ConfigError, match="onnxruntime has no CUDA: install onnxruntime-gpu"):
            load_model(str(yolox), device="cuda:0")
    with pytest.raises(ConfigError, match="must be auto, cpu, cuda or cuda:N"):
        load_model(str(yolox), device="npu")


def test_a_device_that_onnxruntime_cannot_start_is_refused(yolox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime with CUDA, on a machine whose CUDA it cannot load, silently computes on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda *args, providers, **_: session(*args, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(ConfigError, match="cuda:0 was asked for, but onnxruntime could not start CUDA"):
        load_model(str(yolox), device="cuda:0")
    assert len(load_model(str(yolox)).detect(np.zeros((1, 64, 64, 3), np.uint8))) >= 0  # type: ignore[union-attr]


# The arithmetic


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float32, (CELLS, 7), elements=st.floats(0, 1, width=32)), st.floats(0.05, 0.9))
def test_yolox_decoding_equals_the_formula(raw: np.ndarray, threshold: float) -> None:
    """Against the formula cell by cell: xy = (p + cell) x stride, wh = exp(p) x stride, score = object x class."""
    cells, strides = yolox_cells(SIDE, SIDE)
    boxes, scores, classes = yolox_candidates(raw, cells, strides, threshold)
    expected = []
    index = 0
    for stride in (8, 16, 32):
        for row in range(SIDE // stride):
            for column in range(SIDE // stride):
                x, y, w, h, thing, *names = raw[index].tolist()
                best = max(range(len(names)), key=lambda c: names[c])
                score = np.float32(thing) * np.float32(names[best])
                if thing >= threshold and score >= threshold:
                    x, y = (x + column) * stride, (y + row) * stride
                    w, h = np.exp(w) * stride, np.exp(h) * stride
                    expected.append(([x - w / 2, y - h / 2, x + w / 2, y + h / 2], score, best))
                index += 1
    assert len(scores) == len(expected)
    for box, score, label, (box0, score0, label0) in zip(boxes, scores, classes, expected, strict=True):
        np.testing.assert_allclose(box, box0, atol=1e-3)
        assert score == score0 and label == label0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.floats(0.1, 0.9))
def test_suppression_equals_torchvisions(seed: int, count: int, iou: float) -> None:
    import torch
    from torchvision.ops import batched_nms

    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 50, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 40, (count, 2))], axis=1).astype(np.float32)
    scores, classes = rng.permutation(count).astype(np.float32) / 100, rng.integers(0, 3, count)
    kept = suppress(boxes, scores, classes, iou)
    theirs = batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(classes), iou)
    assert kept.tolist() == theirs.tolist()
