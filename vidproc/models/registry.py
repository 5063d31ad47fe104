"""What a model's name stands for: from a spec to a Recipe, without loading anything.

A spec is one of
  `auto`                a strong torchvision model where there is a GPU, a light one where there is none
  `demo`                the embedded pair (vidproc.models.tiny)
  a torchvision name    every detection and video builder, with the weights' own transforms and labels
  a path                an .onnx file with its description beside it (x.yaml or x.json), a model folder
                        (model.yaml and the weights), or such a description itself
  `package.module:Class`  a class of the user's, called with the ModelSettings

A Recipe is the description of a model as a value: what model.yaml holds, what training writes, and
what the code makes of torchvision's metadata. A family's loader turns it into a Model.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from vidproc.documents import read_document
from vidproc.errors import ConfigError
from vidproc.media import FrameSize, Grid, content_hash
from vidproc.models.base import ModelCard
from vidproc.models.files import read_below, refuse_foreign_model
from vidproc.models.weights import is_remote, shown
from vidproc.secrets import refuse_credentials_in, refuse_credentials_within
from vidproc.storage.credentials import StorageOptions

Kind = Literal["detector", "actions", "embedding"]

FAMILIES: dict[str, str] = {
    "torchvision-detection": "vidproc.models.detector",
    "torchvision-video": "vidproc.models.actions",
    "onnx": "vidproc.models.onnx",
    "slowfast": "vidproc.models.slowfast",
    "temporal": "vidproc.models.temporal",
    "few-shot": "vidproc.models.prototypes",
    "features": "vidproc.models.features",
    "embedded": "vidproc.models.embedded",
}
"""Family -> the module whose `load(recipe, settings) -> Model` builds it."""

DETECTOR_FPS = Fraction(2)
DETECTOR_THRESHOLD = 0.3
"""Low enough for a tracker to bridge weak frames, high enough to keep the table free of noise."""
YOLOX_NMS_IOU = 0.45

_COCO80 = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,"
    "tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
    "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,"
    "cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,"
    "toothbrush"
)
COCO80 = tuple(_COCO80.split(","))
"""The 80 classes of COCO detection in the data set's order: class_id 0 is person."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What a job says of one model. None leaves what the model itself says."""

    kind: Kind | None = None
    """What the caller wants it for; refused where the model is something else."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    half: bool = True
    """16-bit arithmetic on a GPU; a CPU always computes in float32."""
    batch_size: int | None = None
    """Frames (or windows) a forward pass; None: the family's choice for the device."""
    threads: int | None = None
    """CPU threads of one forward pass; None: OMP_NUM_THREADS, or all cores."""
    score_threshold: float | None = None
    max_detections: int = 100
    """A frame, the best by score."""
    nms_iou: float | None = None
    fps: Fraction | float | str | None = None
    window: int | None = None
    stride: int | None = None
    keyframes_only: bool = False
    size: tuple[int, int] | None = None
    """Height and width of the grid's frames."""
    weights: str | None = None
    """A file, https:// or s3:// in place of the model's own weights."""
    sha256: str | None = None
    """Of `weights`; a remote file needs it unless its name carries it, as torchvision's do."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the description (see Recipe) for an .onnx file or model folder, over what it says."""
    storage: StorageOptions | None = None
    """How weights on S3 are reached; None: as the AWS environment says."""

    def __post_init__(self) -> None:
        refuse_credentials_within({"weights": self.weights, "options": self.options}, "")
        for name in ("batch_size", "threads", "max_detections", "window", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} of a model must be at least 1, not {value}.")
        for name in ("score_threshold", "nms_iou"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} of a model must lie between 0 and 1, not {value}.")
        if self.fps is not None:
            object.__setattr__(self, "fps", _fps(self.fps, "a model's fps"))
        if self.size is not None:
            height, width = self.size
            if height < 1 or width < 1:
                raise ConfigError(f"size of a model must be positive (height, width), not {self.size}.")
            object.__setattr__(self, "size", (height, width))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From uint8 RGB frames to what the network eats: x = (frame / divisor - mean) / std."""

    color: Literal["rgb", "bgr"] = "rgb"
    divisor: float = 255.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    crop: int = 0
    """Side of the centre square cut out of the grid's frames before the network; 0: none."""

    def __post_init__(self) -> None:
        if self.color not in ("rgb", "bgr"):
            raise ConfigError(f"preprocessing.color must be rgb or bgr, not {self.color!r}.")
        numbers = (self.divisor, *self.mean, *self.std)
        if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers) or (
            self.divisor <= 0 or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0
        ):
            raise ConfigError(f"preprocessing needs a positive divisor, three means and three positive stds: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is made. `model.yaml` holds these fields by these names."""

    name: str
    kind: Kind
    family: str
    labels: tuple[str, ...]
    grid: Grid
    weights: str
    """Path or URI; in a file, relative to it."""
    sha256: str = ""
    """Of the weights file: all 64 digits, or the first 8 or more where no more is known."""
    licence: str = "unknown"
    arch: str = ""
    """torchvision families: the builder's name; slowfast: the variant."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """torchvision families: keyword arguments of the builder; temporal: TemporalSettings."""
    outputs_of_labels: tuple[int, ...] = ()
    """The network's output index of each label, where that is not the family's ordinary one
    (torchvision detection: label i is output i + 1, as 0 is the background; others: i)."""
    preprocessing: Preprocessing = Preprocessing()
    decoding: str = ""
    """onnx: `yolox` or `nms-in-graph`."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """onnx, nms-in-graph: names of the graph's outputs for boxes, scores, labels (and count)."""
    box_format: Literal["xyxy", "cxcywh"] = "xyxy"
    box_unit: Literal["pixel", "fraction"] = "pixel"
    score_threshold: float = DETECTOR_THRESHOLD
    nms_iou: float | None = None
    """None: the architecture's own."""
    batch_norm_eps: float | None = None
    """torchvision's first ResNet-50 detectors were trained with 0, which their files do not say."""
    windows: tuple[int, int] | None = None
    """Least and most frames a window that the weights allow; None: any."""

    def __post_init__(self) -> None:
        refuse_credentials_in(self.weights, f"weights of {self.name}")
        if self.family not in FAMILIES:
            raise ConfigError(
                f"{self.name}: unknown model family {self.family!r}{_did_you_mean(self.family, FAMILIES)} "
                f"Families: {', '.join(sorted(FAMILIES))}."
            )
        if self.kind not in _KIND_NAMES:
            raise ConfigError(f"{self.name}: kind must be detector, actions or embedding, not {self.kind!r}.")
        if not self.labels and self.kind != "embedding":
            raise ConfigError(f"{self.name}: a model needs labels, one for each class.")
        if self.sha256 and not re.fullmatch("[0-9a-f]{8,64}", self.sha256):
            raise ConfigError(
                f"{self.name}: sha256 is all 64 hexadecimal digits of the file's, or the first 8 or more, in quotes; "
                f"not {self.sha256!r}."
            )
        if self.outputs_of_labels and len(self.outputs_of_labels) != len(self.labels):
            raise ConfigError(
                f"{self.name}: {len(self.labels)} labels, but outputs_of_labels has {len(self.outputs_of_labels)}."
            )
        if self.box_format not in ("xyxy", "cxcywh") or self.box_unit not in ("pixel", "fraction"):
            raise ConfigError(
                f"{self.name}: box_format must be xyxy or cxcywh and box_unit pixel or fraction, "
                f"not {self.box_format!r} and {self.box_unit!r}."
            )

    def with_settings(self, settings: ModelSettings) -> Recipe:
        """This recipe with what the job says over it. Raises ConfigError where the two disagree."""
        if settings.kind == "embedding" and self.kind == "actions":  # every action network has features
            return replace(self, kind="embedding").with_settings(settings)
        if settings.kind is not None and settings.kind != self.kind:
            raise ConfigError(
                f"{self.name} is {_KIND_NAMES[self.kind]}, but it was given as {_KIND_NAMES[settings.kind]}."
            )
        grid = self.grid
        size = grid.size
        preprocessing = self.preprocessing
        if settings.size is not None:
            height, width = settings.size
            if size.height and size.mode == "crop":
                size = replace(size, short_side=round(size.short_side * min(height, width) / size.height))
            if size.height and preprocessing.crop:
                preprocessing = replace(preprocessing, crop=round(preprocessing.crop * height / size.height))
            size = replace(size, height=height, width=width)
        window = settings.window or grid.window
        if self.kind == "detector" and (window != 1 or (settings.stride or 1) != 1):
            raise ConfigError(f"{self.name} is a detector: it sees single frames and has no window or stride.")
        if self.windows and not self.windows[0] <= window <= self.windows[1]:
            least, most = self.windows
            allowed = f"exactly {least}" if least == most else f"{least} to {most}"
            raise ConfigError(f"{self.name} takes windows of {allowed} frames, not {window}.")
        stride = settings.stride or (grid.stride if window == grid.window else max(1, window // 2))
        recipe = replace(
            self,
            preprocessing=preprocessing,
            grid=Grid(
                fps=Fraction(settings.fps) if settings.fps is not None else grid.fps,
                size=size,
                window=window,
                stride=stride,
                keyframes_only=settings.keyframes_only or grid.keyframes_only,
            ),
            score_threshold=self.score_threshold if settings.score_threshold is None else settings.score_threshold,
            nms_iou=self.nms_iou if settings.nms_iou is None else settings.nms_iou,
        )
        if settings.weights is not None:
            recipe = replace(
                recipe, weights=_absolute(settings.weights, Path.cwd()), sha256=(settings.sha256 or "").lower()
            )
        return recipe

    def to_mapping(self) -> dict[str, Any]:
        """What model.yaml holds: plain values, and only what differs from the defaults."""
        out: dict[str, Any] = {"format": 1}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "grid":
                out["grid"] = _grid_to_mapping(value)
            elif f.name == "preprocessing":
                if value != Preprocessing():
                    out["preprocessing"] = {g.name: _plain(getattr(value, g.name)) for g in fields(value)}
            elif f.name in _REQUIRED or (value not in ((), {}, "", None) and value != f.default):
                out[f.name] = _plain(value)
        return out


_REQUIRED = ("name", "kind", "family", "labels", "weights")
_KIND_NAMES = {"detector": "a detector", "actions": "an action model", "embedding": "an embedding model"}


# From a spec to a recipe


def resolve_spec(spec: str, kind: Kind, *, gpu: bool | None = None) -> str | None:
    """The model that `auto` and `none` stand for; other specs as they are. None: no model.

    `gpu` tells whether the workers have one (the driver may not); None: look at this machine.
    """
    if spec == "none":
        return None
    if spec != "auto":
        return spec
    if kind == "embedding":
        return "resnet18"
    if gpu is None:
        import torch

        gpu = torch.cuda.is_available()
    if kind == "detector":
        return "fasterrcnn_resnet50_fpn_v2" if gpu else "ssdlite320_mobilenet_v3_large"
    return "s3d" if gpu else None


def find_recipe(spec: str, settings: ModelSettings) -> Recipe:
    """The recipe of a torchvision name or a path, the job's settings over it. Raises ConfigError."""
    if is_remote(spec):
        raise ConfigError(
            f"{shown(spec)}: a model is named by a local path; its weights may lie elsewhere: give their address as "
            "`weights`, with their `sha256`, in a model.yaml here or in the job file."
        )
    path = Path(spec).expanduser()
    if path.suffix or os.sep in spec:
        refuse_foreign_model(path)
    is_file = path.suffix.lower() in (".onnx", ".yaml", ".yml", ".json") or os.sep in spec
    # What `vidproc demo` leaves in a folder of that name is no model.
    if is_file or (path.is_dir() and spec not in ("demo", *torchvision_names())):
        return read_recipe(path, settings.options).with_settings(settings)
    if settings.options:
        raise ConfigError(f"options {sorted(settings.options)} are for model files; {spec} describes itself.")
    if settings.kind == "embedding" and spec == "demo":
        return importlib.import_module(FAMILIES["embedded"]).embedded_recipe().with_settings(settings)  # type: ignore[no-any-return]
    if settings.kind == "embedding" and spec not in torchvision_names():
        return importlib.import_module(FAMILIES["features"]).image_recipe(spec).with_settings(settings)  # type: ignore[no-any-return]
    names = torchvision_names()
    if spec not in names:
        raise ConfigError(
            f"There is no model named {spec!r}{_did_you_mean(spec, [*names, 'auto', 'demo'])} Known are auto, demo, "
            "the torchvision names (vidproc models list), the path of an .onnx file or model folder, "
            "and package.module:Class."
        )
    return torchvision_recipe(spec).with_settings(settings)


def is_user_class(spec: str) -> bool:
    """`package.module:Class`, and not a Windows path or a URL."""
    module, colon, name = spec.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def import_user_class(spec: str) -> Callable[[ModelSettings], Any]:
    """The class behind `package.module:Class`, found on PYTHONPATH or in the working directory."""
    module_name, _, class_name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last, so that nothing installed is shadowed
    try:
        module = importlib.import_module(module_name)
    except ImportError as e:
        itself = e.name is not None and f"{module_name}.".startswith(f"{e.name}.")
        hint = f": {module_name} must lie on PYTHONPATH or in {here}" if itself else ""
        raise ConfigError(f"The model {spec} cannot be imported ({e}){hint}.") from e
    try:
        found: Callable[[ModelSettings], Any] = getattr(module, class_name)
    except AttributeError:
        names = [n for n in vars(module) if isinstance(getattr(module, n), type)]
        raise ConfigError(
            f"{module.__name__} ({getattr(module, '__file__', '?')}) has no class {class_name!r}"
            f"{_did_you_mean(class_name, names)}"
        ) from None
    return found


# Model files


def read_recipe(path: Path, options: Mapping[str, Any]) -> Recipe:
    """The recipe of a model folder, of an .onnx file with its description beside it, or of a
    description. `options` go over what the file says."""
    if not path.exists():
        raise ConfigError(f"There is no model file or folder {path}.")
    described: Mapping[str, Any] = {}
    origin = path
    if path.is_dir():
        origin = _first_file(path / f"model{s}" for s in (".yaml", ".yml", ".json"))
        if not origin:
            refuse_foreign_model(path)
            raise ConfigError(f"{path} is not a model folder: it holds no model.yaml.")
        described = read_document(origin, "model description")
    elif path.suffix.lower() == ".onnx":
        origin = _first_file(path.with_suffix(s) for s in (".yaml", ".yml", ".json"))
        described = read_document(origin, "model description") if origin else {}
        if not described and not options:
            raise ConfigError(
                f"Nothing says how to read the output of {path}: write {path.with_suffix('.yaml').name} beside it, "
                "with the line 'decoding: yolox' (80 COCO labels unless told otherwise), or with the lines "
                "'decoding: nms-in-graph' and 'labels: [person, car]'. Or the same in a job file: "
                f"'detector: {{model: {path}, options: {{decoding: yolox}}}}'."
            )
        described = {"family": "onnx", "name": path.stem, "weights": os.path.abspath(path), **described}
        origin = origin or path
    else:
        described = read_document(path, "model description")
        described = {"name": path.stem, **described} if path.stem != "model" else described
    merged = {**described, **options}
    for key in ("grid", "preprocessing", "args", "outputs"):
        if isinstance(described.get(key), Mapping) and isinstance(options.get(key), Mapping):
            merged[key] = {**described[key], **options[key]}
    return recipe_from_mapping(merged, origin)


def recipe_from_mapping(values: Mapping[str, Any], origin: Path) -> Recipe:
    """Checks what a description says. `origin`: the file, for messages and relative paths."""
    values = dict(values)
    version = values.pop("format", 1)
    if version != 1:
        raise ConfigError(f"{origin}: format {version!r} of a model description is not known here; this is format 1.")
    _refuse_unknown(values, [f.name for f in fields(Recipe)], str(origin))
    if values.get("family") == "onnx":
        values = importlib.import_module(FAMILIES["onnx"]).completed(values, origin)
    optional = ("labels",) if values.get("kind") == "embedding" else ()
    missing = [k for k in _REQUIRED if not values.get(k) and k not in optional]
    if missing:
        raise ConfigError(f"{origin}: a model description needs {', '.join(missing)}.")
    try:
        grid = _grid_from_mapping(dict(values.get("grid") or {}), values["kind"], str(origin))
        preprocessing = dict(values.get("preprocessing") or {})
        _refuse_unknown(preprocessing, [f.name for f in fields(Preprocessing)], f"{origin}, preprocessing")
        for key in ("mean", "std"):
            if key in preprocessing:
                preprocessing[key] = tuple(float(x) for x in preprocessing[key])
        return Recipe(
            **{
                **values,
                "labels": _labels(values.get("labels") or (), origin),
                "grid": grid,
                "preprocessing": Preprocessing(**preprocessing),
                "weights": _absolute(str(values["weights"]), origin.parent),
                "sha256": "" if (sha256 := values.get("sha256")) is None else str(sha256).lower(),
                "outputs_of_labels": tuple(int(i) for i in values.get("outputs_of_labels") or ()),
                "windows": tuple(values["windows"]) if values.get("windows") else None,
            }
        )
    except (TypeError, ValueError) as e:
        raise ConfigError(f"{origin}: {e}") from e


def _grid_from_mapping(values: dict[str, Any], kind: Kind, where: str) -> Grid:
    _refuse_unknown(values, ["fps", "size", "window", "stride", "keyframes_only"], f"{where}, grid")
    size = dict(values.pop("size", None) or {})
    _refuse_unknown(size, [f.name for f in fields(FrameSize)], f"{where}, grid.size")
    if "fps" not in values and kind == "actions":
        raise ConfigError(f"{where}: the grid of an action model needs fps (and window).")
    fps = _fps(values.pop("fps", DETECTOR_FPS), f"{where}: grid.fps")
    window = int(values.get("window", 1))
    return Grid(**{"stride": max(1, window // 2), **values, "fps": fps, "size": FrameSize(**size)})


def _grid_to_mapping(grid: Grid) -> dict[str, Any]:
    default = FrameSize()
    size = {
        f.name: getattr(grid.size, f.name)
        for f in fields(FrameSize)
        if f.name == "mode" or getattr(grid.size, f.name) != getattr(default, f.name)
    }
    out: dict[str, Any] = {"fps": str(grid.fps), "size": size}
    if grid.window > 1:
        out |= {"window": grid.window, "stride": grid.stride}
    if grid.keyframes_only:
        out["keyframes_only"] = True
    return out


def _labels(value: Any, origin: Path) -> tuple[str, ...]:
    """A list, `coco80`, or the name of a text file with one label a line."""
    if value == "coco80":
        return COCO80
    if isinstance(value, str):
        data = read_below(origin.parent, value, where=str(origin), what="labels file")
        try:
            value = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError as e:
            raise ConfigError(f"{origin}: the labels file {value!r} cannot be read: it is not UTF-8 ({e}).") from e
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{origin}: labels are a list, coco80 or the name of a text file, not {value!r}.")
    for i, label in enumerate(value):
        if isinstance(label, bool) or not isinstance(label, (str, int)):  # YAML reads a bare `no` as False
            raise ConfigError(f"{origin}: label {i} is {label!r} and not text: put it in quotes.")
    return tuple(str(label) for label in value)


def _first_file(candidates: Iterable[Path]) -> Any:
    return next((p for p in candidates if p.is_file()), None)


def _absolute(uri: str, base: Path) -> str:
    # A link is not resolved: an ONNX file's other files lie where the link lies.
    return uri if "://" in uri else os.path.abspath(base / Path(uri).expanduser())


def _fps(value: Any, what: str) -> Fraction:
    """Seven and a half a second may be written 7.5 or 15/2; 29.97 means 30000/1001 only if written so."""
    try:
        fps = Fraction(str(value)) if not isinstance(value, Fraction) else value
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"{what} must be a number such as 2, 7.5 or 30000/1001, not {value!r}.") from None
    if fps <= 0:
        raise ConfigError(f"{what} must be positive, not {value}.")
    return fps


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def _refuse_unknown(values: Iterable[str], known: list[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{where}: unknown key {key!r}{_did_you_mean(str(key), known)} Known: {', '.join(known)}."
            )


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else "."


# torchvision


_DETECTION_SIZES = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": FrameSize(mode="fit", height=320, width=640),
    "ssd300_vgg16": FrameSize(mode="stretch", height=300, width=300),
    "ssdlite320_mobilenet_v3_large": FrameSize(mode="stretch", height=320, width=320),
}
_DETECTION_SIZE = FrameSize(mode="fit", height=800, width=1333)
"""What each builder's own transform resizes to; a test compares with the builders."""

_EPS_0 = {
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
}

_VIDEO_CLIPS = {
    "mc3_18": ("15", 16),
    "r2plus1d_18": ("15", 16),
    "r3d_18": ("15", 16),
    "mvit_v1_b": ("7.5", 16),
    "mvit_v2_s": ("7.5", 16),
    "s3d": ("15", 128),
    "swin3d_b": ("15", 32),
    "swin3d_s": ("15", 32),
    "swin3d_t": ("15", 32),
}
"""fps and frames a clip with which torchvision measured each model's accuracy."""


def torchvision_names() -> dict[str, Kind]:
    """Every builder of torchvision's detection and video packages, with its kind."""
    from torchvision.models import detection, list_models, video

    names: dict[str, Kind] = dict.fromkeys(list_models(module=detection), "detector")
    return names | dict.fromkeys(list_models(module=video), "actions")


def torchvision_recipe(name: str) -> Recipe:
    """The recipe of a torchvision builder with its default weights.

    Detectors: labels are the classes without the background and COCO's unused numbers, so class_id
    counts the 80 classes of COCO from 0, as YOLOX and most others do.
    """
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    categories: list[str] = weights.meta["categories"]
    if torchvision_names()[name] == "detector":
        kept = [i for i, label in enumerate(categories) if i > 0 and label != "N/A"]
        args: dict[str, Any] = {"num_classes": len(categories)}
        if "keypoint_names" in weights.meta:
            args["num_keypoints"] = len(weights.meta["keypoint_names"])
        return Recipe(
            name=name,
            kind="detector",
            family="torchvision-detection",
            arch=name,
            args=args,
            labels=tuple(categories[i] for i in kept),
            outputs_of_labels=tuple(kept),
            grid=Grid(fps=DETECTOR_FPS, size=_DETECTION_SIZES.get(name, _DETECTION_SIZE)),
            weights=weights.url,
            licence="BSD-3-Clause (torchvision); trained on COCO",
            batch_norm_eps=0.0 if name in _EPS_0 else None,
        )
    transform = weights.transforms()
    fps, window = _VIDEO_CLIPS[name]
    (crop,) = set(transform.crop_size)
    if len(transform.resize_size) == 1:
        size = FrameSize(mode="crop", short_side=transform.resize_size[0], height=crop, width=crop)
        crop = 0
    else:  # squeezed to one shape whatever the aspect, then cropped: the crop is left to the model
        height, width = transform.resize_size
        size = FrameSize(mode="stretch", height=height, width=width)
    return Recipe(
        name=name,
        kind="actions",
        family="torchvision-video",
        arch=name,
        args={"num_classes": len(categories)},
        labels=tuple(categories),
        grid=Grid(fps=Fraction(fps), size=size, window=window, stride=window // 2),
        preprocessing=Preprocessing(mean=tuple(transform.mean), std=tuple(transform.std), crop=crop),
        weights=weights.url,
        licence="BSD-3-Clause (torchvision); trained on Kinetics-400",
        score_threshold=0.0,
        # MViT learns one position for each of its 16 frames; S3D's pooling needs at least 14.
        windows=(16, 16) if name.startswith("mvit") else (14, 1024) if name == "s3d" else None,
    )


def card_of(recipe: Recipe, sha256: str) -> ModelCard:
    """The card of a recipe, the job's settings over it, whose weights have that sha256."""
    answers = {k: v for k, v in recipe.to_mapping().items() if k not in ("name", "weights", "sha256", "licence")}
    return ModelCard(
        name=recipe.name,
        kind=recipe.kind,
        labels=recipe.labels,
        grid=recipe.grid,
        licence=recipe.licence,
        weights_uri=shown(recipe.weights),
        weights_sha256=sha256,
        definition=content_hash(json.dumps(answers, sort_keys=True)),
    )
