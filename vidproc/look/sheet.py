"""A contact sheet: frames with what was found in them, on one picture that a person likes to look at."""

from __future__ import annotations

import colorsys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidproc.text import printable

_GROUND: Final = (20, 23, 29)
_CARD: Final = (31, 35, 43)
_INK: Final = (236, 238, 242)
_FAINT: Final = (148, 156, 170)
_ACCENT: Final = (255, 196, 84)
_GREY: Final = (74, 78, 86)

Format = Literal["PNG", "JPEG"]

MAX_CHARACTERS = 400
"""Of a text that is drawn: more would not fit, and names from outside have no end."""

MAX_SHEET_PIXELS = 200_000_000
"""Of one sheet: 4 times what a JPEG viewer on a phone opens, and less than a gigabyte while it is drawn."""


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
    score: float | None = None

    @property
    def text(self) -> str:
        track = "" if self.track_id is None else f" {self.track_id}"
        return printable(f"{self.label}{track}" + ("" if self.score is None else f" · {self.score:.2f}"))


@dataclass(frozen=True, slots=True, eq=False)
class SheetItem:
    """One frame of the sheet."""

    pixels: np.ndarray | None
    """uint8 (h, w, 3) RGB, any size. None: a grey tile that says `reason`."""
    title: str
    """Left below the frame: which video."""
    detail: str = ""
    """Right below the frame: when."""
    badge: str = ""
    """In the frame's corner: the action, where there is one."""
    boxes: tuple[SheetBox, ...] = ()
    """In pixels of a frame `width` wide."""
    width: int | None = None
    """None: as wide as `pixels`."""
    reason: str = ""
    """Why there is no frame."""

    @property
    def aspect(self) -> float:
        """Height over width."""
        return 9 / 16 if self.pixels is None else self.pixels.shape[0] / self.pixels.shape[1]


def contact_sheet(
    items: Sequence[SheetItem],
    *,
    heading: str = "",
    figures: Sequence[tuple[str, str]] = (),
    columns: int = 4,
    tile_width: int = 384,
    format: Format = "PNG",
) -> bytes:
    """Return a picture of a grid of frames with boxes, numbers of tracks and captions.

    `figures` are (name, value) pairs, shown large beside the heading. Raises ValueError without items, or with more
    than fit into MAX_SHEET_PIXELS.
    """
    if not items:
        raise ValueError("a contact sheet needs at least one frame")
    columns = min(columns, len(items))
    gap, edge = 18, 36
    caption = 38 if all(_fits_one_line(item, tile_width) for item in items) else 58
    # A film from a phone held upright stands in its tile, and does not stretch all others.
    tile_height = max(round(tile_width * min(i.aspect, 4 / 3)) for i in items)
    top = edge + (78 if heading or figures else 0)
    rows = -(-len(items) // columns)
    width = 2 * edge + columns * tile_width + (columns - 1) * gap
    height = top + rows * (tile_height + caption) + (rows - 1) * gap + edge
    if width * height > MAX_SHEET_PIXELS:
        raise ValueError(f"{len(items)} frames are too many for one sheet")
    sheet = Image.new("RGB", (width, height), _GROUND)
    _head(sheet, edge, heading, figures)
    for i, item in enumerate(items):
        x = edge + (i % columns) * (tile_width + gap)
        y = top + (i // columns) * (tile_height + caption + gap)
        sheet.paste(*_tile(item, tile_width, tile_height, caption, (x, y)))
    return encoded(sheet, format)


def encoded(image: Image.Image, format: Format, *, quality: int = 88) -> bytes:
    """Return the file's bytes. They depend on the picture alone: no date, no metadata."""
    out = BytesIO()
    if format == "PNG":
        image.save(out, "PNG")
    else:
        image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def tile(item: SheetItem, *, width: int, format: Format = "JPEG", quality: int = 88) -> bytes:
    """Return one frame with its boxes and no caption, `width` pixels wide."""
    height = max(1, round(width * item.aspect))
    return encoded(_pictured(item, width, height, max(1.0, width / 300)), format, quality=quality)


def captioned(item: SheetItem, format: Format = "JPEG") -> bytes:
    """Return one frame as large as it is, with its boxes, above a line that says what it is."""
    width = 640 if item.pixels is None else max(item.pixels.shape[1], 320)
    height, unit = max(1, round(width * item.aspect)), max(1.0, width / 640)
    caption = round((38 if _fits_one_line(item, width, unit) else 58) * unit)
    card = Image.new("RGB", (width, height + caption), _CARD)
    card.paste(_pictured(item, width, height, unit))
    _caption(card, item, height, unit)
    return encoded(card, format, quality=92)


def track_colour(track_id: int | None) -> tuple[int, int, int]:
    """Neighbouring numbers get colours far apart: steps of the golden angle round the colour circle."""
    if track_id is None:
        return (190, 196, 204)
    r, g, b = colorsys.hsv_to_rgb((0.08 + track_id * 0.61803398875) % 1.0, 0.62 if track_id % 2 else 0.78, 1.0)
    return int(r * 255), int(g * 255), int(b * 255)


@lru_cache(maxsize=32)
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
    card = Image.new("RGB", (width, height + caption), _CARD)
    card.paste(_pictured(item, width, height))
    _caption(card, item, height, 1.0)
    return card, at, _round_corners(card.width, card.height)


@lru_cache(maxsize=4)
def _round_corners(width: int, height: int) -> Image.Image:
    mask = Image.new("L", (width * 4, height * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), 40, 255)
    return mask.resize((width, height), Image.Resampling.LANCZOS)


def _fits_one_line(item: SheetItem, width: int, unit: float = 1.0) -> bool:
    draw, font = ImageDraw.Draw(Image.new("L", (1, 1))), _font(15 * unit)
    long = draw.textlength(printable(item.title)[-200:], font) + draw.textlength(printable(item.detail)[-200:], font)
    return long <= width - 36 * unit


def _caption(card: Image.Image, item: SheetItem, below: int, unit: float) -> None:
    """Title and detail in what is left of the card: on one line, or on two where there is room."""
    draw, font, edge = ImageDraw.Draw(card), _font(15 * unit), 12 * unit
    middle = (below + card.height) / 2
    title, detail = printable(item.title), printable(item.detail)
    if card.height - below > 50 * unit:
        title = _shortened(draw, title, card.width - 2 * edge, font)
        draw.text((edge, middle - 10 * unit), title, _INK, font, anchor="lm")
        draw.text((edge, middle + 11 * unit), detail, _FAINT, _font(13 * unit), anchor="lm")
        return
    room = card.width - 3 * edge - draw.textlength(detail, font)
    draw.text((edge, middle), _shortened(draw, title, room, font), _INK, font, anchor="lm")
    draw.text((card.width - edge, middle), detail, _FAINT, font, anchor="rm")


def _pictured(item: SheetItem, width: int, height: int, unit: float = 1.0) -> Image.Image:
    """The frame in width x height with its boxes and badge; or the grey tile that says why there is none. `unit`:
    by how much lines and letters are larger than on a tile."""
    if item.pixels is None:
        return _grey(item, width, height)
    scale = min(width / item.pixels.shape[1], height / item.pixels.shape[0])
    wide, tall = max(1, round(item.pixels.shape[1] * scale)), max(1, round(item.pixels.shape[0] * scale))
    left, top = (width - wide) // 2, (height - tall) // 2
    card = Image.new("RGB", (width, height), _CARD)
    frame = Image.fromarray(item.pixels)
    card.paste(
        frame if frame.size == (wide, tall) else frame.resize((wide, tall), Image.Resampling.LANCZOS), (left, top)
    )
    scale = wide / (item.width or item.pixels.shape[1])
    card = _with_boxes(card, item.boxes, scale, left, top, unit)
    if badge := printable(item.badge):
        draw, font = ImageDraw.Draw(card), _font(17 * unit)
        badge = _shortened(draw, badge, width - 50 * unit, font)
        edge = draw.textlength(badge, font)
        around = [v * unit for v in (10, 10, 30, 38)]
        draw.rounded_rectangle((around[0], around[1], around[2] + edge, around[3]), 14 * unit, _ACCENT)
        draw.text((20 * unit, 24 * unit), badge, (40, 30, 8), font, anchor="lm")
    return card


def _grey(item: SheetItem, width: int, height: int) -> Image.Image:
    """A tile that cannot be taken for a picture."""
    card = Image.new("RGB", (width, height), _GREY)
    draw, font = ImageDraw.Draw(card), _font(15)
    for x in range(-height, width, 28):
        draw.line((x, height, x + height, 0), (80, 84, 92), 9)
    words = printable(item.badge)
    draw.text((16, 26), _shortened(draw, words, width - 32, _font(17)), _INK, _font(17), anchor="lm")
    lines = _wrapped(draw, printable(item.reason), width - 32, max(1, (height - 60) // 20))
    for n, line in enumerate(lines):
        draw.text((16, 58 + 20 * n), line, (214, 218, 226), font, anchor="lm")
    return card


def _wrapped(draw: ImageDraw.ImageDraw, text: str, room: float, most: int) -> list[str]:
    """The text in lines that fit; the last one ends in dots where there is more."""
    lines = [""]
    for word in text[:MAX_CHARACTERS].split(" "):
        while word:
            joined = f"{lines[-1]} {word}" if lines[-1] else word
            if draw.textlength(joined, _font(15)) <= room:
                lines[-1], word = joined, ""
            elif lines[-1]:
                lines.append("")
            else:  # longer than a line: names of files have no spaces
                n = max(1, bisect_right(range(len(word)), room, key=lambda k: draw.textlength(word[:k], _font(15))) - 1)
                lines[-1], word = word[:n], word[n:]
                lines.append("")
    lines = [line for line in lines if line]
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1][:-3] + "..."]


def _with_boxes(
    card: Image.Image, boxes: Sequence[SheetBox], scale: float, left: int, top: int, unit: float
) -> Image.Image:
    """Boxes drawn at four times the size and brought down, so that their round corners are smooth."""
    if not boxes:
        return card
    # A large frame has pixels enough.
    fine = 4 if card.width <= 1280 else 1
    layer = Image.new("RGBA", (card.width * fine, card.height * fine), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    places = []
    # Large ones first: the small ones' lines stay whole.
    for b in sorted(boxes, key=lambda b: -(b.x_max - b.x_min) * (b.y_max - b.y_min)):
        x0, x1 = b.x_min * scale + left, max(b.x_max * scale, b.x_min * scale + 3) + left
        y0, y1 = b.y_min * scale + top, max(b.y_max * scale, b.y_min * scale + 3) + top
        colour = track_colour(b.track_id)
        around = [v * fine for v in (x0 - unit, y0 - unit, x1 + unit, y1 + unit)]
        line = unit * fine
        draw.rounded_rectangle(around, 5 * line, (*colour, 26), (16, 18, 22, 150), round(3.2 * line))
        inner = [around[0] + 0.6 * line, around[1] + 0.6 * line, around[2] - 0.6 * line, around[3] - 0.6 * line]
        draw.rounded_rectangle(inner, 4.5 * line, None, (*colour, 255), round(2 * line))
        places.append((b, x0, y0, y1, colour))
    out = card.convert("RGBA")
    out.alpha_composite(layer.resize(card.size, Image.Resampling.BOX) if fine > 1 else layer)
    card = out.convert("RGB")
    draw, font = ImageDraw.Draw(card), _font(12 * unit)
    tall = 15 * unit
    taken: list[tuple[float, float, float, float]] = []
    for b, x0, y0, y1, colour in reversed(places):
        text = _shortened(draw, b.text, card.width - 20 * unit, font)
        wide = draw.textlength(text, font) + 10 * unit
        x = min(max(x0 - unit, 2.0), card.width - wide - 2)
        # Above the box; below it where another label already is or the frame ends.
        for y in (y0 - tall - 2 * unit, y1 + 2 * unit, y0 + 2 * unit, y0 - 2 * tall - 3 * unit):
            free = all(x + wide <= p or q <= x or y + tall <= r or s <= y for p, r, q, s in taken)
            if 2 <= y <= card.height - tall - 2 and free:
                break
        else:
            y = min(max(y0 - tall - 2 * unit, 2.0), card.height - tall - 2.0)
        taken.append((x, y, x + wide, y + tall))
        draw.rounded_rectangle((x, y, x + wide, y + tall), 4 * unit, colour)
        draw.text((x + 5 * unit, y + tall / 2), text, (22, 24, 28), font, anchor="lm")
    return card


def _shortened(
    draw: ImageDraw.ImageDraw, text: str, room: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont | None = None
) -> str:
    """The end of a name says more than its beginning."""
    font = font or _font(15)
    text = text[-MAX_CHARACTERS:]
    if draw.textlength(text, font) <= room:
        return text
    kept = bisect_right(range(len(text)), room, key=lambda k: draw.textlength("…" + text[len(text) - k :], font)) - 1
    return "…" + text[len(text) - max(kept, 0) :]
