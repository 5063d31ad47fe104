"""Who and what moves through a scene: people, vehicles, dogs, and fixtures that may hide them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from vidproc.demo.acts import Manner, act
from vidproc.demo.figure import figure, parcel
from vidproc.demo.looks import Look
from vidproc.demo.poses import Pose, carrying
from vidproc.demo.settings import WIDTH
from vidproc.demo.shapes import Colour, Shape
from vidproc.demo.things import bicycle, bus, car, dog, rider


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
        return figure(self.look, p, x, self.ground, self.height, yaw, holds=self.parcel_colour if holds else None)

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
    """Look of the rider, whose track is the next number."""

    def parts(self, t: float) -> list[Part]:
        x, way, come = self.x + self.speed * t, 1 if self.speed >= 0 else -1, abs(self.speed) * t
        if not -self.length < x < WIDTH + self.length:
            return []
        shadow = (x, self.ground, self.length * 0.52)
        if self.label == "car":
            shapes = car(self.colour, x, self.ground, self.length, way, come, style=self.style)
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


def pick_colour(rng: np.random.Generator, palette: Sequence[Colour]) -> Colour:
    r, g, b = np.clip(np.array(palette[int(rng.integers(len(palette)))]) + rng.integers(-10, 11, 3), 0, 255)
    return int(r), int(g), int(b)
