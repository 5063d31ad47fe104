"""`--with` and `--then`: two things at once, or one after the other, against a plain reading of the segments."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.look.test_show import Run, vidproc  # noqa: F401
from vidproc.ask import LakeDatabase, SearchQuery, connect, search
from vidproc.errors import ConfigError

Stretch = tuple[str, float, float]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeDatabase]:
    folder = tmp_path_factory.mktemp("together") / "lake"
    shutil.copytree(Path(__file__).parents[1] / "whole" / "old_lake", folder)
    with connect(str(folder)) as database:
        yield database


def segments(lake: LakeDatabase) -> list[dict[str, Any]]:
    return lake.sql("SELECT uri, s.* FROM segments s JOIN videos USING (video_id, pipeline)").read_all().to_pylist()


def merged(stretches: list[Stretch]) -> list[Stretch]:
    out: list[Stretch] = []
    for uri, start, end in sorted(stretches):
        if out and out[-1][0] == uri and start <= out[-1][2]:
            out[-1] = (uri, out[-1][1], max(end, out[-1][2]))
        else:
            out.append((uri, start, end))
    return out


def at_once(rows: list[dict[str, Any]], a: str, b: str) -> list[Stretch]:
    return merged([
        (p["uri"], max(p["start_s"], q["start_s"]), min(p["end_s"], q["end_s"]))
        for p in rows if p["label"] == a
        for q in rows if q["label"] == b and q["uri"] == p["uri"]
        if p["start_s"] < q["end_s"] and q["start_s"] < p["end_s"] and a != b
    ])  # fmt: skip


def in_turn(rows: list[dict[str, Any]], a: str, b: str, within: float) -> list[Stretch]:
    return merged([
        (p["uri"], p["start_s"], max(p["end_s"], q["end_s"]))
        for p in rows if p["label"] == a
        for q in rows if q["label"] == b and q["uri"] == p["uri"]
        if p["start_s"] < q["start_s"] <= p["end_s"] + within
    ])  # fmt: skip


def test_every_pair_of_labels(lake: LakeDatabase) -> None:
    rows = segments(lake)
    kinds = {row["label"]: row["kind"] for row in rows}
    seen = 0
    for a, b in product(kinds, kinds):
        asked = {"label" if kinds[a] == "presence" else "action": a}
        for how, truth in (
            ({"with_label": b}, at_once(rows, a, b)),
            ({"then": b, "within": 0.0}, in_turn(rows, a, b, 0)),
            ({"then": b, "within": 3.0}, in_turn(rows, a, b, 3)),
        ):
            hits = search(lake, SearchQuery(**asked, **how))  # type: ignore[arg-type]
            assert sorted((h.uri, h.start_s, h.end_s) for h in hits) == truth, (a, b, how)
            assert all(h.why == f"{'with' if 'with_label' in how else 'then'} {b}" for h in hits)
            pages = []
            while page := search(lake, SearchQuery(**asked, **how, limit=1, after=pages[-1].token if pages else None)):  # type: ignore[arg-type]
                pages += page
            assert pages == hits
            seen += len(hits)
    assert seen > 10


def test_what_makes_no_sense_is_refused(lake: LakeDatabase, vidproc: Run) -> None:  # noqa: F811
    for wrong in (
        {"with_label": "car"},
        {"label": "person", "with_label": "car", "then": "dog"},
        {"label": "person", "then": "dog", "within": -1.0},
    ):
        with pytest.raises(ConfigError):
            SearchQuery(**wrong)  # type: ignore[arg-type]
    code, said = vidproc("search", lake.uri, "--label", "person", "--with", "stnad")
    assert code == 0 and "no segment has the label 'stnad'; did you mean 'stand'?" in said
    code, said = vidproc("search", lake.uri, "--label", "person", "--with", "sit")
    assert code == 0 and "person with sit" in said
