"""A number in every frame: twelve bits and four that check them, as sixteen blocks of light and dark grey."""

from __future__ import annotations

import numpy as np

ACROSS = DOWN = 4
DARK, LIGHT = 62, 188
LARGEST_NUMBER = 4095


def _bits(number: int) -> int:
    check = (number * 5 + (number >> 4) * 3 + (number >> 8) * 7 + 6) & 15
    return number << 4 | check


def draw(number: int, width: int, height: int) -> np.ndarray:
    """Return the picture of a number as uint8 (height, width, 3): blocks below a pattern that moves from frame to
    frame, so that every frame is predicted from the one before and a wrong reference shows."""
    if not 0 <= number <= LARGEST_NUMBER:
        raise ValueError(f"{number} does not fit into twelve bits")
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    block = y * DOWN // height * ACROSS + x * ACROSS // width
    light = _bits(number) >> block & 1
    pattern = (x + 2 * number) // 4 % 4 * 3 + (y + number) // 4 % 3 * 4 - 8
    luma = np.where(light, LIGHT, DARK) + pattern
    return np.repeat(luma.astype(np.uint8)[:, :, None], 3, axis=2)


def read(pixels: np.ndarray) -> list[int | None]:
    """Return the number of each frame of uint8 (n, height, width, 3), None where a frame shows none: grey, smeared,
    or a mixture of two."""
    n, height, width = pixels.shape[:3]
    if n == 0:
        return []
    bits = np.zeros(n, np.int64)
    sure = np.ones(n, bool)
    for place in range(ACROSS * DOWN):
        row, column = divmod(place, ACROSS)
        top, bottom = (4 * row + 1) * height // (4 * DOWN), (4 * row + 3) * height // (4 * DOWN)
        left, right = (4 * column + 1) * width // (4 * ACROSS), (4 * column + 3) * width // (4 * ACROSS)
        block = pixels[:, top:bottom, left:right, 1].reshape(n, -1)
        mean = block.mean(axis=1)
        sure &= (np.abs(mean - (DARK + LIGHT) / 2) > 35) & (block.std(axis=1) < 30)
        bits |= (mean > (DARK + LIGHT) / 2).astype(np.int64) << place
    numbers = bits >> 4
    return [
        int(number) if good and _bits(int(number)) == code else None
        for number, code, good in zip(numbers, bits, sure, strict=True)
    ]
