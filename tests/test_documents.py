"""YAML and JSON from elsewhere: read, or refused within bounds, the same way wherever such a file is taken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidproc.documents import MAX_DEPTH, load_json_file, parse_yaml, read_document
from vidproc.errors import ConfigError
from vidproc.learn.job import read_job
from vidproc.learn.scoring.evaluate import evaluate
from vidproc.learn.scoring.settings import EvalSettings
from vidproc.learn.train.settings import TrainSettings
from vidproc.models import describe_model
from vidproc.settings import load_job


def laughs(fan: int = 9, levels: int = 9) -> str:
    """Nine aliases of nine aliases of ...: under a kilobyte that stands for 3 x 10^8 values."""
    lines = ["l0: &l0 [" + ", ".join(["ha"] * fan) + "]"]
    lines += [f"l{i}: &l{i} [" + ", ".join([f"*l{i - 1}"] * fan) + "]" for i in range(1, levels)]
    return "\n".join(lines)


def merging_laughs() -> str:
    lines = ["l0: &l0 {k: ha}"]
    lines += [f"l{i}: &l{i} {{<<: [" + ", ".join([f"*l{i - 1}"] * 9) + f"], z{i}: 1}}" for i in range(1, 9)]
    return "\n".join(lines)


HOSTILE = {
    "aliases": (laughs(), "line 4: with its aliases written out it holds more than"),
    "merge keys": (merging_laughs(), "with its aliases written out it holds more than"),
    "a long text many times": (f"a: &a {'x' * 400_000}\nb: [*a, *a, *a]", "with its aliases written out"),
    "an alias to itself": ("a: &a [*a]", "line 1: an alias stands within what it names"),
    "an alias to itself in a mapping": ("a: &a {b: {c: *a}}", "an alias stands within what it names"),
    "a merge of itself": ("a: &a {<<: *a}", "an alias stands within what it names"),
    "brackets": ("a: " + "[" * 100_000, f"nested deeper than {MAX_DEPTH} levels"),
    "braces": ("{a: " * 20_000, f"nested deeper than {MAX_DEPTH} levels"),
    "dashes": ("a:\n" + "- " * 20_000, f"nested deeper than {MAX_DEPTH} levels"),
    "question marks": ("? " * 20_000, f"nested deeper than {MAX_DEPTH} levels"),
    "a number of many digits": ("a: " + "9" * 100_000, "a number has 100,000 characters"),
    "a number in sixteens": ("a: 0x" + "f" * 100_000, "a number has 100,002 characters"),
    "a number in sixties": ("a: 1" + ":20" * 50_000, "a number has 150,001 characters"),
    "a number beyond all": ("a: 1.0e+999", r"1\.0e\+999 is not a number"),
    "no number": ("a: .nan", r"\.nan is not a number"),
    "a key twice": ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is given twice"),
    "a key twice below": ('b: {x: 1, "x": 2}', "the key 'x' is given twice"),
    "an object of Python": ("a: !!python/object/apply:os.abort []", "the tag 'python/object/apply:os.abort'"),
    "a tag of its own": ("a: !secret x", "the tag '!secret' is not known here"),
    "a set": ("a: !!set {b, c}", "the tag 'set' is not known here"),
    "a tag that does not fit": ("a: !!int word", "not YAML: invalid literal"),
    "a month that is none": ("a: 2026-13-45", "not YAML: month must be in"),
    "a list as key": ("? [1]\n: 2", "a key must be text"),
    "two documents": ("a: 1\n---\nb: 2", "not YAML: expected a single document"),
    "many values": ("a: [" + "1," * 300_000 + "]", "it holds more than 50,000 values"),
    "a zero": ("a: \0", "not YAML: unacceptable character"),
    "too long": ("#" * 5_000_000, "is too long"),
    "no list closed": ("a: [", "not YAML"),
}  # fmt: skip

HOSTILE_JSON = {
    "brackets": ('{"a": ' + "[" * 100_000, "nested deeper"),
    "brackets, closed": ('{"a": ' + "[" * 200 + "]" * 200 + "}", f"nested deeper than {MAX_DEPTH} levels"),
    "digits": ('{"a": ' + "9" * 100_000 + "}", "a number has 100,000 characters"),
    "a key twice": ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
    "no number": ('{"a": NaN}', "NaN is not a number"),
    "beyond all": ('{"a": 1e999}', "1e999 is too large"),
    "half": ('{"a": ', "not JSON"),
}

READERS: dict[str, Callable[[Path], object]] = {
    "job file": load_job,
    "model file": lambda path: describe_model(str(path)),
    "training job": lambda path: read_job(path, TrainSettings),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("reader", READERS)
def test_a_hostile_file_is_refused_wherever_it_is_taken(reader: str, case: str, tmp_path: Path) -> None:
    text, message = HOSTILE[case]
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as refused:
        READERS[reader](path)
    assert str(path) in str(refused.value) and len(str(refused.value)) < len(str(path)) + 400


@pytest.mark.parametrize("case", HOSTILE_JSON)
def test_a_hostile_model_file_in_json_is_refused(case: str, tmp_path: Path) -> None:
    text, message = HOSTILE_JSON[case]
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        describe_model(str(tmp_path))


@pytest.mark.parametrize("task", ["detection", "classification", "segments"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "not JSON that can be read: it is nested too deep"),
        ("9" * 100_000, "not JSON"),
        ("{", "not JSON"),
    ],
)
def test_a_hostile_label_file_is_refused(text: str, message: str, task: Any, tmp_path: Path) -> None:
    labels, answers = tmp_path / "labels.json", tmp_path / "answers.json"
    labels.write_text(text)
    answers.write_text("[]")
    with pytest.raises(ConfigError, match=rf"labels\.json: {message}"):
        evaluate(EvalSettings(task=task, truth=str(labels), predictions=str(answers)))


def test_aliases_and_merge_keys_are_for_use(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "archive: &here /videos\nlake: *here\ndetector: &m {model: demo, fps: 4}\nactions: {<<: *m, fps: 8}\n"
    )
    job = load_job(path)
    assert job.lake == "/videos" and (job.detector.fps, job.actions.fps) == (4, 8)


def test_keys_are_what_is_written() -> None:
    found = parse_yaml("presence: {on: 0.5, off: 0.3}\n1: x\n2026-01-01: y", "f", "job file")
    assert found == {"presence": {"on": 0.5, "off": 0.3}, "1": "x", "2026-01-01": "y"}


@pytest.mark.parametrize("what", ["pipe", "folder", "device", "no text"])
def test_what_is_no_text_file_is_refused_at_once(what: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"archive: \xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_job(path)


def test_as_a_command_it_ends_with_2_and_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(laughs())
    command = [sys.executable, "-m", "vidproc", "index", "--job", str(tmp_path / "job.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "aliases written out" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=5), values, max_size=5))
def test_json_is_read_as_it_is(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("documents") / "f.json"
    path.write_text(json.dumps(value))
    assert read_document(path, "file") == value == load_json_file(path)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(list("a1:-?![]{}<*&'\"#|>%@`\n\t ,.=~")), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_yaml(text, "f.yaml", "job file")
    except ConfigError as e:
        assert str(e).startswith("The job file f.yaml cannot be read: ")
