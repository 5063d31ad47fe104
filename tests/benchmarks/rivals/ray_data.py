"""The same by Ray Data: `read_videos` samples and scales while it decodes (decord), a pool of actors holds the
model, rows to Parquet."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from tests.benchmarks.rivals.common import Detector, arguments, report


class Detect:
    def __init__(self, *args: Any) -> None:
        self.detector = Detector(*args)

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        found = self.detector.detect(np.stack(list(batch["frame"])))
        seconds = np.stack(list(batch["frame_timestamp"]))[:, 0]
        return pa.table(
            {
                "path": pa.array(batch["path"].tolist(), pa.string()),
                "frame_index": pa.array(batch["frame_index"].tolist(), pa.int64()),
                "time_s": pa.array(seconds.tolist(), pa.float64()),
                "boxes": pa.array(
                    found,
                    pa.list_(
                        pa.struct(
                            [("class_id", pa.int64())]
                            + [(n, pa.float64()) for n in ("score", "x_min", "y_min", "x_max", "y_max")]
                        )
                    ),
                ),
            }
        )


def main() -> None:
    o = arguments()
    ray.init(num_cpus=o.cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    paths = sorted(str(p) for p in o.videos.iterdir())
    frames = ray.data.read_videos(
        paths,
        fps=o.fps,
        resize=o.scaled,
        include_paths=True,
        include_timestamps=True,
        override_num_blocks=len(paths),
    )
    found = frames.map_batches(
        Detect,
        fn_constructor_args=(o.model, o.threads, o.height, o.width),
        batch_size=o.batch,
        compute=ray.data.ActorPoolStrategy(size=o.workers),
        num_cpus=1,
        batch_format="numpy",
    )
    found.write_parquet(str(o.out))
    written = pq.read_table(o.out)
    rows = sum(len(boxes) for boxes in written["boxes"].to_pylist())
    report(frames=len(written), rows=rows)
    ray.shutdown()


if __name__ == "__main__":
    main()
