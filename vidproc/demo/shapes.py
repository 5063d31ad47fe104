"""Filled polygons: all that the world is drawn with.

A drawing is a list of shapes in order of painting, each one convex or simple polygon of one colour, in pixels;
(0, 0) is the centre of the top left pixel. The same list is painted in colour into a picture, with smooth edges,
and with a number into a mask, from which the true boxes are read.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
Colour = tuple[int, int, int]
Shape = tuple[Points, Colour]
Image = NDArray[np.uint8]

# Fixed point with 4 fractional bits: a sixteenth of a pixel, so that slow things do not move in jerks.
_SHIFT = 4
# Half a turn in six steps: a capsule of 14 points looks round at the sizes that are drawn here.
_ARC = np.linspace(-np.pi / 2, np.pi / 2, 7)
_TURN = np.linspace(0, 2 * np.pi, 20, endpoint=False)


def paint(image: Image, shapes: Sequence[Shape]) -> None:
    """Fills the shapes into uint8 (h, w, 3), in order, with smooth edges; what lies outside is cut off."""
    for points, colour in shapes:
        cv2.fillPoly(image, [_fixed(points)], colour, lineType=cv2.LINE_AA, shift=_SHIFT)


def stamp(mask: Image, shapes: Sequence[Shape], number: int) -> None:
    """Fills the outline of all shapes with one number into uint8 (h, w), edges not smoothed."""
    if shapes:
        for points, _ in shapes:
            cv2.fillPoly(mask, [_fixed(points)], number, lineType=cv2.LINE_8, shift=_SHIFT)


def _fixed(points: Points) -> NDArray[np.int32]:
    return np.round(points * (1 << _SHIFT)).astype(np.int32)


def bounds(shapes: Sequence[Shape]) -> tuple[float, float, float, float]:
    """x_min, y_min, x_max, y_max of all points, whatever the size of the picture."""
    points = np.concatenate([p for p, _ in shapes])
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    return float(x0), float(y0), float(x1), float(y1)


def capsules(
    start: NDArray[np.floating], end: NDArray[np.floating], r_start: NDArray[np.floating], r_end: NDArray[np.floating]
) -> Points:
    """(n, 2) ends and (n,) radii -> (n, 14, 2) outlines: a limb from each start to each end, round at both."""
    along = np.arctan2(end[:, 1] - start[:, 1], end[:, 0] - start[:, 0])[:, None]
    near, far = along + np.pi + _ARC, along + _ARC
    a = start[:, None] + r_start[:, None, None] * np.stack([np.cos(near), np.sin(near)], -1)
    b = end[:, None] + r_end[:, None, None] * np.stack([np.cos(far), np.sin(far)], -1)
    outlines: Points = np.concatenate([a, b], 1).astype(np.float32)
    return outlines


def capsule(start: tuple[float, float], end: tuple[float, float], radius: float, radius_end: float = -1) -> Points:
    """One limb; `radius_end` is `radius` unless given."""
    second = radius if radius_end < 0 else radius_end
    outline: Points = capsules(np.array([start]), np.array([end]), np.array([radius]), np.array([second]))[0]
    return outline


def disc(x: float, y: float, rx: float, ry: float = -1, turn: float = 0.0) -> Points:
    """An ellipse of 20 points, turned by `turn` radians; a circle unless `ry` is given."""
    ry = rx if ry < 0 else ry
    u, v = rx * np.cos(_TURN), ry * np.sin(_TURN)
    c, s = np.cos(turn), np.sin(turn)
    return np.stack([x + c * u - s * v, y + s * u + c * v], -1).astype(np.float32)


def box(x0: float, y0: float, x1: float, y1: float) -> Points:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


def polygon(*points: tuple[float, float]) -> Points:
    return np.array(points, np.float32)


def hull(points: NDArray[np.floating]) -> Points:
    """The convex outline round (n, 2) points."""
    return np.asarray(cv2.convexHull(points.astype(np.float32)), np.float32).reshape(-1, 2)


def shade(colour: Colour, factor: float) -> Colour:
    """Lighter (above 1: towards white) or darker (below 1)."""
    if factor <= 1:
        r, g, b = (int(c * factor) for c in colour)
    else:
        r, g, b = (int(c + (255 - c) * min(factor - 1, 1)) for c in colour)
    return r, g, b


def mix(a: Colour, b: Colour, t: float) -> Colour:
    r, g, bl = (int(p + (q - p) * t) for p, q in zip(a, b, strict=True))
    return r, g, bl
