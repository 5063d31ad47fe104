"""Heat drawn over frames, as a picture and as a small video, each with a line that says what is explained."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from vidproc.text import printable

LINE, BAR = 24, 14
"""Pixels: of a line of text, and of the strip that shows when the heat is."""
GROUND, INK, FAINT, HOT = (20, 23, 29), (236, 238, 242), (120, 128, 140), (255, 170, 60)


def overlay(frames: np.ndarray, heat: np.ndarray, boxes: np.ndarray | None = None) -> np.ndarray:
    """Frames uint8 (t, h, w, 3) and heat float (t, h, w) from 0 to 1 -> frames with the heat in colour over
    them, untouched where there is none, and boxes (n, 4) as white frames."""
    from matplotlib import colormaps

    colour = colormaps["inferno"](heat)[..., :3] * 255
    share = (0.85 * heat)[..., None]
    out: np.ndarray = (frames * (1 - share) + colour * share).clip(0, 255).astype(np.uint8)
    for x0, y0, x1, y1 in np.asarray(boxes if boxes is not None else np.zeros((0, 4))).round().astype(int):
        h, w = out.shape[1:3]
        left, right, top, bottom = max(x0, 0), min(x1, w - 1), max(y0, 0), min(y1, h - 1)
        out[:, top : bottom + 1, [left, right]] = 255
        out[:, [top, bottom], left : right + 1] = 255
    return out


def picture(frames: np.ndarray, drawn: np.ndarray, heat: np.ndarray, times: Sequence[float], said: str) -> bytes:
    """A PNG: frames uint8 (t, h, w, 3) above the same with heat, at up to four moments of which one is the hottest,
    and below the heat over the whole window. A single frame has its heat beside it."""
    from PIL import Image, ImageDraw

    hottest = int(heat.reshape(len(heat), -1).max(1).argmax())
    shown = sorted({*np.linspace(0, len(frames) - 1, min(4, len(frames))).astype(int).tolist()})
    shown = sorted({hottest, *sorted(shown, key=lambda k: abs(k - hottest))[1:]})
    plain, hot = enlarged(frames[shown]), enlarged(drawn[shown])
    if len(frames) == 1:
        body = np.concatenate([plain[0], hot[0]], 1)
        said = f"{said}, at {times[0]:.2f} s"
    else:
        body = np.concatenate([np.concatenate([*row], 1) for row in (plain, hot)])
    h, w = body.shape[:2]
    sheet = Image.new("RGB", (w, h + LINE + (LINE + BAR * 3 if len(frames) > 1 else 0)), GROUND)
    sheet.paste(Image.fromarray(body))
    draw, font = ImageDraw.Draw(sheet), _font()
    for column, k in enumerate(shown if len(frames) > 1 else ()):
        at = (column * plain.shape[2] + 8, h + 4)
        draw.text(at, f"{times[k]:.2f} s", fill=HOT if k == hottest else FAINT, font=font)
    if len(frames) > 1:
        _bars(draw, heat, (8, h + LINE, w - 8, h + LINE + BAR * 3 - 4), {hottest})
    draw.text((8, sheet.height - LINE), said, fill=INK, font=font)
    out = io.BytesIO()
    sheet.save(out, format="PNG")
    return out.getvalue()


def captioned(drawn: np.ndarray, heat: np.ndarray, times: Sequence[float], said: str) -> np.ndarray:
    """Frames with heat uint8 (t, h, w, 3), large enough to be seen, above what is explained, the time, and a strip
    of the heat over the window that marks the frame: uint8 (t, h', w', 3)."""
    from PIL import Image, ImageDraw

    large, font, out = enlarged(drawn), _font(), []
    said = printable(said)
    h, w = large.shape[1:3]
    for k, frame in enumerate(large):
        sheet = Image.new("RGB", (w, h + 2 * LINE + (BAR if len(large) > 1 else 0)), GROUND)
        sheet.paste(Image.fromarray(frame))
        draw = ImageDraw.Draw(sheet)
        if len(large) > 1:
            _bars(draw, heat, (8, h + 4, w - 8, h + BAR), {k})
        draw.text((8, sheet.height - 2 * LINE + 2), said, fill=INK, font=font)
        draw.text((8, sheet.height - LINE), f"{times[k]:.2f} s", fill=FAINT, font=font)
        out.append(np.asarray(sheet))
    return np.stack(out)


def _bars(draw: Any, heat: np.ndarray, box: tuple[int, int, int, int], marked: set[int]) -> None:
    """One bar a frame, as high as its hottest place."""
    left, top, right, bottom = box
    highest = heat.reshape(len(heat), -1).max(1)
    edges = np.linspace(left, right, len(heat) + 1)
    for k, value in enumerate(highest):
        y = bottom - max(1, round(float(value) * (bottom - top)))
        draw.rectangle((edges[k] + 1, y, edges[k + 1] - 2, bottom), fill=HOT if k in marked else FAINT)


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(15)


def enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames (t, h, w, 3) doubled in size until a person can see them."""
    from PIL import Image

    h, w = frames.shape[1:3]
    times = 1
    while min(h, w) * times < 160:
        times *= 2
    if times == 1:
        return frames
    size = (w * times, h * times)
    return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in frames])


def write_mp4(frames: np.ndarray, fps: float, *, seconds_each: float = 0.25, seconds: float = 4.0) -> bytes:
    """uint8 (t, h, w, 3) RGB -> H.264 MP4, small frames enlarged; each is shown for at least `seconds_each`, and all
    again and again until `seconds` are over: a window is too short to be understood at its own speed."""
    import av

    frames = enlarged(frames)
    h, w = frames.shape[1:3]
    frames = frames[:, : h - h % 2, : w - w % 2]  # 4:2:0 wants even sides
    out = io.BytesIO()
    rate = Fraction(min(fps, 1 / seconds_each)).limit_denominator(1000)
    rounds = max(1, round(seconds * float(rate) / len(frames)))
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for _ in range(rounds):
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return out.getvalue()
