"""An indexed archive: opened, questioned, looked after."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import date as Date
from datetime import datetime, time, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from vidproc.api.relations import Hits, Relation
from vidproc.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from vidproc.ask import LakeDatabase, SearchQuery
    from vidproc.look.frames import Frame
    from vidproc.look.report import Reported
    from vidproc.storage import StorageOptions
    from vidproc.tables.compaction import CompactReport
    from vidproc.tables.forgetting import ForgetReport
    from vidproc.tables.heartbeat import Sign
    from vidproc.tables.lake import Lake as Tables
    from vidproc.tables.status import LakeStatus
    from vidproc.tables.vacuum import VacuumReport


T = TypeVar("T")


def open(
    lake: str | os.PathLike[str],
    *,
    pipeline: str | None = None,
    threads: int | None = None,
    memory_limit: str | None = None,
    endpoint_url: str | None = None,
    profile: str | None = None,
    region: str | None = None,
    anonymous: bool | None = None,
) -> Lake:
    """Open a lake: a folder or `s3://bucket/prefix` that `vidproc.index` wrote to.

    pipeline: the one whose rows are shown, where the lake has several; "all" for the rows of all. By default the one
        with the most videos.
    threads, memory_limit ("4GB"): for questions; by default all cores and most of the memory.
    endpoint_url, profile, region, anonymous: how S3 is reached; by default as the AWS environment says.

    Raises ConfigError where there is no lake, where a newer vidproc made it, or where storage refuses us.
    """
    from vidproc.storage import StorageOptions, absolute_address, hurried
    from vidproc.tables.lake import Lake as Tables

    options = StorageOptions(endpoint_url=endpoint_url, profile=profile, region=region, anonymous=bool(anonymous))
    tables = Tables.open(absolute_address(os.fspath(lake)), hurried(options))
    return Lake(tables, options, pipeline, {"threads": threads, "memory_limit": memory_limit})


class Lake:
    """A lake, open for questions and upkeep. Made by `vidproc.open`.

    Questions see the lake as it was at the first of them, so that their answers fit together; `refresh` moves on to
    what was published since, and so do `compact`, `forget` and `vacuum` of this object.
    """

    def __init__(
        self, tables: Tables, options: StorageOptions, pipeline: str | None, settings: Mapping[str, Any]
    ) -> None:
        self._tables = tables
        self._options = options
        self._pipeline = pipeline
        self._settings = settings
        self._opened: LakeDatabase | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<vidproc.Lake {self.uri}>"

    @property
    def uri(self) -> str:
        """Absolute path, or `s3://bucket/prefix`."""
        return self._tables.uri

    def close(self) -> None:
        """Let go of what questions hold open. The next question opens it again."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def refresh(self) -> Self:
        """See the lake as it is now, with what was published since the first question."""
        self.close()
        return self

    # Questions

    @property
    def database(self) -> LakeDatabase:
        """The connection behind the questions, opened by the first of them."""
        if self._opened is None:
            from vidproc.ask import connect_to

            self._opened = connect_to(self._tables, pipeline=self._pipeline, **self._settings)
        return self._opened

    def sql(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        limit: int | None = None,
        offset: int = 0,
    ) -> Relation:
        """Ask in SQL (DuckDB) over the lake's tables: one SELECT, which can only read, and only this lake.

        params fill `?` (a sequence) or `$name` (a mapping) in the query. limit and offset page through the answer.
        A wrong statement raises ConfigError when its rows are asked for.
        """
        return Relation(lambda: self.database.sql(query, params, limit=limit, offset=offset), query)

    def search(
        self,
        *,
        label: str | Sequence[str] | None = None,
        action: str | Sequence[str] | None = None,
        with_label: str | Sequence[str] | None = None,
        then: str | Sequence[str] | None = None,
        within: float = 10.0,
        min_seconds: float = 0.0,
        min_score: float = 0.0,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        date: Date | str | Sequence[Date | str] | None = None,
        between: str | tuple[time, time] | Sequence[str | tuple[time, time]] | None = None,
        timezone: str = "UTC",
        video: str | Sequence[str] | None = None,
        limit: int = 100,
        offset: int = 0,
        after: str | None = None,
    ) -> Hits:
        """Find where something is in view, or happens: URI, time range in seconds and score.

        label: something in view, such as "person"; action: something that happens; of several any. With both, the
            time in which they overlap.
        with_label: what else is in view, or happens, at the same time. then: what begins afterwards, at most `within`
            seconds after the first ended. Hits of either that touch are one.
        min_seconds, min_score (0 to 1): leave out what is shorter or less sure.
        since, until: recorded in [since, until); a datetime or ISO 8601 text. date: recorded on this day, or on any of
            these. between: times of day such as "22:00-06:00", over midnight too. All of them in `timezone`.
        video: shell glob on the URI, or several.
        limit, offset, after: one page of hits; `after` is the token of the last hit of the page before.

        Raises ConfigError for what cannot be asked so.
        """
        from vidproc.ask import search as run_search

        wanted = search_query(
            label=label, action=action, with_label=with_label, then=then, within=within,
            min_seconds=min_seconds, min_score=min_score, since=since, until=until,
            date=date, between=between, timezone=timezone, video=video, limit=limit, offset=offset, after=after,
        )  # fmt: skip
        return Hits(lambda: run_search(self.database, wanted), _said(wanted))

    @property
    def videos(self) -> Relation:
        """One row a video of the archive, with how it ended."""
        return self._table("videos")

    @property
    def detections(self) -> Relation:
        """One row an object in a sampled frame."""
        return self._table("detections")

    @property
    def tracks(self) -> Relation:
        """One row an object that was followed through a video."""
        return self._table("tracks")

    @property
    def actions(self) -> Relation:
        """One row a window of frames and label of an action model."""
        return self._table("actions")

    @property
    def segments(self) -> Relation:
        """One row a time range in which something is in view, or happens."""
        return self._table("segments")

    @property
    def shots(self) -> Relation:
        """One row a shot of a video."""
        return self._table("shots")

    @property
    def embeddings(self) -> Relation:
        """One row a vector of a frame or window."""
        return self._table("embeddings")

    def _table(self, name: str) -> Relation:
        return Relation(lambda: self.database.sql(f"FROM {name}"), f"FROM {name}")

    # Pictures

    def frames(
        self,
        rows: Any,
        *,
        archive: str | os.PathLike[str] | None = None,
        workers: int | None = None,
        max_width: int | None = None,
    ) -> list[Frame]:
        """Return the frame that each row is about, in order: an object with `pixels`, uint8 (height, width, 3) RGB.

        rows: of detections, tracks, segments or actions (a relation, an Arrow table, mappings), or hits of a search.
        archive: where the archive is now, if it was moved.
        workers: videos read at a time; by default one a CPU. max_width: wider frames are made smaller, in pixels.

        Pixels are those that the models saw. Where a video is gone, changed since it was indexed or does not decode,
        `pixels` is None, and `state` and `reason` say why. Raises ConfigError for rows that name no video or no moment.
        """
        from vidproc.look.frames import frames
        from vidproc.storage import absolute_address

        given = rows.arrow() if isinstance(rows, Relation) else rows
        moved = None if archive is None else absolute_address(os.fspath(archive))
        return frames(self.database, given, archive=moved, options=self._options, workers=workers, max_width=max_width)

    def report(
        self, out: str | os.PathLike[str], *, archive: str | os.PathLike[str] | None = None, timezone: str = "UTC"
    ) -> Reported:
        """Write one page for a person who was not there: what is in the lake, what failed, and what is new.

        out: an .html file or `s3://bucket/x.html`, replaced whole. archive: where the archive is now, if it was moved.
        timezone: of hours and days. Raises ConfigError for a place that cannot be written.
        """
        from vidproc.look.report import report
        from vidproc.storage import absolute_address

        moved = None if archive is None else absolute_address(os.fspath(archive))
        place = absolute_address(os.fspath(out))
        return report(self.database, place, archive=moved, options=self._options, zone=timezone)

    # What the lake knows of its runs

    def status(self, *, pipeline: str | None = None) -> LakeStatus:
        """Return how many videos ended how, and the size of the tables, of one pipeline: the one that is named here or
        at `open`, else the one with the most videos. "all" counts over all together."""
        return self._looked_at().status(pipeline or self._pipeline)

    def failures(
        self,
        *,
        error_class: str | Sequence[str] | None = None,
        stage: str | None = None,
        run_id: str | None = None,
        uri: str | None = None,
        pipeline: str | None = None,
        limit: int | None = None,
    ) -> Relation:
        """Return failed attempts, the newest first; of several classes any. limit: rows at most."""

        def read() -> pa.RecordBatchReader:
            return self._looked_at().failures(
                error_class=error_class, stage=stage, run_id=run_id, uri=uri, pipeline=pipeline, limit=limit
            ).to_reader()  # fmt: skip

        return Relation(read, "failures")

    def error_classes(self) -> list[str]:
        """Return the error classes of which there are failures."""
        found = self._tables.tables.read("failures", ["error_class"])["error_class"].unique().to_pylist()
        return sorted(found)

    def runs(self, *, pipeline: str | None = None, limit: int | None = None) -> Relation:
        """Return the runs that wrote to this lake, the latest first. limit: rows at most."""
        return Relation(lambda: self._looked_at().runs(pipeline=pipeline, limit=limit).to_reader(), "runs")

    def running(self) -> list[Sign]:
        """Return the newest sign of life of each run that has not ended, the oldest run first."""
        from vidproc.tables.heartbeat import running

        return running(self._tables.storage)

    def _looked_at(self) -> Tables:
        self._tables.mark_lost(signs_only=True)
        return self._tables

    # Upkeep

    def compact(self) -> dict[str, CompactReport]:
        """Rewrite small files into large ones, ordered by video. Safe beside running jobs. Returns files before and
        after, by table."""
        return self._changed(lambda tables: tables.compact())

    def forget(self, uris: str | Sequence[str]) -> ForgetReport:
        """Remove all rows of these videos, by their URIs or local paths. `vacuum(now=True)` then removes their bytes.

        What is still in the archive comes back with the next index: take it out there first.
        """
        from vidproc.storage import absolute_address

        named = [absolute_address(uri) for uri in _several(uris)]
        return self._changed(lambda tables: tables.forget(named))

    def vacuum(self, *, older_than: float | timedelta = 24.0, now: bool = False) -> VacuumReport:
        """Remove files that no table refers to any more.

        older_than: hours, or a timedelta; younger files may belong to a running job or reader.
        now: remove at once what nothing refers to. Raises ConfigError where a job is running.
        """
        if now and (alive := [run for run in self.running() if not run.silent]):
            raise ConfigError(
                f"vacuum now would take the files of a job that is running ({alive[0].run_id} on {alive[0].host}): "
                "wait for its end, or vacuum without --now"
            )
        age = older_than if isinstance(older_than, timedelta) else timedelta(hours=older_than)
        return self._changed(lambda tables: tables.vacuum(timedelta(0) if now else age, exclusive=now))

    def _changed(self, change: Callable[[Tables], T]) -> T:
        """Change the lake, with a patience that questions do not have, and see it as it is then."""
        from vidproc.tables.lake import Lake as Tables

        tables = Tables.open(self.uri, self._options)
        tables.mark_lost(signs_only=True)
        try:
            return change(tables)
        finally:
            self.close()


def search_query(
    *,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    date: Any = None,
    between: Any = None,
    **asked: Any,
) -> SearchQuery:
    """Return what the keywords of `Lake.search` ask. Raises ConfigError."""
    from vidproc.ask import SearchQuery

    return SearchQuery(
        since=_moment(since, "since"), until=_moment(until, "until"), date=[_day(d) for d in _several(date)],
        time_of_day=[_hours(h) for h in _several(between, one=tuple)], **asked,
    )  # fmt: skip


def _several(value: Any, *, one: type = str) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str | Date | one):
        return [value]
    return list(value)


def _moment(value: datetime | str | None, name: str) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ConfigError(f"{name} takes a moment such as 2026-11-22T06:30, not {value!r}") from None


def _day(value: Date | str) -> Date:
    try:
        return Date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ConfigError(f"date takes a day such as 2026-11-22, not {value!r}") from None


def _hours(value: str | tuple[time, time]) -> tuple[time, time]:
    if not isinstance(value, str):
        return value
    try:
        start, end = (
            time.max if (t := part.strip()) == "24:00" else time.fromisoformat(t) for part in value.split("-")
        )
    except ValueError:
        raise ConfigError(f"between takes two times of day such as 22:00-06:00, not {value!r}") from None
    return start, end


def _said(query: SearchQuery) -> str:
    return f"search for {query.label or query.action or 'anything'}"
