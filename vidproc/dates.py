"""When a video was recorded: dates in names, and which dates are believed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

_DIGITS = r"\d{2}"
_DIRECTIVES = dict.fromkeys("ymdHIMS", _DIGITS) | {
    **{"Y": r"\d{4}", "j": r"\d{3}", "f": r"\d{1,6}", "s": r"(?P<epoch>\d{10})", "z": r"[+-]\d{2}:?\d{2}|Z"},
    **{"b": "[A-Za-z]{3}", "B": "[A-Za-z]+", "a": "[A-Za-z]{3}", "p": "[AaPp][Mm]"},
}


def check_name_pattern(pattern: str) -> None:
    """Raise ValueError for a pattern that no name can match, or that has no day."""
    used = re.findall(r"%(.?)", pattern)
    for directive in used:
        if directive not in _DIRECTIVES and directive != "%":
            known = " ".join(f"%{d}" for d in _DIRECTIVES)
            raise ValueError(f"%{directive} in {pattern!r} is not understood; known are {known}")
        if directive != "%" and used.count(directive) > 1:
            raise ValueError(f"{pattern!r} holds %{directive} twice")
    if "s" not in used and not ({"Y", "y"} & {*used} and ("j" in used or ("d" in used and {"m", "b", "B"} & {*used}))):
        raise ValueError(f"{pattern!r} tells no day: it needs year, month and day, as in cam1_%Y%m%d_%H%M%S")


def recorded_from_name(name: str, pattern: str) -> datetime | None:
    """Return the first believable time that the strptime `pattern` finds in `name`, as UTC; None where there is none. A
    time without a zone is taken as UTC."""
    return next((moment for _, moment in times_in_name(name, pattern) if moment is not None), None)


def times_in_name(name: str, pattern: str) -> Iterator[tuple[str, datetime | None]]:
    """Yield each part of the name that is a time by the pattern, and that moment; None where it is not believable."""
    regex = "".join(
        f"(?:{_DIRECTIVES[piece[1]]})" if piece[0] == "%" and piece[1:] in _DIRECTIVES else re.escape(piece[-1:])
        for piece in re.findall(r"%.|.", pattern)
    )
    for match in re.finditer(f"(?={'(' + regex + ')'})", name):
        try:
            if epoch := match.groupdict().get("epoch"):
                moment = datetime.fromtimestamp(int(epoch), UTC)
            else:
                moment = datetime.strptime(match[1], pattern)
        except (ValueError, OverflowError):
            continue
        yield match[1], believed(moment)


FIRST_RECORDING = datetime(1901, 1, 1, tzinfo=UTC)
"""Dates before it are zeros of some clock (1601, 1858, 1899, 1900), or no dates at all."""
UNSET_CLOCK_YEARS = (1904, 1970)
"""Clocks of cameras and containers begin in one of these years, and run on from there where nobody sets them."""
CLOCK_AHEAD = timedelta(days=1)
"""A camera's clock may be ahead of ours, or name its local time UTC."""
ZONES = (timedelta(hours=-12), timedelta(hours=14))
"""Least and greatest offset from UTC that any place on Earth uses."""


def believed(moment: datetime) -> datetime | None:
    """The rule for all dates of recording, wherever they stand: the moment as UTC (a time without a zone is
    taken for UTC), or None where it cannot be when a video was recorded."""
    try:
        offset = moment.utcoffset()
        moment = moment.replace(tzinfo=UTC) if offset is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the first or the last day of the calendar, in another zone
        return None
    if offset is not None and not ZONES[0] <= offset <= ZONES[1]:
        return None
    if moment.year in UNSET_CLOCK_YEARS or not FIRST_RECORDING <= moment <= datetime.now(UTC) + CLOCK_AHEAD:
        return None
    return moment
