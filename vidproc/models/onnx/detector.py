"""A detection graph in onnxruntime."""

from __future__ import annotations

import re

import numpy as np

from vidproc.annotations import Detections
from vidproc.errors import ConfigError, TransientError, VidprocError
from vidproc.models.base import ModelCard
from vidproc.models.onnx.checks import check
from vidproc.models.onnx.decoding import YOLOX_NMS_IOU, Found, corners, rows, suppress, yolox_candidates, yolox_cells
from vidproc.models.onnx.files import read
from vidproc.models.onnx.input import example_size
from vidproc.models.onnx.output import output_names
from vidproc.models.onnx.session import open_session
from vidproc.models.recipe import Recipe, card_of
from vidproc.models.settings import ModelSettings
from vidproc.models.weights import Weights

_REQUESTED = re.compile(r"requested buffer of size (\d+)")
_ABSURD_BYTES = 1 << 36
"""A graph that asks for a buffer of more than 64 GiB for one frame is damaged: trying again is no use."""


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
        self._outputs = output_names(recipe, [o.name for o in self._session.get_outputs()])
        index = np.array(recipe.outputs_of_labels or range(len(recipe.labels)), np.int64)
        self._class_of_output = np.full(index.max() + 1, -1, np.int64)
        self._class_of_output[index] = np.arange(len(index))
        self._try_out()

    def _try_out(self) -> None:
        """One pass over a grey frame: what fails on any frame is the model's fault, and is told before work starts."""
        height, width = example_size(self._recipe.grid.size)
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
                parts.append(rows(start + i, *found))
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
                xyxy = corners(xyxy)
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
