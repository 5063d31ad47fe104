"""Fixtures that several test files share."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.s3 import BUCKET, LIMITED_SECRET_KEY, READ_ONLY_SECRET_KEY, SECRET_KEY, SeaweedFS
from vidproc.storage import Storage, StorageOptions, open_storage

_numbers = itertools.count()


SECRETS = re.compile(rf"{SECRET_KEY}|{READ_ONLY_SECRET_KEY}|{LIMITED_SECRET_KEY}|X-Amz-Signature=[0-9a-f]{{64}}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whatever a test prints or logs is searched for the credentials of the test server, and for signatures."""
    report = yield
    for name, text in report.sections:
        if SECRETS.search(text):
            report.outcome, report.longrepr = "failed", f"a secret stands in {name.lower()}"
    return report


@dataclass(frozen=True)
class Root:
    """An empty place of one test's own: a folder, or a prefix on the S3 server."""

    uri: str
    options: StorageOptions

    @property
    def storage(self) -> Storage:
        return open_storage(self.uri, options=self.options)

    def below(self, name: str) -> Root:
        return Root(f"{self.uri}/{name}", self.options)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """One server for the whole session. From its start on the environment points to it, for child
    processes too."""
    server = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    server.start()
    before = {name: os.environ.get(name) for name in server.environment}
    os.environ.update(server.environment)
    yield server
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    server.stop()


@pytest.fixture
def s3_root(s3_server: SeaweedFS) -> Root:
    """A prefix of the server's bucket that no other test uses."""
    options = StorageOptions(endpoint_url=s3_server.endpoint, region="us-east-1")
    return Root(f"s3://{BUCKET}/t{os.getpid()}-{next(_numbers)}", options)


@pytest.fixture
def local_root(tmp_path: Path) -> Root:
    return Root(str(tmp_path / "root"), StorageOptions(endpoint_url=None))


@pytest.fixture(params=["local", "s3"])
def lake_root(request: pytest.FixtureRequest) -> Root:
    """The same test on a folder and on S3; nothing is there yet."""
    root: Root = request.getfixturevalue(f"{request.param}_root")
    return root
