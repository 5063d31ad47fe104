"""The only file that knows `s3://` from a folder: list, read ranges, put whole objects, delete.

A `Storage` is a root (a folder, or `s3://bucket/prefix`) and keys below it, separated by `/`. It is
small and picklable; credentials never travel with it, each process finds its own as the AWS SDK
does. The S3 client is made at first use, once a process.

Errors of the SDK and of the system end here: NotFound, AlreadyExists, SourceChanged, ConfigError
(bucket missing, access refused: the way out is in the text) and TransientError (timeouts, 5xx).
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import stat
import tempfile
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol
from urllib.parse import quote, unquote, urlsplit

from vidproc.errors import AlreadyExists, ConfigError, Forged, NotFound, SourceChanged, TransientError
from vidproc.secrets import redact, refuse_credentials_in
from vidproc.storage import beneath, faults
from vidproc.storage import credentials as s3
from vidproc.storage.credentials import RangePastEnd, calling, refusal, status_of
from vidproc.storage.credentials import StorageOptions as StorageOptions
from vidproc.storage.credentials import client as _s3_client
from vidproc.storage.folders import AWAY, Entry, is_kernels, walk
from vidproc.text import printable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BLOCK_BYTES = 4 << 20
"""4 MiB: the best wall time for seek-and-decode over S3-like latency among 1, 4 and 8 MiB."""
READ_ATTEMPTS = 4
"""botocore does not retry the reading of a body, so the readers here do."""
LONG_S = 20.0
"""Who was kept waiting so long already, by the SDK's own tries, does not begin anew: waits would multiply."""
WRITE_ATTEMPTS = 2
"""Of what the SDK has given up, or does not try again: a checksum that the store found wrong."""
_TEMPORARY = ".vidproc-put-"

ARCHIVE_TIERS = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects must be restored before they can be read."""
MAY_BE_ARCHIVED = ARCHIVE_TIERS | {"INTELLIGENT_TIERING"}
"""Storage classes whose objects may have a restore state."""


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


def open_storage(uri: str, *, options: StorageOptions | None = None, confined: bool = False) -> Storage:
    """A folder (`/path`, `relative/path`, `file:///path`) or `s3://bucket/prefix` (prefix as it is, not
    percent-encoded). Looks at nothing yet. Raises ConfigError for any other kind of URI.

    `confined` is for lakes, which anybody may have made: there no key and no link leads out of the root. What tries
    to raises Forged."""
    options = options or StorageOptions()
    if uri.startswith("s3://"):
        refuse_credentials_in(uri, "the place")
        bucket, key = split_s3_uri(uri)
        # One slash at the end is how people write a folder. Any other is a part of the keys.
        prefix = key.removesuffix("/")
        if key and not prefix:
            raise ConfigError(f"{uri!r} names a folder without a name; write s3://{bucket} for the whole bucket")
        return S3Storage(bucket, prefix, options, confined)
    return LocalStorage(local_path(uri), confined=confined)


def split_s3_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/any key?#%` -> (bucket, key). By hand, since URL parsers cut at `?` and `#`."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]+", bucket):
        raise ConfigError(f"{uri!r} names no bucket; write s3://bucket/prefix")
    return bucket, key


def local_path(uri: str) -> str:
    """The absolute path that a local URI means. Raises ConfigError for schemes other than file and s3."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if scheme:
        parts = urlsplit(uri)
        if scheme[1].lower() != "file" or parts.netloc not in ("", "localhost"):
            raise ConfigError(
                f"{redact(uri)!r} is neither a folder nor s3://bucket/prefix, which are all that can be read"
            )
        uri = unquote(uri.split("://", 1)[1].removeprefix(parts.netloc))
    if not uri or "\0" in uri:
        raise ConfigError(f"{uri!r} is not a path; give a folder or s3://bucket/prefix")
    return os.path.abspath(os.path.expanduser(uri))


# --- a folder ----------------------------------------------------------------------------------


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

    def uri_of(self, key: str) -> str:
        return os.path.join(self.root, key) if key else self.root

    def _path(self, key: str) -> str:
        parts = key.split("/")
        if not key or "\0" in key or any(p in ("", ".", "..") for p in parts):
            if self.confined:
                raise _leads_out(self.root, key)
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
        return _delta_path(path)

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


def _leads_out(uri: str, key: str) -> Forged:
    return Forged(
        f"{uri}: something in this lake names {printable(key)[:200]!r} as a place in it, which would lead out of the "
        "lake: no vidproc wrote that. Restore the lake from a copy"
    )


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
    return TransientError(f"{uri}: {why}")


# --- S3 ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class S3Storage:
    bucket: str
    prefix: str
    """Without the slash that separates it from a key; may be empty. `/cams` and `cams` are two prefixes."""
    options: StorageOptions
    confined: bool = False
    """Whether keys with parts such as `..` are refused: some stores, and proxies before them, take these for paths."""

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}" if self.prefix else f"s3://{self.bucket}"

    def uri_of(self, key: str) -> str:
        return f"{self.uri}/{key}" if key else self.uri

    @property
    def _client(self) -> S3Client:
        return _s3_client(self.options)

    def _key(self, key: str) -> str:
        if self.confined and ("\0" in key or not {".", ".."}.isdisjoint(key.split("/"))):
            raise _leads_out(self.uri, key)
        return f"{self.prefix}/{key}" if self.prefix else key

    def list(
        self, prefix: str = "", on_denied: Callable[[str, str], None] | None = None, *, start: str = ""
    ) -> Iterator[ObjectInfo]:
        root = self._key("")
        token: dict[str, str] = {"StartAfter": self._key(start)} if start else {}
        restore_state: dict[str, Any] = {}
        may_ask = on_denied is not None
        while True:
            page = self._page(prefix, **token, **restore_state)
            if may_ask and _needs_restore_state(page):
                # From the first page on that needs it: stores without archive tiers need not know the question.
                may_ask = False
                with suppress(ConfigError):
                    page = self._page(prefix, **token, OptionalObjectAttributes=["RestoreStatus"])
                    restore_state = {"OptionalObjectAttributes": ["RestoreStatus"]}
            for item in page.get("Contents", ()):
                if not item["Key"].startswith(root):
                    raise ConfigError(
                        f"asked for {self.uri}, the store lists {item['Key']!r}: it takes several slashes for one; "
                        f"give s3://{self.bucket}/{'/'.join(filter(None, self.prefix.split('/')))}"
                    )
                if not (item["Key"].endswith("/") and item.get("Size") == 0):  # else the marker of a folder
                    yield _object_of(item, len(root), flawed=on_denied is not None)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _page(self, prefix: str, **how: Any) -> Any:
        with calling(self.uri, self.options):
            return self._client.list_objects_v2(Bucket=self.bucket, Prefix=self._key(prefix), **how)

    def is_there(self) -> bool:
        """Whether there is any key, be it the marker of an empty folder."""
        return bool(self._page("", MaxKeys=1).get("Contents"))

    def get(self, key: str) -> bytes:
        return self._read(key, None, None)

    def get_range(self, key: str, start: int, length: int, if_match: str | None = None) -> bytes:
        return self._read(key, (start, length), if_match) if length > 0 else b""

    def _read(self, key: str, span: tuple[int, int] | None, if_match: str | None) -> bytes:
        arguments: dict[str, Any] = {}
        if span:
            arguments["Range"] = f"bytes={span[0]}-{span[0] + span[1] - 1}"
        if if_match is not None:
            arguments["IfMatch"] = f'"{if_match}"'
        begun = time.monotonic()
        for attempt in range(1, READ_ATTEMPTS + 1):
            try:
                with calling(self.uri_of(key), self.options):
                    answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key), **arguments)
                    with answer["Body"] as body:
                        data = body.read()
                    if len(data) == answer["ContentLength"]:
                        return data
                    raise TransientError(f"{self.uri_of(key)}: {len(data)} of {answer['ContentLength']} bytes came")
            except RangePastEnd:
                return b""
            except SourceChanged:
                raise
            except TransientError:
                if attempt == READ_ATTEMPTS or time.monotonic() - begun > LONG_S:
                    raise
                time.sleep(0.1 * 2**attempt)
        raise AssertionError("unreachable")

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> str:
        # The checksum lets the server refuse bytes that were damaged on the way.
        arguments: dict[str, Any] = {"ContentMD5": base64.b64encode(_md5(data)).decode()}
        if if_absent:
            arguments["IfNoneMatch"] = "*"
        for attempt in range(1, WRITE_ATTEMPTS + 1):
            try:
                with calling(self.uri_of(key), self.options):
                    try:
                        answer = self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, **arguments)
                    except Exception as e:
                        if if_absent and status_of(e) == 412:
                            return self._mine_or_raise(key, data, e, tried=attempt > 1)
                        raise
                return answer["ETag"].strip('"')
            except TransientError:
                if attempt == WRITE_ATTEMPTS:
                    raise
                time.sleep(0.1 * 2**attempt)
        raise AssertionError("unreachable")

    def _mine_or_raise(self, key: str, data: bytes, cause: Exception, *, tried: bool) -> str:
        """412 also answers a second try, the SDK's or ours (`tried`), after a lost answer: then the object is ours."""
        try:
            there = self.get(key)
        except NotFound:
            there = None
        if there == data and (tried or _retried(cause)):
            return hashlib.md5(data, usedforsecurity=False).hexdigest()
        raise AlreadyExists(f"{self.uri_of(key)} is there already") from cause

    def delete(self, keys: Iterable[str]) -> None:
        remaining = iter(keys)
        while chunk := list(islice(remaining, 1000)):
            # Characters that XML cannot hold go one by one, in the URL.
            single = [k for k in chunk if not k.isprintable()]
            many = [k for k in chunk if k.isprintable()]
            with calling(self.uri, self.options):
                for key in single:
                    self._client.delete_object(Bucket=self.bucket, Key=self._key(key))
                if many:
                    answer = self._client.delete_objects(
                        Bucket=self.bucket, Delete={"Objects": [{"Key": self._key(k)} for k in many], "Quiet": True}
                    )
                    failed = [e for e in answer.get("Errors", ()) if e.get("Code") != "NoSuchKey"]
                    if failed:
                        raise refusal(failed[0].get("Code", ""), 0, self.uri, self.options)

    def exists(self, key: str) -> bool:
        try:
            s3.head(self.bucket, self._key(key), self.options)
        except NotFound:
            return False
        return True

    def delta_uri(self, key: str) -> str:
        if self.prefix and "" in self.prefix.split("/"):
            raise ConfigError(f"a lake cannot lie at {self.uri}: the table library takes several slashes for one")
        # Percent-encoded: the library parses a URL, and a bare '#' or '?' would cut the path short.
        return "s3://" + quote(_delta_path(self.uri_of(key)).removeprefix("s3://"))

    def delta_options(self) -> dict[str, str]:
        return s3.delta_options(s3.access(self.bucket, self.options), self.options)

    def duckdb_secrets(self) -> tuple[dict[str, str], dict[str, str]]:
        return s3.duckdb_secrets(s3.access(self.bucket, self.options))


def _needs_restore_state(page: Mapping[str, Any]) -> bool:
    return any(item.get("StorageClass") in MAY_BE_ARCHIVED for item in page.get("Contents", ()))


def _why_archived(item: Mapping[str, Any]) -> str:
    """Why an object must be restored before it can be read, in words; empty: it need not be."""
    tier, restore = item.get("StorageClass"), item.get("RestoreStatus") or {}
    if restore.get("IsRestoreInProgress"):
        return f"it lies in the archive tier {tier} and is being restored: the run after that indexes it"
    if tier in ARCHIVE_TIERS and not restore:
        return f"it lies in the archive tier {tier}: restore it, and the next run indexes it"
    return ""


def _object_of(item: Mapping[str, Any], cut: int, *, flawed: bool) -> ObjectInfo:
    """One entry of a page. What a store leaves out, or gives in a form of its own, costs this entry alone.
    `flawed`: an object that must be restored before it can be read has a flaw."""
    key, size, etag, moment = item["Key"][cut:], item.get("Size"), item.get("ETag"), item.get("LastModified")
    modified_at = representable(moment)
    if size is not None and etag and modified_at is not None:
        archived = _why_archived(item) if flawed else ""
        return ObjectInfo(key, size, etag.strip('"'), modified_at, "archived" if archived else "", archived)
    lacks = "size" if size is None else "date that can be kept" if etag else "ETag"
    return ObjectInfo(key, 0, "", modified_at or EARLIEST, "unreadable", f"the store lists it without a {lacks}")


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _retried(e: BaseException) -> bool:
    answer = getattr(e, "response", None) or {}
    return int(answer.get("ResponseMetadata", {}).get("RetryAttempts", 0)) > 0


def _delta_path(path: str) -> str:
    # deltalake 1.6 decodes %XX in some of its own calls and not in others, and refuses control characters.
    if re.search(r"%[0-9A-Fa-f]{2}", path) or any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in path):
        raise ConfigError(
            f"a lake cannot lie at {path!r}: '%' before two hexadecimal digits, control characters and bytes "
            "that are not UTF-8 cannot be in its path; choose another one"
        )
    return path


# --- reading one object by its URI ---------------------------------------------------------------


def readable_url(uri: str, options: StorageOptions, expires_s: float) -> str:
    """What a demuxer opens: a presigned (SigV4) URL of an S3 object, the path of a local file.

    A presigned URL is a credential while it lasts: never log or store it (see `redact`).
    """
    if not uri.startswith("s3://"):
        return local_path(uri)
    bucket, key = split_s3_uri(uri)
    return s3.presigned(bucket, key, options, max(1, int(expires_s)))


def open_block_reader(uri: str, options: StorageOptions, etag: str | None) -> BinaryIO:
    """A seekable binary file over one object. With `etag` it raises SourceChanged once the object is
    another one. On S3 it reads blocks of 4 MiB, tries again what broke, keeps 8 of them, and raises
    TransientError rather than ending early."""
    if uri.startswith("s3://"):
        bucket, key = split_s3_uri(uri)
        head = s3.head(bucket, key, options)
        if etag is not None and head["ETag"].strip('"') != etag:
            raise SourceChanged(f"{uri} was changed since it was listed; the next run takes the new content")
        # The bare bucket is the root here, so that a key with odd slashes stays as it is.
        storage = S3Storage(bucket, "", options)
        raw = _BlockReader(storage, key, head["ContentLength"], head["ETag"].strip('"'))
        return io.BufferedReader(raw, buffer_size=64 << 10)
    path = local_path(uri)
    with _filing(uri):
        f = open(path, "rb")  # noqa: SIM115
    try:
        _same_file(f, etag, uri)
    except SourceChanged:
        f.close()
        raise
    return f


INDEX_BLOCK_BYTES, READ_AHEAD_BYTES = 128 << 10, 1 << 20


class ObjectBytes:
    """One object, read at any place: here and there in small blocks, of which some are kept, or in order, ahead.
    Each request says which content is meant: raises SourceChanged once it is another, or TransientError."""

    def __init__(self, uri: str, options: StorageOptions, etag: str, size: int) -> None:
        bucket, self._key = split_s3_uri(uri)
        self._storage, self._etag, self.size = S3Storage(bucket, "", options), etag, size
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._ahead, self._ahead_at = b"", 0

    def read(self, start: int, end: int) -> bytes:
        end = min(end, self.size)
        if end - start > INDEX_BLOCK_BYTES:
            return self._range(start, end)
        numbers = range(start // INDEX_BLOCK_BYTES, -(-end // INDEX_BLOCK_BYTES))
        data = b"".join(map(self._block, numbers))
        behind = start - numbers.start * INDEX_BLOCK_BYTES
        return data[behind : behind + end - start]

    def some(self, start: int, most: int) -> bytes:
        place = start - self._ahead_at
        if not 0 <= place < len(self._ahead):
            self._ahead_at, place = start, 0
            self._ahead = self._range(start, min(start + READ_AHEAD_BYTES, self.size))
        return self._ahead[place : place + most]

    def close(self) -> None:
        self._blocks.clear()
        self._ahead = b""

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * INDEX_BLOCK_BYTES
            self._blocks[number] = self._range(start, min(start + INDEX_BLOCK_BYTES, self.size))
            if len(self._blocks) > 8:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _range(self, start: int, end: int) -> bytes:
        data = self._storage.get_range(self._key, start, end - start, self._etag)
        if len(data) != max(0, end - start):
            raise TransientError(
                f"{self._storage.uri_of(self._key)}: {len(data)} of {end - start} bytes came at {start}"
            )
        return data


class _BlockReader(io.RawIOBase):
    """Blocks of one object, the last eight kept."""

    def __init__(self, storage: S3Storage, key: str, size: int, etag: str) -> None:
        super().__init__()
        self._storage, self._name, self._size, self._etag = storage, key, size, etag
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("seek before the start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size:
            return 0
        number, offset = divmod(self._position, BLOCK_BYTES)
        data = self._block(number)[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        start = number * BLOCK_BYTES
        want = min(BLOCK_BYTES, self._size - start)
        data = self._storage.get_range(self._name, start, want, self._etag)
        if len(data) != want:
            raise TransientError(f"{self._storage.uri_of(self._name)}: {len(data)} of {want} bytes came at {start}")
        self._blocks[number] = data
        if len(self._blocks) > 8:
            self._blocks.popitem(last=False)
        return data
