"""Places where archives and lakes lie: a folder or a bucket. No other room knows what `s3://` means.

store        the surface of a place, and the two kinds of it
folders      a folder walked entry by entry
beneath      files below a folder, reached without a link on the way
credentials  how S3 is reached: options, environment, profile
faults       what each error code of a store or a system means
clock        the time of a store
"""

from __future__ import annotations

from vidproc.storage.credentials import hurried, signed
from vidproc.storage.store import (
    BLOCK_BYTES,
    EARLIEST,
    LONG_S,
    LocalStorage,
    ObjectBytes,
    ObjectInfo,
    S3Storage,
    Storage,
    StorageOptions,
    local_path,
    open_block_reader,
    open_storage,
    readable_url,
)

__all__ = [
    "BLOCK_BYTES",
    "EARLIEST",
    "LONG_S",
    "LocalStorage",
    "ObjectBytes",
    "ObjectInfo",
    "S3Storage",
    "Storage",
    "StorageOptions",
    "hurried",
    "local_path",
    "open_block_reader",
    "open_storage",
    "readable_url",
    "signed",
]
