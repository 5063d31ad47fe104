"""The main job, from an archive to an answer: real files, real decoding, a real lake, local and on S3."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Root
from tests.support.media import cut_off, make_sound, make_video
from vidproc.ask import connect
from vidproc.errors import ConfigError
from vidproc.media import Video, VideoInfo
from vidproc.run.driver import index
from vidproc.run.forecast import forecast
from vidproc.run.pipeline import Probe
from vidproc.runtime.inline import InlineExecutor
from vidproc.runtime.units import UnitEnd
from vidproc.settings import Job, load_job
from vidproc.storage import open_storage
from vidproc.tables.lake import Lake
from vidproc.video.plan import load_plan

FPS = 4


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good videos of different make, one cut off, one without pictures, one that is none, an
    empty one, and a hostile name."""
    folder = tmp_path_factory.mktemp("archive")
    (folder / "cam 1").mkdir()
    make_video(folder / "cam 1" / "gop12.mp4", seconds=6, gop=12, bframes=2)
    make_video(folder / "cam 1" / "vfr ünï#%.mkv", seconds=5, gop=25, gaps=[1, 3, 2])
    make_video(folder / "-late.mp4", seconds=4, gop=250, bframes=0, first_s=1.5, audio=True)
    make_video(folder / "it's; rm -rf $HOME.ts", seconds=4, gop=25, format="mpegts")
    whole = make_video(folder / "whole.mp4", seconds=6, gop=12, container_options={"movflags": "faststart"})
    cut_off(whole, folder / "cut off.mp4", 0.6)
    make_sound(folder / "sound.m4a")
    (folder / "text.mp4").write_text("not a video at all\n" * 50)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / ".hidden.mp4").write_bytes(b"x")
    return folder


EXPECTED = {
    "cam 1/gop12.mp4": ("indexed", None),
    "cam 1/vfr ünï#%.mkv": ("indexed", None),
    "-late.mp4": ("indexed", None),
    "it's; rm -rf $HOME.ts": ("indexed", None),
    "whole.mp4": ("indexed", None),
    "cut off.mp4": ("partial", "decode"),
    "sound.m4a": ("declined", "audio_only"),
    "text.mp4": ("declined", "not_media"),
    "empty.mp4": ("declined", "empty"),
    ".hidden.mp4": ("declined", "hidden"),
}


def job(archive: str, lake: str, **given: Any) -> Job:
    settings: dict[str, Any] = {
        "archive": archive,
        "lake": lake,
        "detector": "tests.support.fakes:Numbers",
        "actions": "tests.support.fakes:Order",
        "cut": {"clip_seconds": 1.0, "clips_per_task": 1},
        "execution": {"executor": "inline"},
    }
    for key, value in given.items():
        below = settings.get(key)
        settings[key] = {**below, **value} if isinstance(value, dict) and isinstance(below, dict) else value
    return load_job(None, settings)


def tables(lake: str) -> dict[str, list[dict[str, Any]]]:
    """All rows that say something of a video, without what differs from run to run."""
    found = {}
    with connect(lake) as database:
        for name in ("detections", "tracks", "actions", "segments", "videos"):
            rows = database.sql(f"SELECT * EXCLUDE (pipeline) FROM {name} ORDER BY ALL").read_all().to_pylist()
            for row in rows:
                for changing in ("run_id", "indexed_at", "attempts", "frames_decoded"):
                    row.pop(changing, None)
            found[name] = rows
    return found


def statuses(lake: str, archive: str) -> dict[str, tuple[str, str | None]]:
    with connect(lake) as database:
        rows = database.sql("SELECT uri, status, error_class FROM videos").read_all().to_pylist()
    return {r["uri"].removeprefix(archive).lstrip("/"): (r["status"], r["error_class"]) for r in rows}


def upload(folder: Path, root: Root) -> str:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        root.storage.put(path.relative_to(folder).as_posix(), path.read_bytes())
    return root.uri


def test_each_object_ends_in_the_right_status(archive: Path, tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    summary = index(job(str(archive), lake))
    assert statuses(lake, str(archive)) == EXPECTED
    assert summary.exit_code == 0, summary.reason
    assert summary.listed == len(EXPECTED)
    with connect(lake) as database:
        why = {r["uri"]: r for r in database.sql("SELECT * FROM failures").read_all().to_pylist()}
    assert {Path(u).name for u in why} == {"cut off.mp4", "sound.m4a", "text.mp4", "empty.mp4", ".hidden.mp4"}
    for row in why.values():
        assert row["error"] and "\n" not in row["error"] and row["error_class"] and row["stage"]


def test_what_is_queried_is_what_was_on_screen(archive: Path, tmp_path: Path) -> None:
    """Each detection's place says which frame the model saw: compared with the frame on screen then."""
    made = make_video(
        tmp_path / "in" / "v.mp4" if (tmp_path / "in").mkdir() is None else tmp_path, seconds=6, gaps=[1, 2, 4], gop=10
    )
    lake = str(tmp_path / "lake")
    index(job(str(tmp_path / "in"), lake))
    with connect(lake) as database:
        rows = database.sql("SELECT time_s, x_min, y_min, label FROM detections ORDER BY time_s").read_all().to_pylist()
    from fractions import Fraction

    last = made.times[-1]
    expected = []
    k = 0
    while Fraction(k, FPS) <= last + made.times[1]:
        number = made.number_shown_at(Fraction(k, FPS))
        expected.append((k / FPS, float(number % 64), float(number // 64), "person" if number % 2 else "car"))
        k += 1
    got = [(r["time_s"], round(r["x_min"]), round(r["y_min"]), r["label"]) for r in rows]
    assert got[: len(expected)] == expected[: len(got)]
    assert abs(len(got) - len(expected)) <= 1


@pytest.mark.parametrize("clip_seconds", [0.5, 2.0, 1000.0])
def test_rows_do_not_depend_on_the_cut(archive: Path, tmp_path: Path, clip_seconds: float) -> None:
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    index(job(str(archive), one))
    index(job(str(archive), other, cut={"clip_seconds": clip_seconds, "clips_per_task": 3}))
    assert tables(one) == tables(other)


def test_a_second_run_does_nothing_and_a_changed_file_is_done_again(archive: Path, tmp_path: Path) -> None:
    folder, lake = tmp_path / "copy", str(tmp_path / "lake")
    shutil.copytree(archive, folder)
    index(job(str(folder), lake))
    before = tables(lake)
    again = index(job(str(folder), lake))
    assert (again.due, again.current, again.exit_code) == (0, len(EXPECTED), 0)
    assert tables(lake) == before
    make_video(folder / "whole.mp4", seconds=2, gop=5)
    make_video(folder / "new.mp4", seconds=1)
    third = index(job(str(folder), lake))
    assert third.due == 2
    with connect(lake) as database:
        rows = (
            database.sql("SELECT v.uri, count(*) AS n FROM detections d JOIN videos v USING (video_id) GROUP BY 1")
            .read_all()
            .to_pylist()
        )
    counts = {Path(r["uri"]).name: r["n"] for r in rows}
    assert counts["whole.mp4"] == 2 * FPS and counts["new.mp4"] == 1 * FPS


def test_another_pipeline_replaces_and_another_name_stands_beside(archive: Path, tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    include = {"include": ["whole.mp4"]}
    index(job(str(archive), lake, filters=include))
    index(job(str(archive), lake, filters=include, detector={"model": "tests.support.fakes:Numbers", "fps": 2}))
    index(
        job(
            str(archive),
            lake,
            filters=include,
            name="dense",
            detector={"model": "tests.support.fakes:Numbers", "fps": 8},
        )
    )
    with connect(lake) as database:
        rows = (
            database.sql("SELECT pipeline, count(*) AS n FROM detections GROUP BY 1 ORDER BY 1").read_all().to_pylist()
        )
    assert rows == [{"pipeline": "default", "n": 12}, {"pipeline": "dense", "n": 48}]


@pytest.mark.timeout(240)
def test_the_same_on_ray_and_s3(archive: Path, tmp_path: Path, s3_root: Root) -> None:
    """Archive and lake on a real S3 server, decoders and models in Ray workers: the rows of a plain local run."""
    on_s3 = upload(archive, s3_root.below("in"))
    lake = s3_root.below("lake").uri
    summary = index(job(on_s3, lake, execution={"executor": "ray"}))
    assert summary.exit_code == 0, summary.reason
    assert statuses(lake, on_s3) == EXPECTED
    local = str(tmp_path / "lake")
    index(job(str(archive), local))

    def bare(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
        gone = ("video_id", "uri", "content_id", "modified_at", "error", "warnings", "run_id")
        return {
            n: sorted(str({k: v for k, v in r.items() if k not in gone}) for r in rows) for n, rows in found.items()
        }

    assert bare(tables(lake)) == bare(tables(local))
    again = index(job(on_s3, lake, execution={"executor": "ray"}))
    assert (again.due, again.exit_code) == (0, 0)


def run_cli(*arguments: str, env: dict[str, str] | None = None, **given: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vidproc", *arguments],
        env=os.environ | {"PYTHONPATH": os.getcwd()} | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **given,
    )


def test_a_job_that_cannot_run_is_refused_before_it_starts(tmp_path: Path, archive: Path) -> None:
    cases = [
        (["index", str(tmp_path / "nowhere"), str(tmp_path / "lake")], "nowhere"),
        (["index", str(archive), str(archive)], "lies in the archive"),
        (["index", str(archive), str(archive.parent)], "lies in the lake"),
        (["index", str(archive), str(archive / "whole.mp4" / "lake")], "lies in the archive"),
        (["index", str(archive / "whole.mp4"), str(tmp_path / "lake")], "--include 'whole.mp4'"),
        (["index", str(archive), str(tmp_path / "lake"), "--detector", "fastercnn"], "fastercnn"),
        (["index", str(archive), str(tmp_path / "lake"), "--detector", "none", "--actions", "none"], "model"),
        (["index"], "archive"),
        (["index", "ftp://x/y", str(tmp_path / "lake")], "ftp"),
        (["query", str(tmp_path), "SELECT 1"], "not a lake"),
        (["index", "--job", str(tmp_path / "missing.yaml")], "missing.yaml"),
    ]
    for arguments, named in cases:
        process = run_cli(*arguments)
        text, _ = process.communicate(timeout=120)
        assert process.returncode == 2, (arguments, text)
        assert named in text and "Traceback" not in text, (arguments, text)
    assert not (tmp_path / "lake").exists()


def test_a_job_that_its_first_worker_finds_wrong_is_refused_too(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver without a GPU cannot know what devices the workers have. That files were probed leaves nothing."""

    def load_model(*_: Any, **__: Any) -> None:
        raise ConfigError("there is no device cuda:7")

    monkeypatch.setattr("vidproc.run.pipeline.load_model", load_model)
    lake = str(tmp_path / "lake")
    with pytest.raises(ConfigError, match="cuda:7"):
        index(job(str(archive), lake))
    (run,) = Lake.open(lake).runs().to_pylist()
    assert (run["outcome"], run["exit_code"], run["videos_indexed"]) == ("failed", 2, 0)


@pytest.mark.timeout(240)
def test_a_killed_run_goes_on_where_it_was(archive: Path, tmp_path: Path) -> None:
    undisturbed, lake = str(tmp_path / "undisturbed"), str(tmp_path / "lake")
    given = [
        "--detector",
        "tests.support.fakes:Slow",
        "--actions",
        "tests.support.fakes:Order",
        "--clip-seconds",
        "1",
        "--executor",
        "inline",
    ]
    index(job(str(archive), undisturbed, detector="tests.support.fakes:Slow"))
    process = run_cli("index", str(archive), lake, *given)
    deadline = time.monotonic() + 180
    staging = Path(lake, "_staging")
    while len(list(staging.rglob("report.json"))) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = len(list(staging.rglob("report.json")))
    assert done >= 6
    summary = index(job(str(archive), lake, detector="tests.support.fakes:Slow", cut={"clips_per_task": 2}))
    assert summary.tasks_resumed == done
    assert summary.exit_code == 0
    assert tables(lake) == tables(undisturbed)
    assert not list(staging.rglob("*.parquet"))


def test_what_is_no_longer_staged_is_done_again(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that outlives its driver publishes a video after the next run has listed what is staged."""
    from vidproc.tables.staging import Staging

    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(archive / "whole.mp4", folder)
    staged: list[tuple[str, str]] = []
    put = Staging.put

    def remembered(self: Staging, task: Any, *rest: Any) -> None:
        staged.append((task.video.video_id, task.task_id))
        put(self, task, *rest)

    monkeypatch.setattr(Staging, "put", remembered)
    first = index(job(str(folder), str(tmp_path / "one")))
    monkeypatch.setattr(Staging, "finished", lambda self: iter(list(staged)))
    again = index(job(str(folder), str(tmp_path / "two")))
    assert (again.exit_code, again.tasks_resumed, again.tasks_done) == (0, 0, first.tasks_done)
    assert again.rows == first.rows


def test_an_interrupted_run_says_how_to_go_on(archive: Path, tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    process = run_cli(
        "index",
        str(archive),
        lake,
        "--detector",
        "tests.support.fakes:Slow",
        "--actions",
        "none",
        "--clip-seconds",
        "1",
        "--executor",
        "inline",
    )
    while not list(Path(lake).rglob("report.json")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 130, text
    assert "run the same command again" in text


def test_an_interrupted_run_counts_what_can_be_queried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b.mp4"):
        make_video(tmp_path / "in" / name, seconds=1)
    given: dict[str, Any] = {"archive": str(tmp_path / "in"), "lake": str(tmp_path / "lake")}

    class StopsAtItsFirstTask(InlineExecutor):
        def run(self, *arguments: Any, **named: Any) -> Iterator[UnitEnd]:
            for end in super().run(*arguments, **named):
                if end.unit.route == "task":
                    self.stop()
                    yield end
                    return
                yield end

    with monkeypatch.context() as patch:
        patch.setattr("vidproc.run.driver.make_executor", lambda _: StopsAtItsFirstTask())
        stopped = index(job(**given))
    assert (stopped.exit_code, dict(stopped.statuses), stopped.tasks_done) == (130, {}, 1)
    assert "run the same command again" in stopped.reason and "1 finished video(s) are kept" in stopped.reason
    again = index(job(**given))
    assert (again.exit_code, dict(again.statuses), again.tasks_resumed) == (0, {"indexed": 2}, 1)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", ["raise", "kill"])
def test_a_poisonous_task_is_given_up_remembered_and_released(
    archive: Path, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that fails on one frame costs that frame's task, three times; `retry` releases it."""
    from vidproc.run.release import release
    from vidproc.storage import StorageOptions

    folder, lake = tmp_path / "in", str(tmp_path / "lake")
    folder.mkdir()
    make_video(folder / "a.mp4", seconds=4, gop=5, fps=20)
    make_video(folder / "b.mp4", seconds=0.5, fps=20)
    given: dict[str, Any] = {
        "detector": {"model": "tests.support.fakes:Fragile", "fps": 20},
        "actions": "none",
        "cut": {"clip_seconds": 0.25},
        "execution": {"executor": "ray" if fault == "kill" else "inline"},
    }
    monkeypatch.setenv("VIDPROC_TEST_FAULT", fault)
    summary = index(job(str(folder), lake, **given))
    assert summary.exit_code == 1 and summary.statuses == {"partial": 1, "indexed": 1}
    with connect(lake) as database:
        rows = database.sql("SELECT stage, error_class, attempt FROM failures ORDER BY attempt").read_all().to_pylist()
        kept = database.sql("SELECT count(*) AS n FROM detections").read_all().to_pylist()[0]["n"]
    assert [(r["stage"], r["attempt"]) for r in rows] == [("infer", 1), ("infer", 2), ("infer", 3)]
    assert {r["error_class"] for r in rows} == {"crash" if fault == "kill" else "internal"}
    assert kept == 75 + 10  # all but the five frames of the poisonous task
    monkeypatch.setenv("VIDPROC_TEST_FAULT", "")
    assert index(job(str(folder), lake, **given)).due == 0, "a quarantined video is not tried again by itself"
    released = release(lake, StorageOptions())
    assert released.videos == {"default": 1} and released.job is not None
    healed = index(job(str(folder), lake, **given))
    assert (healed.due, healed.exit_code, healed.statuses) == (1, 0, {"indexed": 1})
    with connect(lake) as database:
        assert database.sql("SELECT count(*) AS n FROM detections").read_all().to_pylist()[0]["n"] == 90


def test_a_forecast_tells_what_there_is_and_writes_nothing(archive: Path, tmp_path: Path) -> None:
    process = run_cli(
        "plan", str(archive), "--detector", "tests.support.fakes:Numbers", "--actions", "none", "--calibrate", "2",
        "--json", "--save", str(tmp_path / "plan"), "--executor", "inline",
    )  # fmt: skip
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    found = json.loads(text[text.index("{") :])
    plan = found["plan"]
    assert (plan["videos"], plan["known"]) == (6, 0)
    assert plan["declined"] == {"audio_only": 1, "not_media": 1, "empty": 1, "hidden": 1}
    assert set(found["examples"]) == set(plan["declined"])
    assert plan["predicted_seconds"] > 0 and plan["predicted_output_bytes"] > 0 and found["trial"]["frames"] > 0
    loaded, items = load_plan(open_storage(str(tmp_path / "plan")), "plan", {"archive": str(archive)})
    assert loaded.videos == 6 and sum(isinstance(item, VideoInfo) for item in items) == 6


def test_a_saved_plan_gives_the_same_tables(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, plan = tmp_path / "in", str(tmp_path / "plan")
    shutil.copytree(archive, folder)
    given = {"execution": {"executor": "inline"}}
    index(job(str(folder), listed := str(tmp_path / "listed"), **given))
    forecast(job(str(folder), str(tmp_path / "no lake yet"), **given), save=plan, calibrate_s=0)
    make_video(folder / "later.mp4", seconds=1)

    def probed(self: Probe, video: Video) -> VideoInfo:
        seen.append(Path(video.uri).name)
        return real(self, video)

    seen: list[str] = []
    real = Probe.__call__
    monkeypatch.setattr(Probe, "__call__", probed)
    by_plan = index(job(str(folder), planned := str(tmp_path / "planned"), plan=plan, deleted="remove", **given))
    assert (by_plan.exit_code, by_plan.due) == (0, 10), "nothing of what was declined is lost"
    assert sorted(seen) == ["sound.m4a", "text.mp4"], "what could not be probed is looked at again, and nothing else"
    assert tables(planned) == tables(listed)
    # What changed since is due again in the next run, which lists.
    (folder / "whole.mp4").unlink()
    index(job(str(folder), other := str(tmp_path / "other"), plan=plan, **given))
    with connect(other) as database:
        gone = database.sql("SELECT status, error_class FROM videos WHERE uri LIKE '%whole.mp4'").read_all().to_pylist()
    assert gone == [{"status": "failed", "error_class": "source_changed"}]
    with pytest.raises(ConfigError, match="is of archive"):
        index(job(str(archive), planned, plan=plan, **given))


def test_following_an_archive_indexes_what_arrives_once(archive: Path, tmp_path: Path) -> None:
    folder, lake = tmp_path / "in", str(tmp_path / "lake")
    folder.mkdir()
    shutil.copy(archive / "whole.mp4", folder / "first.mp4")
    given = ["--detector", "tests.support.fakes:Numbers", "--actions", "none", "--executor", "inline", "--follow", "1"]
    process = run_cli("index", str(folder), lake, *given)

    def indexed() -> int:
        assert process.poll() is None, process.communicate()[0]
        try:
            with connect(lake) as database:
                return len(database.sql("SELECT uri FROM videos").read_all())
        except ConfigError:
            return 0

    deadline = time.monotonic() + 120
    while indexed() < 1 and time.monotonic() < deadline:
        time.sleep(0.5)
    shutil.copy(archive / "-late.mp4", folder / "second.mp4")
    while indexed() < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(2.5)
    os.kill(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=120)
    assert "2 indexed" in text, text
