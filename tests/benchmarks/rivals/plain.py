"""The script a user would write: one process, PyAV and onnxruntime, rows to Parquet. Written with care: the
decoder uses all cores, only sampled frames are converted, and scaling happens in the codec library."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq
from av.video.reformatter import Interpolation

from tests.benchmarks.rivals.common import Detector, arguments, report


def main() -> None:
    o = arguments()
    detector = Detector(o.model, o.threads, o.height, o.width)
    h, w = o.scaled
    frames = rows = 0
    o.out.mkdir(parents=True)
    for path in sorted(o.videos.iterdir()):
        found: list[dict[str, Any]] = []
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            k, shown, start = 0, None, None

            def sample(frame: Any, path: str, k: int) -> list[dict[str, Any]]:
                rgb = frame.reformat(width=w, height=h, format="rgb24", interpolation=Interpolation.BILINEAR)
                (boxes,) = detector.detect(rgb.to_ndarray()[None])
                return [{"path": path, "time_s": k / o.fps, **box} for box in boxes]

            for frame in container.decode(stream):
                start = frame.pts if start is None else start
                time = Fraction(frame.pts - start) * stream.time_base
                while shown is not None and time > Fraction(k, o.fps):
                    found += sample(shown, str(path), k)
                    k += 1
                shown = frame
            # The last frame stays on screen for its own length.
            if shown is not None:
                end = Fraction(shown.pts - start + (shown.duration or 0)) * stream.time_base
                while Fraction(k, o.fps) < end:
                    found += sample(shown, str(path), k)
                    k += 1
            frames += k
        if found:
            pq.write_table(pa.Table.from_pylist(found), o.out / f"{path.stem}.parquet", compression="zstd")
        rows += len(found)
    report(frames=frames, rows=rows)


if __name__ == "__main__":
    main()
