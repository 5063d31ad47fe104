"""The fast way to decode: chooses by the packets, and decodes only what the chosen frames need.

Groups of pictures in which nobody wants a frame are dropped, inside a group nothing is sent after the last wanted
frame, and in between the codec itself leaves out the frames that no other frame refers to (`skip_frame`, which is
exact). Where H.264 has frames that are referred to, but by no wanted one, they go in hollow (vidproc.video.h264). Where
only keyframes are wanted, and an index tells where they lie, what lies between is not even read.

All of that believes the container. What comes out of the decoder must confirm it: a keyframe by which it was entered
comes out as one, frames come out in the order of their times, every wanted frame comes out, and none is damaged.
Whatever is not so is a surprise: what was seen is void, and the task is decoded plainly.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Literal

from vidproc.video import h264
from vidproc.video.clock import REORDER_DEPTH, Frontier, believable_duration
from vidproc.video.container import packet_of
from vidproc.video.passes import Pass, Result, Span, Sweep

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

LEAP_BYTES = 1 << 20
"""From one keyframe to the next at least, to leap rather than read: the demuxer's buffer fetches as much at once."""

HELD_BYTES = 64 << 20
"""Compressed packets kept back at most, in the hope that nobody needs them."""

MAX_FRUITLESS_PICTURES = 200
"""Stop looking for skippable pictures in a task after this many in a row were needed."""


@dataclass(slots=True, eq=False)
class _Item:
    """A packet on its way, in decoding order."""

    packet: Any
    pts: int
    key: bool
    order: int
    """Its identity: goes through the decoder in place of the timestamp."""
    stamped: bool = True
    wanted: bool | None = None
    """None: the frame shown after it is not known yet. False from the start where an edit list cuts
    the frame off, or it has no time: decoded for others, never shown."""
    state: Literal["queued", "sent"] = "queued"
    spans: tuple[Span, ...] = ()
    """When it is on screen, once that is known."""
    hollow: bytes | None = None
    """Goes in instead of the packet: nobody needs the picture itself."""

    def __lt__(self, other: _Item) -> bool:
        return (self.pts, self.order) < (other.pts, other.order)


class Sparse(Pass):
    """One sweep of the fast way."""

    def __init__(self, result: Result, sweep: Sweep) -> None:
        super().__init__(result, sweep)
        info, grids = self.info, [p.samples.grid for p in result.pictures]
        self.key_wanted = any(g.keyframes_only for g in grids)
        only_keyframes = bool(grids) and all(g.keyframes_only for g in grids)
        if only_keyframes and "mp4" in info.container and not info.scanned and not info.edits:
            self.leaps = self._reads() > LEAP_BYTES * len(info.keyframe_pts)

    def _reads(self) -> float:
        """About how many bytes the sweep reads, by the video's mean rate."""
        info, sweep = self.info, self.sweep
        first, last = info.origin_pts, self.result.media_end
        start = first if sweep.start is None else sweep.start
        end = last if sweep.last is None else sweep.last
        return info.video.size_bytes * ((end - start) / (last - first) if last > first else 1.0)

    def begin(self, container: InputContainer, stream: VideoStream, log: list[tuple[int, str, str]]) -> None:
        super().begin(container, stream, log)
        self.frontier = Frontier()
        self.queue: deque[_Item] = deque()
        """Read and not sent, in decoding order."""
        self.held = 0
        self.latest_end = self.info.origin_pts
        self.reordered = False
        """Frames may be shown in another order than they are decoded."""
        self.undecided: list[_Item] = []
        """Heap by time of what may still be wanted."""
        self.expected: dict[int, _Item] = {}
        """Wanted and sent, by order: to come out of the decoder."""
        self.parked: dict[int, VideoFrame] = {}
        """Came out before it was known whether they are wanted, by order."""
        self.open: dict[int, _Item] = {}
        """Sent, and may still come out, by order."""
        self.entered: _Item | None = None
        """The keyframe by which the decoder was entered last. None: it must enter by another."""
        self.unproven: _Item | None = None
        """The same, until it came out as a keyframe."""
        self.latest: int | None = None
        """Time of the frame that came out last since then."""
        self.leading = False
        """What is shown before the keyframe entered by may still come."""
        self.skipping: bool | None = None
        told = self.result.limits.ways.hollow_pictures and not self.info.parameters
        self.references = self.references_of(stream) if told else None
        """Which pictures of a group others are decoded from. None: not known, so wanted frames are sent for at once."""
        self.due: list[_Item] = []
        """Wanted and not sent, as their group of pictures is not whole yet: in the order of their time."""
        self.closing: deque[_Item] = deque()
        """The IDR pictures in the queue, each of which closes what lies before it."""
        self.fruitless = 0
        self.hollow: set[int] = set()
        """By order: to come out of the decoder, and be forgotten."""

    def surprise(self) -> None:
        self.surprised = self.done = True

    @staticmethod
    def references_of(stream: VideoStream) -> h264.Stream | None:
        if stream.codec_context.name != "h264":
            return None
        try:
            return h264.Stream(stream.codec_context.extradata)
        except h264.Unknown:
            return None

    def feed(self, packet: Packet[Any]) -> None:
        self.count += 1
        self.surprised |= packet.is_corrupt
        at, dts = packet.pts, packet.dts
        pts = at if at is not None else self.frontier.pts or self.info.origin_pts
        hidden = packet.is_discard or at is None or (pts < self.info.origin_pts and not self.info.edits)
        item = _Item(packet, pts, packet.is_keyframe, self.count, at is not None, wanted=False if hidden else None)
        if at is not None:
            self.frontier.add(at, dts)
            self.reordered |= at != dts
            if (end := at + (packet.duration or self.usual)) > self.latest_end:
                self.latest_end = end
        if not hidden:
            heappush(self.undecided, item)
        self.queue.append(item)
        self.held += packet.size
        self.decide()
        if self.count == 1 and self.key_wanted and self.sweep.start is not None:
            self.send_through(item)  # no keyframe lies before it and is shown behind it, if it proves to be one
        if item.key:
            self.drop_unneeded()
        if self.references is not None:
            self.watch(item, self.references)
        while self.held > HELD_BYTES and self.queue:
            self.send_through(self.queue[0])
        frontier = self.frontier.pts
        last = self.sweep.last
        self.done = self.surprised or (last is not None and frontier is not None and frontier > last)

    def decide(self) -> None:
        """Settles every frame whose successor in time is known."""
        frontier, heap = self.frontier.pts, self.undecided
        while len(heap) > 1 and frontier is not None:
            first = heappop(heap)
            if heap[0].pts > frontier:
                heappush(heap, first)
                return
            self.settle(first, heap[0].pts)

    def settle(self, item: _Item, end: int) -> None:
        item.spans = self.result.spans(item.pts, end, self.sweep)
        self.result.saw(item.spans)
        item.wanted = self.result.wants(item.spans, key=item.key)
        frame = self.parked.pop(item.order, None)
        if not item.wanted:
            return
        if frame is not None:
            self.result.take(frame, item.spans, key=item.key)
        else:
            self.expected[item.order] = item
            if item.state == "queued":
                self.due.append(item)
                if self.references is None:
                    self.send_due()

    def watch(self, item: _Item, references: h264.Stream) -> None:
        """Sends the groups of pictures that are whole, and all of whose frames are decided."""
        try:
            if altered(item.packet) or (item.key and not references.is_idr(memoryview(item.packet))):
                raise h264.Unknown("neither other parameters on the way nor groups that refer to each other")
            if item.key:
                self.closing.append(item)
            while self.closing and all(i.order >= self.closing[0].order for i in self.undecided):
                self.send_group(references, self.closing.popleft().order)
        except h264.Unknown:
            self.references = None
        if self.held > HELD_BYTES or self.fruitless > MAX_FRUITLESS_PICTURES:
            self.references = None
        if self.references is None:
            self.send_due()

    def send_group(self, references: h264.Stream, end: int | None) -> None:
        """Sends what is due of the queue's items before `end`, the order of an IDR picture, and drops the
        others: nothing after it refers to them."""
        group = [item for item in self.queue if end is None or item.order < end]
        due = [item for item in self.due if end is None or item.order < end]
        if due:
            last = max(item.order for item in due)
            self.hollow_out(references, [item for item in group if item.order <= last])
        self.due = [item for item in self.due if end is not None and item.order >= end]
        for item in due:
            if item.state == "queued":
                self.send_through(item)
        while self.queue and (end is None or self.queue[0].order < end):
            self.drop()

    def hollow_out(self, references: h264.Stream, group: list[_Item]) -> None:
        """Keeps back the pictures that no wanted one is decoded from."""
        data = [memoryview(item.packet) for item in group]
        pictures = references.group(data)
        if len({item.pts for item in group}) < len(group) or any(item.pts < group[0].pts for item in group):
            raise h264.Unknown("times that do not tell pictures apart, or not in which group they are")
        needed = h264.needed(pictures, (i for i, item in enumerate(group) if item.wanted is not False))
        self.fruitless += len(pictures)
        for i, (item, picture) in enumerate(zip(group, pictures, strict=True)):
            if i not in needed and picture.can_be_hollow and item.stamped:
                item.hollow = references.hollow(data[i], picture)
                self.fruitless = 0

    def send_due(self) -> None:
        due, self.due = self.due, []
        for item in due:
            if item.state == "queued":
                self.send_through(item)

    def drop_unneeded(self) -> None:
        """Forgets what lies before a keyframe that all frames still to be wanted can start from."""
        horizon = self.undecided[0].pts if self.undecided else None
        if self.frontier.pts is not None:
            horizon = self.frontier.pts if horizon is None else min(horizon, self.frontier.pts)
        if horizon is not None:
            self.enter_at(horizon, len(self.queue))

    def enter_at(self, pts: int, before: int) -> None:
        """Drops the queue up to its last keyframe, among the first `before`, shown at or before pts."""
        entry = 0
        for place, item in enumerate(self.queue):
            if place == before:
                break
            if item.key and item.pts <= pts:
                entry = place
            if item.wanted is not False:
                break  # whoever is wanted, or may still be, stays
        if entry:
            for _ in range(entry):
                self.drop()

    def send_through(self, item: _Item) -> None:
        """Sends the queue up to and with this one."""
        if item.wanted is not False:
            place = next(i for i, other in enumerate(self.queue) if other is item)
            self.enter_at(item.pts, place + 1)
        while True:
            head = self.queue.popleft()
            self.held -= head.packet.size
            self.send(head)
            if head is item:
                return

    def drop(self) -> None:
        """Leaves out the oldest packet of the queue. The decoder must then be entered anew."""
        packet = self.queue.popleft().packet
        self.held -= packet.size
        self.decoder.parameters.skipped(packet)
        self.entered = None

    def send(self, item: _Item) -> None:

        item.state = "sent"
        if self.surprised:
            return
        if self.entered is None:
            if item.key:
                self.drain()
                self.decoder.context.flush_buffers()
                self.entered, self.unproven, self.leading, self.latest = item, item, True, None
            elif self.sweep.start is not None:
                self.surprise()
                return
            else:
                self.entered = item  # a recording may begin anywhere
        elif self.leading:
            self.leading = item.pts < self.entered.pts
            if self.leading and item.wanted is False:
                self.decoder.parameters.skipped(item.packet)
                return  # shown before the keyframe, so it may refer to what was left out
        # Takes the place of all thought about references: the codec knows which frames have none.
        if self.skipping != (item.wanted is False):
            self.skipping = item.wanted is False
            self.decoder.context.skip_frame = "NONREF" if self.skipping else "DEFAULT"
        packet = item.packet
        if item.hollow is not None:
            self.hollow.add(item.order)
            packet = packet_of(item.hollow)
            packet.dts, packet.time_base = item.packet.dts, item.packet.time_base
        packet.pts = item.order
        self.open[item.order] = item
        frames, problem = self.decoder.decoded(packet)
        if problem is not None:
            self.surprise()
            return
        for frame in frames:
            self.receive(frame)
        if self.leaps:  # the next is entered anew, and a leap would take from the decoder what is still in it
            self.drain()
            self.entered = None

    def drain(self) -> None:
        if not self.decoder.context.is_open:
            return
        frames, problem = self.decoder.decoded(None)
        if problem is not None:
            self.surprise()
        for frame in frames:
            self.receive(frame)
        if self.unproven is not None:
            self.surprise()
        self.open.clear()

    def receive(self, frame: VideoFrame) -> None:
        item = self.open.pop(frame.pts, None) if frame.pts is not None else None
        if item is None:
            return
        if len(self.open) > 4 * REORDER_DEPTH:  # those that the codec left out
            for order in [o for o in self.open if o < item.order - REORDER_DEPTH]:
                del self.open[order]
        if self.unproven is not None and item.order >= self.unproven.order:
            if item is self.unproven and frame.key_frame:
                self.unproven = None
            elif item is self.unproven or item.pts >= self.unproven.pts:
                self.surprise()
                return
        # As a sample, a keyframe must be one; and times that go back were none of display.
        if item.key and self.key_wanted and not frame.key_frame:
            self.surprise()
            return
        if frame.is_corrupt or (self.latest is not None and item.pts < self.latest):
            self.surprise()
            return
        self.latest = item.pts
        if item.order in self.hollow:
            self.hollow.remove(item.order)
            return
        self.result.frames_decoded += 1
        if self.expected.pop(item.order, None) is not None:
            self.result.take(frame, item.spans, key=item.key)
        elif item.wanted is None:
            self.parked[item.order] = frame

    def finish(self) -> None:
        if self.surprised:
            return
        if self.ended and self.reordered and self.result.is_cut_off_at(self.latest_end):
            self.surprise()  # frames are missing between those that are there
            return
        # What comes next in time is now known to come after all that is needed, or not at all.
        heap, frontier = self.undecided, self.frontier.pts
        while heap:
            item = heappop(heap)
            if self.ended:
                end = heap[0].pts if heap else self.last_end(item)
            else:
                assert frontier is not None and self.sweep.last is not None
                end = min(frontier, heap[0].pts) if heap else frontier
                if item.pts > self.sweep.last:
                    break
            self.settle(item, end)
        if self.references is not None:
            with suppress(h264.Unknown):
                for following in self.closing:
                    self.send_group(self.references, following.order)
                self.send_group(self.references, None)
            self.send_due()
        self.drain()
        if self.expected:
            self.surprise()

    def last_end(self, item: _Item) -> int:
        """When the last frame of all leaves the screen."""
        end = item.pts + believable_duration(item.packet.duration, self.info.time_base, self.usual)
        return max(end, self.result.media_end) if self.info.held else end


def altered(packet: Packet[Any]) -> bool:
    """It brings the decoder other parameters, beside its data."""
    return any(side.data_type in ("new_extradata", "param_change") for side in packet.iter_sidedata())
