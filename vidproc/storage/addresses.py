"""Addresses of places: `s3://bucket/prefix`, `file:///path` and plain paths. No other file looks at a scheme."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from vidproc.errors import ConfigError
from vidproc.secrets import redact

S3 = "s3://"


def is_s3(uri: str) -> bool:
    """Whether the address names something in a bucket; if not, it is a path on this machine."""
    return uri.startswith(S3)


def absolute_address(uri: str) -> str:
    """Return the absolute path that a local address means, seen from the working directory; an S3 address as it is."""
    return uri if is_s3(uri) else local_path(uri)


def resolved_address(uri: str) -> str:
    """Return the absolute path without symbolic links that a local address means; an S3 address as it is."""
    return uri if is_s3(uri) else os.path.realpath(local_path(uri))


def s3_address(bucket: str, key: str = "") -> str:
    return f"{S3}{bucket}/{key}" if key else f"{S3}{bucket}"


def split_s3_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/any key?#%` -> (bucket, key). By hand, since URL parsers cut at `?` and `#`."""
    bucket, _, key = uri.removeprefix(S3).partition("/")
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
