"""The one order in which a lake changes.

Several tables cannot be committed at once, and any of us may die between two of them, or sleep and
wake up later. So every change of video rows is first written down whole:

    <lake>/_changes/<id>/<table>.parquet    its new rows
    <lake>/_changes/<number>.json           the intent; created only if absent, so each number is one change

and then applied to the tables, in one order, `videos` last. The number goes into each commit as
Delta's application transaction, so that a table takes each change once, whoever applies it and
however often. The number of the last finished change is what `videos` says; the next change takes
the next number, and only when that is free. Therefore

- changes of a lake are in one total order: each begins when the one before is in all tables;
- what a change does depends on the lake before it and on its own files alone, so anyone can finish
  it: a publisher that finds the number taken waits a while, then helps;
- two publishers of one video: the later number replaces the earlier one, in every table;
- a process that slept through all of it finds that its commits are refused or already there.

Rows are put after the number was seen to be free, under a name of their own, and belong to that
number alone: whoever does not get it puts them again. So a vacuum, which takes a number too, knows
that no row file which it saw before can be wanted after it. A change whose rows are gone all the
same, and of which no table has taken anything, is undone: the first table that would have taken it
decides that, by one commit.

Nothing here depends on clocks, leases or on knowing who is alive.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidproc.errors import AlreadyExists, ConfigError, Damaged, Forged, NotFound, TransientError
from vidproc.tables.checks import document
from vidproc.tables.delta import BATCH_ROWS, FENCE, VOID, Tables, quoted, taken
from vidproc.tables.schema import MODEL_TABLES, TABLES, load_schema
from vidproc.tables.staging import Staging
from vidproc.text import printable

FOLDER = "_changes"
FIRST, LAST = "failures", "videos"
ORDER = (FIRST, *MODEL_TABLES, LAST)


Kind = Literal["publish", "forget", "vacuum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An intent. Small: ids and names; the rows lie in files beside it."""

    id: str
    kind: Kind
    videos: tuple[str, ...] = ()
    """video_ids whose rows go before the new ones come."""
    pipeline: str | None = None
    """Rows of this pipeline only; None (forget): of all."""
    pipeline_id: str | None = None
    run_id: str | None = None
    tables: tuple[str, ...] = ()
    """Those with new rows."""
    tasks: tuple[tuple[str, str], ...] = ()
    """(video_id, task_id): staged parts that the new rows were made of."""
    with_failures: tuple[str, ...] = ()
    """video_ids that may have staged failures."""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Change:
        """Raises ValueError for what no vidproc has written: names become parts of keys."""
        known = {k: v for k, v in raw.items() if k in {f.name for f in fields(cls)}}
        lists = {k: _names(k, known.get(k, ())) for k in ("videos", "tables", "with_failures")}
        tasks = known.get("tasks", ())
        if not isinstance(tasks, (list, tuple)):
            raise ValueError(f"'tasks' is {tasks!r:.100}")
        pairs = [_names("tasks", pair) for pair in tasks]
        change = cls(**(known | lists | {"tasks": tuple((video, task) for video, task in pairs)}))
        for key, needed in (("id", True), ("pipeline", False), ("pipeline_id", False), ("run_id", False)):
            if needed or getattr(change, key) is not None:
                _names(key, [getattr(change, key)])
        if change.kind not in get_args(Kind) or not {*change.tables} <= {*ORDER}:
            raise ValueError(f"no such kind of change, or no such tables: {change.kind!r:.50}, {change.tables!r:.100}")
        if change.kind == "publish" and None in (change.pipeline, change.pipeline_id, change.run_id):
            raise ValueError("it publishes rows, and does not say of which pipeline and run")
        if bool(change.videos) == (change.kind == "vacuum"):
            raise ValueError("it names no videos, or is a vacuum that does")
        if change.tables and change.kind != "publish":
            raise ValueError(f"a {change.kind} brings no rows")
        return change


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""Ids, and the names of pipelines and tables."""


def _names(key: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{key!r} is {values!r:.100}")
    for value in values:
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise ValueError(f"{key!r} names {value!r:.100}")
    return tuple(values)


def new_id() -> str:
    return uuid.uuid4().hex


def rows_key(change_id: str, table: str) -> str:
    return f"{FOLDER}/{change_id}/{table}.parquet"


def _key(number: int) -> str:
    return f"{FOLDER}/{number:012d}.json"


def submit(tables: Tables, change: Change, *, patience_s: float = 30.0) -> int:
    """Takes the next number for the change, which has no rows, applies it, and gives the number."""
    while True:
        number = turn(tables, patience_s=patience_s)
        if take(tables, number, change):
            finish(tables, number, change)
            return number


def turn(tables: Tables, *, patience_s: float = 30.0) -> int:
    """The next free number. A change in progress is waited for; after `patience_s` without its end it
    is finished from here."""
    waiting_for, since = 0, 0.0
    while True:
        number = tables.done(LAST) + 1
        change = read(tables, number)
        if change is None:
            return number
        if number != waiting_for:
            waiting_for, since = number, time.monotonic()
        if time.monotonic() - since < patience_s:
            time.sleep(min(0.25, patience_s / 4))
        else:
            finish(tables, number, change)


def take(tables: Tables, number: int, change: Change) -> bool:
    """Writes the change down under a number; False where another change has it."""
    try:
        tables.storage.put(_key(number), change.to_json(), if_absent=True)
    except AlreadyExists:
        return False
    if tables.done(LAST) < number:
        return True
    # Others took this number, finished and cleaned up before our put: it is spent.
    tables.storage.delete([_key(number)])
    return False


def read(tables: Tables, number: int) -> Change | None:
    """Raises Forged for an intent that no vidproc has written."""
    key = _key(number)
    try:
        return Change.of(document(tables.storage, key, "change"))
    except NotFound:
        return None
    except (Damaged, ValueError, TypeError) as e:
        raise Forged(
            f"{tables.storage.uri_of(key)} is no change that vidproc has written down ({printable(str(e))[:300]}), so "
            f"nothing of it is done. {_way_out(tables, number, key)}"
        ) from e


def _way_out(tables: Tables, number: int, key: str) -> str:
    begun = [name for name in ORDER if tables.done(name) >= number]
    if begun:
        return f"{', '.join(begun)} took change {number} already: restore {key} from a copy"
    return f"No table has taken anything of change {number}: remove {key}, and the lake goes on"


def pending(tables: Tables) -> tuple[int, Change] | None:
    """The change that is written down and not finished; there is never more than one."""
    number = tables.done(LAST) + 1
    change = read(tables, number)
    return None if change is None else (number, change)


def roll_forward(tables: Tables) -> list[Change]:
    """Finishes (or undoes) what is pending and removes what finished changes left; gives what it finished. Safe at
    any time, also beside its author."""
    finished = []
    while (found := pending(tables)) is not None:
        if finish(tables, *found):
            finished.append(found[1])
    done = tables.done(LAST)
    for number, _ in listed(tables):
        left = read(tables, number) if number <= done else None
        if left is not None and _is_in(tables, left):
            clean(tables, number, left)
    return finished


def listed(tables: Tables) -> Iterator[tuple[int, float]]:
    """(number, time of writing) of the intents that are there, finished or not."""
    for item in tables.storage.list(f"{FOLDER}/"):
        if (number := number_of(item.key)) is not None:
            yield number, item.modified_at.timestamp()


def number_of(key: str) -> int | None:
    """The number of an intent; None for any other object."""
    found = re.fullmatch(rf"{FOLDER}/([0-9]{{12}})\.json", key)
    return int(found[1]) if found else None


def finish(tables: Tables, number: int, change: Change) -> bool:
    """Applies and cleans up; every step of both may have been done before. False where the change was undone
    instead, since its rows are gone: then nothing of it is in the lake, and what it was made of is still staged."""
    applied = apply(tables, number, change)
    if applied:
        clean(tables, number, change)
    else:
        _remove(tables, number, change)
    return applied


def apply(tables: Tables, number: int, change: Change) -> bool:
    """Brings the change into all tables. False where it was undone."""
    try:
        steps = _steps(tables, number, change)
        if not steps:
            raise _Finished
        first = steps[0].table
        if change.tables and (gone := _gone(tables, change)):
            tables.spend(first, number, VOID)
            if tables.undone(first) != number:
                _finished(tables, number)
                raise ConfigError(
                    f"change {number} of {tables.storage.uri} cannot be finished: its rows {gone} are gone, and some "
                    "tables have taken it already; restore that object"
                )
        for step in steps:
            if change.kind == "vacuum":
                landed = tables.spend(step.table, number, FENCE)
            else:
                landed = tables.replace(step.table, step.rows, step.goes, number)
            if not landed and tables.done(step.table) > number:
                _finished(tables, number)
                raise Forged(
                    f"{tables.storage.uri}: the table {step.table} claims to have taken changes after {number}, "
                    f"which is not finished: something other than vidproc wrote that. Restore {step.table} from a copy"
                )
            # Where a later change was undone too, this may have been applied: then its author finds its rows.
            if not landed and step.table == first and tables.undone(first) >= number:
                tables.spend(LAST, number, VOID)
                return False
        return True
    except _Finished:
        # By somebody else. Of changes that were undone `videos` knows the last: where one came after this, then
        # this may have been undone too, and its author has to look.
        return tables.undone(LAST) < number


class _Finished(Exception):
    """All tables have the change."""


def _finished(tables: Tables, number: int) -> None:
    if tables.done(LAST) >= number:
        raise _Finished


@dataclass(frozen=True, slots=True)
class _Step:
    """What a change does to one table."""

    table: str
    rows: Callable[[], Iterator[pa.RecordBatch]]
    goes: str | None
    """Predicate of the rows that go; None: none."""


def _steps(tables: Tables, number: int, change: Change) -> list[_Step]:
    """The steps in their order; none where the change is finished. The same for whoever asks until then."""
    if change.kind == "vacuum":
        done = taken(tables.open(LAST)) >= number
        return [] if done else [_Step(name, _nothing, None) for name in (*(t for t in TABLES if t != LAST), LAST)]
    before = _rows_before(tables, number, change)
    if before is None:
        return []
    steps = []
    for name in ORDER:
        comes = name in change.tables
        if change.kind == "publish" and name == FIRST:
            goes = False  # failures are history: a run adds its own and takes none away
        elif change.kind == "forget" and name in (FIRST, LAST):
            goes = True
        else:
            goes = before.get(name, 0) > 0
        # The end of the change is its number in `videos`, which therefore always takes a commit.
        if comes or goes or name == LAST:
            rows = partial(_rows, tables, number, change, name) if comes else _nothing
            steps.append(_Step(name, rows, _match(change) if goes else None))
    return steps


def _match(change: Change) -> str:
    match = f"video_id IN ({quoted(change.videos)})"
    return match if change.pipeline is None else f"{match} AND pipeline = {quoted([change.pipeline])}"


def _rows_before(tables: Tables, number: int, change: Change) -> dict[str, int] | None:
    """Rows by table which the videos of the change have before it, as `videos` says; None where the
    change is finished. Up to the last commit of the change this is the same for whoever asks."""
    table = tables.open(LAST)
    if taken(table) >= number:
        return None
    columns = [f"n_{name}" for name in MODEL_TABLES]
    found = tables.scanned(LAST, columns, _match(change), pa.RecordBatchReader.read_all, table)
    counts = {name: int(pc.sum(found[f"n_{name}"]).as_py() or 0) for name in MODEL_TABLES}
    return counts | {LAST: found.num_rows}


def _gone(tables: Tables, change: Change) -> str | None:
    """The first of the change's row files that is not there."""
    there = {item.key for item in tables.storage.list(f"{FOLDER}/{change.id}/")}
    return next((key for name in change.tables if (key := rows_key(change.id, name)) not in there), None)


def _rows(tables: Tables, number: int, change: Change, name: str) -> Iterator[pa.RecordBatch]:
    """Streams the new rows. Called before the first batch is wanted, so that a missing file is found early."""
    key = rows_key(change.id, name)
    try:
        data = tables.storage.get(key)
    except NotFound as e:
        _finished(tables, number)  # and cleaned up by others meanwhile
        raise TransientError(f"{tables.storage.uri_of(key)} was deleted while it was wanted") from e
    schema = load_schema(name).stored
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        _check_rows(file, schema, change)
    except (pa.ArrowException, OSError, ValueError, LookupError) as e:
        raise Forged(
            f"{tables.storage.uri_of(key)} does not hold rows of change {number} ({printable(str(e))[:200]}). "
            f"{_way_out(tables, number, _key(number))}"
        ) from e
    return (
        pa.RecordBatch.from_arrays([batch[f.name].cast(f.type) for f in schema], schema=schema)
        for batch in file.iter_batches(BATCH_ROWS)
    )


def _check_rows(file: pq.ParquetFile, schema: pa.Schema, change: Change) -> None:
    """Raises ValueError where rows are not of the table, or of videos or a pipeline that the change does not name."""
    for field in schema:
        pa.nulls(0, file.schema_arrow.field(field.name).type).cast(field.type)
    own = {"video_id": pa.array(change.videos), "pipeline": pa.array([change.pipeline], pa.string())}
    for batch in file.iter_batches(BATCH_ROWS, columns=list(own)):
        for name, values in own.items():
            if not pc.all(pc.is_in(batch[name], values), min_count=0).as_py():
                raise ValueError(f"there are rows with another {name} than the change's")


def _nothing() -> Iterator[pa.RecordBatch]:
    return iter(())


def _is_in(tables: Tables, change: Change) -> bool:
    """Whether a change whose number is spent was finished, rather than put too late and never begun."""
    if change.kind != "publish":
        return True
    predicate = (
        f"video_id IN ({quoted(change.videos)}) AND pipeline = {quoted([change.pipeline or ''])} "
        f"AND run_id = {quoted([change.run_id or ''])}"
    )
    return bool(tables.read(LAST, ["video_id"], predicate).num_rows == len(change.videos))


def clean(tables: Tables, number: int, change: Change) -> None:
    """Removes what a finished change no longer needs, the intent last."""
    if change.kind == "publish":
        assert change.pipeline_id is not None
        staging = Staging(tables.storage, change.pipeline_id)
        staging.discard_tasks(change.tasks)
        staging.discard_failures(change.with_failures)
    elif change.kind == "forget":
        gone = set(change.videos)
        staged = (item.key for item in tables.storage.list("_staging/"))
        tables.storage.delete([key for key in staged if key.split("/")[2:3] and key.split("/")[2] in gone])
    _remove(tables, number, change)


def _remove(tables: Tables, number: int, change: Change) -> None:
    tables.storage.delete(rows_key(change.id, name) for name in change.tables)
    tables.storage.delete([_key(number)])
