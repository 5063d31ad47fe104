"""What finished tasks leave in the lake until their video is published: the checkpoint.

    <lake>/_staging/<pipeline_id>/<video_id>/<task_id>/<table>.parquet    rows, put whole
    <lake>/_staging/<pipeline_id>/<video_id>/<task_id>/report.json        put last: the task is finished
    <lake>/_staging/<pipeline_id>/<video_id>/_failures/<hash>.json        an attempt that failed

All names are hashes or table names, so nothing from the archive becomes a path. A retry writes the
same names again. Parts without a report do not exist for any reader.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidproc.errors import Damaged, NotFound
from vidproc.media import DecodeReport, Task, content_hash
from vidproc.secrets import redact_values
from vidproc.storage import Storage
from vidproc.tables.checks import document, typed
from vidproc.tables.outcome import Failure
from vidproc.tables.schema import MODEL_TABLES

FOLDER = "_staging"
REPORT = "report.json"
_FAILURES = "_failures"
_WRONG_ON = "fast_path_wrong_on"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """How one finished task went; its rows lie beside it."""

    task_id: str
    video_id: str
    index: int
    """Place of the task in its video, from 0."""
    count: int
    """How many tasks the video has."""
    decode: DecodeReport
    rows: Mapping[str, int]
    """Rows by table; tables without rows are not put and not named."""
    attempts: int = 1
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By step."""
    host: str = ""

    @classmethod
    def of(
        cls,
        task: Task,
        tables: Mapping[str, pa.Table],
        decode: DecodeReport,
        *,
        attempts: int = 1,
        seconds: Mapping[str, float] | None = None,
    ) -> TaskReport:
        return cls(
            task_id=task.task_id,
            video_id=task.video.video_id,
            index=task.index,
            count=task.count,
            decode=decode,
            rows={name: t.num_rows for name, t in tables.items() if t.num_rows},
            attempts=attempts,
            seconds=dict(seconds or {}),
            host=socket.gethostname(),
        )

    def to_json(self) -> bytes:
        raw = asdict(self)
        raw["decode"]["warnings"] = redact_values(raw["decode"]["warnings"])
        return json.dumps(raw, ensure_ascii=True).encode()

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> TaskReport:
        """Raises ValueError, TypeError or LookupError for what no vidproc has written."""
        known = _known(cls, raw)
        decode = _known(DecodeReport, known.pop("decode"))
        decode["warnings"] = tuple(decode.get("warnings", ()))
        report = cls(decode=DecodeReport(**decode), **known)
        typed(report)
        typed(report.decode)
        if not all(type(n) is int and n >= 0 for n in report.rows.values()):
            raise ValueError("its counts are no counts")
        if not all(isinstance(seconds, int | float) for seconds in report.seconds.values()):
            raise ValueError("its times are no times")
        return report


@dataclass(frozen=True, slots=True)
class Staging:
    """The staged parts of one pipeline, below the root of a lake. Picklable: workers put with it."""

    storage: Storage
    """Rooted at the lake."""
    pipeline_id: str

    def put(self, task: Task, tables: Mapping[str, pa.Table], report: TaskReport) -> None:
        """The tables first, then the report, which makes them exist. Empty tables are not put.

        Looks afterwards, since a vacuum may have found the tables without a report, and old, while this worker slept.
        """
        unknown = set(tables) - set(MODEL_TABLES)
        if unknown:
            raise ValueError(f"no such tables: {sorted(unknown)}")
        folder = self._task(task.video.video_id, task.task_id)
        parts = {f"{folder}/{name}.parquet": to_parquet(table) for name, table in tables.items() if table.num_rows}
        parts[f"{folder}/{REPORT}"] = report.to_json()
        while parts:
            for key, data in parts.items():
                self.storage.put(key, data)
            there = {item.key for item in self.storage.list(f"{folder}/")}
            parts = {key: data for key, data in parts.items() if key not in there}

    def finished(self) -> Iterator[tuple[str, str]]:
        """(video_id, task_id) of every finished task of this pipeline, by one listing."""
        for parts, _ in self._listed():
            if len(parts) == 3 and parts[2] == REPORT:
                yield parts[0], parts[1]

    def failed(self) -> Iterator[str]:
        """video_id once for every failed attempt that is kept, by one listing: whom to ask `failures` about."""
        for parts, _ in self._listed():
            if len(parts) == 3 and parts[1] == _FAILURES:
                yield parts[0]

    def load(self, video_id: str, task_ids: Sequence[str]) -> tuple[dict[str, pa.Table], list[TaskReport]]:
        """The rows of these tasks by table, in the order of the tasks in the video, and their reports.

        Tables that none of them has are not there. Raises NotFound where a task has no report.
        """
        with ThreadPoolExecutor(8) as pool:
            reports = sorted(pool.map(partial(self.report, video_id), task_ids), key=lambda r: r.index)
            wanted = [(name, r.task_id) for name in MODEL_TABLES for r in reports if name in r.rows]
            keys = [f"{self._task(video_id, task_id)}/{name}.parquet" for name, task_id in wanted]
            parts: dict[str, list[pa.Table]] = {}
            for (name, _), data in zip(wanted, pool.map(self.storage.get, keys), strict=True):
                try:
                    parts.setdefault(name, []).append(pq.read_table(pa.BufferReader(data)))
                except (pa.ArrowException, OSError) as e:
                    raise NotFound(f"staged {name} of video {video_id} cannot be read; it has to be done again") from e
        # In one piece: a ten-hour video has hundreds, and each takes its kilobytes whatever it holds.
        return {name: pa.concat_tables(parts.pop(name)).combine_chunks() for name in list(parts)}, reports

    def report(self, video_id: str, task_id: str) -> TaskReport:
        try:
            raw = document(self.storage, f"{self._task(video_id, task_id)}/{REPORT}", "report of a task")
            report = TaskReport.of_json(raw)
            if (report.video_id, report.task_id) != (video_id, task_id):
                raise ValueError("it is about another task")
        except (NotFound, Damaged, ValueError, TypeError, LookupError, AttributeError) as e:
            # What is no report does not exist for any reader: the task is done again, and writes over it.
            raise NotFound(f"task {task_id} of video {video_id} is not staged; it has to be done again") from e
        return report

    def put_failure(self, failure: Failure, *, content_id: str | None = None) -> None:
        """Kept until the video is published, so that strikes outlive the driver. The same failure
        twice is one. `content_id`: of the file on which the fast path is wrong, where that is the failure."""
        told = {name: redact_values(getattr(failure, name)) for name in ("error", "traceback")}
        raw = asdict(failure) | told | {"at": failure.at.isoformat()}
        if content_id is not None:
            raw[_WRONG_ON] = content_id
        name = content_hash(str(failure.task_id), failure.stage, str(failure.attempt), failure.run_id, raw["at"])
        key = f"{self._video(failure.video_id)}/{_FAILURES}/{name}.json"
        self.storage.put(key, json.dumps(raw, ensure_ascii=True).encode())

    def failures(self, video_id: str) -> list[Failure]:
        """In order of time."""
        found = [_failure(raw, video_id) for raw in self._failures(video_id)]
        return sorted((f for f in found if f is not None), key=lambda f: (f.at, f.attempt))

    def is_plain(self, video_id: str, content_id: str) -> bool:
        """Whether the fast path was found wrong on this file, so that all of it is to be decoded plainly."""
        return any(raw.get(_WRONG_ON) == content_id for raw in self._failures(video_id))

    def _failures(self, video_id: str) -> Iterator[dict[str, Any]]:
        for item in self.storage.list(f"{self._video(video_id)}/{_FAILURES}/"):
            with suppress(Damaged):  # nobody's: it is removed with the others
                yield document(self.storage, item.key, "failure")

    def discard(self, video_ids: Iterable[str]) -> None:
        """Removes all that is staged for these videos: one listing a video."""
        for video_id in video_ids:
            self._remove(item.key for item in self.storage.list(f"{self._video(video_id)}/"))

    def discard_tasks(self, tasks: Iterable[tuple[str, str]]) -> None:
        """Removes (video_id, task_id) parts without listing: their names are known."""
        names = [REPORT, *(f"{name}.parquet" for name in MODEL_TABLES)]
        self.storage.delete(f"{self._task(video, task)}/{name}" for video, task in tasks for name in names)

    def discard_failures(self, video_ids: Iterable[str]) -> None:
        for video_id in video_ids:
            self._remove(item.key for item in self.storage.list(f"{self._video(video_id)}/{_FAILURES}/"))

    def _remove(self, keys: Iterable[str]) -> None:
        self.storage.delete(reports_first(keys))

    def _listed(self) -> Iterator[tuple[list[str], int]]:
        folder = f"{FOLDER}/{self.pipeline_id}/"
        for item in self.storage.list(folder):
            yield item.key.removeprefix(folder).split("/"), item.size

    def _video(self, video_id: str) -> str:
        return f"{FOLDER}/{self.pipeline_id}/{video_id}"

    def _task(self, video_id: str, task_id: str) -> str:
        return f"{self._video(video_id)}/{task_id}"


def reports_first(keys: Iterable[str]) -> list[str]:
    """In the order in which they may be deleted: a task whose removal was cut short must not look finished."""
    return sorted(keys, key=lambda key: not key.endswith(f"/{REPORT}"))


def to_parquet(table: pa.Table) -> bytes:
    """Built in memory, so that it can be put whole."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _failure(raw: Mapping[str, Any], video_id: str) -> Failure | None:
    """None for what no vidproc has written."""
    try:
        known = _known(Failure, raw)
        found = Failure(**(known | {"at": datetime.fromisoformat(known["at"])}))
        typed(found)
    except (ValueError, TypeError, KeyError):
        return None
    return found if found.video_id == video_id else None


def _known(cls: type, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that a newer version added are left out, so that an older one reads what it knows."""
    names = {f.name for f in fields(cls)}
    return {name: value for name, value in raw.items() if name in names}
