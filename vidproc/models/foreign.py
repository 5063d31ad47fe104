"""Formats of models that are not run here, known by name and by content."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vidproc.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Foreign:
    """A format that is not run here."""

    name: str
    way_out: str


def _exported(how: str) -> str:
    return f"Export the model to ONNX ({how}) and name the .onnx file"


_TFLITE = Foreign("a TensorFlow Lite model", _exported("python -m tf2onnx.convert --tflite x.tflite --output x.onnx"))
_KERAS = Foreign("a Keras or HDF5 file", _exported("model.export('x.onnx', format='onnx') in Keras"))
_TENSORFLOW = Foreign("a TensorFlow graph", _exported("python -m tf2onnx.convert --saved-model folder --output x.onnx"))
_COREML = Foreign("a Core ML model", _exported("from the framework in which it was trained"))
_TENSORRT = Foreign(
    "a TensorRT engine, which runs on one kind of GPU alone", "Name the .onnx file from which it was built"
)
_OPENVINO = Foreign("an OpenVINO model", _exported("from the framework in which it was trained"))
_PADDLE = Foreign("a Paddle model", _exported("paddle2onnx"))
_NCNN = Foreign("an ncnn model", _exported("from the framework in which it was trained"))
_CAFFE = Foreign("a Caffe model", _exported("from the framework in which it was trained"))
_DARKNET = Foreign("a Darknet model", _exported("from a framework that reads it"))
_ORT = Foreign("an onnxruntime-format model", "Name the .onnx file from which it was made")
_TORCHSCRIPT = Foreign(
    "a TorchScript or exported PyTorch program",
    "Save the network's state_dict() with a model.yaml, or export it with torch.onnx.export and name the .onnx file",
)
_PICKLE = Foreign(
    "a pickle, which is never opened, since it may run code", "Save the weights alone, best as safetensors"
)
_GGUF = Foreign("a GGUF file, as language models are stored in", "Name a detector or an action model")
_ARRAYS = Foreign("a NumPy archive", "Save the weights as safetensors")
_ACCELERATOR = Foreign("compiled for one accelerator", "Name the .onnx file from which it was built")
_ARCHIVE = Foreign("a packed archive", "Unpack it, and name the model in it")

TORCH_WEIGHTS = Foreign(
    "a PyTorch file, not ONNX",
    "Export the network with torch.onnx.export and name the .onnx file, or put a model.yaml beside the weights",
)

FOREIGN: dict[str, Foreign] = {
    **dict.fromkeys((".tflite", ".lite"), _TFLITE),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), _KERAS),
    **dict.fromkeys((".pb", ".pbtxt", ".meta"), _TENSORFLOW),
    **dict.fromkeys((".mlmodel", ".mlpackage", ".mlmodelc"), _COREML),
    **dict.fromkeys((".engine", ".plan", ".trt"), _TENSORRT),
    **dict.fromkeys((".xml",), _OPENVINO),
    **dict.fromkeys((".pdmodel", ".pdiparams"), _PADDLE),
    **dict.fromkeys((".param", ".ncnn"), _NCNN),
    **dict.fromkeys((".caffemodel", ".prototxt"), _CAFFE),
    **dict.fromkeys((".weights", ".cfg"), _DARKNET),
    **dict.fromkeys((".ort",), _ORT),
    **dict.fromkeys((".torchscript", ".ptl", ".pt2", ".jit"), _TORCHSCRIPT),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), _PICKLE),
    **dict.fromkeys((".gguf", ".ggml"), _GGUF),
    **dict.fromkeys((".npz", ".npy"), _ARRAYS),
    **dict.fromkeys((".rknn", ".om", ".hef", ".dlc", ".blob", ".nef", ".kmodel"), _ACCELERATOR),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"), _ARCHIVE),
}
"""By the ending of the name, in small letters."""

WEIGHTS_ALONE = frozenset((".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".pyth", ".th"))
"""Endings of files that hold tensors and no network."""

_MAGIC: tuple[tuple[int, bytes, Foreign], ...] = (
    (4, b"TFL3", _TFLITE),
    (4, b"ORTM", _ORT),
    (0, b"\x89HDF", _KERAS),
    (0, b"GGUF", _GGUF),
    (0, b"ftrt", _TENSORRT),
    (0, b"\x93NUMPY", _ARRAYS),
    (0, b"<?xml", _OPENVINO),
    (0, b"\x1f\x8b", _ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", _ARCHIVE),
    (0, b"7z\xbc\xaf", _ARCHIVE),
    (0, b"\xfd7zXZ", _ARCHIVE),
    (0, b"version https://git-lfs", Foreign("a pointer of Git LFS and not the file itself", "Run git lfs pull")),
    (0, b"<!doctype", Foreign("a web page and not a model", "Fetch the file itself")),
    (0, b"<html", Foreign("a web page and not a model", "Fetch the file itself")),
)


def foreign_format(data: bytes) -> Foreign | None:
    """The format of a file's content, where it is one that no model here has; None: it may be what its name says.
    A pickle or a zip file is told by `foreign_zip` and by who reads it, since PyTorch's own files are those."""
    head = data[:64].lower()
    return next((f for at, magic, f in _MAGIC if head[at:].startswith(magic.lower())), None)


def foreign_zip(data: bytes) -> Foreign | None:
    """The same for a zip file that is not one of torch.save. Raises zipfile.BadZipFile for a damaged one."""
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        names = [PurePosixPath(name) for name in z.namelist()]
    inner = {name.name for name in names}
    if (
        "constants.pkl" in inner
        or any("code" in name.parts for name in names)
        or "serialized_exported_program.json" in inner
    ):
        return _TORCHSCRIPT
    if "data.pkl" in inner:
        return None
    if inner and all(name.endswith(".npy") for name in inner):
        return _ARRAYS
    return _KERAS if "model.weights.h5" in inner else _ARCHIVE


def is_zip(data: bytes) -> bool:
    return data.startswith(b"PK")


def is_pickle(data: bytes) -> bool:
    return len(data) > 1 and data[0] == 0x80 and data[1] <= 5


def refuse_foreign(path: object, found: Foreign | None) -> None:
    if found is not None:
        raise ConfigError(f"{path} is {found.name}, which vidproc does not run. {found.way_out}.")


def refuse_foreign_model(path: Path) -> None:
    """By the name of a model as it was given, file or folder; whether or not it is there."""
    refuse_foreign(path, FOREIGN.get(path.suffix.lower()))
    if path.is_dir() and not any((path / f"model{s}").is_file() for s in (".yaml", ".yml", ".json")):
        if (path / "saved_model.pb").is_file():
            refuse_foreign(path, _TENSORFLOW)
        if (path / "Manifest.json").is_file():
            refuse_foreign(path, _COREML)
    if path.suffix.lower() in WEIGHTS_ALONE and (path.is_file() or not path.exists()):
        raise ConfigError(
            f"{path} holds weights, which do not say of which network: put a model.yaml beside it and name its folder, "
            f"or name a known model and give this file as its `weights`."
        )
