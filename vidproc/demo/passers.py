"""Who and what passes in a street or a park."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from vidproc.demo.actors import Person, Stretch, Thing, Vehicle, pick_colour
from vidproc.demo.acts import Manner
from vidproc.demo.looks import dress
from vidproc.demo.scenery import Place
from vidproc.demo.settings import HEIGHT, WIDTH
from vidproc.demo.shapes import Colour
from vidproc.demo.things import PAINTS

_COATS: tuple[Colour, ...] = ((150, 104, 62), (62, 56, 52), (222, 206, 180), (176, 132, 84), (128, 126, 128))


def _size_at(ground: float) -> float:
    """Height of a person who stands at that line."""
    return 0.70 * (ground - 0.30 * HEIGHT)


def _moving(rng: np.random.Generator, seconds: float, speed: float) -> float:
    """Where to start, so that one is in the picture for a good part of the scene."""
    middle_at, middle = rng.uniform(0.1, 0.9) * seconds, rng.uniform(0.1, 0.9) * WIDTH
    return float(middle - speed * middle_at)


def passers(rng: np.random.Generator, place: Place, seconds: float) -> Iterator[Thing]:
    number = 1
    people = int(rng.integers(2, 7))
    for _ in range(people):
        pavement = (0.530, 0.568) if rng.random() < 0.35 else (0.845, 0.985)
        band = pavement if place == "street" else (0.56, 0.985)
        ground = float(rng.uniform(*band) * HEIGHT)
        person = pedestrian(rng, number, ground, seconds)
        yield person
        number += 1
        first = person.timeline[0]
        moves = [s for s in person.timeline if s.label == "walk"]
        if (
            first.label == "walk"
            and len(moves) == len(person.timeline)
            and rng.random() < (0.22 if place == "park" else 0.10)
        ):
            speed = (first.x_end - first.x_start) / (first.end - first.start)
            length = float(rng.uniform(0.42, 0.58) * person.height)
            ahead = float(rng.choice((-1, 1)) * rng.uniform(0.45, 0.7) * person.height)
            near = float(min(ground + rng.uniform(-3, 4), HEIGHT - 2))
            yield Vehicle("dog", number, pick_colour(rng, _COATS), 0, length, near, first.x_start + ahead, speed)
            number += 1
    lanes = ((0.655, -1), (0.772, 1)) if place == "street" else ()
    for line, way in lanes:
        ground = line * HEIGHT
        size = _size_at(ground)
        # One speed a lane, so that nobody drives through the one ahead.
        speed = way * float(rng.uniform(0.55, 1.15)) * 1.75 * size
        x = _moving(rng, seconds, speed)
        for _ in range(int(rng.integers(0, 4))):
            if rng.random() < 0.16 and line < 0.7:
                length = size * float(rng.uniform(2.7, 3.1))
                yield Vehicle("bus", number, pick_colour(rng, PAINTS), 0, length, ground, x, speed)
            else:
                length = size * float(rng.uniform(1.75, 2.05))
                style = int(rng.integers(3))
                yield Vehicle("car", number, pick_colour(rng, PAINTS), style, length, ground, x, speed)
            number += 1
            x -= way * (length + float(rng.uniform(0.9, 2.6)) * size * 1.6)
    for _ in range(int(rng.choice(3, p=(0.4, 0.4, 0.2)))):
        if place == "street":
            line, way = ((0.700, -1), (0.800, 1))[int(rng.integers(2))]
        else:
            line, way = float(rng.uniform(0.60, 0.86)), int(rng.choice((-1, 1)))
        ground = float((line + rng.uniform(-0.008, 0.008)) * HEIGHT)
        size = _size_at(ground)
        speed = way * float(rng.uniform(0.7, 1.3)) * size
        length = size * float(rng.uniform(0.92, 1.02))
        x = _moving(rng, seconds, speed)
        yield Vehicle("bicycle", number, pick_colour(rng, PAINTS), 0, length, ground, x, speed, dress(rng))
        number += 2
    if place == "park" and rng.random() < 0.3:
        ground = float(rng.uniform(0.6, 0.95) * HEIGHT)
        length = _size_at(ground) * float(rng.uniform(0.45, 0.6))
        speed = float(rng.choice((-1, 1)) * rng.uniform(0.7, 1.6) * length)
        yield Vehicle("dog", number, pick_colour(rng, _COATS), 0, length, ground, _moving(rng, seconds, speed), speed)


def pedestrian(rng: np.random.Generator, number: int, ground: float, seconds: float) -> Person:
    height = _size_at(ground) * float(rng.uniform(0.86, 1.08))
    look = dress(rng)
    kind = rng.choice(("walk", "run", "stand", "pause"), p=(0.56, 0.12, 0.16, 0.16))
    way = int(rng.choice((-1, 1)))
    facing = (0.0 if way > 0 else np.pi) + way * float(rng.uniform(-0.15, 0.45))
    speed = way * height * float(rng.uniform(0.42, 0.75))
    gait = Manner(rate=abs(speed) / height / 0.78, reach=float(rng.uniform(0.85, 1.15)), phase=float(rng.random()))
    if kind == "run":
        speed *= 1.7
        gait = replace(gait, rate=abs(speed) / height / 0.95)
    end = seconds + 1
    if kind in ("walk", "run"):
        x = _moving(rng, seconds, speed)
        line = [Stretch(str(kind), 0, end, x, x + speed * end, facing, gait)]
    elif kind == "stand":
        x, half = float(rng.uniform(0.06, 0.94) * WIDTH), float(rng.uniform(0.3, 0.7) * end)
        still = Manner(phase=float(rng.random()), side=int(rng.integers(2)), rate=1.6)
        second = "wave" if rng.random() < 0.4 else "stand"
        yaw = float(rng.uniform(0.3, np.pi - 0.3))
        line = [
            Stretch("stand", 0, half, x, x, yaw, still),
            Stretch(second, half, half + 2.5, x, x, yaw, still),
            Stretch("stand", half + 2.5, end + 3, x, x, yaw, still),
        ]
    else:
        stop = float(rng.uniform(0.25, 0.6) * seconds)
        again = stop + float(rng.uniform(1.0, 3.0))
        x = float(rng.uniform(0.15, 0.85) * WIDTH)
        line = [
            Stretch("walk", 0, stop, x - speed * stop, x, facing, gait),
            Stretch("stand", stop, again, x, x, float(rng.uniform(0.3, np.pi - 0.3)), gait),
            Stretch("walk", again, max(end, again + 0.5), x, x + speed * (max(end, again + 0.5) - again), facing, gait),
        ]
    return Person(number, look, height, ground, tuple(line))
