"""Windows of a task, and what decides a pipeline's identity."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from vidproc.media import FrameBatch, FrameSize, Geometry, Grid
from vidproc.run.pipeline import Pipeline, make_pipeline, on_windows, window_frames
from vidproc.settings import load_job

GRID = Grid(fps=Fraction(2), size=FrameSize(), window=4, stride=2)


def batch(samples: list[int], owned: int, *, is_last: bool) -> FrameBatch:
    """Frames of one pixel which holds the sample's number."""
    k = np.array(samples, np.int64)
    pixels = np.repeat(k.astype(np.uint8)[:, None, None, None], 3, axis=3)
    return FrameBatch(pixels, k, k / 2.0, k * 10, Geometry(1, 1), owned, is_last)


@pytest.mark.parametrize(
    ("samples", "owned", "is_last", "expected"),
    [
        (list(range(8)), 4, False, [[0, 1, 2, 3], [2, 3, 4, 5]]),
        (list(range(3, 10)), 4, False, [[4, 5, 6, 7], [6, 7, 8, 9]]),  # multiples of the stride, not of the task
        (list(range(6)), 6, True, [[0, 1, 2, 3], [2, 3, 4, 5]]),  # half of the last would not do
        (list(range(7)), 7, True, [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 6]]),  # three quarters are there
        ([0], 1, True, [[0, 0, 0, 0]]),  # the first window of a short video is always there
        ([0, 1, 2, 5, 6, 7, 8, 9], 6, False, [[6, 7, 8, 9]]),  # samples that did not decode are not guessed
        ([0, 1, 2], 3, False, []),
        ([], 0, True, []),
    ],
)
def test_windows(samples: list[int], owned: int, is_last: bool, expected: list[list[int]]) -> None:
    b = batch(samples, owned, is_last=is_last)
    assert b.sample[window_frames(b, GRID)].tolist() == expected


def test_windows_are_scored_in_chunks_with_their_times() -> None:
    class Mean:
        def classify(self, windows: np.ndarray) -> np.ndarray:
            assert windows.dtype == np.uint8 and windows.shape[1:] == (4, 1, 1, 3)
            return windows.reshape(len(windows), -1).mean(axis=1, keepdims=True).astype(np.float32)

    starts, ends, scores = on_windows(Mean().classify, batch(list(range(100)), 96, is_last=False), GRID)
    assert starts.tolist() == [k / 2 for k in range(0, 96, 2)]
    assert (ends - starts == 2.0).all()
    assert scores[:, 0].tolist() == [k + 1.5 for k in range(0, 96, 2)]


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    job = {
        "archive": "/a",
        "lake": "/l",
        "detector": "tests.support.fakes:Numbers",
        "actions": "tests.support.fakes:Order",
    }
    return make_pipeline(load_job(None, job))


def test_equal_rows_have_equal_ids_whatever_the_cut(pipeline: Pipeline) -> None:
    job = {"archive": "/b", "lake": "/m", "cut": {"clip_seconds": 3}, "execution": {"executor": "inline"},
           "detector": "tests.support.fakes:Numbers", "actions": "tests.support.fakes:Order"}  # fmt: skip
    assert make_pipeline(load_job(None, job)).pipeline_id == pipeline.pipeline_id


def test_what_changes_rows_changes_the_id(pipeline: Pipeline) -> None:
    detector, actions = pipeline.uses
    card = detector.card
    variants = [
        replace(pipeline, uses=(detector,)),
        replace(pipeline, uses=(replace(detector, card=replace(card, weights_sha256="0" * 64)), actions)),
        replace(pipeline, uses=(replace(detector, card=replace(card, definition="nms")), actions)),
        replace(
            pipeline, uses=(replace(detector, card=replace(card, grid=replace(card.grid, fps=Fraction(3)))), actions)
        ),
        replace(pipeline, uses=(replace(detector, settings=replace(detector.settings, score_threshold=0.7)), actions)),
        replace(pipeline, uses=(detector, replace(actions, top_k=1))),
        replace(pipeline, link=replace(pipeline.link, lost_seconds=9.0)),
    ]
    ids = {v.pipeline_id for v in variants} | {pipeline.pipeline_id}
    assert len(ids) == len(variants) + 1
