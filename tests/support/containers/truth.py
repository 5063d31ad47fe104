"""What a reader of a file must see, decided while the file is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from tests.support.containers.streams import Recipe


@dataclass(frozen=True, order=True)
class Shown:
    """A picture comes on screen."""

    at: Fraction
    """Seconds on the video's clock, which is 0 at the first picture."""
    number: int | None
    """None: nothing is on screen from here on (a gap)."""


@dataclass(frozen=True)
class Stretch:
    """Seconds on the video's clock, half open."""

    start: Fraction
    end: Fraction

    def holds(self, moment: Fraction) -> bool:
        return self.start <= moment < self.end


@dataclass(frozen=True, kw_only=True)
class Truth:
    shown: tuple[Shown, ...]
    """In order of time."""
    end: Fraction
    """The last picture leaves the screen."""
    open_end: bool = False
    """The file does not say how long its last picture lasts: rows may go on behind `end`, with that picture."""
    damaged: tuple[Stretch, ...] = ()
    """Rows may be missing here, if the outcome speaks of it, and not wrong where the decoder itself says so."""
    unsettled: tuple[Stretch, ...] = ()
    """Readers differ by right: rows here are not looked at."""
    say: str | None = None
    """What the outcome must hold: "damage" (partial, or a warning), "warning", "anything", or None: whole, without a
    fault."""
    excused: bool = False
    """Whoever says that something is amiss may show anything."""
    slack: Stretch | None = None
    """Where all rows may be `late` seconds early: two ways of closing a leap are as good."""
    late: Fraction = Fraction(0)
    exact: bool = True
    """Pixels are those of a plain decode of the same packets."""

    def at(self, moment: Fraction) -> int | None:
        """Return the number on screen, None where there is none."""
        if not 0 <= moment < self.end:
            return None
        found = None
        for shown in self.shown:
            if shown.at > moment:
                break
            found = shown.number
        return found

    def samples(self, fps: Fraction) -> dict[int, int]:
        """Return sample -> number, for all samples with a picture on screen."""
        numbers = ((k, self.at(k / fps)) for k in range(ceil(self.end * fps)))
        return {k: number for k, number in numbers if number is not None}

    def free(self, moment: Fraction) -> bool:
        return any(s.holds(moment) for s in self.unsettled)

    def may_be_missing(self, moment: Fraction) -> bool:
        return any(s.holds(moment) for s in self.damaged)


def timeline(pictures: Iterable[tuple[Fraction, int]], end: Fraction) -> tuple[tuple[Shown, ...], Fraction]:
    """Return what is shown and when it ends, shifted to begin at 0. Of two pictures with one time the later stands."""
    by_time: dict[Fraction, int] = {}
    for at, number in pictures:
        by_time[at] = number
    start = min(by_time)
    return tuple(Shown(at - start, number) for at, number in sorted(by_time.items())), end - start


@dataclass(frozen=True)
class Edit:
    """One entry of an edit list, in seconds: `length` of the media from `start` on; None: nothing is shown."""

    length: Fraction
    start: Fraction | None
    rate: int = 1


def edited(
    pictures: Sequence[tuple[Fraction, int]], media_end: Fraction, edits: Sequence[Edit]
) -> tuple[list[tuple[Fraction, int | None]], Fraction]:
    """Return what an edit list makes of pictures in order of time (ISO/IEC 14496-12, 8.6.6), and its end. Each edit
    must begin at the time of a picture."""
    out: list[tuple[Fraction, int | None]] = []
    now = Fraction(0)
    for edit in edits:
        if edit.start is None:
            out.append((now, None))
        else:
            stop = min(edit.start + edit.length, media_end)
            inside = [(at, number) for at, number in pictures if edit.start <= at < stop]
            if not inside or inside[0][0] != edit.start:
                raise ValueError(f"{edit} does not begin with a picture")
            out += [(now + at - edit.start, number) for at, number in inside]
        now += edit.length
    return out, now


@dataclass(frozen=True, kw_only=True)
class Case:
    """One file and all that is known of it."""

    kind: str
    """Named after container and lie: `mp4-edits-order`."""
    extension: str
    data: bytes
    truth: Truth
    fps: Fraction = Fraction(5)
    """Samples a second to ask for."""
    keyframes: tuple[Fraction, ...] | None = None
    """Where sampling keyframes is looked at too: the times of pictures that are really such."""
    recipes: tuple[Recipe, ...] = ()
    """Recipes of the streams in the file."""
    why: str = ""
    """How it was built, in a few words."""
