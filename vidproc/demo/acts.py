"""What a figure can do: functions from seconds to poses.

The embedded action model knows `ACTIONS`; `MORE_ACTIONS` are drawn too, as examples for few-shot learning. Some pairs
of actions have the same single frames and differ in their order alone: `REVERSED`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from vidproc.demo.poses import AT, CARRYING, CROUCHED, REACHING, SITTING, STANDING, Pose, between, pose

ACTIONS: Final = ("stand", "walk", "run", "jump", "wave", "sit_down", "sit", "stand_up", "fall", "lie", "get_up")
MORE_ACTIONS: Final = ("jumping_jack", "squat", "kick", "bow", "punch", "pick_up", "put_down")
REVERSED: Final = (("sit_down", "stand_up"), ("pick_up", "put_down"))


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


def _stride(t: float, m: Manner, *, swing: float, bend: float, rest: float, arm: float, elbow: float) -> Pose:
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
    out = _stride(t, m, swing=0.46, bend=0.75, rest=0.08, arm=0.42, elbow=0.22)
    out[AT["torso_pitch"]] = 0.04
    return out


def _run(t: float, d: float, m: Manner) -> Pose:
    out = _stride(t, m, swing=0.85, bend=1.45, rest=0.25, arm=0.85, elbow=1.45)
    out[AT["torso_pitch"]] = 0.22
    out[AT["lift"]] = 0.05 * abs(np.cos(2 * np.pi * (m.rate * t + m.phase)))
    return out


def _jump(t: float, d: float, m: Manner) -> Pose:
    u = (m.rate * t) % 1.0
    low = pose(hip=0.95, knee=1.25, torso_pitch=0.35, arm=-0.7, shift=-0.04)
    if u < 0.45:
        return between(STANDING, low, np.sin(np.pi * u / 0.45))
    v = (u - 0.45) / 0.55
    height = 4 * v * (1 - v)
    high = pose(hip=0.25, knee=0.45, arm=2.3, elbow=0.3, arm_out=0.35, lift=0.24 * m.reach)
    out = between(STANDING, high, height)
    return out


def _wave(t: float, d: float, m: Manner) -> Pose:
    beat = np.sin(2 * np.pi * (m.rate * t + m.phase))
    side = "lr"[m.side % 2]
    raised = pose(**{f"arm_{side}": 0.5 + 0.15 * beat, f"arm_out_{side}": 2.35 + 0.6 * beat * m.reach})
    raised[AT[f"elbow_{side}"]] = 0.55 - 0.35 * beat
    return raised


def _sit_down(t: float, d: float, m: Manner) -> Pose:
    s = _ease(t / d)
    out = between(STANDING, SITTING, s)
    out[AT["torso_pitch"]] += 0.55 * np.sin(np.pi * s)
    out[AT["arm_l"]] += 0.5 * np.sin(np.pi * s)
    out[AT["arm_r"]] += 0.5 * np.sin(np.pi * s)
    return out


def _stand_up(t: float, d: float, m: Manner) -> Pose:
    return _sit_down(d - t, d, m)


def _sit(t: float, d: float, m: Manner) -> Pose:
    out = SITTING.copy()
    out[AT["torso_pitch"]] += 0.03 * np.sin(2 * np.pi * (0.3 * m.rate * t + m.phase))
    out[AT["head_pitch"]] = 0.15 * np.sin(0.9 * t + 6 * m.phase)
    return out


def _lying(m: Manner) -> Pose:
    way = 1.0 if m.side % 2 else -1.0
    return pose(body_pitch=1.5 * way, arm=0.0, arm_out=0.35, elbow=0.1, hip_l=0.12, knee_l=0.25, shift=0.46 * way)


def _fall(t: float, d: float, m: Manner) -> Pose:
    s = min(max(t / d, 0.0), 1.0)
    s = 0.45 * s + 0.55 * s * s
    way = 1.0 if m.side % 2 else -1.0
    pitch = 1.5 * s
    out = between(STANDING, _lying(m), s)
    out[AT["body_pitch"]] = way * pitch
    out[AT["shift"]] = way * 0.46 * np.sin(pitch)
    flail = np.sin(np.pi * s)
    for side in "lr":
        out[AT[f"arm_{side}"]] += 1.6 * flail
        out[AT[f"arm_out_{side}"]] += 0.6 * flail
        out[AT[f"knee_{side}"]] += 0.5 * flail
        out[AT[f"hip_{side}"]] += 0.3 * flail
    return out


def _lie(t: float, d: float, m: Manner) -> Pose:
    out = _lying(m)
    out[AT["arm_l"]] += 0.05 * np.sin(1.3 * t)
    return out


def _get_up(t: float, d: float, m: Manner) -> Pose:
    s = _ease(t / d)
    return between(_lying(m), CROUCHED, s / 0.5) if s < 0.5 else between(CROUCHED, STANDING, (s - 0.5) / 0.5)


def _jumping_jack(t: float, d: float, m: Manner) -> Pose:
    s = 0.5 - 0.5 * np.cos(2 * np.pi * m.rate * t)
    lift = 0.06 * abs(np.sin(2 * np.pi * m.rate * t))
    return between(STANDING, pose(leg_out=0.42, arm_out=2.7, lift=0.0), s) + pose(lift=lift) - STANDING


def _squat(t: float, d: float, m: Manner) -> Pose:
    s = 0.5 - 0.5 * np.cos(2 * np.pi * 0.6 * m.rate * t)
    return between(STANDING, pose(hip=1.75, knee=2.0, torso_pitch=0.45, arm=1.3, elbow=0.1, shift=-0.12), s)


def _kick(t: float, d: float, m: Manner) -> Pose:
    s = max(0.0, np.sin(2 * np.pi * 0.8 * m.rate * t))
    side = "lr"[m.side % 2]
    high = pose(torso_pitch=-0.25, arm=0.5, elbow=1.2)
    high[AT[f"hip_{side}"]] = 1.45 * m.reach
    high[AT[f"knee_{side}"]] = 0.15
    out = between(STANDING, high, s)
    out[AT[f"knee_{side}"]] += 0.9 * np.sin(np.pi * s)
    return out


def _bow(t: float, d: float, m: Manner) -> Pose:
    s = 0.5 - 0.5 * np.cos(2 * np.pi * 0.5 * m.rate * t)
    return between(STANDING, pose(torso_pitch=1.15 * m.reach, head_pitch=0.3, arm=-0.1, shift=-0.06), s)


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
    return between(STANDING, REACHING, s) if s < 1 else between(REACHING, CARRYING, s - 1)


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
