"""What follows a night: its report and its message. Neither can fail it, and neither lets a secret out."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.look.conftest import make_archive
from tests.look.test_show import Run, vidproc  # noqa: F401
from vidproc.errors import ConfigError, TransientError
from vidproc.look import notify
from vidproc.look.notify import post
from vidproc.settings import load_job
from vidproc.tables.lake import Lake

PATH = "/services/T0000/B0000/hZk3x9secretword"


class Hook:
    """A server that takes messages, and answers as it is told."""

    def __init__(self, answers: list[int]) -> None:
        self.answers, self.bodies, self.paths = answers, [], []  # type: ignore[var-annotated]
        self.wait = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.paths.append(self.path)
                hook.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                status = hook.answers.pop(0) if len(hook.answers) > 1 else hook.answers[0]
                if status == 0:  # never
                    hook.wait.wait(60)
                    return
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                hook.paths.append(self.path)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}{PATH}"


@contextmanager
def hook(*answers: int) -> Iterator[Hook]:
    made = Hook(list(answers) or [200])
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        made.wait.set()
        made.server.shutdown()
        thread.join()
        made.server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "WAIT_S", 0.01)


def test_a_message_arrives_and_what_passes_is_tried_again() -> None:
    with hook(500, 503, 204) as h:
        post(h.url, {"outcome": "ok", "reason": "Authorization: Bearer abcdefghijklmnopqrstuvwxyz"})
        assert h.paths == [PATH] * 3
        said = json.loads(h.bodies[-1])
        assert said["outcome"] == "ok" and "abcdefgh" not in h.bodies[-1].decode()


def test_what_never_works_is_not_tried_again() -> None:
    with hook(404) as h, pytest.raises(ConfigError, match="answered 404") as refused:
        post(h.url, {})
    assert len(h.paths) == 1 and "secretword" not in str(refused.value)
    with hook(302) as h, pytest.raises(ConfigError, match="302"):
        post(h.url, {})
    assert h.paths == [PATH], "a redirection is not followed"


def test_who_does_not_answer_is_not_waited_for() -> None:
    with hook(500) as h, pytest.raises(TransientError, match="answered 500, tried 3 times"):
        post(h.url, {})
    began = time.monotonic()
    with hook(0) as h, pytest.raises(TransientError) as hung:
        post(h.url, {}, total_s=0.5)
    assert time.monotonic() - began < 30 and "secretword" not in str(hung.value)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        with pytest.raises(TransientError, match="did not take it"):
            post(f"http://127.0.0.1:{closed.getsockname()[1]}{PATH}", {})


@pytest.mark.parametrize("url", ["ftp://a/b", "a.example/x", "http://", "http://u:secretword@a/b", "http://a/b c", ""])
def test_what_is_no_hook_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_job(None, {"archive": "/a", "lake": "/b", "detector": "demo", "notify": url or " "})
    assert "secretword" not in str(refused.value)


def index(folder: Path, *more: object) -> list[object]:
    models = ["--detector", "tests.support.fakes:Numbers", "--actions", "none", "--executor", "inline"]
    return ["index", folder / "archive", folder / "lake", *models, *more]


def test_a_night_leaves_its_report_and_tells_of_it(tmp_path: Path, vidproc: Run) -> None:  # noqa: F811
    make_archive(tmp_path / "archive", {"a.mp4": {"seconds": 2}})
    page = tmp_path / "reports" / "night.html"
    with hook() as h:
        code, said = vidproc(*index(tmp_path, "--report", page, "--notify", h.url))
        assert code == 0 and page.read_text().startswith("<!doctype html>") and str(page) in said
        [told] = map(json.loads, h.bodies)
    assert told["outcome"] == "ok" and told["videos"] == {"indexed": 1} and told["report"] == str(page)
    assert told["rows"]["detections"] == 8 and told["exit_code"] == 0
    assert "secretword" not in said
    [run] = Lake.open(str(tmp_path / "lake")).runs().to_pylist()
    assert "secretword" not in str(run) and "night.html" in run["job"]
    written = [p for p in tmp_path.rglob("*") if p.is_file() and b"secretword" in p.read_bytes()]
    assert not written


def test_neither_can_fail_a_night(tmp_path: Path, vidproc: Run) -> None:  # noqa: F811
    make_archive(tmp_path / "archive", {"a.mp4": {"seconds": 2}})
    (tmp_path / "file").write_text("x")
    with hook(500) as h:
        code, said = vidproc(*index(tmp_path, "--report", tmp_path / "file" / "r.html", "--notify", h.url))
        told = json.loads(h.bodies[-1])
    assert code == 0 and "the report could not be written" in said and "the message was not delivered" in said
    assert told["outcome"] == "ok" and told["report"] is None
    assert len(Lake.open(str(tmp_path / "lake")).videos()) == 1


def test_a_night_that_cannot_begin_is_told_of(tmp_path: Path, vidproc: Run) -> None:  # noqa: F811
    with hook() as h:
        code, _ = vidproc(*index(tmp_path, "--notify", h.url))
        [told] = map(json.loads, h.bodies)
    assert code == 2 and told["outcome"] == "failed" and "archive" in told["reason"]
    code, said = vidproc(*index(tmp_path, "--report", tmp_path / "r.pdf"))
    assert code == 2 and ".html" in said
