"""A listing -> Video values. Opens none of them, and holds none of them: millions of objects pass by."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from vidproc.errors import ConfigError
from vidproc.media import Video
from vidproc.storage import EARLIEST, LocalStorage, ObjectInfo, S3Storage, StorageOptions, open_storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which objects of the archive are meant."""

    include: tuple[str, ...] = ()
    """Globs on the path below the archive (`*` also crosses `/`); empty: everything."""
    exclude: tuple[str, ...] = ()
    min_bytes: int | None = None
    max_bytes: int | None = None
    modified_since: datetime | None = None
    """Times without a zone are UTC."""
    modified_before: datetime | None = None

    def admits_name(self, key: str) -> bool:
        if self.include and not any(_matches(key, glob) for glob in self.include):
            return False
        return not any(_matches(key, glob) for glob in self.exclude)

    def may_admit_below(self, folder: str) -> bool:
        """Whether anything below the folder (a key without a slash at its end) may be meant."""
        if self.include and not any(_may_match_below(folder, glob) for glob in self.include):
            return False
        return not any(_matches(folder, glob) or _matches(f"{folder}/", glob) for glob in self.exclude)

    def admits(self, key: str, size: int, modified_at: datetime | None) -> bool:
        if not self.admits_name(key):
            return False
        if self.min_bytes is not None and size < self.min_bytes:
            return False
        if self.max_bytes is not None and size > self.max_bytes:
            return False
        if modified_at is not None:
            if self.modified_since is not None and modified_at < _utc(self.modified_since):
                return False
            if self.modified_before is not None and modified_at >= _utc(self.modified_before):
                return False
        return True


@dataclass(frozen=True, slots=True)
class Skipped:
    """An object that is listed and not worth opening: reported, not probed."""

    uri: str
    reason: str
    error_class: str
    """hidden, empty, bad_name, link, broken_link, special_file, unreadable or archived."""
    video: Video | None = None
    """The object, where its content is known though it cannot be read: one in an archive tier."""


def list_videos(
    uri: str,
    options: StorageOptions | None = None,
    filters: Filters | None = None,
    *,
    follow_links: bool = False,
) -> Iterator[Video | Skipped]:
    """Every object below `uri` that the filters admit, in no promised order.

    Objects filtered out by a person's choice are not mentioned. What is no file that could be opened, and what
    cannot be looked at, is listed as Skipped; its size and date are not known, so filters by them admit it. With
    `follow_links` folders outside of the archive are entered where links lead there.

    Raises ConfigError where the archive is not there or access is refused, TransientError where the store fails.
    """
    check_encoding()
    filters = filters or Filters()
    storage = open_storage(uri, options=options)
    if isinstance(storage, LocalStorage):
        storage = replace(storage, follow_links=follow_links)
    denied: list[Video | Skipped] = []

    def on_denied(key: str, reason: str) -> None:
        if filters.may_admit_below(key):
            why = f"the folder cannot be read: {reason}"
            denied.append(_describe(storage.uri_of(key), ObjectInfo(key, 0, "", EARLIEST, "unreadable", why)))

    for found in storage.list(on_denied=on_denied):
        yield from _taken(denied)
        known = bool(found.etag)
        if filters.admits(found.key, found.size, found.modified_at) if known else filters.admits_name(found.key):
            # The key may be nothing but the slash that ends the prefix.
            yield _describe(storage.uri_of(found.key) if found.key else f"{storage.uri}/", found)
    yield from denied


def _taken(items: list[Video | Skipped]) -> Iterator[Video | Skipped]:
    while items:
        yield items.pop()


def check_encoding() -> None:
    """Raises ConfigError where this process cannot name files: a locale that is not UTF-8 tears names apart."""
    encoding = sys.getfilesystemencoding()
    if encoding.lower().replace("-", "") != "utf8":
        raise ConfigError(
            f"this process takes the names of files for {encoding}, not UTF-8, so that names with other letters would "
            "be lost: set PYTHONUTF8=1, or a locale such as LC_ALL=C.UTF-8"
        )


def check_there(uri: str, options: StorageOptions | None = None) -> None:
    """Raises ConfigError where nobody made the archive. A folder may be empty; on S3 a prefix without a
    single key is one that is misspelt."""
    storage = open_storage(uri, options=options)
    if isinstance(storage, S3Storage) and storage.prefix and not storage.is_there():
        raise ConfigError(
            f"there is nothing at {storage.uri}: check the prefix, which may lack a part or have one too many"
        )


def _describe(uri: str, found: ObjectInfo) -> Video | Skipped:
    if any(part.startswith(".") for part in found.key.split("/")):
        return Skipped(uri, "a hidden file, or in a hidden folder", "hidden")
    if not _is_text(found.key):
        return Skipped(uri, "its name is not valid UTF-8, so it could not be named in the tables", "bad_name")
    if found.flaw and not found.etag:
        return Skipped(uri, found.reason, found.flaw)
    if found.size == 0:
        return Skipped(uri, "an empty file", "empty")
    video = Video(uri, found.size, f"{found.etag}:{found.size}", found.modified_at)
    return Skipped(uri, found.reason, found.flaw, video) if found.flaw else video


def _is_text(key: str) -> bool:
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _matches(key: str, glob: str) -> bool:
    """As shells do, except that `*` crosses folders; a glob without a slash also meets the bare name."""
    return fnmatchcase(key, glob) or ("/" not in glob and fnmatchcase(key.rpartition("/")[2], glob))


def _may_match_below(folder: str, glob: str) -> bool:
    """Whether the glob may meet anything below the folder: by what it says before its first wildcard."""
    literal, below = re.split(r"[*?[]", glob)[0], f"{folder}/"
    return "/" not in glob or literal.startswith(below) or below.startswith(literal)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
