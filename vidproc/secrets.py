"""What must never be read in a table, a log or a message: found, taken out, and refused where it is given to us.

`redact` is for every text that is recorded or shown, `redact_values` for what becomes JSON. Workers call them
where an error is made, since only they know the credentials that they use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from vidproc.errors import ConfigError

HIDDEN = "[redacted]"

MIN_SECRET_CHARACTERS = 8
"""Shorter values are not looked for in texts: they would be found in words that are no secrets."""

_SIGNED_QUERY = re.compile(
    r"\?[^\s\"'<>\\]*?(?:X-Amz-|AWSAccessKeyId|Signature=|sig=|token=)[^\s\"'<>\\]*", re.IGNORECASE
)
_LOOSE_PARAMETER = re.compile(
    r"(?i)\b(X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|"
    r"aws_secret_access_key|aws_session_token|aws_access_key_id|secret_?(?:access_?)?key|Credential)"
    r"(\\?\"?'?\s*[=:]\s*\\?\"?'?)(?!\[redacted\])[^\s\"'&,;}\])\\]+"
)
_SECRET_WORD = r"(?:pass(?:word|wd|phrase)|secret|token|api[_-]?key|private[_-]?key|access[_-]?key|credentials?)"
_NAME = rf"[\w.-]*{_SECRET_WORD}s?"
_QUOTED = tuple(
    # "key": "value" as JSON and Python write it, also inside a string of JSON.
    re.compile(rf"(?i)({q}{_NAME}{q}\s*[:=]\s*{q})(?:(?!{q}).)+", re.S)
    for q in ('"', "'", r'\\"')
)
_BARE = re.compile(rf"(?i)(\b{_NAME}=[\"']?)(?!\d{{1,6}}(?:\W|$))[^\s\"'&]+")
_YAML = re.compile(r"(?i)(\b[\w-]*(?:pass(?:word|wd|phrase)|secret|api[_-]?key|_token|_key)\s*:\s+)[^\s\"']+")
_OPTION = re.compile(rf"(?i)(--[\w-]*{_SECRET_WORD}(?:\s+|=)'?)[^\s'\"]+")
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization[\"']?\s*[=:]\s*[\"']?)[^\r\n\"']+")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{16,}")
_USER_IN_URL = re.compile(r"(?<=://)(?:[^/\s\"'<>?#]*|[^/\s\"'<>?#@:]*:(?!\d+/)[^\s\"'<>@]*)@")
"""The second form: a password in which `/`, `?` or `#` was not percent-encoded."""
_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")

_SECRET_NAME = re.compile(rf"(?i){_SECRET_WORD}")
_NOT_A_SECRET = re.compile(r"(?i)(_file|_path|_dir|_uri|_url|_id|_name|_type|_expiration|_ttl)$")
"""Ends of names under which a place or a property of a secret stands, rather than the secret."""
_SECRET_KEY = re.compile(rf"(?i)(?:^|[_-]){_SECRET_WORD}s?$|^authorization$|(?:Password|Secret|Token|ApiKey)$")

_known: set[str] = set()


def remember(*secrets: str | None) -> None:
    """From now on `redact` takes these out of every text of this process: credentials found in a profile, say."""
    _known.update(s for s in secrets if s and len(s) >= MIN_SECRET_CHARACTERS)


def redact(text: str) -> str:
    """The text without signatures, credentials and the query part of signed URLs."""
    text = _SIGNED_QUERY.sub(f"?{HIDDEN}", text)
    if "://" in text:
        text = _USER_IN_URL.sub(f"{HIDDEN}@", text)
    text = _HEADER.sub(rf"\1{HIDDEN}", text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    text = _LOOSE_PARAMETER.sub(rf"\1\2{HIDDEN}", text)
    for named in (*_QUOTED, _BARE, _YAML):
        text = named.sub(rf"\1{HIDDEN}", text)
    text = _OPTION.sub(rf"\1{HIDDEN}", text)
    text = _KEY_ID.sub(HIDDEN, text)
    for secret in sorted(_known | _of_environment(), key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, HIDDEN)
        if (escaped := quote(secret, safe="")) != secret and escaped in text:
            text = text.replace(escaped, HIDDEN)
    return text


def redact_values(value: Any, *, names: bool = True) -> Any:
    """The same for what becomes JSON: all strings in it, and with `names` whatever stands under one such as `token`."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {k: HIDDEN if names and _is_secret(k, v) else redact_values(v, names=names) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_values(v, names=names) for v in value]
    return value


def _is_secret(name: Any, value: Any) -> bool:
    return bool(isinstance(name, str) and isinstance(value, str | list | tuple) and value and _SECRET_KEY.search(name))


def _of_environment() -> set[str]:
    """Values of variables that are named as secrets are, and passwords in the URLs of proxies."""
    found = set()
    for name, value in os.environ.items():
        if len(value) < MIN_SECRET_CHARACTERS:
            continue
        if name == "AWS_ACCESS_KEY_ID" or (_SECRET_NAME.search(name) and not _NOT_A_SECRET.search(name)):
            found.add(value)
        elif "@" in value and "://" in value and (password := password_in(value)):
            found |= {s for s in (password, unquote(password)) if len(s) >= MIN_SECRET_CHARACTERS}
    return found


def password_in(url: str) -> str:
    """The password in a URL, or the user's name where it stands alone, as tokens do; empty without one."""
    try:
        parts = urlsplit(url)
        return parts.password or parts.username or ""
    except ValueError:  # no URL after all
        return ""


def refuse_credentials_in(url: str, what: str) -> None:
    """Raises ConfigError, without the secret, for a URL that holds a user or a password. An address of S3 has
    neither: `@` may be in a key. `what` names it, such as `the S3 endpoint`."""
    scheme = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://", url)
    if scheme is None or scheme[1].lower() == "s3":
        return
    if _USER_IN_URL.search(url):
        raise ConfigError(
            f"{what} holds credentials in its URL ({redact(url)}): anybody who reads a log or a table would have them; "
            "leave them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or name a profile"
        )
    if _SIGNED_QUERY.search(url):
        raise ConfigError(f"{what} holds a signature or a token in its URL ({redact(url)}): leave it out")
