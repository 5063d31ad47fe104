"""Jobs on a real Ray head with token authentication: what is submitted, watched, stopped, refused."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.media import make_video
from vidproc.ask import connect
from vidproc.errors import ConfigError
from vidproc.runtime.metrics import COUNTERS, GAUGES
from vidproc.runtime.ray.jobs import ClusterJob, Submitted, exit_code, job_logs, list_jobs, stop_job, submit

ROOT = Path(__file__).parents[2]
TOKEN = "token-of-this-test-and-no-other-0123456789"

COUNTS = "import sys; print('args', sys.argv[1:]); [print('line', n) for n in range(200)]"
"""Stands for `vidproc index`: a job that ends at once, with more lines than one message of the log holds."""
WAITS = """
import os, signal, sys, time
def end(*_):
    print("interrupted, run the same command again", flush=True)
    sys.exit(130)
signal.signal(signal.SIGINT, end)
print("waiting", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.1)
print("released", flush=True)
"""


@dataclass(frozen=True)
class Head:
    address: str
    folder: Path
    metrics: str


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A Ray head with its dashboard, in a process group and a folder of its own."""
    for _ in range(3):  # on a busy machine Ray may give its own processes up while they start
        folder = Path(tempfile.mkdtemp(prefix="vr", dir="/tmp"))  # short: Ray's sockets live below it
        port, metrics = _free_port(), _free_port()
        process = _start_ray(folder, port, metrics)
        try:
            if _comes_up(process, folder, port):
                yield Head(f"http://127.0.0.1:{port}", folder, f"http://127.0.0.1:{metrics}/metrics")
                return
            log = (folder / "head.log").read_text()
        finally:
            _end(process)
            shutil.rmtree(folder, ignore_errors=True)
    pytest.fail("the Ray head did not start:\n" + log[-3000:])


def _start_ray(folder: Path, port: int, metrics: int) -> subprocess.Popen[bytes]:
    with (folder / "head.log").open("wb") as log:
        return subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"),
                *("--node-ip-address=127.0.0.1", "--port=0", "--num-cpus=2", "--object-store-memory=100000000"),
                *("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"),
                *(f"--dashboard-agent-listen-port={_free_port()}", f"--ray-client-server-port={_free_port()}"),
                *(f"--metrics-export-port={metrics}", f"--temp-dir={folder}"),
            ],
            env=os.environ
            | {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),  # tests.support.fakes, whose models stand for a user's
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": TOKEN,
                "OMP_NUM_THREADS": "1",
                # Of a slow machine Ray would believe that it has died.
                "RAY_agent_register_timeout_ms": "300000",
                "RAY_health_check_timeout_ms": "60000",
                "RAY_health_check_failure_threshold": "20",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _comes_up(process: subprocess.Popen[bytes], folder: Path, port: int) -> bool:
    """True once `ray start` is content and the job API answers; False when it has given up."""
    import requests

    headers = {"Authorization": f"Bearer {TOKEN}"}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if b"will now block forever" in (folder / "head.log").read_bytes():
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"http://127.0.0.1:{port}/api/jobs/", headers=headers, timeout=10).status_code == 200:
                    return True
        time.sleep(0.3)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends this head and what it started: Ray's workers have groups of their own, so the tree is noted first."""
    from ray._private.services import psutil

    tree = []
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    for one in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "nightly.yaml"
    path.write_text(f"archive: {tmp_path}\nlake: ${{TEST_LAKE:-{tmp_path}/lake}}\nname: nightly\ndetector: demo\n")
    return path


def _submit(job: Path, head: Head, code: str, *args: str, log: list[str] | None = None, **options: object) -> Submitted:
    return submit(
        job,
        head.address,
        command=("python", "-c", code, *args),
        write=(log if log is not None else []).append,
        **options,  # type: ignore[arg-type]
    )


def _ended(head: Head, submitted: Submitted) -> ClusterJob:
    """The job once it has ended, without Ray's several seconds for the end of a log."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        job = next(one for one in list_jobs(head.address) if one.id == submitted.job.id)
        if job.ended:
            return job
        time.sleep(0.2)
    pytest.fail(f"{submitted.job.id} did not end")


@contextlib.contextmanager
def _scraping(head: Head) -> Iterator[dict[tuple[str, str], float]]:
    """The largest value of each of our metrics at the head, by its name and its tag (`status`, `stage`), meanwhile
    and until a moment later: workers report every few seconds."""
    found: dict[tuple[str, str], float] = {}
    line = re.compile(r'^ray_(vidproc_\w+){.*?(?:,(?:stage|status)="(\w+)")?} (\S+)$', re.MULTILINE)
    ended = threading.Event()

    def scrape() -> None:
        after = 0
        while after < 8:
            after += ended.wait(0.5)
            with contextlib.suppress(OSError), urllib.request.urlopen(head.metrics, timeout=10) as answer:
                for name, tag, value in line.findall(answer.read().decode()):
                    found[name, tag] = max(found.get((name, tag), 0.0), float(value))

    thread = threading.Thread(target=scrape)
    thread.start()
    yield found
    ended.set()
    thread.join()


def test_a_job_runs_with_its_file_and_its_whole_log_is_seen(job: Path, head: Head) -> None:
    log: list[str] = []
    code = COUNTS + "; print(open(sys.argv[2]).read())"
    done = _submit(job, head, code, log=log)
    assert (done.exit_code, done.new, done.job.status, done.job.name) == (0, True, "succeeded", "nightly")
    assert "args ['--job', 'nightly.yaml', '--address', 'auto']" in log
    assert [line for line in log if line.startswith("line ")] == [f"line {n}" for n in range(200)]
    assert "detector: demo" in log  # the file itself arrived
    assert list(job_logs(head.address, done.job.id)) == log


def test_the_nightly_job_file_indexes_an_archive_on_the_cluster(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    archive.mkdir()
    make_video(archive / "a.mp4", seconds=3)
    make_video(archive / "b.mkv", seconds=2)
    monkeypatch.setenv("VIDPROC_ARCHIVE", str(archive))
    monkeypatch.setenv("VIDPROC_LAKE", str(lake))
    monkeypatch.setenv("VIDPROC_DETECTOR", "tests.support.fakes:Numbers")
    monkeypatch.setenv("VIDPROC_ACTIONS", "tests.support.fakes:Order")
    log: list[str] = []
    with _scraping(head) as scraped:
        done = submit(ROOT / "jobs/nightly.yaml", head.address, write=log.append)
    assert (done.exit_code, done.job.status) == (0, "succeeded"), "\n".join(log)
    # What Prometheus finds while it runs is what the dashboard asks for.
    assert scraped["vidproc_videos_total", "indexed"] == 2
    assert scraped["vidproc_clips_total", ""] == 2
    assert scraped["vidproc_frames_total", ""] > 0
    assert all(scraped["vidproc_stage_seconds_total", stage] > 0 for stage in ("probe", "decode", "infer", "publish"))
    assert {name for name, _ in scraped} == (COUNTERS | GAUGES).keys() - {"vidproc_failures_total"}
    with connect(str(lake)) as database:
        videos = database.sql("SELECT uri, status FROM videos ORDER BY uri").read_all().to_pylist()
        samples = database.sql("SELECT DISTINCT time_s FROM detections ORDER BY ALL").read_all().to_pydict()
    assert [(Path(row["uri"]).name, row["status"]) for row in videos] == [("a.mp4", "indexed"), ("b.mkv", "indexed")]
    assert samples == {"time_s": [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]}  # two a second of the longer video

    # The archive is elsewhere than it says: exit code 2, from the cluster.
    monkeypatch.setenv("VIDPROC_ARCHIVE", str(tmp_path / "missing"))
    refused = submit(ROOT / "jobs/nightly.yaml", head.address, follow=False)
    assert _ended(head, refused).exit_code == 2


def test_the_jobs_exit_code_is_the_commands(job: Path, head: Head) -> None:
    ends = {1: "sys.exit(1)", 2: "sys.exit(2)", 130: "sys.exit(130)", 137: "os.kill(os.getpid(), 9)"}
    started = {code: _submit(job, head, f"import os, sys; {end}", follow=False) for code, end in ends.items()}
    for code, one in started.items():
        ended = _ended(head, one)
        assert (ended.exit_code, ended.status) == (code, "failed")


@pytest.mark.parametrize(
    ("status", "driver", "code"),
    [("running", None, None), ("succeeded", 0, 0), ("stopped", None, 130), ("failed", None, 1), ("failed", -2, 130)],
)
def test_what_an_end_means(status: str, driver: int | None, code: int | None) -> None:
    assert exit_code(status, driver) == code  # type: ignore[arg-type]


def test_one_request_token_is_one_job_even_when_asked_at_once(job: Path, head: Head, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    code = f"open({str(marks)!r}, 'a').write('x'); print('did it')"
    answers: list[Submitted] = []
    asking = [
        threading.Thread(target=lambda: answers.append(_submit(job, head, code, request_token="2026-11-22")))
        for _ in range(3)
    ]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert len({answer.job.id for answer in answers}) == 1
    assert sorted(answer.new for answer in answers) == [False, False, True]
    assert {answer.exit_code for answer in answers} == {0}

    again = _submit(job, head, code, request_token="2026-11-22", follow=False)
    assert not again.new
    assert again.exit_code == 0
    assert "not run again" in again.message
    assert marks.read_text() == "x"

    with pytest.raises(ConfigError, match="was used for another job"):
        _submit(job, head, "print('something else')", request_token="2026-11-22")
    other = _submit(job, head, code, request_token="2026-11-23", follow=False)
    assert other.new
    assert _ended(head, other).exit_code == 0
    assert marks.read_text() == "xx"


def test_without_a_token_a_running_job_is_found_and_an_ended_one_is_run_again(
    job: Path, head: Head, tmp_path: Path
) -> None:
    released = tmp_path / "released"
    first = _submit(job, head, WAITS, str(released), follow=False)
    assert first.new
    assert first.exit_code == 0
    assert first.job.exit_code is None
    second = _submit(job, head, WAITS, str(released), follow=False)
    assert (second.new, second.job.id) == (False, first.job.id)
    assert "is running already" in second.message
    released.touch()
    log: list[str] = []
    watched = _submit(job, head, WAITS, str(released), log=log)
    assert log[-1] == "released"
    assert watched.exit_code == 0
    later = _submit(job, head, WAITS, str(released), follow=False)
    assert later.new
    assert later.job.id != first.job.id
    assert list_jobs(head.address)[0].id == later.job.id


def test_a_stopped_job_gets_the_time_to_end_cleanly(job: Path, head: Head, tmp_path: Path) -> None:
    started = _submit(job, head, WAITS, str(tmp_path / "never"), follow=False)
    log = job_logs(head.address, started.job.id, follow=True)
    assert any(line == "waiting" for line in log)  # its handler is in place
    stopped = stop_job(head.address, started.job.id)
    assert (stopped.status, stopped.exit_code) == ("stopped", 130)
    assert "interrupted, run the same command again" in list(log)
    assert stop_job(head.address, started.job.id) == stopped


def test_the_variables_of_the_job_file_and_the_working_directory_travel(
    job: Path, head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_model.py").write_text("NAME = 'mine'\n")
    monkeypatch.setenv("TEST_LAKE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("NOT_NAMED", "secret")
    log: list[str] = []
    code = (
        "import own_model; from os import environ as e; print(own_model.NAME, e['TEST_LAKE'], e['A'], 'NOT_NAMED' in e)"
    )
    done = _submit(job, head, code, log=log, working_dir=tmp_path, env={"A": "b"})
    assert done.exit_code == 0, log
    assert log[-1] == f"mine {tmp_path / 'elsewhere'} b False"


def test_what_cannot_be_submitted_is_refused_here(
    job: Path, head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(list_jobs(head.address))
    (tmp_path / "typo.yaml").write_text("archive: /a\nlake: /b\ndetectr: demo\n")
    (tmp_path / "empty").mkdir()
    refused = [
        (tmp_path / "missing.yaml", {}, "there is no job file"),
        (tmp_path / "typo.yaml", {}, "did you mean `detector`"),
        (job, {"working_dir": tmp_path / "empty"}, "must lie in the working directory"),
        (job, {"working_dir": tmp_path / "nowhere"}, "there is no working directory"),
        (job, {"env": {"AWS_SECRET_ACCESS_KEY": "x"}}, "cannot be sent with a job"),
    ]
    for path, options, message in refused:
        with pytest.raises(ConfigError, match=message):
            _submit(path, head, COUNTS, **options)
    assert len(list_jobs(head.address)) == before


def test_an_unknown_job_is_named(head: Head) -> None:
    for ask in (lambda: list(job_logs(head.address, "no-such")), lambda: stop_job(head.address, "no-such")):
        with pytest.raises(ConfigError, match="knows no job no-such"):
            ask()


@pytest.mark.parametrize(("token", "message"), [("wrong" * 10, "does not accept the token"), ("", "wants a token")])
def test_the_clusters_token_is_needed_fails(
    head: Head, monkeypatch: pytest.MonkeyPatch, token: str, message: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    with pytest.raises(ConfigError, match=message) as refused:
        list_jobs(head.address)
    assert TOKEN not in str(refused.value)
    assert "wrong" not in str(refused.value)


def test_the_token_may_lie_in_a_file(head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(ConfigError, match="cannot be read"):
        list_jobs(head.address)
    (tmp_path / "token").write_text(TOKEN + "\n")
    list_jobs(head.address)


def test_the_address_that_was_given_is_the_one_used(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    list_jobs(head.address)
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"


@pytest.mark.parametrize("address", ["head:8265", "auto", "ray://head:10001", "http://", ""])
def test_an_address_of_another_kind_fails(address: str) -> None:
    with pytest.raises(ConfigError, match="write http://HOST:8265"):
        list_jobs(address)


def test_an_address_without_a_dashboard_fails() -> None:
    with pytest.raises(ConfigError, match="no Ray dashboard answers at http://127"):
        list_jobs(f"http://127.0.0.1:{_free_port()}")


def test_an_address_of_some_other_server_fails(tmp_path: Path) -> None:
    import http.server

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ConfigError, match="not as a Ray dashboard"):
            list_jobs(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
