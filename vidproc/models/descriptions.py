"""Model descriptions in files: model folders, and .onnx files with a description beside them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from vidproc.documents import read_document
from vidproc.errors import ConfigError
from vidproc.media import FrameSize, Grid
from vidproc.models.files import read_below
from vidproc.models.foreign import refuse_foreign_model
from vidproc.models.recipe import (
    DETECTOR_FPS,
    FAMILIES,
    REQUIRED_FIELDS,
    Preprocessing,
    Recipe,
    absolute_uri,
    did_you_mean,
)
from vidproc.quantities import parse_fps
from vidproc.renamed import with_new_names
from vidproc.settings import Kind

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


RENAMED = {"licence": "license"}
"""Keys of model descriptions written for version 0.1, and their names now."""


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
        if not described and not options and path.stem.lower().startswith("yolox"):
            described = {"decoding": "yolox"}  # the files that its authors publish say nothing else of themselves
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
    described = with_new_names(described, RENAMED, str(origin))
    options = with_new_names(options, RENAMED, f"{origin}, options")
    merged = {**described, **options}
    for key in ("grid", "preprocessing", "args", "outputs"):
        if isinstance(described.get(key), Mapping) and isinstance(options.get(key), Mapping):
            merged[key] = {**described[key], **options[key]}
    return recipe_from_mapping(merged, origin)


def recipe_from_mapping(values: Mapping[str, Any], origin: Path) -> Recipe:
    """Checks what a description says. `origin`: the file, for messages and relative paths."""
    values = with_new_names(values, RENAMED, str(origin))
    version = values.pop("format", 1)
    if version != 1:
        raise ConfigError(f"{origin}: format {version!r} of a model description is not known here; this is format 1.")
    _refuse_unknown(values, [f.name for f in fields(Recipe)], str(origin))
    if values.get("family") == "onnx":
        values = importlib.import_module(FAMILIES["onnx"]).completed(values, origin)
    optional = ("labels",) if values.get("kind") == "embedding" else ()
    missing = [k for k in REQUIRED_FIELDS if not values.get(k) and k not in optional]
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
                "weights": absolute_uri(str(values["weights"]), origin.parent),
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
    fps = parse_fps(values.pop("fps", DETECTOR_FPS), f"{where}: grid.fps")
    window = int(values.get("window", 1))
    return Grid(**{"stride": max(1, window // 2), **values, "fps": fps, "size": FrameSize(**size)})


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


def _refuse_unknown(values: Iterable[str], known: list[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}{did_you_mean(str(key), known)} Known: {', '.join(known)}.")
