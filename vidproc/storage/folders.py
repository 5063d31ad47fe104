"""A folder, walked without being led astray: what is in it, one entry after the other.

Nothing is opened but folders. A link to a file is followed. A link to a folder is followed where the caller
asks for it, and never to a folder that holds the one that is walked, nor to where it has been, nor into a lake.
No folder of the kernel (proc, sys, dev) is entered, by whatever path it is reached. An error ends at the entry that
has it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

Kind = Literal["file", "link", "broken_link", "special_file", "unreadable"]

KERNEL_FOLDERS = ("/proc", "/sys", "/dev")
SHARED_MEMORY = "/dev/shm"
"""An ordinary place for files, though it lies in `/dev`."""
KERNEL_FILE_SYSTEMS = frozenset(
    [
        *("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs", "configfs"),
        *("bpf", "pstore", "efivarfs", "mqueue", "hugetlbfs", "fusectl", "binfmt_misc", "nsfs", "selinuxfs"),
    ]
)
LAKE_MARKER = "vidproc.json"
"""What every lake holds, and makes a folder one."""
AWAY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What the system answers for a link whose target is not there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in the folder that is no folder, or a folder that is not entered."""

    key: str
    """Below the root, `/` between the parts."""
    kind: Kind
    info: os.stat_result | None = None
    """The status of the file, or of the one that a link leads to. None where it could not be had."""
    reason: str = ""
    """Why it is no file, in words."""
    error: OSError | None = None
    """Why an unreadable one cannot be read."""
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder that is still to be entered."""

    key: str
    real: str
    """Its path without links."""
    above: _Folder | None
    """The one through which it was reached."""
    outside: bool
    """Reached through a link that leaves the root."""
    identity: tuple[int, int] = (0, 0)
    """Device and inode, once it was entered."""

    def is_within(self, identity: tuple[int, int]) -> bool:
        folder = self.above
        while folder is not None:
            if folder.identity == identity:
                return True
            folder = folder.above
        return False


def walk(root: str, below: str = "", *, follow_links: bool = False) -> Iterator[Entry]:
    """Entries below `root/below`, in no promised order, one folder open at a time.

    With `follow_links` a folder outside of the root is entered through the first link that leads to it, by name.
    What links reach inside the root is found at its own place anyway.
    """
    walker = _Walker(root, follow_links)
    waiting = [_Folder(below, os.path.join(walker.real_root, below) if below else walker.real_root, None, False)]
    while waiting:
        folders: list[_Folder] = []
        yield from walker.enter(waiting.pop(), folders)
        # Sorted, so that of two links to one folder the same one is followed every time.
        waiting.extend(sorted(folders, key=lambda f: f.key, reverse=True))


class _Walker:
    def __init__(self, root: str, follow_links: bool) -> None:
        self.root, self.follow_links = root, follow_links
        self.real_root = os.path.realpath(root)
        self._above_root = {_identity(path) for path in _parents(self.real_root)}
        self._entered: set[tuple[int, int]] = set()
        """Folders outside of the root."""
        self._kernel = _kernel_devices()

    def enter(self, folder: _Folder, folders: list[_Folder]) -> Iterator[Entry]:
        """Entries of the folder; the folders in it are added to `folders`."""
        path = os.path.join(self.root, folder.key) if folder.key else self.root
        try:
            identity = _identity(path)
            if _is_kernels(identity[0], folder.real, self._kernel):
                yield Entry(folder.key, "special_file", None, "a folder of the kernel, which holds no videos")
                return
            if folder.is_within(identity) or (folder.outside and identity in self._entered):
                return
            if folder.outside:
                self._entered.add(identity)
                if os.path.lexists(os.path.join(path, LAKE_MARKER)):  # whose files grow with each run
                    yield Entry(folder.key, "link", None, f"{folder.real!r} is a lake, which holds no videos")
                    return
            entered = _Folder(folder.key, folder.real, folder.above, folder.outside, identity)
            with os.scandir(path) as entries:
                for entry in entries:
                    key = f"{folder.key}/{entry.name}" if folder.key else entry.name
                    found = self._look(entry, key, entered)
                    if isinstance(found, Entry):
                        yield found
                    elif found is not None:
                        folders.append(found)
        except (FileNotFoundError, NotADirectoryError):
            return  # gone since it was seen, or a prefix that names no folder
        except OSError as e:
            yield Entry(folder.key, "unreadable", None, _words(e), e, is_folder=True)

    def _look(self, entry: os.DirEntry[str], key: str, within: _Folder) -> Entry | _Folder | None:
        try:
            is_link = entry.is_symlink()
            if not is_link and entry.is_dir(follow_symlinks=False):
                return _Folder(key, os.path.join(within.real, entry.name), within, within.outside)
            info = entry.stat()
        except FileNotFoundError as e:
            # A file that is gone since it was seen is none, a link without a target is one.
            return _not_there(entry, key, e)
        except OSError as e:
            return _not_there(entry, key, e) if e.errno in AWAY else Entry(key, "unreadable", None, _words(e), e)
        if is_link:
            real = os.path.realpath(entry.path)
            if _is_kernels(info.st_dev, real, self._kernel):
                return Entry(key, "link", None, f"a link into {real!r}, which belongs to the kernel")
            if stat.S_ISDIR(info.st_mode):
                return self._look_through(key, real, (info.st_dev, info.st_ino), within)
        if stat.S_ISREG(info.st_mode):
            return Entry(key, "file", info)
        return Entry(key, "special_file", None, f"{_kind_of(info.st_mode)}, which is never opened")

    def _look_through(self, key: str, real: str, identity: tuple[int, int], within: _Folder) -> Entry | _Folder | None:
        """A link to a folder."""
        if os.path.commonpath([real, self.real_root]) == self.real_root:
            return None
        if identity in self._above_root:
            return Entry(key, "link", None, f"a link to {real!r}, in which the archive itself lies: never followed")
        if not self.follow_links:
            return Entry(key, "link", None, f"a link to {real!r}, outside of the archive: --follow-links goes there")
        return _Folder(key, real, within, True)


def why_perhaps_there(root: str, key: str) -> str:
    """Why a file that a listing did not show may be there all the same, in words; empty: it is gone.

    An empty folder in its place may be where a disk is mounted on other days, and so may the target of a link."""
    path = os.path.join(root, key)
    try:
        os.lstat(path)
        return f"{path} is there, though it was not listed"
    except OSError as e:
        if e.errno not in (errno.ENOENT, errno.ENOTDIR):
            return f"{path}: {_words(e)}"
    folder = os.path.dirname(path)
    while len(folder) >= len(root):
        try:
            with os.scandir(folder) as entries:
                return "" if any(entries) else f"{folder} is empty: is its disk mounted?"
        except OSError as e:
            if os.path.islink(folder) or e.errno not in (errno.ENOENT, errno.ENOTDIR):
                return f"{folder}: {_words(e)}"
        folder = os.path.dirname(folder)
    return f"{root} is not there"


def is_kernels(path: str) -> bool:
    """Whether what lies there is made up by the kernel: proc, sys, dev, by whatever path. Raises OSError."""
    return _is_kernels(os.stat(path).st_dev, os.path.realpath(path), _kernel_devices())


def _is_kernels(device: int, real: str, devices: frozenset[int]) -> bool:
    if device in devices:
        return True
    return any(_lies_in(real, place) for place in KERNEL_FOLDERS) and not _lies_in(real, SHARED_MEMORY)


def _not_there(entry: os.DirEntry[str], key: str, error: OSError) -> Entry | None:
    try:
        os.lstat(entry.path)
    except FileNotFoundError:
        return None
    except OSError as e:
        return Entry(key, "unreadable", None, _words(e), e)
    return Entry(key, "broken_link", None, "a symbolic link that leads nowhere, or to itself", error)


def _kernel_devices() -> frozenset[int]:
    """Device numbers of the file systems that the kernel makes up, wherever they are mounted."""
    devices: set[int] = set()
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            fields, _, rest = line.partition(" - ")
            if rest.split(" ")[0] in KERNEL_FILE_SYSTEMS:
                major, _, minor = fields.split(" ")[2].partition(":")
                devices.add(os.makedev(int(major), int(minor)))
    with suppress(OSError):
        top = os.stat("/").st_dev
        for place in KERNEL_FOLDERS:  # `/dev` of a container is a memory disk of its own
            with suppress(OSError):
                devices |= {os.stat(place).st_dev} - {top}
    return frozenset(devices)


def _identity(path: str) -> tuple[int, int]:
    info = os.stat(path)
    return info.st_dev, info.st_ino


def _parents(path: str) -> Iterator[str]:
    while (above := os.path.dirname(path)) != path:
        yield above
        path = above


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _words(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _kind_of(mode: int) -> str:
    kinds = (
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    )
    return next((name for is_it, name in kinds if is_it(mode)), "no regular file")
