"""What could not be looked at tonight is no new content: its rows stay, and nothing that is in doubt is deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.media import make_video
from tests.test_end_to_end import job, tables
from tests.test_nights import Heard
from vidproc.run import index
from vidproc.tables.lake import Lake


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
    before = tables(lake)
    disk.rename(tmp_path / "away")
    for _ in range(2):
        away = index(job(str(archive), lake, **given))
        assert (away.exit_code, away.due, dict(away.errors)) == (1, 0, {"broken_link": 1})
        assert "1 could not be looked at" in away.reason and tables(lake) == before
    rows = Lake.open(lake).failures(error_class="broken_link").to_pylist()
    assert [r["uri"] for r in rows] == [str(archive / "b.mp4")] * 2 and "is kept" in rows[0]["error"]
    (tmp_path / "away").rename(disk)
    back = index(job(str(archive), lake, **given))
    assert (back.exit_code, back.due, back.tasks_done) == (0, 0, 0) and tables(lake) == before


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
