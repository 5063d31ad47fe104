"""A store that speaks as much of S3 as reading takes, and lists its objects as oddly as a test wants.

The real server of tests/support/s3.py takes several slashes for one, and neither sleeps nor lies about its dates."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from vidproc.storage import StorageOptions

DATE = "2026-01-02T03:04:05.000Z"


@dataclass(frozen=True)
class Odd:
    """One object. None: the listing leaves the element out."""

    data: bytes = b""
    modified: str | None = DATE
    etag: str | None = '"1"'
    size: str | None = ""
    """Empty: as it is."""
    tier: str | None = None
    """Storage class."""
    restored: str | None = None
    """IsRestoreInProgress, told in a listing that asks for it; None: nobody has asked for the object."""
    refused: str | None = None
    """Code of the answer to whoever reads it."""


class _Handler(BaseHTTPRequestHandler):
    objects: dict[str, Odd]
    bucket: str
    asked_for: list[str]
    """Keys of the objects that were asked for, and the empty text for each listing."""
    knows_restores: bool

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).removeprefix("/").partition("/")
        asked = parse_qs(url.query, keep_blank_values=True)
        self.asked_for.append("" if "list-type" in asked else key)
        if "list-type" in asked:
            if "x-amz-optional-object-attributes" in self.headers and not self.knows_restores:
                self._answer(501, b"<Error><Code>NotImplemented</Code></Error>")
                return
            self._answer(200, self._page(asked.get("prefix", [""])[0]), {"Content-Type": "application/xml"})
        elif bucket != self.bucket or key not in self.objects:
            self._answer(404, b"")
        elif code := self.objects[key].refused:
            self._answer(403, f"<Error><Code>{code}</Code></Error>".encode())
        else:
            data, headers = self.objects[key].data, {"ETag": self.objects[key].etag or '"1"', "Accept-Ranges": "bytes"}
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted:
                start, end = int(wanted[1]), int(wanted[2] or len(data) - 1)
                headers["Content-Range"] = f"bytes {start}-{min(end, len(data) - 1)}/{len(data)}"
                data = data[start : end + 1]
            self._answer(206 if wanted else 200, data, headers)

    def _page(self, prefix: str) -> bytes:
        entries = ""
        for key, odd in self.objects.items():
            if key.startswith(prefix):
                size = str(len(odd.data)) if odd.size == "" else odd.size
                told = {"Key": escape(key), "LastModified": odd.modified, "ETag": odd.etag, "Size": size}
                told["StorageClass"] = odd.tier
                if odd.restored and "x-amz-optional-object-attributes" in self.headers:
                    expires = f"<RestoreExpiryDate>{DATE}</RestoreExpiryDate>" if odd.restored == "false" else ""
                    state = f"<IsRestoreInProgress>{odd.restored}</IsRestoreInProgress>{expires}"
                    told["RestoreStatus"] = state
                entries += "<Contents>" + "".join(f"<{k}>{v}</{k}>" for k, v in told.items() if v is not None)
                entries += "</Contents>"
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()

    def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def odd_store(
    objects: dict[str, Odd], bucket: str = "odd", asked_for: list[str] | None = None, *, knows_restores: bool = True
) -> Iterator[StorageOptions]:
    """Serves the objects until left -> how to reach them, at `s3://<bucket>/<key>`. `asked_for`: what is asked for is
    added there."""
    given = {"objects": objects, "bucket": bucket, "asked_for": [] if asked_for is None else asked_for}
    handler = type("Handler", (_Handler,), given | {"knows_restores": knows_restores})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield StorageOptions(endpoint_url=f"http://127.0.0.1:{server.server_port}", region="us-east-1", anonymous=True)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
