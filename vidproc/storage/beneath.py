"""Files below a folder, reached without a single link on the way: how a lake in a folder is read and written.

A lake may have been made by anybody. A symbolic link in it would let its author choose what is read, overwritten
or deleted elsewhere, and a pipe would be waited on for ever. So each part of a key is opened by itself, from the
handle of the part above it: what is checked is what is used, whatever is renamed meanwhile. The root itself may
be a link, since it is the user who names it.

Keys have their parts separated by `/`, none of which is empty, `.` or `..` (the caller sees to that). Errors of the
system pass, except that a link and what is no regular file raise Forged.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from vidproc.errors import ConfigError, Forged

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 20
"""Attempts to make a folder that others delete as soon as it is empty."""


@contextmanager
def folder(root: str, key: str, *, make: bool = False) -> Iterator[int]:
    """A handle of the folder `key` ("": the root). With `make` the folders on the way are made where they lack."""
    if make:
        with _making(root):
            os.makedirs(root, exist_ok=True)
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reached = root
        for name in key.split("/") if key else ():
            reached = f"{reached}/{name}"
            above, handle = handle, _enter(handle, name, reached, make)
            os.close(above)
        yield handle
    finally:
        os.close(handle)


def _enter(above: int, name: str, path: str, make: bool) -> int:
    for _ in range(_TRIES):
        try:
            return os.open(name, _FOLDER, dir_fd=above)
        except FileNotFoundError:
            if not make:
                raise
        except OSError:
            _refuse_link(above, name, path)
            if make:
                with _making(path):
                    raise
            raise
        with suppress(FileExistsError, FileNotFoundError):
            os.mkdir(name, dir_fd=above)
    raise FileNotFoundError(f"{path} is deleted as fast as it is made")


@contextmanager
def _making(path: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError) as e:
        raise ConfigError(f"no folder can be made at {path!r} ({e.strerror}): give another place") from e


def open_file(root: str, key: str) -> BinaryIO:
    """The regular file at `key`, for reading."""
    above, _, name = key.rpartition("/")
    with folder(root, above) as at:
        try:
            handle = os.open(name, _FILE, dir_fd=at)
        except OSError:
            _refuse_link(at, name, f"{root}/{key}")
            raise
    try:
        _refuse_special(os.fstat(handle).st_mode, f"{root}/{key}")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check(root: str, key: str, seen: set[str] | None = None) -> None:
    """Raises Forged where a link lies on the way to `key`, or where what lies there is neither a file nor a folder.
    What is not there is well. `seen` remembers folders between calls."""
    seen = set() if seen is None else seen
    reached, parts = root, key.split("/")
    for i, name in enumerate(parts):
        reached = f"{reached}/{name}"
        if reached in seen:
            continue
        try:
            mode = os.lstat(reached).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISLNK(mode):
            raise _is_link(reached)
        if not stat.S_ISDIR(mode):
            _refuse_special(mode, reached)
        elif i < len(parts) - 1:
            seen.add(reached)


def is_file(root: str, key: str) -> bool:
    check(root, key)
    with suppress(OSError):
        return stat.S_ISREG(os.lstat(f"{root}/{key}").st_mode)
    return False


def put(root: str, key: str, data: bytes, temporary: str, *, if_absent: bool) -> str:
    """Writes the whole file, durably, under the name `temporary` first; gives its modification time in nanoseconds.
    Raises FileExistsError with `if_absent` where something is there."""
    above, _, name = key.rpartition("/")
    with folder(root, above, make=True) as at:
        handle = os.open(temporary, _NEW, 0o666, dir_fd=at)
        try:
            with os.fdopen(handle, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(handle)
                modified = os.fstat(handle).st_mtime_ns
            if if_absent:
                os.link(temporary, name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
            else:
                os.replace(temporary, name, src_dir_fd=at, dst_dir_fd=at)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=at)
        os.fsync(at)
    return str(modified)


def delete(root: str, key: str) -> None:
    """Removes a file (of a link: the link), unless it is gone."""
    above, _, name = key.rpartition("/")
    with suppress(FileNotFoundError, NotADirectoryError), folder(root, above) as at:
        os.unlink(name, dir_fd=at)


def prune(root: str, key: str) -> None:
    """Removes the folder `key`, and those above it, as far as they are empty. The root stays."""
    with suppress(OSError, Forged):
        while key:
            above, _, name = key.rpartition("/")
            with folder(root, above) as at:
                os.rmdir(name, dir_fd=at)
            key = above


def walk(root: str, below: str = "", start: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Files below `root/below` whose key is not before `start`, in no promised order, one folder open at a time."""
    waiting = [below]
    while waiting:
        key = waiting.pop()
        with suppress(FileNotFoundError, NotADirectoryError), folder(root, key) as at, os.scandir(at) as entries:
            for entry in entries:
                found = f"{key}/{entry.name}" if key else entry.name
                if found < start:
                    continue
                if entry.is_symlink():
                    raise _is_link(f"{root}/{found}")
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(found)
                    continue
                with suppress(FileNotFoundError):  # gone since it was seen
                    info = entry.stat(follow_symlinks=False)
                    _refuse_special(info.st_mode, f"{root}/{found}")
                    yield found, info


def _refuse_link(at: int, name: str, path: str) -> None:
    with suppress(OSError):
        if stat.S_ISLNK(os.lstat(name, dir_fd=at).st_mode):
            raise _is_link(path)


def _is_link(path: str) -> Forged:
    return Forged(
        f"{path} is a symbolic link, and nothing in a lake is reached through links: somebody else put it there, or "
        "moved a part of the lake away. Put the real file or folder in its place"
    )


def _refuse_special(mode: int, path: str) -> None:
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise Forged(f"{path} is no regular file but a pipe, a socket or a device, which a lake never holds: remove it")
