"""Weights files on this machine: fetched once, verified always.

Order of search for a remote file: the cache (VIDPROC_MODEL_CACHE, default ~/.cache/vidproc/models),
the mirror (VIDPROC_MODEL_MIRROR: a folder, https:// or s3://bucket/prefix that holds the files by
name), the URI itself. A local path is used where it lies.
"""

from __future__ import annotations

import hashlib
import os
import queue
import re
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vidproc.errors import ConfigError, VidprocError
from vidproc.models.files import read_file
from vidproc.secrets import refuse_credentials_in
from vidproc.storage.credentials import StorageOptions

CONNECT_SECONDS = 6.0
"""Longest time to resolve the name, connect and get the headers. Without a network the error comes within seconds."""
READ_SECONDS = 30.0
_BLOCK = 1 << 20
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[a-z0-9]+$")


_reached_by: ContextVar[StorageOptions | None] = ContextVar("reached_by", default=None)


@contextmanager
def reaching(options: StorageOptions | None) -> Iterator[None]:
    """Within it, weights on S3 are fetched with these options; None: with those around it, or as the AWS environment
    says."""
    before = _reached_by.set(_reached_by.get() if options is None else options)
    try:
        yield
    finally:
        _reached_by.reset(before)


def cache_folder() -> Path:
    if given := os.environ.get("VIDPROC_MODEL_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vidproc" / "models"


def is_remote(uri: str) -> bool:
    return "://" in uri


def expected_sha256(uri: str, sha256: str) -> str:
    """What is known of a file's sha256: all of it, or the first digits which torchvision and
    PyTorch put into the names of remote files."""
    if sha256 or not is_remote(uri):
        return sha256
    found = _HASH_IN_NAME.search(urlsplit(uri).path)
    return found[1] if found else ""


def cached_path(uri: str, sha256: str) -> Path:
    """Where a remote file lies, or would lie, in the cache; its name carries its hash."""
    name = Path(urlsplit(uri).path).name
    if not _HASH_IN_NAME.search(name):
        name = f"{sha256[:16]}-{name}"
    return cache_folder() / name


def read_weights_file(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as e:
        raise ConfigError(f"The weights {path} cannot be read: {reason_of(e)}.") from e


def locate(uri: str, sha256: str) -> Path | None:
    """The verified file if it is on this machine already. Makes no request, and never raises for a
    missing file; a local file with another sha256 than promised is a ConfigError."""
    expected = expected_sha256(uri, sha256)
    if not is_remote(uri):
        path = Path(uri)
        if not path.is_file():
            return None
        if not (found := file_sha256(path)).startswith(expected):
            raise ConfigError(
                f"The weights {path} are not the promised ones: their sha256 is {found}, expected was {expected}."
            )
        return path
    path = cached_path(uri, expected)
    return path if path.is_file() and file_sha256(path).startswith(expected) else None


def fetch(uri: str, sha256: str, *, model: str) -> Path:
    """The verified weights file of `model` on this machine, fetched if need be.

    Raises ConfigError that says what to fetch and where to put it.
    """
    expected = expected_sha256(uri, sha256)
    if is_remote(uri) and not expected:
        raise ConfigError(
            f"{model}: {shown(uri)} comes from elsewhere, so its sha256 must be given with it (sha256: ...)."
        )
    if found := locate(uri, sha256):
        return found
    if not is_remote(uri):
        raise ConfigError(f"{model}: there is no weights file {uri}.")
    target = cached_path(uri, expected)
    sources = [uri]
    if mirror := os.environ.get("VIDPROC_MODEL_MIRROR"):
        refuse_credentials_in(mirror, "VIDPROC_MODEL_MIRROR")
        sources.insert(0, f"{mirror.rstrip('/')}/{Path(urlsplit(uri).path).name}")
    reasons = []
    if target.is_file():
        reasons.append(f"the file there has the wrong sha256 ({file_sha256(target)[:12]}...)")
    for source in sources:
        try:
            _copy(source, target, expected)
            return target
        except (OSError, VidprocError) as e:
            reasons.append(f"{shown(source)}: {reason_of(e)}")
    raise ConfigError(
        f"The weights of {model} are not on this machine and could not be fetched ({'; '.join(reasons)}). "
        f"Fetch {shown(uri)} where there is a network, and put it here as {target}, "
        f"or set VIDPROC_MODEL_MIRROR to a folder, https:// or s3:// prefix that holds it by that name."
    )


def _copy(source: str, target: Path, expected: str) -> None:
    """Atomic: the file appears under its name when whole and verified, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            for block in _blocks(source):
                digest.update(block)
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        if not digest.hexdigest().startswith(expected):
            raise ConfigError(f"what came has the sha256 {digest.hexdigest()}, expected was {expected}")
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


def _blocks(source: str) -> Iterator[bytes]:
    scheme = urlsplit(source).scheme if is_remote(source) else "file"
    if scheme == "s3":
        from vidproc.storage import open_storage

        prefix, _, key = source.rpartition("/")
        yield open_storage(prefix, options=_reached_by.get()).get(key)
    elif scheme in ("http", "https"):
        with _open_url(source) as response:
            yield from _read_all(response)
    elif scheme == "file":
        path = urlsplit(source).path if is_remote(source) else source
        with open(path, "rb") as f:
            yield from iter(lambda: f.read(_BLOCK), b"")
    else:
        raise ConfigError(f"weights come from a file, https:// or s3://, not {scheme}://")


def _open_url(url: str) -> Any:
    """urlopen with one deadline for name, connection and headers together: a socket's time limit
    does not cover the name server, which can hang for half a minute without a network."""
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    given_up = threading.Event()

    def ask() -> None:
        try:
            response = urllib.request.urlopen(url, timeout=READ_SECONDS)
            if given_up.is_set():
                response.close()
            else:
                answer.put(response)
        except Exception as e:
            if isinstance(e, urllib.error.HTTPError):
                e.close()  # it is an open response too
            answer.put(e)

    threading.Thread(target=ask, daemon=True).start()
    try:
        got = answer.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        given_up.set()
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:.0f} s") from None
    if isinstance(got, Exception):
        raise got
    return got


def _read_all(response: Any) -> Iterator[bytes]:
    promised = response.headers.get("Content-Length")
    count = 0
    for block in iter(lambda: response.read(_BLOCK), b""):
        count += len(block)
        yield block
    if promised is not None and count != int(promised):
        raise OSError(f"cut short after {count} of {promised} bytes")


def file_sha256(path: str | Path) -> str:
    """Return the sha256 of a local file."""
    return hashlib.sha256(read_weights_file(Path(path))).hexdigest()


def shown(uri: str) -> str:
    """A URI without what may be secret in it: credentials and query."""
    if not is_remote(uri):
        return uri
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def reason_of(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return shortened(str(error.reason))
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return shortened(str(error) or type(error).__name__)


def shortened(text: str, limit: int = 240) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
