"""Resize frames that a caller has in memory as the decoder resizes those of a video."""

from __future__ import annotations

import numpy as np

from vidproc.media import FrameSize, Geometry
from vidproc.video.pictures import Layout


def fitted(frames: np.ndarray, size: FrameSize) -> tuple[np.ndarray, Geometry]:
    """Return upright frames as a model wants them, and the way back to the pixels of the given ones.

    frames: uint8 (n, height, width, 3) RGB.
    """
    from av import VideoFrame
    from av.video.reformatter import Interpolation, VideoReformatter

    height, width = frames.shape[1:3]
    layout = Layout.of(size, width, height)
    if (layout.height, layout.width) == (layout.scaled_height, layout.scaled_width) == (height, width):
        return np.ascontiguousarray(frames), layout.geometry
    scaler, interpolation = VideoReformatter(), Interpolation[size.interpolation.upper()]
    out = np.full((len(frames), layout.height, layout.width, 3), layout.fill, np.uint8)
    top, left = max(layout.top, 0), max(layout.left, 0)
    for i, pixels in enumerate(frames):
        frame = scaler.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"),
            width=layout.scaled_width, height=layout.scaled_height, format="rgb24", interpolation=interpolation,
        )  # fmt: skip
        picture = frame.to_ndarray()[max(-layout.top, 0) :, max(-layout.left, 0) :]
        picture = picture[: layout.height - top, : layout.width - left]
        out[i, top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return out, layout.geometry
