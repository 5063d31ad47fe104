"""The two ways to decode less can be switched off. Rows do not depend on them, and a run records which were on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.media import make_video
from tests.whole.test_end_to_end import job, tables
from vidproc.run.driver import index
from vidproc.settings import Job, load_job
from vidproc.tables.lake import Lake
from vidproc.video import h264, mp4

SWITCHES = ("hollow_pictures", "partial_index")
PYRAMID = "ref=1:b-pyramid=normal:b-adapt=0:scenecut=0"
"""Every other B-frame is a reference, of its neighbours only: most need not be decoded for two samples a second."""


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One MP4, which counts as long."""
    monkeypatch.setattr(mp4, "WORTH_BYTES", 0)
    monkeypatch.setattr(mp4, "HEAD_FRAMES", 20)
    (tmp_path / "in").mkdir()
    options = {"x264-params": PYRAMID, "preset": "medium", "movflags": "+faststart"}
    make_video(tmp_path / "in" / "v.mp4", seconds=8, gop=50, bframes=3, options=options)
    return str(tmp_path / "in")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each way was taken."""
    found: Counter[str] = Counter()

    def counting(name: str, way: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any) -> Any:
            result = way(*given)
            found[name] += result is not None
            return result

        return counted

    monkeypatch.setattr(h264.Stream, "hollow", counting("hollow_pictures", h264.Stream.hollow))
    monkeypatch.setattr(mp4, "excerpt", counting("partial_index", mp4.excerpt))
    return found


def recorded(lake: Path) -> dict[str, bool]:
    (run,) = Lake.open(str(lake)).runs().to_pylist()
    return dict(json.loads(run["job"])["decode"])


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_way_that_is_off_is_not_taken_and_rows_are_equal(
    switch: str, archive: str, taken: Counter[str], tmp_path: Path
) -> None:
    other = next(name for name in SWITCHES if name != switch)
    detector = {"model": "tests.support.fakes:Numbers", "fps": 2}
    on = index(job(archive, str(tmp_path / "on"), detector=detector))
    assert taken[switch] and taken[other], "by default both are taken"
    taken.clear()
    off = index(job(archive, str(tmp_path / "off"), detector=detector, decode={switch: False}))
    assert not taken[switch] and taken[other]
    assert on.pipeline_id == off.pipeline_id
    assert tables(str(tmp_path / "on")) == tables(str(tmp_path / "off"))
    assert recorded(tmp_path / "on") == {"hollow_pictures": True, "partial_index": True}
    assert recorded(tmp_path / "off") == {switch: False, other: True}
    if switch == "hollow_pictures":
        assert off.frames_decoded > on.frames_decoded


def test_the_job_of_a_version_without_the_switches_is_read() -> None:
    written = load_job(None, {"archive": "/in", "lake": "/lake", "detector": "demo"}).model_dump()
    del written["decode"]
    assert Job.model_validate(written).decode.hollow_pictures and Job.model_validate(written).decode.partial_index
