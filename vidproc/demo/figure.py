"""A person as shapes on the screen: a pose, a look and a direction become outlines, painted from back to front."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vidproc.demo.looks import Look
from vidproc.demo.poses import FOOT, FOREARM, HEAD, JOINTS, NECK, SHIN, THIGH, TORSO, UPPER_ARM, Pose
from vidproc.demo.shapes import Colour, Shape, box, capsules, disc, hull, shade

# A camera a little above the ground sees depth as height: this much of a body height per body height.
_TILT = 0.13


def _rotation(angle: float) -> NDArray[np.float64]:
    """Pitch forward by `angle` in (forward, up, left) coordinates."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def figure(
    look: Look, p: Pose, x: float, y: float, height: float, yaw: float, *, holds: Colour | None = None
) -> list[Shape]:
    """The person in pose `p` on the ground at pixel (x, y), `height` pixels tall, facing `yaw`: 0 to the right,
    pi/2 to the camera, pi to the left. `holds`: the colour of a box carried in both hands."""
    a = dict(zip(JOINTS, p, strict=True))
    joints = _skeleton(look, a)
    names = list(joints)
    points = np.stack([np.zeros(3), *joints.values()])
    # The lowest joint rests on the ground, as thick as the body is there.
    ground = min(float(points[:, 1].min()) - 0.025, float(min(joints["hip_l"][1], joints["neck"][1])) - 0.06)
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
    parts = _limb_parts(look, at, depth, k)
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


def _skeleton(look: Look, angles: dict[str, float]) -> dict[str, NDArray[np.float64]]:
    """Where each joint lies in (forward, up, left) coordinates, in body heights from between the hips."""
    a, body = angles, _rotation(angles["body_pitch"])
    torso = body @ _rotation(a["torso_pitch"])
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
    return joints


def _limb_parts(
    look: Look, at: dict[str, NDArray[np.float64]], depth: dict[str, float], k: float
) -> list[tuple[float, list[Shape]]]:
    """Arms and legs with their depths. What is farther is darker, which tells the two legs apart."""
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
    return parts


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
