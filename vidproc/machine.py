"""How much of the machine this process may use: inside a container less than what the machine has.

Linux limits a group of processes (a container, a pod, a systemd slice, a batch job) by control groups. Groups nest,
and each limit holds for everything below it, so what counts is the smallest on the way from the root to our own group.
There are two kinds: version 2 has one tree, version 1 a tree for each controller, and both may be mounted at once.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

NO_LIMIT_BYTES = 1 << 62
"""Version 1 has no word for "no limit": it says the largest multiple of a page that fits into 63 bits."""


def cpu_count(root: str = "/") -> int:
    """Return the number of CPUs this process can keep busy: those it may run on (taskset, cpuset), or what the CPU
    quota of its control groups allows, whichever is less. A part of a CPU counts as one; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota - 0.01) for quota in cpu_quotas(root))]))


def memory_bytes(root: str = "/") -> int:
    """Return the bytes of memory this process may use: the machine's, or the limit of its control groups."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *memory_limits(root)])


def cpu_quotas(root: str = "/") -> list[float]:
    """Return the CPUs, as a fraction, that each control group on the way to ours allows. Empty: none sets a limit."""
    quotas = []
    for version, folder in _groups(root, "cpu"):
        if version == 2:
            quota, _, period = _read(folder / "cpu.max").partition(" ")
        else:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if _number(quota) > 0 and _number(period) > 0:  # "max" and -1: no limit
            quotas.append(_number(quota) / _number(period))
    for _, folder in _groups(root, "cpuset"):
        cpus = _read(folder / "cpuset.cpus.effective") or _read(folder / "cpuset.cpus")
        if number := _listed(cpus):
            quotas.append(float(number))
    return quotas


def memory_limits(root: str = "/") -> list[int]:
    """Return the limits in bytes of the control groups on the way to ours: those at which the kernel ends a process,
    and those from which it slows all of them down. Empty: none sets a limit."""
    names = {2: ("memory.max", "memory.high"), 1: ("memory.limit_in_bytes",)}
    limits = [_number(_read(folder / name)) for version, folder in _groups(root, "memory") for name in names[version]]
    return [limit for limit in limits if 0 < limit < NO_LIMIT_BYTES]


def _groups(root: str, controller: str) -> Iterator[tuple[int, Path]]:
    """Yield the version and the folder of each control group from ours up to the root of its tree."""
    if sys.platform != "linux":
        return
    ours = _our_groups(root)
    for version, mounted_at, shown in _mounts(root, controller):
        path = ours.get("" if version == 2 else controller)
        if path is None:
            continue
        # A container may see the tree from its own group on only: then our path begins above what is mounted.
        below = path.removeprefix(shown.rstrip("/")) if f"{path}/".startswith(f"{shown.rstrip('/')}/") else "/"
        top = Path(root, mounted_at.lstrip("/"))
        folder = Path(top, below.strip("/"))
        while not folder.is_dir() and folder != top:  # seen from another namespace: the path is not there
            folder = folder.parent
        yield version, folder
        while folder != top:
            folder = folder.parent
            yield version, folder


def _our_groups(root: str) -> dict[str, str]:
    """Return the path of our group by controller; that of version 2 under the empty name."""
    found = {}
    for line in _read(Path(root, "proc/self/cgroup")).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # A path that leaves the tree ("/../other") belongs to a group that cannot be seen from here.
        found.update(dict.fromkeys(controllers.split(","), "/" if ".." in Path(path).parts else path))
    return found


def _mounts(root: str, controller: str) -> Iterator[tuple[int, str, str]]:
    """Yield version, mount point, and which group is shown there, of the trees that may limit the controller."""
    for line in _read(Path(root, "proc/self/mountinfo")).splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or not kind:
            continue
        if kind[0] == "cgroup2" or (kind[0] == "cgroup" and controller in kind[-1].split(",")):
            yield 2 if kind[0] == "cgroup2" else 1, _plain(fields[4]), _plain(fields[3])


def _plain(field: str) -> str:
    """Return a path of mountinfo, in which spaces and the like are written in octal."""
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def _listed(cpus: str) -> int:
    """Count the CPUs in a list such as 0-3,8."""
    count = 0
    for part in filter(None, cpus.split(",")):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            return 0
        count += int(last or first) - int(first) + 1
    return count
