"""Boxes and labels of a lake's rows, drawn into the frames of a clip."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zlib import crc32

from vidproc.text import printable

if TYPE_CHECKING:
    from av import VideoFrame

    from vidproc.ask import LakeDatabase

COLOURS = ((255, 99, 72), (46, 204, 113), (52, 152, 219), (241, 196, 15), (155, 89, 182), (26, 188, 156))
LONGEST_GAP_S = 2.0
"""Between two samples of a detector; where it saw nothing for longer, nothing is drawn."""

KNOWN_MATRICES = (1, 4, 5, 6, 7)
"""Colour matrices, as FFmpeg numbers them, that the scaler converts from and to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxSeen:
    """One row of detections. Pixels of the upright frame, seconds on the video's clock."""

    time_s: float
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    label: str
    score: float
    track_id: int | None


def boxes_between(lake: LakeDatabase, video_id: str, start_s: float, end_s: float) -> tuple[BoxSeen, ...]:
    """Return the detections of a stretch, and those just before it that are still on screen, in order of time."""
    columns = "time_s, x_min, y_min, x_max, y_max, label, score, track_id"
    sql = (
        f"SELECT {columns} FROM detections WHERE video_id = ? AND time_s > ? AND time_s < ? "
        "ORDER BY time_s, label, track_id, x_min, y_min, score"
    )
    found = lake.sql(sql, [video_id, start_s - LONGEST_GAP_S, end_s + LONGEST_GAP_S]).read_all().to_pylist()
    return tuple(BoxSeen(**row) for row in found)


class Painter:
    """Draws what was seen at a moment: each sample until the next one, and along a track in between."""

    def __init__(self, boxes: Sequence[BoxSeen]) -> None:
        self._by_time: dict[float, list[BoxSeen]] = {}
        for box in boxes:
            self._by_time.setdefault(box.time_s, []).append(box)
        self._times = sorted(self._by_time)
        self._gap_s = min((b - a for a, b in pairwise(self._times)), default=1.0)
        self._font: Any = None

    def at(self, time_s: float) -> list[BoxSeen]:
        """Return the boxes to draw at a moment."""
        place = bisect_right(self._times, time_s + 1e-6) - 1
        if place < 0 or time_s - self._times[place] > min(self._gap_s * 1.01, LONGEST_GAP_S):
            return []
        now, seen = self._times[place], self._by_time[self._times[place]]
        following = self._times[place + 1] if place + 1 < len(self._times) else None
        if following is None or following - now > self._gap_s * 1.01:
            return seen
        share = (time_s - now) / (following - now)
        later = {b.track_id: b for b in self._by_time[following] if b.track_id is not None}
        sides = ("x_min", "y_min", "x_max", "y_max")
        return [
            replace(box, **{s: (1 - share) * getattr(box, s) + share * getattr(later[box.track_id], s) for s in sides})
            if box.track_id in later
            else box
            for box in seen
        ]

    def __call__(self, time_s: float, frame: VideoFrame) -> VideoFrame:
        boxes = self.at(time_s)
        if not boxes:
            return frame
        from av import VideoFrame
        from PIL import Image, ImageDraw

        matrix = int(frame.colorspace) if int(frame.colorspace) in KNOWN_MATRICES else 5
        wide = int(frame.color_range) if int(frame.color_range) in (1, 2) else 1
        rgb: Any = frame.reformat(format="rgb24", src_colorspace=matrix, src_color_range=wide, dst_color_range=2)
        image = Image.fromarray(rgb.to_ndarray())
        draw = ImageDraw.Draw(image)
        for box in boxes:
            self._draw(draw, box, image.size)
        import numpy as np

        back: Any = VideoFrame.from_ndarray(np.asarray(image), "rgb24")
        back = back.reformat(format="yuv420p", dst_colorspace=matrix, src_color_range=2, dst_color_range=wide)
        for each in ("color_range", "color_primaries", "color_trc", "colorspace"):
            setattr(back, each, getattr(frame, each))
        return back  # type: ignore[no-any-return]

    def _draw(self, draw: Any, box: BoxSeen, size: tuple[int, int]) -> None:
        from PIL import ImageFont

        height = max(10, min(size) // 36)
        self._font = self._font or ImageFont.load_default(height)
        colour, wide = COLOURS[crc32(box.label.encode()) % len(COLOURS)], max(1, min(size) // 240)
        left, top = max(0.0, box.x_min), max(0.0, box.y_min)
        right, bottom = min(size[0] - 1.0, box.x_max), min(size[1] - 1.0, box.y_max)
        if right <= left or bottom <= top:
            return
        draw.rectangle((left, top, right, bottom), outline=colour, width=wide)
        number = "" if box.track_id is None else f" {box.track_id}"
        text = printable(f"{box.label}{number} {box.score:.2f}")
        x0, y0, x1, y1 = draw.textbbox((left, max(0.0, top - height * 1.4)), text, font=self._font)
        draw.rectangle((x0 - 2, y0 - 1, x1 + 2, y1 + 1), fill=colour)
        draw.text((left, max(0.0, top - height * 1.4)), text, fill=(0, 0, 0), font=self._font)
