"""The rows about speed: end to end, against other ways to do the same, both models at once, one long video.

Rates are marginal: (video of the large run - of the small) / (time of the large run - of the small), each a
whole process from command to exit. So what everybody pays once (imports, Ray, loading the model) is left out
for everybody in the same way, and shown beside it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import videos
from tests.benchmarks.jobs import Indexed, detector_job, index, job
from tests.benchmarks.measure import Cost, Row, Settings, interleaved, median, run

FPS = 2
CORES = 2
"""The promises speak of two cores; on a larger machine the processes are bound to the first two."""


@dataclass(frozen=True, kw_only=True)
class Archives:
    """The same kind of videos, few and many."""

    small: Path
    large: Path

    @property
    def hours(self) -> float:
        return videos.duration_s(self.large) / 3600


def archives(settings: Settings) -> Archives:
    if settings.quick:
        return Archives(small=videos.archive("quick", 2, 8, 8), large=videos.archive("quick", 4, 24, 8))
    base = 60.0
    each = 300.0 if settings.minutes >= 20 else 120.0
    files = 2 * max(1, round(settings.minutes * 60 / each / 2))
    return Archives(small=videos.archive("mixed", 2, base, base), large=videos.archive("mixed", files, each, base))


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A small run and a large one."""

    small: Cost
    large: Cost
    video_s: float
    """By which the large one is longer."""

    @property
    def rate(self) -> float:
        """Seconds of video a second, start-up left out."""
        return self.video_s / max(self.large.seconds - self.small.seconds, 1e-3)

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes an hour of video, start-up left out: hardly moved by a busy machine."""
        return 3600 * (self.large.cpu_s - self.small.cpu_s) / self.video_s


def pair(at: Archives, command: Callable[[Path], Cost]) -> Callable[[], Pair]:
    video_s = videos.duration_s(at.large) - videos.duration_s(at.small)
    return lambda: Pair(small=command(at.small), large=command(at.large), video_s=video_s)


def ours(wanted: Mapping[str, Any], seen: list[Indexed]) -> Callable[[Path], Cost]:
    def command(archive: Path) -> Cost:
        indexed = index(archive, wanted)
        seen.append(indexed)
        return indexed.cost

    return command


def rates(pairs: Iterable[Pair]) -> float:
    return median([p.rate for p in pairs])


def of_the_work(summary: Mapping[str, Any], cost: Cost) -> str:
    """Where the CPU time of a run went."""
    busy = summary["busy_s"]
    steps = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in sorted(busy.items(), key=lambda kv: -kv[1]))
    return f"wall time inside steps: {steps}; CPU of all processes {cost.cpu_s:.0f} s in {cost.seconds:.0f} s"


def fill(row: Row, indexed: Indexed, archive: Path) -> None:
    s = indexed.summary
    row.frames, row.rows = s["frames_sampled"], sum(s["rows"].values())
    row.bytes, row.peak_bytes = s["bytes_read"], indexed.cost.peak_bytes
    row.notes.append(
        f"{videos.duration_s(archive) / 3600:.2f} h of 720p25 H.264 in {len(list(archive.iterdir()))} files (GOP 60 "
        f"and 250, two B-frames), {FPS} samples/s: {s['frames_decoded']:,} of "
        f"{round(videos.duration_s(archive) * videos.FPS):,} frames decoded"
    )


def end_to_end(settings: Settings) -> list[Row]:
    """A decoder and a model worker that each have one core, against the slower of the two alone; and all
    on both cores."""
    at = archives(settings)
    model = str(settings.model)

    def alone(stage: str, processes: int, cores: str) -> Callable[[], Cost]:
        command = [sys.executable, "-m", "tests.benchmarks.alone", stage, str(at.large), "--model", model]
        return lambda: run([*command, "--fps", str(FPS), "--processes", str(processes), "--cores", cores])

    seen: list[Indexed] = []
    runs: dict[str, Callable[[], Any]] = {
        "end to end": pair(at, ours(detector_job(settings.model, FPS, workers=1, actors=1), seen)),
        "decode, 1 core": alone("decode", 1, "0"),
        "models, 1 core": alone("models", 1, "1"),
        "decode, 2 cores": alone("decode", 2, "0,1"),
        "models, 2 cores": alone("models", 2, "0,1"),
    }
    found = interleaved(runs, settings.repetitions)
    length = videos.duration_s(at.large)
    speed = {k: median([length / c.answer["seconds"] for c in found[k]]) for k in runs if k != "end to end"}
    together = rates(found["end to end"])
    slower = min(speed["decode, 1 core"], speed["models, 1 core"])
    both = 1 / (1 / speed["decode, 2 cores"] + 1 / speed["models, 2 cores"])
    row = Row(name="end-to-end", what="end to end / the slower of decode and models alone", target=">= 0.95")
    row.value, row.met = f"{together / slower:.2f}", together / slower >= 0.95
    fill(row, seen[-1], at.large)
    row.notes += [
        "one decoder and one model worker on two cores, against each alone on one: end to end "
        f"{together:.1f}x real time; decode {speed['decode, 1 core']:.1f}x, models {speed['models, 1 core']:.1f}x",
        f"both stages on both cores at once have a limit of {both:.1f}x (decode alone {speed['decode, 2 cores']:.1f}x, "
        f"models alone {speed['models, 2 cores']:.1f}x): end to end reaches {together / both:.2f} of it",
        of_the_work(seen[-1].summary, seen[-1].cost),
        f"start-up and small run: {median([p.small.seconds for p in found['end to end']]):.1f} s",
    ]
    row.figures = {"speed": speed, "end_to_end": together, "limit_both": both}
    return [row]


def rivals(settings: Settings) -> list[Row]:
    """The plain script, Ray Data and Daft: the same videos, the same model class, rows to Parquet. No rival makes
    tracks, so vidproc makes none either; what it takes with them stands in the notes."""
    at = archives(settings)
    seen: list[Indexed] = []
    with_tracks = detector_job(settings.model, FPS)
    runs: dict[str, Callable[[], Pair]] = {
        "vidproc": pair(at, ours(with_tracks | {"link": {"track": False}}, seen)),
        "with tracks": pair(at, ours(with_tracks, [])),
    }
    missing = not settings.rivals_python.exists()
    asked: dict[str, Rival] = {"plain": best(PLAIN, settings)}
    if not missing:
        asked |= {r[0].name: best(r, settings) for r in (RAY_DATA, DAFT)}
    for name, rival in asked.items():
        runs[name] = pair(at, rival.command(settings))
    agreed = {name: agreement(rival, settings) for name, rival in asked.items()}
    found = interleaved(runs, settings.repetitions)
    rows = []
    frames = seen[-1].summary["frames_sampled"]
    for name, what, target in (
        ("plain", "the script a user would write (PyAV, onnxruntime, one process)", 1.5),
        ("ray-data", "Ray Data (read_videos, map_batches)", 2.0),
        ("daft", "Daft (read_video_frames, a class UDF)", 1.5),
    ):
        row = Row(name=name, what=f"speed / that of {what}", target=f">= {target:g}")
        rows.append(row)
        if name not in runs:
            row.notes.append(f"skipped: there is no {settings.rivals_python}; `make bench` builds it")
            continue
        theirs, mine = found[name], found["vidproc"]
        ratio = rates(mine) / rates(theirs)
        their_frames = theirs[-1].large.answer["frames"]
        per_frame = ratio * frames / their_frames
        whole = median([p.large.seconds for p in theirs]) / median([p.large.seconds for p in mine])
        row.value, row.met = f"{per_frame:.2f}", per_frame >= target
        fill(row, seen[-1], at.large)
        row.notes += [
            f"settings: {asked[name].described}",
            f"vidproc {rates(mine):.1f}x real time, theirs {rates(theirs):.1f}x; whole processes with start-up "
            f"{median([p.large.seconds for p in mine]):.1f} s and {median([p.large.seconds for p in theirs]):.1f} s: "
            f"ratio {whole:.2f}; small run {median([p.small.seconds for p in mine]):.1f} s and "
            f"{median([p.small.seconds for p in theirs]):.1f} s",
            f"CPU of all processes an hour of video: vidproc {median([p.cpu for p in mine]):.0f} s, theirs "
            f"{median([p.cpu for p in theirs]):.0f} s",
            f"with tracks, which they do not make, vidproc reaches {rates(found['with tracks']):.1f}x real time "
            f"(ratio {rates(found['with tracks']) / rates(theirs):.2f})",
            f"frames: vidproc {frames:,}, theirs {their_frames:,}"
            + ("" if frames == their_frames else "; the ratio is per frame, so that more frames count for them"),
            f"peak memory of all processes: theirs {max(p.large.peak_bytes for p in theirs) / 1e9:.2f} GB",
            agreed[name],
            of_the_work(seen[-1].summary, seen[-1].cost),
        ]
        row.figures = {
            "ours": [p.rate for p in mine], "theirs": [p.rate for p in theirs], "whole": whole,
            "ours_cpu": [p.cpu for p in mine], "theirs_cpu": [p.cpu for p in theirs],
            "ours_s": [(p.small.seconds, p.large.seconds) for p in mine],
            "theirs_s": [(p.small.seconds, p.large.seconds) for p in theirs],
        }  # fmt: skip
    return rows


def verify(settings: Settings) -> list[Row]:
    """What it costs that tasks are decoded plainly too, to check the fast path: none, 1 % and all of them."""
    at = archives(settings)
    seen: dict[str, list[Indexed]] = {share: [] for share in ("0%", "1%", "100%")}
    wanted = detector_job(settings.model, FPS)
    runs = {share: pair(at, ours(wanted | {"verify": share}, seen[share])) for share in seen}
    found = interleaved(runs, settings.repetitions)
    plain = seen["0%"]
    for share, indexed in seen.items():
        if any(
            i.summary["plain"] or i.summary["rows"] != p.summary["rows"] for i, p in zip(indexed, plain, strict=True)
        ):
            raise RuntimeError(f"with {share} verified there are other rows, or videos done plainly")
    cost = {share: rates(found["0%"]) / rates(found[share]) for share in seen}
    one = 1 + (cost["100%"] - 1) / 100
    row = Row(name="verify", what="time with 1 % of tasks verified / without", target="<= 1.03")
    row.value, row.met = f"{one:.3f}", one <= 1.03
    fill(row, seen["100%"][-1], at.large)
    row.notes += [
        f"all tasks verified take {cost['100%']:.2f} times as long; a hundredth of what that adds is the figure, as "
        f"1 % of {seen['100%'][-1].summary['tasks_done']} tasks is hardly one",
        f"measured with 1 %: {cost['1%']:.3f}, {seen['1%'][-1].summary['tasks_verified']} tasks verified",
        f"speeds: {', '.join(f'{share} {rates(found[share]):.1f}x' for share in seen)}",
    ]
    row.figures = {"cost": cost, "rates": {share: [p.rate for p in found[share]] for share in seen}}
    return [row]


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A rival's script with its settings."""

    name: str
    module: str
    options: tuple[str, ...]
    own_environment: bool = True

    @property
    def described(self) -> str:
        return " ".join(self.options)

    def run(self, archive: Path, out: Path, settings: Settings, fps: int = FPS) -> Cost:
        python = str(settings.rivals_python) if self.own_environment else sys.executable
        command = [python, "-m", f"tests.benchmarks.rivals.{self.module}", "--videos", str(archive)]
        command += ["--model", str(settings.model), "--out", str(out), "--fps", str(fps), *self.options]
        return run(command, env={"DAFT_PROGRESS_BAR": "0"})

    def command(self, settings: Settings) -> Callable[[Path], Cost]:
        def once(archive: Path) -> Cost:
            folder = Path(tempfile.mkdtemp(prefix="rival-", dir=videos.cache()))
            try:
                return self.run(archive, folder / "out", settings)
            finally:
                shutil.rmtree(folder)

        return once


PLAIN = tuple(Rival(name="plain", module="plain", options=("--threads", t), own_environment=False) for t in ("1", "2"))
RAY_DATA = tuple(
    Rival(name="ray-data", module="ray_data", options=("--cpus", c, "--workers", w, "--batch", b))
    for c, w, b in (("2", "1", "16"), ("3", "1", "16"), ("4", "2", "16"), ("4", "2", "64"))
)
DAFT = tuple(
    Rival(name="daft", module="daft_frames", options=("--workers", w, "--threads", t, "--batch", b))
    for w, t, b in (("1", "1", "16"), ("1", "2", "16"), ("2", "1", "16"))
)


def best(candidates: tuple[Rival, ...], settings: Settings) -> Rival:
    """The settings with which it is fastest on this machine, on a few minutes of the same video."""
    if settings.quick or len(candidates) == 1:
        return candidates[-1]
    trial = Archives(small=videos.archive("mixed", 2, 60, 60), large=videos.archive("mixed", 4, 60, 60))
    speeds = [pair(trial, rival.command(settings))() for rival in candidates]
    for rival, tried in zip(candidates, speeds, strict=True):
        settings.say(f"{rival.name} {rival.described}: {tried.large.seconds:.1f} s")
    return candidates[int(np.argmin([t.large.seconds for t in speeds]))]


def agreement(rival: Rival, settings: Settings) -> str:
    """The rows of a rival against ours, at 5 samples/s of 25: there every way of sampling means the same
    frames. Raises RuntimeError where another frame was sampled."""
    import pyarrow.parquet as pq

    from vidproc.ask import connect

    archive = videos.archive("quick", 2, 8, 8)
    folder = Path(tempfile.mkdtemp(prefix="rows-", dir=videos.cache()))
    try:
        lake = folder / "lake"
        made = index(archive, detector_job(settings.model, 5), keep=lake)
        with connect(str(lake)) as database:
            mine = database.sql(
                "SELECT uri AS path, round(time_s * 5)::BIGINT AS k, class_id, score, x_min, y_min, x_max, y_max "
                "FROM detections JOIN videos USING (video_id, pipeline)"
            ).read_all().to_pylist()  # fmt: skip
        theirs_run = rival.run(archive, folder / "out", settings, fps=5)
        if theirs_run.answer["frames"] != made.summary["frames_sampled"]:
            raise RuntimeError(
                f"{rival.name} sampled {theirs_run.answer['frames']} frames, not {made.summary['frames_sampled']}"
            )
        theirs = []
        for row in pq.read_table(folder / "out").to_pylist():
            for box in row.get("boxes", [row]):
                path = row["path"].removeprefix("file://")
                theirs.append({"path": path, "k": round(row["time_s"] * 5), **{n: box[n] for n in BOX}})
        matched, worst, middle = compare(mine, theirs)
        same = (
            "equal to 0.01 px"
            if matched == 1 and worst <= 0.01
            else f"median {middle:.2f} px apart, {1 - matched:.1%} without a partner within 8 px (it scales otherwise)"
        )
        if rival.module == "plain" and (matched < 1 or worst > 0.01):
            raise RuntimeError(f"the plain script scales as vidproc does, but its boxes differ: {matched=}, {worst=}")
        return f"rows: same sample times at 5/s, {len(mine):,} boxes of ours and {len(theirs):,} of theirs, {same}"
    finally:
        shutil.rmtree(folder)


BOX = ("class_id", "score", "x_min", "y_min", "x_max", "y_max")


def compare(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Boxes of the same frame and class, each with the nearest: the share of pairs, the largest and the
    median distance in pixels."""

    def grouped(rows: list[dict[str, Any]]) -> dict[Any, np.ndarray]:
        groups: dict[Any, list[list[float]]] = {}
        for r in rows:
            groups.setdefault((r["path"], r["k"], r["class_id"]), []).append([r[n] for n in BOX[2:]])
        return {key: np.array(value) for key, value in groups.items()}

    a, b = grouped(mine), grouped(theirs)
    distances, lonely = [], 0
    for key in a.keys() | b.keys():
        left, right = a.get(key, np.zeros((0, 4))), b.get(key, np.zeros((0, 4)))
        apart = np.abs(left[:, None] - right[None]).max(axis=2) if len(left) and len(right) else np.zeros((0, 0))
        while apart.size and apart.min() <= 8:
            i, j = np.unravel_index(apart.argmin(), apart.shape)
            distances.append(float(apart[i, j]))
            apart = np.delete(np.delete(apart, i, 0), j, 1)
        lonely += len(left) + len(right)
    lonely -= 2 * len(distances)
    share = 2 * len(distances) / max(1, 2 * len(distances) + lonely)
    return share, max(distances, default=0.0), median(distances) if distances else 0.0


def both_models(settings: Settings) -> list[Row]:
    """A detector and an action model that cost nothing, in one pass and in two."""
    at = archives(settings)
    detector, actions = {"model": "tests.benchmarks.models:Brightness"}, {"model": "tests.benchmarks.models:Change"}
    seen: list[Indexed] = []
    runs = {
        "both": pair(at, ours(job(detector=detector, actions=actions), seen)),
        "detector": pair(at, ours(job(detector=detector), [])),
        "actions": pair(at, ours(job(actions=actions), [])),
    }
    found = interleaved(runs, settings.repetitions)
    one = 1 / rates(found["both"])
    two = 1 / rates(found["detector"]) + 1 / rates(found["actions"])
    row = Row(name="both-models", what="two passes / one pass for both models", target=">= 1.6")
    row.value, row.met = f"{two / one:.2f}", two / one >= 1.6
    fill(row, seen[-1], at.large)
    row.notes += [
        "models that cost nothing, so decoding dominates: detector 2 samples/s of 416x416, actions 5/s of 112x112: "
        + ", ".join(f"{name} {rates(p):.1f}x real time" for name, p in found.items()),
        of_the_work(seen[-1].summary, seen[-1].cost),
    ]
    row.figures = {name: [p.rate for p in pairs] for name, pairs in found.items()}
    return [row]


def long_video(settings: Settings) -> list[Row]:
    """One video, one decoder and two; a model that costs nothing."""
    base = videos.drawn(8 if settings.quick else 60, 60)
    seconds = 24 if settings.quick else max(600, settings.minutes * 60)
    long = videos.repeated(base, f"{seconds:g}s", seconds=seconds)
    one, small = videos.cache() / f"long-{seconds:g}s-{videos.VERSION}", videos.archive("quick", 2, 8, 8)
    one.mkdir(exist_ok=True)
    if not (one / "long.mp4").exists():
        (one / "long.mp4").hardlink_to(long)
    at = Archives(small=small, large=one)
    seen: list[Indexed] = []

    def by(workers: int) -> Callable[[], Pair]:
        execution = {"workers": workers, "actors": 1}
        detector = {"model": "tests.benchmarks.models:Brightness"}
        return pair(at, ours(job(detector=detector, execution=execution), seen))

    found = interleaved({"1": by(1), "2": by(2)}, settings.repetitions)
    ratio = rates(found["2"]) / rates(found["1"])
    row = Row(name="long-video", what="one long video, 2 workers / 1", target=">= 1.9")
    row.value, row.met = f"{ratio:.2f}", ratio >= 1.9
    fill(row, seen[-1], one)
    row.notes += [
        f"1 worker {rates(found['1']):.1f}x real time, 2 workers {rates(found['2']):.1f}x; the driver, the model "
        "worker and Ray itself share the two cores with the decoders",
        of_the_work(seen[-1].summary, seen[-1].cost),
    ]
    row.figures = {name: [p.rate for p in pairs] for name, pairs in found.items()}
    return [row]
