"""Backgrounds: streets, parks, rooms and halls, painted once a scene at twice the size and brought down.

A background is wider and higher than the picture by `margin` pixels on each side, so that the camera may shake.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vidproc.demo.canvas import Canvas
from vidproc.demo.indoors import hall, room
from vidproc.demo.outdoors import park, street
from vidproc.demo.shapes import Colour, Image, Shape

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
    canvas = Canvas(width, height, margin)
    draw = {"street": street, "park": park, "room": room, "hall": hall}[place]
    horizon, light, occluders = draw(canvas, rng)
    return Scenery(canvas.finish(rng), horizon, light, occluders)


def vignette(width: int, height: int, strength: float) -> NDArray[np.uint8]:
    """uint8 (h, w, 3), 255 in the middle: multiply and divide by 255."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    fall = 1 - strength * (x**2 + y**2) / 2
    return np.repeat(np.round(255 * fall).astype(np.uint8)[..., None], 3, -1)
