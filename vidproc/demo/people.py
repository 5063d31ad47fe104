"""A jointed figure seen from any side, and what it can do.

Lengths are in body heights. A pose is a vector of joint angles (radians); the height of the hips follows from it,
since the lowest part of the body rests on the ground. Actions are functions from seconds to poses. `ACTIONS`
are those that the embedded model knows; `MORE_ACTIONS` are drawn as well, for what is to be learned from a few
examples. Some pairs share their single frames and differ in time alone: `REVERSED`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vidproc.demo.shapes import Colour, Shape, box, capsules, disc, hull, shade

ACTIONS: Final = ("stand", "walk", "run", "jump", "wave", "sit_down", "sit", "stand_up", "fall", "lie", "get_up")
MORE_ACTIONS: Final = ("jumping_jack", "squat", "kick", "bow", "punch", "pick_up", "put_down")
REVERSED: Final = (("sit_down", "stand_up"), ("pick_up", "put_down"))

Pose = NDArray[np.float64]
_JOINTS = [
    "body_pitch",
    "torso_pitch",
    "head_pitch",
    "lift",
    "shift",
    "hip_l",
    "knee_l",
    "leg_out_l",
    "hip_r",
    "knee_r",
    "leg_out_r",
    "arm_l",
    "elbow_l",
    "arm_out_l",
    "arm_r",
    "elbow_r",
    "arm_out_r",
]
_AT = {name: i for i, name in enumerate(_JOINTS)}

THIGH, SHIN, FOOT = 0.235, 0.225, 0.10
UPPER_ARM, FOREARM = 0.155, 0.165
TORSO, NECK, HEAD = 0.29, 0.055, 0.078


def pose(**angles: float) -> Pose:
    """Standing straight but for the angles given; `hip`, `knee`, `arm`, ... without a side mean both sides."""
    out = np.zeros(len(_JOINTS))
    out[_AT["arm_out_l"]] = out[_AT["arm_out_r"]] = 0.10
    out[_AT["elbow_l"]] = out[_AT["elbow_r"]] = 0.15
    for name, value in angles.items():
        for key in (name,) if name in _AT else (f"{name}_l", f"{name}_r"):
            out[_AT[key]] = value
    return out


STANDING = pose()
# The feet stay where they are: the hips move back by the length of the thigh.
SITTING = pose(hip=1.5, knee=1.5, torso_pitch=0.05, arm=0.55, elbow=0.75, shift=-THIGH)
CROUCHED = pose(hip=1.9, knee=2.2, torso_pitch=0.5, arm=0.9, elbow=0.4, shift=-0.08)
REACHING = pose(hip=1.35, knee=1.5, torso_pitch=0.95, arm=1.1, elbow=0.05, head_pitch=0.2, shift=-0.10)
CARRYING = pose(arm=0.5, elbow=0.95, arm_out=0.02)


def _between(a: Pose, b: Pose, t: float) -> Pose:
    return a + (b - a) * t


def _ease(s: float) -> float:
    """0 to 1, a little softer than a straight line: a movement that shows from its first moment."""
    s = min(max(s, 0.0), 1.0)
    return 0.55 * s + 0.45 * s * s * (3 - 2 * s)


@dataclass(frozen=True, slots=True)
class Manner:
    """How one person does a thing this time, all drawn by the scene's seed."""

    rate: float = 1.0
    """Cycles a second, for what repeats."""
    reach: float = 1.0
    """Size of the movement, 1 is usual."""
    phase: float = 0.0
    side: int = 0
    """0 left, 1 right: the waving hand, the kicking leg; forward or backward for a fall."""


Act = Callable[[float, float, Manner], Pose]
"""(seconds since the start, duration, manner) -> pose."""


def _stand(t: float, d: float, m: Manner) -> Pose:
    sway = np.sin(2 * np.pi * (0.35 * m.rate * t + m.phase))
    return pose(torso_pitch=0.02 + 0.015 * sway, arm=0.04 * sway, head_pitch=0.10 * np.sin(1.1 * t + 6 * m.phase))


def _stride(t: float, m: Manner, swing: float, bend: float, rest: float, arm: float, elbow: float) -> Pose:
    phi = 2 * np.pi * (m.rate * t + m.phase)
    s, c, swing = np.sin(phi), np.cos(phi), swing * m.reach
    return pose(
        hip_l=swing * s + 0.08,
        hip_r=-swing * s + 0.08,
        knee_l=rest + bend * max(0.0, c) + 0.1 * max(0.0, -s),
        knee_r=rest + bend * max(0.0, -c) + 0.1 * max(0.0, s),
        arm_l=-arm * s,
        arm_r=arm * s,
        elbow=elbow,
        elbow_l=elbow + 0.2 * max(0.0, -s),
        elbow_r=elbow + 0.2 * max(0.0, s),
    )


def _walk(t: float, d: float, m: Manner) -> Pose:
    out = _stride(t, m, 0.46, 0.75, 0.08, 0.42, 0.22)
    out[_AT["torso_pitch"]] = 0.04
    return out


def _run(t: float, d: float, m: Manner) -> Pose:
    out = _stride(t, m, 0.85, 1.45, 0.25, 0.85, 1.45)
    out[_AT["torso_pitch"]] = 0.22
    out[_AT["lift"]] = 0.05 * abs(np.cos(2 * np.pi * (m.rate * t + m.phase)))
    return out


def _jump(t: float, d: float, m: Manner) -> Pose:
    u = (m.rate * t) % 1.0
    low = pose(hip=0.95, knee=1.25, torso_pitch=0.35, arm=-0.7, shift=-0.04)
    if u < 0.45:
        return _between(STANDING, low, np.sin(np.pi * u / 0.45))
    v = (u - 0.45) / 0.55
    height = 4 * v * (1 - v)
    high = pose(hip=0.25, knee=0.45, arm=2.3, elbow=0.3, arm_out=0.35, lift=0.24 * m.reach)
    out = _between(STANDING, high, height)
    return out


def _wave(t: float, d: float, m: Manner) -> Pose:
    beat = np.sin(2 * np.pi * (m.rate * t + m.phase))
    side = "lr"[m.side % 2]
    raised = pose(**{f"arm_{side}": 0.5 + 0.15 * beat, f"arm_out_{side}": 2.35 + 0.6 * beat * m.reach})
    raised[_AT[f"elbow_{side}"]] = 0.55 - 0.35 * beat
    return raised


def _sit_down(t: float, d: float, m: Manner) -> Pose:
    s = _ease(t / d)
    out = _between(STANDING, SITTING, s)
    out[_AT["torso_pitch"]] += 0.55 * np.sin(np.pi * s)
    out[_AT["arm_l"]] += 0.5 * np.sin(np.pi * s)
    out[_AT["arm_r"]] += 0.5 * np.sin(np.pi * s)
    return out


def _stand_up(t: float, d: float, m: Manner) -> Pose:
    return _sit_down(d - t, d, m)


def _sit(t: float, d: float, m: Manner) -> Pose:
    out = SITTING.copy()
    out[_AT["torso_pitch"]] += 0.03 * np.sin(2 * np.pi * (0.3 * m.rate * t + m.phase))
    out[_AT["head_pitch"]] = 0.15 * np.sin(0.9 * t + 6 * m.phase)
    return out


def _lying(m: Manner) -> Pose:
    way = 1.0 if m.side % 2 else -1.0
    return pose(body_pitch=1.5 * way, arm=0.0, arm_out=0.35, elbow=0.1, hip_l=0.12, knee_l=0.25, shift=0.46 * way)


def _fall(t: float, d: float, m: Manner) -> Pose:
    s = min(max(t / d, 0.0), 1.0)
    s = 0.45 * s + 0.55 * s * s
    way = 1.0 if m.side % 2 else -1.0
    pitch = 1.5 * s
    out = _between(STANDING, _lying(m), s)
    out[_AT["body_pitch"]] = way * pitch
    out[_AT["shift"]] = way * 0.46 * np.sin(pitch)
    flail = np.sin(np.pi * s)
    for side in "lr":
        out[_AT[f"arm_{side}"]] += 1.6 * flail
        out[_AT[f"arm_out_{side}"]] += 0.6 * flail
        out[_AT[f"knee_{side}"]] += 0.5 * flail
        out[_AT[f"hip_{side}"]] += 0.3 * flail
    return out


def _lie(t: float, d: float, m: Manner) -> Pose:
    out = _lying(m)
    out[_AT["arm_l"]] += 0.05 * np.sin(1.3 * t)
    return out


def _get_up(t: float, d: float, m: Manner) -> Pose:
    s = _ease(t / d)
    return _between(_lying(m), CROUCHED, s / 0.5) if s < 0.5 else _between(CROUCHED, STANDING, (s - 0.5) / 0.5)


def _jumping_jack(t: float, d: float, m: Manner) -> Pose:
    s = 0.5 - 0.5 * np.cos(2 * np.pi * m.rate * t)
    lift = 0.06 * abs(np.sin(2 * np.pi * m.rate * t))
    return _between(STANDING, pose(leg_out=0.42, arm_out=2.7, lift=0.0), s) + pose(lift=lift) - STANDING


def _squat(t: float, d: float, m: Manner) -> Pose:
    s = 0.5 - 0.5 * np.cos(2 * np.pi * 0.6 * m.rate * t)
    return _between(STANDING, pose(hip=1.75, knee=2.0, torso_pitch=0.45, arm=1.3, elbow=0.1, shift=-0.12), s)


def _kick(t: float, d: float, m: Manner) -> Pose:
    s = max(0.0, np.sin(2 * np.pi * 0.8 * m.rate * t))
    side = "lr"[m.side % 2]
    high = pose(torso_pitch=-0.25, arm=0.5, elbow=1.2)
    high[_AT[f"hip_{side}"]] = 1.45 * m.reach
    high[_AT[f"knee_{side}"]] = 0.15
    out = _between(STANDING, high, s)
    out[_AT[f"knee_{side}"]] += 0.9 * np.sin(np.pi * s)
    return out


def _bow(t: float, d: float, m: Manner) -> Pose:
    s = 0.5 - 0.5 * np.cos(2 * np.pi * 0.5 * m.rate * t)
    return _between(STANDING, pose(torso_pitch=1.15 * m.reach, head_pitch=0.3, arm=-0.1, shift=-0.06), s)


def _punch(t: float, d: float, m: Manner) -> Pose:
    beat = np.sin(2 * np.pi * 1.1 * m.rate * t)
    left, right = max(0.0, beat), max(0.0, -beat)
    return pose(
        arm_l=0.5 + 1.0 * left,
        elbow_l=2.0 - 1.9 * left,
        arm_r=0.5 + 1.0 * right,
        elbow_r=2.0 - 1.9 * right,
        hip_l=0.25,
        knee_l=0.25,
        hip_r=-0.2,
        knee_r=0.15,
        torso_pitch=0.1,
    )


def _pick_up(t: float, d: float, m: Manner) -> Pose:
    s = _ease(t / d) * 2
    return _between(STANDING, REACHING, s) if s < 1 else _between(REACHING, CARRYING, s - 1)


def _put_down(t: float, d: float, m: Manner) -> Pose:
    return _pick_up(d - t, d, m)


_ACTS: dict[str, Act] = {
    "stand": _stand,
    "walk": _walk,
    "run": _run,
    "jump": _jump,
    "wave": _wave,
    "sit_down": _sit_down,
    "sit": _sit,
    "stand_up": _stand_up,
    "fall": _fall,
    "lie": _lie,
    "get_up": _get_up,
    "jumping_jack": _jumping_jack,
    "squat": _squat,
    "kick": _kick,
    "bow": _bow,
    "punch": _punch,
    "pick_up": _pick_up,
    "put_down": _put_down,
}


def act(label: str, t: float, duration: float, manner: Manner) -> Pose:
    """The pose of an action `t` seconds after its start."""
    return _ACTS[label](t, duration, manner)


def carrying(p: Pose, amount: float = 1.0) -> Pose:
    """The same pose with both arms holding something before the body."""
    out = p.copy()
    for side in "lr":
        for joint in ("arm", "elbow", "arm_out"):
            i = _AT[f"{joint}_{side}"]
            out[i] += (CARRYING[i] - out[i]) * amount
    return out


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


# A camera a little above the ground sees depth as height: this much of a body height per body height.
_TILT = 0.13


def _rotation(angle: float) -> NDArray[np.float64]:
    """Pitch forward by `angle` in (forward, up, left) coordinates."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def figure(
    look: Look, p: Pose, x: float, y: float, height: float, yaw: float, holds: Colour | None = None
) -> list[Shape]:
    """The person in pose `p` on the ground at pixel (x, y), `height` pixels tall, facing `yaw`: 0 to the right,
    pi/2 to the camera, pi to the left. `holds`: the colour of a box carried in both hands."""
    a = dict(zip(_JOINTS, p, strict=True))
    body = _rotation(a["body_pitch"])
    torso = body @ _rotation(a["torso_pitch"])
    hip_mid = np.zeros(3)
    neck = torso @ np.array([0, TORSO, 0])
    head = neck + torso @ _rotation(a["head_pitch"]) @ np.array([0.012, NECK + HEAD * 0.75, 0])
    joints: dict[str, NDArray[np.float64]] = {"neck": neck, "head": head}
    for side, sign in (("l", 1.0), ("r", -1.0)):
        hip = body @ np.array([0, 0, 0.055 * sign * look.build])
        flex, bend, out = a[f"hip_{side}"], a[f"knee_{side}"], a[f"leg_out_{side}"] * sign
        knee = hip + THIGH * (body @ _limb(flex, out))
        ankle = knee + SHIN * (body @ _limb(flex - bend, out))
        tilt = 0.35 * (flex - bend)
        toe = ankle + FOOT * (body @ np.array([np.cos(tilt), np.sin(tilt) - 0.12, 0.12 * sign]))
        shoulder = torso @ np.array([0, TORSO - 0.025, 0.108 * sign * look.build])
        raise_, fold, out = a[f"arm_{side}"], a[f"elbow_{side}"], a[f"arm_out_{side}"] * sign
        elbow = shoulder + UPPER_ARM * (torso @ _limb(raise_, out))
        hand = elbow + FOREARM * (torso @ _limb(raise_ + fold, out * 0.9))
        joints |= {
            f"{n}_{side}": j
            for n, j in zip(
                ("hip", "knee", "ankle", "toe", "shoulder", "elbow", "hand"),
                (hip, knee, ankle, toe, shoulder, elbow, hand),
                strict=True,
            )
        }
    names = list(joints)
    points = np.stack([hip_mid, *(joints[n] for n in names)])
    # The lowest joint rests on the ground, as thick as the body is there.
    ground = min(float(points[:, 1].min()) - 0.025, float(min(joints["hip_l"][1], neck[1])) - 0.06)
    points[:, 1] += a["lift"] - ground
    points[:, 0] += a["shift"]
    forward, left = np.array([np.cos(yaw), np.sin(yaw)]), np.array([np.sin(yaw), -np.cos(yaw)])
    near = points[:, 0] * forward[1] + points[:, 2] * left[1]
    screen = np.stack(
        [
            x + height * (points[:, 0] * forward[0] + points[:, 2] * left[0]),
            y - height * (points[:, 1] - _TILT * near),
        ],
        -1,
    )
    at = {n: screen[i + 1] for i, n in enumerate(names)}
    depth = {n: float(near[i + 1]) for i, n in enumerate(names)}

    k = height * look.build
    sleeve = look.shirt if look.long_sleeves else look.skin
    leg = look.trousers if look.long_trousers else look.skin
    limbs: list[tuple[str, str, float, float, Colour]] = []
    for side in "lr":
        limbs += [
            (f"hip_{side}", f"knee_{side}", 0.055, 0.042, look.trousers),
            (f"knee_{side}", f"ankle_{side}", 0.041, 0.028, leg),
            (f"ankle_{side}", f"toe_{side}", 0.028, 0.022, look.shoes),
            (f"shoulder_{side}", f"elbow_{side}", 0.038, 0.031, look.shirt),
            (f"elbow_{side}", f"hand_{side}", 0.031, 0.024, sleeve),
        ]
    outlines = capsules(
        np.stack([at[b] for b, *_ in limbs]),
        np.stack([at[e] for _, e, *_ in limbs]),
        np.array([r for *_, r, _, _ in limbs]) * k,
        np.array([r for *_, r, _ in limbs]) * k,
    )
    # Parts in order of depth; what is farther is darker, which tells the two legs apart.
    parts: list[tuple[float, list[Shape]]] = []
    for (begin, end, _, _, colour), outline in zip(limbs, outlines, strict=True):
        d = (depth[begin] + depth[end]) / 2
        here: list[Shape] = [(outline, shade(colour, 0.72 if d < -0.02 else 1.0))]
        if begin.startswith("elbow"):
            here.append(
                (disc(float(at[end][0]), float(at[end][1]), 0.028 * k), shade(look.skin, 0.78 if d < -0.02 else 1.0))
            )
        # Legs hang below the torso: paint them before it unless they reach well in front.
        lower = begin.startswith(("hip", "knee", "ankle"))
        parts.append((d - (0.04 if lower else 0), here))
    parts.append((0.0, _torso(look, at, k, forward)))
    parts.append((0.03 + 0.05 * float(forward[1]), _head(look, at, height, forward)))
    if look.backpack is not None:
        back = (at["neck"] + screen[0]) / 2 - np.array([forward[0] * 0.105 * k, 0])
        axis = (at["neck"] - screen[0]) * 0.27
        pack = capsules((back - axis)[None], (back + axis)[None], np.array([0.062 * k]), np.array([0.055 * k]))[0]
        parts.append((-0.05 * float(forward[1]) - 0.015, [(pack, look.backpack)]))
    hands = (at["hand_l"] + at["hand_r"]) / 2
    if holds is not None:
        parts.append((0.06 if forward[1] >= -0.2 else -0.2, parcel(hands[0], hands[1] + 0.05 * height, height, holds)))
    parts.sort(key=lambda part: part[0])
    return [s for _, shapes in parts for s in shapes]


def _limb(flex: float, out: float) -> NDArray[np.float64]:
    """Unit vector in (forward, up, left): hanging down, raised forward by `flex`, to the left by `out`."""
    return np.array([np.sin(flex) * np.cos(out), -np.cos(flex) * np.cos(out), np.sin(out)])


def _torso(look: Look, at: dict[str, NDArray[np.float64]], k: float, forward: NDArray[np.float64]) -> list[Shape]:
    def ring(name: str, r: float) -> NDArray[np.float32]:
        return disc(float(at[name][0]), float(at[name][1]), r * k)

    chest = hull(np.concatenate([ring("shoulder_l", 0.044), ring("shoulder_r", 0.044), *_hips(ring)]))
    out: list[Shape] = [(chest, look.shirt)]
    belt = hull(np.concatenate(_hips(ring, 0.056)))
    out.insert(0, (belt, look.trousers))
    if look.skirt:
        low = (at["knee_l"] * 0.75 + at["hip_l"] * 0.25, at["knee_r"] * 0.75 + at["hip_r"] * 0.25)
        hem = [disc(float(q[0]), float(q[1]), 0.055 * k) for q in low]
        out.insert(1, (hull(np.concatenate([*_hips(ring, 0.056), *hem])), shade(look.trousers, 1.12)))
    neck = capsules(at["neck"][None], at["head"][None], np.array([0.033 * k]), np.array([0.033 * k]))[0]
    out.append((neck, shade(look.skin, 0.86)))
    # Light from above and the front: a softer strip along the chest.
    mid = (at["shoulder_l"] + at["shoulder_r"]) / 2 + forward[0] * np.array([0.018 * k, 0])
    low = (at["hip_l"] + at["hip_r"]) / 2 + forward[0] * np.array([0.018 * k, 0])
    strip = capsules(
        (mid * 0.85 + low * 0.15)[None], (mid * 0.35 + low * 0.65)[None], np.array([0.030 * k]), np.array([0.026 * k])
    )
    out.append((strip[0], shade(look.shirt, 1.13)))
    return out


def _hips(ring: Callable[[str, float], NDArray[np.float32]], r: float = 0.052) -> list[NDArray[np.float32]]:
    return [ring("hip_l", r), ring("hip_r", r)]


def _round(centre: NDArray[np.float64], r: float) -> NDArray[np.float32]:
    return disc(float(centre[0]), float(centre[1]), r)


def _head(look: Look, at: dict[str, NDArray[np.float64]], height: float, forward: NDArray[np.float64]) -> list[Shape]:
    r = HEAD * height
    c = at["head"]
    up = c - at["neck"]
    up = up / max(float(np.hypot(*up)), 1e-6)
    # Facing direction on the screen, at right angles to the head's axis.
    side = np.array([-up[1], up[0]]) * forward[0]
    face, hair = disc(float(c[0]), float(c[1]), r * 0.92, r), shade(look.hair, 1.0)
    out: list[Shape] = []
    if look.long_hair:
        fall = c - side * 0.45 * r - up * 0.75 * r
        out.append((hull(np.concatenate([_round(fall, 0.62 * r), _round(c - side * 0.2 * r, 0.98 * r)])), hair))
    if forward[1] < -0.45:
        out += [(face, look.skin), (disc(float(c[0]), float(c[1]), r), hair)]
    else:
        circle = disc(float(c[0] - side[0] * 0.1 * r), float(c[1] - side[1] * 0.1 * r), r * 1.04)
        normal = up - 0.9 * side
        normal /= np.hypot(*normal)
        height_along = (circle - c) @ normal
        crown = circle[height_along > 0.22 * r]
        out += [(face, look.skin), (hull(crown), hair)]
        if forward[1] > 0.25:
            for s in (-1, 1):
                across = np.array([-up[1], up[0]])
                eye = c + side * 0.35 * r + across * s * 0.33 * r * forward[1] + up * 0.02 * r
                out.append((disc(float(eye[0]), float(eye[1]), max(0.10 * r, 0.4)), (40, 34, 34)))
        else:
            nose = c + side * 0.98 * r - up * 0.12 * r
            out.append((disc(float(nose[0]), float(nose[1]), 0.15 * r), look.skin))
            eye = c + side * 0.55 * r + up * 0.1 * r
            out.append((disc(float(eye[0]), float(eye[1]), max(0.10 * r, 0.4)), (40, 34, 34)))
    if look.hat is not None:
        brim = c + up * 0.42 * r + side * 0.55 * r
        dome = c + up * 0.38 * r - side * 0.08 * r
        out.append(
            (disc(float(dome[0]), float(dome[1]), r * 1.02, r * 0.72, float(np.arctan2(up[0], -up[1]))), look.hat)
        )
        turn = float(np.arctan2(up[0], -up[1]))
        out.append((disc(float(brim[0]), float(brim[1]), r * 0.95, r * 0.16, turn), shade(look.hat, 0.75)))
    return out


def parcel(x: float, y: float, height: float, colour: Colour) -> list[Shape]:
    """A cardboard box resting on y, as large as suits a person of that height."""
    w, h = 0.12 * height, 0.15 * height
    return [
        (box(x - w, y - h, x + w, y), colour),
        (box(x - w, y - h, x + w, y - h * 0.72), shade(colour, 1.2)),
        (box(x - w * 0.16, y - h, x + w * 0.16, y), shade(colour, 0.8)),
    ]
