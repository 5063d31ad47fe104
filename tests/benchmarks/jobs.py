"""vidproc as its user runs it: `vidproc index` in a process of its own, on a fresh lake."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks import videos
from tests.benchmarks.measure import Cost, run


@dataclass(frozen=True, kw_only=True)
class Indexed:
    cost: Cost
    summary: Mapping[str, Any]
    lake: Path


def job(**sections: Any) -> dict[str, Any]:
    """A job with the detector of the benchmarks and no actions, and what is given over it."""
    made: dict[str, Any] = {"detector": {"model": "none"}, "actions": {"model": "none"}}
    return made | sections


def detector_job(model: Path, fps: float = 2, *, workers: int | None = None, actors: int | None = None) -> Any:
    return job(
        detector={"model": str(model), "fps": fps, "threads": 1}, execution={"workers": workers, "actors": actors}
    )


def index(archive: Path | str, wanted: Mapping[str, Any], *, keep: Path | None = None, **how: Any) -> Indexed:
    """Raises RuntimeError unless every video of the archive is indexed whole."""
    folder = Path(tempfile.mkdtemp(prefix="lake-", dir=videos.cache()))
    try:
        described = folder / "job.yaml"
        described.write_text(yaml.safe_dump(dict(wanted)))
        lake = keep or folder / "lake"
        command = [sys.executable, "-m", "vidproc", "index", str(archive), str(lake), "--job", str(described)]
        cost = run([*command, "--json", "--quiet"], **how)
        summary = cost.answer
        if set(summary["statuses"]) - {"indexed"}:
            raise RuntimeError(f"not all was indexed: {summary['statuses']} {summary['examples']}")
        return Indexed(cost=cost, summary=summary, lake=lake)
    finally:
        shutil.rmtree(folder)
