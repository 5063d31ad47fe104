"""A bad network in front of a real S3 server: a proxy on loopback that breaks what its rules say.

Requests pass unchanged, the Host header too, so their signatures hold. A rule names a fault:

    503, slow_down, denied, ...     the keys of ANSWERS: answered so, and never forwarded
    cut       the connection is reset before an answer
    lost      the request is carried out, then the connection is reset: only the answer is lost
    short     half of the body comes, then the connection closes
    stall     half of the body comes, then nothing for `seconds`
    slow      the answer comes `seconds` late
    put       the object `uri` becomes the content of the file `content`, or is deleted where that is
              empty; then the request goes on

It is a process of its own: parts of the Delta library wait for an answer without letting go of the
interpreter, so a proxy in the same process could never give it.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ANSWERS = {
    "503": (503, "ServiceUnavailable", "Please try again."),
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
    "full": (500, "InternalError", "no space left on device"),
    "denied": (403, "AccessDenied", "Access Denied."),
    "revoked": (403, "InvalidAccessKeyId", "The AWS access key Id you provided does not exist in our records."),
    "archived": (403, "InvalidObjectState", "The operation is not valid for the object's storage class"),
    "kms": (400, "KMS.DisabledException", "arn:aws:kms:us-east-1:1:key/2 is disabled."),
    "kms_gone": (400, "KMS.NotFoundException", "Key is not found."),
    "own_key": (400, "InvalidRequest", "The object was stored using a form of Server Side Encryption."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "clock": (403, "RequestTimeTooSkewed", "The difference between the request time and ours is too large."),
    "region": (400, "AuthorizationHeaderMalformed", "The region 'us-east-1' is wrong; expecting 'eu-west-1'"),
    "moved": (301, "PermanentRedirect", "The bucket must be addressed using another endpoint."),
    "signature": (403, "SignatureDoesNotMatch", "The request signature does not match."),
}


@dataclass
class Rule:
    fault: str
    methods: str = "GET|HEAD|PUT|POST|DELETE"
    path: str = ".*"
    """Regular expression which the whole path (not percent-encoded, without query) must match."""
    share: float = 1.0
    skip: int = 0
    """So many matching requests pass first."""
    times: int | None = None
    """At most so often; None: always."""
    seconds: float = 0.0
    uri: str = ""
    content: str = ""

    def carry_out(self) -> None:
        from vidproc.storage import open_storage

        folder, _, name = self.uri.rpartition("/")
        if self.content:
            open_storage(folder).put(name, Path(self.content).read_bytes())
        else:
            open_storage(folder).delete([name])


@dataclass
class Proxy:
    """What a test holds of a running proxy."""

    endpoint: str
    process: subprocess.Popen[str]

    def _ask(self, line: str) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def rules(self, *rules: Rule) -> None:
        """From now on these."""
        self._ask(json.dumps([asdict(rule) for rule in rules]))

    @property
    def hits(self) -> int:
        """How many requests met a fault."""
        return int(self._ask("hits"))

    @property
    def requests(self) -> list[list[str]]:
        """Method and path of each."""
        found: list[list[str]] = self._ask("requests")
        return found


@contextmanager
def proxy(upstream: str, *rules: Rule, seed: int = 0) -> Iterator[Proxy]:
    command = [sys.executable, "-m", "tests.support.proxy", upstream, str(seed)]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        running = Proxy(process.stdout.readline().strip(), process)
        running.rules(*rules)
        yield running
        process.kill()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream: str, seed: int) -> None:
        parts = urlsplit(upstream)
        self.upstream = parts.hostname or "", parts.port or 80
        self.requests: list[tuple[str, str]] = []
        self.hits = 0
        self.rules: list[tuple[Rule, list[int]]] = []
        self._dice, self._lock = random.Random(seed), threading.Lock()
        super().__init__(("127.0.0.1", 0), _Connection)

    def choose(self, method: str, path: str) -> Rule | None:
        with self._lock:
            self.requests.append((method, path))
            for rule, count in self.rules:
                if not re.fullmatch(rule.methods, method) or not re.fullmatch(rule.path, path):
                    continue
                seen, hits = count
                spent = rule.times is not None and hits >= rule.times
                hit = seen >= rule.skip and not spent and self._dice.random() < rule.share
                count[:] = seen + 1, hits + hit
                if hit:
                    self.hits += 1
                    return rule
        return None

    def answer(self, line: str) -> Any:
        if line == "hits":
            return self.hits
        if line == "requests":
            return self.requests
        self.rules = [(Rule(**rule), [0, 0]) for rule in json.loads(line)]
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients leave when they like


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        with suppress(OSError):
            while self._one_request():
                pass

    def _one_request(self) -> bool:
        lines = []
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            lines.append(line)
        if not lines:
            return False
        method, target, _ = lines[0].decode("latin-1").split(" ", 2)
        headers = {k.lower(): v.strip() for k, _, v in (h.decode("latin-1").partition(":") for h in lines[1:])}
        if "100-continue" in headers.get("expect", ""):
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.rfile.read(int(headers.get("content-length", 0)))
        rule = self.server.choose(method, unquote(urlsplit(target).path))
        fault = rule.fault if rule else None
        if fault in ANSWERS:
            self._answer(method, *ANSWERS[fault])
            return True
        if fault == "cut":
            return self._reset()
        if rule and fault == "put":
            rule.carry_out()
        if rule and fault == "slow":
            time.sleep(rule.seconds)
        head, data = self._forward(method, [h for h in lines if not h.lower().startswith(b"expect:")], body)
        if fault == "lost":
            return self._reset()
        if rule and fault in ("short", "stall"):
            self.wfile.write(head + data[: len(data) // 2])
            self.wfile.flush()
            time.sleep(rule.seconds)
            return False
        self.wfile.write(head + data)
        return True

    def _forward(self, method: str, lines: list[bytes], body: bytes) -> tuple[bytes, bytes]:
        with socket.create_connection(self.server.upstream) as upstream:
            upstream.sendall(b"".join(lines) + b"\r\n" + body)
            answer = http.client.HTTPResponse(upstream, method=method)
            answer.begin()
            data = answer.read()
        kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection")]
        if method != "HEAD" and not any(k.lower() == "content-length" for k, _ in kept):
            kept.append(("Content-Length", str(len(data))))
        head = f"HTTP/1.1 {answer.status} {answer.reason}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in kept) + "\r\n"
        return head.encode("latin-1"), data

    def _answer(self, method: str, status: int, code: str, message: str) -> None:
        text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
        head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n\r\n"
        self.wfile.write((head + (text if method != "HEAD" else "")).encode())

    def _reset(self) -> bool:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        return False


if __name__ == "__main__":
    with _Server(sys.argv[1], int(sys.argv[2])) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        for line in sys.stdin:
            print(json.dumps(server.answer(line.strip())), flush=True)
