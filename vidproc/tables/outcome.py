"""How a video, and each failed attempt at a piece of it, ended: what the driver hands to publishing."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from vidproc.media import ArchiveObject, VideoInfo
from vidproc.secrets import redact

Status = Literal["indexed", "partial", "declined", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One attempt that failed: a row of `failures`."""

    uri: str
    video_id: str
    task_id: str | None
    """None where the whole video is meant (listing, probing)."""
    stage: str
    """list, probe, decode, infer (infer-KIND: a model in a pool of its own), link or publish."""
    error_class: str
    error: str
    """One plain sentence; never a credential, never a presigned URL."""
    traceback: str | None
    attempt: int
    host: str
    run_id: str
    at: datetime


def failure_of(
    source: ArchiveObject,
    run_id: str,
    *,
    stage: str,
    error_class: str,
    error: str,
    traceback: str | None = None,
    attempt: int = 1,
) -> Failure:
    """A failure of the video as a whole, found here and now. Secrets in its texts are hidden."""
    return Failure(
        uri=source.uri,
        video_id=source.video_id,
        task_id=None,
        stage=stage,
        error_class=error_class,
        error=redact(error),
        traceback=None if traceback is None else redact(traceback),
        attempt=attempt,
        host=socket.gethostname(),
        run_id=run_id,
        at=datetime.now(UTC),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOutcome:
    """A video whose last task has ended. Its rows lie staged; publishing links and commits them."""

    video: ArchiveObject
    info: VideoInfo | None
    """None where probing failed or declined it."""
    status: Status
    coverage: float
    """Share of the promised duration that decoded, 0 to 1."""
    error_class: str | None
    error: str | None
    attempts: int
    """The most attempts that any of its pieces took."""
    task_ids: tuple[str, ...]
    """The tasks whose parts are staged, in order of time."""
    frames_decoded: int = 0
    frames_sampled: int = 0
    failures: tuple[Failure, ...] = field(default=())
    duration_s: float = 0.0
    """Seconds from the first shown frame to the end of the last that decoded."""
    warnings: tuple[str, ...] = ()
