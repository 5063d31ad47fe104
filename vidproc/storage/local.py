"""A folder as a place: files are its objects, their modification times the etags."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import BinaryIO

from vidproc.errors import AlreadyExists, ConfigError, DiskFull, NotFound, SourceChanged, TransientError
from vidproc.storage import beneath, faults
from vidproc.storage.addresses import local_path
from vidproc.storage.folders import AWAY, Entry, is_kernels, walk
from vidproc.storage.place import EARLIEST, ObjectInfo, delta_path, leads_out, representable

_TEMPORARY = ".vidproc-put-"
"""Beginning of the names of files that are still being written."""


@dataclass(frozen=True, slots=True)
class LocalStorage:
    root: str
    """Absolute."""
    follow_links: bool = True
    """Whether a listing goes into folders outside of the root that links lead to."""
    confined: bool = False
    """Whether links below the root are refused, by every call, and pipes and devices with them."""

    @property
    def uri(self) -> str:
        return self.root

    def confining(self) -> LocalStorage:
        return replace(self, confined=True)

    def uri_of(self, key: str) -> str:
        return os.path.join(self.root, key) if key else self.root

    def _path(self, key: str) -> str:
        parts = key.split("/")
        if not key or "\0" in key or any(p in ("", ".", "..") for p in parts):
            if self.confined:
                raise leads_out(self.root, key)
            raise ValueError(f"not a key below a folder: {key!r}")
        return os.path.join(self.root, *parts)

    def list(
        self, prefix: str = "", on_denied: Callable[[str, str], None] | None = None, *, start: str = ""
    ) -> Iterator[ObjectInfo]:
        self._check_root()
        if self.confined:
            yield from self._list_confined(prefix, start)
            return
        for entry in walk(self.root, prefix.rpartition("/")[0], follow_links=self.follow_links):
            if entry.is_folder and (on_denied is None or not entry.key):
                raise _refused_folder(entry, self.uri_of(entry.key))
            if entry.is_folder and on_denied is not None:
                on_denied(entry.key, entry.reason)
            elif not self._is_listed(entry.key, prefix, start):
                continue
            elif on_denied is not None or entry.kind in ("file", "broken_link"):
                yield _object(entry)
            elif entry.error is not None:
                raise _translate_os(entry.error, self.uri_of(entry.key)) from entry.error

    def _list_confined(self, prefix: str, start: str) -> Iterator[ObjectInfo]:
        below = prefix.rpartition("/")[0]
        if below:
            self._path(below)
        try:
            for key, info in beneath.walk(self.root, below, start):
                if self._is_listed(key, prefix, start):
                    yield _object(Entry(key, "file", info))
        except OSError as e:
            raise _translate_os(e, e.filename if isinstance(e.filename, str) else self.uri_of(below)) from e

    def _is_listed(self, key: str, prefix: str, start: str) -> bool:
        return key.startswith(prefix) and key > start and not key.rpartition("/")[2].startswith(_TEMPORARY)

    def _check_root(self) -> None:
        try:
            info = os.stat(self.root)
        except OSError as e:
            gone = e.errno in AWAY
            what = "there is no folder" if gone else f"the folder cannot be looked at ({e.strerror}):"
            raise ConfigError(f"{what} {self.root!r}; check the path, or that its disk is mounted") from e
        if stat.S_ISREG(info.st_mode):
            folder, name = os.path.split(self.root)
            raise ConfigError(
                f"{self.root!r} is a file: give its folder {folder!r}, and name the file by --include {name!r}"
            )
        if not stat.S_ISDIR(info.st_mode) or is_kernels(self.root):
            raise ConfigError(f"{self.root!r} is no folder of files: it is not a lake, and no place of videos")

    def _open(self, key: str) -> BinaryIO:
        path = self._path(key)
        return beneath.open_file(self.root, key) if self.confined else open(path, "rb")

    def get(self, key: str) -> bytes:
        with _filing(self.uri_of(key)), self._open(key) as f:
            return f.read()

    def get_range(self, key: str, start: int, length: int, if_match: str | None = None) -> bytes:
        with _filing(self.uri_of(key)), self._open(key) as f:
            _same_file(f, if_match, self.uri_of(key))
            f.seek(start)
            return f.read(length)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> str:
        with _filing(self.uri_of(key)):
            while True:
                # Gone: a writer that slept for a day finds its half-written file taken for a dead one's.
                with suppress(FileNotFoundError):
                    return self._put(key, data, if_absent)

    def _put(self, key: str, data: bytes, if_absent: bool) -> str:
        path, name = self._path(key), _TEMPORARY + uuid.uuid4().hex
        if self.confined:
            try:
                return beneath.put(self.root, key, data, name, if_absent=if_absent)
            except FileExistsError as e:
                raise AlreadyExists(f"{path} is there already") from e
        folder = os.path.dirname(path)
        temporary = os.path.join(folder, name)
        f = _create(temporary)
        try:
            with f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
                etag = str(os.fstat(f.fileno()).st_mtime_ns)
            if if_absent:
                os.link(temporary, path)
            else:
                os.replace(temporary, path)
        except FileExistsError as e:
            raise AlreadyExists(f"{path} is there already") from e
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync_folder(folder)
        return etag

    def put_file(self, key: str, path: str) -> None:
        if self.confined:
            raise ValueError(f"files are put into plain folders only, not into the lake {self.root}")
        target = self._path(key)
        folder = os.path.dirname(target)
        temporary = os.path.join(folder, _TEMPORARY + uuid.uuid4().hex)
        with _filing(self.uri_of(key)):
            try:
                with open(path, "rb") as source, _create(temporary) as f:
                    if os.fstat(source.fileno()).st_dev != os.fstat(f.fileno()).st_dev:
                        shutil.copyfileobj(source, f, 1 << 20)
                        path = temporary
                    f.flush()
                    os.fsync(f.fileno() if path == temporary else source.fileno())
                os.replace(path, target)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
            _sync_folder(folder)

    def delete(self, keys: Iterable[str]) -> None:
        folders: set[str] = set()
        for key in keys:
            path = self._path(key)
            with _filing(self.uri_of(key)), suppress(FileNotFoundError, NotADirectoryError):
                if self.confined:
                    beneath.delete(self.root, key)
                else:
                    os.unlink(path)
            folders.add(os.path.dirname(key if self.confined else path))
        if self.confined:
            for folder in sorted(folders, key=len, reverse=True):
                beneath.prune(self.root, folder)
            return
        for folder in sorted(folders, key=len, reverse=True):
            # Stores have no folders, so none is left behind: rmdir refuses the ones in use.
            with suppress(OSError):
                while len(folder) > len(self.root):
                    os.rmdir(folder)
                    folder = os.path.dirname(folder)

    def exists(self, key: str) -> bool:
        path = self._path(key)
        return beneath.is_file(self.root, key) if self.confined else os.path.isfile(path)

    def delta_uri(self, key: str) -> str:
        path = self._path(key)
        if self.confined:
            beneath.check(self.root, key)
        return delta_path(path)

    def delta_options(self) -> dict[str, str]:
        return {}

    def duckdb_secrets(self) -> tuple[dict[str, str], dict[str, str]]:
        return {}, {}

    def remove_temporary(self, older_than_s: float) -> int:
        """Removes what killed writers left of objects half written; gives how many. The file system's clock counts,
        which is not always this machine's."""
        with tempfile.TemporaryFile(prefix=_TEMPORARY, dir=self.root) as just_made:
            limit, removed = os.fstat(just_made.fileno()).st_mtime - older_than_s, 0
        for entry in walk(self.root, follow_links=False):
            path = self.uri_of(entry.key)
            with suppress(FileNotFoundError):
                if os.path.basename(path).startswith(_TEMPORARY) and os.lstat(path).st_mtime <= limit:
                    if self.confined:
                        beneath.delete(self.root, entry.key)
                    else:
                        os.unlink(path)
                    removed += 1
        return removed


def _object(entry: Entry) -> ObjectInfo:
    if entry.info is None:
        return ObjectInfo(entry.key, 0, "", EARLIEST, entry.kind, entry.reason)
    info = entry.info
    modified_at = representable(info.st_mtime)
    if modified_at is None:
        why = "its modification time lies outside of the years that can be kept, 1 to 9999; `touch` sets another"
        return ObjectInfo(entry.key, 0, "", EARLIEST, "unreadable", why)
    return ObjectInfo(entry.key, info.st_size, str(info.st_mtime_ns), modified_at)


def _create(path: str) -> BinaryIO:
    folder = os.path.dirname(path)
    for _ in range(20):
        try:
            os.makedirs(folder, exist_ok=True)
        except (FileExistsError, FileNotFoundError, NotADirectoryError) as e:
            raise ConfigError(f"no folder can be made at {folder!r} ({e.strerror}): give another place") from e
        with suppress(FileNotFoundError):  # another process just pruned the empty folder
            return open(path, "xb")
    raise TransientError(f"the folder of {path!r} is deleted as fast as it is made")


def _sync_folder(folder: str) -> None:
    """A rename is durable only once its folder is."""
    with suppress(FileNotFoundError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _same_file(f: BinaryIO, etag: str | None, uri: str) -> None:
    if etag is not None and str(os.fstat(f.fileno()).st_mtime_ns) != etag:
        raise SourceChanged(f"{uri} was changed while it was read; the next run takes the new content")


@contextmanager
def _filing(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise _translate_os(e, uri) from e


def _refused_folder(entry: Entry, path: str) -> Exception:
    if isinstance(entry.error, PermissionError):
        return ConfigError(f"may not read the folder {path!r}: {entry.reason}; grant access or leave it out")
    return ConfigError(f"{path}: {entry.reason}") if entry.error is None else _translate_os(entry.error, path)


def _translate_os(e: OSError, uri: str) -> Exception:
    meaning, what = faults.of_errno(e.errno), e.strerror or type(e).__name__
    why = f"{what}: {meaning.way_out}" if meaning.way_out else what
    match meaning.kind:
        case "missing":
            return NotFound(f"there is nothing at {uri}")
        case "configuration" if meaning is faults.NOT_A_PATH:
            return ConfigError(f"{uri} cannot be a path here: {why}")
        case "configuration":
            return ConfigError(f"access to {uri} is refused ({what}); {meaning.way_out}")
    return (DiskFull if meaning is faults.FULL else TransientError)(f"{uri}: {why}")


def open_file(uri: str, etag: str | None) -> BinaryIO:
    """The file at `uri`, for reading. Raises SourceChanged where it is not the one that `etag` names."""
    path = local_path(uri)
    with _filing(uri):
        f = open(path, "rb")  # noqa: SIM115
    try:
        _same_file(f, etag, uri)
    except SourceChanged:
        f.close()
        raise
    return f


def file_size_and_etag(uri: str) -> tuple[int, str]:
    """Bytes and etag of the file at `uri`. Raises NotFound where no regular file is."""
    path = local_path(uri)
    with _filing(uri):
        info = os.stat(path)
    if not stat.S_ISREG(info.st_mode):
        raise NotFound(f"there is no file at {uri}")
    return info.st_size, str(info.st_mtime_ns)
