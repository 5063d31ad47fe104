"""`vidproc demo`: draws an archive of which everything is known, indexes it, scores it, asks it three
questions, and leaves a contact sheet. What a newcomer runs first, and what tells them that it works.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidproc.ask import LakeDatabase, connect
from vidproc.demo.archive import RECORDED_PATTERN, draw_archive
from vidproc.demo.score import Scores, score
from vidproc.demo.settings import DEMO_SEED
from vidproc.errors import ConfigError
from vidproc.look.report import report
from vidproc.look.sheet import SheetBox, SheetItem, contact_sheet
from vidproc.machine import cpu_count
from vidproc.progress import Reporter
from vidproc.run.driver import index
from vidproc.run.summary import RunSummary
from vidproc.settings import Job, load_job
from vidproc.storage import StorageOptions
from vidproc.video.decode import MediaLimits, Source
from vidproc.video.moments import pictures_at, tick_at
from vidproc.video.probe import probe

VIDEOS = 12
FRAMES_SHOWN = 12
MARKER = ".vidproc-demo"
"""In a folder that this command made, and may therefore make anew."""

QUESTIONS = (
    (
        "What is in the archive?",
        "SELECT label, count(*) AS detections, count(DISTINCT video_id) AS videos, round(avg(score), 2) AS score\n"
        "FROM detections GROUP BY label ORDER BY detections DESC",
    ),
    (
        "Who was in view the longest?",
        "SELECT regexp_extract(uri, '[^/]+/[^/]+$') AS video, track_id, label, round(start_s, 1) AS from_s,\n"
        "       round(end_s, 1) AS to_s, detections\n"
        "FROM tracks JOIN videos USING (video_id, pipeline) ORDER BY to_s - from_s DESC, video, track_id LIMIT 5",
    ),
    (
        "When did somebody fall?",
        "SELECT regexp_extract(uri, '[^/]+/[^/]+$') AS video, label, round(start_s, 1) AS from_s,\n"
        "       round(end_s, 1) AS to_s, round(score, 2) AS score,\n"
        "       recorded_at + to_milliseconds(CAST(1000 * start_s AS BIGINT)) AS happened_at\n"
        "FROM segments JOIN videos USING (video_id, pipeline)\n"
        "WHERE kind = 'action' AND label IN ('fall', 'lie') ORDER BY happened_at LIMIT 5",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What the demo made and measured."""

    folder: Path
    archive: Path
    lake: Path
    sheet: Path
    report: Path
    drawing_s: float
    scores: Scores
    summary: RunSummary


def run_demo(
    folder: Path,
    *,
    executor: str = "ray",
    videos: int = VIDEOS,
    seed: int = DEMO_SEED,
    reporter: Reporter | None = None,
    say: Callable[[str], None] = print,
    ask: Callable[[LakeDatabase, str, str], None] | None = None,
) -> Demo:
    """Make `archive/`, `lake/`, `contact_sheet.png` and `report.html` in `folder`, over those of an earlier demo.

    `ask(database, question, sql)` shows the answers. Raises ConfigError for a folder that holds other things.
    """
    _claim(folder)
    archive, lake, sheet = folder / "archive", folder / "lake", folder / "contact_sheet.png"
    say(f"drawing {videos} videos: {archive}")
    began = time.monotonic()
    truth = draw_archive(archive, videos, seed, workers=cpu_count())
    drawing_s = time.monotonic() - began
    shown = sum(float(len(v.frames) / v.fps) for v in truth.videos)
    say(f"drew {len(truth.videos)} videos, {shown:.0f} s, in {drawing_s:.1f} s; indexing them")
    job = _job(archive, lake, executor)
    summary = index(job, reporter=reporter)
    if summary.exit_code:
        raise ConfigError(f"the demo could not be indexed: {summary.reason}")
    rows = {t: n for t, n in summary.rows.items() if n}
    say(
        f"indexed {summary.video_s:.0f} s of video in {summary.elapsed_s:.1f} s, {summary.speed:.1f}x real time: "
        + ", ".join(f"{n:,} {t}" for t, n in rows.items())
    )
    with connect(str(lake)) as database:
        scores = _score(database, truth)
        say(
            f"against the known truth: detection mAP@50 {scores.map50:.3f}, tracking IDF1 {scores.idf1:.3f}, "
            f"action top-1 {scores.top1:.3f} "
            f"({scores.frames:,} frames, {scores.objects:,} objects, {scores.windows:,} windows)"
        )
        for question, sql in QUESTIONS:
            if ask is not None:
                ask(database, question, sql)
        sheet.write_bytes(_sheet(database, scores, summary))
        page = folder / "report.html"
        report(database, str(page))
    return Demo(
        folder=folder, archive=archive, lake=lake, sheet=sheet, report=page, drawing_s=drawing_s, scores=scores,
        summary=summary,
    )  # fmt: skip


def _claim(folder: Path) -> None:
    marker = folder / MARKER
    try:
        if folder.exists() and not marker.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} holds something that is not an earlier demo: name an empty or a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to ({error.strerror}): name another folder") from error
    for name in ("archive", "lake"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _job(archive: Path, lake: Path, executor: str) -> Job:
    return load_job(
        None,
        {
            "archive": str(archive.resolve()),
            "lake": str(lake.resolve()),
            "detector": "demo",
            "actions": "demo",
            "recorded_at": RECORDED_PATTERN,
            "filters": {"include": ["*.mp4"]},
            "cut": {"clip_seconds": 4.0},
            "execution": {"executor": executor},
            "limits": {"max_failures": "0"},
        },
    )


def _score(database: LakeDatabase, truth: Any) -> Scores:
    from vidproc.models import ModelSettings, describe_model

    card = describe_model("demo", ModelSettings(kind="detector"))
    assert card is not None
    return score(
        truth,
        database.sql("SELECT video_id, uri FROM videos").read_all(),
        database.sql("SELECT * FROM detections").read_all(),
        database.sql("SELECT * FROM actions").read_all(),
        detector_fps=float(card.grid.fps),
    )


def _sheet(database: LakeDatabase, scores: Scores, summary: RunSummary) -> bytes:
    """Draw the contact sheet: of each video the moment with the most to see, with its boxes and its action."""
    moments = database.sql(
        "WITH seen AS (SELECT video_id, pipeline, time_s, count(*) AS things, count(DISTINCT label) AS kinds "
        "FROM detections WHERE score >= 0.5 GROUP BY ALL), "
        "doing AS (SELECT video_id, pipeline, start_s, end_s, max(score) AS sure FROM actions "
        "WHERE label NOT IN ('stand', 'walk') GROUP BY ALL), "
        "ranked AS (SELECT s.*, row_number() OVER (PARTITION BY s.video_id "
        "ORDER BY kinds + coalesce(sure, 0) DESC, things DESC, time_s) AS place FROM seen s LEFT JOIN doing d "
        "ON d.video_id = s.video_id AND d.pipeline = s.pipeline "
        "AND time_s BETWEEN d.start_s + 0.3 AND d.end_s - 0.3) "
        "SELECT uri, r.video_id, r.time_s FROM ranked r JOIN videos USING (video_id, pipeline) "
        f"WHERE place = 1 ORDER BY uri, time_s LIMIT {FRAMES_SHOWN}"
    ).read_all()
    items = []
    for moment in sorted(moments.to_pylist(), key=lambda m: (m["uri"], m["time_s"])):
        found = database.sql(
            "SELECT label, x_min, y_min, x_max, y_max, track_id FROM detections "
            "WHERE video_id = $video AND time_s = $time AND score >= 0.5",
            {"video": moment["video_id"], "time": moment["time_s"]},
        ).read_all()
        action = database.sql(
            "SELECT label, score FROM actions WHERE video_id = $video AND rank = 1 "
            "AND start_s <= $time AND end_s > $time ORDER BY score DESC LIMIT 1",
            {"video": moment["video_id"], "time": moment["time_s"]},
        ).read_all().to_pylist()  # fmt: skip
        path = Path(moment["uri"])
        items.append(
            SheetItem(
                pixels=frame_at(moment["uri"], moment["time_s"]),
                title=f"{path.parent.name}/{path.stem}",
                detail=f"{moment['time_s']:.1f} s",
                badge=action[0]["label"].replace("_", " ") if action and action[0]["score"] >= 0.5 else "",
                boxes=tuple(SheetBox(**row) for row in found.to_pylist()),
            )
        )
    figures = (
        ("detection mAP@50", f"{scores.map50:.3f}"),
        ("tracking IDF1", f"{scores.idf1:.3f}"),
        ("action top-1", f"{scores.top1:.3f}"),
        ("times real time", f"{summary.speed:.{0 if summary.speed >= 10 else 1}f}"),
    )
    return contact_sheet(items, heading="What vidproc found", figures=figures)


def frame_at(uri: str, time_s: float) -> np.ndarray:
    """uint8 (h, w, 3) RGB: the upright frame of a local video that is on screen at `time_s`."""
    from vidproc.video.archive import list_videos

    path = Path(uri)
    video = next(v for v in list_videos(str(path.parent)) if v.uri == uri)
    source, limits = Source(options=StorageOptions()), MediaLimits()
    info = probe(video, source, limits)  # type: ignore[arg-type]
    [moment] = pictures_at(info, [tick_at(info, time_s)], source, limits)
    assert moment.pixels is not None, moment.reason
    return moment.pixels
