"""What backgrounds are painted on, and their colours."""

from __future__ import annotations

import cv2
import numpy as np

from vidproc.demo.shapes import Colour, Image, Shape, paint

Occluders = tuple[tuple[float, tuple[Shape, ...]], ...]
"""(ground line, shapes) of what stands in front of things."""
Drawn = tuple[float, Colour, Occluders]
"""Horizon, tint of the light, and occluders of a background."""

SKIES: tuple[tuple[Colour, Colour, Colour, float], ...] = (
    ((104, 168, 220), (206, 228, 238), (255, 255, 255), 1.0),
    ((134, 180, 206), (236, 232, 214), (255, 250, 240), 0.98),
    ((176, 186, 194), (216, 220, 220), (244, 248, 255), 0.94),
    ((92, 110, 158), (246, 190, 146), (255, 236, 214), 0.88),
    ((122, 112, 158), (250, 206, 170), (255, 238, 224), 0.90),
    ((58, 70, 112), (150, 140, 170), (222, 226, 255), 0.72),
)
"""Sky at the top, sky at the horizon, tint of the light, brightness of what stands against the sky."""
WALLS: tuple[Colour, ...] = (
    (206, 172, 142), (188, 120, 96), (222, 206, 176), (168, 178, 182), (152, 110, 96), (198, 190, 180),
    (140, 152, 160), (226, 192, 150), (176, 142, 128), (126, 140, 134),
)  # fmt: skip
LEAVES: tuple[Colour, ...] = ((86, 134, 80), (106, 150, 84), (70, 116, 84), (134, 156, 84), (196, 150, 70))


class Canvas:
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


def pick(rng: np.random.Generator, palette: tuple[Colour, ...]) -> Colour:
    return palette[int(rng.integers(len(palette)))]
