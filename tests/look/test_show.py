"""`vidproc show`: a sheet or a folder of pictures, made whole or not at all, by questions that can only read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.look.conftest import Numbered
from tests.support.media import read_number
from vidproc.cli import main
from vidproc.look.sheet import SheetItem, captioned, contact_sheet, tile

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def vidproc(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The console script in this process -> exit code and all that it said."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["vidproc", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        assert isinstance(left.value.code, int)
        return left.value.code, "".join(capfd.readouterr())

    return run


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(path.read_bytes())).convert("RGB"))


def test_a_contact_sheet(numbered: Numbered, vidproc: Run, tmp_path: Path) -> None:
    for name, format in (("out.jpg", "JPEG"), ("out.PNG", "PNG")):
        code, said = vidproc("show", numbered.lake, tmp_path / name, "--where", "score > 0.5 -- sure", "--limit", 6)
        assert code == 0 and "6 of 6 rows" in said
        with Image.open(tmp_path / name) as picture:
            assert picture.format == format and picture.width > 1000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.PNG", "out.jpg"], "nothing half written is left"


def test_a_folder_has_one_picture_a_row_and_says_which(numbered: Numbered, vidproc: Run, tmp_path: Path) -> None:
    out = f"{tmp_path / 'out'}/"
    code, _ = vidproc("show", numbered.lake, out, "--where", "time_s = 2.0", "--limit", 9)
    rows = json.loads((tmp_path / "out" / "index.json").read_text())
    assert code == 0 and len(rows) == len(numbered.made)
    for row in rows:
        pixels = pixels_of(tmp_path / "out" / row["file"])
        assert row["time_s"] == 2.0 and row["missing"] is None and row["uri"] in numbered.made
        assert pixels.shape[1] == 320 and pixels.shape[0] > 213
    code, said = vidproc("show", numbered.lake, out, "--where", "time_s = 2.0")
    assert code == 2 and "--force" in said
    code, _ = vidproc("show", numbered.lake, out, "--where", "time_s = 3.0", "--force", "--limit", 1)
    [row] = json.loads((tmp_path / "out" / "index.json").read_text())
    assert code == 0 and row["time_s"] == 3.0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [row["file"], "index.json"]


@pytest.mark.parametrize(
    "question",
    [
        ["--label", "person"],
        ["--action", "rises", "--min-score", "0.1"],
        ["--table", "tracks", "--where", "detections > 2"],
        ["--table", "segments", "--where", "kind = 'presence' OR kind = 'action'"],
        ["--table", "actions", "--where", "rank = 1"],
        ["--where", "SELECT uri, start_s, end_s, label FROM tracks JOIN videos USING (video_id, pipeline)"],
        ["--where", "WITH w AS (FROM detections) SELECT video_id, time_s FROM w"],
    ],
)
def test_every_kind_of_row_can_be_shown(numbered: Numbered, vidproc: Run, tmp_path: Path, question: list[str]) -> None:
    code, said = vidproc("show", numbered.lake, tmp_path / "a.png", *question, "--limit", 2, "--json")
    shown = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert code == 0 and shown["rows"] == shown["pictures"] == 2


@pytest.mark.parametrize(
    "where",
    [
        "score > 0) UNION SELECT * FROM read_csv('/etc/passwd') --",
        "score > 0); DROP TABLE detections; --",
        "label IN (SELECT column0 FROM read_csv('/etc/passwd'))",
        "getenv('HOME') = 'x'",
        "no_such_column = 1",
        "SELECT * FROM read_text('/etc/passwd')",
        "   ",
    ],
)
def test_a_condition_can_only_read_the_lake(numbered: Numbered, vidproc: Run, tmp_path: Path, where: str) -> None:
    code, said = vidproc("show", numbered.lake, tmp_path / "a.jpg", "--where", where)
    assert code == 2 and "root:" not in said and not list(tmp_path.iterdir())


def test_bad_usage_is_refused_before_anything_is_read(numbered: Numbered, vidproc: Run, tmp_path: Path) -> None:
    for out, more, word in (
        ("a.gif", [], "jpg"),
        ("a.jpg", ["--where", "true", "--label", "car"], "two ways"),
        ("a.jpg", ["--label", "car", "--limit", "401"], "400"),
        ("a.jpg", ["--where", "SELECT 1 AS one"], "names no video"),
    ):
        code, said = vidproc("show", numbered.lake, tmp_path / out, *more)
        assert code == 2 and word in said, said
    (tmp_path / "file").write_text("x")
    code, said = vidproc("show", numbered.lake, tmp_path / "file" / "a.jpg", "--limit", 1)
    assert code == 2 and "file" in said
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_no_answer_says_so_and_writes_nothing(numbered: Numbered, vidproc: Run, tmp_path: Path) -> None:
    code, said = vidproc("show", numbered.lake, tmp_path / "a.jpg", "--where", "score > 2")
    assert code == 0 and "nothing was found" in said and not list(tmp_path.iterdir())


def test_what_a_search_cannot_know_it_says(numbered: Numbered, vidproc: Run) -> None:
    code, said = vidproc("search", numbered.lake, "--label", "Persn", "--label", "car", "--limit", 1)
    assert code == 0 and "no segment has the label 'Persn'; did you mean 'person'?" in said and "There are: " in said
    code, said = vidproc(
        "search", numbered.lake, "--action", "zzzz", "--since", "2026-01-01", "--between", "22:00-05:00"
    )
    assert "the action 'zzzz'." in said and "did you mean" not in said
    assert "2 videos have no date of recording, so --since and --between left them out" in said
    code, said = vidproc("search", numbered.lake, "--label", "person", "--limit", 1)
    assert "no segment" not in said and "no date" not in said


def test_what_cannot_be_shown_is_grey_and_counted(own: Numbered, vidproc: Run, tmp_path: Path) -> None:
    (own.archive / "a.mp4").unlink()
    code, said = vidproc("show", own.lake, tmp_path / "a.png", "--where", "time_s = 2", "--limit", 2)
    assert code == 0 and "1 of 2 rows" in said and "grey: 1 gone" in said and "a.mp4" in said
    colours = [len(set(half)) for half in _halves(tmp_path / "a.png")]
    assert min(colours) < max(colours)
    os.truncate(own.archive / "b.mp4", 100)
    code, said = vidproc("show", own.lake, tmp_path / "b.png", "--where", "time_s = 2", "--limit", 2)
    assert code == 1 and "0 of 2 rows" in said and "changed" in said and (tmp_path / "b.png").exists()


def _halves(path: Path) -> list[list[int]]:
    pixels = pixels_of(path)[..., 0]
    tiles = pixels[160:280]
    return [tiles[:, : tiles.shape[1] // 2].ravel().tolist(), tiles[:, tiles.shape[1] // 2 :].ravel().tolist()]


def test_pictures_keep_the_frame_and_any_text_fits() -> None:
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[:, ::2] = 200
    item = SheetItem(frame, "cam/" + "x" * 900 + "\x1b[31m", "2026", "label " * 200)
    read = np.asarray(Image.open(BytesIO(captioned(SheetItem(frame, "a", "b"), "PNG"))))
    assert np.array_equal(read[:480, :640], frame), "as large as it is, pixel by pixel"
    for width in (64, 384):
        assert Image.open(BytesIO(tile(item, width=width))).width == width
    for reason in ("", "gone: " + "y" * 3000, "z " * 3000):
        grey = SheetItem(None, "t", "d", "b", reason=reason)
        assert Image.open(BytesIO(contact_sheet([item, grey], format="JPEG"))).format == "JPEG"
    number = np.repeat(np.full((64, 96, 1), 60, np.uint8), 3, axis=2)
    assert read_number(np.asarray(Image.open(BytesIO(tile(SheetItem(number, "a"), width=96, format="PNG"))))) == 0
