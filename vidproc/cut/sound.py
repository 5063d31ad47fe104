"""The sound of a clip: packets copied as they are, in step with its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer, OutputContainer


class Sound:
    """Copies the first sound stream of a container of its own, which nobody else reads.

    A packet belongs to the clip if any of it is heard between `zero` and `end`, both in seconds of the container's
    clock. So the sound begins at most one audio frame before the first picture, and by its own times it stays in step.
    """

    def __init__(self, container: InputContainer, target: OutputContainer, zero: Fraction, end: Fraction) -> None:
        self.source: Any = next(iter(container.streams.audio), None)
        self.target: Any = None
        if self.source is None:
            return
        self.output, self.zero, self.end = target, zero, end
        self.target = target.add_stream_from_template(self.source)
        self._packets = self._read(container)
        self._next = next(self._packets, None)

    def _read(self, container: InputContainer) -> Iterator[Packet[Any]]:
        from av.stream import Discard

        for other in container.streams:
            if other.index != self.source.index:
                other.discard = Discard.all
        base = self.source.time_base
        container.seek(int(max(self.zero - 1, 0) / base), stream=self.source)
        for packet in container.demux(self.source):
            if packet.pts is None or not packet.size:
                continue
            at = packet.pts * base
            if at >= self.end:
                return
            if at + (packet.duration or 0) * base > self.zero:
                yield packet

    def until(self, seconds: Fraction | None) -> None:
        """Write the packets that begin before `seconds` on the container's clock; None: all that are left."""
        while self.target is not None and self._next is not None:
            packet: Any = self._next
            if seconds is not None and packet.pts * self.source.time_base >= seconds:
                return
            shift = round(self.zero / self.source.time_base)
            packet.pts -= shift
            packet.dts = packet.pts
            packet.stream = self.target
            self.output.mux(packet)
            self._next = next(self._packets, None)
