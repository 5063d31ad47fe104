"""How a person looks: clothes, colours and build, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidproc.demo.shapes import Colour


@dataclass(frozen=True, slots=True)
class Look:
    """What a person wears and is built like."""

    skin: Colour
    hair: Colour
    shirt: Colour
    trousers: Colour
    shoes: Colour
    build: float = 1.0
    """Thickness of the limbs, 1 is usual."""
    long_sleeves: bool = True
    long_trousers: bool = True
    skirt: bool = False
    long_hair: bool = False
    hat: Colour | None = None
    backpack: Colour | None = None


_SKIN = ((255, 224, 196), (241, 194, 155), (224, 172, 125), (198, 134, 92), (141, 85, 54), (96, 60, 42))
_HAIR = ((38, 30, 28), (62, 42, 30), (104, 68, 42), (156, 110, 62), (212, 172, 104), (150, 148, 146), (146, 62, 36))
_CLOTHES = (
    (204, 62, 58), (232, 116, 60), (240, 184, 72), (96, 158, 88), (46, 122, 112), (66, 134, 190), (44, 74, 132),
    (122, 84, 156), (206, 110, 148), (236, 232, 224), (150, 152, 158), (84, 88, 96), (44, 46, 54), (172, 128, 92),
)  # fmt: skip
_TROUSERS = ((46, 58, 88), (36, 38, 46), (88, 90, 96), (128, 104, 78), (70, 92, 120), (60, 72, 56), (176, 160, 134))
_SHOES = ((34, 32, 34), (238, 238, 236), (140, 84, 52), (190, 54, 52), (70, 96, 150))


def dress(rng: np.random.Generator) -> Look:
    def one(palette: tuple[Colour, ...]) -> Colour:
        r, g, b = np.clip(np.array(palette[rng.integers(len(palette))]) + rng.integers(-12, 13, 3), 0, 255)
        return int(r), int(g), int(b)

    long_hair = rng.random() < 0.4
    return Look(
        skin=one(_SKIN),
        hair=one(_HAIR),
        shirt=one(_CLOTHES),
        trousers=one(_TROUSERS),
        shoes=one(_SHOES),
        build=float(rng.uniform(0.88, 1.22)),
        long_sleeves=bool(rng.random() < 0.6),
        long_trousers=bool(rng.random() < 0.75),
        skirt=bool(long_hair and rng.random() < 0.35),
        long_hair=bool(long_hair),
        hat=one(_CLOTHES) if rng.random() < 0.2 else None,
        backpack=one(_CLOTHES) if rng.random() < 0.2 else None,
    )
