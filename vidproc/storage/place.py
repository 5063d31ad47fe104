"""What a place is: objects below a root, listed, read by ranges, written whole, and deleted.

A `Storage` is a root (a folder, or a prefix in a bucket) and the keys below it, separated by `/`. It is small and
picklable. Credentials never travel with it: each process finds its own, as the AWS SDK does.

Errors of the SDK and of the system end in the implementations: NotFound, AlreadyExists, SourceChanged, ConfigError
(bucket missing, access refused: the way out is in the text) and TransientError (timeouts, 5xx).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from vidproc.errors import ConfigError, Forged
from vidproc.text import printable

EARLIEST, LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
"""Times that tables can hold and that every time zone can show."""


def representable(moment: datetime | float | None) -> datetime | None:
    """A time, or seconds since 1970, as UTC; None where it lies outside of the years that can be kept."""
    try:
        if not isinstance(moment, datetime):
            moment = None if moment is None else datetime.fromtimestamp(moment, UTC)
        moment = None if moment is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment if moment is not None and EARLIEST <= moment < LATEST else None


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object. Nothing has been opened."""

    key: str
    """Below the root, `/` between the parts; any character that the store allows."""
    size: int
    """Bytes. 0 where the content is not known."""
    etag: str
    """S3: the ETag without quotes. A folder: the modification time in nanoseconds. Empty where the content is not
    known, which is so of whatever has a flaw, except of an archived object."""
    modified_at: datetime
    """UTC, moved into the years that tables can hold (see `representable`)."""
    flaw: str = ""
    """Error class of an entry that cannot be opened as it is listed; empty: nothing is wrong with it."""
    reason: str = ""
    """The flaw in words."""


class Storage(Protocol):
    """A root and the keys below it."""

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix` or an absolute path, without a slash at its end."""

    def confining(self) -> Storage:
        """The same place, out of which no key and no link leads: see `open_storage`."""

    def uri_of(self, key: str) -> str:
        """What `open_block_reader` and `readable_url` take."""

    def list(
        self, prefix: str = "", on_denied: Callable[[str, str], None] | None = None, *, start: str = ""
    ) -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, streamed in no promised order. With `start` only those whose key
        comes after it.

        With `on_denied` also what is no object is listed, with its flaw, and `on_denied(key, reason)` hears of
        folders that cannot be read. Without it links to folders, pipes and the like are left out, and what cannot
        be read raises ConfigError or TransientError. Raises ConfigError too where the root does not exist.
        """

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFound."""

    def get_range(self, key: str, start: int, length: int, if_match: str | None = None) -> bytes:
        """`length` bytes from `start`; fewer only where the object ends. With `if_match` (an etag)
        raises SourceChanged when the object is another one by now."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> str:
        """Writes the whole object or nothing, durably, and gives its etag. With `if_absent` exactly
        one of many writers succeeds and the others get AlreadyExists."""

    def put_file(self, key: str, path: str) -> None:
        """Writes the whole file at `path`, of any size, or nothing, durably. The file may be moved away by that."""

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes what is there; what is not there is no error."""

    def exists(self, key: str) -> bool: ...

    def delta_uri(self, key: str) -> str:
        """Where the Delta library finds the table at `key`. Raises ConfigError for a path that it cannot take."""

    def delta_options(self) -> dict[str, str]:
        """`storage_options` of the Delta library. Holds credentials: never log, store or pickle it."""

    def duckdb_secrets(self) -> tuple[dict[str, str], dict[str, str]]:
        """Parameters of DuckDB's secrets for logs and for files of tables here. Hold credentials, too; empty for a
        folder."""


def leads_out(uri: str, key: str) -> Forged:
    """The error for a key of a lake that would lead out of its root."""
    return Forged(
        f"{uri}: something in this lake names {printable(key)[:200]!r} as a place in it, which would lead out of the "
        "lake: no vidproc wrote that. Restore the lake from a copy"
    )


def delta_path(path: str) -> str:
    """Return the path unchanged. Raises ConfigError where the Delta library cannot take it."""
    # deltalake 1.6 decodes %XX in some of its own calls and not in others, and refuses control characters.
    if re.search(r"%[0-9A-Fa-f]{2}", path) or any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in path):
        raise ConfigError(
            f"a lake cannot lie at {path!r}: '%' before two hexadecimal digits, control characters and bytes "
            "that are not UTF-8 cannot be in its path; choose another one"
        )
    return path
