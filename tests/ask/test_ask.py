"""Questions as a user asks them: several pipelines in one lake, either of two labels, pipes, odd dates."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.ask.test_query import NOON, detection, segment, video, write
from tests.conftest import Root
from tests.support.console import Run
from vidproc.ask import ALL, SearchQuery, connect, search
from vidproc.errors import ConfigError
from vidproc.storage import StorageOptions
from vidproc.tables.lake import Lake

HERE = StorageOptions(endpoint_url=None)


def make(root: Root, pipelines: dict[str, int], recorded: datetime | None = NOON) -> None:
    """A lake with so many videos of each pipeline, the same ones; ten detections and two segments of each."""
    Lake.create(root.uri, root.options)
    number = 0
    for name, count in pipelines.items():
        for i in range(count):
            v = video(f"s3://cams/{i}.mp4", recorded, name) | {"n_detections": 10, "n_segments": 2}
            number += 1
            write(root, "detections", [detection(v, k, "car") for k in range(10)], number)
            found = [segment(v, "presence", "car", 0.0, 9.0), segment(v, "action", "run", 2.0, 4.0)]
            write(root, "segments", found, number)
            write(root, "videos", [v], number)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A lake of two pipelines, of which `night` has more videos and `extra` was written last."""
    root = Root(str(tmp_path_factory.mktemp("two") / "lake"), HERE)
    make(root, {"night": 3, "extra": 2})
    return root


COUNTS = [
    ("SELECT label, count(*) AS n FROM detections GROUP BY label ORDER BY 2 DESC", {"label": "car", "n": 30}),
    ("SELECT count(*) AS n FROM detections", {"n": 30}),
    ("SELECT count(*) AS n FROM videos", {"n": 3}),
    ("SELECT count(*) AS n FROM segments JOIN videos USING (video_id)", {"n": 6}),
    ("SELECT count(*) AS n FROM detections d JOIN videos v USING (video_id, pipeline)", {"n": 30}),
    ("SELECT count(*) AS n FROM segments s JOIN videos v ON s.video_id = v.video_id AND s.pipeline = v.pipeline",
     {"n": 6}),
    ("WITH d AS (SELECT video_id, pipeline, label FROM detections) SELECT label, count(*) AS n FROM d GROUP BY ALL",
     {"label": "car", "n": 30}),
    ("SELECT count(*) AS n FROM (SELECT pipeline, video_id FROM detections GROUP BY ALL)", {"n": 3}),
    ("SELECT sum(n)::INTEGER AS n FROM (SELECT count(*) AS n FROM detections GROUP BY video_id)", {"n": 30}),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "answer"), COUNTS)
def test_two_pipelines_never_double_an_answer(two: Root, sql: str, answer: dict[str, Any]) -> None:
    with connect(two.uri, two.options) as db:
        assert db.pipelines == ("night", "extra") and db.pipeline == "night"
        found = db.sql(sql).read_all()
        assert found.to_pylist() == [answer] and found.schema.metadata == {b"vidproc.pipeline": b"night"}
    scale = {30: 20, 3: 2, 6: 4}
    with connect(two.uri, two.options, pipeline="extra") as db:
        [row] = db.sql(sql).read_all().to_pylist()
        assert row["n"] == scale[answer["n"]]


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("SELECT pipeline, count(*) AS n FROM detections GROUP BY 1 ORDER BY 1",
         [{"pipeline": "extra", "n": 20}, {"pipeline": "night", "n": 30}]),
        ("SELECT v.pipeline AS p FROM videos v GROUP BY ALL ORDER BY 1", [{"p": "extra"}, {"p": "night"}]),
        ("SELECT count(*) AS n FROM detections WHERE pipeline = 'extra'", [{"n": 20}]),
        ("SELECT count(*) AS n FROM detections WHERE pipeline IN ('extra', 'night')", [{"n": 50}]),
        ("SELECT count(*) AS n FROM detections WHERE detections.pipeline LIKE 'ex%'", [{"n": 20}]),
        ("WITH d AS (SELECT label FROM detections WHERE pipeline = $p) SELECT count(*) AS n FROM d", [{"n": 20}]),
        ("SELECT count(DISTINCT pipeline) AS n FROM videos", [{"n": 2}]),
        ("SELECT count(*) FILTER (WHERE pipeline = 'extra') AS n FROM videos AS v", [{"n": 2}]),
    ],
)  # fmt: skip
def test_who_asks_about_pipelines_sees_all(two: Root, sql: str, answer: list[dict[str, Any]]) -> None:
    params = {"p": "extra"} if "$p" in sql else None
    with connect(two.uri, two.options) as db:
        found = db.sql(sql, params).read_all()
        assert found.to_pylist() == answer and not found.schema.metadata
    with connect(two.uri, two.options, pipeline="night") as db:
        assert db.sql(sql, params).read_all().to_pylist() != answer, "whoever chooses one sees that one"


def test_search_and_status_are_of_one_pipeline(two: Root) -> None:
    with connect(two.uri, two.options) as db:
        assert [h.pipeline for h in search(db, SearchQuery(label="car"))] == ["night"] * 3
    with connect(two.uri, two.options, pipeline="extra") as db:
        assert [h.pipeline for h in search(db, SearchQuery())] == ["extra"] * 4
    with connect(two.uri, two.options, pipeline=ALL) as db:
        assert db.pipeline is None and len(search(db, SearchQuery(label="car"))) == 5
        assert db.sql("SELECT count(*) AS n FROM detections").read_all().to_pylist() == [{"n": 50}]
    lake = Lake.open(two.uri, two.options)
    for chosen, videos in ((None, 3), ("night", 3), ("extra", 2)):
        status = lake.status(chosen)
        assert status.pipeline == (chosen or "night") and status.videos == videos
        assert status.by_pipeline == {"night": 3, "extra": 2} and status.by_status == {"indexed": videos}
        assert {n: status.tables[n].rows for n in ("videos", "detections", "segments", "tracks")} == {
            "videos": videos, "detections": 10 * videos, "segments": 2 * videos, "tracks": 0,
        }  # fmt: skip
    everything = lake.status("all")
    assert everything.pipeline is None and everything.tables["detections"].rows == 50 and everything.videos == 3


def test_a_pipeline_that_is_not_there_is_named(two: Root, tmp_path: Path) -> None:
    for ask in (
        lambda: connect(two.uri, two.options, pipeline="day"),
        lambda: Lake.open(two.uri, two.options).status("day"),
    ):
        with pytest.raises(ConfigError, match="no pipeline 'day' in this lake; it has night, extra"):
            ask()
    Lake.create(str(tmp_path / "new"), HERE)
    with pytest.raises(ConfigError, match="no video is indexed there yet"):
        connect(str(tmp_path / "new"), HERE, pipeline="day")
    assert Lake.open(str(tmp_path / "new"), HERE).status().pipeline is None


def test_the_command_line_names_the_pipeline(two: Root, vidproc: Run) -> None:
    note = "of the pipeline night; the lake also has extra (--pipeline NAME, or all)\n"
    code, out, err = vidproc("query", two.uri, "SELECT count(*) AS n FROM detections", "--format", "csv")
    assert (code, out, err) == (0, "n\n30\n", note)
    code, out, err = vidproc("query", two.uri, COUNTS[0][0], "--format", "csv", "--pipeline", "extra")
    assert (code, out, err) == (0, "label,n\ncar,20\n", "")
    code, out, err = vidproc("query", two.uri, "SELECT DISTINCT pipeline FROM videos ORDER BY 1", "-f", "csv")
    assert (code, out, err) == (0, "pipeline\nextra\nnight\n", "")
    code, out, err = vidproc("query", two.uri, COUNTS[1][0], "-f", "csv", "--pipeline", "all")
    assert (code, out, err) == (0, "n\n50\n", "")
    code, out, err = vidproc("search", two.uri, "--label", "car", "--json")
    assert (code, err) == (0, note) and {h["pipeline"] for h in json.loads(out)} == {"night"}
    code, out, err = vidproc("search", two.uri, "--pipeline", "extra", "--json")
    assert (code, err) == (0, "") and {h["pipeline"] for h in json.loads(out)} == {"extra"}
    code, out, _ = vidproc("status", two.uri, "--json")
    assert code == 0 and json.loads(out)["pipeline"] == "night" and json.loads(out)["videos"] == 3
    code, out, _ = vidproc("status", two.uri)
    assert "this is of the pipeline night" in out and "detections   30" in re.sub(r" {3,}", "   ", out)
    code, _, err = vidproc("query", two.uri, "FROM videos", "--pipeline", "day")
    assert code == 2 and "it has night, extra" in err


def test_one_pipeline_says_nothing_of_pipelines(local_root: Root, vidproc: Run) -> None:
    make(local_root, {"night": 1})
    assert vidproc("query", local_root.uri, "SELECT count(*) AS n FROM detections", "-f", "csv") == (0, "n\n10\n", "")
    code, out, err = vidproc("search", local_root.uri, "--label", "car")
    assert code == 0 and "s3://cams/0.mp4" in out and err == ""


# --- either of two --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Root:
    root = Root(str(tmp_path_factory.mktemp("several") / "lake"), HERE)
    Lake.create(root.uri, root.options)
    for number, name in enumerate(("a", "b", "c")):
        v = video(f"s3://cams/{name}.mp4", NOON + timedelta(days=number, hours=number))
        found = [segment(v, "presence", label, 1.0, 9.0) for label in ("car", "person", "dog")]
        found += [segment(v, "action", label, 5.0, 8.0) for label in ("run", "wave", "fall")]
        write(root, "segments", found, number + 1)
        write(root, "videos", [v], number + 1)
    return root


@pytest.mark.parametrize(
    ("options", "query", "found"),
    [
        (["--label", "car", "--label", "dog"], {"label": ["car", "dog"]}, 6),
        (["--label", "car", "--label", "nothing"], {"label": ("car", "nothing")}, 3),
        (["--action", "run", "--action", "fall"], {"action": ["run", "fall"]}, 6),
        (["--label", "car", "--label", "dog", "--action", "run"], {"label": ["car", "dog"], "action": "run"}, 6),
        (["--label", "car", "--label", "dog", "--action", "run", "--action", "wave"],
         {"label": ["car", "dog"], "action": ["run", "wave"]}, 12),
        (["--label", "car", "--video", "a.mp4", "--video", "c.mp4"], {"label": "car", "video": ["a.mp4", "c.mp4"]}, 2),
        (["--label", "car", "--date", "2026-03-01", "--date", "2026-03-03"],
         {"label": "car", "date": [date(2026, 3, 1), date(2026, 3, 3)]}, 2),
        (["--label", "car", "--between", "11:00-12:30", "--between", "13:59-15:00"],
         {"label": "car", "time_of_day": [(time(11), time(12, 30)), (time(13, 59), time(15))]}, 2),
        (["--label", "car"], {"label": "car"}, 3),
        ([], {}, 18),
    ],
)  # fmt: skip
def test_an_option_given_twice_finds_either(
    several: Root,
    options: list[str],
    query: dict[str, Any],
    found: int,
    vidproc: Run,
) -> None:
    code, out, _ = vidproc("search", several.uri, *options, "--limit", 50, "--json")
    hits = json.loads(out)
    assert code == 0 and len(hits) == found
    for word, key in (("--label", "label"), ("--action", "action")):
        asked = {options[i + 1] for i, option in enumerate(options) if option == word}
        assert not asked or {h[key] for h in hits} <= asked
    with connect(several.uri, several.options) as db:
        assert len(search(db, SearchQuery(**query))) == found
        if found > 1:
            first = search(db, SearchQuery(**query, limit=1))
            assert len(search(db, SearchQuery(**query, after=first[0].token))) == found - 1


def test_a_page_of_no_hits_is_empty(several: Root, vidproc: Run) -> None:
    code, out, err = vidproc("search", several.uri, "--limit", 0, "--json")
    assert (code, json.loads(out), err) == (0, [], "")
    code, out, err = vidproc("search", several.uri, "--label", "car", "--limit", 0)
    assert code == 0 and "nothing was found" not in out and "--after" not in out and err == ""
    code, _, err = vidproc("search", several.uri, "--limit", -1)
    assert code == 2 and "SearchQuery" not in err
    with pytest.raises(ConfigError, match=r"^limit must be positive, offset and min_seconds not negative: 5, -1, 0$"):
        SearchQuery(limit=5, offset=-1)


# --- odd dates ------------------------------------------------------------------------------------------

ODD = [
    datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), datetime(1, 1, 1, tzinfo=UTC), datetime(1899, 12, 31, tzinfo=UTC),
    datetime(2999, 1, 1, tzinfo=UTC),
]  # fmt: skip


def test_a_date_that_no_camera_has_breaks_no_answer(local_root: Root, vidproc: Run) -> None:
    Lake.create(local_root.uri, local_root.options)
    dates = {"good": NOON, "none": None} | {f"odd{i}": odd for i, odd in enumerate(ODD)}
    for number, (name, recorded) in enumerate(dates.items(), 1):
        v = video(f"s3://cams/{name}.mp4", recorded)
        write(local_root, "segments", [segment(v, "presence", "car", 1.0, 9.0)], number)
        write(local_root, "videos", [v], number)
    for options in (["--timezone", "Pacific/Kiritimati"], ["--timezone", "Etc/GMT+12"]):
        code, out, err = vidproc("search", local_root.uri, *options, "--json")
        hits = json.loads(out)
        assert (code, err) == (0, "")
        assert [Path(h["uri"]).stem for h in hits] == sorted(dates)
        assert [h["recorded_at"] is None for h in hits] == [name != "good" for name in sorted(dates)]
        assert vidproc("search", local_root.uri, *options)[0] == 0
    for options in (
        ["--since", "2026-01-01"],
        ["--until", "2027-01-01"],
        ["--date", "2026-03-01"],
        ["--between", "00:00-24:00"],
    ):
        code, out, _ = vidproc("search", local_root.uri, *options, "--json")
        assert code == 0 and [Path(h["uri"]).stem for h in json.loads(out)] == ["good"]
    for form in ("table", "csv", "json"):
        code, out, _ = vidproc(
            "query", local_root.uri, "SELECT uri, recorded_at, recorded_date FROM videos", "-f", form
        )
        assert code == 0 and all(f"{odd:%m-%d}" in out for odd in ODD)
    code, out, _ = vidproc("status", local_root.uri, "--json")
    assert code == 0 and json.loads(out)["videos"] == len(dates)
    assert vidproc("status", local_root.uri)[0] == 0


# --- pipes ----------------------------------------------------------------------------------------------


def piped(arguments: Sequence[str], lines: int = 1) -> tuple[int, bytes, bytes]:
    """Reads so many lines of what the command says and closes the pipe -> status, those lines, standard error."""
    run = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ)
    assert run.stdout is not None and run.stderr is not None
    read = b"".join(run.stdout.readline() for _ in range(lines))
    run.stdout.close()
    said = run.stderr.read()
    run.stderr.close()
    return run.wait(), read, said


@pytest.mark.parametrize(
    "arguments",
    [
        ["query", "{lake}", "SELECT range AS n FROM range(3_000_000)", "--format", "csv"],
        ["query", "{lake}", "SELECT range AS n FROM range(3_000_000)", "--json"],
        ["query", "{lake}", "SELECT repeat('x', 3000) AS n FROM range(900)"],
        ["query", "{lake}", "SELECT hash(range) AS n FROM range(3_000_000)", "--format", "parquet"],
    ],
    ids=["csv", "json", "table", "parquet"],
)
def test_a_query_ends_with_its_reader(
    several: Root, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `cat` and `grep` do: by SIGPIPE, without a word, and with nothing left behind."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    status, read, said = piped(["-m", "vidproc", *(a.format(lake=several.uri) for a in arguments)])
    assert read and said.decode() == ""
    assert status == -signal.SIGPIPE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["status"], ["search", "--json"], ["failures"], ["runs", "--json"]])
def test_each_command_that_reports_ends_with_its_reader(two: Root, arguments: list[str]) -> None:
    """Its output fits into the pipe's buffer, so it may end before it meets the closed end: both are right."""
    status, _, said = piped(["-m", "vidproc", arguments[0], two.uri, *arguments[1:]], lines=0)
    assert b"Traceback" not in said and b"rror" not in said
    assert status in (0, -signal.SIGPIPE)


def test_the_schema_of_jobs_ends_with_its_reader() -> None:
    code = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); os.execv(sys.executable, sys.argv[1:])"
    for arguments, status in (
        (["-m", "vidproc.settings"], -signal.SIGPIPE),
        (["-m", "vidproc.settings"], -signal.SIGPIPE),
        (["-m", "vidproc", "--version"], -signal.SIGPIPE),
    ):
        command = [sys.executable, "-c", code, sys.executable, *arguments]
        done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
        assert (done.returncode, done.stderr) == (status, b"")


def test_lines_for_a_shell_end_in_a_line_feed_alone(two: Root) -> None:
    command = (
        f'n=$({sys.executable} -m vidproc query "$0" "SELECT count(*) AS n FROM videos" -f csv 2>/dev/null | tail -1)'
    )
    done = subprocess.run(
        ["sh", "-c", command + '; test "$n" = 3 && echo "[$n]"', two.uri], capture_output=True, check=True
    )
    assert done.stdout == b"[3]\n"
