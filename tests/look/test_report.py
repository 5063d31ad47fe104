"""`vidproc report`: one file that needs nothing from elsewhere, says what the tables say, and is never fooled."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Root
from tests.look.conftest import Numbered, job, make_archive
from tests.look.test_show import Run, vidproc  # noqa: F401
from vidproc.ask import connect
from vidproc.look.facts import Label, Problem, gather
from vidproc.look.page import Picture, page
from vidproc.look.report import MAX_BYTES, report
from vidproc.run.driver import index
from vidproc.tables.lake import Lake

OLD_LAKE = Path(__file__).parents[1] / "whole" / "old_lake"
HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror='alert(2)'>\"&\u202e\x00{}"
TAGS = """
html head meta title style body header h1 h2 h3 p dl div dt dd section table caption thead tbody tr th td figure
figcaption strong small img svg rect line text ul li span details summary code footer
"""


class Seen(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, data: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self._style = False
        self.style = ""
        self.feed(data.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "img":
            self.images.append(dict(attrs))
        self._style = tag == "style"

    def handle_data(self, data: str) -> None:
        if self._style:
            self.style, self._style = data, False
        else:
            self.text += data


def checked(data: bytes) -> Seen:
    """A page that keeps the rules of all pages."""
    assert len(data) <= MAX_BYTES
    seen = Seen(data)
    assert seen.tags <= set(TAGS.split()), seen.tags
    for tag, name, value in seen.attributes:
        assert not name.startswith("on") and name not in ("style", "href", "action", "srcset"), (tag, name)
        assert name != "src" or value.startswith("data:image/jpeg;base64,")
    assert not re.search(r"url\(|@import|https?:", seen.style)
    assert all(image.get("alt") for image in seen.images)
    [policy] = [value for _, name, value in seen.attributes if name == "content" and "default-src" in value]
    digest = base64.b64encode(hashlib.sha256(seen.style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'") and f"'sha256-{digest}'" in policy
    assert "script" not in policy and "unsafe" not in policy
    assert "prefers-color-scheme: dark" in seen.style and "@media print" in seen.style
    return seen


def test_it_says_what_the_tables_say(numbered: Numbered, tmp_path: Path) -> None:
    out = tmp_path / "new" / "r.html"
    with numbered.opened() as lake:
        made = report(lake, str(out), zone="Europe/Berlin")
        counts = {
            table: lake.sql(f"SELECT count(*) AS n FROM {table}").read_all()["n"][0].as_py()
            for table in ("detections", "tracks")
        }
        began = "timezone('Europe/Berlin', v.recorded_at + to_microseconds((s.start_s * 1e6)::BIGINT))"
        sql = (
            f"SELECT s.label, hour({began}) AS h, count(*) AS n "
            "FROM segments s JOIN videos v USING (video_id, pipeline) WHERE v.recorded_at IS NOT NULL GROUP BY ALL"
        )
        hours = lake.sql(sql).read_all().to_pylist()
        facts = gather(lake, zone="Europe/Berlin")
    seen = checked(out.read_bytes())
    assert made.videos == len(numbered.made) and made.bytes == out.stat().st_size
    assert made.pictures == len(seen.images) > 4 and made.missing == 0
    for image in seen.images:
        data = base64.b64decode((image["src"] or "").partition(",")[2])
        assert Image.open(BytesIO(data)).width >= 320
    assert f"Detections{counts['detections']}" in seen.text and f"Tracks{counts['tracks']}" in seen.text
    assert hours and {(r["label"], r["h"]): r["n"] for r in hours} == {
        (label, h): n for label, by in facts.by_hour.items() for h, n in enumerate(by) if n
    }
    assert {r["h"] for r in hours} == {23, 7}, "10 p.m. and 6 a.m. UTC, by the clock in Berlin"
    assert sum(n for by in facts.by_day.values() for n in by.values()) == sum(r["n"] for r in hours)
    assert "2 videos without a date of recording" in seen.text
    assert [p.name for p in out.parent.iterdir()] == ["r.html"]


def test_names_and_labels_are_text(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>&'\"\u202e.mp4".replace("/", "\u2044")
    make_archive(tmp_path / "archive", {name: {"seconds": 2}})
    (tmp_path / "archive" / "<b>bad.mp4").write_bytes(b"no video" * 100)
    index(job(tmp_path / "archive", tmp_path / "lake"))
    with connect(str(tmp_path / "lake")) as lake:
        report(lake, str(tmp_path / "r.html"))
        facts = gather(lake)
    seen = checked((tmp_path / "r.html").read_bytes())
    assert "<script>alert(1)<" in seen.text and "\u202e" not in seen.text and "<b>bad.mp4" in seen.text
    hostile = replace(
        facts, lake=f"/lakes/{HOSTILE}", pipeline=HOSTILE, pipelines=(HOSTILE, "b"),
        labels=(Label(kind=HOSTILE, label=HOSTILE, segments=1, seconds=1.0, videos=1),),
        problems=(Problem(error_class=HOSTILE, status=HOSTILE, videos=1, uri=HOSTILE, error=HOSTILE),),
        by_hour={HOSTILE: [1] * 24}, by_day={HOSTILE: {datetime(2026, 1, 1, tzinfo=UTC).date(): 1}},
        states={HOSTILE: 1}, away=(1, HOSTILE), runs=tuple(dict(r) | {"outcome": HOSTILE} for r in facts.runs),
    )  # fmt: skip
    pictures = [
        Picture(label=HOSTILE, where=HOSTILE, detail=HOSTILE, jpeg=jpeg, reason=HOSTILE) for jpeg in (b"x", None)
    ]
    seen = checked(page(hostile, {HOSTILE: pictures}))
    assert seen.text.count("<script>") >= 12


def test_an_empty_lake(tmp_path: Path) -> None:
    Lake.create(str(tmp_path / "lake"))
    with connect(str(tmp_path / "lake")) as lake:
        made = report(lake, str(tmp_path / "r.html"))
    assert made.videos == made.pictures == 0
    assert "Nothing is indexed here yet" in checked((tmp_path / "r.html").read_bytes()).text


def test_a_lake_whose_archive_is_gone(tmp_path: Path, vidproc: Run) -> None:  # noqa: F811
    shutil.copytree(OLD_LAKE, tmp_path / "lake")
    code, said = vidproc("report", tmp_path / "lake", tmp_path / "r.html", "--archive", tmp_path / "nowhere")
    seen = checked((tmp_path / "r.html").read_bytes())
    assert code == 0 and "0 pictures" in said and "missing" in said
    assert not seen.images and f"there is nothing at {tmp_path}/nowhere/" in seen.text and "Empty files" in seen.text


def test_pages_are_made_to_fit(numbered: Numbered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidproc.look.report.MAX_BYTES", 60_000)
    with numbered.opened() as lake:
        made = report(lake, str(tmp_path / "r.html"))
    data = (tmp_path / "r.html").read_bytes()
    assert made.bytes <= 60_000 and data.rstrip().endswith(b"</html>")
    checked(data)


def test_a_report_does_not_wait_for_pictures_for_ever(
    numbered: Numbered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidproc.look.report.TOTAL_S", 0.0)
    with numbered.opened() as lake:
        made = report(lake, str(tmp_path / "r.html"), workers=1)
    seen = checked((tmp_path / "r.html").read_bytes())
    assert made.missing > 0 and "it was not read within" in seen.text


def test_what_is_new_since_the_last_night(tmp_path: Path) -> None:
    make_archive(tmp_path / "archive", {"a.mp4": {"seconds": 3}})
    index(job(tmp_path / "archive", tmp_path / "lake", detector="none"))
    make_archive(tmp_path / "archive", {"b.mp4": {"seconds": 3}})
    index(job(tmp_path / "archive", tmp_path / "lake", detector="none"))
    with connect(str(tmp_path / "lake")) as lake:
        facts = gather(lake)
    assert facts.night is not None and facts.night.videos == 1 and facts.night.run["videos_unchanged"] == 1
    assert len(facts.runs) == 2 and facts.night.run["run_id"] == facts.runs[0]["run_id"]
    assert [label.videos for label in facts.night.labels] == [1] and facts.night.first_seen == ()


def test_refusals(numbered: Numbered, tmp_path: Path, vidproc: Run) -> None:  # noqa: F811
    (tmp_path / "file").write_text("x")
    for out, more, word in (
        ("r.pdf", [], ".html"),
        ("r.html", ["--timezone", "Mars/Base"], "Mars"),
        ("file/r.html", [], "file"),
    ):
        code, said = vidproc("report", numbered.lake, tmp_path / out, *more)
        assert code == 2 and word in said
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_to_s3(numbered: Numbered, s3_root: Root) -> None:
    with numbered.opened() as lake:
        report(lake, f"{s3_root.uri}/reports/night.html", options=s3_root.options)
    checked(s3_root.storage.get("reports/night.html"))
