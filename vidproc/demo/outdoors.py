"""Backgrounds outdoors: a street and a park."""

from __future__ import annotations

import numpy as np

from vidproc.demo.canvas import LEAVES, SKIES, WALLS, Canvas, Drawn, pick
from vidproc.demo.shapes import Colour, Shape, box, capsule, disc, mix, polygon, shade


def _sky(c: Canvas, rng: np.random.Generator, horizon: float) -> tuple[Colour, Colour, float]:
    """Paints the sky; colour at the horizon, tint, brightness of what stands before it."""
    top, low, tint, bright = SKIES[int(rng.integers(len(SKIES)))]
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


def _house(c: Canvas, rng: np.random.Generator, x0: float, x1: float, *, top: float, base: float, dim: float) -> None:
    wall = shade(pick(rng, WALLS), dim * rng.uniform(0.9, 1.05))
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
        awning = pick(rng, ((190, 70, 60), (70, 120, 100), (210, 160, 70), (80, 100, 150)))
        strips = 6
        for i in range(strips):
            a, b = (x0 + 3 + (x1 - x0 - 6) * k / strips for k in (i, i + 1))
            stripe = awning if i % 2 else (238, 232, 220)
            c.paint((polygon((a, base - 22), (b, base - 22), (b, base - 15), (a, base - 15)), shade(stripe, dim)))
    door = (x0 + x1) / 2 + rng.uniform(-0.3, 0.3) * (x1 - x0)
    c.paint((box(door - 4.5, base - 17, door + 4.5, base), shade((98, 68, 54), dim)))


def street(c: Canvas, rng: np.random.Generator) -> Drawn:
    h = c.height
    low, tint, bright = _sky(c, rng, 0.5 * h)
    _skyline(c, rng, mix(low, shade((110, 124, 146), bright), 0.4))
    base = _row_of_houses(c, rng, bright)
    pave = shade(pick(rng, ((186, 180, 172), (170, 168, 166), (196, 184, 166))), bright)
    road = shade(pick(rng, ((92, 94, 100), (104, 102, 104), (80, 84, 92))), bright)
    c.gradient(base, 0.575 * h, shade(pave, 0.92), pave)
    c.paint((box(c.left, 0.575 * h, c.right, 0.587 * h), shade(pave, 0.68)))
    _roadway(c, rng, road, bright)
    _pavement(c, rng, pave)
    c.roughen(rng, base, 0.575 * h, 3.0)
    return 0.30, tint, _street_occluders(c, rng, bright)


def _skyline(c: Canvas, rng: np.random.Generator, colour: Colour) -> None:
    """Far away, the outline of a city."""
    h = c.height
    x = c.left - 10
    while x < c.right:
        wide, tall = rng.uniform(14, 40), rng.uniform(0.10, 0.34) * h
        c.paint((box(x, 0.5 * h - tall, x + wide, 0.5 * h), colour))
        x += wide * rng.uniform(0.9, 1.3)


def _row_of_houses(c: Canvas, rng: np.random.Generator, bright: float) -> float:
    """Houses, with trees in gaps. Returns the line on which they stand."""
    h = c.height
    x, base = c.left - rng.uniform(0, 60), 0.50 * h
    while x < c.right:
        wide = rng.uniform(44, 104)
        if rng.random() < 0.82:
            _house(c, rng, x, x + wide, top=rng.uniform(0.04, 0.30) * c.height, base=base, dim=bright)
        else:
            leaf = shade(pick(rng, LEAVES), bright)
            c.paint(
                *[s for i in range(3) for s in _tree(x + wide * (0.2 + 0.3 * i), base, rng.uniform(62, 92), leaf, rng)]
            )
        x += wide + (0 if rng.random() < 0.7 else rng.uniform(4, 16))
    return base


def _roadway(c: Canvas, rng: np.random.Generator, road: Colour, bright: float) -> None:
    """The road with its dashed line, and sometimes a crossing."""
    w, h = c.width, c.height
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


def _pavement(c: Canvas, rng: np.random.Generator, pave: Colour) -> None:
    """The pavement in front, with its kerb and slabs."""
    w, h = c.width, c.height
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


def _street_occluders(
    c: Canvas, rng: np.random.Generator, bright: float
) -> tuple[tuple[float, tuple[Shape, ...]], ...]:
    """Lamps, trees and tubs that may hide who passes."""
    w, h = c.width, c.height
    occluders: list[tuple[float, tuple[Shape, ...]]] = []
    for _ in range(int(rng.integers(0, 3))):
        at = rng.uniform(0.08, 0.92) * w
        kind = rng.random()
        leaf = shade(pick(rng, LEAVES), bright)
        if kind < 0.5:
            occluders.append((0.835 * h, tuple(_lamp(at, 0.835 * h, 0.60 * h))))
        elif kind < 0.8:
            occluders.append((0.575 * h, tuple(_tree(at, 0.575 * h, rng.uniform(80, 110), leaf, rng))))
        else:
            tub = polygon((at - 17, 0.80 * h), (at + 17, 0.80 * h), (at + 14, 0.85 * h), (at - 14, 0.85 * h))
            occluders.append((0.85 * h, (*_bush(at, 0.805 * h, 34, leaf), (tub, shade((150, 104, 82), bright)))))
    return tuple(occluders)


def park(c: Canvas, rng: np.random.Generator) -> Drawn:
    w, h = c.width, c.height
    low, tint, bright = _sky(c, rng, 0.5 * h)
    grass = shade(pick(rng, ((126, 164, 92), (146, 170, 96), (108, 150, 96), (164, 168, 104))), bright)
    for depth, tone in ((0.30, 0.55), (0.36, 0.35), (0.41, 0.18)):
        phase, xs = rng.uniform(0, 6, 2), np.linspace(c.left, c.right, 40)
        y = (depth + 0.035 * np.sin(xs / w * 7 + phase[0]) + 0.02 * np.sin(xs / w * 17 + phase[1])) * h
        hill = np.concatenate([np.stack([xs, y], -1), [[c.right, 0.55 * h], [c.left, 0.55 * h]]]).astype(np.float32)
        c.paint((hill, mix(shade(grass, 0.78), low, tone)))
    x = c.left
    while x < c.right:
        c.paint(*_tree(x, 0.47 * h, rng.uniform(44, 84), mix(shade(pick(rng, LEAVES), 0.85 * bright), low, 0.15), rng))
        x += rng.uniform(16, 60)
    c.gradient(0.46 * h, c.bottom, shade(grass, 0.90), shade(grass, 1.08))
    c.roughen(rng, 0.46 * h, c.bottom, 7.0, 1.6)
    if rng.random() < 0.4:
        c.paint((disc(rng.uniform(0.2, 0.8) * w, 0.525 * h, 0.20 * w, 0.035 * h), shade(grass, 0.75)))
        c.paint((disc(rng.uniform(0.3, 0.7) * w, 0.525 * h, 0.18 * w, 0.028 * h), mix(low, (110, 160, 190), 0.5)))
    path = shade(pick(rng, ((206, 188, 152), (190, 182, 170), (198, 168, 132))), bright)
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
                    pick(rng, ((250, 240, 200), (240, 196, 90), (224, 130, 150), (250, 250, 250))),
                )
            )
    if rng.random() < 0.6:
        bx, by, wood = rng.uniform(0.1, 0.8) * w, (at - half - 0.02) * h, shade((140, 98, 66), bright)
        for dx in (4, 46):
            c.paint((box(bx + dx, by - 14, bx + dx + 3, by), (70, 66, 64)))
        c.paint((box(bx, by - 16, bx + 53, by - 11), wood), (box(bx, by - 26, bx + 53, by - 19), shade(wood, 0.9)))
    occluders: list[tuple[float, tuple[Shape, ...]]] = []
    for _ in range(int(rng.integers(0, 3))):
        fx, leaf = rng.uniform(0.05, 0.95) * w, shade(pick(rng, LEAVES), bright)
        if rng.random() < 0.5:
            occluders.append((0.56 * h, tuple(_tree(fx, 0.56 * h, rng.uniform(90, 120), leaf, rng))))
        else:
            y = rng.uniform(0.70, 0.98) * h
            occluders.append((y, tuple(_bush(fx, y, (y / h - 0.35) * 90, leaf))))
    return 0.30, tint, tuple(occluders)
