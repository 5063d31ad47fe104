"""Scenes of the synthetic world, and archives of them.

A scene is a function of its seed: everything in it, at any moment, follows from that. Two kinds: `street` scenes
have several people, vehicles and dogs that pass before and behind each other; `activity` scenes have one main actor
who does one thing after another. Seeds of scenes for training and for demonstrations never meet: `TRAIN_SEEDS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Literal, Protocol

import cv2
import numpy as np

from vidproc.demo.people import (
    ACTIONS,
    THIGH,
    Look,
    Manner,
    Pose,
    act,
    carrying,
    dress,
    figure,
    parcel,
)
from vidproc.demo.scenery import Place, scenery, vignette
from vidproc.demo.shapes import Colour, Image, Shape, bounds, box, disc, paint, shade, stamp
from vidproc.demo.things import PAINTS, bicycle, bus, car, dog, rider
from vidproc.demo.truth import ActionSegment, Box, Truth, VideoTruth

Kind = Literal["street", "activity"]

WIDTH: Final = 384
HEIGHT: Final = 288
_MARGIN: Final = 10

TRAIN_SEEDS: Final = range(0, 1_000_000)
"""Training draws from these, validation and demonstrations from above."""
VALIDATION_SEED: Final = 1_000_000
DEMO_SEED: Final = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSettings:
    seconds: float = 10.0
    fps: Fraction = Fraction(20)
    actions: tuple[str, ...] = ACTIONS
    """What the actor of an activity scene may do; see `people.ACTIONS` and `people.MORE_ACTIONS`."""
    noise: float = 1.0
    """Strength of sensor noise, shake and changes of light; 0 switches them off."""
    plain: bool = False
    """A plain wall behind everything: for what is to be learned within minutes."""

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.fps <= 0:
            raise ValueError(f"a scene needs a length and a frame rate above 0: {self}")


@dataclass(frozen=True, slots=True)
class Part:
    """Something to paint: scenery if it has no label."""

    label: str | None
    track_id: int
    ground: float
    """Line on which it stands, pixels from the top: what stands lower is nearer and hides what is behind."""
    shapes: list[Shape]
    shadow: tuple[float, float, float] | None = None
    """x, y, half width."""


class Thing(Protocol):
    def parts(self, t: float) -> list[Part]: ...


@dataclass(frozen=True, slots=True)
class Stretch:
    """One action of one person."""

    label: str
    start: float
    end: float
    x_start: float
    x_end: float
    yaw: float
    manner: Manner
    holds: bool = False
    """Carries a parcel all along (picking up and putting down carry it for their half)."""


@dataclass(frozen=True, slots=True)
class Person:
    track_id: int
    look: Look
    height: float
    ground: float
    timeline: tuple[Stretch, ...]
    parcel_colour: Colour = (196, 152, 100)

    def _stretch(self, t: float) -> int:
        for i, s in enumerate(self.timeline):
            if t < s.end:
                return i
        return len(self.timeline) - 1

    def _pose(self, s: Stretch, t: float) -> Pose:
        p = act(s.label, min(t, s.end) - s.start, s.end - s.start, s.manner)
        return carrying(p) if s.holds else p

    def _figure(self, t: float) -> list[Shape]:
        i = self._stretch(t)
        s = self.timeline[i]
        p, yaw, u = self._pose(s, t), s.yaw, min(max((t - s.start) / (s.end - s.start), 0.0), 1.0)
        x = s.x_start + (s.x_end - s.x_start) * u
        if i > 0:
            before = self.timeline[i - 1]
            # Bodies do not jump from one thing to the next: the old pose fades within a fifth of a second.
            fade = min((t - s.start) / 0.2, 1.0)
            if fade < 1:
                p = p * fade + self._pose(before, before.end) * (1 - fade)
            turn = min((t - s.start) / 0.3, 1.0)
            yaw = before.yaw + (s.yaw - before.yaw) * turn
        done = (t - s.start) / (s.end - s.start)
        holds = s.holds or (s.label == "pick_up" and done >= 0.5) or (s.label == "put_down" and done < 0.5)
        return figure(self.look, p, x, self.ground, self.height, yaw, self.parcel_colour if holds else None)

    def parts(self, t: float) -> list[Part]:
        shapes = self._figure(t)
        # The shadow lies below what is near the ground: the feet, or all of somebody who lies there.
        points = np.concatenate([p for p, _ in shapes])
        low = points[points[:, 1] > self.ground - 0.15 * self.height, 0]
        x0, x1 = (low.min(), low.max()) if len(low) else (points[:, 0].min(), points[:, 0].max())
        half = max(0.15 * self.height, 0.5 * float(x1 - x0) + 0.03 * self.height)
        shadow = (float(x0 + x1) / 2, self.ground, half)
        out = [Part("person", self.track_id, self.ground, shapes, shadow)]
        lying = self._parcel_on_floor(t)
        if lying is not None:
            out.append(Part(None, 0, self.ground + 0.5, parcel(lying, self.ground, self.height, self.parcel_colour)))
        return out

    def _parcel_on_floor(self, t: float) -> float | None:
        """Where the parcel lies, None while it is carried or if there is none."""
        i = self._stretch(t)
        done = (t - self.timeline[i].start) / (self.timeline[i].end - self.timeline[i].start)
        for j in range(i, len(self.timeline)):
            s = self.timeline[j]
            if s.label == "pick_up":
                return None if j == i and done >= 0.5 else self._parcel_x(s)
            if s.label == "put_down" or s.holds:
                break
        for j in range(i, -1, -1):
            s = self.timeline[j]
            if s.label == "put_down":
                return None if j == i and done < 0.5 else self._parcel_x(s)
            if s.label == "pick_up" or s.holds:
                break
        return None

    def _parcel_x(self, s: Stretch) -> float:
        return s.x_end + 0.33 * self.height * float(np.cos(s.yaw))


@dataclass(frozen=True, slots=True)
class Vehicle:
    label: Literal["car", "bus", "bicycle", "dog"]
    track_id: int
    colour: Colour
    style: int
    length: float
    ground: float
    x: float
    speed: float
    """Pixels a second, negative to the left."""
    look: Look | None = None
    """Of the rider, whose track is the next number."""

    def parts(self, t: float) -> list[Part]:
        x, way, come = self.x + self.speed * t, 1 if self.speed >= 0 else -1, abs(self.speed) * t
        if not -self.length < x < WIDTH + self.length:
            return []
        shadow = (x, self.ground, self.length * 0.52)
        if self.label == "car":
            shapes = car(self.colour, self.style, x, self.ground, self.length, way, come)
        elif self.label == "bus":
            shapes = bus(self.colour, x, self.ground, self.length, way, come)
        elif self.label == "dog":
            shapes = dog(self.colour, x, self.ground, self.length, way, come)
        else:
            shapes, crank = bicycle(self.colour, x, self.ground, self.length, way, come)
            out = [Part("bicycle", self.track_id, self.ground, shapes, shadow)]
            if self.look is not None:
                sat = rider(self.look, x, self.ground, self.length, way, crank)
                out.append(Part("person", self.track_id + 1, self.ground + 0.01, sat))
            return out
        return [Part(self.label, self.track_id, self.ground, shapes, shadow)]


@dataclass(frozen=True, slots=True)
class Fixture:
    """Scenery that may hide things: a post, a bush, a stool."""

    ground: float
    shapes: tuple[Shape, ...]

    def parts(self, t: float) -> list[Part]:
        return [Part(None, 0, self.ground, list(self.shapes))]


class Scene:
    """One scene; `Scene.generate` makes it from a seed."""

    def __init__(self, seed: int, kind: Kind, settings: SceneSettings) -> None:
        self.seed, self.kind, self.settings = seed, kind, settings
        rng = np.random.default_rng((seed, 0 if kind == "street" else 1))
        if kind == "street":
            place: Place = "street" if rng.random() < 0.62 else "park"
        else:
            place = ("room", "hall", "park", "street")[int(rng.choice(4, p=(0.4, 0.25, 0.25, 0.1)))]
        self.place = place
        back = scenery(place, rng, WIDTH, HEIGHT, _MARGIN)
        plain = np.full_like(back.picture, back.picture.mean((0, 1)))
        self._back = plain if settings.plain else back.picture
        self.segments: tuple[ActionSegment, ...] = ()
        if kind == "street":
            self.things: list[Thing] = [*_passers(rng, place, settings.seconds)]
            self.things += [Fixture(ground, shapes) for ground, shapes in back.occluders]
        else:
            actor, others, seat = _performance(rng, place, settings)
            self.things = [actor, *others, *([seat] if seat else [])]
            self.segments = tuple(
                ActionSegment(s.label, round(s.start, 6), round(min(s.end, settings.seconds), 6), actor.track_id)
                for s in actor.timeline
                if s.start < settings.seconds
            )
        strength = settings.noise
        self._shake = rng.uniform(0.0, 1.6, 2) * strength * (rng.random() < 0.6)
        self._shake_phase = rng.uniform(0, 2 * np.pi, 4)
        self._flicker = (
            float(rng.uniform(0, 0.07)) * strength,
            float(rng.uniform(0.1, 0.5)),
            float(rng.uniform(0, 6.3)),
        )
        self._blur = float(rng.uniform(0.0, 0.6)) * strength
        sigma = rng.uniform(1.0, 5.0) * strength
        grains = rng.normal(128, max(sigma, 1e-3), (HEIGHT + 64, WIDTH + 64, 1)) + rng.normal(
            0, 0.4 * sigma, (HEIGHT + 64, WIDTH + 64, 3)
        )
        self._grains = np.clip(np.round(grains), 0, 255).astype(np.uint8)
        fall = vignette(WIDTH, HEIGHT, float(rng.uniform(0.0, 0.22))).astype(np.float32)
        self._tint = np.round(fall * (np.array(back.light, np.float32) / 255)).astype(np.uint8)

    @classmethod
    def generate(cls, seed: int, settings: SceneSettings | None = None, *, kind: Kind = "street") -> Scene:
        """The same seed, kind and settings give the same scene on any machine."""
        return cls(seed, kind, settings or SceneSettings())

    @property
    def frame_count(self) -> int:
        return int(self.settings.seconds * self.settings.fps)

    def frame(self, i: int) -> Image:
        """uint8 (288, 384, 3) RGB: the frame shown from i / fps."""
        return self.picture(float(i / self.settings.fps))

    def boxes(self, i: int) -> tuple[Box, ...]:
        return self.boxes_at(float(i / self.settings.fps))

    def _parts(self, t: float) -> list[Part]:
        parts = [part for thing in self.things for part in thing.parts(t)]
        dx, dy = self._camera(t)
        offset = np.array([dx, dy], np.float32)
        moved = [
            replace(
                p,
                shapes=[(points + offset, colour) for points, colour in p.shapes],
                shadow=(p.shadow[0] + dx, p.shadow[1] + dy, p.shadow[2]) if p.shadow else None,
            )
            for p in parts
        ]
        return sorted(moved, key=lambda p: p.ground)

    def _camera(self, t: float) -> tuple[float, float]:
        a, b, c, d = self._shake_phase
        sx, sy = self._shake
        return (
            float(sx * (np.sin(7.1 * t + a) + 0.6 * np.sin(17.3 * t + b))),
            float(sy * (np.sin(8.3 * t + c) + 0.6 * np.sin(15.1 * t + d))),
        )

    def picture(self, t: float) -> Image:
        """uint8 (288, 384, 3) RGB at `t` seconds."""
        dx, dy = self._camera(t)
        move = np.array([[1, 0, dx - _MARGIN], [0, 1, dy - _MARGIN]], np.float64)
        image: Image = np.asarray(
            cv2.warpAffine(self._back, move, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
            dtype=np.uint8,
        )
        parts = self._parts(t)
        for part in parts:
            if part.shadow is not None:
                _darken(image, *part.shadow)
        for part in parts:
            paint(image, part.shapes)
        if self._blur > 0.25:
            cv2.GaussianBlur(image, (3, 3), self._blur, dst=image)
        size, rate, phase = self._flicker
        cv2.multiply(image, self._tint, dst=image, scale=(1 + size * np.sin(2 * np.pi * rate * t + phase)) / 255)
        if self.settings.noise > 0:
            y, x = np.random.default_rng((self.seed, round(t * 1e6))).integers(0, 64, 2)
            grains = self._grains[y : y + HEIGHT, x : x + WIDTH]
            cv2.addWeighted(image, 1.0, grains, 1.0, -128.0, dst=image)
        return image

    def boxes_at(self, t: float) -> tuple[Box, ...]:
        """What is visible of every object at `t` seconds, by track number."""
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        seen: list[tuple[Part, tuple[float, float, float, float]]] = []
        for part in self._parts(t):
            x0, y0, x1, y1 = extent = bounds(part.shapes)
            if x1 < 0 or y1 < 0 or x0 > WIDTH - 1 or y0 > HEIGHT - 1:
                continue
            number = 255
            if part.label is not None:
                seen.append((part, extent))
                number = len(seen)
            stamp(mask, part.shapes, number)
        out = []
        for number, (part, (x0, y0, x1, y1)) in enumerate(seen, start=1):
            left, top = max(int(x0) - 1, 0), max(int(y0) - 1, 0)
            mine = mask[top : int(y1) + 3, left : int(x1) + 3] == number
            columns, rows = np.flatnonzero(mine.any(0)), np.flatnonzero(mine.any(1))
            if len(columns) == 0:
                continue
            whole = np.zeros((int(y1 - y0) + 4, int(x1 - x0) + 4), np.uint8)
            corner = np.array([int(x0) - 1, int(y0) - 1], np.float32)
            stamp(whole, [(points - corner, c) for points, c in part.shapes], 1)
            out.append(
                Box(
                    part.label or "",
                    part.track_id,
                    float(left + columns[0]),
                    float(top + rows[0]),
                    float(left + columns[-1] + 1),
                    float(top + rows[-1] + 1),
                    round(min(float(mine.sum() / max(int(whole.sum()), 1)), 1.0), 3),
                )
            )
        return tuple(sorted(out, key=lambda b: b.track_id))

    def truth(self, name: str, *, boxes: bool = True) -> VideoTruth:
        """What is in every frame; `boxes=False` leaves them out, where only the actions are asked for."""
        frames = tuple(self.boxes(i) if boxes else () for i in range(self.frame_count))
        return VideoTruth(name, self.settings.fps, frames, self.segments)


def _darken(image: Image, x: float, y: float, half: float) -> None:
    """A soft shadow on the ground."""
    high = 0.16 * half + 2
    x0, x1, y0, y1 = int(x - half - 2), int(x + half + 3), int(y - high - 1), int(y + high + 2)
    a, b, c, d = max(x0, 0), min(x1, WIDTH), max(y0, 0), min(y1, HEIGHT)
    if a >= b or c >= d:
        return
    u, v = np.arange(a, b) - x, np.arange(c, d) - y
    depth = np.clip(1.25 - ((u / half) ** 2)[None] - ((v / high) ** 2)[:, None], 0, 1) * 0.42
    image[c:d, a:b] = (image[c:d, a:b] * (1 - depth[..., None])).astype(np.uint8)


# --- who and what passes in a street or a park ---------------------------------------------------------------------

_COATS: tuple[Colour, ...] = ((150, 104, 62), (62, 56, 52), (222, 206, 180), (176, 132, 84), (128, 126, 128))


def _size_at(ground: float) -> float:
    """Height of a person who stands at that line."""
    return 0.70 * (ground - 0.30 * HEIGHT)


def _moving(rng: np.random.Generator, seconds: float, speed: float) -> float:
    """Where to start, so that one is in the picture for a good part of the scene."""
    middle_at, middle = rng.uniform(0.1, 0.9) * seconds, rng.uniform(0.1, 0.9) * WIDTH
    return float(middle - speed * middle_at)


def _passers(rng: np.random.Generator, place: Place, seconds: float) -> Iterator[Thing]:
    number = 1
    people = int(rng.integers(2, 7))
    for _ in range(people):
        pavement = (0.530, 0.568) if rng.random() < 0.35 else (0.845, 0.985)
        band = pavement if place == "street" else (0.56, 0.985)
        ground = float(rng.uniform(*band) * HEIGHT)
        person = _pedestrian(rng, number, ground, seconds)
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
            yield Vehicle("dog", number, _one(rng, _COATS), 0, length, near, first.x_start + ahead, speed)
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
                yield Vehicle("bus", number, _one(rng, PAINTS), 0, length, ground, x, speed)
            else:
                length = size * float(rng.uniform(1.75, 2.05))
                style = int(rng.integers(3))
                yield Vehicle("car", number, _one(rng, PAINTS), style, length, ground, x, speed)
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
        yield Vehicle("bicycle", number, _one(rng, PAINTS), 0, length, ground, x, speed, dress(rng))
        number += 2
    if place == "park" and rng.random() < 0.3:
        ground = float(rng.uniform(0.6, 0.95) * HEIGHT)
        length = _size_at(ground) * float(rng.uniform(0.45, 0.6))
        speed = float(rng.choice((-1, 1)) * rng.uniform(0.7, 1.6) * length)
        yield Vehicle("dog", number, _one(rng, _COATS), 0, length, ground, _moving(rng, seconds, speed), speed)


def _one(rng: np.random.Generator, palette: Sequence[Colour]) -> Colour:
    r, g, b = np.clip(np.array(palette[int(rng.integers(len(palette)))]) + rng.integers(-10, 11, 3), 0, 255)
    return int(r), int(g), int(b)


def _pedestrian(rng: np.random.Generator, number: int, ground: float, seconds: float) -> Person:
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


# --- one actor, one thing after another ----------------------------------------------------------------------------

# How long each thing takes, seconds. Walks and runs take as long as the way is.
_SECONDS: dict[str, tuple[float, float]] = {
    "stand": (1.5, 2.8), "jump": (1.8, 3.0), "wave": (1.7, 2.8), "sit_down": (1.1, 1.7), "sit": (1.5, 2.6),
    "stand_up": (1.1, 1.7), "fall": (1.0, 1.4), "lie": (1.5, 2.6), "get_up": (1.3, 1.9), "jumping_jack": (2.0, 3.0),
    "squat": (2.2, 3.4), "kick": (1.8, 2.8), "bow": (1.9, 2.4), "punch": (1.8, 2.8),
    "pick_up": (1.3, 1.9), "put_down": (1.3, 1.9),
}  # fmt: skip


def _performance(
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
            ground - 1, tuple(_stool(seat_x, ground - 0.03 * height * np.sin(yaw), height, _one(rng, _WOODS)))
        )
    others: list[Thing] = []
    if place in ("park", "street") and rng.random() < 0.35:
        line = float(rng.uniform(0.535, 0.60) * HEIGHT)
        others.append(_pedestrian(rng, 2, line, settings.seconds))
    return Person(1, dress(rng), height, ground, timeline, _one(rng, _WOODS)), others, seat


_WOODS: tuple[Colour, ...] = ((196, 152, 100), (150, 104, 70), (206, 176, 136), (92, 112, 134), (176, 84, 72))


def _stool(x: float, ground: float, height: float, colour: Colour) -> list[Shape]:
    top, half = ground - 0.20 * height, 0.115 * height
    legs: list[Shape] = [
        (box(x + at * half - 0.012 * height, top, x + at * half + 0.012 * height, ground + dy), shade(colour, 0.7))
        for at, dy in ((-0.55, -3), (0.55, -3), (-0.8, 0), (0.8, 0))
    ]
    rim: Shape = (disc(x, top + 0.022 * height, half, 0.030 * height), shade(colour, 0.8))
    return [*legs, rim, (disc(x, top, half, 0.030 * height), colour)]


def _sequence(
    rng: np.random.Generator, settings: SceneSettings, height: float, seat_x: float | None
) -> Iterator[Stretch]:
    """One thing after another: who sits must stand up again, who falls must get up, and so on."""
    wanted = set(settings.actions)
    room = (0.30 * height, WIDTH - 0.30 * height)
    t, x, state, holds = 0.0, float(rng.uniform(*room)), "up", False
    yaw, manner = float(rng.uniform(0.2, np.pi - 0.2)), Manner()
    last = ""
    while t < settings.seconds:
        if state == "sitting":
            options = ["stand_up"] if last == "sit" or "sit" not in wanted else ["sit"]
        elif state == "lying":
            options = ["get_up"] if last == "lie" or "lie" not in wanted else ["lie"]
        else:
            options = [
                a for a in settings.actions if a not in ("sit", "stand_up", "lie", "get_up", "put_down") and a != last
            ]
            if holds:
                options = ["put_down", *(a for a in ("stand", "walk") if a in wanted and a != last)]
            if "sit_down" not in wanted and wanted & {"sit", "stand_up"} and not holds:
                options.append("sit_down")
            if "fall" not in wanted and wanted & {"lie", "get_up"} and not holds:
                options.append("fall")
            if "pick_up" not in wanted and "put_down" in wanted and not holds:
                options.append("pick_up")
        label = str(rng.choice(options or [last]))
        if label == "sit_down" and seat_x is not None:
            yaw = float(rng.choice((rng.uniform(0.0, 0.8), rng.uniform(np.pi - 0.8, np.pi), rng.uniform(0.9, 2.2))))
            feet = seat_x + THIGH * height * float(np.cos(yaw))
            # The stool is where it is: walk there first.
            if abs(feet - x) > 0.05 * height:
                walk = _travel(rng, "walk", t, x, feet, height)
                yield walk
                t, x = walk.end, feet
        elif label in ("walk", "run"):
            way = 1 if x < WIDTH / 2 else -1
            if rng.random() < 0.25:
                way = -way
            far = room[1] - x if way > 0 else x - room[0]
            least = (0.9 if label == "walk" else 1.6) * height
            if far < least:
                way, far = -way, (room[1] - x if way < 0 else x - room[0])
            target = x + way * float(rng.uniform(min(least, far), far))
            if abs(target - x) < 0.6 * height:
                if len(options) > 1:
                    continue
                target = room[0] if x > WIDTH / 2 else room[1]
            step = _travel(rng, label, t, x, target, height, holds)
            yield step
            t, x, yaw, last = step.end, target, step.yaw, label
            continue
        elif label == "fall":
            side = int(rng.integers(2))
            yaw = float(rng.choice((rng.uniform(0, 0.5), rng.uniform(np.pi - 0.5, np.pi))))
            lands = x + (1 if side else -1) * float(np.cos(yaw)) * height
            if not 0.05 * WIDTH < lands < 0.95 * WIDTH:
                side = 1 - side
            manner = Manner(side=side, phase=float(rng.random()))
        elif label == "pick_up":
            yaw = float(rng.choice((rng.uniform(0, 0.6), rng.uniform(np.pi - 0.6, np.pi))))
        elif label in ("jumping_jack", "wave", "bow", "stand", "jump", "squat"):
            yaw = float(rng.uniform(0.35, np.pi - 0.35)) if label != "jumping_jack" else float(rng.uniform(1.0, 2.1))
        elif label in ("kick", "punch"):
            yaw = float(rng.choice((rng.uniform(0, 0.9), rng.uniform(np.pi - 0.9, np.pi))))
        if label not in ("lie", "get_up"):
            low, high = (1.5, 2.3) if label == "wave" else (1.0, 1.35)
            fresh = Manner(
                float(rng.uniform(low, high)), float(rng.uniform(0.85, 1.15)), float(rng.random()), int(rng.integers(2))
            )
            manner = manner if label == "fall" else fresh
        end = t + float(rng.uniform(*_SECONDS[label]))
        yield Stretch(label, t, end, x, x, yaw, manner, holds and label != "put_down")
        t, last = end, label
        if label in ("sit_down", "sit"):
            state = "sitting"
        elif label in ("fall", "lie"):
            state = "lying"
        else:
            state = "up"
        holds = label == "pick_up" or (holds and label != "put_down")


def _travel(
    rng: np.random.Generator, label: str, t: float, x: float, target: float, height: float, holds: bool = False
) -> Stretch:
    way = 1 if target > x else -1
    pace = float(rng.uniform(0.5, 0.75) if label == "walk" else rng.uniform(1.05, 1.4))
    gait = Manner(
        rate=pace / (0.78 if label == "walk" else 0.95), reach=float(rng.uniform(0.85, 1.15)), phase=float(rng.random())
    )
    yaw = (0.0 if way > 0 else np.pi) + way * float(rng.uniform(-0.1, 0.45))
    return Stretch(label, t, t + abs(target - x) / (pace * height), x, target, yaw, gait, holds)


# --- archives ------------------------------------------------------------------------------------------------------

_CAMERAS: dict[Kind, tuple[str, ...]] = {"street": ("gate-north", "market-street"), "activity": ("hall-1", "studio")}
RECORDED_PATTERN: Final = "%Y-%m-%d_%H-%M-%S"
"""Of the names of drawn videos (without folder and ending): when they were recorded, UTC."""


@dataclass(frozen=True, slots=True)
class _Order:
    """One video to draw."""

    name: str
    path: str
    seed: int
    kind: Kind
    settings: SceneSettings
    gop: int
    b_frames: int
    recorded_at: datetime


def draw_archive(
    folder: Path,
    n_videos: int = 12,
    seed: int = DEMO_SEED,
    *,
    settings: SceneSettings | None = None,
    workers: int = 1,
) -> Truth:
    """Draws H.264 MP4 files and `truth.json` into `folder`; street and activity scenes by turns.

    Frame rates, groups of pictures and B-frames vary from file to file. The truth is returned as well.
    """
    base = settings or SceneSettings()
    orders = list(_orders(folder, n_videos, seed, base, vary_fps=settings is None))
    for order in orders:
        Path(order.path).parent.mkdir(parents=True, exist_ok=True)
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            truth = Truth(tuple(pool.map(_draw, orders)))
    else:
        truth = Truth(tuple(_draw(order) for order in orders))
    truth.save(folder / "truth.json")
    return truth


def _orders(folder: Path, n: int, seed: int, base: SceneSettings, *, vary_fps: bool) -> Iterator[_Order]:
    rng = np.random.default_rng(seed)
    start = datetime(2025, 3, 3, 6, 0, tzinfo=UTC)
    for i in range(n):
        kind: Kind = "street" if i % 2 == 0 else "activity"
        camera = _CAMERAS[kind][(i // 2) % 2]
        at = start + timedelta(minutes=97 * i, seconds=int(rng.integers(60)))
        name = f"{camera}/{at.strftime(RECORDED_PATTERN)}.mp4"
        fps = Fraction(int(rng.choice((15, 20, 24, 25)))) if vary_fps else base.fps
        gop, b_frames = int(rng.choice((12, 30, 60, 125))), int(rng.choice((0, 2, 3)))
        yield _Order(name, str(folder / name), seed + i, kind, replace(base, fps=fps), gop, b_frames, at)


def _draw(order: _Order) -> VideoTruth:
    cv2.setNumThreads(1)
    scene = Scene.generate(order.seed, order.settings, kind=order.kind)
    write_video(
        Path(order.path),
        (scene.frame(i) for i in range(scene.frame_count)),
        fps=order.settings.fps,
        gop=order.gop,
        b_frames=order.b_frames,
        recorded_at=order.recorded_at,
    )
    return scene.truth(order.name)


def write_video(
    path: Path,
    frames: Iterator[Image],
    *,
    fps: Fraction,
    gop: int = 30,
    b_frames: int = 2,
    recorded_at: datetime | None = None,
    crf: int = 21,
) -> None:
    """Encodes uint8 (h, w, 3) RGB frames as H.264 in MP4; frame i is shown at exactly i / fps."""
    import av

    with av.open(str(path), "w") as out:
        if recorded_at is not None:
            out.metadata["creation_time"] = recorded_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        stream = out.add_stream("libx264", rate=fps)
        # One thread: the same bytes in every run.
        stream.options = {"crf": str(crf), "preset": "veryfast", "g": str(gop), "bf": str(b_frames), "threads": "1"}
        stream.pix_fmt = "yuv420p"
        for i, pixels in enumerate(frames):
            if i == 0:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, 1 / fps
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
