"""What a store's or a system's error code means: one table, for every library that reports one.

  passing        another try may fare better: throttling, a broken checksum, a full disk that somebody clears
  configuration  nothing fares better until an operator has changed something: keys, clock, region, a disk's mode
  denied         this object may not be read, others may: it costs itself
  archived       this object lies in an archive tier and must be restored before it can be read
  missing        nothing is there under that name
  changed        the object is another one by now
  damaged        the bytes are not what they should be, and stay so: neither another try nor a setting helps

`Meaning.error_class` is what the tables carry, `Meaning.way_out` what an operator can do about it.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["passing", "configuration", "denied", "archived", "missing", "changed", "damaged"]


@dataclass(frozen=True, slots=True)
class Meaning:
    kind: Kind
    error_class: str
    way_out: str = ""
    """One clause, such as `set this machine's clock`."""


EXPIRED = Meaning(
    "configuration",
    "expired_token",
    "the session token has expired: renew it (`aws sso login`, or new temporary keys) and run the same command again",
)
CLOCK = Meaning("configuration", "wrong_clock", "this machine's clock is off by more than the store allows: set it")
REGION = Meaning(
    "configuration", "wrong_region", "the bucket is in another region: name it with --region or AWS_REGION"
)
KEY = Meaning(
    "configuration", "unknown_key", "the store does not know this access key: check the credentials and the endpoint"
)
SIGNATURE = Meaning(
    "configuration",
    "wrong_signature",
    "the secret key does not fit the access key, or a proxy changed the request: check the credentials",
)
ACCOUNT = Meaning("configuration", "account", "the account may not use the store at all: ask whoever runs it")
BUCKET = Meaning("configuration", "no_bucket", "there is no such bucket: check its name and the endpoint, or create it")
DENIED = Meaning("denied", "denied", "check the credentials (AWS_ACCESS_KEY_ID, profile) and what they may do there")
ENCRYPTION_KEY = Meaning(
    "denied", "kms", "the key that encrypts the object is disabled, gone or not ours to use: see its state and policy"
)
OWN_KEY = Meaning("denied", "kms", "the object is encrypted with a customer's own key, which vidproc does not have")
ARCHIVED = Meaning("archived", "archived", "it lies in an archive tier: restore it, and the next run indexes it")
PASSING = Meaning("passing", "transient")
DIGEST = Meaning("passing", "transient", "the bytes were damaged on the way")
MISSING = Meaning("missing", "not_found")
CHANGED = Meaning("changed", "source_changed")


def _of(meaning: Meaning, codes: str) -> Iterable[tuple[str, Meaning]]:
    return ((code, meaning) for code in codes.split())


S3_CODES: dict[str, Meaning] = dict(
    (
        *_of(EXPIRED, "ExpiredToken ExpiredTokenException TokenRefreshRequired CredentialsExpired"),
        *_of(CLOCK, "RequestTimeTooSkewed RequestInTheFuture RequestExpired"),
        *_of(REGION, "PermanentRedirect AuthorizationHeaderMalformed AuthorizationQueryParametersError"),
        *_of(REGION, "IllegalLocationConstraintException IncorrectEndpoint"),
        *_of(KEY, "InvalidAccessKeyId InvalidClientTokenId UnrecognizedClientException InvalidToken"),
        *_of(SIGNATURE, "SignatureDoesNotMatch InvalidSignatureException"),
        *_of(ACCOUNT, "AccountProblem AllAccessDisabled NotSignedUp InvalidSecurity UserSuspended"),
        *_of(BUCKET, "NoSuchBucket"),
        *_of(DENIED, "AccessDenied AccessDeniedException AccessForbidden Forbidden Unauthorized UnauthorizedAccess"),
        *_of(ARCHIVED, "InvalidObjectState"),
        *_of(PASSING, "SlowDown InternalError ServiceUnavailable RequestTimeout RequestTimeoutException"),
        *_of(PASSING, "Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException"),
        *_of(PASSING, "TooManyRequests TooManyRequestsException RequestLimitExceeded BandwidthLimitExceeded"),
        *_of(PASSING, "OperationAborted ConditionalRequestConflict IncompleteBody TemporaryRedirect Busy"),
        *_of(DIGEST, "BadDigest InvalidDigest XAmzContentSHA256Mismatch XAmzContentChecksumMismatch"),
        *_of(MISSING, "NoSuchKey NotFound NoSuchVersion"),
        *_of(CHANGED, "PreconditionFailed"),
    )
)

_STATUSES = {
    301: REGION,
    307: PASSING,
    401: DENIED,
    403: DENIED,
    404: MISSING,
    408: PASSING,
    409: PASSING,
    412: CHANGED,
    429: PASSING,
}


def of_s3(code: str, status: int = 0, message: str = "") -> Meaning | None:
    """What a store's answer means. None: a request that it does not understand, which no retry mends."""
    if code in S3_CODES:
        return S3_CODES[code]
    if re.match(r"KMS\b|KMS[A-Z.]", code):
        return ENCRYPTION_KEY
    if code == "InvalidRequest" and re.search(r"server.side.encryption|customer.provided.key", message, re.I):
        return OWN_KEY
    if status >= 500 and status != 501:  # 501: what the store does not know how to do
        return PASSING
    return _STATUSES.get(status)


def of_text(text: str) -> Meaning | None:
    """What the message of a library means that quotes the store's answer. None: it names no code that is known."""
    quoted = re.findall(r"<Code>\s*([A-Za-z0-9.]+)", text)
    for code in [*quoted, *re.findall(r"\b[A-Z][A-Za-z0-9]{5,}\b", text)]:
        if (meaning := of_s3(code)) is not None:
            return meaning
    return None


FULL = Meaning("passing", "transient", "the disk is full, or a quota: free space there, and run the same command again")
DISK = Meaning("passing", "transient", "the disk reports an error: see the system's log")
READ_ONLY = Meaning("configuration", "config", "it is mounted read-only: mount it for writing, or give another place")
REFUSED = Meaning("configuration", "config", "check its owner and mode")
TOO_LARGE = Meaning("configuration", "config", "files may not grow so large here: raise `ulimit -f`, or the quota")
TOO_MANY = Meaning("configuration", "config", "raise `ulimit -n`")
NOT_A_PATH = Meaning("configuration", "config", "give another place")

ERRNOS: dict[int, Meaning] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), FULL),
    errno.EIO: DISK,
    errno.EFBIG: TOO_LARGE,
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), TOO_MANY),
    errno.EROFS: READ_ONLY,
    **dict.fromkeys((errno.EACCES, errno.EPERM), REFUSED),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EILSEQ), NOT_A_PATH),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR), MISSING),
}


def of_errno(number: int | None) -> Meaning:
    """What the system's answer to a call on a file means; whatever is not known may pass."""
    return ERRNOS.get(number or 0, PASSING)


DAMAGED = Meaning("damaged", "damaged", "restore it from a copy, or index into a new lake")

WORDS: tuple[tuple[str, Meaning], ...] = (
    (r"Unauthenticated|PermissionDenied|lacks the required privileges", DENIED),
    # The last two: entries of the log were cut away since the table was opened.
    (r"Object at location .* not found|Invalid table version|No files in log segment", MISSING),
    # Of a read past the end: the file is shorter than its footer, or its log, says.
    (r"Requested range was invalid", DAMAGED),
    (r"error sending request|error decoding response body|operation timed out|Connection (?:reset|refused)", PASSING),
    (r"Generic (?:S3|LocalFileSystem) error", PASSING),
    (r"Parquet (?:argument )?error|Invalid Parquet|[Cc]orrupt|Thrift|[Jj]son error|Invalid JSON", DAMAGED),
    (r"C Data interface error", DAMAGED),
    # Of a log: versions that lack, actions that are none, a hint that leads nowhere.
    (r"Kernel error", DAMAGED),
)
"""What deltalake, object_store, pyarrow and DuckDB say where they name neither a number nor a code; the first that is
found counts."""


def of_library(text: str) -> Meaning | None:
    """What the message of a library means that reads and writes tables. None: nothing that is known."""
    number = re.search(r"\bos error (\d+)\b|\bcode: (\d+), kind:|\[Errno (\d+)\]", text)
    if number is not None:
        return of_errno(int(next(filter(None, number.groups()))))
    if (meaning := of_text(text)) is not None:
        return meaning
    if (status := re.search(r"\bstatus(?: code)?:? (\d{3})\b|\bHTTP (\d{3})\b", text)) is not None:
        return of_s3("", int(status[1] or status[2]))
    return next((meaning for words, meaning in WORDS if re.search(words, text)), None)
