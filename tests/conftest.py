"""Fixtures that several test files share."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from pyarrow import ArrowInvalid
from pyarrow.parquet import read_table

from tests.support.console import Run
from tests.support.s3 import BUCKET, LIMITED_SECRET_KEY, READ_ONLY_SECRET_KEY, SECRET_KEY, SeaweedFS
from vidproc import cli
from vidproc.errors import NotFound
from vidproc.storage import Storage, StorageOptions, open_storage

_numbers = itertools.count()


MEMORY = Path("/dev/shm")
ENOUGH = 6 << 30
"""Bytes: what the tests leave behind until the session ends is below 2 GB, and Ray keeps its objects there too."""


def pytest_configure(config: pytest.Config) -> None:
    """Put the tests' folders into memory where there is room. On a disk the tests wait for `fsync` for minutes, and
    all that they make is thrown away. --basetemp and PYTEST_DEBUG_TEMPROOT choose another place."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        # Files of tests run side by side: two pools of threads on the same cores mostly wait for each other.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if config.option.basetemp is None and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH < free_memory():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def free_memory() -> int:
    """Return the bytes that programs may still ask for; 0 where the system does not say."""
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)
    return 0


LONGEST = ("whole", "tables", "learn", "runtime")
"""Folders of tests that take minutes: they begin first, so that no worker is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)

    items.sort(key=rank)  # keeps the order within each


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Give the memory back; what a failed session left can be looked at until the next one."""
    folder = session.config._tmp_path_factory._basetemp  # type: ignore[attr-defined]
    if exitstatus == 0 and folder and MEMORY in folder.parents and session.config.option.basetemp is None:
        shutil.rmtree(folder, ignore_errors=True)


SECRETS = re.compile(rf"{SECRET_KEY}|{READ_ONLY_SECRET_KEY}|{LIMITED_SECRET_KEY}|X-Amz-Signature=[0-9a-f]{{64}}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whatever a test prints or logs is searched for the credentials of the test server, and for signatures."""
    report = yield
    for name, text in (*report.sections, ("The failure", str(report.longrepr))):
        if SECRETS.search(text):
            report.outcome, report.longrepr = "failed", f"a secret stands in {name.lower()}"
    return report


FREE_TEXT = re.compile(r"(failures|videos|runs|plan)\b.*\.parquet$")
"""Where rows hold sentences. They are compressed, so what other files show at once they do not."""
LARGE = 32 << 20
"""No log is so large; what is, is media."""


def with_secrets(files: Iterable[tuple[str, int, Callable[[], bytes]]]) -> list[str]:
    """Which of these files (name, size, how to read it) hold a credential of the test server, or a signature."""
    found = []
    for name, size, read in files:
        if size > LARGE or (name.endswith(".parquet") and not FREE_TEXT.search(name)):
            continue
        with suppress(FileNotFoundError, NotFound):
            data = read()
            text = data.decode("latin-1")
            if name.endswith(".parquet"):
                with suppress(ArrowInvalid):  # some tests write torn ones on purpose
                    text = str(read_table(BytesIO(data)).to_pylist())
            if SECRETS.search(text):
                found.append(name)
    return found


@pytest.fixture(scope="session", autouse=True)
def no_secret_is_left_in_a_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Lakes, logs, plans, reports, pages: whatever the whole session wrote into its folders."""
    yield
    base = tmp_path_factory.getbasetemp()
    paths = (p for p in base.rglob("*") if p.is_file() and not p.is_symlink())
    found = with_secrets((str(p.relative_to(base)), p.stat().st_size, p.read_bytes) for p in paths)
    assert not found, f"a secret stands in {found}"


@pytest.fixture(scope="session", autouse=True)
def state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What vidproc remembers for a user is remembered here, and for child processes too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


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
    everything = open_storage(f"s3://{BUCKET}")
    found = with_secrets((o.key, o.size, partial(everything.get, o.key)) for o in everything.list())
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    server.stop()
    assert not found, f"a secret stands in {found}"


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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small networks learn faster so, and the same on every machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def vidproc(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """The console script in this process -> exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vidproc", *map(str, arguments)])
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capfdbinary.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, out.decode(), err.decode()

    return run
