"""`import vidproc`: the names and signatures that are promised, and that each does what its command does."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidproc
from tests.support.media import make_video
from vidproc.api.jobs import IndexOptions, PlanOptions, make_job
from vidproc.demo.scene import Scene
from vidproc.demo.settings import DEMO_SEED
from vidproc.settings import Job, load_job

SIGNATURES = {
    "index": "archive lake *job *progress",
    "plan": "archive lake *job *calibrate *save *progress",
    "open": "lake *pipeline *threads *memory_limit *endpoint_url *profile *region *anonymous",
    "load_model": "model *kind *device *batch_size *score_threshold *max_detections *nms_iou *half *threads *weights "
    "*sha256 *options",
    "Lake.sql": "query params *limit *offset",
    "Lake.search": "*label *action *with_label *then *within *min_seconds *min_score *since *until *date *between "
    "*timezone *video *limit *offset *after",
    "Lake.frames": "rows *archive *workers *max_width",
    "Lake.report": "out *archive *timezone",
    "Lake.status": "*pipeline",
    "Lake.failures": "*error_class *stage *run_id *uri *pipeline *limit",
    "Lake.runs": "*pipeline *limit",
    "Lake.compact": "",
    "Lake.forget": "uris",
    "Lake.vacuum": "*older_than *now",
    "Lake.refresh": "",
    "Lake.close": "",
    "Relation.df": "",
    "Relation.pl": "",
    "Relation.arrow": "",
    "Relation.fetchall": "",
    "Relation.fetchone": "",
    "Relation.reader": "",
    "Model.detect": "frames",
    "Model.classify": "windows",
    "Model.embed": "windows",
}
"""Each call of the API; `*` marks parameters that are given by name."""

OPTIONS = [
    "name", "detector", "actions", "embedding", "fps", "sampling", "clip_seconds", "recorded_at", "max_duration",
    "max_frame_duration", "include", "exclude", "min_bytes", "max_bytes", "modified_since", "modified_before",
    "follow_links", "limit", "workers", "device", "executor", "endpoint_url", "profile", "region", "anonymous",
    "filters", "cut", "decode", "link", "limits", "execution", "storage",
]  # fmt: skip
INDEX_OPTIONS = ["actors", "address", "max_failures", "verify", "plan", "follow", "deleted", "report", "notify",
                 "hollow_pictures", "partial_index"]  # fmt: skip

TABLES = ("videos", "detections", "tracks", "actions", "segments", "shots", "embeddings")


def parameters(call: str) -> list[str]:
    function: Any = vidproc
    for name in call.split("."):
        function = getattr(function, name)
    found = inspect.signature(function).parameters.values()
    return ["*" * (p.kind is p.KEYWORD_ONLY) + p.name for p in found if p.name != "self"]


def test_the_names_are_those_that_are_promised() -> None:
    assert vidproc.__all__ == [
        "ConfigError", "Hits", "Lake", "Model", "Relation", "RunAborted", "TransientError", "VidprocError",
        "__version__", "index", "load_model", "open", "plan",
    ]  # fmt: skip
    assert all(hasattr(vidproc, name) for name in vidproc.__all__)


@pytest.mark.parametrize("call", SIGNATURES)
def test_the_signatures_are_those_that_are_promised(call: str) -> None:
    options = {"plan": OPTIONS, "index": OPTIONS + INDEX_OPTIONS}.get(call, [])
    assert parameters(call) == SIGNATURES[call].split() + [f"*{name}" for name in options]


def test_every_public_name_is_documented_and_typed() -> None:
    for name in vidproc.__all__:
        found = getattr(vidproc, name)
        if inspect.isclass(found) and not issubclass(found, Exception):
            members = [m for n, m in vars(found).items() if not n.startswith("_")]
            documented = [inspect.getdoc(m.fget if isinstance(m, property) else m) for m in members]
            assert all(documented) or name == "Model", [n for n in vars(found) if not n.startswith("_")]
        if callable(found) and not (inspect.isclass(found) and issubclass(found, Exception)):
            assert inspect.getdoc(found), name
            for parameter in inspect.signature(found).parameters.values():
                assert parameter.annotation is not parameter.empty, f"{name}: {parameter}"


def test_every_keyword_stands_in_the_documentation_of_its_call() -> None:
    for call, options in (("index", OPTIONS + INDEX_OPTIONS), ("open", []), ("load_model", []), ("Lake.search", [])):
        function = vidproc.Lake.search if call == "Lake.search" else getattr(vidproc, call)
        words = re.findall(r"\w+", inspect.getdoc(function) or "")
        assert {*options, *(name.lstrip("*") for name in SIGNATURES[call].split())} <= {*words}, call


def test_every_keyword_reaches_the_job() -> None:
    """No keyword is lost on its way, and each lands where a job file has it."""
    given: dict[str, Any] = {
        "name": "n", "detector": "demo", "actions": "none", "embedding": "demo", "fps": 3.0, "sampling": "keyframes",
        "clip_seconds": 7.0, "recorded_at": "%Y%m%d", "max_duration": 5.0, "max_frame_duration": 6.0, "include": ["a*"],
        "exclude": ["b*"], "min_bytes": 1, "max_bytes": 2, "modified_since": "2026-01-01",
        "modified_before": "2026-02-01", "follow_links": True, "limit": 4, "workers": 2, "device": "cpu",
        "executor": "inline", "endpoint_url": "http://e", "profile": "p", "region": "r", "anonymous": True,
        "link": {"track": False}, "filters": {"min_bytes": 9}, "cut": {"clips_per_task": 5}, "storage": {},
        "limits": {"attempts": 9}, "execution": {"publish_videos": 3}, "actors": 3, "address": "h:1",
        "max_failures": 12, "verify": 0.5, "deleted": "remove", "follow": 60.0,
        "report": "/r.html", "notify": "https://chat.example/hook",
        "hollow_pictures": False, "decode": {"partial_index": True}, "partial_index": False,
    }  # fmt: skip
    assert {*given, "plan"} == {*PlanOptions.__annotations__, *IndexOptions.__annotations__}
    job = make_job("/a", "/l", None, given)
    by_file = load_job(None, {
        "archive": "/a", "lake": "/l", "name": "n", "detector": {"model": "demo", "fps": 3.0}, "actions": "none",
        "embedding": "demo", "sampling": "keyframes", "recorded_at": "%Y%m%d", "follow_links": True, "limit": 4,
        "cut": {"clip_seconds": 7.0, "clips_per_task": 5}, "verify": 0.5, "deleted": "remove", "follow": 60.0,
        "report": "/r.html", "notify": "https://chat.example/hook",
        "limits": {"max_duration": 5.0, "max_frame_duration": 6.0, "attempts": 9, "max_failures": "12"},
        "filters": {"include": ["a*"], "exclude": ["b*"], "min_bytes": 1, "max_bytes": 2,
                    "modified_since": "2026-01-01", "modified_before": "2026-02-01"},
        "execution": {"workers": 2, "device": "cpu", "executor": "inline", "actors": 3, "address": "h:1",
                      "publish_videos": 3},
        "storage": {"endpoint_url": "http://e", "profile": "p", "region": "r", "anonymous": True},
        "link": {"track": False}, "decode": {"hollow_pictures": False, "partial_index": False},
    })  # fmt: skip
    assert job == by_file
    assert make_job("/a", "/l", None, {"plan": "/p", "detector": "demo"}).plan == "/p"


def test_keywords_win_over_a_job_in_every_form(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("archive: /a\nlake: /l\ndetector: demo\nexecution: {workers: 3}\n")
    forms: list[Any] = [file, str(file), {"archive": "/a", "lake": "/l", "detector": "demo",
                                          "execution": {"workers": 3}}, load_job(file)]  # fmt: skip
    for form in forms:
        job = make_job(None, "/other", form, {"fps": 2, "device": "cpu"})
        assert (job.archive, job.lake, job.detector.model, job.detector.fps) == ("/a", "/other", "demo", 2)
        assert (job.execution.workers, job.execution.device) == (3, "cpu")
    assert isinstance(forms[-1], Job)


def test_a_keyword_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"index\(\) got an unexpected keyword argument 'detectr'.*'detector'"):
        vidproc.index("/a", "/l", detectr="demo")  # type: ignore[call-arg]
    with pytest.raises(vidproc.ConfigError, match="samplng"):
        vidproc.index("/a", "/l", job={"samplng": "grid"})


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[vidproc.Lake]:
    folder = tmp_path_factory.mktemp("face")
    (folder / "in").mkdir()
    make_video(folder / "in" / "2026-01-01_22-30-00.mp4", seconds=2)
    (folder / "in" / "text.mp4").write_text("not a video\n")
    summary = vidproc.index(folder / "in", folder / "lake", detector="tests.support.fakes:Numbers", actions="none",
                            fps=2, executor="inline", recorded_at="%Y-%m-%d_%H-%M-%S")  # fmt: skip
    assert (summary.exit_code, dict(summary.statuses)) == (0, {"indexed": 1, "declined": 1})
    with vidproc.open(folder / "lake") as opened:
        yield opened


def test_an_answer_comes_in_the_form_that_is_asked_for(lake: vidproc.Lake) -> None:
    rows = lake.sql("SELECT label, count(*) AS n, sum(class_id) AS s FROM detections GROUP BY 1 ORDER BY 1")
    table = rows.arrow()
    assert rows.columns == ["label", "n", "s"] == table.column_names and table.num_rows > 0
    assert rows.fetchall() == [tuple(r.values()) for r in table.to_pylist()] and rows.fetchone() == rows.fetchall()[0]
    frame = rows.df()
    assert frame["n"].dtype == frame["s"].dtype == "int64", "whole numbers stay numbers"
    assert frame["n"].tolist() == [row[1] for row in rows.fetchall()]
    assert sum(batch.num_rows for batch in rows.reader()) == table.num_rows
    polars = pytest.importorskip("polars")
    assert isinstance(rows.pl(), polars.DataFrame) and rows.pl()["n"].to_list() == frame["n"].tolist()


def test_what_is_not_installed_is_named_with_what_to_install(
    lake: vidproc.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidproc.api.relations.find_spec", lambda _: None)
    for call, package in (("pl", "polars"), ("df", "pandas")):
        with pytest.raises(vidproc.ConfigError, match=rf"\.{call}\(\) needs {package}.*pip install {package}"):
            getattr(lake.videos, call)()


def test_tables_are_relations_that_read_nothing_until_asked(lake: vidproc.Lake) -> None:
    with vidproc.open(lake.uri) as fresh:
        relations = {name: getattr(fresh, name) for name in TABLES}
        asked = fresh.sql("SELEC nonsense"), fresh.search(label="x")
        assert fresh._opened is None and len(asked) == 2, "nothing was asked yet"
        assert {name: r.columns[0] for name, r in relations.items()} == dict.fromkeys(TABLES, "video_id")
        with pytest.raises(vidproc.ConfigError, match="SQL"):
            asked[0].df()
    assert sorted(status for (status,) in lake.sql("SELECT status FROM videos")) == ["declined", "indexed"]
    assert "2 rows" in repr(lake.videos) and "status" in repr(lake.videos)


def test_parameters_and_pages(lake: vidproc.Lake) -> None:
    assert lake.sql("SELECT ? + 1", [2]).fetchall() == [(3,)]
    assert lake.sql("SELECT $x", {"x": "a"}).fetchall() == [("a",)]
    ordered = "SELECT time_s FROM detections ORDER BY 1"
    assert lake.sql(ordered, limit=2, offset=1).fetchall() == lake.sql(ordered).fetchall()[1:3]
    with pytest.raises(vidproc.ConfigError, match="DROP is refused"):
        lake.sql("DROP TABLE videos").fetchall()


def test_a_search_takes_what_the_options_take(lake: vidproc.Lake) -> None:
    everything = lake.search().hits
    assert everything and len(lake.search().df()) == len(everything)
    assert lake.search().columns[:3] == ["uri", "start_s", "end_s"]
    for given in ({"date": "2026-01-01"}, {"date": date(2026, 1, 1)}, {"between": "22:00-23:00"},
                  {"since": "2026-01-01", "until": "2026-01-02"}, {"video": "*22-30*"},
                  {"label": everything[0].label, "min_seconds": 0.5}):  # fmt: skip
        assert lake.search(**given).hits, given  # type: ignore[arg-type]
    assert not lake.search(between="03:00-04:00").hits and not lake.search(min_seconds=100).hits
    first = lake.search(limit=1).hits
    assert first + lake.search(after=first[0].token).hits == everything
    for wrong, said in (({"between": "25-3"}, "22:00-06:00"), ({"date": "yesterday"}, "2026-11-22"),
                        ({"since": "soon"}, "2026-11-22T")):  # fmt: skip
        with pytest.raises(vidproc.ConfigError, match=said):
            lake.search(**wrong)  # type: ignore[arg-type]


def test_what_the_lake_knows_of_its_runs(lake: vidproc.Lake) -> None:
    status = lake.status()
    assert (status.videos, dict(status.by_status)) == (2, {"indexed": 1, "declined": 1})
    assert [row[0] for row in lake.sql("SELECT outcome FROM runs").fetchall()] == ["ok"]
    runs = lake.runs(limit=5).df()
    assert runs["outcome"].tolist() == ["ok"] and lake.running() == []
    (failure,) = lake.failures().arrow().to_pylist()
    assert failure["error_class"] == "not_media" and failure["uri"].endswith("text.mp4")
    assert lake.failures(error_class="other").fetchall() == []
    with pytest.raises(vidproc.ConfigError, match="no pipeline 'x'"):
        lake.status(pipeline="x")


def test_upkeep_is_seen_by_the_questions_after_it(tmp_path: Path, lake: vidproc.Lake) -> None:
    with vidproc.open(shutil.copytree(lake.uri, tmp_path / "lake")) as own:
        (uri,) = [uri for (uri,) in own.sql("SELECT uri FROM videos WHERE status = 'indexed'")]
        assert own.detections.fetchone() is not None
        forgotten = own.forget(uri)
        assert forgotten.forgotten == (uri,) and own.forget([uri]).unknown == (uri,)
        assert own.detections.fetchone() is None and own.videos.arrow().num_rows == 1
        assert set(own.compact()) >= {"videos", "detections"}
        own.vacuum()
        assert sum(own.vacuum(now=True).files.values()) > 0
        assert own.videos.arrow().num_rows == 1


def test_the_next_run_is_seen_after_a_refresh(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    fakes: dict[str, Any] = {"detector": "tests.support.fakes:Numbers", "actions": "none", "executor": "inline"}
    for i in range(2):
        make_video(tmp_path / "in" / f"{i}.mp4", seconds=1)
        vidproc.index(tmp_path / "in", tmp_path / "lake", **fakes)
        if i == 0:
            lake = vidproc.open(tmp_path / "lake")
            assert lake.videos.arrow().num_rows == 1
    assert lake.videos.arrow().num_rows == 1, "answers fit together"
    assert lake.refresh().videos.arrow().num_rows == 2
    found = vidproc.plan(tmp_path / "in", tmp_path / "lake", calibrate=0, **fakes)
    assert found.listed == 2 and "already in the lake" in found.text()


def test_there_is_no_lake(tmp_path: Path) -> None:
    with pytest.raises(vidproc.ConfigError, match="is not a lake"):
        vidproc.open(tmp_path)


def test_a_model_takes_frames_of_any_size() -> None:
    model = vidproc.load_model("demo", kind="detector", device="cpu")
    assert model.kind == "detector" and model.labels == model.card.labels
    scene = Scene.generate(DEMO_SEED + 500, kind="street")
    frames = np.stack([scene.picture(t) for t in (1.0, 4.0)])
    found, large = model.detect(frames), model.detect(frames.repeat(2, axis=1).repeat(2, axis=2))
    assert set(found.frame) == {0, 1} and len(model.detect(frames[0])) == (found.frame == 0).sum()
    assert found.boxes.max() > model.card.grid.size.width, "boxes are in pixels of the given frames"
    there = np.array([(b.x_min, b.y_min, b.x_max, b.y_max) for b in scene.boxes_at(1.0)])
    nearest = [np.abs(there - box).max(axis=1).min() for box in found.boxes[found.frame == 0]]
    assert min(nearest) < 0.03 * frames.shape[2]
    assert len(large) == len(found) and np.abs(large.boxes - 2 * found.boxes).max() < 16
    assert len(model.detect(np.zeros((0, 90, 160, 3), np.uint8))) == 0
    for wrong in (frames.astype(np.float32), frames[..., :1], frames[0, 0], np.zeros((1, 0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="frames must be uint8"):
            model.detect(wrong)
    with pytest.raises(TypeError, match=r"use detect\(\)"):
        model.classify(frames[None])


def test_windows_have_the_models_length() -> None:
    model = vidproc.load_model("demo", kind="actions", device="cpu")
    windows = np.full((2, model.card.grid.window, 90, 160, 3), 114, np.uint8)
    assert model.classify(windows).shape == (2, len(model.labels)) == (2, *model.classify(windows[0]).shape[1:])
    with pytest.raises(ValueError, match="takes windows of"):
        model.classify(windows[:, :1])


LIGHT = """
import sys
import vidproc
{then}
print(*sorted({{name.split(".")[0] for name in sys.modules}} & {{
    "torch", "torchvision", "ray", "av", "onnxruntime", "cv2", "scipy", "matplotlib", "supervision", "trackers",
    "boto3", "polars", {more}
}}))
"""


@pytest.mark.parametrize(
    ("then", "more"),
    [
        ("", '"numpy", "pyarrow", "duckdb", "deltalake", "yaml", "typer", "rich"'),
        ("vidproc.open(sys.argv[1]).status()", '"duckdb", "typer"'),
        ("vidproc.open(sys.argv[1]).videos.fetchall()", '"typer", "rich"'),
        ("vidproc.open(sys.argv[1]).search(label='x').arrow()", '"typer", "rich"'),
        ("vidproc.open(sys.argv[1]).failures().fetchall()", '"duckdb", "typer"'),
    ],
    ids=["import", "status", "videos", "search", "failures"],
)
def test_reading_a_lake_imports_nothing_heavy(tmp_path: Path, lake: vidproc.Lake, then: str, more: str) -> None:
    (tmp_path / "reads.py").write_text(LIGHT.format(then=then, more=more))
    command = [sys.executable, str(tmp_path / "reads.py"), lake.uri]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
