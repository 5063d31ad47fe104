"""A contact sheet: frames with what was found in them, on one picture that a person likes to look at."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidproc.text import printable

_GROUND: Final = (20, 23, 29)
_CARD: Final = (31, 35, 43)
_INK: Final = (236, 238, 242)
_FAINT: Final = (148, 156, 170)
_ACCENT: Final = (255, 196, 84)


@dataclass(frozen=True, slots=True)
class SheetBox:
    label: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    """Pixels of the frame."""
    track_id: int | None = None
    """Gives the colour; None is drawn grey."""


@dataclass(frozen=True, slots=True, eq=False)
class SheetItem:
    """One frame of the sheet."""

    pixels: np.ndarray
    """uint8 (h, w, 3) RGB, any size."""
    title: str
    """Left below the frame: which video."""
    detail: str = ""
    """Right below the frame: when."""
    badge: str = ""
    """In the frame's corner: the action, where there is one."""
    boxes: tuple[SheetBox, ...] = ()


def contact_sheet(
    items: Sequence[SheetItem],
    *,
    heading: str = "",
    figures: Sequence[tuple[str, str]] = (),
    columns: int = 4,
    tile_width: int = 384,
) -> bytes:
    """PNG of a grid of frames with boxes, numbers of tracks and captions.

    `figures` are (name, value) pairs, shown large beside the heading. Raises ValueError without items.
    """
    if not items:
        raise ValueError("a contact sheet needs at least one frame")
    columns = min(columns, len(items))
    gap, edge, caption = 18, 36, 38
    tile_height = max(round(tile_width * i.pixels.shape[0] / i.pixels.shape[1]) for i in items)
    top = edge + (78 if heading or figures else 0)
    rows = -(-len(items) // columns)
    width = 2 * edge + columns * tile_width + (columns - 1) * gap
    height = top + rows * (tile_height + caption) + (rows - 1) * gap + edge
    sheet = Image.new("RGB", (width, height), _GROUND)
    _head(sheet, edge, heading, figures)
    for i, item in enumerate(items):
        x = edge + (i % columns) * (tile_width + gap)
        y = top + (i // columns) * (tile_height + caption + gap)
        sheet.paste(*_tile(item, tile_width, tile_height, caption, (x, y)))
    out = BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()


def track_colour(track_id: int | None) -> tuple[int, int, int]:
    """Neighbouring numbers get colours far apart: steps of the golden angle round the colour circle."""
    if track_id is None:
        return (190, 196, 204)
    r, g, b = colorsys.hsv_to_rgb((0.08 + track_id * 0.61803398875) % 1.0, 0.62 if track_id % 2 else 0.78, 1.0)
    return int(r * 255), int(g * 255), int(b * 255)


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _head(sheet: Image.Image, edge: int, heading: str, figures: Sequence[tuple[str, str]]) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((edge, edge - 4), heading, _INK, _font(30))
    x = float(sheet.width - edge)
    for name, value in reversed(figures):
        wide = max(draw.textlength(value, _font(28)), draw.textlength(name, _font(14)))
        x -= wide
        draw.text((x, edge - 8), value, _ACCENT, _font(28))
        draw.text((x, edge + 28), name, _FAINT, _font(14))
        x -= 34


def _tile(
    item: SheetItem, width: int, height: int, caption: int, at: tuple[int, int]
) -> tuple[Image.Image, tuple[int, int], Image.Image]:
    """The card of one frame, its place, and the mask of its round corners."""
    scale = width / item.pixels.shape[1]
    card = Image.new("RGB", (width, height + caption), _CARD)
    frame = Image.fromarray(item.pixels)
    tall = round(item.pixels.shape[0] * scale)
    card.paste(frame.resize((width, tall), Image.Resampling.LANCZOS), (0, (height - tall) // 2))
    card = _with_boxes(card, item.boxes, scale, (height - tall) // 2, height)
    draw = ImageDraw.Draw(card)
    if item.badge:
        wide = draw.textlength(item.badge, _font(17))
        draw.rounded_rectangle((10, 10, 30 + wide, 38), 14, _ACCENT)
        draw.text((20, 24), item.badge, (40, 30, 8), _font(17), anchor="lm")
    middle = height + caption / 2
    room = width - 36 - draw.textlength(item.detail, _font(15))
    draw.text((12, middle), _shortened(draw, item.title, room), _INK, _font(15), anchor="lm")
    draw.text((width - 12, middle), item.detail, _FAINT, _font(15), anchor="rm")
    mask = Image.new("L", (card.width * 4, card.height * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), 40, 255)
    return card, at, mask.resize(card.size, Image.Resampling.LANCZOS)


def _with_boxes(card: Image.Image, boxes: Sequence[SheetBox], scale: float, top: int, bottom: int) -> Image.Image:
    """Boxes drawn at four times the size and brought down, so that their round corners are smooth."""
    fine = 4
    layer = Image.new("RGBA", (card.width * fine, bottom * fine), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    places = []
    # Large ones first: the small ones' lines stay whole.
    for b in sorted(boxes, key=lambda b: -(b.x_max - b.x_min) * (b.y_max - b.y_min)):
        x0, x1 = b.x_min * scale, max(b.x_max * scale, b.x_min * scale + 3)
        y0, y1 = b.y_min * scale + top, max(b.y_max * scale, b.y_min * scale + 3) + top
        colour = track_colour(b.track_id)
        around = [v * fine for v in (x0 - 1, y0 - 1, x1 + 1, y1 + 1)]
        draw.rounded_rectangle(around, 5 * fine, (*colour, 26), (16, 18, 22, 150), round(3.2 * fine))
        inner = [around[0] + 0.6 * fine, around[1] + 0.6 * fine, around[2] - 0.6 * fine, around[3] - 0.6 * fine]
        draw.rounded_rectangle(inner, 4.5 * fine, None, (*colour, 255), 2 * fine)
        places.append((b, x0, y0, y1, colour))
    over = layer.resize((card.width, bottom), Image.Resampling.LANCZOS)
    out = card.convert("RGBA")
    out.alpha_composite(over)
    card = out.convert("RGB")
    draw, font = ImageDraw.Draw(card), _font(12)
    taken: list[tuple[float, float, float, float]] = []
    for b, x0, y0, y1, colour in reversed(places):
        label = printable(b.label)
        text = label if b.track_id is None else f"{label} {b.track_id}"
        wide = draw.textlength(text, font) + 10
        x = min(max(x0 - 1, 2.0), card.width - wide - 2)
        # Above the box; below it where another label already is or the frame ends.
        for y in (y0 - 17, y1 + 2, y0 + 2, y0 - 33):
            free = all(x + wide <= p or q <= x or y + 15 <= r or s <= y for p, r, q, s in taken)
            if 2 <= y <= bottom - 17 and free:
                break
        else:
            y = min(max(y0 - 17, 2.0), bottom - 17.0)
        taken.append((x, y, x + wide, y + 15))
        draw.rounded_rectangle((x, y, x + wide, y + 15), 4, colour)
        draw.text((x + 5, y + 7.5), text, (22, 24, 28), font, anchor="lm")
    return card


def _shortened(draw: ImageDraw.ImageDraw, text: str, room: float) -> str:
    """The end of a name says more than its beginning."""
    if draw.textlength(text, _font(15)) <= room:
        return text
    while text and draw.textlength("…" + text, _font(15)) > room:
        text = text[1:]
    return "…" + text
