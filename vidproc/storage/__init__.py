"""Places where archives and lakes lie: a folder or a bucket. No other room knows what `s3://` means.

place        the surface of a place, and of a listed object
opening      from an address to a place
addresses    what an address means; the one file that looks at its scheme
local, s3    the two kinds of place
ranges       one object read here and there, in blocks that are kept
folders      a folder walked entry by entry
beneath      files below a folder, reached without a link on the way
credentials  how S3 is reached: options, environment, profile
faults       what each error code of a store or a system means
clock        the time of a store
"""

from __future__ import annotations

from vidproc.storage.addresses import absolute_address, is_s3, local_path, resolved_address
from vidproc.storage.credentials import StorageOptions, hurried, signed
from vidproc.storage.local import LocalStorage
from vidproc.storage.opening import open_storage, readable_url, size_and_etag
from vidproc.storage.place import EARLIEST, ObjectInfo, Storage
from vidproc.storage.ranges import BLOCK_BYTES, ObjectBytes, open_block_reader
from vidproc.storage.s3 import LONG_S, S3Storage

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
    "absolute_address",
    "hurried",
    "is_s3",
    "local_path",
    "open_block_reader",
    "open_storage",
    "readable_url",
    "resolved_address",
    "signed",
    "size_and_etag",
]
