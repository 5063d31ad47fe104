"""The row about the driver: tasks planned and retired a second, and its memory, with steps that do nothing.

python -m tests.benchmarks.driver inline 100000      in this process: the driver's own cost
python -m tests.benchmarks.driver ray 20000          with Ray's round trips
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from tests.benchmarks import videos
from tests.benchmarks.jobs import job
from tests.benchmarks.measure import Cost, Row, Settings, run
from vidproc.media import DecodeReport, Task, Video, VideoInfo
from vidproc.runtime.step import Resources
from vidproc.tables.outcome import VideoOutcome
from vidproc.tables.publish import PublishReport
from vidproc.tables.staging import TaskReport

CLIPS = 480
"""Of one video: four hours."""


def driver(settings: Settings) -> list[Row]:
    planned, through_ray = (20_000, 2_000) if settings.quick else (1_000_000, 20_000)
    costs = {
        name: run([sys.executable, "-m", "tests.benchmarks.driver", name, str(number)])
        for name, number in (("inline", planned), ("ray", through_ray))
    }
    inline, ray = (costs[n].answer for n in ("inline", "ray"))
    rows = []
    for name, what, target, answer, value, met in (
        ("driver", "empty tasks planned and retired, by the driver's loop", ">= 1,000/s", inline,
         f"{inline['rate']:,.0f}/s", inline["rate"] >= 1000),
        ("driver-ray", "empty tasks planned and retired, over Ray", ">= 1,000/s", ray,
         f"{ray['rate']:,.0f}/s", ray["rate"] >= 1000),
        ("driver-rss", f"driver's memory over {planned:,} planned clips", "<= 1 GB", inline,
         f"{inline['peak_rss'] / 1e6:,.0f} MB", inline["peak_rss"] <= 1e9),
    ):  # fmt: skip
        row = Row(name=name, what=what, target=target, value=value, met=None if settings.quick else met)
        row.rows, row.peak_bytes = answer["tasks"], answer["peak_rss"]
        row.notes.append(describe(answer, costs["ray" if name == "driver-ray" else "inline"]))
        rows.append(row)
    rows[1].notes.append(
        "each task is a Ray task (decode) and a call of an actor (infer), as in the real job: the price is Ray's "
        "round trips, so what matters is that one takes less time than a real task, which takes seconds"
    )
    return rows


def describe(answer: dict[str, Any], cost: Cost) -> str:
    return (
        f"{answer['tasks']:,} tasks of {answer['videos']:,} videos with {CLIPS} clips of 30 s each, planned, sent "
        f"through two empty steps and retired in {answer['seconds']:.1f} s; memory after the first tenth "
        f"{answer['early_rss'] / 1e6:.0f} MB, peak {answer['peak_rss'] / 1e6:.0f} MB; CPU of all processes "
        f"{cost.cpu_s:.0f} s"
    )


NOTHING = Resources(cpus=0.5, memory_bytes=64 << 20, time_limit_s=60)


@dataclass(frozen=True)
class EmptyProbe:
    name: str = "probe"
    needs: Resources = NOTHING
    stateful: bool = False

    def setup(self) -> None: ...

    def __call__(self, video: Video) -> VideoInfo:
        tick = Fraction(1, 12800)
        keyframes = tuple(range(0, CLIPS * 30 * 12800, 30 * 12800 // 5))  # one in 6 s
        return VideoInfo(
            video, "mp4", "h264", "yuv420p", 1280, 720, 0, 25.0, tick, 0, CLIPS * 30.0, CLIPS * 750, keyframes, None
        )


@dataclass(frozen=True)
class EmptyDecode:
    name: str = "decode"
    needs: Resources = NOTHING
    stateful: bool = False

    def setup(self) -> None: ...

    def __call__(self, task: Task) -> Task:
        return task


@dataclass(frozen=True)
class EmptyInfer:
    name: str = "infer"
    needs: Resources = NOTHING
    stateful: bool = True

    def setup(self) -> None: ...

    def __call__(self, task: Task) -> TaskReport:
        start_s = float((task.range.start_pts or 0) * task.info.time_base)
        report = DecodeReport(60, 60, start_s, start_s + 30, 10_000_000, 1.0, True)
        return TaskReport.of(task, {}, report)


@dataclass(frozen=True)
class EmptyPublish:
    name: str = "publish"
    needs: Resources = NOTHING
    stateful: bool = False

    def setup(self) -> None: ...

    def __call__(self, batch: Sequence[VideoOutcome]) -> PublishReport:
        return PublishReport(number=0, published=tuple(o.video.video_id for o in batch))


@dataclass
class Listing:
    """Stands in for the archive's."""

    videos: Iterator[Video]
    done: bool = field(default=False)
    idle: bool = field(default=False)

    def start(self) -> None: ...

    def close(self) -> None: ...

    def take(self) -> Video | None:
        video = next(self.videos, None)
        self.done = self.idle = video is None
        return video


def main() -> None:
    from vidproc.progress import Reporter
    from vidproc.run.driver import Driver
    from vidproc.run.executing import make_executor
    from vidproc.run.pipeline import make_pipeline
    from vidproc.runtime.metrics import NoMetrics
    from vidproc.settings import load_job
    from vidproc.tables.lake import Lake
    from vidproc.tables.publish import RunInfo

    executor_name, number = sys.argv[1], int(sys.argv[2])
    count = max(1, number // CLIPS)
    with tempfile.TemporaryDirectory(dir=videos.cache()) as folder:
        given = job(
            archive=folder, lake=f"{folder}/lake", detector={"model": "tests.benchmarks.models:Brightness"},
            cut={"clip_seconds": 30, "clips_per_task": 1}, execution={"executor": executor_name},
        )  # fmt: skip
        wanted = load_job(None, given)
        pipeline = make_pipeline(wanted)
        listing: Any = Listing(Video(f"/archive/{n:06d}.mp4", 1 << 30, f"{n}:1") for n in range(count))
        run_info = RunInfo(run_id="r", pipeline=pipeline.name, pipeline_id=pipeline.pipeline_id)
        driver_ = Driver(
            wanted, pipeline, Lake.create(wanted.lake), listing,
            archive_uri=folder, run=run_info, reporter=Reporter(), metrics=NoMetrics(),
        )  # fmt: skip
        executor = make_executor(wanted.execution)
        steps: Any = {
            "probe": (EmptyProbe(),), "task": (EmptyDecode(), EmptyInfer()), "publish": (EmptyPublish(),)
        }  # fmt: skip
        tasks, began, early = 0, 0.0, 0
        try:
            for end in executor.run(driver_, steps, driver_.limits(), (driver_.hear,)):
                began = began or time.perf_counter()  # the first: the workers are up
                driver_.ended(end)
                driver_.progress()
                if end.failure:
                    raise RuntimeError(end.failure.error)
                tasks += end.unit.route == "task"
                if tasks == count * CLIPS // 10:
                    early = early or rss()
            seconds = time.perf_counter() - began
        finally:
            executor.close()
    print(
        json.dumps(
            {
                "tasks": tasks, "videos": count, "seconds": seconds, "rate": tasks / seconds, "early_rss": early,
                "peak_rss": rss(),
            }
        )
    )  # fmt: skip


def rss() -> int:
    """Of this process, highest so far."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
