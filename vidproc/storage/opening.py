"""From an address to a place, or to what a demuxer opens."""

from __future__ import annotations

from vidproc.errors import ConfigError
from vidproc.secrets import refuse_credentials_in
from vidproc.storage.addresses import is_s3, local_path, s3_address, split_s3_uri
from vidproc.storage.credentials import StorageOptions
from vidproc.storage.local import LocalStorage, file_size_and_etag
from vidproc.storage.place import Storage
from vidproc.storage.s3 import S3Storage


def open_storage(uri: str, *, options: StorageOptions | None = None, confined: bool = False) -> Storage:
    """A folder (`/path`, `relative/path`, `file:///path`) or `s3://bucket/prefix` (prefix as it is, not
    percent-encoded). Looks at nothing yet. Raises ConfigError for any other kind of URI.

    `confined` is for lakes, which anybody may have made: there no key and no link leads out of the root. What tries
    to raises Forged."""
    options = options or StorageOptions()
    if is_s3(uri):
        refuse_credentials_in(uri, "the place")
        bucket, key = split_s3_uri(uri)
        # One slash at the end is how people write a folder. Any other is a part of the keys.
        prefix = key.removesuffix("/")
        if key and not prefix:
            whole = s3_address(bucket)
            raise ConfigError(f"{uri!r} names a folder without a name; write {whole} for the whole bucket")
        return S3Storage(bucket, prefix, options, confined)
    return LocalStorage(local_path(uri), confined=confined)


def readable_url(uri: str, options: StorageOptions, expires_s: float) -> str:
    """What a demuxer opens: a presigned (SigV4) URL of an S3 object, the path of a local file.

    A presigned URL is a credential while it lasts: never log or store it (see `redact`).
    """
    if not is_s3(uri):
        return local_path(uri)
    storage, key = S3Storage.holding(uri, options)
    return storage.presigned_url(key, expires_s)


def size_and_etag(uri: str, options: StorageOptions) -> tuple[int, str]:
    """Bytes and etag of one object as it is now, by one question to its store. Raises NotFound, also for what is no
    file, and what storage raises where it refuses us or does not answer."""
    if not is_s3(uri):
        return file_size_and_etag(uri)
    storage, key = S3Storage.holding(uri, options)
    return storage.size_and_etag(key)
