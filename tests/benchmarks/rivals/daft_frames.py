"""The same by Daft: `read_video_frames` samples and scales while it decodes (PyAV), a class UDF holds the
model, rows to Parquet."""

from __future__ import annotations

import os

os.environ.setdefault("DAFT_PROGRESS_BAR", "0")

import daft
import numpy as np
import pyarrow.parquet as pq
from daft import DataType, Series

from tests.benchmarks.rivals.common import Detector, arguments, report

BOXES = DataType.list(
    DataType.struct(
        {
            "class_id": DataType.int64(),
            **{n: DataType.float64() for n in ("score", "x_min", "y_min", "x_max", "y_max")},
        }
    )
)


def main() -> None:
    o = arguments()

    @daft.cls(max_concurrency=o.workers, use_process=o.workers > 1)
    class Detect:
        def __init__(self, model: str, threads: int, height: int, width: int) -> None:
            self.detector = Detector(model, threads, height, width)

        @daft.method.batch(return_dtype=BOXES, batch_size=o.batch)
        def boxes(self, frames: Series) -> list:
            pixels = frames.to_arrow()
            h, w = o.scaled
            flat = np.asarray(pixels.storage.flatten() if hasattr(pixels, "storage") else pixels.flatten())
            return self.detector.detect(flat.reshape(-1, h, w, 3))

    detect = Detect(o.model, o.threads, o.height, o.width)
    h, w = o.scaled
    frames = daft.read_video_frames(
        sorted(str(p) for p in o.videos.iterdir()), image_height=h, image_width=w, sample_interval_seconds=1 / o.fps
    )
    found = frames.select(
        frames["path"],
        frames["frame_index"],
        frames["frame_time"].alias("time_s"),
        detect.boxes(frames["data"]).alias("boxes"),
    )
    found.write_parquet(str(o.out))
    written = pq.read_table(o.out)
    report(frames=len(written), rows=sum(len(boxes) for boxes in written["boxes"].to_pylist()))


if __name__ == "__main__":
    main()
