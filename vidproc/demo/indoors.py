"""Backgrounds indoors: a room and a hall."""

from __future__ import annotations

import numpy as np

from vidproc.demo.canvas import LEAVES, SKIES, WALLS, Canvas, Drawn, pick
from vidproc.demo.shapes import Colour, box, capsule, disc, mix, polygon, shade


def room(c: Canvas, rng: np.random.Generator) -> Drawn:
    w, h = c.width, c.height
    wall = pick(
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
    wood = shade(pick(rng, ((176, 134, 96), (150, 112, 84), (196, 160, 120), (128, 108, 96), (170, 164, 158))), bright)
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
        _rug(c, rng, bright)
    for slot, what in zip(list(rng.permutation(4)), ("window", "picture", "plant", "shelf"), strict=True):
        x = (0.02 + 0.25 * float(slot) + rng.uniform(0, 0.04)) * w
        if what == "window" and rng.random() < 0.8:
            _window(c, rng, x, bright)
        elif what == "picture":
            _picture(c, rng, x)
        elif what == "plant":
            _plant(c, rng, x, floor_y + 4)
        elif what == "shelf":
            _shelf(c, rng, x, wood)
    return 0.22, pick(rng, ((255, 255, 255), (255, 244, 226), (240, 246, 255))), ()


def _rug(c: Canvas, rng: np.random.Generator, bright: float) -> None:
    w, h = c.width, c.height
    rug, rx = (
        pick(rng, ((168, 76, 70), (74, 104, 132), (196, 160, 96), (110, 128, 106))),
        rng.uniform(0.35, 0.65) * w,
    )
    for s, tone in ((1.0, 0.85), (0.93, 1.1), (0.84, 1.0)):
        c.paint((disc(rx, 0.86 * h, 0.33 * w * s, 0.085 * h * s), shade(rug, tone * bright)))


def _window(c: Canvas, rng: np.random.Generator, x: float, bright: float) -> None:
    h = c.height
    low, top = SKIES[int(rng.integers(len(SKIES)))][:2]
    c.paint(
        (box(x - 4, 0.10 * h - 4, x + 72, 0.42 * h + 4), (240, 238, 232)),
        (box(x, 0.10 * h, x + 68, 0.42 * h), mix(low, top, 0.6)),
    )
    c.paint((disc(x + 20, 0.43 * h, 16), (110, 146, 100)), (disc(x + 44, 0.45 * h, 20), (96, 132, 96)))
    c.paint(
        (box(x - 4, 0.42 * h, x + 72, 0.42 * h + 4), (226, 222, 214)),
        (box(x + 32.5, 0.10 * h, x + 35.5, 0.42 * h), (240, 238, 232)),
    )
    drape = pick(rng, ((178, 96, 88), (120, 140, 160), (206, 190, 150)))
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


def _picture(c: Canvas, rng: np.random.Generator, x: float) -> None:
    h = c.height
    c.paint(
        (box(x + 14, 0.16 * h, x + 64, 0.34 * h), (84, 66, 54)),
        (box(x + 17, 0.172 * h, x + 61, 0.328 * h), (238, 232, 220)),
    )
    for _ in range(4):
        c.paint(
            (
                disc(x + rng.uniform(24, 54), rng.uniform(0.21, 0.30) * h, rng.uniform(3, 7)),
                pick(rng, WALLS + LEAVES),
            )
        )


def _plant(c: Canvas, rng: np.random.Generator, x: float, pot: float) -> None:
    leaf = pick(rng, LEAVES)
    for a in np.linspace(-1.0, 1.0, 7):
        tip = (x + 40 + 34 * np.sin(a), pot - 26 - 44 * np.cos(a))
        c.paint((capsule((x + 40, pot - 20), tip, 3.0, 5.5), shade(leaf, 0.9 + 0.25 * abs(a))))
    c.paint((polygon((x + 28, pot - 24), (x + 52, pot - 24), (x + 48, pot), (x + 32, pot)), (196, 120, 86)))


def _shelf(c: Canvas, rng: np.random.Generator, x: float, wood: Colour) -> None:
    h = c.height
    c.paint((box(x + 8, 0.22 * h, x + 82, 0.235 * h), shade(wood, 0.7)))
    left = x + 12
    while left < x + 74:
        thick, tall = rng.uniform(3, 7), rng.uniform(11, 22)
        c.paint(
            (
                box(left, 0.22 * h - tall, left + thick, 0.22 * h),
                pick(rng, (*WALLS, (170, 70, 66), (70, 96, 130), (216, 178, 90))),
            )
        )
        left += thick + rng.uniform(0.3, 2.5)


def hall(c: Canvas, rng: np.random.Generator) -> Drawn:
    w, h = c.width, c.height
    wall = pick(rng, ((196, 206, 210), (216, 206, 186), (176, 190, 176), (150, 162, 178)))
    floor_y = rng.uniform(0.58, 0.66) * h
    c.gradient(-c.margin, floor_y, shade(wall, 1.05), shade(wall, 0.94))
    band = pick(rng, ((196, 86, 70), (70, 112, 150), (86, 136, 110), (220, 168, 80)))
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
    floor = pick(rng, ((206, 166, 112), (184, 150, 112), (150, 166, 170), (190, 128, 96)))
    c.gradient(floor_y, c.bottom, shade(floor, 0.88), shade(floor, 1.08))
    c.roughen(rng, floor_y, c.bottom, 3.0, 4.0)
    for y, colour in ((0.76, (238, 238, 232)), (0.90, band)):
        c.paint((box(c.left, y * h, c.right, y * h + 2.5), colour))
    cx = rng.uniform(0.3, 0.7) * w
    c.paint((polygon((cx, floor_y), (cx + 3, floor_y), (cx + 26, c.bottom), (cx + 20, c.bottom)), (238, 238, 232)))
    if rng.random() < 0.5:
        mx = rng.uniform(0.15, 0.55) * w
        mat = pick(rng, ((60, 96, 150), (176, 66, 62), (66, 120, 96)))
        c.paint((polygon((mx, 0.80 * h), (mx + 130, 0.80 * h), (mx + 150, 0.95 * h), (mx - 20, 0.95 * h)), mat))
        c.paint(
            (
                polygon((mx - 20, 0.95 * h), (mx + 150, 0.95 * h), (mx + 150, 0.965 * h), (mx - 20, 0.965 * h)),
                shade(mat, 0.7),
            )
        )
    c.roughen(rng, -c.margin, floor_y, 2.5)
    return 0.22, pick(rng, ((255, 255, 255), (255, 246, 230), (236, 246, 255))), ()
