"""Text from outside, as a person sees it: nothing acts on the terminal, nothing passes for a line of ours."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from vidproc.cli import app, main
from vidproc.errors import ConfigError
from vidproc.learn.networks import NetworkSettings, network_for, recipe_for
from vidproc.learn.train.folder import tensor_bytes, write_model
from vidproc.progress import LiveReporter, LogReporter, Progress
from vidproc.storage import open_storage
from vidproc.tables.lake import Lake
from vidproc.text import printable, printable_json, printable_lines

HOSTILE = "a\x1b[2J\x9b31m\nok: 12 indexed\r\u202egpj.\u2066[red]x[/red]\u2028\udc80\x00"
"""Escape sequences of 7 and of 8 bits, line breaks, reversed text, markup, half of a surrogate pair, and a zero."""
SHOWN = r"a\x1b[2J\x9b31m\nok: 12 indexed\r\u202egpj.\u2066[red]x[/red]\u2028\udc80\x00"


@given(st.text())
def test_everything_ends_on_one_line_of_printable_characters(text: str) -> None:
    assert printable(text).isprintable() and printable(printable(text)) == printable(text)
    if text.isprintable():
        assert printable(text) == text
    assert all(line.isprintable() for line in printable_lines(text).split("\n"))
    assert all(line.startswith("  ") for line in printable_lines(text).split("\n")[1:])


@given(st.recursive(st.text() | st.integers() | st.none(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_json_keeps_every_character(value: Any) -> None:
    text = printable_json(value, indent=2)
    assert json.loads(text) == value
    assert text.replace("\n", "").isprintable()


def test_names_in_other_scripts_stay_readable() -> None:
    assert printable("ünï 動画 🎥.mp4") == "ünï 動画 🎥.mp4" == json.loads(printable_json("ünï 動画 🎥.mp4"))
    assert printable(HOSTILE) == SHOWN


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Its last run ended for a reason that holds hostile text."""
    about = {name: name for name in ("run_id", "command", "job", "pipeline", "pipeline_id", "host", "versions")}
    reason = f"{HOSTILE.encode('utf-8', 'replace').decode()}: failed"
    Lake.create(str(tmp_path / "lake")).record_run(
        about | {"started_at": datetime(2026, 1, 1, tzinfo=UTC), "outcome": "failed", "reason": reason}
    )
    return tmp_path / "lake"


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_status_prints_no_character_that_a_terminal_would_obey(lake: Path, arguments: list[str]) -> None:
    ran = CliRunner().invoke(app, ["status", str(lake), *arguments])
    assert ran.exit_code == 0 and "ok: 12 indexed" in ran.output
    assert all(line.isprintable() for line in ran.output.split("\n"))
    assert not any(line.startswith("ok:") for line in ran.output.splitlines())
    if arguments:
        assert json.loads(ran.output)["last_run"]["reason"].startswith("a\x1b[2J\x9b31m\nok: 12 indexed\r\u202egpj.")


def test_an_error_cannot_forge_a_second_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ConfigError(f"cannot read {HOSTILE}\nvidproc: all is well")

    monkeypatch.setattr("vidproc.settings.load_job", fails)
    monkeypatch.setattr(sys, "argv", ["vidproc", "index", "a", "b"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    lines = capsys.readouterr().err.rstrip("\n").split("\n")
    assert [line for line in lines if line.startswith("vidproc:")] == [lines[0]]
    assert all(line.startswith("  ") for line in lines[1:]) and all(line.isprintable() for line in lines)


def test_logs_hold_one_line_an_event() -> None:
    for as_json in (False, True):
        out = io.StringIO()
        LogReporter(out, as_json=as_json).say(HOSTILE)
        (line,) = out.getvalue().split("\n")[:-1]
        assert line.isprintable()
    assert json.loads(line)["message"] == HOSTILE


def test_the_bar_takes_no_markup_from_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=400, color_system=None)
    monkeypatch.setattr("rich.console.Console", lambda **_: terminal)
    live = LiveReporter("indexing")
    live.update(Progress(note=f"{HOSTILE}[link=http://x]waits[/link]", due=1))
    live.say(HOSTILE)
    with live._bars:
        live._bars.refresh()
    assert "[link=http://x]waits[/link]" in out.getvalue() and SHOWN in out.getvalue()
    for sequence in ("\x1b[2J", "\x9b", "\u202e", "\x1b]8"):
        assert sequence not in out.getvalue()


def invisible(text: str) -> list[str]:
    """Lines that a terminal would obey."""
    return [line for line in text.split("\n") if not line.isprintable()]


def test_what_a_model_says_of_itself_is_printed_as_text(tmp_path: Path) -> None:
    """Licences, names and labels come with the model, from whoever made it."""
    size = {"mode": "stretch", "height": 32, "width": 32}
    network = NetworkSettings(arch="cnn+mean", size=size)
    recipe = recipe_for("model", ("cat", "dog"), network, "actions")
    write_model(open_storage(str(tmp_path / "m")), recipe, tensor_bytes(network_for(recipe, network)))
    card = yaml.safe_load((tmp_path / "m/model.yaml").read_text())
    hostile = HOSTILE.replace("\udc80", "").replace("\x00", "")
    (tmp_path / "m/model.yaml").write_text(yaml.safe_dump(card | {"license": hostile}))
    ran = CliRunner().invoke(app, ["models", "check", str(tmp_path / "m"), "--device", "cpu"])
    assert ran.exit_code == 0 and r"\x1b[2J\x9b31m\nok: 12 indexed" in ran.output, ran.output
    assert not invisible(ran.output) and not any(line.startswith("ok:") for line in ran.output.splitlines())


@pytest.mark.parametrize("text", ['"a\\e[2J\\nok: 12 indexed": 1\n', 'detector: {"b\\e[2J\\nok: 12 indexed": 1}\n'])
def test_keys_of_a_job_file_are_printed_as_text(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["vidproc", "index", "a", "b", "--job", str(tmp_path / "job.yaml")])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err
    assert left.value.code == 2 and "ok: 12 indexed" in said
    assert not invisible(said) and not any(line.startswith("ok:") for line in said.splitlines())
