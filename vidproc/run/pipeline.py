"""What happens to one video, as one ordered list of steps. Read this first.

    probe    the container's index -> VideoInfo                any worker
    decode   a task -> the frames that each model wants        any worker, one pass for all models
    infer    frames -> rows, staged as the task's checkpoint   the model actors, or one pool after another
    publish  whole videos -> linked, committed                 any worker

A pipeline is its models (with the hashes of their weights), their grids and thresholds, and the
rules by which rows are made and linked. All of that is hashed into `pipeline_id`: equal ids mean
equal rows.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import pyarrow as pa

from vidproc.annotations import Detections
from vidproc.errors import ConfigError
from vidproc.machine import memory_bytes
from vidproc.media import DecodeReport, FrameBatch, Grid, Task, Video, VideoInfo, content_hash
from vidproc.memory import stay_small
from vidproc.models import Kind, ModelSettings, describe_model, load_model, resolve_spec
from vidproc.models.base import ActionModel, Detector, EmbeddingModel, ModelCard
from vidproc.models.device import pick_device
from vidproc.runtime.step import AnyStep, Resources
from vidproc.settings import FileLimits, Job, LinkSettings, ModelJob, ModelOptions, Pool, WorkerMemory
from vidproc.storage import Storage, StorageOptions
from vidproc.tables.lake import Lake
from vidproc.tables.link import VideoKeys, link
from vidproc.tables.outcome import VideoOutcome
from vidproc.tables.publish import PublishReport, RunInfo, publish
from vidproc.tables.rows import actions_table, detections_table, embeddings_table
from vidproc.tables.staging import Staging, TaskReport
from vidproc.video.decode import MediaLimits, Source
from vidproc.video.probe import probe
from vidproc.video.verify import decode_and_verify

MAX_FRAME_S = FileLimits().max_frame_duration

# Raised by hand whenever the meaning of a row changes: then old rows are made again.
ROW_SEMANTICS = 2

WINDOWS_AT_A_TIME = 16
"""Windows handed to a model in one call: bounds what the model copies, not what it batches."""


HEADER_BYTES = 1 << 30
"""Private memory that probing may take, however much decoding may: an index is small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """A model as this job uses it."""

    spec: str
    settings: ModelSettings
    card: ModelCard
    top_k: int = 3


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Everything that decides which rows a video gets. Small and picklable; no weights inside."""

    name: str
    uses: tuple[ModelUse, ...]
    link: LinkSettings
    device: str = "auto"
    max_frame_s: float = MAX_FRAME_S
    """Longest time that one frame stays on screen."""

    @property
    def grids(self) -> tuple[Grid, ...]:
        return tuple(use.card.grid for use in self.uses)

    @cached_property
    def pipeline_id(self) -> str:
        models = [
            {
                "kind": use.card.kind,
                "ref": f"{use.card.name}@{use.card.weights_sha256}",
                "definition": use.card.definition,
                "labels": use.card.labels,
                "grid": asdict(use.card.grid) | {"fps": str(use.card.grid.fps)},
                "score_threshold": use.settings.score_threshold,
                "max_detections": use.settings.max_detections,
                "half": use.settings.half,
                "top_k": use.top_k,
            }
            for use in self.uses
        ]
        meaning = {"rows": ROW_SEMANTICS, "models": models, "link": asdict(self.link)}
        if self.max_frame_s != MAX_FRAME_S:  # named where it is another: then there are other rows
            meaning["max_frame_s"] = self.max_frame_s
        return content_hash("pipeline", json.dumps(meaning, sort_keys=True))

    def fps(self, kind: str) -> float | None:
        """Samples a second of the model of that kind; None without one, or when it samples keyframes."""
        for use in self.uses:
            if use.card.kind == kind and not use.card.grid.keyframes_only:
                return float(use.card.grid.fps)
        return None

    def link_video(self, outcome: VideoOutcome, tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        """The staged rows of one video -> those rows linked, with tracks and segments."""
        keys = VideoKeys(outcome.video.video_id, self.name)
        strides = [float(u.card.grid.stride / u.card.grid.fps) for u in self.uses if u.card.kind == "actions"]
        return link(
            tables,
            keys,
            self.link,
            detector_fps=self.fps("detector"),
            action_stride_s=strides[0] if strides else None,
            duration_s=outcome.duration_s,
        )


def make_pipeline(job: Job) -> Pipeline:
    """Looks the job's models up and describes them: refuses what does not exist before work starts."""
    if job.execution.executor == "inline" and job.execution.device not in ("auto", "cpu"):
        pick_device(job.execution.device)
    uses = []
    for kind, wanted in job.models.items():
        if wanted.model == "none":
            continue
        settings = _model_settings(kind, wanted, job)
        # What `auto` stands for is settled here, once: a worker with another device must not choose again.
        gpu = uses_gpu(job) if wanted.gpus is None else wanted.gpus > 0
        spec = resolve_spec(wanted.model, kind, gpu=gpu)
        card = describe_model(spec, settings) if spec is not None else None
        if spec is None or card is None:  # `auto` for actions means none where there is no GPU
            continue
        if job.sampling == "keyframes" and kind == "detector":
            card = replace(card, grid=replace(card.grid, keyframes_only=True))
        uses.append(ModelUse(spec=spec, settings=settings, card=card, top_k=wanted.top_k))
    if not uses:
        raise ConfigError("this job has no model to run: name a detector or an action model")
    return Pipeline(
        name=job.name,
        uses=tuple(uses),
        link=job.link,
        device=job.execution.device,
        max_frame_s=job.limits.max_frame_duration,
    )


def uses_gpu(job: Job) -> bool:
    """Whether the models of this job run on GPUs: as it says, else whether this machine has one. The
    driver of a cluster may have none: there a job names its device."""
    if job.execution.device != "auto":
        return job.execution.device != "cpu"
    if any(wanted.gpus for wanted in job.models.values()):
        return True
    if not _gpu_driver():
        return False
    import torch

    return torch.cuda.is_available()


def _gpu_driver() -> bool:
    """Whether it is worth asking torch for a GPU: importing it takes seconds and hundreds of megabytes."""
    if sys.platform != "linux":
        return True
    try:
        ctypes.CDLL("libcuda.so.1")  # without it torch finds no NVIDIA GPU either
    except OSError:
        return os.path.exists("/dev/kfd")  # AMD
    return True


def storage_options(job: Job, *, archive: bool = False) -> StorageOptions:
    """Anonymous reading is for the archive alone: a lake is always signed for."""
    return StorageOptions(**vars(job.storage) | {"anonymous": job.storage.anonymous and archive})


def _model_settings(kind: Kind, wanted: ModelJob, job: Job) -> ModelSettings:
    given = {f.name: getattr(wanted, f.name) for f in fields(ModelOptions)}
    return ModelSettings(kind=kind, device=job.execution.device, storage=storage_options(job), **given)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedTask:
    """A task on the way from a decoder through the models: each model's frames give way to its rows."""

    task: Task
    batches: Mapping[Kind, FrameBatch]
    """What each model that has not answered yet is to see."""
    report: DecodeReport
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    """The rows made so far, by table."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Video -> VideoInfo."""

    source: Source
    limits: MediaLimits
    recorded_pattern: str | None
    needs: Resources
    name: str = "probe"
    stateful: bool = False

    def setup(self) -> None:
        stay_small()

    def __call__(self, video: Video) -> VideoInfo:
        return probe(video, self.source, self.limits, self.recorded_pattern)


@dataclass(frozen=True, kw_only=True)
class Decode:
    """Task -> DecodedTask."""

    grids: Mapping[Kind, Grid]
    source: Source
    limits: MediaLimits
    needs: Resources
    verify: float = 0.0
    """Share of tasks that are decoded plainly too, and compared."""
    name: str = "decode"
    stateful: bool = False

    def setup(self) -> None:
        stay_small()

    def __call__(self, task: Task) -> DecodedTask:
        grids, seconds = tuple(self.grids.values()), self.needs.time_limit_s
        batches, report = decode_and_verify(
            task, grids, self.source, self.limits, share=self.verify, time_limit_s=seconds
        )
        return DecodedTask(task, dict(zip(self.grids, batches, strict=True)), report)


class Infer:
    """DecodedTask -> the same with the rows of some models in place of their frames; whoever takes the
    last frames stages all rows -> TaskReport. One such step holds all models, unless a job gives a model
    actors of its own: frames are then read once all the same, but travel on from pool to pool."""

    stateful = True

    def __init__(
        self,
        pipeline: Pipeline,
        lake: Storage,
        needs: Resources,
        *,
        kinds: frozenset[Kind],
        name: str = "infer",
    ) -> None:
        self.pipeline, self.lake, self.needs = pipeline, lake, needs
        self.uses, self.name = tuple(u for u in pipeline.uses if u.card.kind in kinds), name

    def setup(self) -> None:
        self._models = [
            load_model(u.spec, device=self.pipeline.device, settings=u.settings, described=u.card) for u in self.uses
        ]
        self._staging = Staging(self.lake, self.pipeline.pipeline_id)

    def __call__(self, decoded: DecodedTask) -> DecodedTask | TaskReport:
        answered = self.answered(decoded)
        if answered.batches:
            return answered
        report = TaskReport.of(answered.task, answered.tables, answered.report)
        self._staging.put(answered.task, answered.tables, report)
        return report

    def answered(self, decoded: DecodedTask) -> DecodedTask:
        """The task with the rows of these models, and without their frames. Stages nothing."""
        batches, tables = dict(decoded.batches), dict(decoded.tables)
        video_id, name = decoded.task.video.video_id, self.pipeline.name
        for use, model in zip(self.uses, self._models, strict=True):
            card = use.card
            batch = batches.pop(card.kind)
            if card.kind == "detector":
                found = detect_upright(cast(Detector, model), batch)
                tables["detections"] = detections_table(video_id, name, card, batch, found)
                continue
            answer = cast(ActionModel, model).classify if card.kind == "actions" else cast(EmbeddingModel, model).embed
            starts_s, ends_s, values = on_windows(answer, batch, card.grid)
            if not len(values):
                continue
            if card.kind == "actions":
                tables["actions"] = actions_table(video_id, name, card, starts_s, ends_s, values, top_k=use.top_k)
            else:
                tables["embeddings"] = embeddings_table(video_id, name, card, starts_s, ends_s, values)
        return replace(decoded, batches=batches, tables=tables)


def detect_upright(model: Detector, batch: FrameBatch) -> Detections:
    """Detections of the frames that the task owns, boxes in pixels of the upright frame."""
    if batch.owned == 0:
        return Detections.empty()
    if batch.picture is None:
        found = model.detect(batch.pictures[: batch.owned])
    else:  # a picture that stands still is looked at once
        seen, which = np.unique(batch.picture[: batch.owned], return_inverse=True)
        found = model.detect(batch.pictures[seen]).repeated(which)
    return replace(found, boxes=batch.geometry.to_upright(found.boxes))


def on_windows(
    answer: Callable[[np.ndarray], np.ndarray], batch: FrameBatch, grid: Grid
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows that the task owns -> start and end seconds, float64 (n,), and what the model answers,
    float32 (n, d): scores or vectors; (0, 0) without a window."""
    frames = window_frames(batch, grid)
    if not len(frames):
        return np.zeros(0), np.zeros(0), np.zeros((0, 0), np.float32)
    chunks = (frames[i : i + WINDOWS_AT_A_TIME] for i in range(0, len(frames), WINDOWS_AT_A_TIME))
    values = np.concatenate([answer(batch.pixels_of(chunk)) for chunk in chunks])
    fps = float(grid.fps)
    starts = batch.sample[frames[:, 0]]
    return starts / fps, (batch.sample[frames].max(axis=1) + 1) / fps, values


def window_frames(batch: FrameBatch, grid: Grid) -> np.ndarray:
    """int64 (n, window): for each window that the task owns, the indices of its frames in the batch.

    A window that the end of the video cuts short is completed by its last frame if at least three
    quarters of it are there, or if it is the video's first; otherwise it is left out, since a picture
    that stands still looks like people who do. So is one in which a sample did not decode.
    """
    n, sample = len(batch.sample), batch.sample
    starts = np.flatnonzero(sample[: batch.owned] % grid.stride == 0)
    frames = starts[:, None] + np.arange(grid.window)
    there = np.minimum(n - starts, grid.window)
    unbroken = sample[starts + there - 1] - sample[starts] == there - 1
    enough = there == grid.window
    if batch.is_last:
        enough |= (4 * there >= 3 * grid.window) | (sample[starts] == 0)
    owned: np.ndarray = np.minimum(frames, n - 1)[unbroken & enough]
    return owned


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Whole videos -> linked and committed."""

    pipeline: Pipeline
    lake: Storage
    run: RunInfo
    needs: Resources
    name: str = "publish"
    stateful: bool = False

    def setup(self) -> None:
        stay_small()

    def __call__(self, batch: Sequence[VideoOutcome]) -> PublishReport:
        return publish(Lake.at(self.lake), batch, self.pipeline.link_video, self.run)


def routes(
    pipeline: Pipeline,
    job: Job,
    *,
    archive_options: StorageOptions,
    lake: Storage,
    run: RunInfo,
) -> dict[str, tuple[AnyStep, ...]]:
    """The three ways through the machine: a video is probed, its tasks indexed, its batch published."""
    source = Source(archive_options)
    limits = media_limits(job)
    memory, seconds = expected_memory(job), job.limits.time_limit_s
    light = _needs(job, memory.probe, cpus=0.5, time_limit_s=min(seconds, 120.0))
    light = replace(light, memory_limit_bytes=min(job.limits.memory_bytes, HEADER_BYTES))
    return {
        "probe": (Probe(source=source, limits=limits, recorded_pattern=job.recorded_at, needs=light),),
        "task": (
            Decode(
                grids={u.card.kind: u.card.grid for u in pipeline.uses},
                source=source,
                limits=limits,
                needs=_needs(job, memory.decode, cpus=1.0, time_limit_s=seconds),
                verify=job.verify_share,
            ),
            *_inference(pipeline, job, lake),
        ),
        "publish": (
            Publish(
                pipeline=pipeline,
                lake=lake,
                run=run,
                needs=_needs(job, memory.publish, cpus=1.0, time_limit_s=seconds, beside=True),
            ),
        ),
    }


def media_limits(job: Job) -> MediaLimits:
    """What one file may ask for, and how it is decoded, as the job says."""
    return MediaLimits(ways=job.decode, **{f.name: getattr(job.limits, f.name) for f in fields(FileLimits)})


def expected_memory(job: Job) -> WorkerMemory:
    """What each kind of worker is expected to use. On this machine no default is more than the machine, or the
    container, has: a small job still runs there. What a job says itself is kept, and refused where it cannot be."""
    memory = job.execution.memory
    if (job.execution.address or os.environ.get("RAY_ADDRESS", "local")) != "local":
        return memory
    most = memory_bytes()
    defaults = asdict(WorkerMemory()).items()
    return replace(memory, **{k: min(v, most) for k, v in defaults if getattr(memory, k) == v})


def _needs(job: Job, memory_bytes: int, **rest: Any) -> Resources:
    """Resources of a worker that is expected to use `memory_bytes`, and may use what any worker of the job may."""
    limit = job.limits.memory_bytes
    return Resources(memory_bytes=min(memory_bytes, limit), memory_limit_bytes=limit, **rest)


def _inference(pipeline: Pipeline, job: Job, lake: Storage) -> tuple[Infer, ...]:
    """One step for all models; one more for each model with a pool of its own."""
    groups: dict[str, list[Kind]] = {}
    for use in pipeline.uses:
        groups.setdefault(pool_of(job, use.card.kind), []).append(use.card.kind)
    steps = []
    for name, kinds in groups.items():
        models = [job.models[kind] for kind in kinds]
        pool = models[0].pool or Pool()
        asked = [m.gpus for m in models if m.gpus is not None]
        needs = _needs(
            job,
            expected_memory(job).infer,
            cpus=pool.num_cpus,
            gpus=sum(asked) if asked else float(uses_gpu(job)),
            time_limit_s=job.limits.time_limit_s,
            accelerator_type=pool.accelerator_type,
        )
        if pool.memory_bytes is not None:  # said of this very model, so it holds above what is said of all
            limit = max(pool.memory_bytes, job.limits.memory_bytes)
            needs = replace(needs, memory_bytes=pool.memory_bytes, memory_limit_bytes=limit)
        steps.append(Infer(pipeline, lake, needs, kinds=frozenset(kinds), name=name))
    return tuple(steps)


def pool_of(job: Job, kind: Kind) -> str:
    """Name of the step, and so of the pool of actors, in which the job's model of that kind lives."""
    return f"infer-{kind}" if job.models[kind].pool else "infer"
