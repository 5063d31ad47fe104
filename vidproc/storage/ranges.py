"""One object, read here and there: in blocks, of which the last ones are kept.

Each request says which content is meant, and an answer that is too short is refused. So a reader sees one content from
its first byte to its last, or an error: SourceChanged once the object is another one, TransientError where an answer
broke off.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import Any, BinaryIO

from vidproc.errors import SourceChanged, TransientError
from vidproc.storage.addresses import is_s3
from vidproc.storage.credentials import StorageOptions
from vidproc.storage.local import open_file
from vidproc.storage.place import Storage
from vidproc.storage.s3 import S3Storage

BLOCK_BYTES = 4 << 20
"""Block of a reader that decodes: 4 MiB had the best wall time over S3-like latency among 1, 4 and 8 MiB."""
INDEX_BLOCK_BYTES = 128 << 10
"""Block of a reader that looks up entries of a container's index."""
READ_AHEAD_BYTES = 1 << 20
"""Read at once where bytes are asked for in order."""
BLOCKS_KEPT = 8


class BlockCache:
    """The object at `key`, which has `size` bytes and the etag `etag`, read in blocks of `block_bytes`. The last
    BLOCKS_KEPT blocks that were asked for are kept."""

    def __init__(self, storage: Storage, key: str, *, etag: str, size: int, block_bytes: int) -> None:
        self._storage, self._key, self._etag = storage, key, etag
        self.size, self.block_bytes = size, block_bytes
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def block(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * self.block_bytes
            self._blocks[number] = self.fetch(start, min(start + self.block_bytes, self.size))
            if len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def fetch(self, start: int, end: int) -> bytes:
        """The bytes of the range, by a request of its own."""
        data = self._storage.get_range(self._key, start, end - start, self._etag)
        if len(data) != max(0, end - start):
            raise TransientError(
                f"{self._storage.uri_of(self._key)}: {len(data)} of {end - start} bytes came at {start}"
            )
        return data

    def clear(self) -> None:
        self._blocks.clear()


class ObjectBytes:
    """One object on S3, read at any place: here and there in small blocks, or in order, ahead."""

    def __init__(self, uri: str, options: StorageOptions, etag: str, size: int) -> None:
        storage, key = S3Storage.holding(uri, options)
        self._cache = BlockCache(storage, key, etag=etag, size=size, block_bytes=INDEX_BLOCK_BYTES)
        self._ahead, self._ahead_at = b"", 0

    @property
    def size(self) -> int:
        return self._cache.size

    def read(self, start: int, end: int) -> bytes:
        """The bytes of the range, as far as the object goes."""
        end, block_bytes = min(end, self.size), self._cache.block_bytes
        if end - start > block_bytes:
            return self._cache.fetch(start, end)
        numbers = range(start // block_bytes, -(-end // block_bytes))
        data = b"".join(map(self._cache.block, numbers))
        behind = start - numbers.start * block_bytes
        return data[behind : behind + end - start]

    def some(self, start: int, most: int) -> bytes:
        """At most `most` bytes from `start`, at least one unless the object ends there. Reads ahead."""
        place = start - self._ahead_at
        if not 0 <= place < len(self._ahead):
            self._ahead_at, place = start, 0
            self._ahead = self._cache.fetch(start, min(start + READ_AHEAD_BYTES, self.size))
        return self._ahead[place : place + most]

    def close(self) -> None:
        self._cache.clear()
        self._ahead = b""


class _BlockReader(io.RawIOBase):
    """The surface of a file over blocks."""

    def __init__(self, cache: BlockCache) -> None:
        super().__init__()
        self._cache, self._position = cache, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._cache.size}[whence]
        if base + offset < 0:
            raise ValueError("seek before the start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._cache.size:
            return 0
        number, offset = divmod(self._position, self._cache.block_bytes)
        data = self._cache.block(number)[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def open_block_reader(uri: str, options: StorageOptions, etag: str | None) -> BinaryIO:
    """A seekable binary file over one object. With `etag` it raises SourceChanged once the object is another one. On
    S3 it reads blocks of BLOCK_BYTES, tries again what broke, and raises TransientError rather than ending early."""
    if not is_s3(uri):
        return open_file(uri, etag)
    storage, key = S3Storage.holding(uri, options)
    size, found = storage.size_and_etag(key)
    if etag is not None and found != etag:
        raise SourceChanged(f"{uri} was changed since it was listed; the next run takes the new content")
    cache = BlockCache(storage, key, etag=found, size=size, block_bytes=BLOCK_BYTES)
    return io.BufferedReader(_BlockReader(cache), buffer_size=64 << 10)
