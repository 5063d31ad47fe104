"""`vidproc retry`: make videos due again that failed, and find the job that does them again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vidproc.errors import ConfigError
from vidproc.run.summary import counts_as_failure
from vidproc.secrets import hidden_in
from vidproc.settings import Job
from vidproc.storage import Storage, StorageOptions
from vidproc.tables.delta import first_line
from vidproc.tables.lake import Lake
from vidproc.tables.own import is_own

FOLDER = "_released"
"""Below the lake: one empty object for each video that `retry` released, until it is published again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What `retry` made due again."""

    videos: Mapping[str, int]
    """By pipeline."""
    job: Job | None
    """The job of the last run of one of these pipelines, which does them again. It neither follows nor takes a plan."""
    hidden: tuple[str, ...]
    """Settings of that job out of which a secret was left when it was written down. Then `job` is None: it cannot be
    done again from the lake alone."""
    classes: tuple[str, ...]
    """Error classes that there are in the lake."""
    own: bool = True
    """Whether this user ran that job. Else whoever made the lake chose what `job` reads and loads."""


class ReleaseMarks:
    """The marks of one pipeline's released videos, read once."""

    def __init__(self, storage: Storage, pipeline: str) -> None:
        self._storage, self._prefix = storage, f"{FOLDER}/{pipeline}/"
        self._video_ids = {o.key.removeprefix(self._prefix) for o in storage.list(self._prefix)}

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._video_ids

    def clear(self, video_ids: Iterable[str]) -> None:
        """Remove the marks of those among these videos that have one."""
        marked = self._video_ids.intersection(video_ids)
        self._storage.delete(self._prefix + video_id for video_id in marked)
        self._video_ids -= marked


def release(lake_uri: str, options: StorageOptions, classes: tuple[str, ...] = ()) -> Released:
    """Make videos due again that failed, or lost a piece to repeated failures; with `classes` every video that ended
    with one of these error classes."""
    lake = Lake.open(lake_uri, options)
    released: Counter[str] = Counter()
    known: set[str] = set()
    for row in lake.videos().select(["video_id", "pipeline", "status", "error_class"]).to_pylist():
        error_class = row["error_class"]
        if error_class in classes if classes else counts_as_failure(row["status"], error_class):
            lake.storage.put(f"{FOLDER}/{row['pipeline']}/{row['video_id']}", b"")
            released[row["pipeline"]] += 1
        if error_class is not None:
            known.add(error_class)
    jobs = ((r["run_id"], r["job"]) for r in lake.runs().to_pylist() if r["pipeline"] in released and r["job"])
    run_id, text = next(jobs, ("", None))
    hidden, job = _recorded_job(lake, run_id, text) if text else ((), None)
    own = not text or is_own(text)
    return Released(videos=dict(released), job=job, hidden=hidden, classes=tuple(sorted(known)), own=own)


def _recorded_job(lake: Lake, run_id: str, text: str) -> tuple[tuple[str, ...], Job | None]:
    """The job of a run, for this lake and no other: it may have been moved since, or made by somebody else. Or what
    is hidden in it, so that it cannot be run."""
    try:
        hidden = tuple(hidden_in(json.loads(text)))
        job = None if hidden else Job.model_validate_json(text)
    except (ValueError, TypeError, AttributeError, RecursionError) as e:
        raise ConfigError(
            f"{lake.uri}: the job that `runs` has of {run_id} is none that this vidproc can run ({first_line(e)}); "
            "use --no-run, and give `vidproc index` a job"
        ) from e
    return hidden, job and job.model_copy(update={"lake": lake.uri, "follow": None, "plan": None})
