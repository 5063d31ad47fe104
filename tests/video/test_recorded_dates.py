"""When a video was recorded: one rule for what is believed, wherever the date stands. The rest harms nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.media import make_video, video_of
from tests.video.test_probe import info_of
from tests.whole.test_end_to_end import job
from vidproc.ask import connect
from vidproc.cli import app
from vidproc.dates import recorded_from_name
from vidproc.run.driver import index

TOMORROW = datetime.now(UTC) + timedelta(days=2)

UNBELIEVABLE = [
    "9999-12-31T23:59:59",
    "9999-12-31T23:59:59-05:00",
    "9999-12-31T23:59:59.999999-12:00",
    "0001-01-01T00:00:00",
    "0001-01-01T00:00:00+05:00",
    "0001-01-01T00:00:00+14:00",
    "1601-01-01T00:00:00Z",
    "1858-11-17T00:00:00Z",
    "1900-01-01T00:00:00Z",
    "1904-01-01T00:00:00Z",
    "1904-06-02T03:04:05+02:00",
    "1970-01-01T00:00:00",
    "1970-01-09T12:00:00+01:00",
    "2106-02-07T06:28:15Z",
    "2024-05-06T07:08:09+23:59",
    "2024-05-06T07:08:09+99:99",
    "2024-13-46T07:08:09Z",
    "0000-00-00T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "no date of any kind",
    f"{TOMORROW:%Y-%m-%dT%H:%M:%SZ}",
]
BELIEVABLE = {
    "2024-05-06T07:08:09Z": datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
    "2024-05-06T07:08:09": datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
    "2024-05-06T07:08:09+1400": datetime(2024, 5, 5, 17, 8, 9, tzinfo=UTC),
    "2024-05-06 07:08:09.25-03:30": datetime(2024, 5, 6, 10, 38, 9, 250000, tzinfo=UTC),
    "1936-08-01T16:00:00+01:00": datetime(1936, 8, 1, 15, tzinfo=UTC),
    "1969-12-31T23:59:59Z": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
}


def tagged(path: Path, text: str, seconds: float = 0.2) -> Path:
    """A MOV file keeps any text under Apple's own key."""
    said, options = {"com.apple.quicktime.creationdate": text}, {"movflags": "use_metadata_tags"}
    return make_video(path, seconds=seconds, format="mov", metadata=said, container_options=options).path


def test_what_a_container_says_of_its_date_is_believed_or_told(tmp_path: Path) -> None:
    for n, text in enumerate([*UNBELIEVABLE, *BELIEVABLE]):
        info = info_of(video_of(tagged(tmp_path / f"{n}.mov", text)))
        assert info.recorded_at == BELIEVABLE.get(text), text
        said = [w for w in info.warnings if "cannot be when it was recorded" in w]
        assert len(said) == (text in UNBELIEVABLE), (text, info.warnings)
        assert all(repr(text) in w for w in said)


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59Z", "1970-01-01T00:00:01Z", "1904-01-01T00:00:00Z"])
def test_the_field_of_an_mp4_too(text: str, tmp_path: Path) -> None:
    info = info_of(make_video(tmp_path / "v.mp4", seconds=0.2, metadata={"creation_time": text}).video)
    assert info.recorded_at is None


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("cam_99991231_235959.mp4", "%Y%m%d_%H%M%S", None),
        ("cam_99991231_235959-0500.mp4", "%Y%m%d_%H%M%S%z", None),
        ("cam_00010101_000000+0500.mp4", "%Y%m%d_%H%M%S%z", None),
        ("cam_20240506_070809+2359.mp4", "%Y%m%d_%H%M%S%z", None),
        ("cam_19700101_000113.mp4", "%Y%m%d_%H%M%S", None),
        ("cam_19040101_000000.mp4", "%Y%m%d_%H%M%S", None),
        ("cam_20991231.mp4", "%Y%m%d", None),
        ("cam_9999999999.mp4", "cam_%s", None),
        ("cam_0000000001.mp4", "cam_%s", None),
        (f"cam_{TOMORROW:%Y%m%d}.mp4", "%Y%m%d", None),
        ("99991231_20240506.mp4", "%Y%m%d", datetime(2024, 5, 6, tzinfo=UTC)),
        ("cam_20240506_070809+0200.mp4", "%Y%m%d_%H%M%S%z", datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC)),
    ],
)
def test_dates_in_names_follow_the_same_rule(name: str, pattern: str, expected: datetime | None) -> None:
    assert recorded_from_name(name, pattern) == expected


def test_a_name_that_is_not_believed_leaves_it_to_the_container(tmp_path: Path) -> None:
    made = make_video(tmp_path / "cam_99991231.mp4", seconds=0.2, metadata={"creation_time": "2024-05-06T07:08:09Z"})
    info = info_of(made.video, "cam_%Y%m%d")
    assert info.recorded_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert info.warnings == ("the date in its name, 'cam_99991231', cannot be when it was recorded",)


def test_no_date_breaks_a_search_or_fails_a_good_video(tmp_path: Path) -> None:
    (archive := tmp_path / "in").mkdir()
    for n, text in enumerate(("9999-12-31T23:59:59Z", "9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00")):
        tagged(archive / f"tag{n}.mov", text, seconds=3)
    for name in ("99991231", "00010101", "19700101", "20240506"):
        make_video(archive / f"named_{name}.mp4", seconds=3)
    given: dict[str, Any] = {"recorded_at": "named_%Y%m%d", "actions": "none"}
    summary = index(job(str(archive), str(tmp_path / "lake"), **given))
    assert (summary.exit_code, dict(summary.statuses)) == (0, {"indexed": 7})
    with connect(str(tmp_path / "lake")) as database:
        rows = database.sql("SELECT uri, recorded_at, recorded_date, warnings FROM videos").read_all().to_pylist()

    def found(*options: str) -> set[str]:
        done = CliRunner().invoke(app, ["search", str(tmp_path / "lake"), "--label", "car", *options, "--json"])
        assert done.exit_code == 0, done
        return {re.sub(r".*/", "", uri) for uri in re.findall(r'"uri": "([^"]*)"', done.stdout)}

    for zone in ("UTC", "Asia/Tokyo", "America/Anchorage"):
        assert found("--timezone", zone) == {Path(r["uri"]).name for r in rows}
        assert found("--timezone", zone, "--since", "2024-05-05") == {"named_20240506.mp4"}
    for row in rows:
        believed = row["uri"].endswith("named_20240506.mp4")
        assert (row["recorded_at"] is None, row["recorded_date"] is None) == (not believed, not believed)
        assert any("cannot be when it was recorded" in w for w in row["warnings"]) == (not believed), row
