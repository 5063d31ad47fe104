"""Videos with rows for the tests of the lake: drawn from a seed, so that two runs can be compared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from vidproc.annotations import Detections
from vidproc.media import Clip, DecodeReport, FrameBatch, FrameSize, Geometry, Grid, Task, Video, VideoInfo
from vidproc.models.base import ModelCard
from vidproc.storage import Storage
from vidproc.tables.lake import Lake
from vidproc.tables.outcome import Failure, Status, VideoOutcome
from vidproc.tables.publish import RunInfo
from vidproc.tables.rows import actions_table, detections_table
from vidproc.tables.schema import TABLES
from vidproc.tables.staging import Staging, TaskReport

RUN = RunInfo(run_id="run-1", pipeline="night", pipeline_id="pid-1")
CARD = ModelCard(
    name="m",
    kind="detector",
    labels=("cat", "dog"),
    grid=Grid(fps=Fraction(2), size=FrameSize()),
    licence="MIT",
    weights_uri="",
    weights_sha256="ab" * 32,
)
START = datetime(2026, 3, 1, 22, tzinfo=UTC)


def outcome(
    name: str,
    *,
    content: str = "1",
    tasks: int = 2,
    frames: int = 6,
    status: Status = "indexed",
    storage: Storage | None = None,
    run: RunInfo = RUN,
    attempts: int = 1,
    error: str | None = None,
) -> VideoOutcome:
    """A video with `frames` frames a task. With `storage` its parts are staged there, as a run leaves them."""
    video = Video(f"s3://archive/{name}.mp4", 1000, f"{content}:1000", START)
    number = int(video.video_id[:8], 16)
    # Every fourth has no date, the others fall on three days.
    recorded = None if number % 4 == 0 else START + timedelta(days=number % 3, hours=number % 5)
    info = VideoInfo(
        video, "mp4", "h264", "yuv420p", 64, 48, 0, 25.0, Fraction(1, 12800), 7, 60.0, 1500, (0,), recorded
    )
    ids = []
    for index in range(tasks):
        task = Task(info, (Clip(index * 100, (index + 1) * 100),), index, tasks, run.pipeline_id, 1)
        ids.append(task.task_id)
        if storage is not None:
            tables = rows(video, content, run, index, frames)
            decode = DecodeReport(frames * 12, frames, 0.0, 1.0, 1000, 0.1, True)
            Staging(storage, run.pipeline_id).put(task, tables, TaskReport.of(task, tables, decode))
    return VideoOutcome(
        video=video,
        info=info,
        status=status,
        coverage=1.0,
        error_class=None if error is None else "decode",
        error=error,
        attempts=attempts,
        task_ids=tuple(ids),
        frames_decoded=frames * 12 * tasks,
        frames_sampled=frames * tasks,
        duration_s=60.0,
    )


def rows(video: Video, content: str, run: RunInfo, index: int, frames: int) -> dict[str, pa.Table]:
    """One to three boxes a frame and one action window a frame, from the video's name, content and pipeline."""
    seed = [int(video.video_id[:8], 16), int.from_bytes(content.encode()), index, len(run.pipeline_id)]
    chance = np.random.default_rng(seed)
    k = np.arange(index * frames, (index + 1) * frames)
    batch = FrameBatch(
        np.zeros((frames, 1, 1, 3), np.uint8), k, k / 2, k * 6400 + 7, Geometry(64, 48), frames, is_last=False
    )
    frame = np.repeat(np.arange(frames), chance.integers(1, 4, frames))
    n = len(frame)
    boxes = chance.random((n, 4), dtype=np.float32) * 48
    found = Detections(frame, boxes, chance.random(n, dtype=np.float32), chance.integers(0, 2, n))
    return {
        "detections": detections_table(video.video_id, run.pipeline, CARD, batch, found),
        "actions": actions_table(
            video.video_id, run.pipeline, CARD, k / 2, k / 2 + 1, chance.random((frames, 2)), top_k=1
        ),
    }


def link(outcome: VideoOutcome, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Every label of a video is one track and one presence."""
    if "detections" not in tables:
        return tables
    detections = tables["detections"]
    label = detections["class_id"].to_numpy()
    time_s, model = detections["time_s"].to_numpy(), detections["model"][0].as_py()
    tracks: list[dict[str, Any]] = []
    segments: list[dict[str, Any]] = []
    keys = {"video_id": outcome.video.video_id, "pipeline": "night", "model": model}
    for class_id in np.unique(label).tolist():
        mine = np.flatnonzero(label == class_id)
        span = {"start_s": float(time_s[mine[0]]), "end_s": float(time_s[mine[-1]]), "label": CARD.labels[class_id]}
        path = [{"time_s": float(time_s[i]), "x_min": 0.0, "y_min": 0.0, "x_max": 1.0, "y_max": 1.0} for i in mine]
        tracks.append(
            keys
            | span
            | {
                "track_id": class_id,
                "class_id": class_id,
                "detections": len(mine),
                "score_mean": 0.5,
                "score_max": 0.5,
                "path": path,
            }
        )
        segments.append(keys | span | {"kind": "presence", "score": 0.5, "track_ids": [class_id]})
    linked = detections.append_column("track_id", pa.array(label, pa.int64()))
    return tables | {
        "detections": linked,
        "tracks": pa.Table.from_pylist(tracks),
        "segments": pa.Table.from_pylist(segments),
    }


def failure(of: VideoOutcome, attempt: int = 1, run: RunInfo = RUN) -> Failure:
    return Failure(
        uri=of.video.uri,
        video_id=of.video.video_id,
        task_id="t",
        stage="decode",
        error_class="decode",
        error="a stretch did not decode",
        traceback=None,
        attempt=attempt,
        host="h",
        run_id=run.run_id,
        at=START + timedelta(seconds=attempt),
    )


_PASSING = {"indexed_at"}


def contents(lake: Lake, tables: tuple[str, ...] = TABLES) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, sorted, without the time of writing: what two lakes are compared by."""
    found = {}
    for name in tables:
        table = lake.tables.read(name)
        columns = [c for c in table.column_names if c not in _PASSING]
        values = [tuple(repr(row[c]) for c in columns) for row in table.select(columns).to_pylist()]
        found[name] = sorted(values)
    return found


def objects(storage: Storage, *prefixes: str) -> list[str]:
    """Keys of what lies outside of the tables."""
    return sorted(o.key for p in prefixes or ("_staging/", "_changes/") for o in storage.list(p))
