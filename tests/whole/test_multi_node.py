"""Several real Ray nodes, archive and lake on S3, one run through an address: the rows of an undisturbed local
run, also where a whole node is killed on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Root
from tests.support.media import make_video
from tests.support.nodes import TOKEN, Nodes
from tests.whole.test_end_to_end import job, tables, upload
from vidproc.run.driver import index
from vidproc.settings import Job
from vidproc.storage import open_storage


@pytest.fixture
def nodes(s3_root: Root) -> Iterator[Nodes]:
    """Started after the S3 server, whose address its workers inherit."""
    with tempfile.TemporaryDirectory(prefix="vmn-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        running = Nodes(folder)
        yield running
        running.close()


@pytest.mark.timeout(280)
def test_a_run_over_three_nodes_one_of_which_is_killed(nodes: Nodes, s3_root: Root, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(8):
        make_video(folder / f"v{i}.{'mp4' if i % 2 else 'mkv'}", seconds=1.5, gop=6)
    archive, lake = upload(folder, s3_root.below("in")), s3_root.below("lake").uri
    given: dict[str, Any] = {"detector": "tests.support.fakes:Slow", "cut": {"clip_seconds": 0.5}}
    small = {"memory_bytes": 512 << 20, "bytes_in_flight": 64 << 20, "max_failures": "0"}
    on_nodes = {"executor": "ray", "device": "cpu", "address": nodes.address, "publish_videos": 2}
    wanted: Job = job(archive, lake, **given, limits=small, execution=on_nodes)
    path = tmp_path / "job.json"  # JSON is YAML
    path.write_text(json.dumps(wanted.model_dump(mode="json")))
    run = subprocess.Popen(
        [sys.executable, "-m", "vidproc", "index", "--job", str(path), "--quiet"],
        cwd=Path(__file__).parents[2],
        env=os.environ | TOKEN,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        storage = open_storage(lake)
        while run.poll() is None and sum(o.key.endswith("report.json") for o in storage.list("_staging/")) < 2:
            time.sleep(0.1)
        nodes.kill_one()
        said, _ = run.communicate(timeout=240)
    finally:
        run.kill()
    assert run.returncode == 0, said
    calm = s3_root.below("calm").uri
    assert index(job(archive, calm, **given, execution={"executor": "inline", "device": "cpu"})).exit_code == 0
    assert tables(lake) == tables(calm)
    assert list(storage.list("_staging/")) == []
