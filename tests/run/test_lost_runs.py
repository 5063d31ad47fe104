"""`runs` never keeps a run as running that is over: the next command that sees its silence says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Root
from tests.support.media import make_video
from tests.support.s3 import READ_ONLY_ACCESS_KEY, READ_ONLY_SECRET_KEY
from tests.support.sleepers import clock
from vidproc.ask import connect
from vidproc.progress import Progress, Reporter
from vidproc.storage.clock import store_now
from vidproc.tables import heartbeat, runs
from vidproc.tables.delta import Tables
from vidproc.tables.heartbeat import Heartbeat
from vidproc.tables.lake import Lake

ABOUT: dict[str, Any] = {
    "run_id": "night-1",
    "pipeline": "night",
    "host": "node-3",
    "started_at": datetime(2026, 3, 1, tzinfo=UTC),
}
ROW = ABOUT | {"pipeline_id": "p", "command": "vidproc index"}
LATER = timedelta(seconds=61)


def begun(root: Root) -> Lake:
    lake = Lake.create(root.uri, root.options)
    lake.record_run(ROW | {"outcome": "running"})
    return lake


@pytest.fixture
def a_minute_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the store's clock."""
    monkeypatch.setattr(heartbeat, "store_now", lambda storage: store_now(storage) + LATER)


def outcomes(lake: Lake) -> list[tuple[str, str | None]]:
    return [(r["outcome"], r["reason"]) for r in lake.runs().to_pylist()]


@pytest.mark.parametrize("off", [timedelta(hours=25), timedelta(hours=-25), timedelta(minutes=2)], ids=str)
def test_no_clock_of_a_machine_makes_a_living_run_lost(local_root: Root, off: timedelta) -> None:
    lake = begun(local_root)
    with clock(off):
        assert outcomes(lake) == [("running", None)]
        with Heartbeat(Reporter(), lake.storage, **ABOUT) as reporter:
            reporter.update(Progress())
            assert [sign.silent for sign in heartbeat.running(lake.storage)] == [False]
    assert outcomes(lake) == [("running", None)]


def test_a_silent_run_is_lost(lake_root: Root, a_minute_later: None) -> None:
    lake = begun(lake_root)
    ((outcome, reason),) = outcomes(lake)
    assert outcome == "lost" and reason is not None and reason.startswith("no sign since 20")
    assert lake.runs()["ended_at"].null_count == 0
    lake.record_run(ROW | {"outcome": "ok", "exit_code": 0})  # it was only asleep
    assert outcomes(lake) == [("ok", None)]
    assert list(lake.storage.list("_runs/")) == []


def test_a_run_whose_sign_is_gone_is_lost(local_root: Root) -> None:
    lake = begun(local_root)
    lake.storage.delete(["_runs/night-1.json"])
    assert outcomes(lake) == [("lost", "no sign of it is left: killed, or cut off from the lake")]


def test_a_run_that_could_not_write_its_end_is_lost(local_root: Root, a_minute_later: None) -> None:
    """Its key was revoked: it ended, and said so to its terminal alone."""
    lake = begun(local_root)
    with Heartbeat(Reporter(), lake.storage, **ABOUT):
        pass
    assert heartbeat.running(lake.storage) == [], "nobody watches it any more"
    assert outcomes(lake)[0][0] == "lost"


def test_a_question_sees_it_too(local_root: Root, a_minute_later: None) -> None:
    begun(local_root)
    with connect(local_root.uri) as database:
        assert database.sql("SELECT outcome FROM runs").read_all().to_pylist() == [{"outcome": "lost"}]


def test_an_end_that_comes_while_it_is_marked_stays(local_root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = begun(local_root)
    lake.storage.delete(["_runs/night-1.json"])
    marked = runs._mark_lost

    def late(tables: Tables, run_id: str, values: dict[str, Any]) -> None:
        lake.record_run(ROW | {"outcome": "ok"})
        marked(tables, run_id, values)

    monkeypatch.setattr(runs, "_mark_lost", late)
    assert outcomes(lake) == [("ok", None)]


def test_a_lake_that_may_only_be_read_shows_it_too(s3_root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(s3_root).storage.delete(["_runs/night-1.json"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READ_ONLY_ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READ_ONLY_SECRET_KEY)
    command = [sys.executable, "-m", "vidproc", "runs", s3_root.uri, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [row["outcome"] for row in json.loads(done.stdout)] == ["lost"]


def test_a_killed_run_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.mp4", seconds=4, gop=10)
    vidproc = [sys.executable, "-m", "vidproc"]
    given = [
        "--detector",
        "tests.support.fakes:Slow",
        "--actions",
        "none",
        "--executor",
        "inline",
        "--clip-seconds",
        "0.5",
    ]
    with subprocess.Popen([*vidproc, "index", tmp_path / "in", tmp_path / "lake", *given]) as run:
        while not list(tmp_path.glob("lake/_staging/*/*/*/report.json")):
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    (sign,) = tmp_path.glob("lake/_runs/*.json")
    hour_ago = time.time() - 3600
    os.utime(sign, (hour_ago, hour_ago))
    done = subprocess.run([*vidproc, "status", tmp_path / "lake"], capture_output=True, text=True, check=True)
    assert ": lost, no sign since" in done.stdout
    rows = json.loads(subprocess.check_output([*vidproc, "runs", tmp_path / "lake", "--json"]))
    assert [row["outcome"] for row in rows] == ["lost"]
