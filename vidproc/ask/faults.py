"""Translate DuckDB's errors into ours."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import duckdb

from vidproc.errors import ConfigError, TransientError
from vidproc.secrets import redact
from vidproc.storage import LONG_S

_LINE = re.compile(r"^LINE (\d+): ", re.M)


@contextmanager
def translated(added_lines: int = 0) -> Iterator[None]:
    """DuckDB's errors as ours, its line numbers less the lines that we put before the query."""
    try:
        yield
    except duckdb.Error as e:
        # Its own prefix (`Binder Error: `) stays: it tells a typing mistake from a missing column.
        message = redact(str(e)).strip()
        message = _LINE.sub(lambda m: f"LINE {int(m[1]) - added_lines}: ".ljust(len(m[0])), message)
        if isinstance(e, duckdb.InterruptException):
            raise KeyboardInterrupt from None
        if isinstance(e, duckdb.InternalException | duckdb.FatalException):
            raise
        if isinstance(e, duckdb.OutOfMemoryException):
            raise ConfigError(
                f"SQL: the query needs more memory than it may have; ask for less, or set memory_limit: {message}"
            ) from e
        if isinstance(e, duckdb.HTTPException | duckdb.IOException):
            raise TransientError(f"the lake could not be read, {_way_out(message)}: {message}") from e
        raise ConfigError(f"SQL: {message}") from e
    except RecursionError as e:
        raise ConfigError("SQL: the statement is nested too deeply to be checked; write it flatter") from e


def _way_out(message: str) -> str:
    if re.search(
        r"timeout was reached|timed out|could not connect|couldn't connect|error sending request", message, re.I
    ):
        return "its store does not answer: check the endpoint, the network and that the store is up, and try again"
    return "try again (a vacuum may have removed what was being read)"


_INTERRUPT = "INTERRUPT Error"
_OF_STREAM: dict[str, type[duckdb.Error]] = {
    "IO Error": duckdb.IOException,
    "HTTP Error": duckdb.HTTPException,
    "Out of Memory Error": duckdb.OutOfMemoryException,
    "INTERNAL Error": duckdb.InternalException,
    "FATAL Error": duckdb.FatalException,
    # Whose reason did not come again: as what passes by itself.
    _INTERRUPT: duckdb.IOException,
}


@contextmanager
def streamed(ask: Callable[[], Iterable[object]]) -> Iterator[None]:
    """Around the reading of an answer: through Arrow's stream DuckDB's errors come as OSErrors, and only
    how their text begins tells what they were. `ask` asks the same again."""
    try:
        yield
    except OSError as e:
        e = _reason(ask, e)
        kind = next((kind for begin, kind in _OF_STREAM.items() if str(e).startswith(begin)), duckdb.Error)
        raise kind(str(e)) from e


def _reason(ask: Callable[[], Iterable[object]], error: OSError) -> OSError:
    """An error in one of DuckDB's threads interrupts the others, and now and then the interruption is
    what the reader is told. Nobody interrupts here, so the question is asked again for its own error."""
    begun = time.monotonic()
    for _ in range(3):
        if not str(error).startswith(_INTERRUPT) or time.monotonic() - begun > LONG_S:
            break
        try:
            deque(ask(), maxlen=0)
        except OSError as again:
            error = again
    return error
