"""What a run takes of the machine that it starts on: a Ray nobody else reaches, and plain words where it cannot."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.console import Run
from tests.support.media import make_video

WATCHER = """
import json, os
from pathlib import Path
from tests.support.fakes import Numbers


class Watcher(Numbers):
    '''Writes down, from where the models run, what the driver's processes listen on and where they keep files.'''

    def detect(self, frames):
        import psutil

        driver = next(p for p in psutil.Process().parents() if "index" in p.cmdline())
        listens, folders = [], []
        for process in driver.children(recursive=True):
            try:
                open_ = [c for c in process.net_connections("inet") if c.status == "LISTEN"]
                listens += [(process.name(), c.laddr.ip.removeprefix("::ffff:")) for c in open_]
            except psutil.Error:
                continue
        for path, _, _ in os.walk(os.environ["TMPDIR"]):
            folders.append((path, os.stat(path).st_mode & 0o777, os.stat(path).st_uid))
        seen = {"listens": listens, "folders": folders, "works_in": os.getcwd()}
        Path(os.environ["SEEN"]).write_text(json.dumps(seen))
        return super().detect(frames)
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: sockets lie below it, whose paths are limited."""
    made = Path(tempfile.mkdtemp(prefix="vp", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def run(folder: Path, *before: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Indexes one small video on a Ray of our own."""
    (folder / "in").mkdir()
    make_video(folder / "in" / "a.mp4", seconds=1)
    (folder / "watcher.py").write_text(WATCHER)
    command = [sys.executable, "-m", "vidproc", "index", str(folder / "in"), str(folder / "lake"), "--actions", "none",
               "--detector", "watcher:Watcher", "--device", "cpu", "--quiet"]  # fmt: skip
    return subprocess.run(
        [*before, *command], env=os.environ | {"PYTHONPATH": f"{folder}:{os.getcwd()}", **env},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


UNDER_UV = 'cd "$0" && exec -a uv bash run "$@"'
"""As `uv run` looks to Ray, which then packs the working directory for its workers."""


@pytest.mark.timeout(400)
def test_a_ray_of_our_own_is_for_nobody_else_and_packs_nothing(short: Path) -> None:
    (short / "t").mkdir()
    (short / "run").write_text('"$@"; exit $?\n')
    hooks = {
        "RAY_RUNTIME_ENV_HOOK": "ray._private.runtime_env.uv_runtime_env_hook.hook",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {"working_dir": str(short)}}),
    }
    before = ("bash", "-c", UNDER_UV, str(short))
    done = run(short, *before, TMPDIR=str(short / "t"), SEEN=str(short / "seen.json"), **hooks)
    assert done.returncode == 0, done.stderr
    seen = json.loads((short / "seen.json").read_text())
    assert not seen["works_in"].startswith(str(short / "t")), "in a copy that Ray has made"
    assert {name for name, _ in seen["listens"]} >= {"gcs_server", "raylet"}
    assert {ip for _, ip in seen["listens"]} <= {"127.0.0.1", "::1"}
    [(own, mode, owner)] = [f for f in seen["folders"] if Path(f[0]).parent == short / "t" and "ray" in f[0]]
    assert (mode, owner) == (stat.S_IRWXU, os.getuid()), own
    assert not list((short / "t").iterdir()), "and it is gone with the run"


def test_too_few_open_files_are_said_before_work(short: Path) -> None:
    """Ray itself would wait for its processes for minutes."""
    done = run(short, "sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "64 files" in done.stderr and "ulimit -n" in done.stderr


@pytest.mark.parametrize(
    ("command", "how"),
    [("index", "job"), *((c, how) for c in ("index", "status", "query", "models") for how in ("option", "variable"))],
)
def test_a_profile_that_is_not_there_is_named(
    command: str,
    how: str,
    tmp_path: Path,
    vidproc: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("VIDPROC_MODEL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "config").write_text("[profile there]\nregion = eu-central-1\n")
    (tmp_path / "job.yaml").write_text(
        "archive: s3://cams\nlake: s3://lake\ndetector: demo\nactions: none\nstorage: {profile: nowhere}\n"
    )
    asked = {
        "index": ["index", "s3://cams", "s3://lake", "--detector", "demo", "--actions", "none"],
        "status": ["status", "s3://lake"],
        "query": ["query", "s3://lake", "SELECT 1"],
        "models": ["models", "fetch", str(tmp_path / "m")],
    }[command]
    if command == "models":
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "model.yaml").write_text(
            "name: ours\nfamily: torchvision-detection\narch: ssdlite320_mobilenet_v3_large\nkind: detector\n"
            f"labels: [car]\nweights: s3://models/ours.pt\nsha256: '{'0' * 64}'\n"
        )
    if how == "variable":
        monkeypatch.setenv("AWS_PROFILE", "nowhere")
    elif how == "option":
        asked += ["--profile", "nowhere"]
    else:
        asked = ["index", "--job", str(tmp_path / "job.yaml")]
    code, _, err = vidproc(*asked)
    assert code == 2 and "'nowhere'" in err and "None" not in err and str(tmp_path / "config") in err


LOGS = 'for word in "$@"; do case $word in --stderr_filepath=*) exec 2>"${word#*=}";; esac; done'
"""Ray's processes open their logs themselves."""


@pytest.mark.slow  # up to a minute each
@pytest.mark.parametrize(
    ("does", "told"),
    [
        (
            f"{LOGS}; echo 'the shared memory is too small' >&2; exit 3",
            "its process raylet has ended: the shared memory is",
        ),
        ("sleep 500; true", "Ray could not be started on this machine: "),
    ],
    ids=["dies", "hangs"],
)
def test_a_ray_whose_node_does_not_come_up_is_given_up_with_the_reason(does: str, told: str, short: Path) -> None:
    (short / "raylet").write_text(f"#!/bin/sh\n{does}\n")
    (short / "raylet").chmod(0o755)
    (short / "sitecustomize.py").write_text(
        f"import ray._private.services as services\nservices.RAYLET_EXECUTABLE = {str(short / 'raylet')!r}\n"
    )
    began = time.monotonic()
    done = run(short)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and told in said and "Traceback" not in said, said
    assert time.monotonic() - began < 200  # START_LIMIT_S, on however busy a machine; Ray by itself may wait for ever
