"""The rows about size: a million clips of a hundred thousand videos with a model that finds nothing, through the whole
of vidproc but for decoding: listed, planned, staged, published, broken off, gone on with, and run again.

    make bench-scale                                      all of it
    python -m tests.benchmarks.scale ARCHIVE LAKE VIDEOS  one run, in this process; --leave N: killed after N tasks

Staging, publishing and the lake are real, on local disk, in one process (`inline`), so the figures are the driver's
and the lake's own; a cluster spreads staging and publishing over its workers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

from tests.benchmarks import videos
from tests.benchmarks.driver import EmptyDecode, EmptyInfer, EmptyProbe, Listing, rss
from tests.benchmarks.jobs import job
from tests.benchmarks.measure import Cost, Row, Settings, run
from vidproc.errors import ConfigError
from vidproc.media import Task, Video, VideoInfo
from vidproc.run.pipeline import routes
from vidproc.storage import LocalStorage, open_storage
from vidproc.tables.lake import Lake
from vidproc.tables.staging import Staging, TaskReport

CLIPS = 10
CLIP_S = 30.0


def scale(settings: Settings) -> list[Row]:
    number = 2_000 if settings.quick else 100_000
    folder = Path(tempfile.mkdtemp(prefix="scale-", dir=videos.cache()))
    archive, lake = folder / "archive", folder / "lake"
    archive.mkdir()
    command = [sys.executable, "-m", "tests.benchmarks.scale", str(archive), str(lake), str(number)]
    try:
        killed = run([*command, "--leave", str(number // 2)]).answer
        costs = {"resumed": run(command), "second": run(command)}
        lake_bytes = sum(p.stat().st_size for p in lake.rglob("*.parquet"))
    finally:
        shutil.rmtree(folder)
    resumed, second = costs["resumed"].answer, costs["second"].answer
    done = killed["tasks"] + resumed["tasks"]
    if resumed["tasks_resumed"] + resumed["published_before"] < killed["tasks"] or second["due"]:
        raise RuntimeError(f"finished work was done again: {killed} {resumed} {second}")
    if second["published"] != number:
        raise RuntimeError(f"{second['published']:,} videos in the lake, not {number:,}")

    def row(name: str, what: str, target: str, value: str, met: bool | None, cost: Cost, notes: list[str]) -> Row:
        made = Row(name=name, what=what, target=target, value=value, met=None if settings.quick else met, notes=notes)
        made.rows, made.peak_bytes, made.figures = number, cost.peak_bytes, cost.answer
        return made

    rate = resumed["clips"] / resumed["seconds"]
    peak = max(a["peak_rss"] for a in (killed, resumed, second))
    return [
        row(
            "scale-run", f"{number * CLIPS:,} clips of {number:,} videos staged and published, clips a second", "-",
            f"{rate:,.0f}/s", None, costs["resumed"],
            [
                f"{resumed['tasks']:,} tasks of {CLIPS} clips in {resumed['seconds']:.0f} s, of it publishing "
                f"{resumed['publish_s']:.0f} s; {calls(resumed)}; lake {lake_bytes / 1e6:.0f} MB"
            ],
        ),
        row(
            "scale-resume", "going on after kill -9: seconds to the first task", "-",
            f"{resumed['first_task_s']:.1f} s", None, costs["resumed"],
            [
                f"killed after {killed['tasks']:,} tasks; {resumed['published_before']:,} videos were published, "
                f"{resumed['tasks_resumed']:,} staged tasks were taken over, {done - number:,} done twice"
            ],
        ),
        row(
            "scale-second", f"second run over {number:,} videos, nothing due", "<= 10 s",
            f"{second['seconds']:.1f} s", second["seconds"] <= 10, costs["second"], [calls(second)],
        ),
        row(
            "scale-rss", "peak memory of the driver in all of it", "<= 1 GB", f"{peak / 1e6:,.0f} MB", peak <= 1e9,
            costs["resumed"], ["staging and publishing ran in the same process"],
        ),
    ]  # fmt: skip


def calls(answer: dict[str, Any]) -> str:
    by_kind = ", ".join(f"{kind} {n:,}" for kind, n in sorted(answer["calls"].items()))
    return f"storage calls beside the table library's own: {by_kind}"


@dataclass(frozen=True)
class ShortProbe(EmptyProbe):
    """Videos of five minutes."""

    def __call__(self, video: Video) -> VideoInfo:
        whole = EmptyProbe.__call__(self, video)
        end = round(CLIPS * CLIP_S / whole.time_base)
        keyframes = tuple(pts for pts in whole.keyframe_pts if pts < end)
        return replace(whole, duration_s=CLIPS * CLIP_S, frames_promised=None, keyframe_pts=keyframes)


@dataclass(frozen=True)
class StagingInfer(EmptyInfer):
    """Finds nothing, and stages that."""

    staging: Staging = field(kw_only=True)

    def __call__(self, task: Task) -> TaskReport:
        report = EmptyInfer.__call__(self, task)
        report = replace(report, decode=replace(report.decode, end_s=task.info.duration_s))  # one task a video
        self.staging.put(task, {}, report)
        return report


def main() -> None:
    from vidproc.run import driver as product
    from vidproc.settings import load_job

    parser = argparse.ArgumentParser()
    parser.add_argument("archive", help="a folder, which stays empty: what it lists is made up")
    parser.add_argument("lake")
    parser.add_argument("videos", type=int)
    parser.add_argument("--leave", type=int, default=0)
    asked = parser.parse_args()
    given = job(
        archive=asked.archive, lake=asked.lake,
        detector={"model": "tests.benchmarks.models:Brightness", "fps": 0.5},  # few samples: one task a video
        cut={"clip_seconds": CLIP_S, "clips_per_task": CLIPS}, execution={"executor": "inline"},
    )  # fmt: skip
    wanted = load_job(None, given)
    counted = count_calls()
    began, first = time.perf_counter(), 0.0
    tasks, publish_s = 0, 0.0

    def steps(pipeline: Any, wanted: Any, **places: Any) -> Any:
        real = routes(pipeline, wanted, **places)
        staging = Staging(open_storage(wanted.lake), pipeline.pipeline_id)
        return {
            "probe": (ShortProbe(),),
            "task": (EmptyDecode(), StagingInfer(staging=staging)),
            "publish": real["publish"],
        }

    def ended(self: product.Driver, end: Any) -> None:
        nonlocal tasks, first, publish_s
        plain_ended(self, end)
        publish_s += end.seconds.get("publish", 0.0)
        if end.unit.route == "task":
            first = first or time.perf_counter() - began
            tasks += 1
            if tasks == asked.leave:
                tell(seconds=time.perf_counter() - began, peak_rss=rss())
                sys.stdout.flush()
                os._exit(0)  # no goodbye: as kill -9 leaves it, but the benchmark reads the figures above

    def tell(**more: Any) -> None:
        figures = {"tasks": tasks, "clips": tasks * CLIPS, "first_task_s": first, "publish_s": publish_s}
        print(json.dumps(figures | {"calls": dict(counted), "published_before": before} | more))

    before = published(asked.lake)

    def objects(*_: object) -> Listing:
        return Listing(Video(f"/archive/{n:06d}.mp4", 1 << 30, f"{n}:1") for n in range(asked.videos))

    plain_ended = product.Driver.ended
    with mock.patch.multiple(product, routes=steps, Listing=objects), mock.patch.object(product.Driver, "ended", ended):
        summary = product.index(wanted)
    if summary.exit_code:
        raise RuntimeError(summary.reason)
    tell(
        seconds=time.perf_counter() - began, peak_rss=rss(), due=summary.due, tasks_resumed=summary.tasks_resumed,
        published=published(asked.lake),
    )  # fmt: skip


def published(uri: str) -> int:
    try:
        return int(Lake.open(uri).videos().num_rows)
    except ConfigError:
        return 0


def count_calls() -> Counter[str]:
    """Of our own storage: what would be requests on S3."""
    counted: Counter[str] = Counter()

    def counting(name: str) -> Any:
        plain = getattr(LocalStorage, name)

        @wraps(plain)
        def call(*given: Any, **named: Any) -> Any:
            counted[name] += 1
            return plain(*given, **named)

        return call

    for name in ("list", "get", "get_range", "put", "delete", "exists"):
        setattr(LocalStorage, name, counting(name))
    return counted


if __name__ == "__main__":
    main()
