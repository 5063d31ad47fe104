"""What a person or a log sees of a run: while it goes on, from elsewhere, and at its end."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.support.media import cut_off, make_video
from vidproc.cli import app
from vidproc.errors import TransientError
from vidproc.progress import LogReporter, Progress, Reporter
from vidproc.run.driver import index
from vidproc.run.summary import RunSummary
from vidproc.runtime.metrics import NoMetrics
from vidproc.settings import load_job
from vidproc.storage import LocalStorage, open_storage
from vidproc.tables import heartbeat
from vidproc.tables.heartbeat import Heartbeat, Sign, running

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


# ---- While it goes on -------------------------------------------------------------------------------


def test_time_left_counts_what_was_not_probed_yet() -> None:
    progress = Progress(
        elapsed_s=100.0,
        moved_s=100.0,
        listed=20,
        listing_done=True,
        due=20,
        done=4,
        in_work=16,
        probed=5,
        video_s_known=500.0,
        video_s_done=400.0,
        video_s_open=100.0,
    )
    assert progress.speed == 4.0
    assert progress.left_s == pytest.approx((20 * 100 - 400) / 4)
    assert progress.line() == "4/20 videos · 6 min 40 s of video · 4.0x real time · 0 failed · 6:40 left"
    assert Progress(elapsed_s=5, due=3).line().startswith("0/3+ videos · 0.0 s of video")


def test_time_left_falls_while_one_long_task_runs() -> None:
    """Of a video of 140 s the first of three tasks ended after 20 s."""
    given: dict[str, Any] = {"listing_done": True, "due": 1, "probed": 1, "in_work": 1, "video_s_known": 140.0}
    assert Progress(**given, elapsed_s=19.0, video_s_open=140.0).left_s is None
    begun = Progress(**given, elapsed_s=20.0, moved_s=20.0, video_s_done=60.0, video_s_open=80.0)
    left = [replace(begun, elapsed_s=t).left_s for t in (20.0, 30.0, 46.0, 60.0)]
    assert left[:3] == pytest.approx([80 / 3, 50 / 3, 2 / 3]) and left[3] is None
    assert "time left unknown" in replace(begun, elapsed_s=60.0).line()


def test_a_json_log_is_one_object_a_line_and_forges_nothing() -> None:
    out = io.StringIO()
    log = LogReporter(out, as_json=True, every_s=0.0)
    log.say('failed: /a/b"}\n{"kind": "forged"}.mp4', status="failed")
    log.update(Progress(elapsed_s=2.0, done=1, due=1, listing_done=True))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["kind"], line.get("status")) for line in lines] == [("event", "failed"), ("progress", None)]
    assert lines[1]["done"] == 1 and lines[1]["message"].startswith("1/1 videos")
    assert all(datetime.fromisoformat(line["at"]).tzinfo for line in lines)


def test_a_text_log_keeps_one_event_on_one_line_without_secrets() -> None:
    out = io.StringIO()
    LogReporter(out).say("bad \x1b[2J\nname https://b.s3.amazonaws.com/k?X-Amz-Signature=0123abcd&x=1")
    (line,) = out.getvalue().splitlines()
    assert "\x1b" not in line and "0123abcd" not in line


def test_lines_come_no_faster_than_asked() -> None:
    out = io.StringIO()
    log = LogReporter(out, every_s=3600.0)
    for _ in range(10):
        log.update(Progress())
    assert out.getvalue() == ""


def test_an_unknown_log_format_is_refused() -> None:
    ran = cli("index", "/a", "/l", "--log-format", "xml")
    assert ran.exit_code == 2 and "xml" in ran.output and "json" in ran.output


# ---- From another terminal --------------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[tuple[Path, threading.Thread]]:
    """A lake, and a run of some seconds that has just begun to fill it."""
    (tmp_path / "in").mkdir()
    for i in range(4):
        make_video(tmp_path / "in" / f"{i}.mp4", seconds=4, gop=10)
    wanted = load_job(
        None,
        {"archive": str(tmp_path / "in"), "lake": str(tmp_path / "lake"), "detector": "tests.support.fakes:Slow",
         "actions": "none", "execution": {"executor": "inline"}, "cut": {"clip_seconds": 1, "clips_per_task": 1}},
    )  # fmt: skip
    run = threading.Thread(target=index, args=[wanted])
    yield tmp_path / "lake", run
    run.join(60)


def test_a_run_is_watched_from_elsewhere_until_it_ends(
    lake: tuple[Path, threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = lake
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.1)
    run.start()
    deadline = time.monotonic() + 120
    while not [sign for sign in folder.glob("_runs/*.json") if sign.stat().st_size > 2] and time.monotonic() < deadline:
        time.sleep(0.05)
    now = json.loads(cli("status", folder, "--json").output)
    assert [(r["pipeline"], r["silent"]) for r in now["running"]] == [("default", False)]
    ran = cli("status", folder, "--watch", "--every", "0.5")
    assert ran.exit_code == 0, ran.output
    assert not run.is_alive() or run.join(60) is None
    seen = [line for line in ran.output.splitlines() if "videos · " in line]
    assert len(set(seen)) >= 2, "it moves"
    assert "/4 videos" in seen[-1] and "x real time" in seen[-1]
    assert "4 indexed" in ran.output, "at the end, what the lake holds"
    assert not list(folder.glob("_runs/*")), "nothing is left behind"
    assert json.loads(cli("status", folder, "--json").output)["running"] == []


def test_a_watched_run_is_json_for_programs(
    lake: tuple[Path, threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = lake
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.1)
    run.start()
    while not [sign for sign in folder.glob("_runs/*.json") if sign.stat().st_size > 2]:
        time.sleep(0.05)
    *looks, _ = cli("status", folder, "--watch", "--every", "0.5", "--json").output.split("\n{\n")
    found = [json.loads(line) for line in looks[0].splitlines()]
    assert found and all(look["running"][0]["progress"]["listed"] <= 4 for look in found)


def sign(**given: Any) -> Sign:
    about: dict[str, Any] = {"run_id": "r1", "pipeline": "default", "host": "h", "started_at": LONG_AGO}
    return Sign(**about | {"at": datetime.now(UTC), "progress": Progress()} | given)


def test_a_killed_run_is_told_by_its_silence_and_forgotten_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.mp4", seconds=0.5)
    arguments = [
        "index",
        tmp_path / "in",
        tmp_path / "lake",
        "--detector",
        "tests.support.fakes:Numbers",
        "--actions",
        "none",
    ]
    arguments += ["--executor", "inline"]
    assert cli(*arguments).exit_code == 0
    storage = open_storage(str(tmp_path / "lake"))
    # Our clock, or the run's, may say what it likes: that of the store tells.
    assert not sign().silent and not sign(at=datetime.now(UTC) - timedelta(days=1)).silent
    dead = {"run_id": "r1", "pipeline": "default", "host": "h", "started_at": "2026-01-01T00:00:00+00:00",
            "at": "2026-01-01T02:03:04+00:00", "progress": {"due": 7, "of_a_newer_version": 1}, "said": ""}  # fmt: skip
    storage.put("_runs/r1.json", json.dumps(dead).encode())
    storage.put("_runs/damaged.json", b"{")
    assert [(s.progress.due, s.silent) for s in running(storage)] == [(7, False)]
    last = datetime(2026, 1, 1, 2, 3, 4, tzinfo=UTC).timestamp()
    os.utime(tmp_path / "lake" / "_runs" / "r1.json", (last, last))
    assert [(s.progress.due, s.silent) for s in running(storage)] == [(7, True)]
    ran = cli("status", tmp_path / "lake", "--watch")
    assert ran.exit_code == 0 and "r1: no sign since 2026-01-01 02:03:04 UTC" in ran.output

    old = time.time() - 25 * 3600
    os.utime(tmp_path / "lake" / "_runs" / "r1.json", (old, old))
    assert cli(*arguments).exit_code == 0
    assert [s.run_id for s in running(storage)] == []


def test_a_run_does_not_fail_for_want_of_a_spectator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Heard(Reporter):
        def say(self, message: str, **fields: Any) -> None:
            said.append(message)

    def refuse(*_: object, **__: object) -> str:
        raise TransientError("the store does not answer")

    monkeypatch.setattr(LocalStorage, "put", refuse)
    about = {"run_id": "r", "pipeline": "p", "host": "h", "started_at": LONG_AGO}
    with Heartbeat(Heard(), open_storage(str(tmp_path)), **about) as reporter:
        reporter.say("hello")
        reporter.update(Progress())
    assert said == ["hello"]


# ---- At its end -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("archive")
    whole = make_video(made / "whole.mp4", seconds=3, gop=12, container_options={"movflags": "faststart"})
    cut_off(whole, made / "cut.mp4", 0.6)
    (made / "text.mp4").write_text("not a video at all\n" * 50)
    (made / "empty.mp4").write_bytes(b"")
    return made


def test_the_summary_says_all_that_an_operator_asks(archive: Path, tmp_path: Path) -> None:
    arguments = ["index", archive, tmp_path / "lake", "--detector", "tests.support.fakes:Numbers", "--actions", "none"]
    ran = cli(*arguments, "--executor", "inline", "--log-format", "json")
    assert ran.exit_code == 0, ran.output
    lines = ran.stdout.splitlines()
    assert lines[0] == "ok: 2 declined, 1 indexed, 1 partial"
    assert lines[1].startswith("rows: ") and "detections" in lines[1]
    assert " s of video in" in lines[2] and "x real time" in lines[2] and "frames decoded" in lines[2]
    assert lines[3].startswith("time in steps: ") and "limited by " in lines[3]
    examples = [line for line in lines if line.startswith("  1 x ")]
    assert {e.split()[2].rstrip(",") for e in examples} == {"decode", "not_media", "empty"}
    assert all(f"for example {archive}" in e for e in examples)
    assert "exit code 0: 0 of 4 videos failed, within 5%" in lines
    log = [json.loads(line) for line in ran.stderr.splitlines()]
    assert {"partial", "declined"} <= {entry.get("status") for entry in log}
    assert log[-1]["summary"]["statuses"] == {"declined": 2, "indexed": 1, "partial": 1}
    again = cli(*arguments, "--executor", "inline", "--json")
    found = json.loads(again.stdout)
    assert (found["due"], found["current"], found["exit_code"], found["limited_by"]) == (0, 4, 0, None)


def summary(busy_s: dict[str, float], actors_s: dict[str, float], elapsed_s: float) -> RunSummary:
    rest: dict[str, Any] = dict.fromkeys(
        ("listed", "current", "due", "removed", "frames_decoded", "frames_sampled", "tasks_done", "tasks_resumed",
         "tasks_verified", "plain", "bytes_read", "video_s", "exit_code"), 0,
    ) | {"elapsed_s": elapsed_s} | {key: {} for key in ("statuses", "errors", "examples", "rows")}  # fmt: skip
    return RunSummary(run_id="r", outcome="ok", reason="", pipeline_id="p", busy_s=busy_s, actors_s=actors_s, **rest)


@pytest.mark.parametrize(
    ("busy_s", "actors_s", "elapsed_s", "limit"),
    [
        ({"decode": 900, "infer": 95}, {"infer": 100}, 105, "infer"),  # one GPU without a pause, nine decoders
        ({"decode": 900, "infer": 95}, {"infer": 400}, 110, "decode"),
        ({"decode": 90, "infer": 95}, {}, 190, "infer"),  # inline: one after the other
        ({"decode": 9, "publish": 95, "infer": 5}, {"infer": 50}, 100, "publish"),
        ({"decode": 9, "infer-a": 85, "infer-b": 99}, {"infer-a": 100, "infer-b": 100}, 110, "infer-b"),
        ({"decode": 3, "publish": 2.2, "infer": 1.9}, {"infer": 2}, 29, "start-up"),  # models loaded for 20 s
        ({}, {}, 1, None),
    ],
)
def test_what_limited_a_run(
    busy_s: dict[str, float], actors_s: dict[str, float], elapsed_s: float, limit: str | None
) -> None:
    assert summary(busy_s, actors_s, elapsed_s).limited_by == limit


def test_clips_are_counted_not_the_tasks_they_travel_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: Counter[str] = Counter()

    class Counting(NoMetrics):
        def count(self, name: str, value: float = 1.0, **tags: str) -> None:
            counted[name] += int(value)

    monkeypatch.setattr("vidproc.run.driver.NoMetrics", Counting)
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.mp4", seconds=4, gop=10)
    given = {"detector": "tests.support.fakes:Numbers", "actions": "none", "execution": {"executor": "inline"}}
    cut = {"cut": {"clip_seconds": 1, "clips_per_task": 2}}
    done = index(load_job(None, {"archive": str(tmp_path / "in"), "lake": str(tmp_path / "lake")} | given | cut))
    assert (done.tasks_done, counted["vidproc_clips_total"], counted["vidproc_videos_total"]) == (2, 4, 1)
    assert counted["vidproc_frames_total"] == done.frames_sampled == 16
