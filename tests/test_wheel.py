"""The wheel works outside the checkout: schemas and demo weights are inside it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
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
    assert "vidproc/_schemas/videos.yaml" in names
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
    assert version.stdout.strip() == "vidproc 0.2.0", version.stderr
