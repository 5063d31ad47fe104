"""What the tables say of a whole video: how much of it is whole, where it ends, what was odd."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.media import damage, make_video
from tests.whole.test_end_to_end import job
from vidproc.ask import connect
from vidproc.media import DecodeReport, VideoInfo
from vidproc.run.driver import index
from vidproc.run.pipeline import make_pipeline
from vidproc.settings import load_job
from vidproc.video.container import MediaLimits, Source
from vidproc.video.decode import coverage
from vidproc.video.probe import probe


def rows(lake: Path, sql: str) -> list[dict[str, Any]]:
    with connect(str(lake)) as database:
        return database.sql(sql).read_all().to_pylist()


def test_segments_end_with_their_video(tmp_path: Path) -> None:
    """Its last frame begins at 5.00 s, where the last samples are, and stays for 0.04 s."""
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "v.mp4", seconds=5.04)
    index(job(str(tmp_path / "in"), str(tmp_path / "lake")))
    sql = "SELECT kind, max(s.end_s) AS last, min(duration_s) AS ends FROM segments s JOIN videos USING (video_id) "
    found = rows(tmp_path / "lake", sql + "GROUP BY kind ORDER BY kind")
    assert [r["kind"] for r in found] == ["action", "presence"]
    assert all(r["last"] == r["ends"] == pytest.approx(5.04) for r in found)


def test_on_and_off_need_no_quotes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "v.mp4", seconds=4)
    counts = []
    for n, rule in enumerate(["on: 0.5, off: 0.3", "on: 0.95, off: 0.3", "'on': 0.95, 'off': 0.3"]):
        described = tmp_path / f"job{n}.yaml"
        described.write_text(
            f"archive: {tmp_path / 'in'}\nlake: {tmp_path / f'lake{n}'}\nexecution: {{executor: inline}}\n"
            f"detector: {{model: 'tests.support.fakes:Numbers', fps: 4}}\nactions: none\n"
            f"link:\n  presence: {{{rule}, gap_s: 2, min_s: 1}}\n"
        )
        index(load_job(described))
        counts.append(len(rows(tmp_path / f"lake{n}", "SELECT * FROM segments")))
    assert counts[0] > 0 and counts[1:] == [0, 0], "no detection of tests.support.fakes is surer than 0.9"


def test_a_rule_that_ends_above_where_it_begins_is_refused(tmp_path: Path) -> None:
    described = tmp_path / "job.yaml"
    rule = {"link": {"presence": {"on": 0.2, "off": 0.4}}}
    described.write_text(yaml.safe_dump({"archive": str(tmp_path), "lake": str(tmp_path / "lake")} | rule))
    command = [sys.executable, "-m", "vidproc", "index", "--job", str(described), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "off (0.4) may not be above on (0.2)" in done.stderr


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> VideoInfo:
    made = make_video(tmp_path_factory.mktemp("info") / "v.mp4", seconds=1)
    return probe(made.video, Source(), MediaLimits())


def report(first_s: float, end_s: float, missing_s: float = 0.0) -> DecodeReport:
    return DecodeReport(1, 1, first_s, end_s, 0, 0.0, True, missing_s=missing_s)


def test_coverage_is_the_share_of_seconds_that_are_whole(info: VideoInfo) -> None:
    ten = replace(info, duration_s=10.0)
    assert coverage(ten, [report(0, 10, 3.6)]) == 0.64
    assert coverage(ten, [report(0, 5, 1.6), report(5, 10, 2.0)]) == 0.64, "whatever the cut"
    assert coverage(ten, [report(0, 4)]) == 0.4
    assert coverage(ten, [report(0, 4), report(6, 10)]) == 0.8
    assert coverage(ten, []) == 0


def test_what_is_there_beyond_the_promise_makes_up_for_nothing(info: VideoInfo) -> None:
    """A header says 5 s, 10 s are there, and 4 of them are damaged."""
    assert coverage(replace(info, duration_s=5.0), [report(0, 10, 4)]) == 0.6
    assert coverage(replace(info, duration_s=0.0), [report(0, 10, 4)]) == 0.6


@pytest.mark.parametrize("seconds", [1.0, 36_000.0])
def test_less_than_a_frame_is_no_loss_and_more_is_one_at_any_length(info: VideoInfo, seconds: float) -> None:
    long = replace(info, duration_s=seconds)
    assert coverage(long, [report(0, seconds - 0.039)]) == 1.0
    assert coverage(long, [report(0, seconds, 0.04)]) < 1.0
    assert coverage(long, [report(0, seconds - 0.5)]) < 1.0
    cuts = [report(n * seconds / 7, (n + 1) * seconds / 7) for n in range(7)]
    assert coverage(long, cuts) == 1.0


def test_what_decoding_finds_is_said_in_the_row(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    made = make_video(tmp_path / "v.mp4", seconds=10)
    damage(made, tmp_path / "in" / "damaged.mp4", 0.4, 0.5)
    make_video(tmp_path / "in" / "whole.mp4", seconds=2)
    index(job(str(tmp_path / "in"), str(tmp_path / "lake"), cut={"clip_seconds": 1000.0}))
    damaged, whole = rows(tmp_path / "lake", "SELECT * FROM videos ORDER BY uri")
    assert damaged["status"] == "partial" and 0 < damaged["coverage"] < 1
    assert damaged["warnings"] and all(damaged["warnings"])
    assert (whole["status"], whole["coverage"], whole["warnings"]) == ("indexed", 1.0, [])


def test_the_longest_duration_is_a_setting_of_the_job(tmp_path: Path) -> None:
    """By default a day passes, and what lasts for weeks is taken for damage."""
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "1 day.mkv", seconds=24 * 3600, fps=Fraction(1, 3600), gop=1, bframes=0)
    make_video(tmp_path / "in" / "28 days.mkv", seconds=28 * 86_400, fps=Fraction(1, 14 * 86_400), gop=1, bframes=0)
    wanted = {"detector": {"model": "tests.support.fakes:Numbers", "fps": 0.001}, "actions": "none"}

    def ended(lake: str, **given: Any) -> dict[str, tuple[str, str | None]]:
        index(job(str(tmp_path / "in"), str(tmp_path / lake), **wanted, **given))
        found = rows(tmp_path / lake, "SELECT uri, error_class, error FROM videos ORDER BY uri")
        return {Path(r["uri"]).stem: (r["error_class"], r["error"]) for r in found}

    usual = ended("usual")
    assert usual["1 day"][0] != "limit" and usual["28 days"][0] == "limit"
    assert "says that it lasts" in str(usual["28 days"][1]) and "(limits.max_duration)" in str(usual["28 days"][1])
    assert ended("short", limits={"max_duration": 3600})["1 day"][0] == "limit"
    assert ended("long", limits={"max_duration": 40 * 86_400.0})["28 days"][0] != "limit"


def test_other_rows_are_another_pipeline(tmp_path: Path) -> None:
    """How long a frame may stay decides about rows; what is verified, and what is declined, does not."""

    def pipeline_id(**given: Any) -> str:
        return make_pipeline(job(str(tmp_path), str(tmp_path / "lake"), **given)).pipeline_id

    usual = pipeline_id()
    assert pipeline_id(limits={"max_frame_duration": 600}) == usual != pipeline_id(limits={"max_frame_duration": 60})
    assert pipeline_id(verify="100%") == usual == pipeline_id(limits={"max_duration": 60})
