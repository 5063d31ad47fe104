"""The wheel works outside the checkout: schemas and demo weights are inside it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = """
import vidproc, sys, pathlib
from vidproc.models import ModelSettings, load_model
from vidproc.tables.schema import TABLES, load_schema
import numpy as np
assert pathlib.Path(vidproc.__file__).is_relative_to(sys.prefix), vidproc.__file__
assert all(len(load_schema(name).fields) > 5 for name in TABLES)
for kind in ("detector", "actions"):
    model = load_model("demo", device="cpu", settings=ModelSettings(kind=kind))
    print(model.card.ref, len(model.card.labels))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (built,) = out.glob("vidproc-*.whl")
    return built


def test_the_wheel_holds_what_it_needs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"vidproc/_schemas/videos.yaml", "vidproc/py.typed"} <= {*names}
    assert sum(name.endswith(".safetensors") for name in names) == 2
    assert all(name.split("/")[0] in ("vidproc", "vidproc-0.2.0.dist-info") for name in names)
    assert wheel.stat().st_size < 12 << 20


def test_the_installed_wheel_works_alone(wheel: Path, tmp_path: Path) -> None:
    """Installed into an environment of its own. What it depends on is lent by this one (a path, so that
    gigabytes are not installed twice); the checkout is not."""
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*/site-packages"))
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(python), str(wheel)], check=True
    )
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([python, "-c", SCRIPT], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout
    version = subprocess.run(
        [home / "bin" / "vidproc", "--version"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert version.stdout.splitlines()[0] == "vidproc 0.2.0", version.stderr


def requirements(wheel: Path) -> dict[str, list[str]]:
    """Extra (empty: the base) -> names of the packages that the wheel asks for."""
    archive = zipfile.ZipFile(wheel)
    (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    found: dict[str, list[str]] = {}
    for line in archive.read(path).decode().splitlines():
        if match := re.match(r"Requires-Dist: ([\w.-]+)[^;]*(?:;.*extra == '(\w+)')?", line):
            found.setdefault(match[2] or "", []).append(match[1].lower().replace("_", "-"))
    return found


def test_the_base_reads_and_the_extra_indexes(wheel: Path) -> None:
    found = requirements(wheel)
    heavy = {"ray", "torch", "torchvision", "av", "onnxruntime"}
    assert not heavy & {*found[""]} and heavy <= {*found["index"]}
    assert {"duckdb", "duckdb-extension-delta", "deltalake", "pyarrow"} <= {*found[""]}
    assert {*found["index"]} <= {*found["learn"], "ray"}, "learning needs what indexing needs"


def test_one_opencv_in_one_environment(wheel: Path) -> None:
    """The tracker brings one wheel of it; naming another would install a second over the first."""
    found = requirements(wheel)
    assert not [p for extra in ("", "index", "learn") for p in found[extra] if p.startswith("opencv")]
    here = [d.name for d in distributions() if (d.name or "").lower().startswith("opencv")]
    assert len(here) == 1, here


def test_what_is_missing_is_named_with_what_to_install(tmp_path: Path) -> None:
    """As a small installation sees it: the packages of the extra cannot be imported."""
    (tmp_path / "reads.py").write_text(
        "import sys\n"
        "for name in ('ray', 'torch', 'torchvision', 'av', 'onnxruntime', 'trackers', 'supervision', 'scipy'):\n"
        "    sys.modules[name] = None\n"
        "from vidproc.cli import main\n"
        "main()\n"
    )
    (tmp_path / "in").mkdir()
    shutil.copy(ROOT / "README.md", tmp_path / "in" / "a.mp4")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, tmp_path / "reads.py", *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    for words in (["index", tmp_path / "in", tmp_path / "lake", "--detector", "demo", "--executor", "inline"],
                  ["models", "check", "demo", "--kind", "detector"]):  # fmt: skip
        done = run(*words)
        assert done.returncode == 2, done.stderr
        assert re.search(r"^vidproc: \w+ is not installed: .* pip install 'vidproc\[index\]'$", done.stderr, re.M)
    assert run("models", "list").returncode == run("--version").returncode == run("index", "--help").returncode == 0


@pytest.mark.slow  # fetches half a gigabyte where no cache has it
def test_a_reader_is_small_and_reads(wheel: Path, tmp_path: Path) -> None:
    from tests.support.lakes import RUN, link, outcome
    from vidproc.tables.lake import Lake
    from vidproc.tables.publish import publish

    lake = Lake.create(str(tmp_path / "lake"))
    publish(lake, [outcome("a", storage=lake.storage)], link, RUN)
    home = tmp_path / "env"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, home], check=True)
    python = home / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--link-mode", "copy", "--python", python, wheel], check=True)
    size = sum(f.stat().st_size for f in home.rglob("*") if f.is_file() and not f.is_symlink()) / 1e6
    print(f"\na reader takes {size:.0f} MB on disk")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    words = [home / "bin" / "vidproc", "query", lake.uri, "SELECT count(*) AS n FROM videos", "--format", "csv"]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "n\n1\n"), done.stderr
    assert size < READER_MB


READER_MB = 640
"""What a reader may take on disk. pyarrow, deltalake, and duckdb with its two extensions are 450 of it; 400 for all is
what we want, and would need the tables' logs to be read by one library in place of two."""
