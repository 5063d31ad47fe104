"""The plain way to decode: everything in order, from the start or a keyframe that is proven to be one.

It takes nothing at its word that the decoder can tell. A packet flagged as a keyframe is one if it decodes by itself
to a picture that the decoder calls so. Frames get their times when they come out (see clock.py). A picture counts
as damaged if the decoder says so, and so does whatever is decoded from it, up to the next proven keyframe.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from vidproc.video.clock import Display, Sent, SteadyClock, believable_duration
from vidproc.video.container import TRANSPORT_FORMATS, is_cut_off, is_near_a_loss
from vidproc.video.passes import Decoder, Pass, Result, Sweep

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

LEADS_S = (10, 80, 640, None)
"""Decoded ahead of what is wanted: a picture may need more to settle than its keyframe says. Where there is no
proven keyframe in this time, the next one is tried. None: from the start."""

MAX_FRAMES_WITHOUT_KEY = 300
"""Frames at a stream's beginning that are passed over while no keyframe comes. Then there is none: such a stream
refreshes its pictures bit by bit."""


def decoding_time(packet: Packet[Any], container: str) -> int | None:
    """When a packet is decoded, in a stream whose times are none of display. AVI stores it as such; elsewhere it
    stands in place of the time of display, and what the demuxer calls decoding time is a guess."""
    return packet.dts if container == "avi" or packet.pts is None else packet.pts


class InOrder:
    """A decoder that is given every packet from a beginning or an entry on, and the account of what is whole."""

    def __init__(self, decoder: Decoder, *, usual: int, counted: bool) -> None:
        self.decoder, self.counted = decoder, counted
        self.display = Display(usual, counted=counted)
        self.frames_decoded = 0
        self.disordered = False
        """Frames came out in another order than their times, which are none but decoding times."""
        self._begun = False
        """A keyframe came out: what comes now is whole."""
        self._first_key: int | None = None
        self._passed_over = 0
        self._first_passed: list[tuple[int, Sent]] = []
        self._broken_at: int | None = None
        """Order of the first damaged packet since the last keyframe."""
        self._recovered: Sent | None = None
        self._reordered = False
        """Some packet is shown before one that is decoded earlier."""
        self._last_pts: int | None = None
        self._latest: int | None = None

    def send(self, packet: Packet[Any], sent: Sent, *, cut_off: bool = False) -> Iterator[tuple[int, Sent]]:
        """Yields what is known to be shown next: its time, and the packet with its frame (None: a hole). `cut_off`:
        the packet is not whole, and leaves a hole."""
        if self._first_key is None and sent.key:
            self._first_key = sent.order
        if packet.pts is not None:
            self._reordered |= self._last_pts is not None and packet.pts < self._last_pts
            self._last_pts = packet.pts
        self.display.sent(sent)
        packet.pts = sent.order
        frames, problem = ([], "cut off") if cut_off else self.decoder.decoded(packet)
        if problem is not None:
            self._damage(sent)
        for frame in frames:
            self._receive(frame)
        yield from self._shown(final=False)

    def drain(self) -> Iterator[tuple[int, Sent]]:
        """The rest."""
        if self.decoder.context.is_open:
            for frame in self.decoder.decoded(None)[0]:
                self._receive(frame)
        yield from self._shown(final=True)

    def lose(self, order: int) -> None:
        """Something is missing before the packet of that order: from there on all is damaged up to a keyframe."""
        if self._broken_at is None or self._recovered is not None:
            self._broken_at, self._recovered = order, None

    def goes_on_in(self, decoder: Decoder) -> None:
        """What comes next is for another decoder. To be called after `drain`."""
        self.decoder, self._broken_at, self._recovered = decoder, None, None

    def _damage(self, sent: Sent) -> None:
        sent.whole = False
        if self._broken_at is None or self._recovered is not None:
            self._broken_at, self._recovered = sent.order, None

    def _receive(self, frame: VideoFrame) -> None:
        sent = self.display.came(frame.pts, frame)
        if sent is None:
            return
        self.frames_decoded += 1
        if frame.is_corrupt:
            self._damage(sent)
        elif frame.key_frame and sent.whole:
            self._begun = True
            if self._broken_at is not None and sent.order >= self._broken_at and self._recovered is None:
                self._recovered = sent
        if not self.counted and not self._reordered and sent.stamp is not None:
            self.disordered |= self._latest is not None and sent.stamp < self._latest
            self._latest = sent.stamp

    def _shown(self, *, final: bool) -> Iterator[tuple[int, Sent]]:
        for time, sent in self.display.ready(final=final):
            sent.whole = self._is_whole(sent)
            if not sent.shown:
                continue
            if not self._begun and not (sent.whole and self._first_key is not None and sent.order >= self._first_key):
                self._passed_over += sent.frame is not None
                if self._passed_over < MAX_FRAMES_WITHOUT_KEY:
                    if sent.frame is not None and not self._first_passed:
                        self._first_passed.append((time, sent))
                    continue
            self._first_passed.clear()
            yield time, sent
        if final and not self._begun:  # no keyframe came at all: there is nothing better
            for time, sent in self._first_passed:
                sent.whole = True
                yield time, sent

    def _is_whole(self, sent: Sent) -> bool:
        """Neither damaged itself nor decoded from what is."""
        if not sent.whole:
            return False
        if self._broken_at is None or sent.order < self._broken_at:
            return True
        key = self._recovered
        if key is None or sent.order < key.order:
            return False
        # Shown before the keyframe and decoded after it: it may refer to what was before.
        return self.counted or sent.order == key.order or (sent.stamp or 0) >= (key.stamp or 0)


class Sequential(Pass):
    """One sweep of the plain way.

    `lead_s` None: from the first packet on. `counted`: see VideoInfo.counted. `anew`: places of packets at which
    another recording begins, as an earlier sweep found.
    """

    def __init__(
        self,
        result: Result,
        sweep: Sweep,
        lead_s: float | None,
        *,
        counted: bool = False,
        anew: AbstractSet[int] = frozenset(),
    ) -> None:
        super().__init__(result, sweep)
        self.anew = anew
        self.leapt_to: Sent | None = None
        """The keyframe to which the clock leapt ahead last, and that did not come out yet."""
        self.must_begin_anew_at: int | None = None
        """Place of a keyframe that was lost as it does not go on with what was before."""
        self.counted = counted or self.info.counted
        self.enter_at: int | None = None
        """Timestamp from which on a keyframe is looked for. None: the first packet begins."""
        if sweep.start is not None and lead_s is not None:
            self.enter_at = sweep.start - int(lead_s / self.info.time_base)
            if self.enter_at <= self.info.origin_pts and not self.info.edits:
                self.enter_at = None
        self.reads_all = self.info.plain or not self.info.exact_timestamps
        """A repaired clock begins with the first packet, and so does what a decoder must be told: then packets are read
        from there, and not decoded yet."""
        self.enter_pts = None if self.reads_all else self.enter_at

    def begin(self, container: InputContainer, stream: VideoStream, log: list[tuple[int, str, str]]) -> None:
        super().begin(container, stream, log)
        transport = self.info.container in TRANSPORT_FORMATS
        self.clock = SteadyClock(self.usual, self.info.time_base, transport=transport)
        self.in_order = InOrder(self.decoder, usual=self.usual, counted=self.counted)
        self.entered = self.enter_at is None
        self.shown: tuple[Sent, int] | None = None
        """The last frame, on screen until the next one's time, and since when."""
        self.stream_index = stream.index
        self.lost_at: int | None = None
        """Packets are missing before that of this order, and no keyframe came since."""
        self.switched = False
        """The next packet is the first of another stream."""
        self.next_decoded: int | None = None
        """When what follows would be decoded: none of it is shown earlier."""
        self.cut_from: int | None = None
        """The same, of a file that is cut off: from then on frames are missing between those that are there."""
        self.latest_end = self.info.origin_pts
        """When the frame that is shown last ends."""

    @property
    def disordered(self) -> bool:
        return self.in_order.disordered

    def feed(self, packet: Packet[Any]) -> None:
        if packet.stream_index != self.stream_index:
            return
        if self.switched:
            self.switched = False
            for time, shown in self.in_order.drain():
                self.show_next(time, shown)
            self.decoder = Decoder(self.container.streams[self.stream_index].codec_context, self.decoder.log)
            self.in_order.goes_on_in(self.decoder)
        sent = Sent(self.count, self.stamp_of(packet), key=packet.is_keyframe, shown=not packet.is_discard)
        sent.duration = packet.duration or 0
        self.count += 1
        if sent.stamp is None and self.info.exact_timestamps:
            sent.shown = False
        if not self.entered:
            self.look_for_entry(packet, sent)
        if not self.entered:
            self.decoder.parameters.skipped(packet)
            return
        leap = self.clock.leaps[-1] if self.clock.leaps else None
        if leap is not None and leap.at == self.clock.last and packet.is_keyframe:
            if leap.by < 0 or sent.order in self.anew:
                self.begin_again()
            else:  # the clock of one and the same recording may leap ahead as well
                self.leapt_to = sent
        if self.lost_at is not None and sent.order >= self.lost_at and packet.is_keyframe:
            self.empty()  # decoders that look for what is missing lose the keyframe too
            self.lost_at = None
        cut_off = is_cut_off(packet, self.info.container)
        if packet.dts is not None and packet.pts is not None:
            self.next_decoded = packet.dts + self.clock.offset + (packet.duration or self.usual)
            if cut_off:
                self.cut_from = self.next_decoded
        self.latest_end = max(self.latest_end, (sent.stamp or 0) + (packet.duration or self.usual))
        for time, shown in self.in_order.send(packet, sent, cut_off=cut_off):
            self.show_next(time, shown)
        if is_near_a_loss(packet, self.info.container):
            self.lost_at = sent.order + 2
            self.in_order.lose(self.lost_at)
        if self.leapt_to is not None and self.leapt_to.state != "pending":
            if self.leapt_to.state == "gone" and self.leapt_to.whole:
                self.must_begin_anew_at, self.done = self.leapt_to.order, True
            self.leapt_to = None
        self.done |= self.disordered

    def begin_again(self) -> None:
        """Another recording begins: its pictures have nothing to do with those before."""
        self.empty()
        self.in_order.goes_on_in(self.decoder)

    def empty(self) -> None:
        """Takes from the decoder what it still holds, and lets it forget what it saw."""
        for time, shown in self.in_order.drain():
            self.show_next(time, shown)
        if self.decoder.context.is_open:
            self.decoder.context.flush_buffers()

    def stamp_of(self, packet: Packet[Any]) -> int | None:
        """When the packet's frame is shown, or its decoding time in a stream that is timed by order."""
        if self.info.exact_timestamps and not self.counted:
            return packet.pts
        if self.counted:
            return self.clock.push(decoding_time(packet, self.info.container), packet.duration)
        self.clock.push(packet.dts if packet.dts is not None else packet.pts, packet.duration, packet.pts)
        return None if packet.pts is None else packet.pts + self.clock.offset

    def goes_on_in(self, container: InputContainer, stream_index: int) -> None:
        """The packets that follow are of another stream in which the video goes on."""
        self.container, self.stream_index = container, stream_index
        self.switched = True

    def look_for_entry(self, packet: Packet[Any], sent: Sent) -> None:
        assert self.enter_at is not None and self.sweep.start is not None
        if sent.stamp is None or sent.stamp < self.enter_at:
            if sent.order == 0 and self.reads_all:
                self.decodes_alone(packet)  # it may tell what holds for all
        elif sent.stamp > self.sweep.start:
            self.found_no_entry = self.done = True
        elif packet.is_keyframe and self.decodes_alone(packet):
            self.entered = True

    def decodes_alone(self, packet: Packet[Any]) -> bool:
        """Whether a packet is a keyframe by the decoder's word. H.264 may need more pictures after one (recovery
        points): its decoder gives none out before they are whole, so silence is no refusal there."""
        context = self.decoder.context
        frames, problem = self.decoder.decoded(packet)
        if problem is None:
            more, problem = self.decoder.decoded(None)
            frames = [*frames, *more]
        if context.is_open:
            context.flush_buffers()
        if problem is not None:
            return False
        return any(f.key_frame for f in frames) or (not frames and context.name == "h264")

    def show_next(self, time: int, sent: Sent) -> None:
        if self.done or (time < self.info.origin_pts and not self.info.edits):
            return
        if self.shown is not None:
            self.show_until(time)
        elif self.enter_at is not None and self.sweep.start is not None and time > self.sweep.start:
            self.found_no_entry = self.done = True
            return
        self.shown = (sent, time)
        self.done = self.sweep.last is not None and time > self.sweep.last

    def show_until(self, end: int) -> None:
        """The last frame is shown until another follows it, or may follow it in what was cut off."""
        assert self.shown is not None
        sent, time = self.shown
        end = max(end, time)
        if self.cut_from is not None and not self.counted:
            known = self.cut_from if time < self.cut_from else time + (sent.duration or self.usual)
            if known < end:
                self.show(sent, time, known)
                self.result.saw(self.result.spans(known, end, self.sweep), whole=False)
                return
        self.show(sent, time, end)

    def show(self, sent: Sent, time: int, end: int) -> None:
        result, frame = self.result, sent.frame
        sent.frame = None
        spans = result.spans(time, end, self.sweep)
        whole = sent.whole and frame is not None
        result.saw(spans, whole=whole)
        key = sent.key and whole and bool(frame.key_frame)
        if whole and result.wants(spans, key=key):
            result.take(frame, spans, key=key)

    def finish(self) -> None:
        if not self.done and not self.entered:
            self.found_no_entry = True
        elif not self.done:
            if self.ended and self.result.is_cut_off_at(self.latest_end):
                self.cut_from = self.next_decoded
            rest = list(self.in_order.drain())
            if self.counted and self.cut_from is not None:
                # They waited for what is cut off, and their places among it are not known.
                waited = [sent for _, sent in rest if sent.frame is not None]
                for sent in waited[max(len(waited) - self.stream.codec_context.reorder_depth, 0) :]:
                    sent.whole = False
            for time, shown in rest:
                self.show_next(time, shown)
            if self.shown is not None and not self.done:
                sent, time = self.shown
                lasts = believable_duration(sent.duration, self.info.time_base, self.usual)
                end = time + (self.clock.pace if self.counted else lasts)
                self.show(sent, time, max(end, self.result.media_end) if self.info.held else end)
        self.result.frames_decoded += self.in_order.frames_decoded
