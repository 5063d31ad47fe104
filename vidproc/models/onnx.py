"""Detectors as ONNX files, run by onnxruntime; torch is not needed.

Decodings (what the graph's outputs mean):

  yolox          one output (n, cells, 5 + classes) of anchor-free cells at strides 8, 16 and 32,
                 objectness and classes already sigmoid (YOLOX, arXiv 2107.08430, exported without
                 its decoding). Frames: letterbox, BGR, 0 to 255.
  nms-in-graph   outputs boxes (n, m, 4), scores (n, m), labels (n, m), and perhaps count (n,),
                 already suppressed. Frames: stretch, RGB, 0 to 1, unless the description says else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vidproc.annotations import Detections
from vidproc.errors import ConfigError, TransientError
from vidproc.machine import cpu_count
from vidproc.models.base import ModelCard
from vidproc.models.registry import YOLOX_NMS_IOU, ModelSettings, Recipe, card_of
from vidproc.models.weights import fetch, file_sha256

DECODINGS = ("yolox", "nms-in-graph")
STRIDES = (8, 16, 32)
_CANDIDATES = 1000
"""Boxes a frame which suppression looks at, the best by score: bounds its cost on noise."""


Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes, scores and class ids of one frame."""
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


def completed(values: Mapping[str, Any], origin: Path) -> dict[str, Any]:
    """A description with what its decoding implies, so that a common one is two lines long."""
    decoding = values.get("decoding")
    if decoding not in DECODINGS:
        raise ConfigError(f"{origin}: decoding must be one of {', '.join(DECODINGS)}, not {decoding!r}.")
    out: dict[str, Any] = {"kind": "detector"}
    if decoding == "yolox":
        out |= {"labels": "coco80", "nms_iou": YOLOX_NMS_IOU}
    out |= values
    if decoding == "yolox":
        out["preprocessing"] = {"color": "bgr", "divisor": 1.0, **(values.get("preprocessing") or {})}
    grid = dict(values.get("grid") or {})
    size = {"mode": "letterbox" if decoding == "yolox" else "stretch", **(grid.get("size") or {})}
    if size["mode"] in ("letterbox", "stretch") and not (size.get("height") and size.get("width")):
        size["height"], size["width"] = _input_size(values, origin)
    out["grid"] = {**grid, "size": size}
    return out


def load(recipe: Recipe, settings: ModelSettings) -> OnnxDetector:
    path = fetch(recipe.weights, recipe.sha256, model=recipe.name)
    return OnnxDetector(recipe, card_of(recipe, file_sha256(path)), path, settings)


class OnnxDetector:
    """A detection graph in onnxruntime."""

    card: ModelCard

    def __init__(self, recipe: Recipe, card: ModelCard, path: Path, settings: ModelSettings) -> None:
        self.card = card
        self._recipe = recipe
        self._most = settings.max_detections
        self._session = open_session(path, settings)
        # On a CPU one frame at a time is as fast as many (YOLOX-nano: 12.5 ms a frame, 13 to 16 in batches)
        # and the same to the bit wherever a video was cut.
        on_cpu = self._session.get_providers()[0] == "CPUExecutionProvider"
        self._input = GraphInput(self._session.get_inputs()[0], path)
        self._batch = self._input.batch or settings.batch_size or (1 if on_cpu else 16)
        size = recipe.grid.size
        if size.mode in ("letterbox", "stretch", "crop") and not self._input.accepts(size.height, size.width):
            raise ConfigError(
                f"{recipe.name}: the graph takes frames of {self._input.height}x{self._input.width} (height x width), "
                f"but the description or the settings say {size.height}x{size.width}."
            )
        self._outputs = _output_names(recipe, [o.name for o in self._session.get_outputs()])
        index = np.array(recipe.outputs_of_labels or range(len(recipe.labels)), np.int64)
        self._class_of_output = np.full(index.max() + 1, -1, np.int64)
        self._class_of_output[index] = np.arange(len(index))

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
    """The one image input of a graph: its name, element type, layout and sizes (None: free)."""

    def __init__(self, node: Any, path: Path) -> None:
        shape = [side if isinstance(side, int) and side > 0 else None for side in node.shape]
        if len(shape) != 4 or node.type not in _DTYPES:
            raise ConfigError(
                f"{path}: the graph's input {node.name} is {node.type} {node.shape}, not a batch of frames."
            )
        self.name: str = node.name
        self.dtype = _DTYPES[node.type]
        self.channels_last = shape[3] == 3 and shape[1] != 3
        self.batch: int | None = shape[0]
        self.height: int | None
        self.width: int | None
        self.height, self.width = shape[1:3] if self.channels_last else shape[2:4]

    def accepts(self, height: int, width: int) -> bool:
        return self.height in (None, height) and self.width in (None, width)

    def prepare(self, frames: np.ndarray, recipe: Recipe) -> np.ndarray:
        """uint8 (n, h, w, 3) RGB -> the graph's input."""
        p = recipe.preprocessing
        x = frames[..., ::-1] if p.color == "bgr" else frames
        if not self.channels_last:
            x = x.transpose(0, 3, 1, 2)
        if (p.divisor, p.mean, p.std) != (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)):
            axes = (1, 1, 1, 3) if self.channels_last else (1, 3, 1, 1)
            mean, std = (np.array(v, np.float32).reshape(axes) for v in (p.mean, p.std))
            x = (x * np.float32(1 / p.divisor) - mean) / std
        return np.ascontiguousarray(x, dtype=self.dtype)


def open_session(path: Path, settings: ModelSettings) -> Any:
    """An onnxruntime session on the device that the settings ask for."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    # onnxruntime takes every core unless told, also of those beyond a container's quota; the scheduler's share arrives
    # as OMP_NUM_THREADS.
    options.intra_op_num_threads = settings.threads or int(os.environ.get("OMP_NUM_THREADS") or cpu_count())
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers = _providers(settings.device)
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as e:  # onnxruntime's exceptions share no base class
        raise ConfigError(f"The model {path} cannot be opened by onnxruntime: {' '.join(str(e).split())[:300]}") from e
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


def _input_size(values: Mapping[str, Any], origin: Path) -> tuple[int, int]:
    """Height and width as the graph fixes them; asked for only where the description does not say."""
    path = origin.parent / str(values.get("weights", ""))
    if not path.is_file():
        raise ConfigError(f"{origin}: grid.size needs height and width (the graph is not here to be asked).")
    found = GraphInput(open_session(path, ModelSettings(device="cpu", threads=1)).get_inputs()[0], path)
    if found.height is None or found.width is None:
        raise ConfigError(f"{origin}: grid.size needs height and width, as the graph takes any.")
    return found.height, found.width


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
