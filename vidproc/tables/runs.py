"""The rows of `runs`: written at a run's start and end, and set right where a run could not do that itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vidproc.errors import ConfigError
from vidproc.secrets import redact_json, redact_values
from vidproc.tables.delta import READ_ATTEMPTS, Tables, fenced, quoted
from vidproc.tables.heartbeat import begin, end, last_signs
from vidproc.tables.schema import load_schema

if TYPE_CHECKING:
    from deltalake import DeltaTable


def mark_lost(tables: Tables, *, signs_only: bool) -> dict[str, dict[str, Any]]:
    """Runs that `runs` calls running, and of which there has been no sign for a minute, by the store's clock, were
    killed, or could not write any more: their outcome becomes `lost`. One that was only asleep writes its real
    end over it. `signs_only`: does nothing where no run has left a sign, which a listing tells.

    Gives what could not be marked, since the lake may only be read: by run_id the fields that are wrong."""
    signs = last_signs(tables.storage)
    if signs_only and not signs:
        return {}
    unmarked = {}
    for run_id in tables.read("runs", ["run_id"], "outcome = 'running'")["run_id"].to_pylist():
        at, silent = signs.get(run_id, (None, True))
        if silent:
            since = f"since {at:%Y-%m-%d %H:%M:%S} UTC" if at else "of it is left"
            lost: dict[str, Any] = {
                "outcome": "lost",
                "reason": f"no sign {since}: killed, or cut off from the lake",
            }
            lost |= {"ended_at": at} if at else {}
            try:
                _mark_lost(tables, run_id, lost)
            except ConfigError:
                unmarked[run_id] = lost
    return unmarked


def _mark_lost(tables: Tables, run_id: str, values: dict[str, Any]) -> None:
    def mark(table: DeltaTable) -> bool:
        match = f"run_id = {quoted([run_id])} AND outcome = 'running'"  # and has not ended meanwhile
        table.update(predicate=match, new_values=values, commit_properties=fenced(table))
        return True

    tables.committed("runs", mark)


def record(tables: Tables, row: Mapping[str, Any]) -> None:
    """Writes the run's row, over an earlier one with its `run_id`: at its start and at its end. From its start on
    the run has to give signs of life (see heartbeat.py). Secrets in its texts are not written. Raises ValueError
    for a field that `runs` does not have."""
    schema = load_schema("runs")
    unknown = set(row) - set(schema.names)
    if unknown:
        raise ValueError(f"runs has no columns {sorted(unknown)}")
    row = {k: redact_json(v) if k == "job" and v else redact_values(v) for k, v in row.items()}
    run_id, goes_on = row["run_id"], row["outcome"] == "running"
    if goes_on:
        begin(tables.storage, run_id=run_id, pipeline=row["pipeline"], host=row.get("host") or "",
              started_at=row["started_at"])  # fmt: skip
    table = pa.Table.from_pylist([dict(row)], schema=schema.stored)
    mine = f"run_id = {quoted([run_id])}"
    for _ in range(READ_ATTEMPTS):
        tables.replace("runs", lambda: iter(table.to_batches()), mine, number=None)
        # As with changes: what was committed below the beginning of a log that others cut meanwhile is not there.
        if tables.read("runs", ["outcome"], mine)["outcome"].to_pylist() == [row["outcome"]]:
            break
    if not goes_on:
        end(tables.storage, run_id)
