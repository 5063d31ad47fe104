"""A bucket, or a prefix in it, as a place. The client is made at first use, once a process."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from vidproc.errors import AlreadyExists, ConfigError, NotFound, SourceChanged, TransientError
from vidproc.storage import credentials
from vidproc.storage.addresses import S3, s3_address, split_s3_uri
from vidproc.storage.credentials import RangePastEnd, StorageOptions, calling, client, refusal, status_of
from vidproc.storage.place import EARLIEST, ObjectInfo, delta_path, leads_out, representable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READ_ATTEMPTS = 4
"""botocore does not retry the reading of a body, so the readers here do."""
LONG_S = 20.0
"""A request that took this long already, by the SDK's own attempts, is not begun anew: waits would multiply."""
WRITE_ATTEMPTS = 2
"""Attempts at a write that the SDK has given up, or does not repeat: a checksum that the store found wrong."""

PART_BYTES = 64 << 20
"""Of a large file that is sent in parts, of which a store takes 10,000."""

ARCHIVE_TIERS = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects must be restored before they can be read."""
MAY_BE_ARCHIVED = ARCHIVE_TIERS | {"INTELLIGENT_TIERING"}
"""Storage classes whose objects may have a restore state."""


@dataclass(frozen=True, slots=True)
class S3Storage:
    bucket: str
    prefix: str
    """Without the slash that separates it from a key; may be empty. `/cams` and `cams` are two prefixes."""
    options: StorageOptions
    confined: bool = False
    """Whether keys with parts such as `..` are refused: some stores, and proxies before them, take these for paths."""

    @classmethod
    def holding(cls, uri: str, options: StorageOptions) -> tuple[S3Storage, str]:
        """The place and the key of one object. The bare bucket is the root here, so that a key with odd slashes stays
        as it is."""
        bucket, key = split_s3_uri(uri)
        return cls(bucket, "", options), key

    @property
    def uri(self) -> str:
        return s3_address(self.bucket, self.prefix)

    def confining(self) -> S3Storage:
        return replace(self, confined=True)

    def uri_of(self, key: str) -> str:
        return f"{self.uri}/{key}" if key else self.uri

    @property
    def _client(self) -> S3Client:
        return client(self.options)

    def _key(self, key: str) -> str:
        if self.confined and ("\0" in key or not {".", ".."}.isdisjoint(key.split("/"))):
            raise leads_out(self.uri, key)
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
                        f"give {s3_address(self.bucket, '/'.join(filter(None, self.prefix.split('/'))))}"
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

    def put_file(self, key: str, path: str) -> None:
        with open(path, "rb") as file:
            part = file.read(PART_BYTES)
            if len(part) < PART_BYTES:
                self.put(key, part)
                return
            where: Any = {"Bucket": self.bucket, "Key": self._key(key)}
            with calling(self.uri_of(key), self.options):
                where["UploadId"] = self._client.create_multipart_upload(**where)["UploadId"]
                try:
                    parts: list[Any] = []
                    while part:
                        number, checksum = len(parts) + 1, base64.b64encode(_md5(part)).decode()
                        put = self._client.upload_part(PartNumber=number, Body=part, ContentMD5=checksum, **where)
                        parts.append({"PartNumber": number, "ETag": put["ETag"]})
                        part = file.read(PART_BYTES)
                    self._client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **where)
                except BaseException:
                    with suppress(Exception):  # what was sent costs money until it is given up
                        self._client.abort_multipart_upload(**where)
                    raise

    def _mine_or_raise(self, key: str, data: bytes, cause: Exception, *, tried: bool) -> str:
        """412 also answers a second try, the SDK's or ours (`tried`), after a lost answer: then the object is ours."""
        try:
            there = self.get(key)
        except NotFound:
            there = None
        if there == data and (tried or _retried(cause)):
            return hashlib.md5(data, usedforsecurity=False).hexdigest()
        raise AlreadyExists(f"{self.uri_of(key)} is there already") from cause

    def size_and_etag(self, key: str) -> tuple[int, str]:
        """Bytes and etag of the object as it is now. Raises NotFound."""
        head = credentials.head(self.bucket, self._key(key), self.options)
        return head["ContentLength"], head["ETag"].strip('"')

    def presigned_url(self, key: str, expires_s: float) -> str:
        """A URL that reads the object for that many seconds. It is a credential: never log or store it."""
        return credentials.presigned(self.bucket, self._key(key), self.options, max(1, int(expires_s)))

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
            self.size_and_etag(key)
        except NotFound:
            return False
        return True

    def delta_uri(self, key: str) -> str:
        if self.prefix and "" in self.prefix.split("/"):
            raise ConfigError(f"a lake cannot lie at {self.uri}: the table library takes several slashes for one")
        # Percent-encoded: the library parses a URL, and a bare '#' or '?' would cut the path short.
        return S3 + quote(delta_path(self.uri_of(key)).removeprefix(S3))

    def delta_options(self) -> dict[str, str]:
        return credentials.delta_options(credentials.access(self.bucket, self.options), self.options)

    def duckdb_secrets(self) -> tuple[dict[str, str], dict[str, str]]:
        return credentials.duckdb_secrets(credentials.access(self.bucket, self.options))


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
