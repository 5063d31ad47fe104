"""Encoded packets to put into containers, and the pictures that a plain decode makes of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

import av
import numpy as np

from tests.support.containers.numbers import draw, read

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder greets at length

REORDERING = frozenset({"h264", "hevc", "mpeg4", "mpeg2video"})
"""Codecs that can have B-frames."""

ENCODED_RATE = 10
"""Pictures a second by the streams' own headers. Containers may say otherwise."""

_ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "mpeg4": "mpeg4",
    "msmpeg4v3": "msmpeg4",
    "msmpeg4v2": "msmpeg4v2",
    "wmv1": "wmv1",
    "wmv2": "wmv2",
    "flv1": "flv",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "mpeg2video": "mpeg2video",
    "mjpeg": "mjpeg",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to encode: `frames` pictures that show the numbers from `first` on."""

    codec: str
    frames: int = 60
    gop: int = 12
    bframes: int = 0
    open_gop: bool = False
    size: tuple[int, int] = (96, 64)
    first: int = 0
    variant: int = 0
    """Another number gives other parameters at the same size: entropy coding, references, quality."""


@dataclass(frozen=True)
class Packet:
    """One coded picture. Times count frames."""

    data: bytes
    place: int
    """Place in the order in which pictures are shown, from 0."""
    number: int
    """Drawn in the picture."""
    key: bool
    """Decoding can really start here (pictures shown before it may then be missing)."""


@dataclass(frozen=True)
class Stream:
    """Packets in decoding order."""

    recipe: Recipe
    header: bytes
    """Codec parameters as the encoder gives them: Annex B, a VOL header, a sequence header, or nothing."""
    packets: tuple[Packet, ...]

    @property
    def codec(self) -> str:
        return self.recipe.codec

    @property
    def size(self) -> tuple[int, int]:
        return self.recipe.size

    def from_key(self, at: int) -> tuple[Stream, int]:
        """Return the stream from the `at`-th key packet on, and how many of its pictures cannot be decoded: those
        shown before that key picture which came behind it."""
        first = [i for i, p in enumerate(self.packets) if p.key][at]
        start = min(p.place for p in self.packets[first:])
        leading = self.packets[first].place - start
        packets = tuple(Packet(p.data, p.place - start, p.number, p.key) for p in self.packets[first:])
        return Stream(self.recipe, self.header, packets), leading


def recipe(codec: str, **options: Any) -> Recipe:
    """Leaves out what the codec cannot do."""
    if codec not in REORDERING:
        options |= {"bframes": 0, "open_gop": False}
    if codec == "mjpeg":
        options |= {"gop": 1}
    if codec in ("mpeg4", "mpeg2video"):
        options |= {"open_gop": options.get("bframes", 0) > 0}  # FFmpeg's encoders know no other way
    return Recipe(codec=codec, **options)


def _options(r: Recipe) -> dict[str, str]:
    match r.codec:
        case "h264":
            cabac, refs = (1 - r.variant % 2), 1 + (r.variant + 2) % 4
            params = f"keyint={r.gop}:min-keyint={r.gop}:scenecut=0:bframes={r.bframes}:b-adapt=0:ref={refs}"
            params += f":open-gop={int(r.open_gop)}:cabac={cabac}:b-pyramid={'normal' if r.bframes > 2 else 'none'}"
            return {"preset": "veryfast", "crf": str(20 + r.variant), "x264-params": params + ":threads=1:8x8dct=0"}
        case "hevc":
            params = f"keyint={r.gop}:min-keyint={r.gop}:scenecut=0:bframes={r.bframes}:b-adapt=0"
            params += f":open-gop={int(r.open_gop)}:log-level=none:pools=none:frame-threads=1:wpp=0"
            return {"preset": "ultrafast", "crf": str(20 + r.variant), "x265-params": params + ":repeat-headers=0"}
        case "vp8" | "vp9":
            return {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0", "lag-in-frames": "0", "crf": "10"}
        case "av1":
            return {"preset": "10", "crf": "12", "svtav1-params": f"lp=1:keyint={r.gop}:scd=0:pred-struct=1"}
    return {}


@cache
def encode(r: Recipe) -> Stream:
    """Encode once for the whole process."""
    from av.codec.context import Flags

    context: Any = av.CodecContext.create(_ENCODERS[r.codec], "w")
    context.width, context.height = r.size
    context.pix_fmt = "yuvj420p" if r.codec == "mjpeg" else "yuv420p"
    context.framerate, context.time_base = Fraction(ENCODED_RATE), Fraction(1, ENCODED_RATE)
    context.gop_size, context.thread_count = r.gop, 1
    context.options = _options(r)
    if r.codec != "av1":
        context.bit_rate = 600_000
    if r.codec != "mpeg2video":
        context.flags |= Flags.global_header
    if r.codec in ("mpeg4", "mpeg2video"):
        context.max_b_frames = r.bframes
    coded: list[Any] = []
    for n in range(r.frames):
        frame = av.VideoFrame.from_ndarray(draw(r.first + n, *r.size), format="rgb24").reformat(format=context.pix_fmt)
        frame.pts, frame.time_base = n, Fraction(1, ENCODED_RATE)
        coded += context.encode(frame)
    coded += context.encode(None)
    packets = tuple(Packet(bytes(p), p.pts, r.first + p.pts, bool(p.is_keyframe)) for p in coded)
    if sorted(p.place for p in packets) != list(range(r.frames)):
        raise RuntimeError(f"the encoder gave other pictures than it got: {r}")
    return Stream(r, bytes(context.extradata or b""), packets)


@lru_cache(maxsize=256)
def pictures(r: Recipe) -> dict[int, np.ndarray]:
    """Return number -> uint8 (height, width, 3), by decoding all packets in order."""
    stream = encode(r)
    context: Any = av.CodecContext.create("libdav1d" if r.codec == "av1" else r.codec, "r")
    context.thread_count = 1
    if stream.header:
        context.extradata = stream.header
    context.width, context.height = r.size
    out: list[Any] = []
    for packet in stream.packets:
        coded = av.Packet(len(packet.data))  # from bytes it would lack the padding that decoders read into
        coded.update(packet.data)
        out += context.decode(coded)
    out += context.decode(None)
    pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in out])
    numbers = read(pixels)
    if numbers != list(range(r.first, r.first + r.frames)):
        raise RuntimeError(f"numbers do not survive encoding: {r} {numbers}")
    return {r.first + i: pixels[i] for i in range(r.frames)}
