"""The command line as a user meets it: help, answers for people and programs, refusals, exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest
import typer

import vidproc as vidproc_api
from tests.conftest import Root
from tests.support.console import Run
from tests.support.media import make_video
from tests.support.s3 import READ_ONLY_ACCESS_KEY, READ_ONLY_SECRET_KEY, SeaweedFS
from vidproc.cli import app
from vidproc.progress import Reporter
from vidproc.run.driver import index
from vidproc.settings import load_job
from vidproc.storage import open_storage
from vidproc.tables.heartbeat import Heartbeat, running
from vidproc.tables.lake import Lake

FAKES = ["--detector", "tests.support.fakes:Numbers", "--actions", "none", "--executor", "inline"]


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    def walk(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield path, command
        for name, below in getattr(command, "commands", {}).items():
            yield from walk((*path, name), below)

    yield from walk((), typer.main.get_command(app))


EVERY = dict(commands())
LEAVES = {path: command for path, command in EVERY.items() if not getattr(command, "commands", None)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive `in` and the lake of it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "in").mkdir()
    make_video(folder / "in" / "a.mp4", seconds=2)
    (folder / "in" / "text.mp4").write_text("not a video\n")
    job = {"archive": str(folder / "in"), "lake": str(folder / "lake"), "detector": "tests.support.fakes:Numbers",
           "actions": "none", "execution": {"executor": "inline"}}  # fmt: skip
    assert index(load_job(None, job)).exit_code == 0
    return folder


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...], vidproc: Run) -> None:
    code, out, _ = vidproc(*path, "--help")
    assert code == 0 and "Usage: " in out
    command = EVERY[path]
    assert (command.help or "").rstrip().endswith((".", "?")), "a sentence"
    for parameter in command.params:
        if parameter.name != "help":
            assert getattr(parameter, "help", None), f"{' '.join(path)}: {parameter.name} is not explained"


SPEAKS_OTHERWISE = {
    ("submit",): "the job's own log",
    ("jobs", "logs"): "a log",
    ("jobs", "stop"): "one word",
}


def test_every_reporting_command_answers_in_json() -> None:
    without = {path for path, c in LEAVES.items() if not any(p.name == "as_json" for p in c.params)}
    assert without == set(SPEAKS_OTHERWISE)


def test_the_calls_that_the_readme_names_are_there() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    code = text[text.index("### From Python") : text.index("## What is promised")]
    calls = set(re.findall(r"(?<!import )\bvidproc\.(\w+)\(", code))
    assert calls == {"index", "open", "plan", "load_model"} and calls <= set(vidproc_api.__all__)
    used = set(re.findall(r"\blake\.(\w+)", code)) - {"cameras"}
    assert used == {"sql", "search", "videos", "detections", "status", "failures", "compact", "forget"}
    assert all(hasattr(vidproc_api.Lake, name) for name in used)
    assert all(hasattr(vidproc_api.Relation, name) for name in set(re.findall(r"\.(df|pl|arrow|fetchall)\(", code)))


def test_the_tests_that_the_readme_promises_are_there() -> None:
    here = Path(__file__).parents[1]
    text = (here.parent / "README.md").read_text()
    table = text[text.index("## What is promised") : text.index("## Where to read on")]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) == 21
    for row in rows:
        named = re.findall(r"`((?:\w+/)*test_\w+\.py)?(?:::(\w+))?`", row)
        assert named and named[0][0], row
        file = ""
        for another, test in named:
            file = another or file
            assert (here / file).is_file(), file
            assert not test or re.search(rf"^def {test}\(", (here / file).read_text(), re.M), f"{file}::{test}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "LAKE"],
        ["failures", "LAKE"],
        ["runs", "LAKE"],
        ["search", "LAKE", "--label", "person"],
        ["query", "LAKE", "SELECT uri, status FROM videos"],
        ["compact", "LAKE"],
        ["vacuum", "LAKE"],
        ["forget", "LAKE", "/no/such/video.mp4"],
        ["retry", "LAKE", "--no-run"],
        ["models", "list"],
        ["models", "check", "demo", "--kind", "detector"],
        ["models", "fetch", "demo", "--kind", "actions"],
        ["plan", "IN", "--detector", "tests.support.fakes:Numbers", "--actions", "none", "--calibrate", "0",
         "--executor", "inline"],
        ["index", "IN", "LAKE", "--detector", "tests.support.fakes:Numbers", "--actions", "none",
         "--executor", "inline"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)  # fmt: skip
def test_standard_output_is_the_answer_and_nothing_else(made: Path, vidproc: Run, arguments: list[str]) -> None:
    given = [{"LAKE": str(made / "lake"), "IN": str(made / "in")}.get(a, a) for a in arguments]
    code, out, _ = vidproc(*given, "--json")
    assert code == 0
    json.loads(out)
    code, out, _ = vidproc(*given)
    assert code == 0 and out.strip()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["query", "LAKE", "SELECT 1", "--output", "/no/such/folder/x.csv"], "/no/such/folder/x.csv cannot be written"),
        (["query", "LAKE", "SELECT 1", "--format", "xml"], "xml"),
        (["query", "LAKE", "SELECT nope FROM videos"], "nope"),
        (["query", "LAKE", "DROP TABLE videos"], "DROP is refused"),
        (["search", "LAKE", "--between", "25-3"], "22:00-06:00"),
        (["search", "LAKE", "--date", "yesterday"], "2026-11-22"),
        (["search", "LAKE", "--timezone", "Mars/Olympus", "--since", "2026-01-01"], "Mars/Olympus"),
        (["vacuum", "LAKE", "--older-than", "-5"], "older-than"),
        (["status", "IN"], "is not a lake"),
        (["index", "IN", "LAKE", "--executor", "spark"], "spark"),
        (["index", "IN", "LAKE", "--sampling", "all"], "all"),
        (["index", "IN", "LAKE", "--deleted", "maybe"], "maybe"),
        (["index", "IN", "LAKE", "--max-failures", "200%"], "max_failures is a share"),
        (["index", "IN", "LAKE", "--device", "cuda:99", "--executor", "inline"], "no device cuda:99"),
        (["index", "IN", "LAKE", "--device", "gpu"], "not 'gpu'"),
        (["index", "IN", "LAKE", "--detector", "fastercnn"], "fastercnn"),
        (["index", "IN", "LAKE", "--recorded-at", "%Q"], "%Q in '%Q' is not understood"),
        (["index", "IN", "LAKE", "--workers", "0"], "not 0"),
        (["plan", "/no/such/archive"], "/no/such/archive"),
        (["plan", "IN", "--lake", "/proc"], "is not a lake"),
        (["plan", "IN", "--calibrate", "-1"], "calibrate"),
        (["index", "IN", "/dev/null/lake", "--detector", "demo", "--executor", "inline"], "no folder can be made"),
        (["demo", "/dev/null"], "/dev/null cannot be written to"),
        (["failures", "LAKE", "--limit", "-1"], "limit"),
        (["runs", "LAKE", "--limit", "0"], "limit"),
        (["models", "check", "demo", "--kind", "tracker"], "tracker"),
        (["models", "check", "nope", "--kind", "embedding"], "'nope'"),
        (["submit", "/no/such/job.yaml", "--address", "http://127.0.0.1:1"], "/no/such/job.yaml"),
        (["jobs", "list", "--address", "http://127.0.0.1:1"], "http://127.0.0.1:1"),
        (["demo", "--executor", "spark"], "spark"),
        (["nonsense"], "nonsense"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_bad_usage_is_one_clear_refusal(made: Path, vidproc: Run, arguments: list[str], named: str) -> None:
    given = [{"LAKE": str(made / "lake"), "IN": str(made / "in")}.get(a, a) for a in arguments]
    code, out, err = vidproc(*given)
    assert code == 2, err
    assert named in err and "Traceback" not in err and out == ""


def test_hits_are_told_in_the_time_zone_that_was_asked_in(made: Path, vidproc: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(made / "in" / "a.mp4", tmp_path / "in" / "2026-01-01_22-30-00.mp4")
    job: Any = {"archive": str(tmp_path / "in"), "lake": str(tmp_path / "lake"), "actions": "none",
                "detector": "tests.support.fakes:Numbers", "execution": {"executor": "inline"},
                "recorded_at": "%Y-%m-%d_%H-%M-%S"}  # fmt: skip
    assert index(load_job(None, job)).exit_code == 0
    code, out, _ = vidproc("search", tmp_path / "lake", "--timezone", "Europe/Berlin", "--date", "2026-01-01",
                           "--between", "23:00-24:00")  # fmt: skip
    assert code == 0 and "recorded (Europe/Berlin)" in out and "2026-01-01 23:30:00" in out
    _, out, _ = vidproc("search", tmp_path / "lake", "--date", "2026-01-01", "--between", "22:00-23:00")
    assert "recorded (UTC)" in out and "2026-01-01 22:30:00" in out


def test_an_answer_that_breaks_off_leaves_no_file(made: Path, vidproc: Run, tmp_path: Path) -> None:
    """Least of all a Parquet file with a footer, which any reader takes for the whole answer."""
    sql = "SELECT CASE WHEN range < 2_900_000 THEN range ELSE error('too far') END FROM range(3_000_000)"
    out = tmp_path / "answer.parquet"
    out.write_bytes(b"of yesterday")
    code, _, err = vidproc("query", made / "lake", sql, "--format", "parquet", "--output", out)
    assert code == 2 and "too far" in err and "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == [out.name] and out.read_bytes() == b"of yesterday"
    code, _, err = vidproc("query", made / "lake", "FROM videos", "--format", "parquet", "--output", out)
    assert code == 0 and pq.read_table(out).num_rows > 0, err
    assert vidproc("query", made / "lake", "FROM videos", "--output", os.devnull)[0] == 0
    assert not Path(os.devnull).is_file()


def test_vacuum_now_waits_for_a_job_that_is_running(made: Path, vidproc: Run) -> None:
    storage = open_storage(str(made / "lake"))
    about = {"run_id": "night-7", "pipeline": "default", "host": "node-3", "started_at": datetime.now(UTC)}
    with Heartbeat(Reporter(), storage, **about):
        while not running(storage):
            time.sleep(0.01)
        code, _, err = vidproc("vacuum", made / "lake", "--now")
        assert code == 2 and "night-7 on node-3" in err
        assert vidproc("vacuum", made / "lake")[0] == 0
    assert vidproc("vacuum", made / "lake", "--now")[0] == 0


def test_a_long_row_is_not_broken_in_a_pipe(made: Path, vidproc: Run) -> None:
    _, out, _ = vidproc("failures", made / "lake")
    (line,) = [line for line in out.splitlines() if "text.mp4" in line and "probe" in line]
    assert "not_media" in line


def test_a_lake_among_the_videos_is_refused(made: Path, vidproc: Run) -> None:
    for archive, lake in (
        ("in", "in/lake"),
        ("in", "in"),
        ("lake", "other"),
        ("lake/videos", "lake"),
        (".", "in/../x"),
    ):
        code, _, err = vidproc("index", made / archive, made / lake, "--executor", "inline")
        assert code == 2 and ("is a lake itself" if (archive, lake) == ("lake", "other") else "lies in the") in err, err
    assert not (made / "in" / "lake").exists() and not (made / "other").exists()


def test_filters_by_size_and_time(made: Path, vidproc: Run) -> None:
    fakes = [*FAKES, "--calibrate", "0"]

    def listed(*given: str) -> int:
        code, out, err = vidproc("plan", made / "in", *fakes, "--json", *given)
        assert code == 0, err
        return int(json.loads(out)["listed"])

    assert (listed("--min-bytes", "100"), listed("--max-bytes", "100"), listed()) == (1, 1, 2)
    assert (listed("--modified-since", "2100-01-01"), listed("--modified-before", "2100-01-01")) == (0, 2)


def test_a_plan_says_what_it_does_and_what_it_found(made: Path, tmp_path: Path, vidproc: Run) -> None:
    given = [*FAKES, "--log-format", "text"]
    code, out, err = vidproc("plan", made / "in", *given, "--calibrate", "1", "--save", tmp_path / "plan")
    assert code == 0 and "2 objects probed; now a trial of 1 s" in err
    places = [out.index(x) for x in ("models: ", "1 videos, 2.0 s, ", "for example: ", "predicted time: ", "saved to ")]
    assert places == sorted(places), out
    code, out, _ = vidproc("plan", made / "in", *given, "--lake", made / "lake", "--calibrate", "0")
    assert code == 0 and "already in the lake as they are, or as declined: 2" in out


def test_a_place_where_no_plan_can_be_saved_is_found_before_the_work(made: Path, vidproc: Run) -> None:
    given = [*FAKES, "--log-format", "text"]
    code, out, err = vidproc("plan", made / "in", *given, "--save", "/proc/plan")
    assert code == 2 and "/proc/plan" in err and "probed" not in err and not out


def test_upkeep_is_told_in_sentences(made: Path, tmp_path: Path, vidproc: Run) -> None:
    lake = shutil.copytree(made / "lake", tmp_path / "lake")
    gone, never = made / "in" / "a.mp4", made / "in" / "never.mp4"
    code, out, _ = vidproc("forget", lake, gone, never)
    assert code == 0 and re.fullmatch(
        rf"1 video\(s\) forgotten, rows removed: detections \d+, .*videos 1\nnot in this lake: {never}\n", out
    ), out
    assert vidproc("forget", lake, gone)[:2] == (
        0,
        f"not in this lake: {gone}\nnothing to forget: the lake is as it was\n",
    )
    code, out, _ = vidproc("compact", lake)
    assert code == 0 and re.search(r"^ *videos +\d+ +1 *$", out, re.M), out
    code, out, _ = vidproc("vacuum", lake, "--now")
    assert code == 0 and re.match(r"\d+ file\(s\) that no table refers to removed \(.*videos \d+", out), out
    assert vidproc("vacuum", lake)[1] == ("0 file(s) that no table refers to removed, and 0 that killed writers left\n")


def test_a_class_that_is_not_there_names_those_that_are(made: Path, vidproc: Run) -> None:
    assert vidproc("failures", made / "lake", "--class", "typo")[1] == "no failures of class typo; there is not_media\n"
    assert vidproc("retry", made / "lake", "--class", "typo")[1] == "0 video(s) released (typo); there is not_media\n"


def test_a_misspelt_prefix_is_no_empty_archive(s3_root: Root, tmp_path: Path, vidproc: Run) -> None:
    s3_root.storage.put("cameras/a.txt", b"x")
    code, _, err = vidproc("index", f"{s3_root.uri}/camera", tmp_path / "lake", "--executor", "inline")
    assert code == 2 and "there is nothing at" in err
    assert not (tmp_path / "lake").exists()


def test_a_lake_that_may_only_be_read_is_refused_in_plain_words(
    s3_root: Root, s3_server: SeaweedFS, made: Path, tmp_path: Path
) -> None:
    Lake.create(f"{s3_root.uri}/lake", s3_root.options)
    given = ["--detector", "tests.support.fakes:Numbers", "--actions", "none", "--executor", "inline"]
    reader = {"AWS_ACCESS_KEY_ID": READ_ONLY_ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": READ_ONLY_SECRET_KEY}
    done = subprocess.run(
        [sys.executable, "-m", "vidproc", "index", str(made / "in"), f"{s3_root.uri}/lake", *given],
        env=os.environ | reader | {"PYTHONPATH": os.getcwd()}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1 and "access refused" in done.stderr


def test_retry_says_what_it_released_and_runs_it(made: Path, vidproc: Run) -> None:
    code, out, _ = vidproc("retry", made / "lake", "--class", "not_media", "--json")
    found = json.loads(out)
    assert code == 0 and (found["due"], found["statuses"]) == (1, {"declined": 1})


def test_retry_of_a_lake_that_somebody_handed_over_runs_nothing_unasked(
    made: Path, vidproc: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job in the lake was run by another user, or on another machine: they chose what it reads and loads."""
    lake = tmp_path / "lake"
    shutil.copytree(made / "lake", lake)
    runs = Lake.open(str(lake)).runs().num_rows
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of somebody else"))
    code, out, err = vidproc("retry", lake, "--class", "not_media")
    assert code == 2 and "1 video(s) released" in out and Lake.open(str(lake)).runs().num_rows == runs
    assert f"reads {made / 'in'}, loads tests.support.fakes:Numbers" in err and "--job FILE" in err
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"archive: {made / 'in'}\ndetector: demo\nactions: none\nexecution: {{executor: inline}}\n")
    code, out, _ = vidproc("retry", lake, "--class", "not_media", "--job", mine, "--json")
    assert code == 0 and json.loads(out)["statuses"] == {"declined": 1, "indexed": 1}, "another detector: both are due"
    code, out, _ = vidproc("retry", made / "lake", "--class", "not_media", "--trust-job", "--json")
    assert code == 0 and json.loads(out)["statuses"] == {"declined": 1}
    assert vidproc("retry", made / "lake", "--class", "not_media")[0] == 0, "it is the user's own from then on"
