"""A store that takes every request and answers none: whoever asks a lake there gets an answer of ours, in time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from socket import create_server

import pytest

from tests.ask.test_query import build
from tests.conftest import Root
from tests.support.proxy import Rule, proxy
from tests.support.s3 import SeaweedFS
from vidproc.ask import connect, engine
from vidproc.errors import TransientError
from vidproc.storage import StorageOptions

NEVER_S = 3600.0


@contextmanager
def silence() -> Iterator[str]:
    """The endpoint of a store to which one can connect, and that is all."""
    with create_server(("127.0.0.1", 0), backlog=1024) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", ["slow", "stall"])
def test_a_question_whose_files_never_come(
    fault: str, s3_root: Root, s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is read, the rows are not: DuckDB's own requests end."""
    build(s3_root)
    monkeypatch.setattr(engine, "REQUEST_S", 1)
    with proxy(s3_server.endpoint, Rule(fault, seconds=NEVER_S, methods="GET", path=r".*\.parquet")) as between:
        told = StorageOptions(endpoint_url=between.endpoint)
        with pytest.raises(TransientError, match="its store does not answer: check the endpoint") as e:
            connect(s3_root.uri, told).sql("SELECT max(score) FROM detections").fetchall()
        assert between.endpoint in str(e.value)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("command", [("status",), ("query", "SELECT 1"), ("search", "--label", "car")])
def test_a_command_that_asks_a_silent_store_ends(command: tuple[str, ...], s3_server: SeaweedFS) -> None:
    with silence() as endpoint:
        words = [command[0], "s3://nobody/lake", *command[1:], "--endpoint-url", endpoint]
        begun = time.monotonic()
        answer = subprocess.run(
            [sys.executable, "-m", "vidproc", *words],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": "."},
        )
    assert answer.returncode == 1 and answer.stdout == ""
    assert endpoint in answer.stderr and "try again" in answer.stderr and "Traceback" not in answer.stderr
    assert time.monotonic() - begun < 150
