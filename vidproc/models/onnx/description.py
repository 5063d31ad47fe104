"""What a decoding implies of a description, so that a common one is two lines long."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vidproc.errors import ConfigError
from vidproc.models.fetching import is_remote
from vidproc.models.onnx.decoding import YOLOX_NMS_IOU
from vidproc.models.onnx.files import graph_in
from vidproc.models.onnx.input import GraphInput
from vidproc.models.onnx.output import DECODINGS
from vidproc.models.weights import read_weights


def completed(values: Mapping[str, Any], origin: Path) -> dict[str, Any]:
    """A description with what its decoding implies, so that a common one is two lines long."""
    decoding = values.get("decoding")
    if decoding not in DECODINGS:
        raise ConfigError(f"{origin}: decoding must be one of {', '.join(DECODINGS)}, not {decoding!r}.")
    out: dict[str, Any] = {"kind": "detector"}
    if decoding == "yolox":
        out |= {"labels": "coco80", "nms_iou": YOLOX_NMS_IOU}
    out |= values
    taken = _input_of(values, origin)
    preprocessing = {"color": "bgr", "divisor": 1.0} if decoding == "yolox" else {}
    if taken is not None and taken.dtype == np.uint8:
        preprocessing["divisor"] = 1.0
    out["preprocessing"] = {**preprocessing, **_mapping(values, "preprocessing", origin)}
    grid = _mapping(values, "grid", origin)
    size = {"mode": "letterbox" if decoding == "yolox" else "stretch", **_mapping(grid, "size", origin)}
    if size["mode"] in ("letterbox", "stretch") and not (size.get("height") and size.get("width")):
        if taken is None:
            raise ConfigError(f"{origin}: grid.size needs height and width (the graph is not here to be asked).")
        if taken.height is None or taken.width is None:
            raise ConfigError(f"{origin}: grid.size needs height and width, as the graph takes any.")
        size["height"], size["width"] = taken.height, taken.width
    out["grid"] = {**grid, "size": size}
    return out


def _mapping(values: Mapping[str, Any], key: str, origin: Path) -> dict[str, Any]:
    found = values.get(key) or {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"{origin}: {key} must be a mapping, not {found!r}.")
    return dict(found)


def _input_of(values: Mapping[str, Any], origin: Path) -> GraphInput | None:
    """The graph's input, where the graph lies on this machine."""
    path = origin.parent / str(values.get("weights", ""))
    if is_remote(str(values.get("weights", ""))) or not path.is_file():
        return None
    return GraphInput(graph_in(path, read_weights(str(path), "", model=path.name).data).inputs, path)
