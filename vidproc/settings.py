"""A job: everything that `vidproc index` can be told, from a file, from options, or from Python.

The file is YAML, read once, checked against the JSON Schema that this module publishes
(`python -m vidproc.settings` prints it). Options win over the file, the file over the defaults.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vidproc.documents import read_document
from vidproc.errors import ConfigError
from vidproc.output import as_a_filter
from vidproc.secrets import refuse_credentials_within
from vidproc.video.container import MAX_FRAME_S
from vidproc.video.probe import check_name_pattern


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PoolJob(_Section):
    """Actors which hold one model and nothing else, so that they grow, and take nodes, apart from the rest."""

    min: int = Field(1, ge=1, description="Actors kept, also with nothing to do")
    max: int | None = Field(None, ge=1, description="Most actors; by default as many as the cluster has room for")
    num_gpus: float | None = Field(None, ge=0, description="GPUs of one actor; 0.25: four actors share one")
    num_cpus: float = Field(1.0, ge=0, description="CPUs of one actor")
    memory_bytes: int | None = Field(None, gt=0, description="Memory of one actor; by default `execution.memory.infer`")
    accelerator_type: str | None = Field(
        None, description="Only on nodes with this kind of GPU, by Ray's names: L4, A100, H100, ..."
    )

    @model_validator(mode="after")
    def _possible(self) -> PoolJob:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"a pool's max ({self.max}) may not be less than its min ({self.min})")
        return self


class ModelJob(_Section):
    """One model of the pipeline."""

    model: str = Field(
        description="A registry name, `auto`, `demo`, `none`, a model file or folder, or package.module:Class"
    )
    fps: float | None = Field(None, gt=0, description="Samples a second; the model's own choice if not given")
    score_threshold: float | None = Field(None, ge=0, le=1, description="Detections below it are not kept")
    top_k: int = Field(3, ge=1, description="Labels kept for an action window")
    batch_size: int | None = Field(None, ge=1, description="Frames (or windows) a forward pass")
    window: int | None = Field(None, ge=1, description="Frames in an action window")
    stride: int | None = Field(None, ge=1, description="Frames from one action window to the next")
    half: bool | None = Field(None, description="Half precision; by default on GPUs only")
    weights: str | None = Field(None, description="A file or s3:// object in place of the registry's weights")
    max_detections: int | None = Field(None, ge=1, description="Boxes kept of one frame")
    options: dict[str, Any] = Field({}, description="What a model file needs to be told, such as its decoding")
    sha256: str | None = Field(None, description="Of the weights: needed for remote ones whose name carries no hash")
    size: tuple[int, int] | None = Field(None, description="Height and width that the model gets")
    nms_iou: float | None = Field(None, ge=0, le=1, description="Overlap above which a box is suppressed")
    threads: int | None = Field(None, ge=1, description="CPU threads of one forward pass")
    num_gpus: float | None = Field(
        None, ge=0, description="GPUs of one actor; 0.25: four actors share one; by default 1 in a job that uses GPUs"
    )
    pool: PoolJob | None = Field(None, description="Actors of its own; by default one actor holds all models")

    @property
    def gpus(self) -> float | None:
        """GPUs of one actor, wherever the job says so; None: it does not."""
        return self.pool.num_gpus if self.pool and self.pool.num_gpus is not None else self.num_gpus

    @model_validator(mode="after")
    def _gpus_make_sense(self) -> ModelJob:
        if self.pool and None not in (self.pool.num_gpus, self.num_gpus):
            raise ValueError("num_gpus is given twice: keep the one in `pool`")
        if self.gpus is not None and self.gpus > 1 and self.gpus % 1:
            raise ValueError(f"num_gpus above 1 must be a whole number, not {self.gpus:g}")
        return self


class Filters(_Section):
    """Which objects of the archive are meant."""

    include: tuple[str, ...] = Field((), description="Globs on the path below the archive; none: everything")
    exclude: tuple[str, ...] = ()
    min_bytes: int | None = Field(None, ge=0)
    max_bytes: int | None = Field(None, ge=0)
    modified_since: datetime | None = None
    modified_before: datetime | None = None


class Cut(_Section):
    """How a video is divided."""

    clip_seconds: float = Field(30.0, gt=0, description="Clips end at the first keyframe after this long")
    clips_per_task: int = Field(2, ge=1, description="Neighbouring clips that are retried as one")


class HysteresisJob(_Section):
    """When a stretch of a presence or an action begins, lasts and counts."""

    on: float = Field(0.5, ge=0, le=1, description="Score from which a stretch begins")
    off: float = Field(0.3, ge=0, le=1, description="Score below which it ends; not above `on`")
    gap_s: float = Field(2.0, ge=0, description="Longest gap that it survives, in seconds")
    min_s: float = Field(1.0, ge=0, description="Shortest stretch that is kept, in seconds")

    @model_validator(mode="after")
    def _begins_above_where_it_ends(self) -> HysteresisJob:
        if self.off > self.on:
            raise ValueError(f"off ({self.off:g}) may not be above on ({self.on:g})")
        return self


class ActionHysteresisJob(HysteresisJob):
    gap_s: float = Field(1.0, ge=0, description="Longest gap that it survives, in seconds")
    min_s: float = Field(0.5, ge=0, description="Shortest stretch that is kept, in seconds")


class Link(_Section):
    """Tracks and segments."""

    track: bool = True
    activation_score: float = Field(0.5, ge=0, le=1)
    lost_seconds: float = Field(1.5, gt=0)
    minimum_iou: float = Field(0.1, ge=0, le=1)
    minimum_detections: int = Field(2, ge=1)
    presence: HysteresisJob = HysteresisJob()
    action: ActionHysteresisJob = ActionHysteresisJob()


class Limits(_Section):
    """What one file or one run may cost."""

    max_failures: str = Field("5%", description="Failed videos above which the run exits with 1: a share or a number")
    attempts: int = Field(3, ge=1, description="Attempts before a task is quarantined")
    time_limit_s: float = Field(900.0, gt=0, description="For one attempt at one task")
    memory_bytes: int = Field(4 << 30, gt=0, description="Private memory above which a worker is ended")
    bytes_in_flight: int | None = Field(
        None,
        gt=0,
        description="Decoded frames between decoders and models, for each node; by default 1 GiB on a machine of "
        "our own, half of the object stores on a cluster",
    )
    max_pixels: int = Field(8192 * 8192, gt=0)
    max_streams: int = Field(64, gt=0)
    max_duration: float = Field(
        7 * 86_400.0,
        gt=0,
        allow_inf_nan=False,
        description="Longest video, in seconds: what says that it lasts longer is declined as `limit`, for its "
        "timestamps are most likely damaged",
    )
    max_frame_duration: float = Field(
        MAX_FRAME_S,
        gt=0,
        allow_inf_nan=False,
        description="Longest time that one frame stays on screen, in seconds: what lies beyond it until the next frame "
        "is a gap without rows. Screen recordings and slide shows hold a picture long",
    )


class MemoryJob(_Section):
    """Bytes that one worker of each kind is expected to use, declared to Ray, which fills the nodes by
    them. What it may use is `limits.memory_bytes`."""

    probe: int = Field(512 << 20, gt=0)
    decode: int = Field(1280 << 20, gt=0)
    infer: int = Field(2 << 30, gt=0, description="Of an actor with all models; a pool has its own `memory_bytes`")
    publish: int = Field(2 << 30, gt=0)


class Execution(_Section):
    """Where the work runs."""

    executor: Literal["ray", "inline"] = Field(
        "ray",
        description="`inline`: here, one after the other, in one process that nothing protects: time and memory "
        "limits are not enforced, and a file that crashes the decoder ends the run",
    )
    address: str | None = Field(None, description="A running Ray cluster (`auto`, host:port); none: this machine")
    workers: int | None = Field(None, ge=1, description="Decoders at a time; by default as many as there are CPUs")
    actors: int | None = Field(
        None, ge=1, description="Most actors that hold all models; by default as many as there is room for"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    memory: MemoryJob = MemoryJob()
    publish_videos: int = Field(200, ge=1, description="Videos that are published in one commit, at most")
    publish_seconds: float = Field(60.0, gt=0, description="A finished video waits no longer for its batch")

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError(f"the device is auto, cpu, cuda or cuda:N, not {value!r}")
        return value


class StorageJob(_Section):
    """How S3 is reached. Credentials come from the usual AWS environment, never from a job file."""

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    anonymous: bool = Field(
        False, description="Read a public archive without credentials; the lake is always signed for"
    )
    path_style: bool | None = Field(None, description="endpoint/bucket/key addresses; by default with an endpoint")


class Job(_Section):
    """One run of the main job."""

    archive: str = Field(description="A folder or s3://bucket/prefix")
    lake: str = Field(description="A folder or s3://bucket/prefix; everything that vidproc knows lives there")
    name: str = Field(
        "default",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="The pipeline's name; one current answer a name and video",
    )
    detector: ModelJob = ModelJob(model="auto")
    actions: ModelJob = ModelJob(model="auto")
    embedding: ModelJob = Field(
        ModelJob(model="none"), description="Turns frames or windows into vectors: an image model, or `demo`"
    )
    sampling: Literal["grid", "keyframes"] = "grid"
    recorded_at: str | None = Field(
        None, description="strftime pattern on the file name, which may stand anywhere in it: cam1_%Y%m%d_%H%M%S"
    )
    filters: Filters = Filters()
    cut: Cut = Cut()
    link: Link = Link()
    limits: Limits = Limits()
    execution: Execution = Execution()
    storage: StorageJob = StorageJob()
    follow_links: bool = Field(
        False,
        description="Go into folders outside of the archive where links lead there; links to files are always followed",
    )
    deleted: Literal["keep", "remove"] = Field(
        "keep", description="What becomes of rows whose video the archive no longer lists, after a whole listing"
    )
    plan: str | None = Field(
        None, description="Where `vidproc plan --save` wrote: taken in place of listing and probing the archive again"
    )
    verify: Annotated[str, Field(pattern=r"^\s*\d+(\.\d+)?\s*%?\s*$")] | Annotated[float, Field(ge=0, le=1)] = Field(
        "1%",
        description="Share of tasks that are decoded a second time, plainly and in order, to see that the fast path "
        "gives the same frames: 1% or 0.01; 0 for none, 100% for all. Rows do not depend on it",
    )
    limit: int | None = Field(None, ge=1, description="At most so many videos that are due")
    follow: Annotated[float | None, Field(ge=1, description="List again every so many seconds until interrupted")] = (
        None
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
            raise ValueError("a plan is of one moment: what arrives later is found by following without a plan")
        return self


def parse_share(value: Any) -> float:
    """'1%' or 0.01 -> 0.01. Raises ValueError unless it lies between 0 and 100 %."""
    text = str(value).strip()
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:[eE]-?\d+)?)\s*(%?)", text)
    share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"a share such as 1% or 0.01 is wanted, from 0 to 100%, not {text!r}")
    return share


def parse_failure_budget(text: str) -> tuple[float | None, int | None]:
    """'5%' -> (0.05, None); '12' -> (None, 12)."""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip()):
        share = float(match[1]) / 100
        if share <= 1:
            return share, None
    elif text.strip().isdigit():
        return None, int(text)
    raise ValueError(f"max_failures is a share such as 5% or a number of videos, not {text!r}")


def load_job(
    path: str | os.PathLike[str] | None, overrides: Mapping[str, Any] | None = None, *, lake_optional: bool = False
) -> Job:
    """The job in a YAML file, with overrides (nested mappings; None means: not given) on top. A dry
    run may do without a lake (`lake_optional`): then it is the empty string."""
    data: dict[str, Any] = {}
    source = "the options"
    if path is not None:
        source = str(path)
        data = _expand(read_document(path, "job file"))
    _merge(data, overrides or {})
    if lake_optional:
        data.setdefault("lake", "")
    try:
        return Job.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error, source)) from error


def _expand(value: Any) -> Any:
    """`${NAME}`, `${NAME-default}` and `${NAME:-default}` in strings are filled in from the environment, as
    shells do it: with the colon the default also stands in for an empty value."""
    if isinstance(value, str):

        def fill(match: re.Match[str]) -> str:
            found = os.environ.get(match[1])
            if found is None or (match[2] == ":-" and not found):
                found = match[3]
            if found is None:
                raise ConfigError(
                    f"the job file uses ${{{match[1]}}}, which is not set: set it, or write ${{{match[1]}:-default}}"
                )
            return found

        return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?-)([^}]*))?\}", fill, value)
    if isinstance(value, dict):
        return {k: _expand(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v) for v in value]
    return value


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            below = into.get(key)
            below = {"model": below} if isinstance(below, str) else dict(below or {})
            _merge(below, value)
            if below:
                into[key] = below
        else:
            into[key] = value


def _explain(error: ValidationError, source: str) -> str:
    import difflib

    lines = []
    for problem in error.errors():
        where = ".".join(str(p) for p in problem["loc"]) or "job"
        if problem["type"] == "extra_forbidden":
            section: Any = Job
            for part in problem["loc"][:-1]:
                section = section.model_fields[str(part)].annotation
                section = next((t for t in get_args(section) if t is not type(None)), section)  # Section | None
            known = list(section.model_fields)
            close = difflib.get_close_matches(str(problem["loc"][-1]), known, 1)
            lines.append(
                f"unknown key `{where}`"
                + (f", did you mean `{close[0]}`?" if close else f"; known: {', '.join(known)}")
            )
        elif problem["type"] == "missing":
            lines.append(f"`{where}` is missing")
        else:
            given = "" if problem["type"] == "value_error" else f", not {problem['input']!r}"
            lines.append(f"`{where}`: {problem['msg'].removeprefix('Value error, ')}{given}")
    return f"{source}: " + "; ".join(lines)


def json_schema() -> dict[str, Any]:
    """The published JSON Schema of a job file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "vidproc job"} | Job.model_json_schema()


if __name__ == "__main__":
    with as_a_filter():
        print(json.dumps(json_schema(), indent=2))
