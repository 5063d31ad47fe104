"""What the tasks of a video remark, put together: the same sentences however the video was cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidproc.run.remarks import MAX_CHARACTERS, MAX_SENTENCES, merged, moments


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ()),
        (["odd", "odd", "also odd"], ("also odd", "odd")),
        (["late at 9.000 s", "early at 1.5 s", "odd"], ("odd", "early at 1.500 s", "late at 9.000 s")),
        (["bad at 3.000 s, 1.000 s", "bad at 3.000 s, 3.040 s"], ("bad at 1.000 s, 3.000 s, 3.040 s",)),
        (["grey: 1.000-2.000 s", "grey: 2.000-2.500 s, 9.000 s"], ("grey: 1.000-2.500 s, 9.000 s",)),
        (["2 frames are bad at 1 s, 2 s", "2 frames are bad at 2 s, 3 s"],
         ("3 frames are bad at 1.000 s, 2.000 s, 3.000 s",)),
        (["2 frames are bad", "5 frames are bad"], ("7 frames are bad",)),
        (["bad at 1 s and 4 more", "bad at 7 s and 1 more"], ("bad at 1.000 s, 7.000 s and 5 more",)),
        (["leaps from 3.96 s to 1003.96 s: closed up"] * 2, ("leaps from 3.96 s to 1003.96 s: closed up",)),
        (["x264 did 3 things", "x264 did 4 things"], ("x264 did 3 things", "x264 did 4 things")),
    ],
)  # fmt: skip
def test_sentences_are_put_together(given: list[str], expected: tuple[str, ...]) -> None:
    assert merged(given) == expected


def test_many_moments_and_many_sentences_are_counted() -> None:
    (one,) = merged([f"frames are bad at {moments(n / 25 for n in range(100))}"])
    assert one.startswith("frames are bad at 0.000 s, 0.040 s, ") and one.endswith(", 0.280 s and 92 more")
    many = merged(f"{chr(97 + n % 26)}{'x' * n}" for n in range(100))
    assert len(many) == MAX_SENTENCES + 1 and many[-1] == "60 more warnings are not listed"
    assert len(merged(["x" * 10_000])[0]) == MAX_CHARACTERS


@given(st.lists(st.integers(0, 3000), min_size=1), st.lists(st.integers(1, 3000), max_size=5))
def test_the_cut_does_not_show(frames: list[int], cuts: list[int]) -> None:
    """Each task names its own frames, and a frame at a cut is seen by both neighbours."""

    def said(inside: list[int]) -> list[str]:
        return [f"{len(inside)} frames are bad at {moments(n / 25 for n in inside)}"] if inside else []

    frames = sorted(set(frames))
    bounds = [0, *sorted(set(cuts)), 3001]
    tasks = [said([n for n in frames if a <= n <= b]) for a, b in pairwise(bounds)]
    assert merged(w for task in tasks for w in task) == merged(said(frames))
