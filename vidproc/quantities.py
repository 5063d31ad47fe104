"""Numbers as people write them: frames a second, shares, a budget of failures."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from vidproc.checked import SettingsError


def parse_fps(value: Any, what: str = "fps") -> Fraction:
    """7.5 or "15/2" -> frames a second, exactly. 29.97 means 30000/1001 only where it is written so. `what` names the
    number in the SettingsError."""
    try:
        fps = Fraction(str(value)) if not isinstance(value, Fraction) else value
    except (ValueError, ZeroDivisionError):
        raise SettingsError(f"{what} must be a number such as 2, 7.5 or 30000/1001, not {value!r}") from None
    if fps <= 0:
        raise SettingsError(f"{what} must be positive, not {value}")
    return fps


def _number(fps: Fraction) -> float | str:
    return float(fps) if Fraction(float(fps)) == fps else str(fps)


Fps = Annotated[
    Fraction,
    BeforeValidator(lambda value: parse_fps(value)),
    PlainSerializer(_number),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^\d+(/\d+|\.\d+)?$"}]}
    ),
]
"""Frames a second, as an exact number."""


def parse_share(value: Any) -> float:
    """'1%' or 0.01 -> 0.01. Raises ValueError unless it lies between 0 and 100 %."""
    text = str(value).strip()
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:[eE]-?\d+)?)\s*(%?)", text)
    share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"a share such as 1% or 0.01 is wanted, from 0 to 100%, not {text!r}")
    return share


def parse_failure_budget(text: str) -> tuple[float | None, int | None]:
    """'5%' -> (0.05, None); '12' -> (None, 12)."""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip()):
        share = float(match[1]) / 100
        if share <= 1:
            return share, None
    elif text.strip().isdigit():
        return None, int(text)
    raise ValueError(f"max_failures is a share such as 5% or a number of videos, not {text!r}")
