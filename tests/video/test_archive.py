"""Listing an archive: everything is seen, nothing is opened, nothing is silent."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest

from tests.conftest import Root
from vidproc.errors import ConfigError
from vidproc.media import Video
from vidproc.video.archive import Filters, Skipped, list_videos

NAMES = ["a.mp4", "deep/er/b.mkv", "-dash.mp4", "with space.mp4", "ünï/ç#1%20?.mp4", "c:d.mp4", "{x}*[y].mp4"]


def test_every_name_is_listed_with_its_size_and_version(lake_root: Root) -> None:
    for n, name in enumerate(NAMES):
        lake_root.storage.put(name, b"x" * (n + 1))
    found = [*list_videos(lake_root.uri, lake_root.options)]
    assert all(isinstance(v, Video) for v in found)
    videos = {v.uri.removeprefix(lake_root.uri + "/"): v for v in found if isinstance(v, Video)}
    assert set(videos) == set(NAMES)
    assert [videos[name].size_bytes for name in NAMES] == [*range(1, len(NAMES) + 1)]
    assert all(v.content_id.endswith(f":{v.size_bytes}") and v.modified_at is not None for v in videos.values())
    assert len({v.video_id for v in videos.values()}) == len(NAMES)
    before = videos["a.mp4"].content_id
    lake_root.storage.put("a.mp4", b"y")
    again = {v.uri: v for v in list_videos(lake_root.uri, lake_root.options) if isinstance(v, Video)}
    assert again[videos["a.mp4"].uri].content_id != before


def test_more_than_one_page_of_keys(s3_root: Root) -> None:
    for n in range(1100):
        s3_root.storage.put(f"v{n:04d}.mp4", b"x")
    assert sum(1 for _ in list_videos(s3_root.uri, s3_root.options)) == 1100


def test_hidden_and_empty_files_are_named_with_their_reason(lake_root: Root) -> None:
    for name, data in {"a.mp4": b"x", "zero.mp4": b"", ".hidden.mp4": b"x", ".trash/b.mp4": b"x"}.items():
        lake_root.storage.put(name, data)
    found = {v.uri.removeprefix(lake_root.uri + "/"): v for v in list_videos(lake_root.uri, lake_root.options)}
    classes = {name: v.error_class for name, v in found.items() if isinstance(v, Skipped)}
    assert classes == {"zero.mp4": "empty", ".hidden.mp4": "hidden", ".trash/b.mp4": "hidden"}
    assert isinstance(found["a.mp4"], Video)


def test_filters(tmp_path: Path) -> None:
    for name, size in {"a.mp4": 10, "b.mkv": 20, "sub/c.mp4": 30, "sub/d.txt": 40}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    old = datetime(2020, 1, 1, tzinfo=UTC)
    os.utime(tmp_path / "a.mp4", (old.timestamp(), old.timestamp()))

    def names(filters: Filters) -> set[str]:
        return {os.path.relpath(v.uri, tmp_path) for v in list_videos(str(tmp_path), None, filters)}

    assert names(Filters(include=("*.mp4",))) == {"a.mp4", "sub/c.mp4"}
    assert names(Filters(include=("sub/*",), exclude=("*.txt",))) == {"sub/c.mp4"}
    assert names(Filters(min_bytes=20, max_bytes=30)) == {"b.mkv", "sub/c.mp4"}
    assert names(Filters(modified_before=old + timedelta(days=1))) == {"a.mp4"}
    assert names(Filters(modified_since=datetime(2020, 1, 2))) == {"b.mkv", "sub/c.mp4", "sub/d.txt"}


def test_links_that_lead_in_circles(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.mp4").write_bytes(b"x")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere")
    found = {os.path.basename(v.uri): v for v in list_videos(str(tmp_path))}
    assert {name: v.error_class for name, v in found.items() if isinstance(v, Skipped)} == {
        "self": "broken_link",
        "gone.mp4": "broken_link",
    }
    assert [name for name, v in found.items() if isinstance(v, Video)] == ["a.mp4"]


def test_a_name_that_is_no_text_is_reported(tmp_path: Path) -> None:
    with open(os.fsencode(str(tmp_path)) + b"/\xff.mp4", "wb") as f:
        f.write(b"x")
    (found,) = list_videos(str(tmp_path))
    assert isinstance(found, Skipped) and found.error_class == "bad_name"


def test_a_listing_streams(tmp_path: Path) -> None:
    for n in range(50):
        (tmp_path / f"{n}.mp4").write_bytes(b"x")
    assert len([*islice(list_videos(str(tmp_path)), 3)]) == 3


def test_an_archive_that_is_not_there_is_refused(lake_root: Root, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        list(list_videos(str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="no-such-bucket"):
        list(list_videos("s3://no-such-bucket-here/x", lake_root.options))
