"""What could not be looked at tonight is no new content: its rows stay, and nothing that is in doubt is deleted."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.media import make_video
from tests.support.odd_store import Odd, odd_store
from tests.support.unprivileged import as_nobody, open_folder
from tests.whole.test_end_to_end import job, run_cli, statuses, tables
from tests.whole.test_nights import Heard
from vidproc.ask import connect
from vidproc.run.driver import index
from vidproc.tables.lake import Lake
from vidproc.video.mp4 import LocalBytes


def seen(lake: str) -> dict[str, list[dict[str, Any]]]:
    """All rows, without what says that a video cannot be looked at."""
    found = tables(lake)
    for row in found["videos"]:
        row.pop("away", None)
    return found


def away(lake: str) -> dict[str, str]:
    """By file name: why it cannot be looked at, as its row says."""
    with connect(lake) as database:
        rows = database.sql("SELECT uri, away FROM videos WHERE away IS NOT NULL").read_all().to_pylist()
    return {Path(r["uri"]).name: r["away"] for r in rows}


@pytest.mark.parametrize("deleted", ["keep", "remove"])
def test_a_disk_that_is_away_for_a_night_takes_nothing_with_it(deleted: str, tmp_path: Path) -> None:
    archive, disk, lake = tmp_path / "in", tmp_path / "disk", str(tmp_path / "lake")
    archive.mkdir()
    disk.mkdir()
    make_video(disk / "b.mp4", seconds=1)
    make_video(archive / "a.mp4", seconds=1)
    (archive / "b.mp4").symlink_to(disk / "b.mp4")
    given: dict[str, Any] = {"deleted": deleted, "actions": "none"}
    assert index(job(str(archive), lake, **given)).exit_code == 0
    before = seen(lake)
    assert away(lake) == {}
    disk.rename(tmp_path / "away")
    for _ in range(2):
        gone = index(job(str(archive), lake, **given))
        assert (gone.exit_code, gone.due, dict(gone.errors)) == (1, 0, {"broken_link": 1})
        assert "1 could not be looked at" in gone.reason and seen(lake) == before
        assert away(lake) == {"b.mp4": "broken_link: a symbolic link that leads nowhere, or to itself"}
    rows = Lake.open(lake).failures(error_class="broken_link").to_pylist()
    assert [r["uri"] for r in rows] == [str(archive / "b.mp4")] * 2 and "is kept" in rows[0]["error"]
    (tmp_path / "away").rename(disk)
    back = index(job(str(archive), lake, **given))
    assert (back.exit_code, back.due, back.tasks_done) == (0, 0, 0) and seen(lake) == before
    assert away(lake) == {}


@pytest.mark.parametrize("how", ["an empty mount point", "a link that leads nowhere", "a link that is not followed"])
def test_in_doubt_nothing_below_is_deleted(how: str, tmp_path: Path) -> None:
    archive, disk, lake = tmp_path / "in", tmp_path / "disk", str(tmp_path / "lake")
    (archive / "cams").mkdir(parents=True)
    make_video(archive / "a.mp4", seconds=0.4)
    make_video(archive / "gone.mp4", seconds=0.4)
    place = archive / "cams"
    if how != "an empty mount point":
        place.rmdir()
        disk.mkdir()
        place.symlink_to(disk)
    (place / "deep").mkdir()
    make_video(place / "deep" / "c.mp4", seconds=0.4)
    given: dict[str, Any] = {"deleted": "remove", "actions": "none"}
    assert index(job(str(archive), lake, follow_links=True, **given)).exit_code == 0
    (archive / "gone.mp4").unlink()
    if how == "an empty mount point":
        (place / "deep").rename(tmp_path / "deep")
    elif how == "a link that leads nowhere":
        disk.rename(tmp_path / "away")
    heard = Heard()
    follow = how != "a link that is not followed"
    summary = index(job(str(archive), lake, follow_links=follow, **given), reporter=heard)
    assert summary.removed == 1, "what is gone for certain goes"
    uris = {Path(r["uri"]).name for r in Lake.open(lake).videos().to_pylist() if r["status"] == "indexed"}
    assert uris == {"a.mp4", "c.mp4"}
    assert any("are kept" in said for said in heard.said), heard.said
    if how == "a link that leads nowhere":
        (tmp_path / "away").rename(disk)
        assert "c.mp4" in away(lake) and summary.statuses["failed"] == 1
        index(job(str(archive), lake, follow_links=True, **given))
        assert away(lake) == {}
        names = {Path(r["uri"]).name for r in Lake.open(lake).videos().to_pylist()}
        assert names == {"a.mp4", "c.mp4"}, "the link itself has no row any more: it leads to a folder"


# ---- As somebody who may not read everything --------------------------------------------------------

NIGHT = ["--detector", "tests.support.fakes:Numbers", "--actions", "none", "--executor", "inline"]


@pytest.fixture
def place() -> Iterator[Path]:
    with open_folder() as folder:
        (folder / "warm").mkdir()
        make_video(folder / "warm" / "a.mp4", seconds=0.4)
        (folder / "in").mkdir()
        yield folder


def nights(place: Path, number: int = 1) -> list[tuple[int | None, str]]:
    """(exit code, what was said) of each."""
    warm_up = [["index", str(place / "warm"), str(place / f"other{time.monotonic_ns()}"), *NIGHT]]
    commands = [["index", str(place / "in"), str(place / "lake"), *NIGHT]] * number
    return [(code, out + err) for code, out, err in as_nobody(*commands, warm_up=warm_up)]


def test_what_lies_below_a_folder_that_is_closed_tonight_is_counted(place: Path) -> None:
    archive, lake = place / "in", str(place / "lake")
    (archive / "cams" / "deep").mkdir(parents=True)
    for path in ("a.mp4", "cams/b.mp4", "cams/deep/c.mp4"):
        shutil.copy(place / "warm" / "a.mp4", archive / path)
    assert nights(place)[0][0] == 0
    before = seen(lake)
    os.chmod(archive / "cams", 0o700 if os.getuid() == 0 else 0)
    for code, said in nights(place, 2):
        assert code == 1 and "3 of 3 videos failed" in said and "2 could not be looked at" in said, said
        assert "2 video(s) could not be looked at" in said, "one line, not one for each"
    found = seen(lake)
    found["videos"] = [r for r in found["videos"] if r["uri"] != str(archive / "cams")]
    assert found == before
    assert away(lake).keys() == {"b.mp4", "c.mp4"} and "Permission denied" in away(lake)["c.mp4"]
    assert statuses(lake, str(archive))["cams"] == ("failed", "unreadable")
    rows = Lake.open(lake).failures(error_class="unreadable").to_pylist()
    assert sorted(Path(r["uri"]).name for r in rows) == sorted(["b.mp4", "c.mp4", "cams"] * 2)
    os.chmod(archive / "cams", 0o755)
    assert nights(place)[0][0] == 0
    assert seen(lake) == before and away(lake) == {}, "the folder has no row any more"


def test_a_file_that_may_not_be_read_tonight(place: Path) -> None:
    """One that is new, one that has changed, and one of which there is an answer already."""
    archive, lake = place / "in", str(place / "lake")
    for name in ("known.mp4", "changed.mp4"):
        shutil.copy(place / "warm" / "a.mp4", archive / name)
    assert nights(place)[0][0] == 0
    before = seen(lake)
    for name in ("new.mp4", "changed.mp4"):
        make_video(archive / name, seconds=1)
    for name in ("known.mp4", "new.mp4", "changed.mp4"):
        os.chmod(archive / name, 0o600 if os.getuid() == 0 else 0)
    for code, said in nights(place, 2):
        assert code == 1 and "2 of 2 videos failed" in said, said
    assert statuses(lake, str(archive)) == {
        "known.mp4": ("indexed", None),
        "changed.mp4": ("indexed", None),
        "new.mp4": ("failed", "unreadable"),
    }
    assert away(lake).keys() == {"changed.mp4"} and "check its owner and mode" in away(lake)["changed.mp4"]
    found = seen(lake)
    assert {n: r for n, r in found.items() if n != "videos"} == {n: r for n, r in before.items() if n != "videos"}
    for name in ("known.mp4", "new.mp4", "changed.mp4"):
        os.chmod(archive / name, 0o644)
    assert nights(place)[0][0] == 0
    assert set(statuses(lake, str(archive)).values()) == {("indexed", None)} and away(lake) == {}
    assert len(seen(lake)["detections"]) > len(before["detections"])


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_a_file_on_a_disk_that_fails_costs_itself_and_is_due_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, lake, read = tmp_path / "in", str(tmp_path / "lake"), LocalBytes.read
    archive.mkdir()
    for name in ("a.mp4", "z.mp4"):
        make_video(archive / name, seconds=0.4)

    def fails(self: LocalBytes, start: int, end: int) -> bytes:
        if str(self._file.name).endswith("a.mp4"):
            raise OSError(number, os.strerror(number))
        return read(self, start, end)

    monkeypatch.setattr(LocalBytes, "read", fails)
    summary = index(job(str(archive), lake, actions="none"))
    assert (summary.exit_code, summary.errors, summary.statuses) == (1, {"unreadable": 1}, {"indexed": 1, "failed": 1})
    (row,) = Lake.open(lake).failures().to_pylist()
    assert row["attempt"] == 1 and os.strerror(number) in row["error"]
    monkeypatch.undo()
    assert index(job(str(archive), lake, actions="none")).statuses == {"indexed": 1}


# ---- Objects ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("refused", "error_class"), [("AccessDenied", "denied"), ("KMS.DisabledException", "kms")])
def test_an_object_that_was_replaced_and_is_denied_keeps_its_answer(
    refused: str, error_class: str, tmp_path: Path
) -> None:
    lake = str(tmp_path / "lake")
    data = [make_video(tmp_path / f"{s}.mp4", seconds=s).path.read_bytes() for s in (1, 2)]
    objects = {"in/a.mp4": Odd(data[0]), "in/z.mp4": Odd(data[0])}
    with odd_store(objects) as options:
        storage = {"endpoint_url": options.endpoint_url, "anonymous": True}
        night = job("s3://odd/in", lake, storage=storage, actions="none")
        assert index(night).exit_code == 0
        before = seen(lake)
        objects["in/a.mp4"] = Odd(data[1], etag='"2"', refused=refused)
        for _ in range(2):
            denied = index(night)
            assert (denied.exit_code, denied.due, denied.errors) == (1, 1, {error_class: 1})
            assert seen(lake) == before and away(lake)["a.mp4"].startswith(f"{error_class}: ")
        objects["in/a.mp4"] = Odd(data[1], etag='"2"', tier="GLACIER")
        archived = index(night)
        assert (archived.exit_code, archived.due, archived.statuses) == (0, 0, {"declined": 1})
        assert seen(lake) == before and away(lake)["a.mp4"].startswith("archived: ")
        objects["in/a.mp4"] = Odd(data[1], etag='"2"', tier="GLACIER", restored="false")
        assert index(night).statuses == {"indexed": 1} and away(lake) == {}
        assert len(seen(lake)["detections"]) > len(before["detections"])
        objects["in/a.mp4"] = Odd(data[1], etag='"2"', tier="GLACIER")
        other = night.model_copy(update={"sampling": "keyframes"})
        again = index(other)
        assert (again.statuses, again.due) == ({"indexed": 1, "declined": 1}, 1), (
            "another pipeline, for what can be read"
        )
        assert statuses(lake, "s3://odd/in") == dict.fromkeys(("a.mp4", "z.mp4"), ("indexed", None))


# ---- While following --------------------------------------------------------------------------------


def test_following_an_archive_that_comes_and_goes(tmp_path: Path) -> None:
    archive, disk, lake = tmp_path / "in", tmp_path / "disk", str(tmp_path / "lake")
    archive.mkdir()
    disk.mkdir()
    for path in (archive / "a.mp4", disk / "b.mp4"):
        make_video(path, seconds=0.4)
    (archive / "b.mp4").symlink_to(disk / "b.mp4")
    process = run_cli("index", str(archive), lake, *NIGHT, "--follow", "1")

    def wait(until: Any) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[0]
            if (Path(lake) / "runs" / "_delta_log").is_dir() and until():
                return
            time.sleep(0.3)
        raise AssertionError(f"not in time: {tables(lake)['videos']}")

    indexed = {name: ("indexed", None) for name in ("a.mp4", "b.mp4")}
    wait(lambda: statuses(lake, str(archive)) == indexed)
    before = seen(lake)
    disk.rename(tmp_path / "away")
    wait(lambda: "b.mp4" in away(lake))
    assert seen(lake) == before
    (tmp_path / "away").rename(disk)
    wait(lambda: away(lake) == {})
    assert seen(lake) == before
    os.kill(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=120)
    assert "2 indexed" in text and "1 failed" not in text, text


def test_a_link_to_the_lake_is_not_walked(tmp_path: Path) -> None:
    archive, lake = tmp_path / "in", tmp_path / "data" / "lake"
    archive.mkdir()
    make_video(archive / "a.mp4", seconds=0.4)
    lake.parent.mkdir()
    (archive / "lake").symlink_to(lake)
    (archive / "data").symlink_to(lake.parent)
    given = job(str(archive), str(lake), actions="none", follow_links=True)
    for _ in range(3):
        assert index(given).exit_code == 0
    found = statuses(str(lake), str(archive))
    assert found.pop("a.mp4") == ("indexed", None)
    assert set(found) <= {"lake", "data/lake"} and set(found.values()) == {("declined", "link")}
