"""One actor who does one thing after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vidproc.demo.actors import Fixture, Person, Stretch, Thing, pick_colour
from vidproc.demo.acts import Manner
from vidproc.demo.looks import dress
from vidproc.demo.passers import pedestrian
from vidproc.demo.poses import THIGH
from vidproc.demo.scenery import Place
from vidproc.demo.settings import HEIGHT, WIDTH, SceneSettings
from vidproc.demo.shapes import Colour, Shape, box, disc, shade

# How long each thing takes, seconds. Walks and runs take as long as the way is.
_SECONDS: dict[str, tuple[float, float]] = {
    "stand": (1.5, 2.8), "jump": (1.8, 3.0), "wave": (1.7, 2.8), "sit_down": (1.1, 1.7), "sit": (1.5, 2.6),
    "stand_up": (1.1, 1.7), "fall": (1.0, 1.4), "lie": (1.5, 2.6), "get_up": (1.3, 1.9), "jumping_jack": (2.0, 3.0),
    "squat": (2.2, 3.4), "kick": (1.8, 2.8), "bow": (1.9, 2.4), "punch": (1.8, 2.8),
    "pick_up": (1.3, 1.9), "put_down": (1.3, 1.9),
}  # fmt: skip


def performance(
    rng: np.random.Generator, place: Place, settings: SceneSettings
) -> tuple[Person, list[Thing], Fixture | None]:
    """The main actor, who else is there, and the stool."""
    height = float(rng.uniform(0.43, 0.63) * HEIGHT)
    ground = float(rng.uniform(0.84, 0.96) * HEIGHT) if place != "street" else float(rng.uniform(0.86, 0.97) * HEIGHT)
    wanted = settings.actions
    seat_x = float(rng.uniform(0.3, 0.7) * WIDTH) if {"sit_down", "sit", "stand_up"} & set(wanted) else None
    timeline = tuple(_sequence(rng, settings, height, seat_x))
    sits = any(s.label == "sit_down" for s in timeline)
    seat = None
    if seat_x is not None and (sits or rng.random() < 0.25):
        yaw = next((s.yaw for s in timeline if s.label == "sit_down"), 0.0)
        seat = Fixture(
            ground - 1, tuple(_stool(seat_x, ground - 0.03 * height * np.sin(yaw), height, pick_colour(rng, _WOODS)))
        )
    others: list[Thing] = []
    if place in ("park", "street") and rng.random() < 0.35:
        line = float(rng.uniform(0.535, 0.60) * HEIGHT)
        others.append(pedestrian(rng, 2, line, settings.seconds))
    return Person(1, dress(rng), height, ground, timeline, pick_colour(rng, _WOODS)), others, seat


_WOODS: tuple[Colour, ...] = ((196, 152, 100), (150, 104, 70), (206, 176, 136), (92, 112, 134), (176, 84, 72))


def _stool(x: float, ground: float, height: float, colour: Colour) -> list[Shape]:
    top, half = ground - 0.20 * height, 0.115 * height
    legs: list[Shape] = [
        (box(x + at * half - 0.012 * height, top, x + at * half + 0.012 * height, ground + dy), shade(colour, 0.7))
        for at, dy in ((-0.55, -3), (0.55, -3), (-0.8, 0), (0.8, 0))
    ]
    rim: Shape = (disc(x, top + 0.022 * height, half, 0.030 * height), shade(colour, 0.8))
    return [*legs, rim, (disc(x, top, half, 0.030 * height), colour)]


_SITTING, _LYING = ("sit_down", "sit"), ("fall", "lie")
"""After these one sits, or lies."""


def _sequence(
    rng: np.random.Generator, settings: SceneSettings, height: float, seat_x: float | None
) -> Iterator[Stretch]:
    """One thing after another: who sits must stand up again, who falls must get up, and so on."""
    room = (0.30 * height, WIDTH - 0.30 * height)
    t, x, holds, last = 0.0, float(rng.uniform(*room)), False, ""
    yaw, manner = float(rng.uniform(0.2, np.pi - 0.2)), Manner()
    while t < settings.seconds:
        options = _what_may_follow(last, holds, settings.actions)
        label = str(rng.choice(options or [last]))
        if label == "sit_down" and seat_x is not None:
            yaw = float(rng.choice((rng.uniform(0.0, 0.8), rng.uniform(np.pi - 0.8, np.pi), rng.uniform(0.9, 2.2))))
            feet = seat_x + THIGH * height * float(np.cos(yaw))
            # The stool is where it is: walk there first.
            if abs(feet - x) > 0.05 * height:
                walk = _travel(rng, "walk", t, x, feet, height=height)
                yield walk
                t, x = walk.end, feet
        elif label in ("walk", "run"):
            target = _way_to_go(rng, label, x, height, room)
            if abs(target - x) < 0.6 * height:
                if len(options) > 1:
                    continue
                target = room[0] if x > WIDTH / 2 else room[1]
            step = _travel(rng, label, t, x, target, height=height, holds=holds)
            yield step
            t, x, yaw, last = step.end, target, step.yaw, label
            continue
        elif label == "fall":
            yaw, manner = _fall(rng, x, height)
        else:
            yaw = _direction(rng, label, yaw)
        if label not in ("lie", "get_up"):
            low, high = (1.5, 2.3) if label == "wave" else (1.0, 1.35)
            fresh = Manner(
                float(rng.uniform(low, high)), float(rng.uniform(0.85, 1.15)), float(rng.random()), int(rng.integers(2))
            )
            manner = manner if label == "fall" else fresh
        end = t + float(rng.uniform(*_SECONDS[label]))
        yield Stretch(label, t, end, x, x, yaw, manner, holds and label != "put_down")
        t, last = end, label
        holds = label == "pick_up" or (holds and label != "put_down")


def _what_may_follow(last: str, holds: bool, actions: Sequence[str]) -> list[str]:
    """The actions that are possible after `last`, with or without a parcel in the hands."""
    wanted = set(actions)
    if last in _SITTING:
        return ["stand_up"] if last == "sit" or "sit" not in wanted else ["sit"]
    if last in _LYING:
        return ["get_up"] if last == "lie" or "lie" not in wanted else ["lie"]
    if holds:
        return ["put_down", *(a for a in ("stand", "walk") if a in wanted and a != last)]
    options = [a for a in actions if a not in ("sit", "stand_up", "lie", "get_up", "put_down") and a != last]
    if "sit_down" not in wanted and wanted & {"sit", "stand_up"}:
        options.append("sit_down")
    if "fall" not in wanted and wanted & {"lie", "get_up"}:
        options.append("fall")
    if "pick_up" not in wanted and "put_down" in wanted:
        options.append("pick_up")
    return options


def _way_to_go(rng: np.random.Generator, label: str, x: float, height: float, room: tuple[float, float]) -> float:
    """Where a walk or run from x ends: mostly towards the far side, where there is more room."""
    way = 1 if x < WIDTH / 2 else -1
    if rng.random() < 0.25:
        way = -way
    far = room[1] - x if way > 0 else x - room[0]
    least = (0.9 if label == "walk" else 1.6) * height
    if far < least:
        way, far = -way, (room[1] - x if way < 0 else x - room[0])
    return x + way * float(rng.uniform(min(least, far), far))


def _fall(rng: np.random.Generator, x: float, height: float) -> tuple[float, Manner]:
    """The direction and manner of a fall that ends inside the picture."""
    side = int(rng.integers(2))
    yaw = float(rng.choice((rng.uniform(0, 0.5), rng.uniform(np.pi - 0.5, np.pi))))
    lands = x + (1 if side else -1) * float(np.cos(yaw)) * height
    if not 0.05 * WIDTH < lands < 0.95 * WIDTH:
        side = 1 - side
    return yaw, Manner(side=side, phase=float(rng.random()))


def _direction(rng: np.random.Generator, label: str, yaw: float) -> float:
    """The direction in which somebody who faced `yaw` does a thing: where the camera sees it best."""
    if label == "pick_up":
        return float(rng.choice((rng.uniform(0, 0.6), rng.uniform(np.pi - 0.6, np.pi))))
    if label == "jumping_jack":
        return float(rng.uniform(1.0, 2.1))
    if label in ("wave", "bow", "stand", "jump", "squat"):
        return float(rng.uniform(0.35, np.pi - 0.35))
    if label in ("kick", "punch"):
        return float(rng.choice((rng.uniform(0, 0.9), rng.uniform(np.pi - 0.9, np.pi))))
    return yaw


def _travel(
    rng: np.random.Generator, label: str, t: float, x: float, target: float, *, height: float, holds: bool = False
) -> Stretch:
    way = 1 if target > x else -1
    pace = float(rng.uniform(0.5, 0.75) if label == "walk" else rng.uniform(1.05, 1.4))
    gait = Manner(
        rate=pace / (0.78 if label == "walk" else 0.95), reach=float(rng.uniform(0.85, 1.15)), phase=float(rng.random())
    )
    yaw = (0.0 if way > 0 else np.pi) + way * float(rng.uniform(-0.1, 0.45))
    return Stretch(label, t, t + abs(target - x) / (pace * height), x, target, yaw, gait, holds)
