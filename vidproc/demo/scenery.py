"""Backgrounds: streets, parks, rooms and halls, painted once a scene at twice the size and brought down.

A background is wider and higher than the picture by `margin` pixels on each side, so that the camera may shake.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from vidproc.demo.shapes import Colour, Image, Shape, box, capsule, disc, mix, paint, polygon, shade

Place = Literal["street", "park", "room", "hall"]


@dataclass(frozen=True, slots=True)
class Scenery:
    picture: Image
    """uint8 (height + 2 margin, width + 2 margin, 3)."""
    horizon: float
    """In picture heights from the top: where things would shrink to nothing."""
    light: Colour
    """Tint of the light, 255 = none."""
    occluders: tuple[tuple[float, tuple[Shape, ...]], ...] = field(default=())
    """(ground line, shapes), both in pixels of the picture without margin: posts and bushes in front of things."""


def scenery(place: Place, rng: np.random.Generator, width: int, height: int, margin: int) -> Scenery:
    canvas = _Canvas(width, height, margin)
    draw = {"street": _street, "park": _park, "room": _room, "hall": _hall}[place]
    horizon, light, occluders = draw(canvas, rng)
    return Scenery(canvas.finish(rng), horizon, light, occluders)


_Drawn = tuple[float, Colour, tuple[tuple[float, tuple[Shape, ...]], ...]]

# Sky at the top, sky at the horizon, tint of the light, brightness of what stands against the sky.
_SKIES: tuple[tuple[Colour, Colour, Colour, float], ...] = (
    ((104, 168, 220), (206, 228, 238), (255, 255, 255), 1.0),
    ((134, 180, 206), (236, 232, 214), (255, 250, 240), 0.98),
    ((176, 186, 194), (216, 220, 220), (244, 248, 255), 0.94),
    ((92, 110, 158), (246, 190, 146), (255, 236, 214), 0.88),
    ((122, 112, 158), (250, 206, 170), (255, 238, 224), 0.90),
    ((58, 70, 112), (150, 140, 170), (222, 226, 255), 0.72),
)
_WALLS: tuple[Colour, ...] = (
    (206, 172, 142), (188, 120, 96), (222, 206, 176), (168, 178, 182), (152, 110, 96), (198, 190, 180),
    (140, 152, 160), (226, 192, 150), (176, 142, 128), (126, 140, 134),
)  # fmt: skip
_LEAVES: tuple[Colour, ...] = ((86, 134, 80), (106, 150, 84), (70, 116, 84), (134, 156, 84), (196, 150, 70))


class _Canvas:
    """Painting in pixels of the picture; kept at twice the size with a margin all round."""

    scale = 2

    def __init__(self, width: int, height: int, margin: int) -> None:
        self.width, self.height, self.margin = width, height, margin
        self.image = np.zeros(((height + 2 * margin) * self.scale, (width + 2 * margin) * self.scale, 3), np.uint8)

    def paint(self, *shapes: Shape) -> None:
        paint(self.image, [((p + self.margin) * self.scale, c) for p, c in shapes])

    def gradient(self, y0: float, y1: float, top: Colour, bottom: Colour) -> None:
        a, b = (round((y + self.margin) * self.scale) for y in (y0, y1))
        a, b = max(a, 0), min(b, len(self.image))
        t = np.linspace(0, 1, max(b - a, 1))[:, None, None]
        band = np.array(top) + (np.array(bottom) - np.array(top)) * t
        self.image[a:b] = np.round(band[: b - a]).astype(np.uint8)

    def roughen(self, rng: np.random.Generator, y0: float, y1: float, strength: float, stretch: float = 1.0) -> None:
        """Mottles a band of rows: the texture of asphalt, grass or plaster, `stretch` times wider than high."""
        a, b = (int(np.clip((y + self.margin) * self.scale, 0, len(self.image))) for y in (y0, y1))
        if b - a < 2:
            return
        size = (self.image.shape[1], b - a)
        noise = np.zeros((b - a, size[0]), np.float32)
        for cell, weight in ((3, 0.5), (9, 0.3), (40, 0.4)):
            shape = (max(2, (b - a) // cell + 1), max(2, int(size[0] / (cell * stretch)) + 1))
            grains = rng.standard_normal(shape).astype(np.float32)
            noise += weight * cv2.resize(grains, size, interpolation=cv2.INTER_CUBIC)
        band = self.image[a:b].astype(np.float32) + strength * noise[..., None]
        self.image[a:b] = np.clip(band, 0, 255).astype(np.uint8)

    def finish(self, rng: np.random.Generator) -> Image:
        h, w = self.image.shape[:2]
        small = cv2.resize(self.image, (w // self.scale, h // self.scale), interpolation=cv2.INTER_AREA)
        out: Image = np.ascontiguousarray(small, dtype=np.uint8)
        return out

    @property
    def left(self) -> float:
        return float(-self.margin)

    @property
    def right(self) -> float:
        return float(self.width + self.margin)

    @property
    def bottom(self) -> float:
        return float(self.height + self.margin)


def _pick(rng: np.random.Generator, palette: tuple[Colour, ...]) -> Colour:
    return palette[int(rng.integers(len(palette)))]


def _sky(c: _Canvas, rng: np.random.Generator, horizon: float) -> tuple[Colour, Colour, float]:
    """Paints the sky; colour at the horizon, tint, brightness of what stands before it."""
    top, low, tint, bright = _SKIES[int(rng.integers(len(_SKIES)))]
    c.gradient(-c.margin, horizon, top, low)
    sun = (rng.uniform(0.1, 0.9) * c.width, rng.uniform(0.05, 0.2) * c.height)
    for r, t in ((0.11, 0.25), (0.07, 0.5), (0.045, 1.0)):
        c.paint((disc(*sun, r * c.height), mix(mix(top, low, 0.3), (255, 248, 224), t)))
    for _ in range(int(rng.integers(2, 6))):
        x, y, s = rng.uniform(0, c.width), rng.uniform(0.02, 0.22) * c.height, rng.uniform(0.03, 0.07) * c.height
        puff = mix(low, (255, 255, 255), 0.55)
        for dx, dy, r in ((-1.4, 0.2, 0.6), (-0.5, -0.2, 0.9), (0.5, 0.0, 1.0), (1.4, 0.25, 0.6)):
            c.paint((disc(x + dx * s, y + dy * s, r * s, r * s * 0.62), puff))
    return low, tint, bright


def _tree(x: float, ground: float, size: float, leaf: Colour, rng: np.random.Generator) -> list[Shape]:
    trunk = (104, 78, 58)
    out: list[Shape] = [(capsule((x, ground), (x, ground - 0.55 * size), 0.05 * size, 0.035 * size), trunk)]
    for layer, tone in ((0.0, 0.82), (0.06, 1.0), (0.12, 1.16)):
        for _ in range(5):
            dx, dy = rng.uniform(-0.24, 0.24) * size, rng.uniform(-0.2, 0.2) * size
            r = rng.uniform(0.13, 0.20) * size * (1.1 - layer * 2)
            out.append((disc(x + dx - layer * size, ground - 0.72 * size + dy - layer * size, r), shade(leaf, tone)))
    return out


def _bush(x: float, ground: float, size: float, leaf: Colour) -> list[Shape]:
    return [
        (disc(x + dx * size, ground - dy * size, r * size), shade(leaf, tone))
        for dx, dy, r, tone in (
            (-0.45, 0.22, 0.3, 0.8), (0.45, 0.22, 0.3, 0.8), (0, 0.32, 0.38, 0.9),
            (-0.2, 0.3, 0.26, 1.05), (0.22, 0.26, 0.24, 1.1),
        )
    ]  # fmt: skip


def _lamp(x: float, ground: float, size: float) -> list[Shape]:
    iron = (58, 62, 68)
    return [
        (capsule((x, ground), (x, ground - size), 0.016 * size, 0.011 * size), iron),
        (box(x - 0.03 * size, ground - 0.06 * size, x + 0.03 * size, ground), iron),
        (capsule((x, ground - size), (x + 0.13 * size, ground - 1.03 * size), 0.011 * size), iron),
        (disc(x + 0.14 * size, ground - 1.015 * size, 0.045 * size, 0.022 * size), (252, 236, 186)),
    ]


def _house(c: _Canvas, rng: np.random.Generator, x0: float, x1: float, top: float, base: float, dim: float) -> None:
    wall = shade(_pick(rng, _WALLS), dim * rng.uniform(0.9, 1.05))
    c.paint((box(x0, top, x1, base), wall))
    if rng.random() < 0.5:
        c.paint((box(x0 - 2, top - 3, x1 + 2, top + 2), shade(wall, 0.78)))
    else:
        peak = rng.uniform(5, 14)
        c.paint(
            (polygon((x0 - 3, top + 1), (x0 + 6, top - peak), (x1 - 6, top - peak), (x1 + 3, top + 1)), (132, 82, 70))
        )
    columns, rows = max(1, int((x1 - x0) / 17)), max(1, int((base - top - 26) / 19))
    lit = rng.random() * 0.35 + (0.35 if dim < 0.85 else 0.0)
    for i in range(columns):
        for j in range(rows):
            wx = x0 + (i + 0.5) * (x1 - x0) / columns
            wy = top + 9 + j * 19
            glass = (250, 222, 150) if rng.random() < lit else shade((120, 146, 164), dim)
            c.paint((box(wx - 4.5, wy - 1, wx + 4.5, wy + 11), shade(wall, 1.25)))
            c.paint((box(wx - 3.5, wy, wx + 3.5, wy + 10), glass))
            c.paint((box(wx - 0.4, wy, wx + 0.4, wy + 10), shade(wall, 1.25)))
    # Shop front or door on the ground floor.
    if x1 - x0 > 44 and rng.random() < 0.65:
        c.paint((box(x0 + 5, base - 19, x1 - 5, base - 2), shade((86, 112, 126), dim)))
        c.paint(
            (
                polygon((x0 + 8, base - 2), (x0 + 15, base - 19), (x0 + 21, base - 19), (x0 + 14, base - 2)),
                (134, 164, 176),
            )
        )
        awning = _pick(rng, ((190, 70, 60), (70, 120, 100), (210, 160, 70), (80, 100, 150)))
        strips = 6
        for i in range(strips):
            a, b = (x0 + 3 + (x1 - x0 - 6) * k / strips for k in (i, i + 1))
            stripe = awning if i % 2 else (238, 232, 220)
            c.paint((polygon((a, base - 22), (b, base - 22), (b, base - 15), (a, base - 15)), shade(stripe, dim)))
    door = (x0 + x1) / 2 + rng.uniform(-0.3, 0.3) * (x1 - x0)
    c.paint((box(door - 4.5, base - 17, door + 4.5, base), shade((98, 68, 54), dim)))


def _street(c: _Canvas, rng: np.random.Generator) -> _Drawn:
    w, h = c.width, c.height
    low, tint, bright = _sky(c, rng, 0.5 * h)
    # Far away, the outline of a city.
    x = c.left - 10
    while x < c.right:
        wide, tall = rng.uniform(14, 40), rng.uniform(0.10, 0.34) * h
        c.paint((box(x, 0.5 * h - tall, x + wide, 0.5 * h), mix(low, shade((110, 124, 146), bright), 0.4)))
        x += wide * rng.uniform(0.9, 1.3)
    x, base = c.left - rng.uniform(0, 60), 0.50 * h
    while x < c.right:
        wide = rng.uniform(44, 104)
        if rng.random() < 0.82:
            _house(c, rng, x, x + wide, rng.uniform(0.04, 0.30) * h, base, bright)
        else:
            leaf = shade(_pick(rng, _LEAVES), bright)
            c.paint(
                *[s for i in range(3) for s in _tree(x + wide * (0.2 + 0.3 * i), base, rng.uniform(62, 92), leaf, rng)]
            )
        x += wide + (0 if rng.random() < 0.7 else rng.uniform(4, 16))
    pave = shade(_pick(rng, ((186, 180, 172), (170, 168, 166), (196, 184, 166))), bright)
    road = shade(_pick(rng, ((92, 94, 100), (104, 102, 104), (80, 84, 92))), bright)
    c.gradient(base, 0.575 * h, shade(pave, 0.92), pave)
    c.paint((box(c.left, 0.575 * h, c.right, 0.587 * h), shade(pave, 0.68)))
    c.gradient(0.587 * h, 0.80 * h, shade(road, 0.94), shade(road, 1.05))
    c.roughen(rng, 0.587 * h, 0.80 * h, 5.0, 2.5)
    dash, x = rng.uniform(26, 40), c.left - rng.uniform(0, 40)
    while x < c.right:
        c.paint(
            (
                polygon((x, 0.683 * h), (x + dash, 0.683 * h), (x + dash - 1, 0.691 * h), (x - 1, 0.691 * h)),
                shade((232, 226, 204), bright),
            )
        )
        x += dash * 2
    if rng.random() < 0.5:
        at = rng.uniform(0.15, 0.75) * w
        for i in range(7):
            y0 = (0.594 + 0.0295 * i) * h
            c.paint(
                (
                    polygon(
                        (at - i * 2, y0),
                        (at + 48 - i * 2, y0),
                        (at + 47 - i * 2, y0 + 0.016 * h),
                        (at - 1 - i * 2, y0 + 0.016 * h),
                    ),
                    shade((224, 222, 214), bright),
                )
            )
    c.paint((box(c.left, 0.80 * h, c.right, 0.822 * h), shade(pave, 0.72)))
    c.paint((box(c.left, 0.80 * h, c.right, 0.806 * h), shade(pave, 1.15)))
    c.gradient(0.822 * h, c.bottom, shade(pave, 0.98), shade(pave, 1.08))
    for k in range(-14, 15):
        top_x, low_x = w / 2 + k * 36, w / 2 + k * 56
        c.paint(
            (
                polygon((top_x, 0.822 * h), (top_x + 0.9, 0.822 * h), (low_x + 1.5, c.bottom), (low_x, c.bottom)),
                shade(pave, 0.86),
            )
        )
    c.paint((box(c.left, 0.895 * h, c.right, 0.899 * h), shade(pave, 0.86)))
    c.roughen(rng, 0.822 * h, c.bottom, 3.5)
    c.roughen(rng, base, 0.575 * h, 3.0)
    occluders: list[tuple[float, tuple[Shape, ...]]] = []
    for _ in range(int(rng.integers(0, 3))):
        at = rng.uniform(0.08, 0.92) * w
        kind = rng.random()
        leaf = shade(_pick(rng, _LEAVES), bright)
        if kind < 0.5:
            occluders.append((0.835 * h, tuple(_lamp(at, 0.835 * h, 0.60 * h))))
        elif kind < 0.8:
            occluders.append((0.575 * h, tuple(_tree(at, 0.575 * h, rng.uniform(80, 110), leaf, rng))))
        else:
            tub = polygon((at - 17, 0.80 * h), (at + 17, 0.80 * h), (at + 14, 0.85 * h), (at - 14, 0.85 * h))
            occluders.append((0.85 * h, (*_bush(at, 0.805 * h, 34, leaf), (tub, shade((150, 104, 82), bright)))))
    return 0.30, tint, tuple(occluders)


def _park(c: _Canvas, rng: np.random.Generator) -> _Drawn:
    w, h = c.width, c.height
    low, tint, bright = _sky(c, rng, 0.5 * h)
    grass = shade(_pick(rng, ((126, 164, 92), (146, 170, 96), (108, 150, 96), (164, 168, 104))), bright)
    for depth, tone in ((0.30, 0.55), (0.36, 0.35), (0.41, 0.18)):
        phase, xs = rng.uniform(0, 6, 2), np.linspace(c.left, c.right, 40)
        y = (depth + 0.035 * np.sin(xs / w * 7 + phase[0]) + 0.02 * np.sin(xs / w * 17 + phase[1])) * h
        hill = np.concatenate([np.stack([xs, y], -1), [[c.right, 0.55 * h], [c.left, 0.55 * h]]]).astype(np.float32)
        c.paint((hill, mix(shade(grass, 0.78), low, tone)))
    x = c.left
    while x < c.right:
        c.paint(
            *_tree(x, 0.47 * h, rng.uniform(44, 84), mix(shade(_pick(rng, _LEAVES), 0.85 * bright), low, 0.15), rng)
        )
        x += rng.uniform(16, 60)
    c.gradient(0.46 * h, c.bottom, shade(grass, 0.90), shade(grass, 1.08))
    c.roughen(rng, 0.46 * h, c.bottom, 7.0, 1.6)
    if rng.random() < 0.4:
        c.paint((disc(rng.uniform(0.2, 0.8) * w, 0.525 * h, 0.20 * w, 0.035 * h), shade(grass, 0.75)))
        c.paint((disc(rng.uniform(0.3, 0.7) * w, 0.525 * h, 0.18 * w, 0.028 * h), mix(low, (110, 160, 190), 0.5)))
    path = shade(_pick(rng, ((206, 188, 152), (190, 182, 170), (198, 168, 132))), bright)
    at, half = rng.uniform(0.62, 0.80), rng.uniform(0.05, 0.09)
    xs = np.linspace(c.left, c.right, 40)
    bend = 0.018 * np.sin(xs / w * 5 + rng.uniform(0, 6))
    upper, lower = (at - half + bend) * h, (at + half + bend) * h
    c.paint(
        (
            np.concatenate([np.stack([xs, upper - 2], -1), np.stack([xs, lower + 3], -1)[::-1]]).astype(np.float32),
            shade(path, 0.84),
        )
    )
    c.paint((np.concatenate([np.stack([xs, upper], -1), np.stack([xs, lower], -1)[::-1]]).astype(np.float32), path))
    for _ in range(40):
        fx, fy = rng.uniform(c.left, c.right), rng.uniform(0.5, 1.05) * h
        if abs(fy / h - at) > half + 0.035:
            s = 0.6 + 1.6 * (fy / h - 0.45)
            c.paint(
                (
                    disc(fx, fy, s, s * 0.7),
                    _pick(rng, ((250, 240, 200), (240, 196, 90), (224, 130, 150), (250, 250, 250))),
                )
            )
    if rng.random() < 0.6:
        bx, by, wood = rng.uniform(0.1, 0.8) * w, (at - half - 0.02) * h, shade((140, 98, 66), bright)
        for dx in (4, 46):
            c.paint((box(bx + dx, by - 14, bx + dx + 3, by), (70, 66, 64)))
        c.paint((box(bx, by - 16, bx + 53, by - 11), wood), (box(bx, by - 26, bx + 53, by - 19), shade(wood, 0.9)))
    occluders: list[tuple[float, tuple[Shape, ...]]] = []
    for _ in range(int(rng.integers(0, 3))):
        fx, leaf = rng.uniform(0.05, 0.95) * w, shade(_pick(rng, _LEAVES), bright)
        if rng.random() < 0.5:
            occluders.append((0.56 * h, tuple(_tree(fx, 0.56 * h, rng.uniform(90, 120), leaf, rng))))
        else:
            y = rng.uniform(0.70, 0.98) * h
            occluders.append((y, tuple(_bush(fx, y, (y / h - 0.35) * 90, leaf))))
    return 0.30, tint, tuple(occluders)


def _room(c: _Canvas, rng: np.random.Generator) -> _Drawn:
    w, h = c.width, c.height
    wall = _pick(
        rng,
        (
            (214, 204, 188),
            (186, 202, 198),
            (222, 196, 176),
            (190, 186, 206),
            (206, 210, 190),
            (168, 184, 200),
            (226, 214, 170),
        ),
    )
    bright = rng.uniform(0.8, 1.0)
    wall, floor_y = shade(wall, bright), rng.uniform(0.60, 0.70) * h
    c.gradient(-c.margin, floor_y, shade(wall, 0.95), shade(wall, 1.03))
    if rng.random() < 0.4:
        x = c.left
        while x < c.right:
            c.paint((box(x, -c.margin, x + 7, floor_y), shade(wall, 0.955)))
            x += 22
    c.roughen(rng, -c.margin, floor_y, 2.5)
    wood = shade(_pick(rng, ((176, 134, 96), (150, 112, 84), (196, 160, 120), (128, 108, 96), (170, 164, 158))), bright)
    c.gradient(floor_y, c.bottom, shade(wood, 0.85), shade(wood, 1.06))
    for k in range(-16, 17):
        a, b = w / 2 + k * 34, w / 2 + k * 62
        c.paint((polygon((a, floor_y), (a + 0.8, floor_y), (b + 1.4, c.bottom), (b, c.bottom)), shade(wood, 0.8)))
    c.roughen(rng, floor_y, c.bottom, 3.5, 3.0)
    c.paint(
        (box(c.left, floor_y - 7, c.right, floor_y), shade(wall, 1.35)),
        (box(c.left, floor_y, c.right, floor_y + 1.5), shade(wood, 0.6)),
    )
    if rng.random() < 0.75:
        rug, rx = (
            _pick(rng, ((168, 76, 70), (74, 104, 132), (196, 160, 96), (110, 128, 106))),
            rng.uniform(0.35, 0.65) * w,
        )
        for s, tone in ((1.0, 0.85), (0.93, 1.1), (0.84, 1.0)):
            c.paint((disc(rx, 0.86 * h, 0.33 * w * s, 0.085 * h * s), shade(rug, tone * bright)))
    slots = list(rng.permutation(4))
    for slot, what in zip(slots, ("window", "picture", "plant", "shelf"), strict=True):
        x = (0.02 + 0.25 * float(slot) + rng.uniform(0, 0.04)) * w
        if what == "window" and rng.random() < 0.8:
            low, top = _SKIES[int(rng.integers(len(_SKIES)))][:2]
            c.paint(
                (box(x - 4, 0.10 * h - 4, x + 72, 0.42 * h + 4), (240, 238, 232)),
                (box(x, 0.10 * h, x + 68, 0.42 * h), mix(low, top, 0.6)),
            )
            c.paint((disc(x + 20, 0.43 * h, 16), (110, 146, 100)), (disc(x + 44, 0.45 * h, 20), (96, 132, 96)))
            c.paint(
                (box(x - 4, 0.42 * h, x + 72, 0.42 * h + 4), (226, 222, 214)),
                (box(x + 32.5, 0.10 * h, x + 35.5, 0.42 * h), (240, 238, 232)),
            )
            drape = _pick(rng, ((178, 96, 88), (120, 140, 160), (206, 190, 150)))
            for side in (-9, 64):
                c.paint(
                    (
                        polygon(
                            (x + side, 0.07 * h),
                            (x + side + 13, 0.07 * h),
                            (x + side + 11, 0.52 * h),
                            (x + side + 1, 0.52 * h),
                        ),
                        shade(drape, bright),
                    )
                )
        elif what == "picture":
            c.paint(
                (box(x + 14, 0.16 * h, x + 64, 0.34 * h), (84, 66, 54)),
                (box(x + 17, 0.172 * h, x + 61, 0.328 * h), (238, 232, 220)),
            )
            for _ in range(4):
                c.paint(
                    (
                        disc(x + rng.uniform(24, 54), rng.uniform(0.21, 0.30) * h, rng.uniform(3, 7)),
                        _pick(rng, _WALLS + _LEAVES),
                    )
                )
        elif what == "plant":
            pot, leaf = floor_y + 4, _pick(rng, _LEAVES)
            for a in np.linspace(-1.0, 1.0, 7):
                tip = (x + 40 + 34 * np.sin(a), pot - 26 - 44 * np.cos(a))
                c.paint((capsule((x + 40, pot - 20), tip, 3.0, 5.5), shade(leaf, 0.9 + 0.25 * abs(a))))
            c.paint((polygon((x + 28, pot - 24), (x + 52, pot - 24), (x + 48, pot), (x + 32, pot)), (196, 120, 86)))
        elif what == "shelf":
            c.paint((box(x + 8, 0.22 * h, x + 82, 0.235 * h), shade(wood, 0.7)))
            left = x + 12
            while left < x + 74:
                thick, tall = rng.uniform(3, 7), rng.uniform(11, 22)
                c.paint(
                    (
                        box(left, 0.22 * h - tall, left + thick, 0.22 * h),
                        _pick(rng, (*_WALLS, (170, 70, 66), (70, 96, 130), (216, 178, 90))),
                    )
                )
                left += thick + rng.uniform(0.3, 2.5)
    return 0.22, _pick(rng, ((255, 255, 255), (255, 244, 226), (240, 246, 255))), ()


def _hall(c: _Canvas, rng: np.random.Generator) -> _Drawn:
    w, h = c.width, c.height
    wall = _pick(rng, ((196, 206, 210), (216, 206, 186), (176, 190, 176), (150, 162, 178)))
    floor_y = rng.uniform(0.58, 0.66) * h
    c.gradient(-c.margin, floor_y, shade(wall, 1.05), shade(wall, 0.94))
    band = _pick(rng, ((196, 86, 70), (70, 112, 150), (86, 136, 110), (220, 168, 80)))
    c.paint(
        (box(c.left, floor_y - 62, c.right, floor_y), shade(band, 0.95)),
        (box(c.left, floor_y - 66, c.right, floor_y - 62), (240, 238, 230)),
    )
    for i in range(-1, 6):
        x = i * 0.22 * w + rng.uniform(-4, 4)
        c.paint(
            (box(x, 0.07 * h, x + 50, 0.25 * h), (226, 236, 240)),
            (box(x + 24, 0.07 * h, x + 26, 0.25 * h), shade(wall, 0.8)),
        )
    if rng.random() < 0.7:
        bx = rng.uniform(0.05, 0.7) * w
        for i in range(9):
            c.paint((box(bx, floor_y - 92 + i * 10, bx + 66, floor_y - 89 + i * 10), (206, 168, 118)))
        for dx in (0, 33, 64):
            c.paint((box(bx + dx, floor_y - 98, bx + dx + 3.5, floor_y), (170, 132, 90)))
    floor = _pick(rng, ((206, 166, 112), (184, 150, 112), (150, 166, 170), (190, 128, 96)))
    c.gradient(floor_y, c.bottom, shade(floor, 0.88), shade(floor, 1.08))
    c.roughen(rng, floor_y, c.bottom, 3.0, 4.0)
    for y, colour in ((0.76, (238, 238, 232)), (0.90, band)):
        c.paint((box(c.left, y * h, c.right, y * h + 2.5), colour))
    cx = rng.uniform(0.3, 0.7) * w
    c.paint((polygon((cx, floor_y), (cx + 3, floor_y), (cx + 26, c.bottom), (cx + 20, c.bottom)), (238, 238, 232)))
    if rng.random() < 0.5:
        mx = rng.uniform(0.15, 0.55) * w
        mat = _pick(rng, ((60, 96, 150), (176, 66, 62), (66, 120, 96)))
        c.paint((polygon((mx, 0.80 * h), (mx + 130, 0.80 * h), (mx + 150, 0.95 * h), (mx - 20, 0.95 * h)), mat))
        c.paint(
            (
                polygon((mx - 20, 0.95 * h), (mx + 150, 0.95 * h), (mx + 150, 0.965 * h), (mx - 20, 0.965 * h)),
                shade(mat, 0.7),
            )
        )
    c.roughen(rng, -c.margin, floor_y, 2.5)
    return 0.22, _pick(rng, ((255, 255, 255), (255, 246, 230), (236, 246, 255))), ()


def vignette(width: int, height: int, strength: float) -> NDArray[np.uint8]:
    """uint8 (h, w, 3), 255 in the middle: multiply and divide by 255."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    fall = 1 - strength * (x**2 + y**2) / 2
    return np.repeat(np.round(255 * fall).astype(np.uint8)[..., None], 3, -1)
