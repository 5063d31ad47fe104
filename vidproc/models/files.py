"""Files of models, read once and whole, from where they may lie."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from vidproc.errors import ConfigError


def read_file(path: Path) -> bytes:
    """The whole of a regular file. Raises OSError, also for what is no file (a pipe would be waited on for ever)."""
    return _read(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))


def read_below(folder: Path, name: str, *, where: str, what: str) -> bytes:
    """The file `name` in `folder` or in a folder below it. Raises ConfigError where the name leads elsewhere, by
    `..`, as an absolute path or through a link, or where there is no such file. `where` and `what` are for messages:
    the file that gave the name, and what it names ("labels file")."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name or "\\" in name:
        raise ConfigError(f"{where}: the {what} must lie in the folder of the model or below it, not at {name!r}.")
    base = Path(os.path.realpath(folder))
    real = Path(os.path.realpath(base / name))
    if not real.is_relative_to(base):
        raise ConfigError(
            f"{where}: the {what} {name!r} is a link that leads out of the model's folder, to {real}: put a copy there."
        )
    try:
        return _read(_open_without_links(base, real.relative_to(base).parts))
    except OSError as e:
        raise ConfigError(f"{where}: the {what} {base / name} cannot be read ({e.strerror}).") from e


def _open_without_links(base: Path, parts: tuple[str, ...]) -> int:
    """A link that somebody puts in place of a folder after the check is an error, and is not followed."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            below = os.open(part, flags, dir_fd=handle)
        finally:
            os.close(handle)
        handle = below
    return handle


def _read(handle: int) -> bytes:
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(0, "it is no file")
        f = os.fdopen(handle, "rb", closefd=False)
        return f.read()
    finally:
        os.close(handle)
