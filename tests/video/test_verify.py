"""The fast path checks itself: a share of tasks is decoded plainly too, and a video on which the two differ is done
again plainly, whoever is killed on the way."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import tests.support.wrong
from tests.support.media import damage, make_video, video_of
from tests.support.wrong import earlier, exchanged, one_less, shade, wrong_fast_path
from tests.tables.test_publish import killed_before
from tests.whole.test_end_to_end import job, tables
from vidproc.ask import connect
from vidproc.errors import FastPathWrong
from vidproc.media import FrameBatch, FrameSize, Grid, Task
from vidproc.run import pipeline
from vidproc.run.driver import index
from vidproc.run.summary import RunSummary
from vidproc.run.work import PLAIN
from vidproc.storage import StorageOptions, open_storage
from vidproc.tables.lake import Lake
from vidproc.video.container import MediaLimits, Source
from vidproc.video.plan import CutSettings, cut
from vidproc.video.probe import probe
from vidproc.video.verify import decode_and_verify, is_chosen

GRID = Grid(fps=Fraction(4), size=FrameSize(mode="stretch", height=64, width=96))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video on which the fast path will be wrong, and one on which it is right."""
    folder = tmp_path_factory.mktemp("archive")
    make_video(folder / "wrong.mp4", seconds=3, gop=25)
    make_video(folder / "right.mp4", seconds=2, gop=25)
    return folder


@pytest.fixture(scope="module")
def truth(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Rows as they should be, but for the warning."""
    lake = str(tmp_path_factory.mktemp("truth") / "lake")
    index(job(str(archive), lake))
    return said_plainly(tables(lake))


def said_plainly(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    for video in rows["videos"]:
        video["warnings"] = [PLAIN] if video["uri"].endswith("wrong.mp4") else []
    return rows


def run(archive: Path, lake: Path | str, **given: Any) -> RunSummary:
    with wrong_fast_path():
        return index(job(str(archive), str(lake), **{"verify": "100%"} | given))


def failures(lake: Path | str) -> list[dict[str, Any]]:
    with connect(str(lake)) as database:
        return database.sql('SELECT * FROM failures ORDER BY "at"').read_all().to_pylist()


def staged(lake: Path | str) -> list[str]:
    return [o.key for o in open_storage(str(lake)).list("_staging/")]


def test_a_video_on_which_the_fast_path_is_wrong_is_done_again_plainly(
    archive: Path, truth: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    summary = run(archive, lake)
    assert tables(str(lake)) == truth
    assert (summary.exit_code, summary.statuses, summary.plain) == (0, {"indexed": 2}, 1), summary.reason
    assert "1 decoded plainly" in summary.reason
    assert summary.tasks_verified >= 2
    (kept,) = failures(lake)
    assert (kept["stage"], kept["error_class"], Path(kept["uri"]).name) == ("decode", "verify", "wrong.mp4")
    assert kept["error"].startswith(f"{archive}/wrong.mp4: the fast path gave other pictures than plain decoding")
    assert "from 1.000 s to 2.000 s: sample 4 of 4/s at 1.000 s: the pictures" in kept["error"]
    assert "differ by" in kept["error"] and "(2 of " in kept["error"] and kept["task_id"] and kept["traceback"]
    (told,) = Lake.open(str(lake), StorageOptions()).runs().to_pylist()
    assert (told["videos_plain"], told["tasks_verified"], told["outcome"]) == (1, summary.tasks_verified, "ok")
    assert staged(lake) == []
    again = run(archive, lake)
    assert (again.due, again.plain) == (0, 0)


def test_without_verifying_the_wrong_rows_stay(
    archive: Path, truth: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """So that the others of these tests can fail."""
    summary = run(archive, tmp_path / "lake", verify=0)
    found = said_plainly(tables(str(tmp_path / "lake")))
    assert found["detections"] != truth["detections"] and summary.plain == summary.tasks_verified == 0


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        (exchanged, "at 1.000 s: the pictures of the frame of 1.000 s differ by"),
        (shade, "at 1.250 s: the pictures of the frame of 1.240 s differ by 0.00 of 255 on average, by 1 at most"),
        (earlier, "at 1.250 s: the fast path shows the frame of 1.000 s, plain decoding that of 1.240 s"),
        (one_less, "at 1.250 s: only plain decoding has a frame there (of 1.240 s)"),
    ],
)
def test_every_difference_is_found_and_told(archive: Path, fault: Callable[[FrameBatch], FrameBatch], how: str) -> None:
    task = tasks(archive / "wrong.mp4")[1]
    with wrong_fast_path(fault), pytest.raises(FastPathWrong) as found:
        verified(task)
    assert how in str(found.value)


def tasks(path: Path) -> tuple[Task, ...]:
    info = probe(video_of(path), Source(), MediaLimits())
    return cut(info, CutSettings(clip_seconds=1.0, clips_per_task=1), [GRID], "p")


def verified(task: Task, time_limit_s: float = 600.0) -> bool:
    _, report = decode_and_verify(task, [GRID], Source(), MediaLimits(), share=1.0, time_limit_s=time_limit_s)
    return report.verified


def test_verifying_never_costs_a_task_its_time(archive: Path) -> None:
    """Where there is no time left to check it, the task stands as the fast path gave it."""
    task = tasks(archive / "right.mp4")[1]
    assert verified(task) and not verified(task, time_limit_s=0.0)


def test_what_is_damaged_is_compared_where_both_have_a_frame(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=6, gop=25)
    (tmp_path / "in").mkdir()
    damage(made, tmp_path / "in" / "damaged wrong.mp4", 0.25, 0.3)
    lakes = tmp_path / "a", tmp_path / "b"
    for lake, fault in zip(lakes, (one_less, exchanged), strict=True):
        with wrong_fast_path(fault):
            index(job(str(tmp_path / "in"), str(lake), verify=1))
    found = [[f["error"] for f in failures(lake) if f["error_class"] == "verify"] for lake in lakes]
    assert found[1], "pictures that both have and that differ"
    assert not any("has a frame there" in error for errors in found for error in errors)


def test_the_choice_is_a_share_by_the_task_alone() -> None:
    ids = [f"task {n}" for n in range(10_000)]
    chosen = {share: {i for i in ids if is_chosen(i, share)} for share in (0.0, 0.01, 0.5, 1.0)}
    assert len(chosen[0.0]) == 0 and len(chosen[1.0]) == len(ids)
    assert 70 < len(chosen[0.01]) < 130 and 4_800 < len(chosen[0.5]) < 5_200
    assert chosen[0.01] < chosen[0.5], "a larger share adds tasks and takes none away"
    assert sorted(chosen[0.01])[0] == "task 1100", "the same on any machine, in any version"


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the heartbeat dies too
@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_comes_to_the_same_rows(
    step: int, archive: Path, truth: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Killed before a side effect and begun again: before each, or each ninth, from the first to the last."""
    effect, died, wrong_seen = 0, [True], 0
    while died:
        lake = tmp_path / f"lake-{effect}"
        lake.mkdir()
        with killed_before(effect) as died:
            run(archive, lake)
        wrong_seen += any("/_failures/" in key for key in staged(lake))
        summary = run(archive, lake)
        assert tables(str(lake)) == truth, f"killed before side effect {effect}"
        assert summary.exit_code == 0 and staged(lake) == [], f"killed before side effect {effect}"
        assert {f["error_class"] for f in failures(lake)} == {"verify"}, f"killed before side effect {effect}"
        shutil.rmtree(lake)
        effect += step
    assert wrong_seen > 1


def test_of_many_tasks_some_run_some_wait_and_some_are_done(tmp_path: Path) -> None:
    """When the difference is found; and none of them leaves a row twice, or something staged."""
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "wrong.mp4", seconds=8, gop=5)
    many: dict[str, Any] = {
        "cut": {"clip_seconds": 0.2},
        "detector": {"model": "tests.support.fakes:Numbers", "fps": 25},
    }
    many["actions"] = "none"
    index(job(str(tmp_path / "in"), str(tmp_path / "truth"), **many))
    summary = run(tmp_path / "in", tmp_path / "lake", **many)
    assert tables(str(tmp_path / "lake")) == said_plainly(tables(str(tmp_path / "truth")))
    assert (summary.plain, summary.exit_code) == (1, 0) and 1 <= len(failures(tmp_path / "lake")) < 10
    assert summary.tasks_done < 20, "what waited is not done the old way first"
    assert staged(tmp_path / "lake") == []


def test_another_content_of_the_file_is_another_matter(archive: Path, tmp_path: Path) -> None:
    """The fast path was found wrong, the run was killed, and the file replaced: it is tried fast again."""
    (tmp_path / "in").mkdir()
    path, lake = tmp_path / "in" / "wrong.mp4", tmp_path / "lake"
    shutil.copy(archive / "wrong.mp4", path)
    lake.mkdir()
    for effect in itertools.count(8):
        with killed_before(effect):
            run(tmp_path / "in", lake)
        if any("/_failures/" in key for key in staged(lake)):
            break
    os.utime(path, (1, 1))
    summary = index(job(str(tmp_path / "in"), str(lake), verify="100%"))  # by a version whose fast path is right
    with connect(str(lake)) as database:
        (video,) = database.sql("SELECT status, warnings FROM videos").read_all().to_pylist()
    assert (summary.plain, video["status"], video["warnings"]) == (0, "indexed", [])


@pytest.mark.timeout(300)
def test_the_same_on_ray(
    archive: Path, truth: dict[str, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "Decode", tests.support.wrong.Decode)
    summary = run(archive, tmp_path / "lake", execution={"executor": "ray", "workers": 2})
    assert tables(str(tmp_path / "lake")) == truth
    assert (summary.exit_code, summary.plain) == (0, 1) and staged(tmp_path / "lake") == []
    assert {(f["stage"], f["error_class"]) for f in failures(tmp_path / "lake")} == {("decode", "verify")}


def test_a_file_whose_flags_are_not_true_has_the_same_right_rows_at_every_cut(tmp_path: Path) -> None:
    """MPEG-4 in an MP4 without a table of keyframes: every picture counts as one."""
    (tmp_path / "in").mkdir()
    path = make_video(tmp_path / "in" / "v.mp4", codec="mpeg4", seconds=8, fps=10, gop=40, bframes=0).path
    path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
    for clip_seconds in (1.0, 1000.0):
        lake = tmp_path / f"lake-{clip_seconds:g}"
        given: dict[str, Any] = {"cut": {"clip_seconds": clip_seconds}, "actions": "none"}
        index(job(str(tmp_path / "in"), str(lake), verify="100%", **given))
        with connect(str(lake)) as database:
            found = database.sql("SELECT time_s, x_min + 64 * y_min AS n FROM detections ORDER BY 1").read_all()
        assert [(r["time_s"], r["n"]) for r in found.to_pylist()] == [(k / 4, int(k * 2.5)) for k in range(32)]
