"""The reference page of training jobs is the one that the settings make, and leaves nothing out."""

from __future__ import annotations

from pathlib import Path

from vidproc.learn.reference import page

PAGE = Path(__file__).parents[2] / "jobs" / "training.md"


def test_the_page_is_the_one_that_the_settings_make() -> None:
    """`python -m vidproc.learn.reference > jobs/training.md` makes it anew."""
    assert PAGE.read_text() == page()


def test_each_key_has_a_meaning() -> None:
    rows = [line.strip("| ").split(" | ") for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 40 and {"`seed`", "`data.archive`", "`optimisation.learning_rate`"} <= {row[0] for row in rows}
    for row in rows:
        assert len(row) == 4 and row[3].endswith("."), f"{row[0]}: {row[3:]}"
