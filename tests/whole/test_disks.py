"""Disks that are full, read-only or limited: said once, in plain words, with an exit code, and mended by an operator.

The disks are real: small ones in memory, in a mount namespace of the test's own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.media import make_video

IMPATIENT = """
from functools import partial
import vidproc.run.driver as run
from vidproc.cli import main
run.Limits = partial(run.Limits, first_wait_s=0.02, longest_wait_s=0.2, infra_strikes=3)
main()
"""
"""The command line, without the minutes for which it waits for room on a disk."""
INDEX = (
    f'"{sys.executable}" impatient.py index in lake --detector tests.support.fakes:Numbers --actions none'
    " --executor inline --clip-seconds 0.5"
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    folder = tmp_path_factory.mktemp("disks")
    (folder / "in").mkdir()
    for name in ("a", "b", "c"):
        make_video(folder / f"in/{name}.mp4", seconds=4)
    return folder


def on_a_disk(archive: Path, tmp_path: Path, size: str, then: str) -> list[tuple[int, str]]:
    """Runs INDEX with the lake on a disk of `size`, does `then` to the disk, and runs it again: exit codes, output."""
    script = f"""
        mkdir lake && mount -t tmpfs -o size={size} tmpfs lake || exit 77
        {INDEX} >first 2>&1; echo $? >first.code
        {then}
        {INDEX} >second 2>&1; echo $? >second.code
    """
    (tmp_path / "in").symlink_to(archive / "in")
    (tmp_path / "impatient.py").write_text(IMPATIENT)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root), "LANG": "C.UTF-8"},
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip(f"no disk can be mounted here: {done.stderr}")
    return [(int((tmp_path / f"{n}.code").read_text()), (tmp_path / n).read_text()) for n in ("first", "second")]


@pytest.mark.slow  # it tries again, and waits a little each time
@pytest.mark.parametrize("size", ["100k", "250k"])
def test_a_full_disk_is_told_and_the_next_run_goes_on(size: str, archive: Path, tmp_path: Path) -> None:
    first, second = on_a_disk(archive, tmp_path, size, "mount -o remount,size=200m lake")
    assert first[0] == 1, first
    assert "Traceback" not in first[1] and "disk is full" in first[1], first[1]
    assert "panicked" not in first[1], first[1]
    assert re.search(r"exit code 1: .*/lake/.*disk is full", first[1]), first[1]
    # Where the disk became full in the midst of a publication, that one is completed.
    assert second[0] == 0 and ("3 indexed" in second[1] or "3 already there" in second[1]), second[1]


def test_a_disk_that_became_read_only_is_a_bad_place(archive: Path, tmp_path: Path) -> None:
    first, second = on_a_disk(archive, tmp_path, "200m", "mount -o remount,ro lake; touch in/a.mp4")
    assert first[0] == 0, first
    assert second[0] == 2 and "read-only" in second[1], second
    assert "Traceback" not in second[1] and len(second[1].splitlines()) == 1, second[1]


def test_files_that_may_not_grow_are_told(archive: Path, tmp_path: Path) -> None:
    first, second = on_a_disk(archive, tmp_path, "200m", "ulimit -f 1; rm -rf lake/*")
    assert first[0] == 0, first
    assert second[0] in (1, 2) and "ulimit -f" in second[1] and "Traceback" not in second[1], second
