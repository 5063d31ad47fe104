"""An HTTP proxy that plays every store at once: it answers nothing there, and writes down who asked whom for what.

A process of its own, since parts of the Delta library wait without letting go of the interpreter. What goes over TLS
it sees as far as the name of the host. It plays AWS's token service too: whoever assumes a role gets ROLE_KEY.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROLE_KEY, ROLE_SECRET, ROLE_TOKEN = "ASIAROLEKEY", "role-secret-value", "role-token-value"
ROLE = f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn><AssumedRoleId>A:s</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>{ROLE_KEY}</AccessKeyId><SecretAccessKey>{ROLE_SECRET}</SecretAccessKey>
<SessionToken>{ROLE_TOKEN}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
</AssumeRoleResult></AssumeRoleResponse>"""
EMPTY = "<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
NOTHING = "<Error><Code>NoSuchKey</Code><Message>nothing</Message></Error>"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _record(self) -> None:
        authorization = self.headers.get("Authorization", "")
        scope = re.search(r"Credential=([^/]+)/\d+/([^/]+)/", authorization)
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        seen = {
            "method": self.command,
            "scheme": url.scheme,
            "host": url.netloc if self.command != "CONNECT" else self.path,
            "path": url.path if self.command != "CONNECT" else "",
            "query": url.query,
            "key": scope[1] if scope else None,
            "region": scope[2] if scope else None,
            "token": self.headers.get("x-amz-security-token"),
        }
        print(json.dumps(seen), flush=True)
        if self.command == "CONNECT":
            return self._answer(502, "")
        if b"AssumeRole" in body:
            return self._answer(200, ROLE)
        if "list-type" in url.query:
            return self._answer(200, EMPTY)
        return self._answer(404, NOTHING)

    def _answer(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_CONNECT = _record

    def log_message(self, *_: Any) -> None:
        pass


class Recorder:
    def __init__(self, url: str, log: Path) -> None:
        self.url, self._log = url, log

    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()[1:]]


@contextmanager
def recorder(log: Path) -> Iterator[Recorder]:
    with log.open("w") as out, subprocess.Popen([sys.executable, __file__], stdout=out) as process:
        while not (first := log.read_text()).endswith("\n"):
            assert process.poll() is None
        yield Recorder(first.strip(), log)
        process.kill()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
