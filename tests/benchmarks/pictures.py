"""The row about rows of a lake as pictures: a contact sheet as its user asks for it."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import videos
from tests.benchmarks.jobs import index, job
from tests.benchmarks.measure import Row, Settings, median, run

ROWS = 24
TARGET_S = 3.0


def show(settings: Settings) -> list[Row]:
    """24 rows out of as many videos of 720p25 on local disk, on one sheet: seconds of the whole command."""
    archive = videos.archive("show", ROWS, 12, 12)
    folder = Path(tempfile.mkdtemp(prefix="show-", dir=videos.cache()))
    try:
        lake, sheet = folder / "lake", folder / "sheet.jpg"
        detector = {"model": "tests.support.fakes:Numbers", "fps": 1}
        settings.say(f"indexing {ROWS} videos, once")
        index(archive, job(detector=detector, execution={"executor": "inline"}), keep=lake)
        # One moment a video, another one in each, in the middle of its groups of pictures.
        moments = "time_s = CAST(regexp_extract(uri, 'camera-([0-9]+)', 1) AS INTEGER) % 11"
        command = [sys.executable, "-m", "vidproc", "show", str(lake), str(sheet), "--where", moments, "--json"]
        costs = [run([*command, "--limit", str(ROWS)], look_every_s=0.2) for _ in range(settings.repetitions)]
        answer = costs[-1].answer
        if answer["pictures"] != ROWS or answer["videos"] != ROWS:
            raise RuntimeError(f"not {ROWS} pictures of as many videos: {answer}")
        row = Row(name="show", what=f"{ROWS} rows out of {ROWS} videos, on one sheet", target=f"<= {TARGET_S:g} s")
        seconds = median([cost.seconds for cost in costs])
        row.value = f"{seconds:.2f} s"
        row.met = None if settings.quick else seconds <= TARGET_S
        row.frames, row.rows, row.bytes = ROWS, ROWS, sheet.stat().st_size
        row.peak_bytes = max(cost.peak_bytes for cost in costs)
        row.notes.append(
            f"start of Python, opening the lake, the question, two readers and the sheet included; CPU "
            f"{median([cost.cpu_s for cost in costs]):.2f} s; the archive has {videos.bytes_of(archive) / 1e6:.0f} MB, "
            "every other video with groups of pictures of 10 s"
        )
        row.figures = {"seconds": [cost.seconds for cost in costs], "answer": answer}
        return [row]
    finally:
        shutil.rmtree(folder)
