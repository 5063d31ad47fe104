"""Model files from elsewhere: all of a model is verified, what is loaded is what was verified, and what is damaged
or foreign is refused by name."""

from __future__ import annotations

import hashlib
import os
import random
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from safetensors.torch import save_file

from tests.models.test_models_onnx import SIDE, describe, raw_output, save, yolox_graph
from tests.support.weights import load_state_dict
from vidproc.errors import ConfigError
from vidproc.models import ModelSettings, check_model, describe_model, fetch_model, load_model
from vidproc.models.descriptions import recipe_from_mapping
from vidproc.models.temporal import build

# A small detector whose numbers may lie in another file, and a small network in each format of weights


def split_graph(
    folder: Path, location: str = "m.onnx.data", *, write_to: str | None = None, node: bool = False
) -> Path:
    """yolox_graph with its largest tensor in another file, at byte 4096 of it. `node`: as a Constant in the graph."""
    import onnx

    path = yolox_graph(folder / "m.onnx", raw_output())
    model = onnx.load(path)
    graph = model.graph
    raw = next(t for t in graph.initializer if t.name == "raw")
    data = raw.raw_data
    set_external_data(raw, location, offset=4096, length=len(data))
    raw.ClearField("raw_data")
    raw.data_location = TensorProto.EXTERNAL
    if node:
        graph.node.insert(0, helper.make_node("Constant", [], ["raw"], value=raw))
        graph.initializer.remove(raw)
    path.write_bytes(model.SerializeToString())
    target = folder / (write_to or location)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(bytes(4096) + data)
    describe(path, decoding="yolox", labels=["a", "b"])
    return path


def blue_frame() -> np.ndarray:
    frame = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    frame[..., 2] = 255
    return frame


def temporal_folder(folder: Path, how: str) -> Path:
    """A model folder -> its weights: .safetensors, torch's zip file, or torch's older file."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "name": "small",
        "kind": "actions",
        "family": "temporal",
        "labels": ["a", "b"],
        "args": {"head": "gru", "hidden": 8},
        "grid": {"fps": 4, "window": 4, "size": {"mode": "stretch", "height": 32, "width": 32}},
        "weights": "w.safetensors" if how == "safetensors" else "w.pth",
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(values))
    torch.manual_seed(0)
    state = build(recipe_from_mapping(values, folder / "model.yaml")).state_dict()
    path = folder / str(values["weights"])
    if how == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=how == "zip")
    return path


# External data


@pytest.mark.parametrize("node", [False, True], ids=["initializer", "constant node"])
@pytest.mark.parametrize("location", ["m.onnx.data", "below/w.bin", "./w.bin"])
def test_external_data_belongs_to_the_model(location: str, node: bool, tmp_path: Path) -> None:
    path = split_graph(tmp_path, location, node=node)
    card = describe_model(str(path))
    model: Any = load_model(str(path), device="cpu", described=card)
    assert model.detect(blue_frame()).score.tolist() == pytest.approx([0.9, 0.45], abs=1e-3)
    digests = "".join(f"{hashlib.sha256((tmp_path / f).read_bytes()).hexdigest()}\n" for f in ("m.onnx", location))
    assert (
        card is not None
        and card.weights_sha256 == hashlib.sha256(digests.encode()).hexdigest() == model.card.weights_sha256
    )
    # Another number in the other file is another model.
    changed = bytearray((tmp_path / location).read_bytes())
    changed[4096 + 9 * 7 * 4] ^= 1
    (tmp_path / location).write_bytes(changed)
    other = describe_model(str(path))
    assert other is not None and other.weights_sha256 != card.weights_sha256
    with pytest.raises(ConfigError, match="is not the model that this run began with: its weights changed"):
        load_model(str(path), device="cpu", described=card)


def test_a_promised_sha256_is_of_all_files(tmp_path: Path) -> None:
    path = split_graph(tmp_path)
    card = describe_model(str(path))
    assert card is not None
    describe(path, decoding="yolox", labels=["a", "b"], sha256=card.weights_sha256)
    assert describe_model(str(path)) == card and fetch_model(str(path)) == path
    (tmp_path / "m.onnx.data").write_bytes((tmp_path / "m.onnx.data").read_bytes()[:-4] + b"\0\0\0\1")
    for use in (describe_model, fetch_model, check_model):
        with pytest.raises(ConfigError, match=r"with m\.onnx\.data\) are not the promised ones"):
            use(str(path))
    describe(path, decoding="yolox", labels=["a", "b"], sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ConfigError, match="not the promised ones"):
        describe_model(str(path))


@pytest.mark.parametrize(
    "how", ["..", "absolute", "link", "folder link", "absent", "short", "folder", "pipe", "empty name"]
)
def test_external_data_elsewhere_is_refused(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    monkeypatch.chdir(folder)  # onnxruntime would look here
    outside = tmp_path / "outside"
    outside.mkdir()
    location = {"..": "../outside/w.bin", "absolute": str(outside / "w.bin"), "folder link": "below/w.bin"}.get(
        how, "w.bin"
    )
    path = split_graph(folder, location, write_to="../outside/w.bin")
    if how == "link":
        (folder / "w.bin").symlink_to(outside / "w.bin")
    elif how == "folder link":
        (folder / "below").symlink_to(outside)
    elif how == "short":
        (folder / "w.bin").write_bytes(bytes(5000))
    elif how == "folder":
        (folder / "w.bin").mkdir()
    elif how == "pipe":
        os.mkfifo(folder / "w.bin")
    elif how == "empty name":
        path = split_graph(folder, "w.bin")
        path.write_bytes(path.read_bytes().replace(b"w.bin", b"     "))
    message = {
        "link": "is a link that leads out",
        "folder link": "is a link that leads out",
        "short": "is cut short: raw lies beyond its 5,000 bytes",
        "..": "must lie in the folder of the model or below",
        "absolute": "must lie in the folder of the model or below",
    }.get(how, "cannot be read")
    for use in (describe_model, check_model):
        with pytest.raises(ConfigError, match=message):
            use(str(path))


def test_a_link_to_a_file_beside_is_followed(tmp_path: Path) -> None:
    path = split_graph(tmp_path, "w.bin", write_to="stored")
    (tmp_path / "w.bin").symlink_to("stored")
    assert check_model(str(path), device="cpu").card.labels == ("a", "b")


# What was verified is what is loaded


@pytest.mark.parametrize("how", ["safetensors", "zip", "legacy", "onnx", "external"])
def test_a_file_that_changes_between_check_and_use_is_not_loaded(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is another one after each reading: whatever is loaded bears the hash of the bytes it came from."""
    if how in ("onnx", "external"):
        path = split_graph(tmp_path) if how == "external" else yolox_graph(tmp_path / "m.onnx", raw_output())
        describe(path, decoding="yolox", labels=["a", "b"], grid={"size": {"height": SIDE, "width": SIDE}})
        spec, victim = str(path), (tmp_path / "m.onnx.data" if how == "external" else path)
    else:
        victim = temporal_folder(tmp_path / "m", how)
        spec = str(tmp_path / "m")
    good = victim.read_bytes()
    before = describe_model(spec)
    assert before is not None
    # Same size and time: what remembers a hash by those is deceived.
    times = victim.stat()
    evil = bytearray(good)
    evil[-200] ^= 0x55 if how != "zip" else 0
    at = len(good) // 2
    evil[at] ^= 0x01
    victim.write_bytes(evil)
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    try:
        model = load_model(spec, device="cpu")
    except ConfigError:
        pass
    else:
        assert model.card.weights_sha256 != before.weights_sha256
    with pytest.raises(ConfigError):
        load_model(spec, device="cpu", described=before)


@pytest.mark.parametrize("how", ["safetensors", "zip", "legacy", "onnx"])
def test_no_reader_opens_the_path_again(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parsers get bytes: the file is gone as soon as it was read once, and the model is loaded all the same."""
    import vidproc.models.fetching as module

    if how == "onnx":
        path = yolox_graph(tmp_path / "m.onnx", raw_output())
        describe(path, decoding="yolox", labels=["a", "b"], grid={"size": {"height": SIDE, "width": SIDE}})
        spec, readings = str(path), 2  # once to see what it takes
    else:
        path, readings = temporal_folder(tmp_path / "m", how), 1
        spec = str(tmp_path / "m")
    read, count = module.read_file, 0

    def and_away(asked: Path) -> bytes:
        nonlocal count
        data = read(asked)
        count += 1
        if count == readings:
            path.unlink()
        return data

    monkeypatch.setattr(module, "read_file", and_away)
    assert load_model(spec, device="cpu").card.weights_sha256
    assert not path.exists() and count == readings


# Labels


@pytest.mark.parametrize(
    "how", ["..", "absolute", "link", "folder link", "pipe", "bytes", "no list", "number", "bare no"]
)
def test_labels_stay_in_the_models_folder(how: str, tmp_path: Path) -> None:
    folder, secret = tmp_path / "m", tmp_path / "secret.txt"
    temporal_folder(folder, "safetensors")
    secret.write_text("a\nb\n")
    values = yaml.safe_load((folder / "model.yaml").read_text())
    values["labels"] = {"..": "../secret.txt", "absolute": str(secret), "folder link": "up/secret.txt"}.get(
        how, "l.txt"
    )
    if how == "link":
        (folder / "l.txt").symlink_to(secret)
    elif how == "folder link":
        (folder / "up").symlink_to(tmp_path)
    elif how == "pipe":
        os.mkfifo(folder / "l.txt")
    elif how == "bytes":
        (folder / "l.txt").write_bytes(b"\xff\xfe\n")
    elif how in ("no list", "number", "bare no"):
        values["labels"] = {"no list": {"a": 1}, "number": 7, "bare no": ["yes", False]}[how]
    (folder / "model.yaml").write_text(yaml.safe_dump(values))
    message = {
        "..": "must lie in the folder of the model",
        "absolute": "must lie in the folder of the model",
        "link": "leads out of the model's folder",
        "folder link": "leads out of the model's folder",
        "pipe": "cannot be read",
        "bytes": "is not UTF-8",
        "bare no": "label 1 is False and not text: put it in quotes",
    }.get(how, "labels are a list")
    with pytest.raises(ConfigError, match=message) as refused:
        describe_model(str(folder))
    assert "model.yaml" in str(refused.value)


# Graphs that are no detectors of frames


def one_op(path: Path, element: int, shape: list[Any] | None, extra: int = 0, output: int = TensorProto.FLOAT) -> Path:
    """A graph of the yolox shape from whatever input."""
    inputs = [helper.make_tensor_value_info("images", element, shape)]
    inputs += [helper.make_tensor_value_info(f"scale_{i}", TensorProto.FLOAT, [1, 2]) for i in range(extra)]
    raw = raw_output()[None].astype(helper.tensor_dtype_to_np_dtype(output))
    outputs = [helper.make_tensor_value_info("output", output, list(raw.shape))]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["raw"], ["output"])], "g", inputs, outputs, [numpy_helper.from_array(raw, "raw")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


FRAMES = [1, 3, SIDE, SIDE]


@pytest.mark.parametrize(
    ("element", "shape", "extra", "message"),
    [
        (TensorProto.FLOAT, FRAMES, 1, r"has 2 inputs \(images: float32 \(1, 3, 64, 64\); scale_0: float32 \(1, 2\)\)"),
        (TensorProto.FLOAT, FRAMES, 9, r"has 10 inputs"),
        (TensorProto.INT64, FRAMES, 0, r"input is images: int64 .*, and frames are given as float32, float16, uint8"),
        (TensorProto.INT8, FRAMES, 0, "input is images: int8"),
        (TensorProto.DOUBLE, FRAMES, 0, "input is images: float64"),
        (TensorProto.BFLOAT16, FRAMES, 0, "input is images: bfloat16"),
        (TensorProto.STRING, [1], 0, "input is images: text"),
        (TensorProto.BOOL, FRAMES, 0, "input is images: bool"),
        (99, FRAMES, 0, "input is images: element type 99"),
        (TensorProto.FLOAT, None, 0, "input is images: float32 of unknown shape, not a batch of frames"),
        (TensorProto.FLOAT, [3, SIDE, SIDE], 0, r"input is images: float32 \(3, 64, 64\), not a batch of frames"),
        (TensorProto.FLOAT, [1, 3, 8, SIDE, SIDE], 0, "not a batch of frames"),
        (TensorProto.FLOAT, [1, 1, SIDE, SIDE], 0, "Frames have three channels"),
        (TensorProto.FLOAT, [1, 4, SIDE, SIDE], 0, "Frames have three channels"),
        (TensorProto.FLOAT, [0, 3, SIDE, SIDE], 0, "no frames have such sizes"),
        (TensorProto.FLOAT, [1, 3, 0, SIDE], 0, "no frames have such sizes"),
        (TensorProto.FLOAT, [1, 3, -7, SIDE], 0, "no frames have such sizes"),
        (
            TensorProto.FLOAT,
            ["n", 3, "n", "n"],
            0,
            "one name stands for the number of frames or channels and for a side",
        ),
        (TensorProto.FLOAT, ["n", "w", "h", "w"], 0, "one name stands for"),
        (TensorProto.FLOAT, [10**6, 3, SIDE, SIDE], 0, "one pass over 1,000,000 frames"),
        (TensorProto.FLOAT, [1, 3, 10**6, 10**6], 0, "frames of 1000000x1000000|takes frames of 1000000x1000000"),
        (TensorProto.FLOAT, [1, 3, "h", "w"], 0, "grid.size needs height and width, as the graph takes any"),
    ],
)
def test_a_graph_that_does_not_take_frames_is_refused_before_work(
    element: int, shape: list[Any] | None, extra: int, message: str, tmp_path: Path
) -> None:
    path = one_op(tmp_path / "m.onnx", element, shape, extra)
    describe(path, decoding="yolox", labels=["a", "b"])
    with pytest.raises(ConfigError, match=message) as refused:
        describe_model(str(path))
    assert "m.onnx" in str(refused.value) or "m.yaml" in str(refused.value)


@pytest.mark.parametrize("output", [TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING])
def test_outputs_of_other_types_are_refused_before_work(output: int, tmp_path: Path) -> None:
    path = one_op(tmp_path / "m.onnx", TensorProto.FLOAT, FRAMES, output=TensorProto.FLOAT)
    import onnx

    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = output
    path.write_bytes(model.SerializeToString())
    describe(path, decoding="yolox", labels=["a", "b"])
    with pytest.raises(ConfigError, match=r"the graph's output is output: .*; yolox needs numbers"):
        describe_model(str(path))


def typed_boxes(path: Path, element: int) -> Path:
    """nms-in-graph: one box, whose score is the frame's mean red level as the graph was given it, / 255."""
    shape = [1, 3, SIDE, SIDE]
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Slice", ["means", "zero", "one", "one"], ["red"]),
        helper.make_node("Div", ["red", "full"], ["scores"]),
        helper.make_node("Identity", ["box"], ["boxes"]),
        helper.make_node("Identity", ["class"], ["labels"]),
    ]
    constants = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "full": np.array([255.0], np.float32),
        "box": np.array([[[1, 2, 30, 40]]], np.float32),
        "class": np.array([[0]], np.int64),
    }
    outputs = [
        ("boxes", TensorProto.FLOAT, [1, 1, 4]),
        ("scores", TensorProto.FLOAT, [1, 1]),
        ("labels", TensorProto.INT64, [1, 1]),
    ]
    return save(
        path,
        nodes,
        [helper.make_tensor_value_info("images", element, shape)],
        [helper.make_tensor_value_info(*o) for o in outputs],
        constants,
    )


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8])
def test_frames_arrive_in_each_type_with_their_full_range(element: int, tmp_path: Path) -> None:
    path = typed_boxes(tmp_path / "m.onnx", element)
    frame = np.full((1, SIDE, SIDE, 3), (204, 0, 0), np.uint8)
    # A graph of bytes gets the bytes; others 0 to 1, unless told otherwise.
    describe(path, decoding="nms-in-graph", labels=["a"], score_threshold=0.0)
    model: Any = load_model(str(path), device="cpu")
    expected = 0.8 if element == TensorProto.UINT8 else 0.8 / 255
    assert model.detect(frame).score.tolist() == pytest.approx([expected], rel=1e-3)
    describe(path, decoding="nms-in-graph", labels=["a"], preprocessing={"divisor": 1.0})
    whole: Any = load_model(str(path), device="cpu")
    assert whole.detect(frame).score.tolist() == pytest.approx([0.8], rel=1e-3)


@pytest.mark.parametrize("preprocessing", [{"divisor": 255.0}, {"mean": [0.5, 0.5, 0.5]}, {"std": [0.2, 0.2, 0.2]}])
def test_preprocessing_that_bytes_cannot_hold_is_refused(preprocessing: dict[str, Any], tmp_path: Path) -> None:
    path = typed_boxes(tmp_path / "m.onnx", TensorProto.UINT8)
    describe(path, decoding="nms-in-graph", labels=["a"], preprocessing=preprocessing)
    with pytest.raises(ConfigError, match=r"the graph takes uint8, .* its preprocessing must be \{divisor: 1\}"):
        describe_model(str(path))


# Foreign formats


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("m.tflite", "a TensorFlow Lite model.*Export the model to ONNX"),
        ("M.TFLITE", "a TensorFlow Lite model"),
        ("m.engine", "a TensorRT engine.*Name the .onnx file"),
        ("m.plan", "a TensorRT engine"),
        ("m.mlmodel", "a Core ML model"),
        ("m.mlpackage", "a Core ML model"),
        ("m.h5", "a Keras or HDF5 file"),
        ("m.keras", "a Keras or HDF5 file"),
        ("m.pb", "a TensorFlow graph"),
        ("m.torchscript", "a TorchScript"),
        ("m.pt2", "a TorchScript or exported PyTorch program"),
        ("m.pkl", "a pickle, which is never opened"),
        ("m.xml", "an OpenVINO model"),
        ("m.ort", "an onnxruntime-format model"),
        ("m.pt", "holds weights, which do not say of which network"),
        ("m.safetensors", "holds weights, which do not say of which network"),
    ],
)
@pytest.mark.parametrize("place", ["bare name", "path", "absent"])
def test_foreign_formats_are_refused_by_name(
    place: str, name: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if place != "absent":
        (tmp_path / name).write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    spec = name if place == "bare name" else str(tmp_path / name)
    for use in (describe_model, load_model, check_model, fetch_model):
        with pytest.raises(ConfigError, match=what) as refused:
            use(spec)
        assert name in str(refused.value)


CONTENTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "tflite": (lambda p: p.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100)), "a TensorFlow Lite model"),
    "ort": (lambda p: p.write_bytes(b"\x1c\0\0\0ORTM" + bytes(100)), "an onnxruntime-format model"),
    "h5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "a Keras or HDF5 file"),
    "script": (
        lambda p: zip_of(p, "m/constants.pkl", "m/code/x.py", "m/data.pkl"),
        "a TorchScript or exported PyTorch program",
    ),
    "pointer": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid x\n"), "a pointer of Git LFS"),
    "page": (lambda p: p.write_text("<!DOCTYPE html><html>404</html>"), "a web page"),
    "gzip": (lambda p: p.write_bytes(b"\x1f\x8b" + bytes(100)), "a packed archive"),
}


def zip_of(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as z:
        for name in names:
            z.writestr(name, "x")


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("wears", ["onnx", "safetensors", "zip"])
def test_a_foreign_file_under_a_good_name_is_told_by_its_content(wears: str, content: str, tmp_path: Path) -> None:
    write, what = CONTENTS[content]
    if wears == "onnx":
        path = yolox_graph(tmp_path / "m.onnx", raw_output())
        describe(path, decoding="yolox", labels=["a", "b"])
        spec = str(path)
    else:
        path, spec = temporal_folder(tmp_path / "m", wears), str(tmp_path / "m")
    write(path)
    with pytest.raises(ConfigError, match=f"{path.name} is {what}"):
        load_model(spec, device="cpu")
    if content != "script" or wears == "onnx":
        with pytest.raises(ConfigError, match=f"{path.name} is {what}"):
            describe_model(spec)


def test_a_saved_model_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(ConfigError, match="is a TensorFlow graph"):
        describe_model(str(tmp_path))


def test_the_command_ends_with_2_before_work(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "v.mp4").write_bytes(b"no video")
    (tmp_path / "m.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    command = [sys.executable, "-m", "vidproc", "index", "in", "lake", "--detector", "m.tflite", "--actions", "none"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    said = " ".join(done.stderr.split())
    assert done.returncode == 2 and "TensorFlow Lite" in said and "Traceback" not in said
    assert not (tmp_path / "lake").exists()


# Damage


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    for how in ("safetensors", "zip", "legacy"):
        path = temporal_folder(tmp_path / how, how)
        state = load_state_dict(path)
        for value in (float("nan"), float("inf")):
            state["head.out.bias"][1] = value
            save_file(state, path) if how == "safetensors" else torch.save(state, path)
            with pytest.raises(ConfigError, match=r"head\.out\.bias holds values that are not numbers"):
                load_model(str(path.parent), device="cpu")
    raw = raw_output()
    raw[3, 6] = np.nan
    path = yolox_graph(tmp_path / "m.onnx", raw)
    describe(path, decoding="yolox", labels=["a", "b"])
    with pytest.raises(ConfigError, match="raw holds values that are not numbers"):
        describe_model(str(path))
    (tmp_path / "split").mkdir()
    path = split_graph(tmp_path / "split")
    data = bytearray((tmp_path / "split" / "m.onnx.data").read_bytes())
    data[4096:4100] = struct.pack("<f", float("nan"))
    (tmp_path / "split" / "m.onnx.data").write_bytes(data)
    with pytest.raises(ConfigError, match="raw holds values that are not numbers"):
        describe_model(str(path))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s | {"head.out.bias": s["head.out.bias"].long()},
        lambda s: s | {"head.out.bias": s["head.out.bias"].to(torch.complex64)},
        lambda s: s | {"head.out.bias": s["head.out.bias"].to(torch.float8_e4m3fn)},
        lambda s: s | {"head.out.bias": torch.zeros(3)},
        lambda s: s | {"head.out.bias": torch.zeros(1).expand(1 << 40)},
        lambda s: s | {"head.out.bias": torch.zeros(2).to_sparse()},
        lambda s: s | {"head.out.bias": torch.zeros(2, device="meta")},
        lambda s: {k: v for k, v in s.items() if k != "head.out.bias"},
        lambda s: s | {"one.more": torch.zeros(1)},
        lambda s: s | {7: torch.zeros(1)},
        lambda s: s | {"head.out.bias": "text"},
        lambda s: list(s),
    ],
    ids=["long", "complex", "float8", "shape", "huge", "sparse", "meta", "missing", "more", "number", "text", "list"],
)
def test_weights_of_other_types_and_shapes_are_refused(change: Callable[[Any], Any], tmp_path: Path) -> None:
    path = temporal_folder(tmp_path / "m", "zip")
    torch.save(change(load_state_dict(path)), path)
    with pytest.raises(ConfigError, match=r"The weights .*w\.pth"):
        load_model(str(path.parent), device="cpu")


def test_a_file_that_grows_when_unpacked_is_refused_unopened(tmp_path: Path) -> None:
    path = temporal_folder(tmp_path / "m", "zip")
    with zipfile.ZipFile(path) as z:
        parts = {name: z.read(name) for name in z.namelist()}
    largest = max(parts, key=lambda n: len(parts[n]))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in parts.items():
            z.writestr(name, bytes(200 << 20) if name == largest else data)
    assert path.stat().st_size < 2 << 20
    with pytest.raises(ConfigError, match="would grow from"):
        load_model(str(path.parent), device="cpu")


TOO_MUCH = [
    {"hidden": 10**7},
    {"hidden": 10**12},
    {"hidden": 60_000},
    {"layers": 10**9, "head": "tcn"},
    {"kernel": 10**9, "head": "tcn"},
]


@pytest.mark.parametrize("args", TOO_MUCH, ids=str)
def test_a_description_that_asks_for_too_much_is_refused(args: dict[str, Any], tmp_path: Path) -> None:
    path = temporal_folder(tmp_path / "m", "safetensors")
    values = yaml.safe_load((path.parent / "model.yaml").read_text())
    values["args"] |= args
    (path.parent / "model.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError):
        load_model(str(path.parent), device="cpu")


NUMBERS = [struct.pack("<f", x) for x in (float("nan"), float("inf"), 1e38)]
SIZES = [struct.pack("<Q", x) for x in (1 << 63, 1 << 40, 0, (1 << 64) - 1, 1 << 31)]
TYPES = [
    (b"F32", b"F16"),
    (b"F32", b"I64"),
    (b"F32", b"F64"),
    (b"FloatStorage", b"LongStorage"),
    (b"FloatStorage", b"HalfStorage"),
]


def mutant(data: bytes, rng: random.Random) -> bytes:
    """Damage of every kind, mostly where a file says what it holds: at its head and its tail."""
    out = bytearray(data)

    def place() -> int:
        where, n = rng.random(), len(out)
        if where < 0.45:
            return rng.randrange(min(n, 2000))
        return n - 1 - rng.randrange(min(n, 3000)) if where < 0.8 else rng.randrange(n)

    kind, at = rng.randrange(9), place()
    some = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20)))
    match kind:
        case 0:
            del out[rng.randrange(len(out)) :]
        case 1:
            for _ in range(rng.choice([1, 1, 2, 8])):
                out[place()] ^= 1 << rng.randrange(8)
        case 2:
            out[at : at + rng.randrange(1, 16)] = some
        case 3:
            out[at:at] = some
        case 4:
            del out[at : at + rng.randrange(1, 200)]
        case 5:
            out[at : at + 4] = rng.choice(NUMBERS)
        case 6:
            out[at : at + 8] = rng.choice(SIZES)
        case 7:
            other, n = place(), rng.randrange(1, 100)
            out[at : at + n], out[other : other + n] = out[other : other + n], out[at : at + n]
        case _:
            for old, new in TYPES:
                if rng.random() < 0.5:
                    out = bytearray(bytes(out).replace(old, new, rng.choice([1, 3, -1])))
    return bytes(out)


def damage(folder: Path, how: str, count: int) -> None:
    """Each mutant is loaded and tried, or refused as a ConfigError; nothing is printed or warned of."""
    if how == "onnx":
        path = yolox_graph(folder / "m.onnx", raw_output())
        describe(path, decoding="yolox", labels=["a", "b"])
        spec = str(path)
    else:
        path, spec = temporal_folder(folder / "m", how), str(folder / "m")
    good = path.read_bytes()
    refused = 0
    for seed in range(count):
        path.write_bytes(mutant(good, random.Random(f"{how} {seed}")))
        try:
            with warnings.catch_warnings(action="error"):
                check_model(spec, device="cpu", settings=ModelSettings(threads=1))
        except ConfigError:
            refused += 1
        except BaseException as e:
            raise AssertionError(f"mutant {seed} of {how}: {type(e).__name__}: {e}") from e
    assert refused > count / 4


@pytest.mark.parametrize("how", ["safetensors", "zip", "legacy", "onnx"])
def test_damaged_weights_end_in_one_kind_of_error(how: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damage(tmp_path, how, 40)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["safetensors", "zip", "legacy", "onnx"])
def test_two_thousand_damaged_weights_end_in_one_kind_of_error(how: str, tmp_path: Path) -> None:
    damage(tmp_path, how, 500)
