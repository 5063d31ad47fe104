"""What every rival's script shares: the same detector class as vidproc's, with its own pre- and
post-processing, and rows in the same columns. Runs in the rivals' environment too."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 416
FILL = 114
"""YOLOX's letterbox: the frame at the top left, grey below."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fps", type=int, default=2)
    parser.add_argument("--height", type=int, default=720, help="of the videos")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--workers", type=int, default=1, help="model workers")
    parser.add_argument("--cpus", type=int, default=2, help="that the engine is told of")
    parser.add_argument("--batch", type=int, default=16, help="frames a call of the model")
    parser.add_argument("--threads", type=int, default=1, help="of one model")
    options = parser.parse_args()
    ratio = min(SIDE / options.height, SIDE / options.width)
    options.scaled = (int(options.height * ratio), int(options.width * ratio))
    return options


class Detector:
    """Frames scaled to fit -> rows, boxes in pixels of the video."""

    def __init__(self, model: str, threads: int, height: int, width: int) -> None:
        from vidproc.models import ModelSettings, load_model

        self.height, self.width = height, width
        self.model: Any = load_model(model, device="cpu", settings=ModelSettings(kind="detector", threads=threads))

    def detect(self, frames: np.ndarray) -> list[list[dict[str, float]]]:
        """uint8 (n, h, w, 3) RGB, h and w as `scaled` -> the boxes of each frame."""
        n, h, w = frames.shape[:3]
        padded = np.full((n, SIDE, SIDE, 3), FILL, np.uint8)
        padded[:, :h, :w] = frames
        found = self.model.detect(padded)
        boxes = found.boxes.astype(np.float64)
        boxes[:, 0::2] = np.clip(boxes[:, 0::2] * self.width / w, 0, self.width)
        boxes[:, 1::2] = np.clip(boxes[:, 1::2] * self.height / h, 0, self.height)
        out: list[list[dict[str, float]]] = [[] for _ in range(n)]
        for frame, box, score, class_id in zip(
            found.frame.tolist(), boxes.tolist(), found.score.tolist(), found.class_id.tolist(), strict=True
        ):
            out[frame].append(
                {
                    "class_id": class_id,
                    "score": score,
                    "x_min": box[0],
                    "y_min": box[1],
                    "x_max": box[2],
                    "y_max": box[3],
                }
            )
        return out


def report(**values: Any) -> None:
    print(json.dumps(values))
