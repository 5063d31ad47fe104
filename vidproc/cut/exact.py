"""A clip whose packets are copied, and for an exact cut its edges encoded again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidproc.cut import parameter_sets
from vidproc.cut.edges import CannotMatch, EdgeCodec, EdgeEncoder, edge_codec
from vidproc.cut.reading import enter, frames_between, has_plain_times
from vidproc.cut.report import ClipReport
from vidproc.cut.sound import Sound
from vidproc.errors import Undecodable
from vidproc.media import VideoInfo
from vidproc.video.container import MediaLimits, Source, open_container

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer, OutputContainer


@dataclass(slots=True)
class _Group:
    """A group of pictures, in decoding order; the first packet is a keyframe."""

    packets: list[Packet[Any]] = field(default_factory=list)

    @property
    def keyframe(self) -> int:
        assert self.packets[0].pts is not None
        return self.packets[0].pts

    @property
    def first(self) -> int:
        return min(p.pts for p in self.packets if p.pts is not None)

    @property
    def last(self) -> int:
        return max(p.pts for p in self.packets if p.pts is not None)

    def shown_from(self, pts: int) -> list[Packet[Any]]:
        return [p for p in self.packets if p.pts is not None and p.pts >= pts]


class NotPlain(Exception):
    """The packets are not such that they could be copied: the text says why."""


class Cutter:
    """Writes one clip by copying, with its edges encoded again where `exact` asks for it."""

    def __init__(
        self, info: VideoInfo, source: Source, limits: MediaLimits, container: InputContainer,
        start: int, end: int, *, exact: bool,
    ) -> None:  # fmt: skip
        if info.parameters or not has_plain_times(info):
            raise NotPlain("the times or parameters of the source are not plain enough to copy its packets")
        self.info, self.source, self.limits, self.exact = info, source, limits, exact
        self.container = container
        self.stream: Any = container.streams[info.stream_index]
        self.start, self.end = start, end
        self.codec = self.stream.codec_context.name
        self.extradata = bytes(self.stream.codec_context.extradata or b"")
        is_nal = self.codec in ("h264", "hevc")
        self.header = parameter_sets.header_units(self.extradata, self.codec) if is_nal else []
        self.length_bytes = parameter_sets.length_bytes_of(self.extradata, self.codec) if is_nal else 0
        self.how: EdgeCodec | None = None
        self.no_edges: CannotMatch | None = None
        self.copied = self.encoded = 0
        self.delay = 0

    # reading

    def groups(self) -> Iterator[_Group]:
        """Yield the groups of pictures, from the one that holds the start on."""
        enter(self.container, self.stream, self.info, self.start)
        group = _Group()
        for packet in self.container.demux(self.stream):
            if not packet.size:
                continue
            if packet.pts is None:
                raise NotPlain("packets without times")
            if packet.is_keyframe:
                if group.packets:
                    yield self._timed(group)
                group = _Group()
            elif not group.packets:
                continue  # before the keyframe at which we entered
            if packet.is_discard:
                raise NotPlain("an edit list hides some of its packets")
            group.packets.append(packet)
        if group.packets:
            yield self._timed(group)

    def _timed(self, group: _Group) -> _Group:
        """Give decoding times to packets of containers that store none (Matroska): in order of display, delayed."""
        if any(p.dts is None for p in group.packets):
            order = sorted(p.pts for p in group.packets if p.pts is not None)
            late = max(at - p.pts for at, p in zip(order, group.packets, strict=True) if p.pts is not None)
            self.delay = max(self.delay, late)
            for at, packet in zip(order, group.packets, strict=True):
                packet.dts = at - self.delay
        return group

    def enterable(self, group: _Group) -> bool:
        """Whether the decoder may begin anew with this group, its leading pictures left out."""
        first = bytes(group.packets[0])
        if self.codec == "h264":
            return any(u[0] & 31 == 5 for u in parameter_sets.units(first, self.length_bytes))
        return True

    # writing

    def write(self, out: Path) -> ClipReport:
        """Write the clip. Raises NotPlain, CannotMatch, or Undecodable where nothing is shown in the range."""
        import av

        zero, groups = self._begin()
        if self.exact:
            try:
                self.how = edge_codec(self.stream, self.header)
            except CannotMatch as error:
                self.no_edges = error  # where every frame is a keyframe, none has to be encoded
        with (
            av.open(str(out), "w", options={"movflags": "+faststart"} if out.suffix == ".mp4" else {}) as target,
            open_container(self.info.video, self.source, self.limits) as heard,
        ):
            stream = self._output(target)
            sound = Sound(heard, target, zero * self.info.time_base, self.end * self.info.time_base)
            mux = _Muxer(target, stream, sound, self, zero)
            if self.exact:
                self._write_exact(mux, zero, groups)
            else:
                self._copy(mux, groups)
            sound.until(None)
        return ClipReport(
            self.info.pts_to_seconds(zero), self.info.pts_to_seconds(mux.end), "exact" if self.exact else "copy",
            copied=self.copied, encoded=self.encoded,
            encoders=(self.how.encoder,) if self.how and self.encoded else (),
        )  # fmt: skip

    def _begin(self) -> tuple[int, Iterator[_Group]]:
        """Return the time of the clip's first frame, and the groups from the first one on that is copied."""
        groups = self.groups()
        seen: list[_Group] = []
        for group in groups:
            seen.append(group)
            if group.keyframe > self.start:
                break
        times = [p.pts for g in seen for p in g.packets if p.pts is not None]
        shown = max((at for at in times if at <= self.start), default=min(times, default=self.end))
        if shown >= self.end:
            raise Undecodable(
                f"{self.info.video.uri}: nothing is shown from {self.info.pts_to_seconds(self.start):g} s on"
            )
        if not self.exact:
            place = max((i for i, g in enumerate(seen) if g.keyframe <= shown), default=0)
            return seen[place].keyframe, chain(seen[place:], groups)
        for group in (rest := chain(seen, groups)):
            if group.keyframe >= self.end:
                break
            if group.keyframe >= shown and self.enterable(group):
                return shown, chain([group], rest)
        raise NotPlain("no keyframe that can be entered lies inside")

    def _output(self, target: OutputContainer) -> Any:
        stream: Any = target.add_stream_from_template(self.stream)
        stream.time_base = self.stream.time_base
        if self.how is not None and self.codec == "h264":
            encoder = EdgeEncoder(self.stream, self.how, global_header=True)
            more = parameter_sets.header_units(bytes(encoder.context.extradata), "h264")
            stream.codec_context.extradata = parameter_sets.avc_header(self.extradata, more)
        elif self.how is not None and self.codec == "hevc" and target.format.name == "mp4":
            stream.codec_context.codec_tag = "hev1"
        return stream

    def _copy(self, mux: _Muxer, groups: Iterator[_Group]) -> None:
        """Copy from a keyframe to the last frame shown before the end, without the first group's leading pictures."""
        for number, group in enumerate(groups):
            kept = group.shown_from(group.keyframe) if number == 0 else group.packets
            # A frame behind the end stays if one before the end may be decoded from it.
            last = max((i for i, p in enumerate(kept) if p.pts is not None and p.pts < self.end), default=-1)
            mux.copy(kept[: last + 1], first=number == 0)
            if group.last >= self.end:
                return

    def _write_exact(self, mux: _Muxer, zero: int, groups: Iterator[_Group]) -> None:
        """Write the frames before the first group, whole groups that end before the end, and what is left."""
        entered = next(groups)
        key = entered.packets[0]
        assert key.pts is not None and key.dts is not None
        delay = max(0, key.pts - key.dts)
        if zero < entered.keyframe:
            mux.edge(self._encoded(zero, entered.keyframe), delay)
        reached, rest = entered.keyframe, entered.keyframe
        for number, group in enumerate(chain([entered], groups)):
            kept = group.shown_from(group.keyframe) if number == 0 else group.packets
            rest = group.keyframe if number == 0 else group.first
            if group.last >= self.end or rest >= self.end:
                break
            if rest < reached:
                raise NotPlain("pictures of one group are shown among those of another")
            mux.copy(kept, first=number == 0)
            reached = group.last + 1
        else:
            return
        if rest < reached:
            raise NotPlain("pictures of one group are shown among those of another")
        if rest < self.end:
            mux.edge(self._encoded(rest, self.end), delay)

    def _encoded(self, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        """Encode the frames in [start, end): yield time, duration and packet of each."""
        if self.how is None:
            raise self.no_edges or CannotMatch("no encoder for the edges")
        encoder = EdgeEncoder(self.stream, self.how, global_header=True)
        times: list[int] = []

        def frames() -> Iterator[VideoFrame]:
            for frame in frames_between(self.info, self.source, self.limits, start, end):
                assert frame.pts is not None
                times.append(frame.pts)
                yield frame

        waiting = list(encoder.packets(frames()))
        for place, packet in enumerate(waiting):
            following = times[place + 1] if place + 1 < len(times) else end
            if self.length_bytes:
                packet = parameter_sets.joined(list(parameter_sets.units(packet, 0)), self.length_bytes)
            yield times[place], following - times[place], packet
        self.encoded += len(waiting)


class _Muxer:
    """Writes packets of both kinds with the clip's times; decoding times always ascend."""

    def __init__(self, target: OutputContainer, stream: VideoStream, sound: Sound, cutter: Cutter, zero: int) -> None:
        self.target, self.stream, self.sound, self.cutter, self.zero = target, stream, sound, cutter, zero
        self.last_dts: int | None = None
        self.end = zero
        self.encoded_before = False

    def _put(self, data: bytes, pts: int, dts: int, duration: int, *, keyframe: bool) -> None:
        from av import Packet

        if self.last_dts is not None and dts <= self.last_dts:
            dts = self.last_dts + 1
        if dts > pts:
            raise NotPlain("decoding times that cannot be kept")
        packet: Any = Packet(data)
        packet.stream, packet.time_base = self.stream, self.cutter.stream.time_base
        packet.pts, packet.dts, packet.duration, packet.is_keyframe = (
            pts - self.zero,
            dts - self.zero,
            duration,
            keyframe,
        )
        self.last_dts = dts
        self.end = max(self.end, pts + duration)
        self.target.mux(packet)
        self.sound.until(pts * self.cutter.info.time_base)

    def edge(self, packets: Iterator[tuple[int, int, bytes]], delay: int) -> None:
        first = True
        for pts, duration, data in packets:
            if first and self.cutter.codec == "hevc" and self.last_dts is not None:
                data = self._ended() + data
            self._put(data, pts, pts - delay, duration, keyframe=first)
            first = False
            self.encoded_before = True

    def _ended(self) -> bytes:
        return parameter_sets.joined([parameter_sets.END_OF_SEQUENCE], self.cutter.length_bytes)

    def copy(self, packets: list[Packet[Any]], *, first: bool) -> None:
        for place, packet in enumerate(packets):
            data = bytes(packet)
            assert packet.pts is not None and packet.dts is not None
            if first and place == 0 and self.cutter.how is not None and self.cutter.how.in_band:
                data = self._own_parameters() + data
            self._put(data, packet.pts, packet.dts, packet.duration or 0, keyframe=packet.is_keyframe)
        self.cutter.copied += len(packets)

    def _own_parameters(self) -> bytes:
        """The source's parameter sets, in front of the first packet that is copied."""
        cutter = self.cutter
        if cutter.codec != "hevc":
            return cutter.extradata
        ended = [parameter_sets.END_OF_SEQUENCE] if self.encoded_before else []
        return parameter_sets.joined([*ended, *cutter.header], cutter.length_bytes)
