"""Heat drawn over frames, as pictures and as a small video."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np


def overlay(frames: np.ndarray, heat: np.ndarray, boxes: np.ndarray | None = None) -> np.ndarray:
    """Frames uint8 (t, h, w, 3) and heat float (t, h, w) from 0 to 1 -> frames with the heat in colour over a
    dimmed picture, and boxes (n, 4) as white frames."""
    from matplotlib import colormaps

    colour = colormaps["inferno"](heat)[..., :3] * 255
    share = (0.25 + 0.6 * heat)[..., None]
    out: np.ndarray = (frames * (1 - share) + colour * share).clip(0, 255).astype(np.uint8)
    for x0, y0, x1, y1 in np.asarray(boxes if boxes is not None else np.zeros((0, 4))).round().astype(int):
        h, w = out.shape[1:3]
        left, right, top, bottom = max(x0, 0), min(x1, w - 1), max(y0, 0), min(y1, h - 1)
        out[:, top : bottom + 1, [left, right]] = 255
        out[:, [top, bottom], left : right + 1] = 255
    return out


def png(image: np.ndarray) -> bytes:
    """uint8 (h, w, 3) RGB."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, format="PNG")
    return out.getvalue()


def enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames (t, h, w, 3) doubled in size until a person can see them."""
    while min(frames.shape[1:3]) < 160:
        frames = frames.repeat(2, 1).repeat(2, 2)
    return frames


def write_mp4(frames: np.ndarray, fps: float, *, seconds_each: float = 0.1) -> bytes:
    """uint8 (t, h, w, 3) RGB -> H.264 MP4, small frames enlarged, each shown for at least `seconds_each`."""
    import av

    frames = enlarged(frames)
    h, w = frames.shape[1:3]
    frames = frames[:, : h - h % 2, : w - w % 2]  # 4:2:0 wants even sides
    out = io.BytesIO()
    rate = Fraction(min(fps, 1 / seconds_each)).limit_denominator(1000)
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return out.getvalue()
