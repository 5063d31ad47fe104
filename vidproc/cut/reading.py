"""Frames of a time range of a video, as its decoder gives them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vidproc.media import VideoInfo
from vidproc.video.container import MediaLimits, Source, open_container

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

_SECONDS = 10
"""How far before the first keyframe a demuxer is sent that does not find it."""


def has_plain_times(info: VideoInfo) -> bool:
    """Return whether the times that the container gives to frames are the video's own, so that its packets, or its
    decoder's frames, can be taken as they come."""
    ours = info.edits or info.counted or info.later_streams or info.plain
    return info.exact_timestamps and not ours


def enter(container: InputContainer, stream: VideoStream, info: VideoInfo, pts: int) -> None:
    """Seek to the last keyframe at or before `pts`, or to one before it.

    Demuxers without an index seek by decoding time, which lies before the keyframe's own, and would land behind it.
    """
    before = [k for k in info.keyframe_pts if k <= pts]
    for entry in (*before[:-4:-1], None):
        if entry is None:
            container.seek(min(info.keyframe_pts[0], info.origin_pts) - _SECONDS // info.time_base, stream=stream)
            return
        container.seek(entry, stream=stream)
        for packet in container.demux(stream):
            if packet.size and packet.is_keyframe:
                break
        else:
            continue
        if packet.pts is not None and packet.pts <= pts:
            container.seek(entry, stream=stream)
            return


def frames_between(info: VideoInfo, source: Source, limits: MediaLimits, start: int, end: int) -> Iterator[VideoFrame]:
    """Decode the frames with timestamps in [start, end), in order, each with its `pts`."""
    with open_container(info.video, source, limits) as container:
        stream: Any = container.streams[info.stream_index]
        enter(container, stream, info, start)
        stream.codec_context.thread_count = limits.threads
        for frame in container.decode(stream):
            if frame.pts is None or frame.pts < start:
                continue
            if frame.pts >= end:
                return
            yield frame


class Upright:
    """Turns frames as the container asks for it: rotation, then mirroring."""

    def __init__(self, info: VideoInfo) -> None:
        turns = {90: ["transpose=clock"], 180: ["hflip", "vflip"], 270: ["transpose=cclock"]}
        self.filters = [*turns.get(info.rotation, []), *(["hflip"] if info.mirrored else [])]
        self._graph: Any = None

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """Return the frame upright; the same one where nothing turns it."""
        if not self.filters:
            return frame
        if self._graph is None:
            from av.filter import Graph

            self._graph = Graph()
            nodes = [
                self._graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
                )
            ]
            for each in self.filters:
                name, _, value = each.partition("=")
                nodes.append(self._graph.add(name, value or None))
            nodes.append(self._graph.add("buffersink"))
            self._graph.link_nodes(*nodes).configure()
        self._graph.push(frame)
        turned: VideoFrame = self._graph.pull()
        return turned
