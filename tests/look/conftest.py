"""A lake of small videos whose every frame says which one it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.media import Made, make_video
from vidproc.ask import LakeDatabase, connect
from vidproc.run.driver import index
from vidproc.settings import load_job

KINDS: dict[str, dict[str, Any]] = {
    "gate/gate_20260301_220000.mp4": {"gop": 12},
    "gate/film.mkv": {"codec": "libx265", "gop": 25},
    "yard/yard_20260302_060000.ts": {"first_s": 3},
    "yard/old.avi": {"codec": "mpeg4", "bframes": 0},
}


@dataclass(frozen=True)
class Numbered:
    """An archive, its lake, and what was drawn."""

    archive: Path
    lake: Path
    made: dict[str, Made]
    """By URI."""

    def opened(self, **how: Any) -> LakeDatabase:
        return connect(str(self.lake), **how)


def job(archive: Path | str, lake: Path | str, **more: Any) -> Any:
    given: dict[str, Any] = {
        "archive": str(archive), "lake": str(lake), "detector": "tests.support.fakes:Numbers",
        "actions": "tests.support.fakes:Order", "recorded_at": "%Y%m%d_%H%M%S",
        "limits": {"max_failures": "100%"}, "execution": {"executor": "inline", "device": "cpu"},
    }  # fmt: skip
    return load_job(None, given | more)


def make_archive(folder: Path, kinds: dict[str, dict[str, Any]]) -> dict[str, Made]:
    made = {}
    for name, how in kinds.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        made[str(folder / name)] = make_video(folder / name, **({"seconds": 6} | how))
    return made


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Numbered]:
    """To be read only."""
    root = tmp_path_factory.mktemp("numbered")
    made = make_archive(root / "archive", KINDS)
    summary = index(job(root / "archive", root / "lake"))
    assert summary.statuses == {"indexed": len(KINDS)}
    yield Numbered(root / "archive", root / "lake", made)


@pytest.fixture
def own(tmp_path: Path) -> Numbered:
    """Two videos that a test may change."""
    made = make_archive(tmp_path / "archive", {"a.mp4": {"seconds": 3}, "b.mp4": {"seconds": 3}})
    index(job(tmp_path / "archive", tmp_path / "lake"))
    return Numbered(tmp_path / "archive", tmp_path / "lake", made)
