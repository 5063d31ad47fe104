"""Poses of a jointed figure: vectors of joint angles.

Lengths are in body heights, angles in radians. The height of the hips follows from the angles, since the lowest part
of the body rests on the ground.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pose = NDArray[np.float64]
JOINTS = [
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
AT = {name: i for i, name in enumerate(JOINTS)}

THIGH, SHIN, FOOT = 0.235, 0.225, 0.10
UPPER_ARM, FOREARM = 0.155, 0.165
TORSO, NECK, HEAD = 0.29, 0.055, 0.078


def pose(**angles: float) -> Pose:
    """Standing straight but for the angles given; `hip`, `knee`, `arm`, ... without a side mean both sides."""
    out = np.zeros(len(JOINTS))
    out[AT["arm_out_l"]] = out[AT["arm_out_r"]] = 0.10
    out[AT["elbow_l"]] = out[AT["elbow_r"]] = 0.15
    for name, value in angles.items():
        for key in (name,) if name in AT else (f"{name}_l", f"{name}_r"):
            out[AT[key]] = value
    return out


STANDING = pose()
# The feet stay where they are: the hips move back by the length of the thigh.
SITTING = pose(hip=1.5, knee=1.5, torso_pitch=0.05, arm=0.55, elbow=0.75, shift=-THIGH)
CROUCHED = pose(hip=1.9, knee=2.2, torso_pitch=0.5, arm=0.9, elbow=0.4, shift=-0.08)
REACHING = pose(hip=1.35, knee=1.5, torso_pitch=0.95, arm=1.1, elbow=0.05, head_pitch=0.2, shift=-0.10)
CARRYING = pose(arm=0.5, elbow=0.95, arm_out=0.02)


def between(a: Pose, b: Pose, t: float) -> Pose:
    return a + (b - a) * t


def carrying(p: Pose, amount: float = 1.0) -> Pose:
    """The same pose with both arms holding something before the body."""
    out = p.copy()
    for side in "lr":
        for joint in ("arm", "elbow", "arm_out"):
            i = AT[f"{joint}_{side}"]
            out[i] += (CARRYING[i] - out[i]) * amount
    return out
