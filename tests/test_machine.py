"""A container's share of the machine decides, not the machine: by control groups drawn as files, and by real ones."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.media import make_video
from vidproc.machine import cpu_count, cpu_quotas, memory_bytes, memory_limits

GIB = 1 << 30
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
V1 = (
    "32 31 0:29 {shown} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {shown} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "33 31 0:33 {shown} /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset"
)
NONE_1 = 9223372036854771712


def draw(root: Path, ours: str, mounts: str, files: Mapping[str, object]) -> str:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"{ours}\n")
    (root / "proc/self/mountinfo").write_text(f"22 27 0:21 / /proc rw - proc proc rw\n{mounts}\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return str(root)


CASES = {
    "no limit": ("0::/user", V2, {"user/cpu.max": "max 100000", "user/memory.max": "max"}, math.inf, None),
    "a container that sees its own group only": (
        "0::/", V2, {"cpu.max": "150000 100000", "memory.max": 2 * GIB}, 1.5, 2 * GIB,
    ),
    "the smallest on the way counts": (
        "0::/kube/pod/box", V2,
        {"kube/cpu.max": "800000 100000", "kube/pod/cpu.max": "50000 100000", "kube/pod/box/cpu.max": "max 100000",
         "kube/memory.max": 3 * GIB, "kube/pod/memory.max": 8 * GIB, "kube/pod/box/memory.max": "max"},
        0.5, 3 * GIB,
    ),
    "a soft limit counts": ("0::/a", V2, {"a/memory.max": 4 * GIB, "a/memory.high": GIB}, math.inf, GIB),
    "another period": ("0::/a", V2, {"a/cpu.max": "20000 10000"}, 2.0, None),
    "the first version": (
        "4:memory:/box\n1:cpu,cpuacct:/box", V1.format(shown="/"),
        {"cpu,cpuacct/box/cpu.cfs_quota_us": 300000, "cpu,cpuacct/box/cpu.cfs_period_us": 100000,
         "cpu,cpuacct/cpu.cfs_quota_us": -1, "cpu,cpuacct/cpu.cfs_period_us": 100000,
         "memory/box/memory.limit_in_bytes": NONE_1, "memory/memory.limit_in_bytes": GIB},
        3.0, GIB,
    ),
    "the first version, mounted from the container's group on": (
        "4:memory:/docker/abc/job\n1:cpu,cpuacct:/docker/abc", V1.format(shown="/docker/abc"),
        {"cpu,cpuacct/cpu.cfs_quota_us": 100000, "cpu,cpuacct/cpu.cfs_period_us": 100000,
         "memory/memory.limit_in_bytes": 3 * GIB, "memory/job/memory.limit_in_bytes": 2 * GIB},
        1.0, 2 * GIB,
    ),
    "a path of another namespace": (
        "0::/../../other", V2, {"cpu.max": "100000 100000", "memory.max": GIB}, 1.0, GIB,
    ),
    "both versions at once": (
        "4:memory:/box\n0::/unit", f"{V1.format(shown='/')}\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 c rw",
        {"memory/box/memory.limit_in_bytes": 5 * GIB, "unified/unit/memory.max": "max", "unified/unit/cpu.max":
         "200000 100000"}, 2.0, 5 * GIB,
    ),
    "a set of CPUs": ("33:cpuset:/box", V1.format(shown="/"), {"cpuset/box/cpuset.cpus": "0-3,8"}, 5.0, None),
    "nonsense": ("0::/a", V2, {"a/cpu.max": "", "a/memory.max": "many"}, math.inf, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_smallest_limit_on_the_way_counts(case: str, tmp_path: Path) -> None:
    ours, mounts, files, cpus, memory = CASES[case]
    root = draw(tmp_path, ours, mounts, files)
    assert min(cpu_quotas(root), default=math.inf) == cpus
    assert min(memory_limits(root), default=None) == memory
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_bytes(root) == min(machine, memory or machine)
    have = len(os.sched_getaffinity(0))
    assert cpu_count(root) == (have if cpus == math.inf else min(have, math.ceil(cpus)))


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    assert cpu_count(str(tmp_path)) == len(os.sched_getaffinity(0))
    assert memory_bytes(str(tmp_path)) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


MEMORY = 3 * GIB


@pytest.fixture
def groups() -> Iterator[list[Path]]:
    """Files of real control groups of half a CPU and 3 GiB: whoever writes 0 into each of them joins."""
    base = Path("/sys/fs/cgroup")
    if (base / "cgroup.controllers").exists():
        limits: dict[Path, dict[str, int | str]] = {base: {"cpu.max": "50000 100000", "memory.max": MEMORY}}
    else:
        limits = {
            base / "cpu": {"cpu.cfs_period_us": 100000, "cpu.cfs_quota_us": 50000},
            base / "memory": {"memory.limit_in_bytes": MEMORY},
        }
    made: list[Path] = []
    try:
        for place, files in limits.items():
            group = place / f"vidproc-test-{os.getpid()}"
            group.mkdir()
            made.append(group)
            for name, value in files.items():
                (group / name).write_text(str(value))
        joined = subprocess.run(
            ["sh", "-c", " && ".join(f"echo 0 > {group}/cgroup.procs" for group in made)],
            capture_output=True, text=True,
        )  # fmt: skip
        if joined.returncode:
            raise OSError(joined.stderr.strip())
    except OSError as error:
        for group in made:
            group.rmdir()
        pytest.skip(f"no control group can be made and joined here: {error}")
    yield [group / "cgroup.procs" for group in made]
    for group in made:
        with suppress(OSError):
            group.rmdir()


def test_a_real_quota_decides_how_many_workers_are_planned(groups: list[Path], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in/a.mp4", seconds=1)
    join = " && ".join(f"echo 0 > {file}" for file in groups)
    arguments = [sys.executable, "-m", "vidproc", "plan", str(tmp_path / "in"),
                 "--detector", "tests.support.fakes:Numbers", "--actions", "none", "--executor", "inline",
                 "--calibrate", "0", "--json"]  # fmt: skip
    done = subprocess.run(
        ["sh", "-c", f'{join} && exec "$@"', "sh", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["workers"] == 1
    code = "from vidproc.machine import memory_bytes; print(memory_bytes())"
    done = subprocess.run(
        ["sh", "-c", f'{join} && exec "$@"', "sh", sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.stdout.strip() == str(MEMORY), done.stderr
