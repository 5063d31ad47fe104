"""Storage: a folder and S3 are the same tests; then what only one of them can do wrong."""

from __future__ import annotations

import io
import os
import pickle
import random
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Root
from tests.support.s3 import BUCKET, READ_ONLY_ACCESS_KEY, READ_ONLY_SECRET_KEY, SeaweedFS
from vidproc.errors import AlreadyExists, ConfigError, NotFound, SourceChanged, TransientError
from vidproc.secrets import redact
from vidproc.storage import (
    BLOCK_BYTES,
    LocalStorage,
    StorageOptions,
    open_block_reader,
    open_storage,
    readable_url,
)

ODD_KEYS = [
    "plain.mp4",
    "a b/with space.mp4",
    "a#b?c&d=e+f.mp4",
    "100%/50%20off.mp4",
    "ünïcödé/日本語 🎬.mp4",
    "-leading/-dash.mp4",
    "--/…",
    "semi;colon'quote\"double`back.mp4",
    "new\nline.mp4",
    "tab\tand*star[1].mp4",
    "dots../..hidden/...mp4",
    "$HOME/~/x.mp4",
]


def test_odd_keys_come_back_as_they_are(lake_root: Root) -> None:
    storage = lake_root.storage
    for i, key in enumerate(ODD_KEYS):
        storage.put(key, f"content {i}".encode())
    listed = {o.key: o for o in storage.list()}
    assert set(listed) == set(ODD_KEYS)
    for i, key in enumerate(ODD_KEYS):
        assert storage.get(key) == f"content {i}".encode()
        assert storage.exists(key)
        assert listed[key].size == len(f"content {i}")
        with open_block_reader(storage.uri_of(key), lake_root.options, listed[key].etag) as f:
            assert f.read() == f"content {i}".encode()
    storage.delete(ODD_KEYS)
    storage.put("left", b"")
    assert [o.key for o in storage.list()] == ["left"]


def test_more_keys_than_a_page_are_all_listed(lake_root: Root) -> None:
    storage = lake_root.storage
    keys = {f"folder {i % 7}/{i:05d}" for i in range(2345)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: storage.put(key, b"x"), keys))
    assert {o.key for o in storage.list()} == keys
    assert {o.key for o in storage.list("folder 3/")} == {k for k in keys if k.startswith("folder 3/")}
    assert {o.key for o in storage.list("folder 3/000")} == {k for k in keys if k.startswith("folder 3/000")}
    storage.delete(keys)
    assert not any(storage.exists(k) for k in sorted(keys)[::500])


def test_a_prefix_is_not_a_folder_name(lake_root: Root) -> None:
    lake_root.below("a").storage.put("x", b"1")
    lake_root.below("ab").storage.put("y", b"2")
    assert [o.key for o in lake_root.below("a").storage.list()] == ["x"]


def test_ranges(lake_root: Root) -> None:
    storage = lake_root.storage
    data = random.Random(0).randbytes(10_000)
    etag = storage.put("k", data)
    assert next(iter(storage.list())).etag == etag
    assert storage.get_range("k", 100, 50) == data[100:150]
    assert storage.get_range("k", 9_990, 50, if_match=etag) == data[9_990:]
    assert storage.get_range("k", 10_000, 50) == b""
    assert storage.get_range("k", 5, 0) == b""


def test_a_replaced_object_is_noticed(lake_root: Root) -> None:
    storage = lake_root.storage
    etag = storage.put("k", b"first")
    reader = open_block_reader(storage.uri_of("k"), lake_root.options, etag)
    storage.put("k", b"other")
    with pytest.raises(SourceChanged, match="next run"):
        storage.get_range("k", 0, 5, if_match=etag)
    with pytest.raises(SourceChanged):
        open_block_reader(storage.uri_of("k"), lake_root.options, etag)
    if lake_root.uri.startswith("s3://"):  # an open local file keeps the old content
        with pytest.raises(SourceChanged):
            reader.read()
    reader.close()


def test_of_many_writers_one_creates(lake_root: Root) -> None:
    storage = lake_root.storage

    def create(i: int) -> int | None:
        try:
            storage.put("marker", f"{i}".encode(), if_absent=True)
        except AlreadyExists:
            return None
        return i

    with ThreadPoolExecutor(16) as pool:
        winners = [i for i in pool.map(create, range(32)) if i is not None]
    assert len(winners) == 1
    assert storage.get("marker") == f"{winners[0]}".encode()
    assert [o.key for o in storage.list()] == ["marker"]


def test_what_is_not_there(lake_root: Root) -> None:
    storage = lake_root.storage
    storage.put("there", b"")
    with pytest.raises(NotFound, match="nothing at") as caught:
        storage.get("absent")
    assert isinstance(caught.value, KeyError)
    assert "'" not in str(caught.value)[:1]
    with pytest.raises(NotFound):
        storage.get_range("absent/deep", 0, 1)
    with pytest.raises(NotFound):
        open_block_reader(storage.uri_of("absent"), lake_root.options, None)
    assert not storage.exists("absent")
    assert list(storage.list("absent/")) == []
    storage.delete(["absent", "absent/deep"])


def test_block_reader_seeks_and_reads_like_a_file(lake_root: Root) -> None:
    storage = lake_root.storage
    chooser = random.Random(1)
    data = chooser.randbytes(2 * BLOCK_BYTES + 12_345)
    etag = storage.put("big", data)
    with open_block_reader(storage.uri_of("big"), lake_root.options, etag) as f:
        assert f.seek(0, io.SEEK_END) == len(data)
        assert f.read() == b""
        for _ in range(50):
            start, length = chooser.randrange(len(data)), chooser.randrange(100_000)
            f.seek(start)
            assert f.read(length) == data[start : start + length]
        f.seek(0)
        assert f.read() == data


def test_a_presigned_url_opens_without_credentials_and_a_path_is_a_path(s3_root: Root, local_root: Root) -> None:
    import urllib.error
    import urllib.request

    key = "a b#c%20d/日.mp4"
    s3_root.storage.put(key, b"payload")
    url = readable_url(s3_root.storage.uri_of(key), s3_root.options, 60)
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"payload"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url[:-4] + "0000")
    caught.value.close()
    assert readable_url(local_root.storage.uri_of("x/y"), local_root.options, 60) == f"{local_root.uri}/x/y"


def test_storage_travels_without_credentials(lake_root: Root, s3_server: SeaweedFS) -> None:
    storage = lake_root.storage
    storage.put("k", b"v")
    pickled = pickle.dumps(storage)
    assert s3_server.environment["AWS_SECRET_ACCESS_KEY"].encode() not in pickled
    child = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).get('k').decode())"
    out = subprocess.run([sys.executable, "-c", child], input=pickled, capture_output=True, check=True)
    assert out.stdout == b"v\n"


def test_importing_storage_stays_light() -> None:
    child = "import sys, vidproc.storage; sys.exit(any(m in sys.modules for m in ('boto3', 'torch', 'ray', 'av')))"
    assert subprocess.run([sys.executable, "-c", child]).returncode == 0


# --- folders -----------------------------------------------------------------------------------


def test_symlink_loops_and_odd_files_are_survived(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a/b").mkdir(parents=True)
    (outside / "c").mkdir(parents=True)
    (root / "a/x.mp4").write_bytes(b"x")
    (outside / "y.mp4").write_bytes(b"yy")
    (outside / "c/z.mp4").write_bytes(b"zzz")
    (root / "a/b/up").symlink_to(root)
    (root / "self").symlink_to("self")
    (root / "link1").symlink_to(outside)
    (root / "link2").symlink_to(outside / "c")
    (outside / "back").symlink_to(root / "a")
    (outside / "round").symlink_to(outside)
    (root / "file.mp4").symlink_to(outside / "y.mp4")
    (root / "broken.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "pipe.mp4")
    listed = {o.key: o.size for o in LocalStorage(str(root)).list()}
    assert listed == {
        "a/x.mp4": 1,
        "file.mp4": 2,
        "broken.mp4": 0,
        "self": 0,
        "link1/y.mp4": 2,
        "link1/c/z.mp4": 3,
    }


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    (tmp_path / name).write_bytes(b"x")
    storage = open_storage(str(tmp_path))
    assert [o.key for o in storage.list()] == [name]
    assert storage.get(name) == b"x"


def test_a_folder_that_may_not_be_read_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ok").write_bytes(b"x")
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:  # root, who may run the tests, may read everything
        if path.endswith("/secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    heard: list[tuple[str, str]] = []
    storage = LocalStorage(str(tmp_path))
    assert [o.key for o in storage.list(on_denied=lambda key, why: heard.append((key, why)))] == ["ok"]
    assert heard == [("secret", "Permission denied")]
    with pytest.raises(ConfigError, match="secret"):
        list(storage.list())


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/.", "nul\0"])
def test_keys_never_leave_the_folder(tmp_path: Path, key: str) -> None:
    storage = LocalStorage(str(tmp_path / "root"))
    with pytest.raises(ValueError, match="not a key"):
        storage.put(key, b"x")
    with pytest.raises(ValueError, match="not a key"):
        storage.get(key)


def test_a_killed_writer_leaves_nothing_that_is_listed(tmp_path: Path) -> None:
    child = f"""
import os
from vidproc.storage import open_storage
os.replace = lambda *a: os._exit(9)
open_storage({str(tmp_path)!r}).put("deep/k", b"half")
"""
    assert subprocess.run([sys.executable, "-c", child]).returncode == 9
    storage = LocalStorage(str(tmp_path))
    assert len(list((tmp_path / "deep").iterdir())) == 1
    assert list(storage.list()) == []
    assert storage.remove_temporary(3600) == 0
    assert storage.remove_temporary(0) == 1
    assert list((tmp_path / "deep").iterdir()) == []


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("s3:///nobucket", "names no bucket"),
        ("gs://bucket/x", "s3://bucket/prefix"),
        ("https://user:secret@host/x", "s3://bucket/prefix"),
        ("", "not a path"),
    ],
)
def test_a_uri_of_another_kind_fails(uri: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        open_storage(uri)
    assert "secret" not in str(caught.value)


def test_a_folder_that_is_not_there_fails(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mounted"):
        list(open_storage(str(tmp_path / "absent")).list())


def test_a_bucket_that_is_not_there_fails(s3_root: Root) -> None:
    storage = open_storage("s3://no-such-bucket/x", options=s3_root.options)
    with pytest.raises(ConfigError, match="no such bucket at http"):
        list(storage.list())
    with pytest.raises(ConfigError, match="no such bucket"):
        storage.put("k", b"")


CHILD_LIST = """
import sys
from vidproc.errors import ConfigError
from vidproc.storage import StorageOptions, open_storage
storage = open_storage(sys.argv[1], options=StorageOptions(anonymous=sys.argv[2] == "anonymous"))
try:
    getattr(storage, sys.argv[3])(*sys.argv[4:]) if sys.argv[3] != "put" else storage.put("k", b"x")
    if sys.argv[3] == "list": list(storage.list())
except ConfigError as e:
    print("refused:", e); sys.exit(2)
"""


@pytest.mark.parametrize(
    ("variables", "anonymous", "call", "code"),
    [
        ({}, False, "put", 0),
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret-key-1"}, False, "list", 2),
        ({"AWS_ACCESS_KEY_ID": "unknown-access"}, False, "list", 2),
        ({"AWS_ACCESS_KEY_ID": READ_ONLY_ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": READ_ONLY_SECRET_KEY}, False, "list", 0),
        ({"AWS_ACCESS_KEY_ID": READ_ONLY_ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": READ_ONLY_SECRET_KEY}, False, "put", 2),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, False, "list", 2),
        ({}, True, "list", 2),
        ({"AWS_PROFILE": "absent"}, False, "list", 2),
    ],
)
def test_refused_credentials_say_so_and_stay_secret(
    s3_server: SeaweedFS, s3_root: Root, variables: dict[str, str], anonymous: bool, call: str, code: int
) -> None:
    environment = {**os.environ, **s3_server.environment, **variables}
    arguments = [sys.executable, "-c", CHILD_LIST, s3_root.uri, "anonymous" if anonymous else "signed", call]
    out = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert out.returncode == code, out.stderr
    if code:
        assert out.stdout.startswith("refused: ")
        for secret in (environment["AWS_SECRET_ACCESS_KEY"], environment["AWS_ACCESS_KEY_ID"]):
            assert not secret or secret == "vidproc" or secret not in out.stdout + out.stderr


# --- a server that misbehaves --------------------------------------------------------------------


@contextmanager
def _server(answer: bytes) -> Iterator[str]:
    """Answers every connection with the same bytes and hangs up."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda s: None)


@pytest.mark.usefixtures("no_waiting", "s3_server")
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\nETag: "e"\r\nConnection: close\r\n\r\nonly these bytes',
        b"",
    ],
    ids=["503", "500", "cut", "hangup"],
)
def test_passing_faults_of_a_server_are_transient(answer: bytes) -> None:
    with _server(answer) as endpoint:
        storage = open_storage(f"s3://{BUCKET}/x", options=StorageOptions(endpoint_url=endpoint, region="us-east-1"))
        with pytest.raises(TransientError, match="s3://"):
            storage.get("k")


@pytest.mark.usefixtures("no_waiting", "s3_server")
def test_an_endpoint_that_nobody_serves_is_named() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{s.getsockname()[1]}"
        storage = open_storage(f"s3://{BUCKET}/x", options=StorageOptions(endpoint_url=endpoint, region="us-east-1"))
        with pytest.raises(TransientError, match=endpoint):
            storage.get("k")


# --- secrets -------------------------------------------------------------------------------------


def test_redact(monkeypatch: pytest.MonkeyPatch, s3_root: Root) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCY")
    url = readable_url(s3_root.storage.uri_of("a b.mp4"), s3_root.options, 60)
    signature = url.rpartition("X-Amz-Signature=")[2]
    cleaned = redact(f"[Errno 5] Input/output error: '{url}' (retry)")
    assert signature not in cleaned and "X-Amz" not in cleaned
    assert "a%20b.mp4?[redacted]' (retry)" in cleaned
    for text in (
        "Signature=abc%2Fdef&Expires=1",
        "X-Amz-Security-Token=abcdef",
        '"aws_secret_access_key": "abcdef"',
        "secret_access_key=abcdef",
        "https://user:abcdef@host/x",
        "key wJalrXUtnFEMI/K7MDENG+bPxRfiCY leaked",
        "AKIAIOSFODNN7EXAMPLE",
    ):
        cleaned = redact(text)
        assert "[redacted]" in cleaned
        assert "abc" not in cleaned and "wJalr" not in cleaned and "IOSFODNN7" not in cleaned
    assert redact("s3://bucket/a?b.mp4 did not open") == "s3://bucket/a?b.mp4 did not open"
