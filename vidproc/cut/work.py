"""Making one clip on a worker: the source looked at, the clip written aside, checked, and put in its place whole."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidproc.cut.boxes import BoxSeen, Painter
from vidproc.cut.clip import container_for, write_clip
from vidproc.cut.encode import ENCODERS, quiet_encoders
from vidproc.cut.plan import PlannedClip
from vidproc.cut.report import ClipReport, Mode
from vidproc.errors import (
    ConfigError,
    Denied,
    MediaError,
    NotFound,
    Refused,
    SourceChanged,
    TransientError,
    Undecodable,
    VidprocError,
)
from vidproc.media import VideoInfo, content_hash
from vidproc.memory import stay_small
from vidproc.runtime.step import Resources
from vidproc.secrets import redact
from vidproc.storage import LocalStorage, Storage, StorageOptions, open_storage
from vidproc.storage.faults import of_errno
from vidproc.video.container import MediaLimits, Source, open_container
from vidproc.video.probe import probe

if TYPE_CHECKING:
    from vidproc.media import Video

VERSION = 1
"""Grows when a clip of the same plan would be another one: then finished clips are made again."""
RECORDS, PARTS = ".vidproc", ".vidproc/parts"
"""Folders below the place of the clips: what is known of each clip, and files that are being written."""

LICENSES = {
    "libx264": "GPL", "libx265": "GPL", "libvpx-vp9": "BSD", "libvpx": "BSD", "libsvtav1": "BSD", "mpeg4": "LGPL",
    "mpeg2video": "LGPL",
}  # fmt: skip
"""Of the encoders that are used, as the codec package holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSettings:
    """How clips are made."""

    mode: Mode = "exact"
    codec: str = "h264"
    """One of ENCODERS: for `encode`, and for exact cuts that must be encoded whole."""
    boxes: bool = False
    """Whether boxes and labels of the lake's rows are drawn. Such clips are encoded."""

    def __post_init__(self) -> None:
        if self.mode not in ("exact", "copy", "encode"):
            raise ConfigError(f"--mode is exact, copy or encode, not {self.mode!r}")
        if self.codec not in ENCODERS:
            raise ConfigError(f"--codec is one of {', '.join(ENCODERS)}, not {self.codec!r}")
        if self.boxes and self.mode == "copy":
            raise ConfigError("--boxes draws into the pictures, which --mode copy leaves as they are: leave one out")

    @property
    def drawn_mode(self) -> Mode:
        return "encode" if self.boxes else self.mode


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipWork:
    """One clip that is to be made."""

    clip: PlannedClip
    how: ClipSettings
    boxes: tuple[BoxSeen, ...] = ()
    replaces: str | None = None
    """An earlier file of this clip's name, which this command made: deleted once the clip is there."""

    @property
    def clip_id(self) -> str:
        """The same content, range, mode and settings: the same id."""
        c = self.clip
        # The codec of an exact cut matters where it is encoded whole, which is known only once it is made.
        how = (self.how.drawn_mode, "" if self.how.drawn_mode == "copy" else self.how.codec)
        boxes = [content_hash(*(repr(asdict(b)) for b in self.boxes))] if self.how.boxes else []
        where = (c.listed_uri, c.video.content_id, f"{c.start_s:.6f}", f"{c.end_s:.6f}", str(c.plain))
        return content_hash("clip", str(VERSION), *where, *how, *boxes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRecord:
    """What is known of a clip; one file each in RECORDS. Seconds on the source's clock."""

    clip_id: str
    name: str
    file: str
    status: str
    """`writing`, `made`, or `failed`, which is not kept."""
    uri: str
    content_id: str
    asked_start_s: float
    asked_end_s: float
    start_s: float | None = None
    """Of the first frame shown."""
    end_s: float | None = None
    """Of the end of the last frame shown."""
    recorded_at: str | None = None
    """Wall-clock time of the moment asked for, ISO 8601, UTC."""
    camera: str = ""
    label: str = ""
    answers: tuple[dict[str, Any], ...] = ()
    mode: str = ""
    why: str = ""
    copied: int = 0
    encoded: int = 0
    encoders: tuple[str, ...] = ()
    license: str = ""
    """Of the encoders."""
    width: int = 0
    height: int = 0
    fps: float | None = None
    sha256: str = ""
    size_bytes: int = 0
    error_class: str = ""
    reason: str = ""

    @classmethod
    def of(cls, work: ClipWork, status: str, **known: Any) -> ClipRecord:
        c = work.clip
        return cls(
            clip_id=work.clip_id, name=c.name, status=status, uri=c.listed_uri, content_id=c.video.content_id,
            asked_start_s=c.start_s, asked_end_s=c.end_s, camera=c.camera, label=c.label,
            recorded_at=None if c.recorded_at is None else c.recorded_at.isoformat(),
            answers=tuple(asdict(a) for a in c.answers), **({"file": ""} | known),
        )  # fmt: skip

    @classmethod
    def read(cls, data: bytes) -> ClipRecord:
        """Raises ValueError or TypeError for what is no record."""
        given = json.loads(data)
        record = cls(**given | {key: tuple(given[key]) for key in ("answers", "encoders")})
        if "/" in record.file or record.file.startswith("."):
            raise ValueError(f"not a name of a clip: {record.file!r}")
        return record

    def write(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    @property
    def key(self) -> str:
        return f"{RECORDS}/{self.name}.json"


@dataclass(frozen=True, kw_only=True)
class CutClip:
    """ClipWork -> ClipRecord: `made`, or `failed` where trying again would not help."""

    out: str
    options: StorageOptions
    needs: Resources
    limits: MediaLimits = field(default_factory=MediaLimits)
    name: str = "clip"
    stateful: bool = False

    def setup(self) -> None:
        stay_small()
        quiet_encoders()

    def __call__(self, work: ClipWork) -> ClipRecord:
        try:
            return self._make(work)
        except (NotFound, MediaError, Denied, SourceChanged) as error:
            return ClipRecord.of(work, "failed", error_class=error.error_class, reason=redact(str(error)))
        except VidprocError as error:
            if full := no_room(error):
                return ClipRecord.of(work, "failed", error_class="disk_full", reason=full)
            raise
        except OSError as error:
            if full := no_room(error):
                return ClipRecord.of(work, "failed", error_class="disk_full", reason=full)
            raise not_written(work.clip.name, error) from error

    def _make(self, work: ClipWork) -> ClipRecord:
        clip, video = work.clip, work.clip.video
        source = Source(self.options)
        check_same(video, source)
        info = replace(_probed(video, source, self.limits), plain=clip.plain)
        place = place_of(self.out, self.options)
        with aside(place, work.clip_id) as folder:
            part = folder / f"{clip.name}{suffix_of(info, source, self.limits, work.how)}"
            try:
                report = write_clip(
                    info, source, self.limits, clip.start_s, clip.end_s, part,
                    mode=work.how.drawn_mode, codec=work.how.codec,
                    draw=Painter(work.boxes) if work.how.boxes else None,
                )  # fmt: skip
                check_whole(part, report)
                check_same(video, source)
                record = ClipRecord.of(
                    work, "made", file=part.name, start_s=report.start_s, end_s=report.end_s, mode=report.mode,
                    why=_why(report, clip), copied=report.copied, encoded=report.encoded, encoders=report.encoders,
                    license=", ".join(dict.fromkeys(LICENSES.get(e, "unknown") for e in report.encoders)),
                    width=info.width, height=info.height, fps=info.fps, sha256=sha256_of(part),
                    size_bytes=part.stat().st_size,
                )  # fmt: skip
                # First that it is ours, so that a run which is killed in between may replace it.
                place.put(record.key, replace(record, status="writing").write())
                place.put_file(record.file, str(part))
                place.put(record.key, record.write())
            finally:
                part.unlink(missing_ok=True)
        if work.replaces and work.replaces != record.file:
            place.delete([work.replaces])
        return record


def _why(report: ClipReport, clip: PlannedClip) -> str:
    if report.mode != "copy":
        return report.why
    before, after = max(0.0, clip.start_s - report.start_s), max(0.0, report.end_s - clip.end_s)
    return f"{before + after:.2f} s longer than asked ({before:.2f} s before, {after:.2f} s behind)"


@lru_cache(maxsize=8)
def _probed(video: Video, source: Source, limits: MediaLimits) -> VideoInfo:
    """Several clips of one video follow each other."""
    return probe(video, source, limits)


def suffix_of(info: VideoInfo, source: Source, limits: MediaLimits, how: ClipSettings) -> str:
    """Return the suffix of a container that holds the clip's pictures and sound."""
    with open_container(info.video, source, limits, headers_only=True) as container:
        sound = next(iter(container.streams.audio), None)
        name = None if sound is None or sound.codec_context is None else str(sound.codec_context.name)
    codec = how.codec if how.drawn_mode == "encode" else info.codec
    return container_for(codec, {"mp3float": "mp3", "aac_latm": "aac"}.get(name or "", name))


def check_same(video: Video, source: Source) -> None:
    """Raise SourceChanged, NotFound, or Denied, unless the video is the one that was indexed."""
    try:
        source.check_as_indexed(video)
    except Refused as error:
        raise Denied(str(error), error.error_class) from error


def check_whole(part: Path, report: ClipReport) -> None:
    """Read a written clip once. Raises Undecodable unless all its frames are there: a disk that becomes full while a
    file is closed is told to nobody."""
    import av

    try:
        with av.open(str(part)) as container:
            found = sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)
    except (av.error.FFmpegError, IndexError) as error:
        raise Undecodable(f"the clip {part.name} was not written whole: {error}") from error
    if found < report.copied + report.encoded:
        raise Undecodable(f"the clip {part.name} holds {found} of {report.copied + report.encoded} frames")


def place_of(out: str, options: StorageOptions) -> Storage:
    """The place of the clips: signed for, also where the archive is read unsigned."""
    return open_storage(out, options=replace(options, anonymous=False))


@contextmanager
def aside(place: Storage, clip_id: str) -> Iterator[Path]:
    """A folder for a file that is not whole yet: beside its place where that is a folder, so that it need not be
    copied. What a killed attempt at the same clip left there is removed."""
    if not isinstance(place, LocalStorage):
        with tempfile.TemporaryDirectory(prefix="vidproc-clip-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
        return
    parts, prefix = Path(place.uri_of(PARTS)), f"{clip_id}-"
    parts.mkdir(parents=True, exist_ok=True)
    for left in parts.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=parts, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    finally:
        with suppress(OSError):  # others still write there
            parts.rmdir()


def no_room(error: BaseException | None) -> str:
    """Return a sentence where the disk was full, or a quota; empty for any other error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the disk is full, or a quota: free space there, and run the same command again"
        error = error.__cause__ or error.__context__
    return ""


def not_written(what: str, error: OSError) -> VidprocError:
    """Return the error for a file that could not be written: an operator must act, or it may pass."""
    meaning = of_errno(error.errno)
    kind = ConfigError if meaning.kind == "configuration" else TransientError
    return kind(f"{what} could not be written: {error.strerror or error}. {meaning.way_out}".rstrip(". ") + ".")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
