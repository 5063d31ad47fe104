"""How a run ended is written down on every path out of it, and its exit code says it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes import Numbers
from tests.support.media import make_video
from tests.whole.test_end_to_end import job
from vidproc.cli.indexing import show_summary
from vidproc.models import ModelSettings
from vidproc.run.driver import Driver, index
from vidproc.run.summary import RunSummary
from vidproc.tables.lake import Lake


class OnlyHere(Numbers):
    """A detector that comes up in the process that asks for its card, and in no worker."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        if os.environ.get("VIDPROC_TEST_DRIVER") not in (None, str(os.getpid())):
            raise RuntimeError("its libfancy.so.3 is not on this machine")


@pytest.fixture
def archive(tmp_path: Path) -> str:
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in/a.mp4", seconds=1)
    return str(tmp_path / "in")


def ends(lake: str) -> list[tuple[str, int, str]]:
    return [(r["outcome"], r["exit_code"], r["reason"]) for r in Lake.open(lake).runs().to_pylist()]


@pytest.mark.slow  # three workers come up and fail, one after the other; test_executor.py has it in small
def test_a_model_that_never_loads_is_a_bad_job(archive: str, tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    words = ["import os, sys; os.environ['VIDPROC_TEST_DRIVER'] = str(os.getpid())",
             "from vidproc.cli import main; main()"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "; ".join(words), "index", archive, lake, "--detector",
         "tests.cli.test_exit_codes:OnlyHere", "--actions", "none", "--workers", "1", "--actors", "1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "libfancy.so.3 is not on this machine" in done.stderr.splitlines()[-1]
    assert [end[:2] for end in ends(lake)] == [("failed", 2)]


def test_a_bug_is_the_end_of_a_run_too(archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: Any) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(Driver, "ended", ended)
    with pytest.raises(ZeroDivisionError):
        index(job(archive, str(tmp_path / "lake")))
    assert ends(str(tmp_path / "lake")) == [("failed", 1, "ZeroDivisionError: a bug of ours")]


def test_what_was_due_and_did_not_end_is_not_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    counted: dict[str, Any] = {f.name: {} if "Mapping" in str(f.type) else 0 for f in fields(RunSummary)}
    for outcome, due in (("interrupted", 10), ("ok", 0)):
        told = {"outcome": outcome, "reason": "", "run_id": "r", "pipeline_id": "p"}
        show_summary(RunSummary(**counted | told | {"due": due}), "/l")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("interrupted", "ok"))]
    assert said == ["interrupted: none of 10 due videos ended", "ok: nothing was due"]
