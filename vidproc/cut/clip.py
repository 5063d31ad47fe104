"""One clip of one video, written to a file: copied, cut exactly, or encoded.

  copy    packets from the keyframe before the start to the last frame; nothing is encoded
  exact   frames before the first keyframe inside, and after the last whole group of pictures, are encoded again with
          the source's parameters; all between is copied bit for bit
  encode  all frames are encoded

An exact cut must show the same frames, at the same times, as the source between start and end. So its plan is made from
the packets themselves: their times, which of them are keyframes that can be entered, and where a group's leading
pictures lie.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING

from vidproc.cut.edges import CannotMatch
from vidproc.cut.encode import encode_clip
from vidproc.cut.exact import Cutter, NotPlain
from vidproc.cut.report import ClipReport, Mode
from vidproc.errors import Undecodable
from vidproc.media import VideoInfo
from vidproc.video.container import MediaLimits, Source, open_container

if TYPE_CHECKING:
    from vidproc.cut.encode import Draw

IN_MP4 = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video", "mjpeg"})
SOUND_IN_MP4 = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac", "mp2"})


def container_for(codec: str, sound: str | None) -> str:
    """Return the suffix of a file that can hold both, and that most players open: .mp4, or else .mkv."""
    return ".mp4" if codec in IN_MP4 and (sound is None or sound in SOUND_IN_MP4) else ".mkv"


def write_clip(
    info: VideoInfo,
    source: Source,
    limits: MediaLimits,
    start_s: float,
    end_s: float,
    out: Path,
    *,
    mode: Mode = "exact",
    codec: str = "h264",
    draw: Draw | None = None,
) -> ClipReport:
    """Write what is shown from `start_s` to `end_s` (seconds on the video's clock) to `out`, a file in a folder.

    `codec`: one of ENCODERS, for what is encoded whole. `draw` changes each frame of a clip that is encoded whole.
    The first frame is the one on screen at `start_s`. Raises Undecodable where nothing is shown there, and what reading
    the source raises.
    """
    if start_s >= info.duration_s:
        raise Undecodable(f"{info.video.uri}: nothing is shown from {start_s:g} s on: it ends at {info.duration_s:g} s")
    start = info.origin_pts + floor(Fraction(start_s) / info.time_base)
    end = info.origin_pts + ceil(Fraction(end_s) / info.time_base)
    why = ""
    if mode != "encode":
        try:
            with open_container(info.video, source, limits) as container:
                return Cutter(info, source, limits, container, start, end, exact=mode == "exact").write(out)
        except (CannotMatch, NotPlain) as e:
            why = str(e)
    return encode_clip(info, source, limits, start, end, out, codec=codec, why=why, draw=draw)
