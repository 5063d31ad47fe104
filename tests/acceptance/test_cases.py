"""Small files that once went wrong, each with the number drawn in every frame and the right one at each sample.

They lie beside the real data. Right values were decided before our output was seen."""

from __future__ import annotations

import importlib.util
import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from vidproc.media import FrameSize, Grid, Video
from vidproc.video.container import MediaLimits, Source
from vidproc.video.decode import coverage, decode
from vidproc.video.plan import CutSettings, cut
from vidproc.video.probe import probe

pytestmark = pytest.mark.acceptance

CASES = Path(os.environ.get("VIDPROC_ACCEPTANCE_DATA", "../shared/data")).parent / "cases"
EXPECTED: dict[str, Any] = (
    json.loads((CASES / "expected.json").read_text()) if (CASES / "expected.json").exists() else {}
)

UNSAID = {
    "b-double-times--b.mkv": "how long the last picture stays stands nowhere in the file",
    "b-joined-open-gop--b-h264-twice.ts": "only the first recording's rows are listed",
}
"""Files whose rows end elsewhere than the list, and why: what both have is compared."""

DAMAGED = ("b-corrupt-slices", "noise-inside")
"""Rows may be missing, but not wrong."""


def _reader() -> Any:
    spec = importlib.util.spec_from_file_location("counter", CASES / "counter.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [name for name in EXPECTED if EXPECTED[name].get("want")])
def test_the_right_picture_at_every_sample(name: str) -> None:
    case, read = EXPECTED[name], _reader().read
    path = CASES / name
    stat = path.stat()
    info = probe(Video(str(path), stat.st_size, f"{stat.st_mtime_ns}:{stat.st_size}"), Source(), MediaLimits())
    grid = Grid(fps=Fraction(case["fps"]), size=FrameSize(mode="native"))
    want = {k: number for k, number in case["want"]}
    for clip_seconds in (1, 2, 5, 1000):
        rows, reports = [], []
        for task in cut(info, CutSettings(clip_seconds=clip_seconds), [grid], "p"):
            (batch,), report = decode(task, [grid], Source(), MediaLimits())
            rows += [(int(batch.sample[i]), read(batch.pixels[i])) for i in range(batch.owned)]
            reports.append(report)
        got = dict(rows)
        assert len(got) == len(rows), "one time has two rows"
        if name.startswith(DAMAGED):
            assert got.items() <= want.items()
            assert coverage(info, reports) <= len(got) / len(want) + 0.1
        elif name in UNSAID:
            assert {k: got[k] for k in got if k in want} == {k: want[k] for k in want if k in got}
            assert len(want.keys() - got.keys()) <= 1
        else:
            assert got == want
            assert coverage(info, reports) == 1.0
