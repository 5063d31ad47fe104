"""What must never be read in a table, a log or a message: found, taken out, and refused where it is given to us.

`redact` is for every text that is recorded or shown, `redact_values` for what becomes JSON or a row. Workers call
them where an error is made, since only they know the credentials that they use; whatever writes a row, a document or
a log calls them again. `refuse_credentials_within` is for what a user gives us, so that there is little to hide.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
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
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_KEYS_OF_S3 = re.compile(r"(?i)s3://[^/\s\"'<>]*:[^/\s\"'<>]*@")
_SECRET_QUERY = re.compile(rf"[?&;][^=&\s\"'<>]*{_SECRET_WORD}[^=&\s\"'<>]*=[^&\s\"'<>]", re.IGNORECASE)
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


def redact_json(text: str) -> str:
    """The same for a JSON document as text: it stays JSON, and the same text where nothing is hidden."""
    try:
        value = json.loads(text)
    except ValueError:
        return redact(text)
    shown = redact_values(value)
    return text if shown == value else json.dumps(shown, ensure_ascii=False)


def hidden_in(value: Any, where: str = "") -> list[str]:
    """Where something was hidden in a document that was written with `redact_values`: `storage.endpoint_url`."""
    if isinstance(value, str):
        return [where] if HIDDEN in value else []
    named: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        named = value.items()
    elif isinstance(value, (list, tuple)):
        named = enumerate(value)
    return [found for k, v in named for found in hidden_in(v, f"{where}.{k}" if where else str(k))]


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


def refuse_credentials_in(text: str, what: str) -> None:
    """Raises ConfigError, without the secret, for a URL that holds a user or a password, a signature or a token, also
    where other text stands before it. A file or a key on S3 may have any of these in its name. `what` names it, such
    as `the S3 endpoint`."""
    for scheme in _SCHEME.finditer(text):
        url = text[scheme.start() :]
        name = scheme[1].lower()
        if name == "file":
            continue
        if _KEYS_OF_S3.match(url) if name == "s3" else _USER_IN_URL.search(url):
            raise ConfigError(
                f"{what} holds credentials in its URL ({redact(text)}): anybody who reads a log or a table would have "
                "them; leave them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or name a profile"
            )
        if name != "s3" and (_SIGNED_QUERY.search(url) or _SECRET_QUERY.search(url)):
            raise ConfigError(
                f"{what} holds a signature or a token in its URL ({redact(text.partition('?')[0])}?{HIDDEN}): anybody "
                "who reads a log or a table would have it; give a file, or a place on S3 that the AWS environment opens"
            )


def refuse_credentials_within(value: Any, what: str) -> None:
    """The same for every string in nested mappings and lists; `what` names the whole, and the message the place."""
    if isinstance(value, str):
        refuse_credentials_in(value, what)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            refuse_credentials_within(inner, f"{what}.{key}" if what else str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            refuse_credentials_within(inner, what)


def check_hook(url: str, what: str) -> None:
    """Raises ConfigError for what is no http(s) URL that can be posted to, or holds a user or a password. Chat services
    make such URLs, and whoever knows one may write there: so no message quotes it (see `host_of`)."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(c.isspace() or not c.isprintable() for c in url):
        raise ConfigError(f"{what} takes a URL such as https://chat.example/hook, and what is given is none")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"the URL of {what} ({host_of(url)}) holds a user or a password: give one without")


def host_of(url: str) -> str:
    """What may be said of a URL that is a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
