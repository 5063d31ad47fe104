"""The row about rows of a lake as pictures: a contact sheet as its user asks for it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import videos
from tests.benchmarks.jobs import index, job
from tests.benchmarks.measure import Cost, Row, Settings, median, run

ROWS = 24
SECONDS = 12
TARGET_S = 3.0
GOPS = (60, 250)
"""Frames from one keyframe to the next: of most cameras, and of a film made for streaming by x264's own choice."""


def show(settings: Settings) -> list[Row]:
    """24 rows out of as many videos of 720p25 on local disk, on one sheet: seconds of the whole command."""
    folder = Path(tempfile.mkdtemp(prefix="show-", dir=videos.cache()))
    try:
        found = {gop: _measured(settings, folder / str(gop), gop) for gop in GOPS}
        size = (folder / str(GOPS[0]) / "sheet.jpg").stat().st_size
    finally:
        shutil.rmtree(folder)
    costs = found[GOPS[0]]
    seconds, cpu = (median([getattr(cost, name) for cost in costs]) for name in ("seconds", "cpu_s"))
    row = Row(name="show", what=f"{ROWS} rows out of {ROWS} videos, on one sheet", target=f"<= {TARGET_S:g} s")
    row.value, row.met = f"{seconds:.2f} s", None if settings.quick else seconds <= TARGET_S
    row.frames, row.rows, row.bytes = ROWS, ROWS, size
    row.peak_bytes = max(cost.peak_bytes for cost in costs)
    row.notes += [
        f"a keyframe every {GOPS[0] / videos.FPS:g} s; the start of Python, the question, the readers and the sheet "
        f"included; {cpu:.2f} s of CPU",
        f"with a keyframe every {GOPS[1] / videos.FPS:g} s: "
        f"{median([cost.seconds for cost in found[GOPS[1]]]):.2f} s, since all before a frame is decoded for it",
    ]
    row.figures = {str(gop): [cost.seconds for cost in many] for gop, many in found.items()}
    return [row]


def _measured(settings: Settings, folder: Path, gop: int) -> list[Cost]:
    archive, lake = folder / "archive", folder / "lake"
    archive.mkdir(parents=True)
    for n in range(ROWS):
        os.link(videos.drawn(SECONDS, gop), archive / f"camera-{n:03d}.mp4")
    settings.say(f"indexing {ROWS} videos, once")
    detector = {"model": "tests.support.fakes:Numbers", "fps": 1}
    index(archive, job(detector=detector, execution={"executor": "inline"}), keep=lake)
    # One moment a video, another one in each, anywhere in its groups of pictures.
    moments = "time_s = CAST(regexp_extract(uri, 'camera-([0-9]+)', 1) AS INTEGER) % 11"
    command = [sys.executable, "-m", "vidproc", "show", str(lake), str(folder / "sheet.jpg"), "--where", moments]
    costs = [run([*command, "--limit", str(ROWS), "--json"], look_every_s=0.2) for _ in range(settings.repetitions)]
    answer = costs[-1].answer
    if answer["pictures"] != ROWS or answer["videos"] != ROWS:
        raise RuntimeError(f"not {ROWS} pictures of as many videos: {answer}")
    return costs
