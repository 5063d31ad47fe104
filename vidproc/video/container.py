"""Opens one object of the archive as a media container, and nothing else that it may point to.

Media files are hostile input. What protects us here: the demuxers are those of ordinary video files
(no playlists, no concatenation, no image sequences), the protocols are those which reach the one
object that was listed, and sizes are capped before anything is decoded. Foreign errors become ours
at this border, and lose any presigned URL on the way.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from vidproc.checked import settings
from vidproc.errors import (
    Archived,
    Declined,
    Denied,
    LimitExceeded,
    NotFound,
    Refused,
    SourceChanged,
    TransientError,
    VidprocError,
)
from vidproc.media import Video
from vidproc.settings import DecodeSettings, FileLimits
from vidproc.storage import is_s3
from vidproc.storage.faults import of_errno

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

    from vidproc.storage import StorageOptions
    from vidproc.video.edits import MovieTrack
    from vidproc.video.mp4 import Bytes, Excerpt, Stretch

FORMATS = (
    # Video containers.
    *("mov", "matroska", "webm", "avi", "flv", "mpegts", "mpeg", "asf", "ogg", "mxf", "ivf", "h264", "hevc"),
    *("mpegvideo", "m4v", "dv", "nut", "rm", "wtv", "obu", "vc1", "dhav", "live_flv", "gif"),
    # Audio alone: opened so that it can be declined by its right name. Never decoded.
    *("mp3", "wav", "w64", "flac", "aac", "ac3", "eac3", "aiff", "amr", "caf", "au"),
)
"""Demuxers that may run. Absent on purpose: hls, dash, concat, image2, tty, rtsp, sdp, lavfi."""


TRANSPORT_FORMATS = ("mpegts", "mpeg", "wtv", "dhav")
"""Whose clock may be set anew on the way: recordings of broadcasts and cameras."""

FILE_ONLY = {"protocol_whitelist": "file"}

REQUEST_BYTES, LARGEST_REQUEST_BYTES = 256 << 10, 8 << 20
"""Of one ranged request, where a stretch of an object is read rather than all of it."""


@settings
class MediaLimits(FileLimits):
    """Caps on what one file may ask for, checked from its headers before it is decoded, and how it is decoded."""

    ways: DecodeSettings = field(default_factory=DecodeSettings)
    """How less is decoded."""
    max_probe_bytes: int = 5 << 20
    """Most bytes read while the container's streams are recognised."""
    max_scan_packets: int = 20_000_000
    """Most packets read where a container has no index: 90 h at 60 frames a second."""
    max_task_bytes: int = 2 << 30
    """Most bytes of sampled frames for one grid in one task. Cutting keeps far below; timestamps that leap hours ahead
    do not."""
    until: float | None = None
    """Moment of `time.monotonic()` after which decoding raises LimitExceeded; None: it takes the time that it takes."""
    timeout_s: float = 30.0
    """Longest read from the source, reconnections included, in seconds."""
    threads: int = 1
    """Threads of one decoder. One is best where many workers share a machine."""


@dataclass(frozen=True, slots=True)
class Source:
    """How the videos of an archive are reached. Picklable; holds no connection."""

    options: StorageOptions | None = None
    """How S3 is reached. None: as the AWS environment variables say, or local files only."""
    access: Literal["url", "blocks"] = "url"
    """For S3: a presigned URL read by the demuxer itself, or our own reader of 4 MiB blocks."""
    url_seconds: int = 6 * 3600
    """Life of a presigned URL: longer than any task may take."""

    def target(self, video: Video, stretch_bytes: int | None = None) -> tuple[Any, dict[str, str]]:
        """What `av.open` is given: a file name or URL, or a file object; and protocol options.
        `stretch_bytes`: about how much will be read, None: all of the object."""
        if not is_s3(video.uri):
            # With its protocol named, a path is a path whatever it starts with or contains.
            return f"file:{video.uri}", FILE_ONLY
        from vidproc.storage import StorageOptions, open_block_reader, readable_url

        options = self.options or StorageOptions()
        if self.access == "blocks":
            return open_block_reader(video.uri, options, etag_of(video)), FILE_ONLY
        return readable_url(video.uri, options, self.url_seconds), _http_options(stretch_bytes)

    @contextmanager
    def excerpt(self, video: Video, stretch: Stretch) -> Iterator[Excerpt | None]:
        """Of an MP4, what one stretch needs of it; None where the demuxer does better by itself."""
        from vidproc.video import mp4

        with self._bytes(video) as file, translated(video, self):
            yield None if file is None else mp4.excerpt(file, stretch)

    def movie_track(self, video: Video, place: int) -> MovieTrack | None:
        """What an MP4's headers say of the track at this place; None where they cannot be understood."""
        from vidproc.video.edits import read_track

        with self._bytes(video) as file, translated(video, self):
            return None if file is None else read_track(file, place)

    @contextmanager
    def _bytes(self, video: Video) -> Iterator[Bytes | None]:
        """The object, read at any place; None where it cannot be opened: who opens it next says why."""
        from vidproc.video import mp4

        file: mp4.Bytes | None = None
        if is_s3(video.uri):
            from vidproc.storage import ObjectBytes, StorageOptions

            file = ObjectBytes(video.uri, self.options or StorageOptions(), etag_of(video), video.size_bytes)
        else:
            with suppress(OSError):
                file = mp4.LocalBytes(video.uri)
        try:
            yield file
        finally:
            if file is not None:
                file.close()

    def closer(self, video: Video) -> Source | None:
        """For a second look at what seems damaged: over a URL, the demuxer takes a connection that broke
        for the end of the file, or for damage to it, where the block reader raises TransientError. None:
        there is no closer look."""
        by_url = is_s3(video.uri) and self.access == "url"
        return replace(self, access="blocks") if by_url else None

    def check_as_indexed(self, video: Video) -> None:
        """Called before a video is read again, some time after it was indexed: the object is still that one. Raises
        SourceChanged, NotFound, and what storage raises where it refuses us or does not answer."""
        from vidproc.storage import StorageOptions, size_and_etag

        size, etag = size_and_etag(video.uri, self.options or StorageOptions())
        if f"{etag}:{size}" != video.content_id:
            same_size = size == video.size_bytes
            what = "its date is another one" if same_size else f"it has {size:,} bytes, not those indexed"
            raise SourceChanged(f"{video.uri}: changed since it was indexed ({what}); index it again")

    def check_unchanged(self, video: Video) -> None:
        """Called after reading: the object is still the one that was listed, so every byte read in
        between was its. Raises SourceChanged, or TransientError where that cannot be found out."""
        if not is_s3(video.uri):
            try:
                stat = os.stat(video.uri)
            except FileNotFoundError as e:
                raise SourceChanged(f"{video.uri}: deleted while it was read") from e
            except OSError as e:
                raise TransientError(f"{video.uri}: cannot be checked after reading: {e.strerror}") from e
            if f"{stat.st_mtime_ns}:{stat.st_size}" != video.content_id:
                raise SourceChanged(f"{video.uri}: replaced after it was listed; the next listing will see the new one")
        elif self.access == "url":  # the block reader checks each request
            from vidproc.storage import StorageOptions, open_storage

            folder, _, name = video.uri.rpartition("/")
            with translated(video, self):
                open_storage(folder, options=self.options or StorageOptions()).get_range(
                    name, 0, 1, if_match=etag_of(video)
                )


def etag_of(video: Video) -> str:
    return video.content_id.rpartition(":")[0]


def _http_options(stretch_bytes: int | None) -> dict[str, str]:
    import certifi

    options = {
        "protocol_whitelist": "http,https,tcp,tls",
        "reconnect": "1",
        "reconnect_on_network_error": "1",
        # Not 4xx: an expired signature or a deleted object does not pass by waiting.
        "reconnect_on_http_error": "5xx",
        "reconnect_delay_max": "4",
        "rw_timeout": "5000000",
        "multiple_requests": "1",
        "seekable": "1",
        "tls_verify": "1",
        "ca_file": os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where(),
    }
    if stretch_bytes is not None:
        # A request has no end of its own, so at every leap what is on its way already was sent in vain: megabytes on
        # a fast line. Bounded requests follow each other on one connection, and cost a round trip each.
        bounded = min(max(stretch_bytes // 16, REQUEST_BYTES), LARGEST_REQUEST_BYTES)
        options |= {"initial_request_size": str(REQUEST_BYTES // 4), "request_size": str(bounded)}
    return options


@contextmanager
def open_container(
    video: Video,
    source: Source,
    limits: MediaLimits,
    *,
    stretch_bytes: int | None = None,
    headers_only: bool = False,
    excerpt: Excerpt | None = None,
    as_media: bool = False,
) -> Iterator[InputContainer]:
    """The opened container. Errors of the codec library, here and in the body, become ours.
    `stretch_bytes`: about how much will be read, None: all of it.
    `excerpt`: opened instead of the file itself.
    `headers_only` lets no decoder run, so that sizes are what the headers claim.
    `as_media`: the demuxer leaves an MP4's edit list alone."""
    import av

    av.logging.set_level(av.logging.PANIC)  # its log lines may quote the presigned URL
    with translated(video, source):
        target: Any = excerpt
        protocol = FILE_ONLY
        if excerpt is None:
            target, protocol = source.target(video, stretch_bytes)
        options = {
            "format_whitelist": ",".join(FORMATS),
            "probesize": str(limits.max_probe_bytes),
            "max_streams": str(4 * limits.max_streams),
            # Read by the codecs which guess a stream's format before we have seen its header.
            "max_pixels": str(limits.max_pixels),
            "threads": "1",
            **protocol,
            **({"codec_whitelist": "none"} if headers_only else {}),
            **({"ignore_editlist": "1"} if as_media else {}),
        }
        timeout = (limits.timeout_s, limits.timeout_s)
        container = av.open(target, options=options, timeout=timeout, buffer_size=1 << 20, metadata_errors="replace")
        with container:
            if len(container.streams) > limits.max_streams:
                raise LimitExceeded(f"{video.uri}: {len(container.streams)} streams, the limit is {limits.max_streams}")
            yield container


def video_streams(container: InputContainer) -> list[VideoStream]:
    return list(container.streams.video)


def is_still(stream: VideoStream) -> bool:
    """Whether a stream is a cover, a poster or a thumbnail by its own word."""
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
    return bool(stream.disposition & pictures)


def choose_stream(
    video: Video, container: InputContainer, limits: MediaLimits, *, stills: AbstractSet[int] = frozenset()
) -> VideoStream:
    """The film: the first video stream that is no still picture, preferring one marked as default. A stream of one
    frame beside others is a still picture, and so are `stills` (by index).
    Raises Declined (audio_only, no_video, unsupported_codec) or LimitExceeded."""
    from av.stream import Disposition

    streams = [s for s in video_streams(container) if not is_still(s)]
    if not streams:
        if any(s.type == "audio" for s in container.streams):
            raise Declined(f"{video.uri}: holds sound and no video stream", "audio_only")
        raise Declined(f"{video.uri}: holds no video stream", "no_video")
    streams = [s for s in streams if s.frames != 1 and s.index not in stills] or streams
    stream: Any = next((s for s in streams if s.disposition & Disposition.default), streams[0])
    if stream.codec_context is None:
        raise Declined(f"{video.uri}: there is no decoder for its video codec", "unsupported_codec")
    if stream.codec_context.width * stream.codec_context.height > limits.max_pixels:
        raise LimitExceeded(
            f"{video.uri}: its header claims {stream.codec_context.width}x{stream.codec_context.height} pixels, "
            f"the limit is {limits.max_pixels}"
        )
    return stream  # type: ignore[no-any-return]


def prepare(container: InputContainer, stream: VideoStream, limits: MediaLimits, *, every_video: bool = False) -> None:
    """Only this stream is read, and its decoder runs within the limits. `every_video`: all video streams are."""
    from av.stream import Discard

    for other in container.streams:
        if other.index != stream.index and not (every_video and other.type == "video"):
            other.discard = Discard.all
    # Never Discard.nonkey: the MP4 demuxer then gives packets the presentation times of others.
    context = stream.codec_context
    context.thread_count = limits.threads
    context.options = {"max_pixels": str(limits.max_pixels)}
    if context.name == "libdav1d":
        context.options |= {"threads": str(limits.threads)}


def packet_of(content: bytes) -> Packet[Any]:
    """A packet of our own. FFmpeg allocates it, with the zeros behind its end that decoders read beyond the content;
    a packet made of the bytes themselves has none."""
    import av

    packet = av.Packet(len(content))
    packet.update(content)
    return packet


def is_cut_off(packet: Packet[Any], container: str) -> bool:
    """Whether the end of the file cuts a packet off. Decoders make a picture of what is left of it, and that of MPEG-4
    gives it another one's identity."""
    return bool(packet.is_corrupt) and container not in TRANSPORT_FORMATS


def is_near_a_loss(packet: Packet[Any], container: str) -> bool:
    """Whether packets of the network were lost in a transport stream, at the end of the next packet or behind it: the
    mark is set on what the parser gives out when it takes the packet in. (Or two recordings were joined there: the
    count of network packets tells no more.)"""
    return bool(packet.is_corrupt) and container in TRANSPORT_FORMATS


def packets_of(container: InputContainer, *streams: VideoStream) -> Iterator[Packet[Any]]:
    """The packets with something in them, of these streams or of all, in decoding order."""
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, IndexError):  # IndexError: a stream that appeared on the way confuses PyAV's end
            return
        if packet.size:
            yield packet


@contextmanager
def translated(video: Video, source: Source) -> Iterator[None]:
    """Translate the codec library's errors, and refusals of this one object. Our other errors pass through."""
    import av

    try:
        yield
    except NotFound:
        raise SourceChanged(f"{video.uri}: deleted after it was listed") from None
    except Refused as e:
        raise _of_one_object(e) from None
    except VidprocError:
        raise
    except av.error.FFmpegError as e:
        raise translate(video, e, source) from None  # its text may hold the presigned URL
    except OSError as e:  # of our own reading
        raise (not is_s3(video.uri) and _unreadable(video, e)) or translate(video, e, source) from e
    except UnicodeError as e:
        raise Declined(f"{video.uri}: its metadata cannot be read: {e}", "not_media") from None


def _of_one_object(e: Refused) -> VidprocError:
    """What the store refuses of one object costs that object. What it would refuse of all (an expired token, a wrong
    clock, a wrong region) stays an error of the configuration."""
    match e.error_class:
        case "archived":
            return Archived(str(e))
        case "denied" | "kms":
            return Denied(str(e), e.error_class)
    return e


def _why_refused(video: Video, source: Source, what: str) -> VidprocError:
    """Ask the store once, by the SDK, why a presigned URL was refused: the demuxer keeps nothing but the status."""
    from vidproc.storage import StorageOptions
    from vidproc.storage.credentials import ask

    try:
        with translated(video, source):
            ask(video.uri, source.options or StorageOptions(), etag_of(video))
    except VidprocError as e:
        return e
    return TransientError(f"{video.uri}: the store refused the read ({what}); the signature may have expired")


OF_THE_SYSTEM = frozenset({
    errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.EREMOTEIO, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET, errno.ECONNABORTED, errno.ESHUTDOWN,
})  # fmt: skip
"""Errors that only a disk, or a network below it, gives: no demuxer says so of a file that is damaged."""


def unreadable(video: Video, e: OSError) -> VidprocError | None:
    """What a local file's reading ended with, where it was the disk and not the file. Demuxers call many a damage an
    input/output error, so the system is asked then, for all of the file. None: it can be read, or is on S3."""
    if is_s3(video.uri):
        return None
    if e.errno in OF_THE_SYSTEM:
        return _unreadable(video, e)
    try:
        with open(video.uri, "rb", buffering=0) as file:
            while file.read(4 << 20) and e.errno == errno.EIO:
                pass
    except OSError as again:
        return _unreadable(video, again)
    return None


def _unreadable(video: Video, e: OSError) -> VidprocError | None:
    """None where it is not there any more."""
    if e.errno in (errno.ENOENT, errno.ENOTDIR):
        return None
    way_out = of_errno(e.errno).way_out
    return Denied(f"{video.uri}: it cannot be read: {e.strerror}{f': {way_out}' if way_out else ''}", "unreadable")


def translate(video: Video, e: Exception, source: Source) -> VidprocError:
    import av.error as err

    # Only the system's words for the error: its full text may quote a presigned URL.
    what = getattr(e, "strerror", None) or type(e).__name__
    if isinstance(e, FileNotFoundError | err.HTTPNotFoundError):
        return SourceChanged(f"{video.uri}: deleted after it was listed")
    if isinstance(e, OSError) and (why := unreadable(video, e)):
        return why
    if isinstance(e, err.HTTPClientError) and not isinstance(e, err.HTTPTooManyRequestsError):
        return _why_refused(video, source, what)
    if isinstance(e, err.HTTPClientError | err.HTTPError | err.ExitError | err.ExternalError):
        return TransientError(f"{video.uri}: reading failed: {what}")
    if isinstance(e, ConnectionError | TimeoutError):
        return TransientError(f"{video.uri}: reading failed or took too long: {what}")
    if isinstance(e, MemoryError):
        return LimitExceeded(f"{video.uri}: asks for more memory or streams than allowed: {what}")
    if isinstance(e, err.InvalidDataError):
        return Declined(f"{video.uri}: not a media file that we know, or damaged from its start", "not_media")
    if isinstance(e, err.ArgumentError):
        return Declined(f"{video.uri}: its format is not one that we read", "unsupported_container")
    if isinstance(e, err.EOFError):
        return Declined(f"{video.uri}: ends before any stream begins", "not_media")
    if isinstance(e, OSError) and is_s3(video.uri):
        return TransientError(f"{video.uri}: reading failed: {what}")
    return Declined(f"{video.uri}: cannot be opened: {what}", "not_media")


def orientation(frame: Any) -> tuple[int, bool]:
    """Of a decoded frame: degrees clockwise that make it upright, and whether it must then be
    mirrored, from its display matrix (9 numbers, a b u c d v x y w: x' = a x + c y, y' = b x + d y)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 0, False
    a, b, _, c, d, *_ = struct.unpack("<9i", bytes(data)[:36])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        flip_x, flip_y = a < 0, d < 0
        return (180 if flip_y else 0), flip_x != flip_y
    flip_x, flip_y = c < 0, b < 0
    return (90 if not flip_y else 270), flip_x == flip_y


def upright_size(width: int, height: int, aspect: Fraction | None, rotation: int) -> tuple[int, int]:
    """Size in square pixels of the upright frame: the shorter way is stretched, so nothing is lost.
    An aspect beyond 8 to 1 is taken for a damaged header and ignored."""
    if aspect is not None and Fraction(1, 8) <= aspect <= 8:
        if aspect > 1:
            width = round(width * aspect)
        else:
            height = round(height / aspect)
    return (height, width) if rotation in (90, 270) else (width, height)


STEPS_BACK_S = (0, 1, 4, 16, 64)
"""Where a seek lands behind its aim, it is tried this much earlier."""
