"""Archives with odd entries: each costs itself, is a row with its reason, and nobody else notices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Root
from tests.media import make_video
from tests.odd_store import Odd, odd_store
from tests.test_end_to_end import job, statuses
from vidproc.archive import Skipped, list_videos
from vidproc.errors import ConfigError
from vidproc.forecast import forecast
from vidproc.run import index
from vidproc.storage import StorageOptions
from vidproc.tables.lake import Lake


def found_in(uri: str, options: StorageOptions | None = None) -> dict[str, str]:
    """By name below the archive: the error class, empty for a video."""
    return {
        item.uri.removeprefix(f"{uri}/"): item.error_class if isinstance(item, Skipped) else ""
        for item in list_videos(uri, options)
    }


def on_s3(options: StorageOptions, archive: str, lake: Path, **given: Any) -> Any:
    storage = {"endpoint_url": options.endpoint_url, "anonymous": True}
    return job(archive, str(lake), storage=storage, actions="none", **given)


# ---- Listings of S3 ---------------------------------------------------------------------------------


ODD = {
    "after.mp4": {"modified": "10000-01-01T00:00:00.000Z"},
    "last.mp4": {"modified": "9999-12-31T23:59:59.000-05:00"},
    "zero.mp4": {"modified": "0000-00-00T00:00:00Z"},
    "words.mp4": {"modified": "the day before yesterday"},
    "blank.mp4": {"modified": ""},
    "none.mp4": {"modified": None},
    "etag.mp4": {"etag": None},
    "size.mp4": {"size": None},
}


def test_an_odd_entry_of_a_listing_costs_itself(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", seconds=0.4).path.read_bytes()
    objects = {"in/a.mp4": Odd(video), "in/z.mp4": Odd(video)}
    objects |= {f"in/{name}": Odd(video, **how) for name, how in ODD.items()}
    with odd_store(objects) as options:
        planned = forecast(on_s3(options, "s3://odd/in", tmp_path / "lake"), calibrate_s=0)
        index(on_s3(options, "s3://odd/in", tmp_path / "lake"))
    assert (planned.listed, planned.plan.videos, dict(planned.plan.declined)) == (10, 2, {"unreadable": 8})
    found = statuses(str(tmp_path / "lake"), "s3://odd/in")
    assert (found["a.mp4"], found["z.mp4"]) == (("indexed", None), ("indexed", None))
    assert {name for name, (_, error_class) in found.items() if error_class == "unreadable"} == {*ODD}
    for row in Lake.open(str(tmp_path / "lake")).failures(error_class="unreadable").to_pylist():
        assert "the store lists it without a" in row["error"]


def test_markers_of_folders_are_no_videos(tmp_path: Path) -> None:
    objects = {"in/": Odd(), "in/sub/": Odd(), "in/sub/empty.mp4": Odd(), "in/full/": Odd(b"x"), "in/a.mp4": Odd(b"x")}
    with odd_store(objects) as options:
        assert found_in("s3://odd/in", options) == {"sub/empty.mp4": "empty", "full/": "", "a.mp4": ""}
        assert found_in("s3://odd", options) == {"in/sub/empty.mp4": "empty", "in/full/": "", "in/a.mp4": ""}
        assert [v.uri for v in list_videos("s3://odd/in/full", options)] == ["s3://odd/in/full/"], "its own key"


def test_a_folder_that_is_nothing_but_its_marker_is_an_empty_archive(s3_root: Root, tmp_path: Path) -> None:
    """And a place for a lake."""
    s3_root.storage._client.put_object(Bucket=s3_root.storage.bucket, Key=f"{s3_root.storage.prefix}/in/", Body=b"")  # type: ignore[attr-defined]
    s3_root.storage._client.put_object(Bucket=s3_root.storage.bucket, Key=f"{s3_root.storage.prefix}/lake/", Body=b"")  # type: ignore[attr-defined]
    summary = index(job(s3_root.below("in").uri, s3_root.below("lake").uri))
    assert (summary.listed, summary.exit_code) == (0, 0)


def test_two_slashes_are_not_one(tmp_path: Path) -> None:
    objects = {key: Odd(b"x") for key in ("cams/a.mp4", "/cams/b.mp4", "cams//c.mp4", "other/d.mp4")}
    with odd_store(objects) as options:
        assert found_in("s3://odd/cams", options) == {"a.mp4": "", "/c.mp4": ""}
        assert {v.uri for v in list_videos("s3://odd/cams/", options)} == {
            "s3://odd/cams/a.mp4",
            "s3://odd/cams//c.mp4",
        }
        assert [v.uri for v in list_videos("s3://odd/cams//", options)] == ["s3://odd/cams//c.mp4"]
        assert found_in("s3://odd//cams", options) == {"b.mp4": ""}
        with pytest.raises(ConfigError, match="without a name"):
            list(list_videos("s3://odd//", options))
        with pytest.raises(ConfigError, match="several slashes for one"):
            Lake.create("s3://odd//lake", options)


def test_a_store_that_takes_two_slashes_for_one_is_not_believed(s3_root: Root) -> None:
    s3_root.storage.put("cams/a.mp4", b"x")
    bucket, _, prefix = s3_root.uri.removeprefix("s3://").partition("/")
    for odd in (f"s3://{bucket}//{prefix}/cams", f"{s3_root.uri}/cams//"):
        with pytest.raises(ConfigError, match=f"several slashes for one; give {s3_root.uri}/cams$"):
            list(list_videos(odd, s3_root.options))
    with pytest.raises(ConfigError, match="there is nothing at"):
        index(job(f"{s3_root.uri}//cams", s3_root.below("lake").uri))


# ---- Locales ----------------------------------------------------------------------------------------

NOT_UTF8 = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONPATH": os.getcwd()}


def test_a_locale_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    archive, lake = tmp_path / "in", tmp_path / "lake"
    archive.mkdir()
    (archive / "ünï.mp4").write_bytes(b"x")
    for command in (["index", str(archive), str(lake)], ["plan", str(archive)], ["status", str(lake)]):
        done = subprocess.run(
            [sys.executable, "-m", "vidproc", *command], env=os.environ | NOT_UTF8, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (2, ""), done
        assert "UTF-8" in done.stderr and "PYTHONUTF8=1" in done.stderr and "Traceback" not in done.stderr
    assert not lake.exists()
    listing = f"from vidproc.archive import list_videos; print(len(list(list_videos({str(archive)!r}))))"
    done = subprocess.run([sys.executable, "-c", listing], env=os.environ | NOT_UTF8, capture_output=True, text=True)
    assert done.returncode and "ConfigError" in done.stderr, "the Python calls too"
    for way_out in ({"PYTHONUTF8": "1"}, {"LC_ALL": "C.UTF-8"}):
        done = subprocess.run(
            [sys.executable, "-c", listing], env=os.environ | NOT_UTF8 | way_out, capture_output=True, text=True
        )
        assert done.stdout == "1\n", done.stderr
