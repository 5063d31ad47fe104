"""Detectors as ONNX files, run by onnxruntime; torch is not needed.

Decodings (what the graph's outputs mean):

  yolox          one output (n, cells, 5 + classes) of anchor-free cells at strides 8, 16 and 32,
                 objectness and classes already sigmoid (YOLOX, arXiv 2107.08430, exported without
                 its decoding). Frames: letterbox, BGR, 0 to 255.
  nms-in-graph   outputs boxes (n, m, 4), scores (n, m), labels (n, m), and perhaps count (n,),
                 already suppressed. Frames: stretch, RGB, 0 to 1, unless the description says else.

The graph has one input, a batch of frames as float32, float16 or uint8. A graph that takes uint8 gets the
frames' own bytes. Tensors may lie in other files beside the graph or below its folder (external data): they
are read with it, count in its sha256, and onnxruntime gets them from memory and opens no file.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidproc.annotations import Detections
from vidproc.errors import ConfigError, TransientError, VidprocError
from vidproc.machine import cpu_count
from vidproc.media import FrameSize
from vidproc.models.base import ModelCard
from vidproc.models.files import (
    FOREIGN,
    TORCH_WEIGHTS,
    foreign_format,
    foreign_zip,
    is_pickle,
    is_zip,
    read_below,
    refuse_foreign,
)
from vidproc.models.graph import ExternalTensor, GraphFile, GraphValue, NoGraph, holds_nan, read_graph
from vidproc.models.registry import YOLOX_NMS_IOU, ModelSettings, Preprocessing, Recipe, card_of
from vidproc.models.weights import Weights, is_remote, read_weights

DECODINGS = ("yolox", "nms-in-graph")
STRIDES = (8, 16, 32)
_CANDIDATES = 1000
"""Boxes a frame which suppression looks at, the best by score: bounds its cost on noise."""


Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes, scores and class ids of one frame."""
_DTYPES: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8}
_REQUESTED = re.compile(r"requested buffer of size (\d+)")
_FLOAT_OUTPUTS = {"float16", "float32", "float64"}
_WHOLE_OUTPUTS = {"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"}


MAX_INPUT_BYTES = 1 << 31
"""Largest input of one pass that a graph may ask for: a fixed batch of 100 frames of 1280 x 1280 as float32 is less."""
_NAMELESS = frozenset(("", "?", "-1", "None", "none", "unknown", "unk"))
"""What exporters call an open size when they give it no name."""
_ABSURD_BYTES = 1 << 36
"""A graph that asks for a buffer of more than 64 GiB for one frame is damaged: trying again is no use."""


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
    return GraphInput(_graph_of(path, read_weights(str(path), "", model=path.name).data).inputs, path)


def read(recipe: Recipe) -> Weights:
    """The graph and its external data. Raises ConfigError."""
    return read_weights(recipe.weights, recipe.sha256, model=recipe.name, beside=external_data)


def check(recipe: Recipe, weights: Weights) -> GraphInput:
    """What can be told without running the graph: one input that takes frames, outputs that its decoding knows,
    and no values that are not numbers. Raises ConfigError."""
    graph = _graph_of(weights.path, weights.data)
    inside = graph.no_number or next(
        (t.name for t in graph.external if holds_nan(_part(weights.beside[t.location], t), t.element)), None
    )
    if inside is not None:
        raise ConfigError(f"The weights {weights.path} are damaged: {inside} holds values that are not numbers.")
    taken = GraphInput(graph.inputs, weights.path)
    size = recipe.grid.size
    if size.mode in ("letterbox", "stretch", "crop") and not taken.accepts(size.height, size.width):
        raise ConfigError(
            f"{recipe.name}: the graph takes frames of {taken.height or 'any'}x{taken.width or 'any'} (height x width"
            f"{', equal' if taken.square else ''}), but the description or the settings say {size.height}x{size.width}."
        )
    height, width = _example_size(size)
    if taken.bytes_of(height, width) > MAX_INPUT_BYTES:
        raise ConfigError(
            f"{weights.path}: one pass over {taken.batch or 1:,} frames of {height}x{width} would take "
            f"{taken.bytes_of(height, width):,} bytes. Export the graph for fewer or smaller frames."
        )
    p = recipe.preprocessing
    if taken.dtype == np.uint8 and not _is_identity(p):
        raise ConfigError(
            f"{recipe.name}: the graph takes uint8, the frames as they are, so its preprocessing must be "
            "{divisor: 1} without mean and std."
        )
    _check_outputs(recipe, graph.outputs, size.height, size.width)
    return taken


def external_data(path: Path, data: bytes) -> dict[str, bytes]:
    """The files that the graph names for its tensors, by the names under which it asks for them."""
    graph = _graph_of(path, data)
    beside: dict[str, bytes] = {}
    for tensor in graph.external:
        if tensor.location not in beside:
            beside[tensor.location] = read_below(
                path.parent, tensor.location, where=f"The graph {path}", what="file of external data"
            )
        if (tensor.length or 0) + tensor.offset > len(beside[tensor.location]):
            raise ConfigError(
                f"The graph {path}: its external data {tensor.location!r} is cut short: {tensor.name} lies beyond its "
                f"{len(beside[tensor.location]):,} bytes."
            )
    return beside


def _part(data: bytes, tensor: ExternalTensor) -> memoryview:
    end = None if tensor.length is None else tensor.offset + tensor.length
    return memoryview(data)[tensor.offset : end]


def _graph_of(path: Path, data: bytes) -> GraphFile:
    refuse_foreign(path, foreign_format(data))
    if is_zip(data):
        try:
            refuse_foreign(path, foreign_zip(data) or TORCH_WEIGHTS)
        except zipfile.BadZipFile:
            refuse_foreign(path, TORCH_WEIGHTS)
    if is_pickle(data):
        refuse_foreign(path, FOREIGN[".pkl"])
    try:
        return read_graph(data)
    except NoGraph as e:
        raise ConfigError(
            f"The model {path} cannot be opened by onnxruntime: it is damaged or not an ONNX file ({e})."
        ) from e


def load(recipe: Recipe, settings: ModelSettings) -> OnnxDetector:
    weights = read(recipe)
    return OnnxDetector(recipe, card_of(recipe, weights.sha256), weights, settings)


class OnnxDetector:
    """A detection graph in onnxruntime."""

    card: ModelCard

    def __init__(self, recipe: Recipe, card: ModelCard, weights: Weights, settings: ModelSettings) -> None:
        self.card = card
        self._recipe = recipe
        self._most = settings.max_detections
        self._input = check(recipe, weights)
        self._session = open_session(weights, settings)
        # On a CPU one frame at a time is as fast as many (YOLOX-nano: 12.5 ms a frame, 13 to 16 in batches)
        # and the same to the bit wherever a video was cut.
        on_cpu = self._session.get_providers()[0] == "CPUExecutionProvider"
        self._batch = self._input.batch or settings.batch_size or (1 if on_cpu else 16)
        self._outputs = _output_names(recipe, [o.name for o in self._session.get_outputs()])
        index = np.array(recipe.outputs_of_labels or range(len(recipe.labels)), np.int64)
        self._class_of_output = np.full(index.max() + 1, -1, np.int64)
        self._class_of_output[index] = np.arange(len(index))
        self._try_out()

    def _try_out(self) -> None:
        """One pass over a grey frame: what fails on any frame is the model's fault, and is told before work starts."""
        height, width = _example_size(self._recipe.grid.size)
        frame = np.full((1, height, width, 3), 114, np.uint8)
        try:
            outputs = self._run(frame)
            decode = self._yolox if self._recipe.decoding == "yolox" else self._nms_in_graph
            decode(outputs, frame.shape)
        except VidprocError:
            raise
        except Exception as e:
            raise ConfigError(
                f"{self.card.name}: the graph does not run on a frame of {height}x{width}: "
                f"{' '.join(str(e).split())[:300]}"
            ) from e
        if any(np.isnan(o).any() for o in outputs if o.dtype.kind == "f"):
            raise ConfigError(f"{self.card.name}: the graph answers with values that are not numbers: it is damaged.")

    def detect(self, frames: np.ndarray) -> Detections:
        """uint8 (n, h, w, 3) RGB, sized as the card's grid asks -> boxes in pixels of those frames."""
        parts: list[Detections] = []
        for start in range(0, len(frames), self._batch):
            batch = frames[start : start + self._batch]
            outputs = self._run(batch)
            decode = self._yolox if self._recipe.decoding == "yolox" else self._nms_in_graph
            for i, found in enumerate(decode(outputs, batch.shape)[: len(batch)]):
                parts.append(_rows(start + i, *found))
        return Detections.concatenate(parts)

    def _run(self, frames: np.ndarray) -> list[np.ndarray]:
        if self._input.batch and len(frames) < self._input.batch:
            missing = self._input.batch - len(frames)
            frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
        x = self._input.prepare(frames, self._recipe)
        try:
            outputs: list[np.ndarray] = self._session.run(self._outputs, {self._input.name: x})
        except Exception as e:  # onnxruntime's exceptions share no base class
            text = " ".join(str(e).split())
            if (asked := _REQUESTED.search(text)) and int(asked[1]) > _ABSURD_BYTES:
                raise ConfigError(f"{self.card.name}: the graph asks for {int(asked[1]):,} bytes at once.") from e
            if "memory" in text.lower() or "alloc" in text.lower():
                raise TransientError(f"{self.card.name}: onnxruntime ran out of memory: {text[:200]}") from e
            raise
        return outputs

    def _yolox(self, outputs: list[np.ndarray], shape: tuple[int, ...]) -> list[Found]:
        (raw,) = outputs
        classes = len(self._class_of_output)
        cells, stride = yolox_cells(shape[1], shape[2])
        if raw.ndim != 3 or raw.shape[1:] != (len(cells), 5 + classes):
            raise ConfigError(
                f"{self.card.name}: the graph's output is {raw.shape[1:]}, but yolox decoding of "
                f"{shape[1]}x{shape[2]} frames with {classes} classes needs ({len(cells)}, {5 + classes})."
            )
        found = []
        for one in raw.astype(np.float32, copy=False):
            found.append(self._select(*yolox_candidates(one, cells, stride, self._recipe.score_threshold)))
        return found

    def _nms_in_graph(self, outputs: list[np.ndarray], shape: tuple[int, ...]) -> list[Found]:
        boxes, scores, labels = outputs[:3]
        if boxes.ndim == 2:  # exported for one image, without the batch axis
            boxes, scores, labels = boxes[None], scores[None], labels[None]
        if boxes.shape[2:] != (4,) or scores.shape != boxes.shape[:2] or labels.shape != boxes.shape[:2]:
            raise ConfigError(
                f"{self.card.name}: nms-in-graph needs boxes (n, m, 4), scores (n, m) and labels (n, m), "
                f"not {boxes.shape}, {scores.shape} and {labels.shape}."
            )
        counts = outputs[3].reshape(-1) if len(outputs) > 3 else np.full(len(boxes), boxes.shape[1])
        height, width = shape[1:3]
        found = []
        for one, score, label, count in zip(boxes, scores, labels, counts, strict=True):
            xyxy = one[: int(count)].astype(np.float32)
            if self._recipe.box_format == "cxcywh":
                xyxy = _corners(xyxy)
            if self._recipe.box_unit == "fraction":
                xyxy = xyxy * np.array([width, height, width, height], np.float32)
            output = label[: int(count)].astype(np.int64)
            inside = (output >= 0) & (output < len(self._class_of_output))
            class_id = np.where(inside, self._class_of_output[np.where(inside, output, 0)], -1)
            score = score[: int(count)].astype(np.float32)
            keep = np.flatnonzero((score >= self._recipe.score_threshold) & (class_id >= 0))
            keep = keep[np.argsort(-score[keep], kind="stable")][: self._most]
            found.append((xyxy[keep], score[keep], class_id[keep]))
        return found

    def _select(self, boxes: np.ndarray, scores: np.ndarray, output: np.ndarray) -> Found:
        class_id = self._class_of_output[output]
        known = np.flatnonzero(class_id >= 0)
        boxes, scores, class_id = boxes[known], scores[known], class_id[known]
        iou = self._recipe.nms_iou
        keep = suppress(boxes, scores, class_id, YOLOX_NMS_IOU if iou is None else iou)[: self._most]
        return boxes[keep], scores[keep], class_id[keep]


def yolox_cells(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 (cells, 2) x, y of each cell in units of its stride, and (cells, 1) the strides, in the
    order of YOLOX's output: stride by stride, row by row."""
    cells, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def yolox_candidates(
    raw: np.ndarray, cells: np.ndarray, stride: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One frame's raw output (cells, 5 + classes) -> boxes (m, 4), scores (m,) and class (m,) of the
    cells whose best class reaches the threshold: score = objectness x class."""
    hopeful = np.flatnonzero(raw[:, 4] >= threshold)  # a class is at most 1
    raw, cells, stride = raw[hopeful], cells[hopeful], stride[hopeful]
    best = raw[:, 5:].argmax(axis=1)
    scores = raw[:, 4] * raw[np.arange(len(raw)), 5 + best]
    keep = np.flatnonzero(scores >= threshold)
    raw, cells, stride = raw[keep], cells[keep], stride[keep]
    centre, size = (raw[:, :2] + cells) * stride, np.exp(raw[:, 2:4]) * stride
    return _corners(np.concatenate([centre, size], axis=1)), scores[keep], best[keep]


def _corners(boxes: np.ndarray) -> np.ndarray:
    """centre x, y, width, height -> x_min, y_min, x_max, y_max."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1).astype(np.float32)


def suppress(boxes: np.ndarray, scores: np.ndarray, class_id: np.ndarray, iou: float) -> np.ndarray:
    """Greedy non-maximum suppression within each class -> int64 indices kept, best score first.

    A box goes if it overlaps a better one of its class by more than `iou`.
    """
    order = np.argsort(-scores, kind="stable")[:_CANDIDATES]
    x0, y0, x1, y1 = boxes[order].astype(np.float64).T
    area = (x1 - x0) * (y1 - y0)
    classes = class_id[order]
    alive = np.ones(len(order), bool)
    for i in range(len(order)):
        if not alive[i]:
            continue
        rest = slice(i + 1, None)
        overlap = np.maximum(np.minimum(x1[i], x1[rest]) - np.maximum(x0[i], x0[rest]), 0) * np.maximum(
            np.minimum(y1[i], y1[rest]) - np.maximum(y0[i], y0[rest]), 0
        )
        alive[rest] &= (classes[rest] != classes[i]) | (overlap <= iou * (area[i] + area[rest] - overlap))
    return order[alive]


def _rows(frame: int, boxes: np.ndarray, scores: np.ndarray, class_id: np.ndarray) -> Detections:
    return Detections(
        np.full(len(boxes), frame, np.int64),
        boxes.astype(np.float32),
        scores.astype(np.float32),
        class_id.astype(np.int64),
    )


# The graph


class GraphInput:
    """What the graph wants to be given. Raises ConfigError for a graph that does not take frames alone."""

    def __init__(self, inputs: Sequence[GraphValue], path: Path) -> None:
        listed = "; ".join(str(i)[:120] for i in inputs[:6]) or "none"
        if len(inputs) != 1:
            raise ConfigError(
                f"{path}: the graph has {len(inputs)} inputs ({listed}), and a detector is given frames alone. Export "
                "it with one input: what else it asks for (image sizes, thresholds) goes into the graph as constants."
            )
        (taken,) = inputs
        if taken.element not in _DTYPES:
            raise ConfigError(
                f"{path}: the graph's input is {taken}, and frames are given as {', '.join(_DTYPES)}. Export it with "
                "one of these, or put a Cast in front."
            )
        shape = taken.shape
        wanted = "a batch of frames, (n, 3, height, width) or (n, height, width, 3)"
        if shape is None or len(shape) != 4:
            raise ConfigError(f"{path}: the graph's input is {taken}, not {wanted}. Export it with such an input.")
        sizes = [None if isinstance(side, str) or side == -1 else side for side in shape]
        if any(side is not None and side < 1 for side in sizes):
            raise ConfigError(f"{path}: the graph's input is {taken}: no frames have such sizes. Export it again.")
        self.name: str = taken.name
        self.dtype = _DTYPES[taken.element]
        self.channels_last = sizes[3] == 3 and sizes[1] != 3
        if sizes[3 if self.channels_last else 1] not in (3, None):
            raise ConfigError(
                f"{path}: the graph's input is {taken}, not {wanted}. Frames have three channels, red, green and blue."
            )
        self.batch: int | None = sizes[0]
        rows, columns = (1, 2) if self.channels_last else (2, 3)
        self.height: int | None = sizes[rows]
        self.width: int | None = sizes[columns]
        names = [side if isinstance(side, str) and side not in _NAMELESS else i for i, side in enumerate(shape)]
        self.square = names[rows] == names[columns]
        others = {names[i] for i in range(4) if i != 0}
        if names[0] in others or names[6 - rows - columns] in {names[rows], names[columns]}:
            raise ConfigError(
                f"{path}: the graph's input is {taken}: one name stands for the number of frames or channels and for a "
                "side, which then must be equal. Export it with names of their own for the open sizes."
            )

    def bytes_of(self, height: int, width: int) -> int:
        """Of the input of one pass over one frame, or over the graph's fixed batch."""
        return (self.batch or 1) * 3 * height * width * int(np.dtype(self.dtype).itemsize)

    def accepts(self, height: int, width: int) -> bool:
        fits = self.height in (None, height) and self.width in (None, width)
        return fits and (not self.square or height == width)

    def prepare(self, frames: np.ndarray, recipe: Recipe) -> np.ndarray:
        """uint8 (n, h, w, 3) RGB -> the graph's input."""
        p = recipe.preprocessing
        x = frames[..., ::-1] if p.color == "bgr" else frames
        if not self.channels_last:
            x = x.transpose(0, 3, 1, 2)
        if not _is_identity(p):
            axes = (1, 1, 1, 3) if self.channels_last else (1, 3, 1, 1)
            mean, std = (np.array(v, np.float32).reshape(axes) for v in (p.mean, p.std))
            x = (x * np.float32(1 / p.divisor) - mean) / std
        return np.ascontiguousarray(x, dtype=self.dtype)


def _example_size(size: FrameSize) -> tuple[int, int]:
    """Height and width of a frame as the grid would have it."""
    return (size.height, size.width) if size.mode in ("letterbox", "stretch", "crop") else (360, 640)


def _is_identity(p: Preprocessing) -> bool:
    return (p.divisor, p.mean, p.std) == (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def open_session(weights: Weights, settings: ModelSettings) -> Any:
    """An onnxruntime session on the device that the settings ask for, made of the bytes that were verified."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    # onnxruntime takes every core unless told, also of those beyond a container's quota; the scheduler's share arrives
    # as OMP_NUM_THREADS.
    options.intra_op_num_threads = settings.threads or int(os.environ.get("OMP_NUM_THREADS") or cpu_count())
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never guessed from the bytes
    if weights.beside:
        names, files = zip(*weights.beside.items(), strict=True)
        options.add_external_initializers_from_files_in_memory(list(names), list(files), [len(f) for f in files])
    providers = _providers(settings.device)
    try:
        session = ort.InferenceSession(weights.data, options, providers=providers, enable_fallback=0)
    except Exception as e:  # onnxruntime's exceptions share no base class
        raise ConfigError(
            f"The model {weights.path} cannot be opened by onnxruntime: {' '.join(str(e).split())[:300]}"
        ) from e
    # Where CUDA's libraries are missing or of another version, onnxruntime says so on stderr and takes the CPU.
    if settings.device.startswith("cuda") and session.get_providers()[0] == "CPUExecutionProvider":
        raise ConfigError(f"{settings.device} was asked for, but onnxruntime could not start CUDA on it.")
    return session


def _providers(device: str) -> list[Any]:
    import onnxruntime as ort

    cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or not (number or "0").isdigit():
        raise ConfigError(f"The device must be auto, cpu, cuda or cuda:N, not {device!r}.")
    if kind == "cuda" and not cuda:
        raise ConfigError(f"{device} was asked for, but this onnxruntime has no CUDA: install onnxruntime-gpu instead.")
    if kind == "cpu" or not cuda:
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]


def _check_outputs(recipe: Recipe, outputs: Sequence[GraphValue], height: int, width: int) -> None:
    """By what the graph declares; sizes that it leaves open show when it runs."""
    by_name = {o.name: o for o in outputs}
    wanted = [by_name[name] for name in _output_names(recipe, list(by_name))]
    for number, output in enumerate(wanted):
        known = _FLOAT_OUTPUTS if number < 2 else _FLOAT_OUTPUTS | _WHOLE_OUTPUTS
        if output.element not in known:
            raise ConfigError(
                f"{recipe.name}: the graph's output is {output}; {recipe.decoding} needs numbers "
                f"({', '.join(sorted(known))}) there. Export it again, or put a Cast behind."
            )
    if recipe.decoding == "yolox":
        if not wanted:
            raise ConfigError(f"{recipe.name}: the graph has no output.")
        shape, classes = wanted[0].shape, max(recipe.outputs_of_labels, default=len(recipe.labels) - 1) + 1
        cells = len(yolox_cells(height, width)[0]) if recipe.grid.size.mode in ("letterbox", "stretch", "crop") else -1
        needed = (cells, 5 + classes)
        fixed = [s if isinstance(s, int) and s > 0 else -1 for s in shape or ()]
        fits = len(fixed) == 3 and all(-1 in pair or pair[0] == pair[1] for pair in zip(fixed[1:], needed, strict=True))
        if shape is not None and not fits:
            raise ConfigError(
                f"{recipe.name}: the graph's output is {shape[1:]}, but yolox decoding of {height}x{width} frames "
                f"with {classes} classes needs {needed}."
            )


def _output_names(recipe: Recipe, present: list[str]) -> list[str]:
    if recipe.decoding == "yolox":
        return present[:1]
    wanted = {"boxes": "boxes", "scores": "scores", "labels": "labels", **recipe.outputs}
    unknown = set(wanted) - {"boxes", "scores", "labels", "count"}
    absent = [name for name in wanted.values() if name not in present]
    if unknown or absent:
        raise ConfigError(
            f"{recipe.name}: the graph has the outputs {', '.join(present)}; say which is what, as in "
            "'outputs: {boxes: ..., scores: ..., labels: ..., count: ...}' (count if there is one)."
        )
    return [wanted[key] for key in ("boxes", "scores", "labels", "count") if key in wanted]
