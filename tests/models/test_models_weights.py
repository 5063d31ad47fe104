"""Weights: fetched once, verified always, never unpickled, and a plain word where they cannot be had."""

from __future__ import annotations

import hashlib
import http.server
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import Root
from tests.support.weights import load_state_dict
from vidproc.errors import ConfigError
from vidproc.models.fetching import cache_folder, cached_path, fetch, file_sha256, locate, shown

DATA = bytes(range(256)) * 5000
SHA = hashlib.sha256(DATA).hexdigest()
NAME = f"net-{SHA[:8]}.pth"


class Server:
    """A web server over a few files: what it was asked, and how it misbehaves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut_after: int | None = None
        self.wait_s = 0.0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                time.sleep(server.wait_s)
                data = server.files.get(self.path.partition("?")[0])
                if data is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: server.cut_after])

            def log_message(self, *args: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDPROC_MODEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VIDPROC_MODEL_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def test_a_remote_file_is_fetched_once(server: Server, cache: Path) -> None:
    server.files[f"/{NAME}"] = DATA
    uri = f"{server.url}/{NAME}"
    assert locate(uri, "") is None
    path = fetch(uri, "", model="net")
    assert path == cache / NAME and path.read_bytes() == DATA
    assert fetch(uri, "", model="net") == path == locate(uri, "")
    assert server.asked == [f"/{NAME}"]
    assert [p.name for p in cache.iterdir()] == [NAME]


def test_a_name_without_hash_needs_one_and_keeps_it(server: Server, cache: Path) -> None:
    server.files["/model.safetensors"] = DATA
    uri = f"{server.url}/model.safetensors"
    with pytest.raises(ConfigError, match="its sha256 must be given"):
        fetch(uri, "", model="net")
    assert fetch(uri, SHA, model="net") == cache / f"{SHA[:16]}-model.safetensors"


def test_a_damaged_cached_file_is_fetched_again(server: Server, cache: Path) -> None:
    server.files[f"/{NAME}"] = DATA
    cache.mkdir()
    (cache / NAME).write_bytes(DATA[:-1])
    assert locate(f"{server.url}/{NAME}", "") is None
    assert fetch(f"{server.url}/{NAME}", "", model="net").read_bytes() == DATA


@pytest.mark.parametrize("fault", ["other bytes", "cut short", "absent", "nobody there"])
def test_what_cannot_be_had_says_what_to_fetch_and_where_to_put_it_fails(
    fault: str, server: Server, cache: Path
) -> None:
    uri = f"{server.url}/{NAME}"
    if fault != "absent":
        server.files[f"/{NAME}"] = DATA if fault == "cut short" else b"other"
    if fault == "cut short":
        server.cut_after = 1000
    if fault == "nobody there":
        uri = f"http://127.0.0.1:1/{NAME}"
    reason = {
        "other bytes": f"has the sha256 {hashlib.sha256(b'other').hexdigest()}, expected was {SHA[:8]}",
        "cut short": f"cut short after 1000 of {len(DATA)} bytes",
        "absent": "HTTP 404",
        "nobody there": "refused",
    }[fault]
    with pytest.raises(ConfigError, match=reason) as refused:
        fetch(uri, "", model="net")
    text = str(refused.value)
    assert "The weights of net are not on this machine" in text
    assert f"Fetch {uri} where there is a network, and put it here as {cache / NAME}" in text
    assert list(cache.iterdir()) == [], "nothing half done is left behind"


def test_no_network_is_told_within_seconds_fails(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidproc.models.fetching.CONNECT_SECONDS", 0.3)
    server.wait_s = 20.0
    started = time.monotonic()
    with pytest.raises(ConfigError, match="no answer within"):
        fetch(f"{server.url}/{NAME}", "", model="net")
    assert time.monotonic() - started < 15.0  # before the server would have answered


def test_the_mirror_comes_first(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / NAME).write_bytes(DATA)
    monkeypatch.setenv("VIDPROC_MODEL_MIRROR", str(mirror))
    assert fetch(f"{server.url}/{NAME}", "", model="net").read_bytes() == DATA
    assert server.asked == []


def test_a_mirror_without_the_file_is_named_beside_the_source_fails(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDPROC_MODEL_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(ConfigError, match=r"mirror/net-.*no such file; http://127\.0\.0\.1.*HTTP 404"):
        fetch(f"{server.url}/{NAME}", "", model="net")


def test_weights_come_from_s3(s3_root: Root, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    s3_root.storage.put(f"models/{NAME}", DATA)
    assert fetch(s3_root.storage.uri_of(f"models/{NAME}"), "", model="net").read_bytes() == DATA
    (cache / NAME).unlink()
    monkeypatch.setenv("VIDPROC_MODEL_MIRROR", s3_root.storage.uri_of("models"))
    assert fetch(f"http://127.0.0.1:1/{NAME}", "", model="net").read_bytes() == DATA
    with pytest.raises(ConfigError, match="The weights of net are not on this machine"):
        fetch(s3_root.storage.uri_of(f"elsewhere/{'x' + NAME}"), SHA, model="net")


def test_a_local_file_is_used_where_it_lies_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(DATA)
    assert fetch(str(path), "", model="net") == path
    assert fetch(str(path), SHA, model="net") == path
    with pytest.raises(ConfigError, match=f"not the promised ones: their sha256 is {SHA}, expected was {'0' * 64}"):
        fetch(str(path), "0" * 64, model="net")
    with pytest.raises(ConfigError, match="there is no weights file"):
        fetch(str(tmp_path / "absent.pth"), "", model="net")


def test_a_changed_file_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(DATA)
    assert file_sha256(path) == SHA
    path.write_bytes(b"")
    assert file_sha256(path) == hashlib.sha256(b"").hexdigest()


def test_messages_hold_no_credentials(server: Server) -> None:
    host = server.url.removeprefix("http://")
    with pytest.raises(ConfigError) as refused:
        fetch(f"http://user:secret@{host}/{NAME}?X-Amz-Signature=abc", "", model="net")
    assert "secret" not in str(refused.value) and "abc" not in str(refused.value)
    assert shown(f"https://user:secret@{host}/a.pth?token=1") == f"https://{host}/a.pth"


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VIDPROC_MODEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vidproc" / "models"
    assert cached_path(f"https://host/{NAME}", "") == cache_folder() / NAME


# Reading them


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled!",)


def test_tensors_are_read_from_both_formats(tmp_path: Path) -> None:
    state = {"a.weight": torch.arange(6.0).reshape(2, 3)}
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    torch.save({"model": state, "epoch": 3}, tmp_path / "checkpoint.pth")
    for name in ("w.safetensors", "w.pth", "checkpoint.pth"):
        read = load_state_dict(tmp_path / name)
        assert list(read) == ["a.weight"] and torch.equal(read["a.weight"], state["a.weight"])


def test_pickled_objects_are_never_opened_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(ConfigError, match="hold more than tensors"):
            load_state_dict(tmp_path / name)
    assert "unpickled!" not in capsys.readouterr().out


def test_files_that_are_no_weights_fail(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ConfigError, match="not a state dict"):
        load_state_dict(tmp_path / "list.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(ConfigError, match="not a PyTorch file"):
        load_state_dict(tmp_path / "empty.pth")
    whole = tmp_path / "whole.pth"
    torch.save({"a": torch.zeros(1000)}, whole)
    (tmp_path / "half.pth").write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(ConfigError, match="not a PyTorch file"):
        load_state_dict(tmp_path / "half.pth")
    (tmp_path / "w.safetensors").write_bytes(b"no header at all")
    with pytest.raises(ConfigError, match="not a safetensors file"):
        load_state_dict(tmp_path / "w.safetensors")
