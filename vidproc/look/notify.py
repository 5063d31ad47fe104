"""Tell somebody that a night is over: a small JSON, posted to a URL.

The URL may itself be a secret (chat services make such), so nothing that is said or recorded holds more of it than its
host. The message holds what `vidproc status` would print, redacted. It follows no redirection, and ends in a bounded
time whatever the other side does.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from vidproc import __version__
from vidproc.errors import ConfigError, TransientError
from vidproc.secrets import check_hook, host_of, redact_values

REQUEST_S = 5.0
ATTEMPTS = 3
WAIT_S = 1.0
"""Before the second attempt; twice as long before the third."""
TOTAL_S = 20.0
"""For all attempts together."""


def post(url: str, message: Mapping[str, Any], *, total_s: float = TOTAL_S) -> None:
    """Post the message as JSON; what passes by itself is tried again. Raises ConfigError where the URL or the answer
    says that it never works, TransientError where nobody answered in time."""
    check_hook(url, "--notify")
    said = redact_values({**message, "vidproc": __version__})
    body = json.dumps(said, default=str, ensure_ascii=True).encode()
    over = time.monotonic() + total_s
    ended: list[Exception | None] = []
    # A thread of its own: a server that sends a byte now and then outlasts the time limit of any request.
    thread = threading.Thread(target=lambda: ended.append(_tried(url, body, over)), daemon=True)
    thread.start()
    thread.join(total_s)
    error = ended[0] if ended else TransientError(f"{host_of(url)}: no answer within {total_s:g} s")
    if error is not None:
        raise error


def _tried(url: str, body: bytes, over: float) -> Exception | None:
    why = ""
    for attempt in range(1, ATTEMPTS + 1):
        left = over - time.monotonic()
        if left <= 0:
            break
        try:
            _send(url, body, min(REQUEST_S, left))
            return None
        except urllib.error.HTTPError as e:
            with e:
                why = f"answered {e.code}"
                if e.code < 500 and e.code not in (408, 429):
                    return ConfigError(f"{host_of(url)}: {why}: check the URL of --notify")
        except Exception as e:  # sockets, TLS, names, a protocol that is none: each in its own class
            reason = getattr(e, "reason", None)
            why = f"did not take it ({type(reason if isinstance(reason, BaseException) else e).__name__})"
        if attempt < ATTEMPTS:
            time.sleep(max(0.0, min(WAIT_S * 2 ** (attempt - 1), over - time.monotonic())))
    return TransientError(f"{host_of(url)}: {why or 'no answer in time'}, tried {ATTEMPTS} times")


class _StayHere(urllib.request.HTTPRedirectHandler):
    """A redirection would send the message to somebody else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _send(url: str, body: bytes, timeout_s: float) -> None:
    request = urllib.request.Request(url, data=body, method="POST")
    request.add_header("Content-Type", "application/json")
    request.add_header("User-Agent", f"vidproc/{__version__}")
    with urllib.request.build_opener(_StayHere).open(request, timeout=timeout_s) as answer:
        if not 200 <= answer.status < 300:
            raise urllib.error.HTTPError("", answer.status, "", answer.headers, None)
