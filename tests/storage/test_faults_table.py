"""What stores, the system and the table libraries say, as they say it: each text means one kind, of one table."""

from __future__ import annotations

import errno
import os
from typing import Any

import pyarrow as pa
import pytest
from deltalake.exceptions import DeltaError

from vidproc.errors import ConfigError, Damaged, DiskFull, Refused, TransientError, VidprocError
from vidproc.storage import faults
from vidproc.tables.delta import translated

S3 = (
    "Generic S3 error: Error performing PUT http://127.0.0.1:9000/lake/videos/part-0.parquet in 12ms - Server returned "
    "non-2xx status code: {status}: <Error><Code>{code}</Code><Message>told</Message></Error>"
)
LOCAL = "Generic LocalFileSystem error: Unable to copy data to file: {} (os error {})"
CASES: list[tuple[str, type[Exception], type[VidprocError], str]] = [
    (S3.format(status=400, code="BadDigest"), DeltaError, TransientError, "transient"),
    (S3.format(status=400, code="XAmzContentSHA256Mismatch"), DeltaError, TransientError, "transient"),
    (S3.format(status=503, code="SlowDown"), DeltaError, TransientError, "transient"),
    (S3.format(status=500, code="InternalError"), OSError, TransientError, "transient"),
    (S3.format(status=403, code="InvalidAccessKeyId"), DeltaError, Refused, "unknown_key"),
    (S3.format(status=400, code="ExpiredToken"), DeltaError, Refused, "expired_token"),
    (S3.format(status=403, code="RequestTimeTooSkewed"), OSError, Refused, "wrong_clock"),
    (S3.format(status=403, code="AccessDenied"), DeltaError, Refused, "denied"),
    (
        "Generic S3 error: error sending request for url (http://x/): operation timed out",
        OSError,
        TransientError,
        "transient",
    ),
    *(
        (LOCAL.format(os.strerror(number), number), library, ours, error_class)
        for library in (DeltaError, OSError, pa.ArrowException)
        for number, ours, error_class in (
            (errno.ENOSPC, DiskFull, "transient"),
            (errno.EDQUOT, DiskFull, "transient"),
            (errno.EIO, TransientError, "transient"),
            (errno.EROFS, ConfigError, "config"),
            (errno.EFBIG, ConfigError, "config"),
            (errno.EACCES, ConfigError, "config"),
            (errno.EMFILE, ConfigError, "config"),
        )
    ),
    ("Parquet error: External: Corrupt footer", DeltaError, Damaged, "damaged"),
    ("Kernel error: Generic delta kernel error: No protocol found", DeltaError, Damaged, "damaged"),
    ("Invalid table version: 7", DeltaError, TransientError, "transient"),
]


@pytest.mark.parametrize(("said", "library", "ours", "error_class"), CASES)
def test_what_a_library_says_becomes_one_of_our_errors(
    said: str, library: type[Exception], ours: type[VidprocError], error_class: str
) -> None:
    with pytest.raises(VidprocError, match="/lake/videos") as raised, translated("/lake/videos"):
        raise library(said)
    assert (type(raised.value), raised.value.error_class) == (ours, error_class)


def test_a_text_that_means_nothing_stays_what_it_is() -> None:
    assert faults.of_library("index out of bounds: the len is 3") is None
    error: Any = DeltaError("index out of bounds: the len is 3")
    with pytest.raises(DeltaError), translated("/lake/videos"):
        raise error
