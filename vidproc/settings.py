"""Every setting, once: name, default, unit, limits and meaning.

A job file, the options of the command line and Python all make these classes, and each class checks itself. From them
come the JSON Schema of a job file (`python -m vidproc.settings`), the reference in jobs/README.md (vidproc.reference)
and the options' help. Options win over the job file, the job file over the defaults.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from vidproc import globs
from vidproc.checked import CONFIG, Settings, SettingsError, explain, setting, settings
from vidproc.dates import check_name_pattern
from vidproc.documents import filled_in, merge, read_document
from vidproc.errors import ConfigError
from vidproc.quantities import Fps, parse_failure_budget, parse_share
from vidproc.secrets import check_hook, redact, refuse_credentials_in, refuse_credentials_within, remember

Kind = Literal["detector", "actions", "embedding"]
"""What a model is for."""


def _given_or(default: Any) -> BeforeValidator:
    """Runs of earlier versions recorded null where a job had not said it."""
    return BeforeValidator(lambda value: default if value is None else value)


# Models


@settings(kw_only=False)
class PoolSize(Settings):
    """How many actors of one kind a run may have."""

    min: Annotated[int, WithJsonSchema({"type": "integer", "minimum": 1, "unit": "actors"})] = setting(
        1, "Actors that are kept, also with nothing to do.", unit="actors"
    )
    max: int | None = setting(None, "Most actors. By default as many as the cluster has room for.", unit="actors", ge=1)

    def __post_init__(self) -> None:
        if self.max is not None and self.max < self.min:
            raise ValueError(
                f"a pool's max ({self.max}) may not be less than its min ({self.min}): keep no more than its maximum"
            )

    @field_validator("min")
    @classmethod
    def _someone(cls, value: int) -> int:
        if value < 1:
            raise ValueError(f"a pool keeps at least one actor, not {value}")
        return value


@settings
class Pool(PoolSize):
    """Actors that hold this model and nothing else, so that they grow, and take nodes, apart from the rest."""

    num_gpus: float | None = setting(None, "GPUs of one actor. 0.25: four actors share one.", unit="GPUs", ge=0)
    num_cpus: float = setting(1.0, "CPUs of one actor.", unit="CPUs", ge=0)
    memory_bytes: int | None = setting(
        None, "Memory of one actor. By default `execution.memory.infer`.", unit="bytes", gt=0
    )
    accelerator_type: str | None = setting(
        None, "Run only on nodes with this kind of GPU, by Ray's names: L4, A100, H100, ..."
    )


@settings
class ModelOptions(Settings):
    """What may be said about a model. What is not given is the model's own choice."""

    fps: Fps | None = setting(None, "Samples a second. The option --fps sets the detector's.", unit="frames/s")
    score_threshold: float | None = setting(None, "Least score of a detection that is kept.", unit="score", ge=0, le=1)
    batch_size: int | None = setting(None, "Frames (or windows) in one forward pass.", unit="frames", ge=1)
    window: int | None = setting(None, "Frames in one window of an action model.", unit="frames", ge=1)
    stride: int | None = setting(None, "Frames from one action window to the next.", unit="frames", ge=1)
    half: Annotated[bool, _given_or(True)] = setting(
        True, "16-bit arithmetic on a GPU. A CPU always computes in 32 bits."
    )
    weights: str | None = setting(None, "A file, https:// or s3:// address in place of the model's own weights.")
    max_detections: Annotated[int, _given_or(100)] = setting(
        100, "Most boxes kept of one frame, the best by score.", unit="boxes", ge=1
    )
    options: Mapping[str, Any] = setting(
        dict, "Fields of the model's description, over what it says: the decoding of an .onnx file, for example."
    )
    sha256: str | None = setting(None, "Hash of `weights`. Needed for a remote file whose name carries none.")
    size: tuple[int, int] | None = setting(None, "Height and width of the frames that the model gets.", unit="pixels")
    nms_iou: float | None = setting(None, "Overlap above which the lesser box is dropped.", unit="IoU", ge=0, le=1)
    threads: int | None = setting(
        None, "CPU threads of one forward pass. By default OMP_NUM_THREADS, or all cores.", unit="threads", ge=1
    )

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size of a model must be positive (height, width), not {self.size}")


@settings
class ModelJob(ModelOptions):
    """One model of the pipeline. Its name alone may stand in place of the section: `detector: demo`."""

    model: str = setting(
        ...,
        "A name from `vidproc models list`, a model file or folder, package.module:Class, `auto`, `demo` or `none`.",
    )
    top_k: int = setting(3, "Labels kept of an action window, the best by score.", unit="labels", ge=1)
    num_gpus: float | None = setting(
        None,
        "GPUs of one actor. 0.25: four actors share one. By default 1 in a job that uses GPUs.",
        unit="GPUs",
        ge=0,
    )
    pool: Pool | None = setting(None, "Actors of its own. By default one actor holds all models.")

    @property
    def gpus(self) -> float | None:
        """GPUs of one actor, wherever the job says so; None: it does not."""
        return self.pool.num_gpus if self.pool and self.pool.num_gpus is not None else self.num_gpus

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pool and None not in (self.pool.num_gpus, self.num_gpus):
            raise ValueError("num_gpus is given twice: keep the one in `pool`")
        if self.gpus is not None and self.gpus > 1 and self.gpus % 1:
            raise ValueError(f"num_gpus above 1 must be a whole number, not {self.gpus:g}")


# The archive


@settings
class Filters(Settings):
    """Which objects of the archive are meant."""

    include: tuple[str, ...] = setting(
        (), "Globs on the path below the archive, of which one must match (`*` also crosses `/`). None: everything."
    )
    exclude: tuple[str, ...] = setting((), "Globs of what is left out.")
    min_bytes: int | None = setting(None, "Smallest object that is taken.", unit="bytes", ge=0)
    max_bytes: int | None = setting(None, "Largest object that is taken.", unit="bytes", ge=0)
    modified_since: datetime | None = setting(
        None, "Take only objects changed at this moment or later. A time without a zone is UTC.", unit="time"
    )
    modified_before: datetime | None = setting(
        None, "Take only objects changed before this moment. A time without a zone is UTC.", unit="time"
    )

    def admits_name(self, key: str) -> bool:
        if self.include and not any(globs.matches(key, glob) for glob in self.include):
            return False
        return not any(globs.matches(key, glob) for glob in self.exclude)

    def may_admit_below(self, folder: str) -> bool:
        """Whether anything below the folder (a key without a slash at its end) may be meant."""
        if self.include and not any(globs.may_match_below(folder, glob) for glob in self.include):
            return False
        return not any(globs.matches(folder, glob) or globs.matches(f"{folder}/", glob) for glob in self.exclude)

    def admits(self, key: str, size: int, modified_at: datetime | None) -> bool:
        if not self.admits_name(key):
            return False
        if self.min_bytes is not None and size < self.min_bytes:
            return False
        if self.max_bytes is not None and size > self.max_bytes:
            return False
        if modified_at is not None:
            if self.modified_since is not None and modified_at < _utc(self.modified_since):
                return False
            if self.modified_before is not None and modified_at >= _utc(self.modified_before):
                return False
        return True


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


@settings
class CutSettings(Settings):
    """How a video is divided into tasks. Rows do not depend on it."""

    clip_seconds: float = setting(
        30.0, "Length of a clip. It ends at the first keyframe after this long.", unit="seconds", gt=0
    )
    clips_per_task: int = setting(2, "Neighbouring clips that are decoded and retried as one.", unit="clips", ge=1)
    soft_bytes: int = setting(
        256 << 20, "Sampled frames in one task, above which it holds fewer clips.", unit="bytes", gt=0
    )
    hard_bytes: int = setting(
        1 << 30, "Sampled frames in one task, above which it is cut even between two keyframes.", unit="bytes", gt=0
    )

    def __post_init__(self) -> None:
        if self.soft_bytes > self.hard_bytes:
            raise ValueError(f"soft_bytes ({self.soft_bytes}) may not be above hard_bytes ({self.hard_bytes})")


@settings
class DecodeSettings(Settings):
    """Two ways to decode less. Rows do not depend on them: switch one off to compare, or where it is in doubt."""

    hollow_pictures: bool = setting(
        True, "In H.264, give the decoder an empty picture in place of a reference picture that no wanted frame needs."
    )
    partial_index: bool = setting(
        True, "Open a long MP4 with the part of its index that the task needs, rather than with the whole."
    )


# From rows of frames to tracks and segments


@settings
class Hysteresis(Settings):
    """When a segment begins, lasts and counts."""

    on: float = setting(0.5, "Score from which a segment begins.", unit="score", ge=0, le=1)
    off: float = setting(0.3, "Score below which it ends. Not above `on`.", unit="score", ge=0, le=1)
    gap_s: float = setting(2.0, "Longest gap that it survives.", unit="seconds", ge=0)
    min_s: float = setting(1.0, "Shortest segment that is kept.", unit="seconds", ge=0)

    def __post_init__(self) -> None:
        if self.off > self.on:
            raise ValueError(f"off ({self.off:g}) may not be above on ({self.on:g})")


@settings
class ActionHysteresis(Hysteresis):
    """When a segment of an action begins, lasts and counts."""

    gap_s: float = setting(1.0, "Longest gap that it survives.", unit="seconds", ge=0)
    min_s: float = setting(0.5, "Shortest segment that is kept.", unit="seconds", ge=0)


@settings
class LinkSettings(Settings):
    """How detections become tracks, and scores become segments."""

    track: bool = setting(True, "Link detections to tracks.")
    activation_score: float = setting(
        0.5, "Least score of a detection that begins a track. Lesser ones may continue it.", unit="score", ge=0, le=1
    )
    lost_seconds: float = setting(1.5, "A track that is not seen for this long has ended.", unit="seconds", gt=0)
    minimum_iou: float = setting(
        0.1, "Least overlap of a detection with the track that it continues.", unit="IoU", ge=0, le=1
    )
    minimum_detections: int = setting(
        2, "A track of fewer detections is dropped. Its detections keep no track_id.", unit="detections", ge=1
    )
    presence: Hysteresis = setting(Hysteresis, "When a label counts as present.")
    action: ActionHysteresis = setting(ActionHysteresis, "When an action counts as done.")


# What a run may cost


@settings
class FileLimits(Settings):
    """Caps on what one file may ask for, checked before it is decoded."""

    max_pixels: int = setting(
        8192 * 8192,
        "Largest width x height of a frame. Covers 8K cameras; larger frames could exhaust a worker.",
        unit="pixels",
        gt=0,
    )
    max_streams: int = setting(64, "Most streams in one file.", unit="streams", gt=0)
    max_duration: float = setting(
        7 * 86_400.0,
        "Longest video. One that says it lasts longer is declined as `limit`: its timestamps are most likely damaged.",
        unit="seconds",
        gt=0,
        allow_inf_nan=False,
    )
    max_frame_duration: float = setting(
        600.0,
        "Longest time that one frame stays on screen. What lies beyond it until the next frame is a gap without rows. "
        "Screen recordings and slide shows hold a picture long.",
        unit="seconds",
        gt=0,
        allow_inf_nan=False,
    )


ATTEMPTS = 3
"""Attempts at a task, unless a job says otherwise."""


@settings
class Limits(FileLimits):
    """What one file or one run may cost."""

    max_failures: str = setting("5%", "Failed videos above which the exit code is 1: a share or a number.")
    attempts: int = setting(ATTEMPTS, "Attempts at a task before it is given up.", unit="attempts", ge=1)
    time_limit_s: float = setting(900.0, "Longest attempt at one task.", unit="seconds", gt=0)
    memory_bytes: int = setting(4 << 30, "Private memory above which a worker is ended.", unit="bytes", gt=0)
    bytes_in_flight: int | None = setting(
        None,
        "Decoded frames between decoders and models, for each node. By default 1 GiB on this machine, half of the "
        "object stores on a cluster.",
        unit="bytes",
        gt=0,
    )


@settings
class WorkerMemory(Settings):
    """Memory that one worker of each kind is expected to use. Ray fills the nodes by it; what a worker may use is
    `limits.memory_bytes`."""

    probe: int = setting(512 << 20, "A worker that probes.", unit="bytes", gt=0)
    decode: int = setting(1280 << 20, "A worker that decodes.", unit="bytes", gt=0)
    infer: int = setting(2 << 30, "An actor with all models. A pool has its own `memory_bytes`.", unit="bytes", gt=0)
    publish: int = setting(2 << 30, "A worker that publishes.", unit="bytes", gt=0)


# Where the work runs


@settings
class Execution(Settings):
    """Where the work runs."""

    executor: Literal["ray", "inline"] = setting(
        "ray",
        "`ray`: on this machine or a cluster. `inline`: here, one after the other, in one process that nothing "
        "protects: time and memory limits are not enforced, and a file that crashes the decoder ends the run.",
    )
    address: str | None = setting(None, "A running Ray cluster: `auto` or host:port. By default this machine.")
    workers: int | None = setting(
        None, "Decoders at a time. By default as many as there are CPUs.", unit="workers", ge=1
    )
    actors: int | None = setting(
        None, "Most actors that hold all models. By default as many as there is room for.", unit="actors", ge=1
    )
    device: str = setting("auto", "Where models run: auto, cpu, cuda or cuda:N.")
    memory: WorkerMemory = setting(WorkerMemory, "Memory that one worker of each kind is expected to use.")
    publish_videos: int = setting(200, "Most videos that are published in one commit.", unit="videos", ge=1)
    publish_seconds: float = setting(
        60.0, "Longest time that a finished video waits to be published.", unit="seconds", gt=0
    )

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError(f"the device is auto, cpu, cuda or cuda:N, not {value!r}")
        return value


def check_endpoint(url: str, what: str) -> None:
    """Raise ConfigError unless `url` is one of a store, without credentials. `what` names it in the message."""
    refuse_credentials_in(url, what)
    if not re.match(r"https?://[^/]", url):
        raise ConfigError(f"{what} must start with http:// or https://, not {redact(url)!r}")


@settings
class StorageSettings(Settings):
    """How S3 is reached. What is not given follows the AWS environment and profiles; credentials always do."""

    endpoint_url: str | None = setting(None, "Address of the store, where it is not AWS.")
    region: str | None = setting(None, "AWS region.")
    profile: str | None = setting(None, "AWS profile.")
    anonymous: bool = setting(
        False,
        "Read a public archive or lake without credentials. What is written to a lake is always signed.",
    )
    path_style: bool | None = setting(
        None,
        "Addresses are endpoint/bucket/key rather than bucket.endpoint/key. By default as the profile says, else where "
        "there is an endpoint that is not AWS's own.",
    )

    def __post_init__(self) -> None:
        if self.endpoint_url is not None:
            check_endpoint(self.endpoint_url, "the S3 endpoint")


def _auto() -> ModelJob:
    return ModelJob(model="auto")


def _no_model() -> ModelJob:
    return ModelJob(model="none")


class Job(BaseModel):
    """One run of the main job."""

    model_config = CONFIG | ConfigDict(frozen=True)

    archive: str = setting(..., "The videos: a folder or s3://bucket/prefix.")
    lake: str = setting(..., "Where the tables go: a folder or s3://bucket/prefix. All that vidproc knows lives there.")
    name: str = setting(
        "default",
        "Name of the pipeline. A lake holds one current answer for each name and video.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
    )
    detector: ModelJob = setting(
        _auto,
        "Model that finds objects: a name from `vidproc models list`, a file or folder, package.module:Class, `none`.",
    )
    actions: ModelJob = setting(_auto, "Model that tells actions, named in the same way.")
    embedding: ModelJob = setting(_no_model, "Model that turns frames or windows into vectors, named in the same way.")
    sampling: Literal["grid", "keyframes"] = setting(
        "grid", "Frames for the detector. `grid`: evenly spaced. `keyframes`: every keyframe and no others."
    )
    recorded_at: str | None = setting(
        None, "When a video was recorded, by its file name: a strptime pattern such as cam1_%Y%m%d_%H%M%S."
    )
    filters: Filters = setting(Filters, "Which objects of the archive are meant.")
    cut: CutSettings = setting(CutSettings, "How a video is divided into tasks.")
    decode: DecodeSettings = setting(DecodeSettings, "Ways to decode less.")
    link: LinkSettings = setting(LinkSettings, "How detections become tracks, and scores become segments.")
    limits: Limits = setting(Limits, "What one file or one run may cost.")
    execution: Execution = setting(Execution, "Where the work runs.")
    storage: StorageSettings = setting(StorageSettings, "How S3 is reached.")
    follow_links: bool = setting(
        False,
        "Go into folders outside of the archive where links lead there. Links to files are always followed.",
    )
    deleted: Literal["keep", "remove"] = setting(
        "keep", "What becomes of rows whose video the archive no longer lists, after a whole listing."
    )
    plan: str | None = setting(
        None, "Where `vidproc plan --save` wrote. The archive is then not listed and probed again."
    )
    verify: Annotated[str, Field(pattern=r"^\s*\d+(\.\d+)?\s*%?\s*$")] | Annotated[float, Field(ge=0, le=1)] = setting(
        "1%",
        "Share of tasks that are decoded a second time, in order and without the fast path, to see that both give the "
        "same frames: 1% or 0.01. Rows do not depend on it.",
    )
    limit: int | None = setting(None, "Index at most this many of the videos that are due.", unit="videos", ge=1)
    follow: float | None = setting(
        None, "List the archive again this long after each listing, until interrupted.", unit="seconds", ge=1
    )
    report: str | None = setting(
        None, "Where a report of the lake is written when the run is over: a .html file, here or on S3."
    )
    notify: str | None = setting(
        None,
        "URL that is told how the run ended, by a small JSON. It is never recorded: ${NAME} takes it from the "
        "environment.",
        exclude=True,
        repr=False,
    )

    @property
    def models(self) -> dict[Literal["detector", "actions", "embedding"], ModelJob]:
        return {"detector": self.detector, "actions": self.actions, "embedding": self.embedding}

    @field_validator("detector", "actions", "embedding", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @property
    def verify_share(self) -> float:
        """`verify` as a number from 0 to 1."""
        return parse_share(self.verify)

    @field_validator("verify", mode="before")
    @classmethod
    def _is_a_share(cls, value: Any) -> Any:
        parse_share(value)
        return value

    @field_validator("recorded_at")
    @classmethod
    def _readable_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            check_name_pattern(value)
        return value

    @field_validator("report")
    @classmethod
    def _is_a_page(cls, value: str | None) -> str | None:
        if value is not None and not value.lower().endswith((".html", ".htm")):
            raise ValueError(f"a report is an .html file, such as report.html, not {value!r}")
        return value

    @field_validator("notify")
    @classmethod
    def _is_a_hook(cls, value: str | None) -> str | None:
        if value is not None:
            remember(value)  # whoever knows it may write there
            check_hook(value, "notify")
        return value

    @model_validator(mode="after")
    def _something_to_do(self) -> Job:
        if all(wanted.model == "none" for wanted in self.models.values()):
            raise ValueError("a job needs a detector, an action model or an embedding; all are 'none'")
        together = sum(m.gpus or 0.0 for m in self.models.values() if m.model != "none" and m.pool is None)
        if together > 1 and together % 1:
            raise ValueError(
                f"num_gpus of the models that live in one actor add up to {together:g}: above 1 it must be whole"
            )
        parse_failure_budget(self.limits.max_failures)
        refuse_credentials_within(self.model_dump(exclude_none=True), "")
        if self.plan is not None and self.follow is not None:
            raise ValueError("a plan is of one moment, so it cannot be followed: leave out `plan` or `follow`")
        return self


def load_job(
    path: str | os.PathLike[str] | None, overrides: Mapping[str, Any] | None = None, *, lake_optional: bool = False
) -> Job:
    """Return the job in a YAML file with overrides on top: nested mappings, in which None means: not given. A dry run
    may do without a lake (`lake_optional`), which is the empty string then. Raises SettingsError, a ConfigError."""
    data: dict[str, Any] = {}
    source = "the options"
    if path is not None:
        source = str(path)
        data = filled_in(read_document(path, "job file"))
    merge(data, overrides or {})
    if lake_optional:
        data.setdefault("lake", "")
    try:
        return Job.model_validate(data)
    except ValidationError as error:
        raise SettingsError(explain(error, Job, source)) from error


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job file, as it is published."""
    return (
        {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Job.model_json_schema() | {"title": "vidproc job"}
    )


def print_schema() -> None:
    """`python -m vidproc.settings`."""
    import json

    from vidproc.output import as_a_filter

    with as_a_filter():
        print(json.dumps(json_schema(), indent=2))


if __name__ == "__main__":
    print_schema()
