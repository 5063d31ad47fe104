"""The demo reaches its figures on scenes that were never trained on, and leaves a picture."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from vidproc.ask import LakeDatabase
from vidproc.demo.run import QUESTIONS, run_demo
from vidproc.errors import ConfigError


def test_the_demo_reaches_its_figures(tmp_path: Path) -> None:
    answers: list[int] = []

    def ask(database: LakeDatabase, question: str, sql: str) -> None:
        answers.append(len(database.sql(sql).read_all()))

    made = run_demo(tmp_path / "demo", executor="inline", say=lambda _: None, ask=ask)
    print(made.scores)
    assert made.scores.frames > 500 and made.scores.objects > 1000 and made.scores.windows > 75
    assert made.scores.map50 >= 0.90
    assert made.scores.idf1 >= 0.85
    assert made.scores.top1 >= 0.90
    assert len(answers) == len(QUESTIONS) and all(answers)
    picture = Image.open(BytesIO(made.sheet.read_bytes()))
    assert picture.width > 1000 and picture.height > 600
    assert len(set(picture.convert("RGB").resize((64, 64)).get_flattened_data())) > 500
    page = made.report.read_text()
    assert page.startswith("<!doctype html>") and page.count("<img ") >= 20 and "No picture" not in page


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds something"):
        run_demo(tmp_path, executor="inline")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
