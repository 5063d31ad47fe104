"""A secret that a user gave is written nowhere, and one that stands in a URL is refused before anything is made."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.console import Run
from tests.support.media import make_video
from tests.whole.test_security import everything_in
from vidproc.ask import connect
from vidproc.errors import ConfigError
from vidproc.learn.job import read_job
from vidproc.learn.train.settings import TrainSettings
from vidproc.models import ModelSettings, fetch_model
from vidproc.progress import LogReporter
from vidproc.run.driver import index
from vidproc.runtime.ray.jobs import submit
from vidproc.secrets import redact_json, refuse_credentials_in
from vidproc.settings import load_job
from vidproc.storage import open_storage
from vidproc.tables.lake import Lake

CANARY = "c4nary.Kx9-zq_7wLm2"

MODEL = '''
import logging
from tests.support.fakes import Numbers, read_number


class Leaky(Numbers):
    """Says its secret wherever it can: its service refuses one of the videos."""

    def __init__(self, settings):
        super().__init__(settings)
        self.key = settings.options["api_token"]

    def detect(self, frames):
        if frames[0].shape and read_number(frames[0]) % 2 == 0:
            raise ValueError(f"401 from https://svc:{self.key}@models.test/v1?api_key={self.key}, sent "
                             f"Authorization: Bearer {self.key}\\nX-Api-Key: {self.key}")
        return super().detect(frames)
'''


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run in which a secret is an option of a model, a variable of the environment and on the command line, and
    what it said: standard output and error, the lake, and a plan."""
    folder = tmp_path_factory.mktemp("leaky")
    (folder / "in").mkdir()
    for name in ("a", "b"):
        make_video(folder / "in" / f"{name}.mp4", seconds=1)
    (folder / "in" / "text.mp4").write_text("no video\n" * 50)
    (folder / "leaky.py").write_text(MODEL)
    job = {
        "archive": str(folder / "in"), "lake": str(folder / "lake"), "actions": "none",
        "detector": {"model": "leaky:Leaky",
                     "options": {"api_token": "${SERVICE_TOKEN}", "note": "key ${SERVICE_TOKEN} of ours"}},
        "execution": {"executor": "inline", "device": "cpu"}, "limits": {"max_failures": "100%"},
    }  # fmt: skip
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    env = os.environ | {"SERVICE_TOKEN": CANARY, "PYTHONPATH": f"{folder}:{os.getcwd()}"}
    said = ""
    for arguments in (
        ["plan", "--job", "job.yaml", "--calibrate", "0", "--save", str(folder / "plan"), "--log-format", "json"],
        ["index", "--job", "job.yaml", "--log-format", "json", "--json"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "vidproc", *arguments],
            env=env, cwd=folder, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    return {"folder": folder, "said": said}


def test_a_canary_is_in_no_byte_of_the_lake_the_plan_and_what_was_said(
    leaky: dict[str, Any],
    vidproc: Run,
) -> None:
    folder, said = leaky["folder"], leaky["said"]
    for ask in (["failures"], ["failures", "--json"], ["runs", "--json"], ["status", "--json"]):
        code, out, err = vidproc(ask[0], folder / "lake", *ask[1:])
        assert code == 0
        said += out + err
    found = dict(everything_in(str(folder / "lake"))) | dict(everything_in(str(folder / "plan")))
    assert len(found) > 10
    with connect(str(folder / "lake")) as lake:
        errors = lake.sql("SELECT error, traceback FROM failures").read_all().to_pylist()
        [run] = lake.sql("SELECT command, job FROM runs").read_all().to_pylist()
    assert any("401 from https://[redacted]@models.test" in row["error"] for row in errors)
    assert run["command"].endswith("--job job.yaml --log-format json --json")
    options = json.loads(run["job"])["detector"]["options"]
    assert options == {"api_token": "[redacted]", "note": "key [redacted] of ours"}
    for name, text in {"output": said, **found}.items():
        assert CANARY not in text, name


def test_retry_refuses_a_job_without_its_secrets_and_says_the_way_out(
    leaky: dict[str, Any],
    vidproc: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, lake = leaky["folder"], str(leaky["folder"] / "lake")
    before = Lake.open(lake).runs().num_rows
    code, _, err = vidproc("retry", lake)
    assert code == 2 and "detector.options.api_token, detector.options.note" in err and "vidproc index" in err
    assert Lake.open(lake).runs().num_rows == before
    assert vidproc("retry", lake, "--no-run")[0] == 0
    monkeypatch.setenv("SERVICE_TOKEN", CANARY)
    monkeypatch.syspath_prepend(str(folder))
    assert index(load_job(folder / "job.yaml")).due, "which is the way out"


@pytest.mark.parametrize(
    "command",
    [
        f"vidproc index in lake --endpoint-url https://user:{CANARY}@s3.test",
        f"vidproc index in lake --api-key {CANARY} --x",
        f"vidproc index in lake --service-token={CANARY}",
        f"vidproc index 'https://h/x?X-Amz-Signature={CANARY}&a=1'",
        f"SERVICE_PASSWORD={CANARY} vidproc index",
    ],
)
def test_one_place_writes_runs_and_hides_what_they_hold(command: str, tmp_path: Path) -> None:
    lake = Lake.create(str(tmp_path / "lake"))
    about = {name: name for name in ("run_id", "pipeline", "pipeline_id", "host", "versions")}
    job = json.dumps({"storage": {"endpoint_url": f"https://user:{CANARY}@s3.test"}, "options": {"token": [CANARY]}})
    from datetime import UTC, datetime

    at = {"started_at": datetime(2026, 1, 1, tzinfo=UTC)}
    for outcome in ("running", "failed"):
        lake.record_run(about | at | {"command": command, "job": job, "outcome": outcome, "reason": command})
        for name, text in everything_in(lake.uri):
            assert CANARY not in text, name
    [row] = lake.runs().to_pylist()
    assert json.loads(row["job"]) == {
        "storage": {"endpoint_url": "https://[redacted]@s3.test"}, "options": {"token": "[redacted]"},
    }  # fmt: skip


def test_fields_of_json_logs_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    LogReporter(as_json=True).say("ended", why=f"https://u:{CANARY}@h/", more={"token": CANARY, "n": 3})
    said = capsys.readouterr().err
    assert CANARY not in said and json.loads(said)["more"] == {"token": "[redacted]", "n": 3}


def test_what_holds_no_secret_is_the_same_text() -> None:
    job = load_job(None, {"archive": "/in/a b@c", "lake": "s3://bucket/x@y", "detector": "demo"}).model_dump_json()
    assert redact_json(job) == job and redact_json("no JSON") == "no JSON"


# --- refused ------------------------------------------------------------------------------------------

URLS = [
    f"https://user:{CANARY}@host/x.pt", f"https://{CANARY}@host/x.pt", f"HTTPS://u:{CANARY}@host:8443",
    f"https://host/x-12345678.pt?X-Amz-Signature={CANARY}", f"https://a.blob.test/x.pt?sv=1&sig={CANARY}",
    f"https://host/x.pt?x-goog-signature={CANARY}", f"https://host/x.pt?access_token={CANARY}",
    f"https://host/x.pt?api_key={CANARY}", f"s3://AKIA0000:{CANARY}@bucket/x.pt", f"http://u:p/{CANARY}?#@host/x",
    f"pkg @ git+https://{CANARY}@github.test/a/b",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_credentials_in_a_url_are_refused_wherever_it_stands(url: str, tmp_path: Path) -> None:
    base = {"archive": str(tmp_path), "lake": str(tmp_path / "lake"), "detector": "demo", "actions": "none"}
    where: list[dict[str, Any]] = [
        {"detector": {"model": url}}, {"detector": {"model": "demo", "weights": url}}, {"plan": url},
        {"detector": {"model": "demo", "options": {"deep": [{"er": url}]}}}, {"execution": {"address": url}},
        {"storage": {"endpoint_url": url}}, {"archive": url}, {"lake": url},
    ]  # fmt: skip
    for given in where:
        with pytest.raises(ConfigError, match="in its URL") as refused:
            load_job(None, base | given)
        assert CANARY not in str(refused.value), given
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({"out": url}))
    for ask in (
        lambda: read_job(tmp_path / "train.yaml", TrainSettings),
        lambda: ModelSettings(weights=url),
        lambda: submit(_job_file(tmp_path), url),
        lambda: submit(_job_file(tmp_path), "http://127.0.0.1:1", pip=[url]),
        lambda: submit(_job_file(tmp_path), "http://127.0.0.1:1", env={"X": url}),
    ):
        with pytest.raises(ConfigError, match="in its URL") as refused:
            ask()
        assert CANARY not in str(refused.value)
    if "://" in url.split()[0]:
        with pytest.raises(ConfigError) as refused:
            open_storage(url)
        assert CANARY not in str(refused.value)


def _job_file(folder: Path) -> Path:
    path = folder / "job.yaml"
    path.write_text("archive: /in\nlake: /lake\ndetector: demo\nactions: none\n")
    return path


@pytest.mark.parametrize(
    "url",
    ["s3://bucket/a@b?X-Amz-Signature=1", "/data/a:b@c/x?token=1", "file:///data/x?sig=1", "https://host/x?v=2",
     "https://host:8443/a@b", "https://host/x.pt", "person@home, see https://host/"],
)  # fmt: skip
def test_what_is_no_secret_is_taken(url: str) -> None:
    refuse_credentials_in(url, "it")


def test_the_command_line_refuses_a_url_with_a_password_before_work(tmp_path: Path, vidproc: Run) -> None:
    (tmp_path / "in").mkdir()
    for options in (
        ["--endpoint-url", f"https://u:{CANARY}@s3.test"], ["--detector", f"https://u:{CANARY}@h/x.onnx"],
    ):  # fmt: skip
        code, out, err = vidproc("index", tmp_path / "in", tmp_path / "lake", "--actions", "none", *options)
        assert code == 2 and CANARY not in out + err and "in its URL" in err
    assert not (tmp_path / "lake").exists()


def test_a_mirror_with_a_password_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDPROC_MODEL_CACHE", str(tmp_path))
    monkeypatch.setenv("VIDPROC_MODEL_MIRROR", f"https://u:{CANARY}@mirror.test/")
    with pytest.raises(ConfigError, match="VIDPROC_MODEL_MIRROR holds credentials in its URL") as refused:
        fetch_model("ssdlite320_mobilenet_v3_large")
    assert CANARY not in str(refused.value)


def test_a_bug_keeps_its_traceback_without_the_secret() -> None:
    code = (
        "import os, sys, vidproc.cli, vidproc.models\n"
        "def broken(): raise RuntimeError('https://u:' + os.environ['HERE'] + '@h/ answered \x1b[2J')\n"
        "vidproc.models.list_models = broken\n"
        "sys.argv = ['vidproc', 'models', 'list']\n"
        "vidproc.cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"HERE": CANARY}, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1 and "Traceback" in done.stderr and "RuntimeError: https://[redacted]@h/" in done.stderr
    assert CANARY not in done.stderr and "\x1b" not in done.stderr


# --- models on S3 -------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Iterator[tuple[str, list[str]]]:
    """A store that answers whoever asks it, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {'signed' if self.headers.get('Authorization') else 'unsigned'}")
            self.send_response(200)
            self.send_header("Content-Length", "7")
            self.end_headers()
            self.wfile.write(b"weights")

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_models_are_fetched_from_the_store_that_was_named(
    tmp_path: Path,
    store: tuple[str, list[str]],
    vidproc: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint, asked = store
    monkeypatch.setenv("VIDPROC_MODEL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "m").mkdir()
    description = {
        "name": "ours", "family": "torchvision-detection", "arch": "ssdlite320_mobilenet_v3_large", "kind": "detector",
        "labels": ["car"], "weights": "s3://models/ours.pt", "sha256": hashlib.sha256(b"weights").hexdigest(),
    }  # fmt: skip
    (tmp_path / "m" / "model.yaml").write_text(yaml.safe_dump(description))
    reach = ["--endpoint-url", endpoint, "--anonymous"]
    code, out, err = vidproc("models", "fetch", tmp_path / "m", *reach)
    assert code == 0, err
    assert Path(out.strip()).read_bytes() == b"weights" and asked == ["/models/ours.pt unsigned"]
    monkeypatch.setenv("VIDPROC_MODEL_CACHE", str(tmp_path / "other"))
    code, _, err = vidproc("models", "check", tmp_path / "m", *reach)
    assert code == 2 and len(asked) == 2, "it was fetched from there, and is no model"
    monkeypatch.setenv("VIDPROC_MODEL_CACHE", str(tmp_path / "third"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-nobody-either")
    job = {"archive": str(tmp_path), "lake": str(tmp_path / "lake"), "actions": "none",
           "detector": str(tmp_path / "m"), "storage": {"endpoint_url": endpoint},
           "execution": {"executor": "inline"}}  # fmt: skip
    index(load_job(None, job | {"archive": str(tmp_path / "m")}))
    assert asked[2:] == ["/models/ours.pt signed"], "a job's own store is that of its models too"


# --- text of others -----------------------------------------------------------------------------------


def test_jobs_print_through_the_one_function() -> None:
    import ast

    for path in sorted((Path(__file__).parents[2] / "jobs").glob("*.py")):
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path.name


def test_class_names_are_drawn_as_they_are() -> None:
    import numpy as np

    from vidproc.learn.plots import confusion_png, precision_recall_png

    names = ["$a_{$", "\\frac{$", "_hidden", "a\x1b[2J\nb"]
    assert confusion_png(np.eye(4, dtype=np.int64), names)[:4] == b"\x89PNG"
    line = np.linspace(0, 1, 5)
    assert precision_recall_png({n: (line, line) for n in names}, "t")[:4] == b"\x89PNG"


def test_failures_of_either_class(leaky: dict[str, Any], vidproc: Run) -> None:
    lake = str(leaky["folder"] / "lake")
    rows = Lake.open(lake).failures().to_pylist()
    classes = sorted({r["error_class"] for r in rows})
    assert len(classes) == 2
    for asked in ([classes[0]], [classes[1]], classes, [classes[0], "nothing"], ["nothing", "less"]):
        code, out, _ = vidproc("failures", lake, *(w for c in asked for w in ("--class", c)), "--json")
        found = json.loads(out)
        assert code == 0 and len(found) == sum(r["error_class"] in asked for r in rows)
    code, out, _ = vidproc("failures", lake, "--class", "nothing", "--class", "less")
    assert code == 0 and f"no failures of class nothing or less; there is {', '.join(classes)}" in out
