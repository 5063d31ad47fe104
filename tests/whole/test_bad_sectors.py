"""A disk that fails in the middle of a file: that is no damage of the video, and the next night reads it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.media import make_video

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whatever reads a file whose path holds BAD_NAME, near the byte BAD_AT, gets the error BAD_ERRNO. */
ssize_t read(int fd, void *into, size_t size) {
    static ssize_t (*real)(int, void *, size_t);
    const char *name = getenv("BAD_NAME");
    char link[64], path[4096];
    if (!real) real = dlsym(RTLD_NEXT, "read");
    if (name) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        path[length < 0 ? 0 : length] = 0;
        off_t at = strstr(path, name) ? lseek(fd, 0, SEEK_CUR) : -1, bad = atol(getenv("BAD_AT"));
        if (at >= 0 && at < bad + 4096 && at + (off_t)size > bad) {
            errno = atoi(getenv("BAD_ERRNO"));
            return -1;
        }
    }
    return real(fd, into, size);
}
"""


@pytest.fixture(scope="module")
def bad_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that is loaded before the C library, and reads as from a bad disk."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("disk")
    (folder / "disk.c").write_text(SOURCE)
    command = [compiler, "-shared", "-fPIC", str(folder / "disk.c"), "-o", str(folder / "disk.so"), "-ldl"]
    subprocess.run(command, check=True)
    return folder / "disk.so"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for name in ("bad.mp4", "bad.mkv", "bad.ts", "bad.avi", "good.mp4"):
        how = {"format": "mpegts"} if name.endswith(".ts") else {}
        make_video(folder / name, seconds=6, gop=6, size=(320, 240), **how)
    return folder


def run(*words: object, **environment: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "vidproc", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize(
    "number",
    [
        errno.EIO,
        pytest.param(errno.ETIMEDOUT, marks=pytest.mark.slow),
        pytest.param(errno.ESTALE, marks=pytest.mark.slow),
        pytest.param(errno.ENODEV, marks=pytest.mark.slow),
    ],
    ids=errno.errorcode.get,
)
def test_an_error_in_the_middle_of_a_file_is_the_disks(
    number: int, bad_disk: Path, archive: Path, tmp_path: Path
) -> None:
    index = ("index", archive, tmp_path / "lake", "--executor", "inline", "--detector", "tests.support.fakes:Numbers",
             "--actions", "none", "--json", "-q")  # fmt: skip
    at = min(path.stat().st_size for path in archive.iterdir()) // 2
    told = {"LD_PRELOAD": str(bad_disk), "BAD_NAME": "/bad.", "BAD_AT": str(at), "BAD_ERRNO": str(number)}
    code, summary = run(*index, **told)
    assert code == 1 and summary["statuses"] == {"failed": 4, "indexed": 1}
    _, rows = run("query", tmp_path / "lake", "SELECT uri, error_class, error FROM videos WHERE status = 'failed'",
                  "--format", "json")  # fmt: skip
    for row in rows:
        assert row["error_class"] == "unreadable" and os.strerror(number) in row["error"], row
    code, summary = run(*index)
    assert code == 0 and summary["statuses"] == {"indexed": 4} and summary["current"] == 1
