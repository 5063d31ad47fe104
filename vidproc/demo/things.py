"""Cars, buses, bicycles with their riders, and dogs, seen from the side.

Each is drawn from its middle on the ground, `x`, `y`, at a size in pixels, going to the right (`way` 1) or to the
left (-1); `travelled` is how far it has come in pixels, which turns the wheels and moves the legs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vidproc.demo.looks import Look
from vidproc.demo.poses import HEAD, SHIN, THIGH
from vidproc.demo.shapes import Colour, Shape, box, capsule, disc, hull, polygon, shade

_TYRE, _RIM, _GLASS, _CHROME = (32, 32, 36), (172, 176, 182), (126, 166, 188), (220, 222, 224)
PAINTS: tuple[Colour, ...] = (
    (198, 52, 48), (232, 232, 228), (58, 62, 70), (64, 110, 168), (238, 186, 62), (88, 140, 106),
    (150, 154, 160), (120, 50, 70), (224, 122, 54), (40, 66, 106), (176, 200, 206),
)  # fmt: skip


def _placed(parts: list[Shape], x: float, y: float, size: float, way: int) -> list[Shape]:
    """From units (x forward, y up, 1 = size) to pixels."""
    scale, origin = np.array([way * size, -size], np.float32), np.array([x, y], np.float32)
    return [((points * scale + origin).astype(np.float32), colour) for points, colour in parts]


def _wheel(x: float, r: float, turn: float, spokes: int = 5) -> list[Shape]:
    out: list[Shape] = [(disc(x, r, r), _TYRE), (disc(x, r, r * 0.62), _RIM)]
    for i in range(spokes):
        a = turn + 2 * np.pi * i / spokes
        out.append((capsule((x, r), (x + 0.55 * r * np.cos(a), r + 0.55 * r * np.sin(a)), 0.09 * r), (110, 114, 120)))
    out.append((disc(x, r, r * 0.16), (70, 72, 78)))
    return out


def car(paint: Colour, x: float, y: float, length: float, way: int, travelled: float, *, style: int) -> list[Shape]:
    """Styles: 0 saloon, 1 hatchback, 2 van. `length` in pixels."""
    r = 0.098
    turn = -travelled / (r * length)
    if style == 2:
        shell = polygon(
            (-0.50, 0.10), (-0.50, 0.42), (-0.46, 0.49), (0.20, 0.49), (0.34, 0.34),
            (0.47, 0.28), (0.50, 0.20), (0.50, 0.09)
        )  # fmt: skip
        glass = [polygon((0.07, 0.29), (0.07, 0.44), (0.185, 0.44), (0.29, 0.31), (0.29, 0.29))]
        glass.append(polygon((-0.42, 0.30), (-0.42, 0.44), (-0.04, 0.44), (-0.04, 0.30)))
    elif style == 1:
        shell = polygon(
            (-0.48, 0.10), (-0.49, 0.24), (-0.43, 0.38), (-0.34, 0.42), (0.08, 0.42), (0.24, 0.28),
            (0.45, 0.23), (0.50, 0.17), (0.50, 0.09)
        )  # fmt: skip
        glass = [polygon((-0.08, 0.27), (-0.08, 0.385), (0.07, 0.385), (0.18, 0.27))]
        glass.append(polygon((-0.41, 0.27), (-0.36, 0.375), (-0.12, 0.385), (-0.12, 0.27)))
    else:
        shell = polygon(
            (-0.50, 0.10), (-0.50, 0.23), (-0.34, 0.27), (-0.22, 0.40), (0.07, 0.40), (0.21, 0.27),
            (0.44, 0.23), (0.50, 0.17), (0.50, 0.09)
        )  # fmt: skip
        glass = [polygon((-0.06, 0.27), (-0.06, 0.37), (0.06, 0.37), (0.16, 0.27))]
        glass.append(polygon((-0.28, 0.27), (-0.20, 0.37), (-0.10, 0.37), (-0.10, 0.27)))
    parts: list[Shape] = [(shell, paint), (box(-0.495, 0.085, 0.495, 0.135), shade(paint, 0.62))]
    parts.append((polygon((-0.49, 0.205), (-0.49, 0.225), (0.40, 0.225), (0.47, 0.195)), shade(paint, 1.28)))
    for pane in glass:
        parts.append((pane, _GLASS))
        low, high = pane.min(0), pane.max(0)
        w, h = high - low
        gleam = polygon(
            (low[0] + 0.35 * w, low[1] + 0.06 * h),
            (low[0] + 0.52 * w, high[1] - 0.08 * h),
            (low[0] + 0.66 * w, high[1] - 0.08 * h),
            (low[0] + 0.49 * w, low[1] + 0.06 * h),
        )
        parts.append((gleam, (176, 206, 220)))
    parts += [(box(0.445, 0.165, 0.498, 0.205), (255, 240, 190)), (box(-0.498, 0.165, -0.46, 0.22), (214, 54, 46))]
    parts.append((box(-0.005, 0.235, 0.035, 0.245), shade(paint, 0.6)))
    for at in (-0.31, 0.30):
        parts += [(disc(at, r * 1.18, r * 1.16), shade(paint, 0.4)), *_wheel(at, r, turn)]
    return _placed(parts, x, y, length, way)


def bus(paint: Colour, x: float, y: float, length: float, way: int, travelled: float) -> list[Shape]:
    r = 0.062
    turn = -travelled / (r * length)
    shell = polygon((-0.5, 0.06), (-0.5, 0.35), (-0.485, 0.375), (0.475, 0.375), (0.5, 0.34), (0.5, 0.06))
    parts: list[Shape] = [(shell, paint), (box(-0.5, 0.055, 0.5, 0.09), shade(paint, 0.55))]
    parts += [(box(-0.5, 0.155, 0.5, 0.172), (240, 240, 236)), (box(-0.485, 0.355, 0.478, 0.375), shade(paint, 1.25))]
    parts.append((box(-0.47, 0.205, 0.375, 0.325), (62, 78, 92)))
    for i in range(7):
        left = -0.46 + i * 0.119
        parts.append((box(left, 0.212, left + 0.105, 0.318), _GLASS))
        parts.append(
            (
                polygon((left + 0.02, 0.212), (left + 0.06, 0.318), (left + 0.08, 0.318), (left + 0.04, 0.212)),
                (168, 200, 214),
            )
        )
    parts += [(box(0.39, 0.085, 0.462, 0.325), (70, 84, 96)), (box(0.396, 0.095, 0.424, 0.318), _GLASS)]
    parts += [(box(0.428, 0.095, 0.456, 0.318), _GLASS), (box(0.475, 0.19, 0.5, 0.33), (150, 186, 204))]
    parts += [(box(0.478, 0.10, 0.5, 0.13), (255, 240, 190)), (box(-0.5, 0.10, -0.485, 0.15), (214, 54, 46))]
    for at in (-0.30, 0.28):
        parts += [(disc(at, r * 1.18, r * 1.16), shade(paint, 0.4)), *_wheel(at, r, turn, 6)]
    return _placed(parts, x, y, length, way)


# Middle of the pedals, saddle and handlebar of a bicycle one unit long.
_WHEEL_R, _AXLES, _CRANK = 0.20, (-0.30, 0.30), (-0.04, 0.17)
_SADDLE, _BAR = (-0.13, 0.50), (0.21, 0.55)
# Body height of the rider in lengths of the bicycle.
_RIDER = 1.02


def bicycle(paint: Colour, x: float, y: float, length: float, way: int, travelled: float) -> tuple[list[Shape], float]:
    """The shapes and the angle of the crank, with which `rider` sits on it."""
    turn = -travelled / (_WHEEL_R * length)
    parts: list[Shape] = []
    for axle in _AXLES:
        ring = np.linspace(0, 2 * np.pi, 25)
        circle = np.stack([axle + _WHEEL_R * np.cos(ring), _WHEEL_R + _WHEEL_R * np.sin(ring)], -1)
        inner = (circle - np.array([axle, _WHEEL_R])) * 0.84 + np.array([axle, _WHEEL_R])
        # A ring as one polygon: round the outside, then back along the inside.
        parts.append((np.concatenate([circle, inner[::-1]]).astype(np.float32), _TYRE))
        for i in range(6):
            a = turn + np.pi * i / 3
            rim = (axle + 0.17 * np.cos(a), _WHEEL_R + 0.17 * np.sin(a))
            parts.append((capsule((axle, _WHEEL_R), rim, 0.006), (188, 190, 194)))
    back, front = (_AXLES[0], _WHEEL_R), (_AXLES[1], _WHEEL_R)
    head = (0.20, 0.46)
    for begin, end in ((back, _CRANK), (_CRANK, head), (_CRANK, _SADDLE), (back, (-0.11, 0.44)), ((-0.11, 0.42), head)):
        parts.append((capsule(begin, end, 0.017), paint))
    parts += [(capsule(front, (0.19, 0.52), 0.016), shade(paint, 0.8)), (capsule((0.18, 0.53), _BAR, 0.016), _TYRE)]
    parts.append((capsule((-0.19, 0.505), (-0.07, 0.50), 0.022, 0.014), _TYRE))
    parts.append((disc(*_CRANK, 0.042), (74, 76, 82)))
    return _placed(parts, x, y, length, way), turn * 0.55


def _knee(hip: NDArray[np.float64], foot: NDArray[np.float64], thigh: float, shin: float) -> NDArray[np.float64]:
    """Where the knee is, bent forward, when hip and foot are known."""
    gap = foot - hip
    d = min(float(np.hypot(*gap)), (thigh + shin) * 0.999)
    along = (thigh**2 - shin**2 + d**2) / (2 * d)
    off = np.sqrt(max(thigh**2 - along**2, 0.0))
    unit = gap / max(float(np.hypot(*gap)), 1e-9)
    knee: NDArray[np.float64] = hip + along * unit + off * np.array([-unit[1], unit[0]])
    return knee


def rider(look: Look, x: float, y: float, length: float, way: int, crank: float) -> list[Shape]:
    """The person on a bicycle at the same place and size; `crank` is the angle of the pedals."""
    hip = np.array(_SADDLE) + np.array([0.0, 0.045])
    shoulder = hip + _RIDER * 0.29 * np.array([np.sin(0.55), np.cos(0.55)])
    far_leg, far_arm = _rider_limbs(look, hip, shoulder, crank + np.pi, 0.72)
    near_leg, near_arm = _rider_limbs(look, hip, shoulder, crank, 1.0)
    neck = shoulder + np.array([0.03, 0.075])
    head = neck + np.array([0.025, 0.06])
    trunk = [disc(float(p[0]), float(p[1]), r) for p, r in ((hip, 0.066), (shoulder, 0.060))]
    top = disc(head[0] - 0.008, head[1] + 0.004, HEAD * _RIDER * 1.04)
    body: list[Shape] = [
        (hull(np.concatenate(trunk)), look.shirt),
        (capsule((shoulder[0], shoulder[1]), (neck[0], neck[1]), 0.034), shade(look.skin, 0.86)),
        (disc(head[0], head[1], HEAD * _RIDER * 0.92, HEAD * _RIDER), look.skin),
        (hull(top[(top - head) @ np.array([-0.55, 0.83]) > 0.012]), look.hat or look.hair),
    ]
    return _placed([*far_leg, *far_arm, *body, *near_leg, *near_arm], x, y, length, way)


def _rider_limbs(
    look: Look, hip: NDArray[np.float64], shoulder: NDArray[np.float64], turn: float, light: float
) -> tuple[list[Shape], list[Shape]]:
    """The leg whose pedal stands at `turn`, and the arm of that side."""
    pedal = np.array(_CRANK) + 0.085 * np.array([np.cos(turn), np.sin(turn)])
    ankle = pedal + np.array([-0.03, 0.045])
    knee = _knee(hip, ankle, THIGH * _RIDER, SHIN * _RIDER)
    calf = look.trousers if look.long_trousers else look.skin
    leg: list[Shape] = [
        (capsule((hip[0], hip[1]), (knee[0], knee[1]), 0.056, 0.043), shade(look.trousers, light)),
        (capsule((knee[0], knee[1]), (ankle[0], ankle[1]), 0.042, 0.028), shade(calf, light)),
        (capsule((ankle[0], ankle[1]), (pedal[0] + 0.05, pedal[1] + 0.01), 0.026, 0.02), shade(look.shoes, light)),
    ]
    hand = np.array(_BAR)
    reach = shoulder + np.array([0.005, -0.02])
    elbow = (reach + hand) / 2 + np.array([-0.01, -0.045])
    sleeve = look.shirt if look.long_sleeves else look.skin
    arm: list[Shape] = [
        (capsule((reach[0], reach[1]), (elbow[0], elbow[1]), 0.038, 0.032), shade(look.shirt, light * 0.9)),
        (capsule((elbow[0], elbow[1]), (hand[0], hand[1]), 0.031, 0.025), shade(sleeve, light * 0.94)),
    ]
    return leg, arm


def dog(coat: Colour, x: float, y: float, length: float, way: int, travelled: float) -> list[Shape]:
    phase = 2 * np.pi * travelled / (0.85 * length)
    parts: list[Shape] = []
    for at, offset, dark in ((-0.24, 0.5, 0.7), (0.18, 0.0, 0.7), (-0.28, 0.0, 0.92), (0.14, 0.5, 0.92)):
        a = 0.45 * np.sin(phase + 2 * np.pi * offset)
        lift = 0.05 * max(0.0, float(np.cos(phase + 2 * np.pi * offset)))
        knee = (at + 0.13 * np.sin(a), 0.20)
        foot = (at + 0.27 * np.sin(a), 0.03 + lift)
        parts += [
            (capsule((at, 0.36), knee, 0.06, 0.045), shade(coat, dark)),
            (capsule(knee, foot, 0.042, 0.034), shade(coat, dark)),
        ]
    wag = 0.10 * np.sin(phase * 1.5)
    parts.append((capsule((-0.33, 0.46), (-0.50, 0.58 + wag), 0.035, 0.018), coat))
    parts.append((capsule((-0.26, 0.40), (0.20, 0.42), 0.125, 0.135), coat))
    parts.append((capsule((-0.24, 0.44), (0.18, 0.47), 0.05, 0.05), shade(coat, 1.12)))
    parts.append((capsule((0.22, 0.47), (0.34, 0.62), 0.09, 0.075), coat))
    parts += [(disc(0.36, 0.65, 0.105), coat), (capsule((0.38, 0.62), (0.49, 0.60), 0.06, 0.042), shade(coat, 1.08))]
    parts += [(disc(0.515, 0.615, 0.024), _TYRE), (disc(0.395, 0.685, 0.018), _TYRE)]
    parts.append((capsule((0.31, 0.71), (0.265, 0.60), 0.045, 0.03), shade(coat, 0.65)))
    parts.append((capsule((0.24, 0.535), (0.32, 0.50), 0.022), (200, 60, 56)))
    return _placed(parts, x, y, length, way)
