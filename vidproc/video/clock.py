"""When frames are shown: from the times that packets carry, or from their order where these cannot be believed.

Packets come in decoding order, frames leave the decoder in the order of their display. `Frontier` tells from
packets alone how far presentation is complete. `SteadyClock` mends decoding times that step back, leap or are
missing. `Display` puts decoded frames in order and gives each its time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush
from typing import Any

REORDER_DEPTH = 16
"""No codec lets more frames than this be decoded before a frame and shown after it (H.264, HEVC)."""

SHORTEST_S = Fraction(1, 480)
"""A frame said to last less got its duration from a rate that is really a time base, such as 1000."""

JITTER_S = 1
"""A clock that steps back by less than this stumbles. By more, another recording begins."""

LEAP_S = 10
"""A transport clock that jumps ahead by more than this was set anew (FFmpeg's `dts_delta_threshold`)."""


def believable_duration(duration: int | None, time_base: Fraction, usual: int) -> int:
    """Ticks that a frame lasts by its own word, or else the usual ones."""
    return duration if duration and duration * time_base >= SHORTEST_S else usual


class Frontier:
    """How far presentation order is complete while packets arrive in decoding order: every frame
    that comes later is shown at or after `pts`."""

    def __init__(self) -> None:
        self.pts: int | None = None
        self._largest: list[int] = []

    def add(self, pts: int, dts: int | None) -> None:
        largest = self._largest
        heappush(largest, pts)
        bound = dts if dts is not None and dts <= pts else None  # dts never falls, and pts >= dts
        if len(largest) > REORDER_DEPTH + 1:
            heappop(largest)
        if len(largest) > REORDER_DEPTH and (bound is None or largest[0] > bound):
            bound = largest[0]
        if bound is not None and (self.pts is None or bound > self.pts):
            self.pts = bound


@dataclass(frozen=True, slots=True)
class Leap:
    """A place where the clock of a stream was set anew."""

    at: int
    """Repaired time, ticks."""
    by: int
    """Ticks; negative where the clock went back."""


class SteadyClock:
    """Decoding times that never fall.

    Where the clock goes back by much, another recording begins, and is closed up. A transport clock (`transport`)
    is closed up too where it jumps ahead, as FFmpeg does; and where it steps back a little, it stumbles: time goes
    on at the usual pace until the stream's own clock has caught up.
    """

    def __init__(self, usual: int, time_base: Fraction, *, transport: bool) -> None:
        self.usual = max(usual, 1)
        self.offset = 0
        """Ticks to add to the presentation time of the last packet, by which its decoding time was mended."""
        self.leaps: list[Leap] = []
        self.last: int | None = None
        """Repaired decoding time of the last packet."""
        self._due = 0
        self._jitter = max(int(JITTER_S / time_base), 1)
        self._leap = int(LEAP_S / time_base) if transport else None
        self._base = self._stumble = 0
        self._raw: int | None = None
        self._delay: int | None = None
        """Ticks from decoding to display of the first packet, as of any that begins a recording."""
        self._pace = 0
        """Ticks from one packet to the next, as last seen: headers are wrong about it more often."""

    @property
    def pace(self) -> int:
        """Ticks from one packet to the next, as last seen, or else as usual."""
        return self._pace or self.usual

    def push(self, dts: int | None, duration: int | None, pts: int | None = None) -> int:
        """Returns the repaired decoding time of a packet, in ticks. `pts` where it is one of display."""
        if dts is not None and pts is not None:
            if self._delay is None:
                self._delay = max(pts - dts, 0)
            elif self._leap is not None and (dts > pts or pts - dts > self._leap):
                # The demuxer guesses the first decoding time after a clock was set anew from those before.
                dts = pts - self._delay
        if dts is None:
            now = self._due
        elif self.last is None or self._raw is None:
            now = dts
        else:
            now = max(self._mended(dts, dts - self._raw, self.last), self.last)
        if dts is not None:
            if self._raw is not None and 0 < dts - self._raw <= self._jitter:
                self._pace = dts - self._raw
            self.offset, self._raw = self._base + self._stumble, dts
        self.last, self._due = now, now + (self._pace or duration or self.usual)
        return now

    def _mended(self, dts: int, moved: int, last: int) -> int:
        due = self._due
        if moved < -self._jitter or (self._leap is not None and moved > self._leap):
            self.leaps.append(Leap(due, moved - (due - last)))
            self._base, self._stumble = due - dts, 0
        elif dts + self._base > last:
            self._stumble = 0  # the stream's own clock has caught up
        elif moved < 0 and self._leap is not None:
            self._stumble = due - dts - self._base
        return dts + self._base + self._stumble


@dataclass(slots=True, eq=False)
class Sent:
    """A packet that was given to the decoder."""

    order: int
    """Its place in decoding order."""
    stamp: int | None
    """When its frame is shown, or, in a stream that is timed by order, its decoding time."""
    key: bool = False
    shown: bool = True
    """False: its frame is decoded for others only."""
    duration: int = 0
    whole: bool = True
    """False: damaged, or decoded from what is damaged."""
    frame: Any = None
    state: str = "pending"
    """pending, came (out of the decoder), or gone: nothing will come of it."""

    def __lt__(self, other: Sent) -> bool:
        return ((self.stamp or 0), self.order) < ((other.stamp or 0), other.order)


class Display:
    """Frames in the order of their display, each with its time.

    `counted` False: each frame is shown at its packet's own stamp. The decoder's order is not taken at its word
    then: where one recording joins another it mixes the first frames of the second with the last of the first.
    `counted` True: stamps are decoding times, and the n-th frame that comes out is shown at the n-th of those
    whose packets gave a frame.

    A packet that gave nothing while `REORDER_DEPTH` later ones did is given up: it lies as a hole in time if it was
    damaged (see `Sent.whole`), and counts for nothing otherwise (a picture that is never shown).
    """

    def __init__(self, usual: int, *, counted: bool) -> None:
        self.usual, self.counted = max(usual, 1), counted
        self._by_order: dict[int, Sent] = {}
        self._oldest: deque[Sent] = deque()
        self._stamps: list[Sent] = []
        """Heap of what is not handed out yet, by stamp."""
        self._came: deque[Sent] = deque()
        """In the order in which the decoder gave them."""
        self._newest = -1
        self._latest = 0

    def sent(self, packet: Sent) -> None:
        self._by_order[packet.order] = packet
        self._oldest.append(packet)
        if packet.stamp is not None:
            heappush(self._stamps, packet)

    def came(self, order: int | None, frame: Any) -> Sent | None:
        """A frame came out of the decoder. Returns its packet, None for one more of the same packet."""
        packet = self._by_order.pop(order, None) if order is not None else None
        if packet is None:
            return None
        packet.frame, packet.state = frame, "came"
        if packet.stamp is None:
            packet.stamp = self._latest + self.usual
            heappush(self._stamps, packet)
        self._latest = max(self._latest, packet.stamp)
        self._newest = max(self._newest, packet.order)
        if self.counted:
            self._came.append(packet)
        return packet

    def ready(self, *, final: bool = False) -> Iterator[tuple[int, Sent]]:
        """What is known to come next: its time in ticks, and the packet of the frame (without one: a hole)."""
        self._give_up(final=final)
        stamps = self._stamps
        while stamps and (head := stamps[0]).state != "pending":
            heappop(stamps)
            assert head.stamp is not None
            if head.state == "gone":
                if not head.whole:
                    yield head.stamp, head
            elif self.counted:
                yield head.stamp, self._came.popleft()
            else:
                yield head.stamp, head

    def _give_up(self, *, final: bool) -> None:
        oldest = self._oldest
        while oldest and (final or oldest[0].order < self._newest - REORDER_DEPTH or oldest[0].state != "pending"):
            packet = oldest.popleft()
            if packet.state == "pending":
                packet.state = "gone"
                self._by_order.pop(packet.order, None)
