"""A listing -> Video values. Opens none of them, and holds none of them: millions of objects pass by."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from vidproc.errors import ConfigError
from vidproc.media import Video, content_hash
from vidproc.settings import Filters
from vidproc.storage import EARLIEST, LocalStorage, ObjectInfo, S3Storage, Storage, StorageOptions, open_storage


@dataclass(frozen=True, slots=True)
class Skipped:
    """An object that is listed and not worth opening: reported, not probed."""

    uri: str
    reason: str
    error_class: str
    """hidden, empty, bad_name, link, broken_link, special_file, unreadable or archived."""
    video: Video | None = None
    """The object, where its content is known though it cannot be read: one in an archive tier."""

    @property
    def video_id(self) -> str:
        return content_hash(self.uri)

    @property
    def size_bytes(self) -> int:
        return self.video.size_bytes if self.video else 0

    @property
    def content_id(self) -> str:
        return self.video.content_id if self.video else f"{self.error_class}:0"

    @property
    def modified_at(self) -> datetime | None:
        return self.video.modified_at if self.video else None


def list_videos(
    place: str | Storage,
    options: StorageOptions | None = None,
    filters: Filters | None = None,
    *,
    follow_links: bool = False,
) -> Iterator[Video | Skipped]:
    """Every object of a place (its address, or the place itself, open) that the filters admit, in no promised order.

    Objects filtered out by a person's choice are not mentioned. What is no file that could be opened, and what
    cannot be looked at, is listed as Skipped; its size and date are not known, so filters by them admit it. With
    `follow_links` folders outside of the archive are entered where links lead there.

    Raises ConfigError where the archive is not there or access is refused, TransientError where the store fails.
    """
    check_encoding()
    filters = filters or Filters()
    storage = _opened(place, options)
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


def _opened(place: str | Storage, options: StorageOptions | None) -> Storage:
    return open_storage(place, options=options) if isinstance(place, str) else place


def check_there(place: str | Storage, options: StorageOptions | None = None) -> None:
    """Raises ConfigError where nobody made the archive. A folder may be empty; on S3 a prefix without a
    single key is one that is misspelt."""
    storage = _opened(place, options)
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
