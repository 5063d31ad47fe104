"""A few-shot model's answers for vectors that lie in a lake: new rows of `actions` and `segments`, nothing decoded.

The rows belong to a pipeline of their own, so what the lake held before stays as it is. They are made
where they are published, a video at a time, by the same code that publishes an index.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import torch

from vidproc.errors import ConfigError, VidprocError
from vidproc.learn.lake import LakeRows, open_rows
from vidproc.media import Video, VideoInfo, content_hash
from vidproc.models import describe_model
from vidproc.models.base import ModelCard
from vidproc.models.fetching import reaching
from vidproc.models.prototypes import Answer, answer_of
from vidproc.models.registry import find_recipe
from vidproc.models.settings import ModelSettings
from vidproc.models.tensors import state_dict_of
from vidproc.models.weights import read_weights
from vidproc.progress import Reporter
from vidproc.settings import LinkSettings
from vidproc.storage import StorageOptions
from vidproc.tables.delta import quoted
from vidproc.tables.heartbeat import Heartbeat
from vidproc.tables.lake import Lake
from vidproc.tables.link import VideoKeys, link
from vidproc.tables.outcome import VideoOutcome
from vidproc.tables.publish import RunInfo, publish
from vidproc.tables.rows import actions_table

BATCH = 64
"""Videos a publication: one commit a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelabelSettings:
    lake: str
    model: str
    """A model folder that `vidproc fewshot` made."""
    name: str | None = None
    """Name of the pipeline for the new rows. None: the model's name."""
    pipeline: str | None = None
    """Whose vectors; needed where the lake has several pipelines."""
    top_k: int = 3
    """Labels a window, as in an index."""
    link: LinkSettings = field(default_factory=LinkSettings)

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ConfigError(f"top_k must be from 1, not {self.top_k}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelabelReport:
    lake: str
    pipeline: str
    """Under which the new rows are found."""
    model: str
    videos: int
    windows: int
    rows: dict[str, int]
    """By table."""
    seconds: float


def relabel(settings: RelabelSettings, *, options: StorageOptions | None = None) -> RelabelReport:
    """Labels the vectors of all videos of a pipeline. The same command again replaces its own rows alone.
    Raises ConfigError where the lake holds no vectors of the model's backbone."""
    began, started_at = time.perf_counter(), datetime.now(UTC)
    with reaching(options):
        card, backbone, answer = _few_shot_answer(settings.model)
    name = settings.name or card.name
    lake = Lake.open(settings.lake, options)
    with open_rows(settings.lake, settings.pipeline, options) as rows:
        if name == rows.pipeline:
            raise ConfigError(f"{settings.lake}: the pipeline {name} holds the vectors; the labels need another name.")
        vectors = rows.model("embeddings", backbone)
        _check_size(rows, vectors, answer, settings)
        rules = json.dumps(asdict(settings.link), sort_keys=True)
        run = RunInfo(
            run_id=f"relabel-{started_at:%Y%m%dT%H%M%S}-{uuid4().hex[:6]}",
            pipeline=name,
            pipeline_id=content_hash("relabel", card.weights_sha256, vectors, str(settings.top_k), rules),
        )
        about = {
            "run_id": run.run_id,
            "pipeline": name,
            "pipeline_id": run.pipeline_id,
            "command": "relabel",
            "job": json.dumps(_job(settings, card, vectors, rows.pipeline)),
            "started_at": started_at,
            "host": socket.gethostname(),
        }
        lake.record_run(about | {"outcome": "running"})

        def answers(of: VideoOutcome, _: dict[str, pa.Table]) -> dict[str, pa.Table]:
            return _label(of.video.video_id, rows, vectors, card, answer, settings=settings, pipeline=name)

        made: dict[str, int] = {}
        videos = _outcomes(rows, vectors)
        sign = {key: about[key] for key in ("run_id", "pipeline", "host", "started_at")}
        try:
            with Heartbeat(Reporter(), lake.storage, **sign):
                while batch := list(islice(videos, BATCH)):
                    report = publish(lake, batch, answers, run)
                    made = {k: made.get(k, 0) + report.rows.get(k, 0) for k in made | dict(report.rows)}
        except BaseException as error:
            outcome, code = ("interrupted", 130) if isinstance(error, KeyboardInterrupt) else ("failed", 1)
            ended = {"ended_at": datetime.now(UTC), "outcome": outcome, "exit_code": code, "reason": str(error)}
            with suppress(VidprocError):  # else the next command finds it silent, and writes down that it is over
                lake.record_run(about | ended)
            raise
    done = lake.tables.read("videos", ["video_id"], f"run_id = {quoted([run.run_id])}").num_rows
    lake.record_run(about | {"ended_at": datetime.now(UTC), "outcome": "ok", "exit_code": 0, "videos_indexed": done})
    return RelabelReport(
        lake=lake.uri,
        pipeline=name,
        model=card.ref,
        videos=done,
        windows=made.get("actions", 0) // min(settings.top_k, len(card.labels)),
        rows={k: made.get(k, 0) for k in ("actions", "segments")},
        seconds=time.perf_counter() - began,
    )


def _job(settings: RelabelSettings, card: ModelCard, vectors: str, pipeline: str) -> dict[str, Any]:
    """What the run records of its settings."""
    model = str(Path(settings.model).absolute()) if Path(settings.model).exists() else settings.model
    return {
        "model": card.ref,
        "vectors": vectors,
        "from": pipeline,
        "top_k": settings.top_k,
        "actions": {"model": model},
    }


def _few_shot_answer(model: str) -> tuple[ModelCard, str, Answer]:
    """The model's card, the name of its backbone in `embeddings`, and how it answers."""
    settings = ModelSettings(kind="actions", device="cpu")
    recipe = find_recipe(model, settings)
    if recipe.family != "few-shot":
        raise ConfigError(f"{model} is no few-shot model, so there is no telling its answer from vectors.")
    card = describe_model(model, settings)
    assert card is not None, "an action model is never `none`"
    weights = read_weights(recipe.weights, recipe.sha256, model=recipe.name)
    if weights.sha256 != card.weights_sha256:
        raise ConfigError(f"The weights {weights.path} changed while they were read: run the command again.")
    answer = answer_of(state_dict_of(weights), recipe)
    return card, str(recipe.args["encoder"].get("ref", "")), answer


def _check_size(rows: LakeRows, vectors: str, answer: Answer, settings: RelabelSettings) -> None:
    sizes = rows.rows(
        "SELECT DISTINCT len(embedding) AS n FROM embeddings WHERE pipeline = $pipeline AND model = $model",
        model=vectors,
    )["n"].to_pylist()
    if sizes != [len(answer.mean)]:
        held = ", ".join(map(str, sorted(sizes)))
        raise ConfigError(f"{settings.lake}: vectors of {held} values; {settings.model} wants {len(answer.mean)}.")


def _label(
    video_id: str,
    rows: LakeRows,
    vectors_of: str,
    card: ModelCard,
    answer: Answer,
    *,
    settings: RelabelSettings,
    pipeline: str,
) -> dict[str, pa.Table]:
    """One video's rows of actions and segments."""
    table = rows.rows(
        "SELECT start_s, end_s, embedding FROM embeddings WHERE video_id = $video AND pipeline = $pipeline "
        "AND model = $model ORDER BY start_s",
        video=video_id,
        model=vectors_of,
    )
    if not table.num_rows:
        return {}
    starts, ends = table["start_s"].to_numpy(), table["end_s"].to_numpy()
    vectors = torch.tensor(np.array(table["embedding"].to_pylist(), np.float32))
    scores = answer.logits(vectors).softmax(1).numpy()
    found = {"actions": actions_table(video_id, pipeline, card, starts, ends, scores, top_k=settings.top_k)}
    stride_s = float(np.median(np.diff(starts))) if len(starts) > 1 else float(ends[0] - starts[0])
    keys = VideoKeys(video_id, pipeline)
    return link(found, keys, settings.link, detector_fps=None, action_stride_s=stride_s)


def _outcomes(rows: LakeRows, vectors: str) -> Iterator[VideoOutcome]:
    """The videos that have vectors, as `videos` describes them: they stay what indexing found them to be."""
    table = rows.rows(
        "SELECT * FROM videos WHERE pipeline = $pipeline AND video_id IN "
        "(SELECT video_id FROM embeddings WHERE pipeline = $pipeline AND model = $model) ORDER BY video_id",
        model=vectors,
    )
    return (_outcome(row) for row in table.to_pylist())


def _outcome(r: Mapping[str, Any]) -> VideoOutcome:
    video = _Known(r["uri"], r["size_bytes"], r["content_id"], r["modified_at"], r["video_id"])
    info = VideoInfo(
        video=video,
        container=r["container"],
        codec=r["codec"],
        pixel_format=r["pixel_format"],
        width=r["width"],
        height=r["height"],
        rotation=r["rotation"],
        fps=r["fps"],
        time_base=Fraction(r["time_base"]),
        origin_pts=r["start_pts"],
        duration_s=r["promised_s"],
        frames_promised=None,
        keyframe_pts=(),
        recorded_at=r["recorded_at"],
    )
    return VideoOutcome(
        video=video,
        info=info,
        status=r["status"],
        coverage=r["coverage"],
        error_class=r["error_class"],
        error=r["error"],
        attempts=r["attempts"],
        task_ids=(),
        duration_s=r["duration_s"],
        warnings=tuple(r["warnings"] or ()),
    )


@dataclass(frozen=True, slots=True)
class _Known(Video):
    """A video that the lake knows by its id: `uri` is as readers see it, which for odd names is not how it is."""

    known_id: str = ""

    @property
    def video_id(self) -> str:
        return self.known_id
