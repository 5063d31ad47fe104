"""The edges of a clip, encoded again so that the copied middle fits to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vidproc.cut import parameter_sets
from vidproc.video.h264 import Unknown

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream

PROFILES = {
    "Constrained Baseline": "baseline", "Baseline": "baseline", "Main": "main", "High": "high", "High 10": "high10",
    "High 4:2:2": "high422", "High 4:4:4 Predictive": "high444",
}  # fmt: skip
"""FFmpeg's names of H.264 profiles, and x264's."""


class CannotMatch(Exception):
    """The edges cannot be encoded so that they fit to the source: the text says why."""


@dataclass(frozen=True, slots=True)
class EdgeCodec:
    """How the edges of one source are encoded."""

    encoder: str
    options: dict[str, str]
    in_band: bool
    """Parameter sets stand in the packets: those of the source go in front of the first packet that is copied."""


def edge_codec(stream: VideoStream, header: list[bytes]) -> EdgeCodec:
    """Choose the encoder for the edges of a stream. `header`: its parameter sets, for H.264 and HEVC.

    Raises CannotMatch for codecs whose pictures of two encoders cannot stand in one stream.
    """
    context: Any = stream.codec_context
    quiet = {"bf": "0", "g": "9999"}
    match context.name:
        case "h264":
            profile = PROFILES.get(str(stream.profile))
            if profile is None:
                raise CannotMatch(f"no encoder for the H.264 profile {stream.profile}")
            try:
                spare = parameter_sets.free_id(header)
            except (Unknown, StopIteration) as e:
                raise CannotMatch(f"the H.264 header is not plain ({e})") from e
            x264 = f"sps-id={spare}:scenecut=0:bframes=0:keyint=9999:open-gop=0:annexb=1"
            # What the level of the source allows: a decoder has prepared itself for no more references.
            more = {"profile": profile, "preset": "medium", "crf": "10", "refs": "1", "x264-params": x264}
            if context.level and context.level > 0:
                more["level"] = f"{context.level / 10:g}"
            return EdgeCodec("libx264", quiet | more, False)
        case "hevc":
            x265 = "repeat-headers=1:bframes=0:keyint=-1:open-gop=0:scenecut=0:log-level=none:annexb=1"
            return EdgeCodec("libx265", quiet | {"crf": "8", "preset": "medium", "x265-params": x265}, True)
        case "mpeg2video":
            return EdgeCodec("mpeg2video", {"bf": "0", "g": "300", "qmin": "1", "qmax": "2"}, True)
        case "mpeg4":
            return EdgeCodec("mpeg4", {"bf": "0", "g": "300", "qmin": "1", "qmax": "2"}, True)
        case "vp9" | "vp8" as name:
            options = {
                "crf": "4",
                "b": "0",
                "lag-in-frames": "0",
                "auto-alt-ref": "0",
                "deadline": "good",
                "cpu-used": "4",
            }
            return EdgeCodec("libvpx-vp9" if name == "vp9" else "libvpx", {"g": "9999"} | options, False)
    raise CannotMatch(f"no encoder whose pictures may stand beside those of this {context.name} stream")


class EdgeEncoder:
    """Encodes the frames of one edge; each packet is one frame, in order, the first one a keyframe."""

    def __init__(self, stream: VideoStream, how: EdgeCodec, *, global_header: bool) -> None:
        from av.codec.context import CodecContext, Flags

        source: Any = stream.codec_context
        context: Any = CodecContext.create(how.encoder, "w")
        self.context = context
        context.width, context.height, context.pix_fmt = source.width, source.height, source.pix_fmt
        if source.sample_aspect_ratio:
            context.sample_aspect_ratio = source.sample_aspect_ratio
        for name in ("color_range", "color_primaries", "color_trc", "colorspace"):
            setattr(context, name, getattr(source, name))
        rate = stream.average_rate or Fraction(25)
        # MPEG codecs know a few rates only; times are given to the packets afterwards.
        context.framerate, context.time_base = rate, 1 / rate
        context.options, context.thread_count = dict(how.options), 1
        if global_header and not how.in_band:
            context.flags |= Flags.global_header
        context.open()

    def packets(self, frames: Iterable[VideoFrame]) -> Iterator[bytes]:
        """Yield one packet for each frame, as bytes."""
        from av.video.frame import PictureType

        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, self.context.time_base
            frame.pict_type = PictureType.I if number == 0 else PictureType.NONE
            yield from (bytes(p) for p in self.context.encode(frame))
        yield from (bytes(p) for p in self.context.encode(None))
