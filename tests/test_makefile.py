"""The Makefile: what it names is there, and each target says what it is for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text().replace("\\\n", " ")


def test_the_tests_of_make_check_are_there() -> None:
    (names,) = re.findall(r"^PURE := (.*)$", MAKEFILE, re.MULTILINE)
    assert len(names.split()) > 10
    assert [name for name in names.split() if not (ROOT / name).is_file()] == []


def test_each_target_is_in_the_help() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in said.splitlines()}
    assert set(targets.split()) - {"compiled"} <= told.keys()
    assert all(told.values())
