"""A run works on when nobody is left who reads what it prints, and its exit code is its own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.media import make_video
from vidproc.tables.lake import Lake


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        make_video(tmp_path / f"in/{name}.mp4", seconds=2)
    return tmp_path / "in"


def command(archive: Path, *more: str, detector: str = "Numbers") -> list[str]:
    return [
        sys.executable, "-m", "vidproc", "index", str(archive), str(archive.parent / "lake"),
        "--detector", f"tests.support.fakes:{detector}", "--actions", "none", *(more or ("--executor", "inline")),
    ]  # fmt: skip


def how_it_ended(archive: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """The status of each video, and outcome and exit code of each run."""
    lake = Lake.open(str(archive.parent / "lake"))
    runs = [(row["outcome"], row["exit_code"]) for row in lake.runs().to_pylist()]
    return lake.videos().column("status").to_pylist(), runs


@pytest.mark.parametrize("printing", [("--log-format", "json"), ("--json",), ("--log-format", "text")], ids=" ".join)
def test_a_reader_that_has_left_ends_nothing(archive: Path, printing: tuple[str, ...]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)  # as `| head -0` does
    try:
        done = subprocess.run(command(archive, "--executor", "inline", *printing), stdout=theirs, stderr=theirs)
    finally:
        os.close(theirs)
    assert done.returncode == 0
    assert how_it_ended(archive) == (["indexed"] * 2, [("ok", 0)])


@pytest.mark.parametrize("full", ["stdout", "stderr", "both"])
def test_a_full_disk_under_the_log_ends_nothing(archive: Path, full: str) -> None:
    with open("/dev/full", "w") as device:
        streams = {name: device if full in (name, "both") else subprocess.PIPE for name in ("stdout", "stderr")}
        done = subprocess.run(command(archive, "--executor", "inline", "--log-format", "json"), text=True, **streams)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    assert full == "stdout" or full == "both" or "ok: 2 indexed" in done.stdout
    assert how_it_ended(archive) == (["indexed"] * 2, [("ok", 0)])


def test_a_run_that_fails_says_so_to_nobody_by_its_exit_code(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDPROC_TEST_FAULT", "raise")
    fails = command(archive, "--executor", "inline", "--max-failures", "0", "--fps", "25", detector="Fragile")
    cannot_run = command(tmp_path / "none", "--executor", "inline")
    with open("/dev/full", "w") as device:
        assert subprocess.run(fails, stdout=device, stderr=device).returncode == 1
        assert subprocess.run(cannot_run, stdout=device, stderr=device).returncode == 2
    statuses, runs = how_it_ended(archive)
    assert set(statuses) <= {"failed", "partial"} and runs == [("failed", 1)]


@pytest.mark.parametrize(
    "executor",
    [("--executor", "inline"), pytest.param(("--workers", "1", "--actors", "1"), marks=pytest.mark.slow)],
    ids=" ".join,
)
def test_a_closed_terminal_ends_nothing(archive: Path, executor: tuple[str, ...]) -> None:
    words = command(archive, *executor, detector="Slow")
    child, terminal = pty.fork()
    if child == 0:
        os.execv(words[0], words)
    runs = archive.parent / "lake" / "_runs"
    until = time.monotonic() + 60
    while not (runs.is_dir() and os.listdir(runs)):  # it has begun
        assert time.monotonic() < until
        time.sleep(0.05)
    os.close(terminal)  # the system sends SIGHUP, and refuses whatever is printed from now on
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert how_it_ended(archive) == (["indexed"] * 2, [("ok", 0)])
