"""A scene as a function of its seed: pictures and boxes at any moment.

There are two kinds. `street` scenes have several people, vehicles and dogs that pass before and behind each other;
`activity` scenes have one main actor who does one thing after another.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from vidproc.demo.actors import Fixture, Part, Thing
from vidproc.demo.passers import passers
from vidproc.demo.performance import performance
from vidproc.demo.scenery import Place, scenery, vignette
from vidproc.demo.settings import HEIGHT, MARGIN, WIDTH, Kind, SceneSettings
from vidproc.demo.shapes import Image, bounds, paint, stamp
from vidproc.demo.truth import ActionSegment, Box, VideoTruth


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
        back = scenery(place, rng, WIDTH, HEIGHT, MARGIN)
        plain = np.full_like(back.picture, back.picture.mean((0, 1)))
        self._back = plain if settings.plain else back.picture
        self.segments: tuple[ActionSegment, ...] = ()
        if kind == "street":
            self.things: list[Thing] = [*passers(rng, place, settings.seconds)]
            self.things += [Fixture(ground, shapes) for ground, shapes in back.occluders]
        else:
            actor, others, seat = performance(rng, place, settings)
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
        move = np.array([[1, 0, dx - MARGIN], [0, 1, dy - MARGIN]], np.float64)
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
