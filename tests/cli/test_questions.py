"""Questions by command: quick to start, at a prompt, from a pipe, and with a hint at what was meant."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from tests.support.lakes import RUN, link, outcome
from vidproc.cli import app
from vidproc.cli.prompt import columns, completions
from vidproc.models import listing
from vidproc.tables.lake import Lake
from vidproc.tables.publish import publish

HEAVY = ("torch", "torchvision", "ray", "av", "onnxruntime", "cv2", "scipy", "matplotlib", "supervision", "trackers",
         "pandas", "boto3", "prompt_toolkit")  # fmt: skip
TELLS = f"""
import sys
from vidproc.cli import main
try:
    main()
finally:
    print("modules:", *sorted(m for m in {(*HEAVY, "duckdb", "deltalake")} if sys.modules.get(m)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = Lake.create(str(tmp_path_factory.mktemp("questions") / "lake"))
    publish(made, [outcome(name, storage=made.storage) for name in ("a", "b")], link, RUN)
    return made.uri


def ask(*words: str, given: str | None = None, script: str | None = None) -> subprocess.CompletedProcess[str]:
    program = ["-m", "vidproc"] if script is None else [script]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    stream = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
    return subprocess.run([sys.executable, *program, *words], env=environment, capture_output=True, text=True, **stream)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("words", "may"),
    [
        (["--version"], ""),
        (["models", "list"], ""),
        (["status", "LAKE"], "deltalake"),
        (["failures", "LAKE"], "deltalake"),
        (["runs", "LAKE"], "deltalake"),
        (["query", "LAKE", "SELECT count(*) FROM videos"], "deltalake duckdb"),
        (["search", "LAKE", "--label", "cat"], "deltalake duckdb"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_question_imports_what_it_needs_and_nothing_heavy(
    tmp_path: Path, lake: str, words: list[str], may: str
) -> None:
    (tmp_path / "tells.py").write_text(TELLS)
    done = ask(*(lake if w == "LAKE" else w for w in words), script=str(tmp_path / "tells.py"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].split()[1:] == may.split()


def test_the_table_of_models_says_what_the_models_say() -> None:
    from_table = {e.name: e for e in listing.list_models() if e.name != "demo"}
    assert from_table == {e.name: e for e in listing.asked_of_torchvision()}


def test_the_embedded_pair_is_what_the_table_says() -> None:
    from vidproc.models import tiny

    for entry in (e for e in listing.list_models() if e.name == "demo"):
        card = tiny.describe(entry.kind)  # type: ignore[arg-type]
        told = (len(card.labels), card.licence, card.weights_uri, card.weights_sha256)
        assert told == (entry.labels, entry.licence, entry.weights, entry.sha256)


def test_the_version_names_what_a_report_needs() -> None:
    done = ask("--version")
    told = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines() if not line.startswith("python"))
    assert {"vidproc", "ray", "torch", "av", "duckdb", "deltalake", "ffmpeg libavcodec"} <= told.keys()
    assert all(re.match(r"\d+\.\d+", version) for version in told.values()), told
    import av

    assert told["ffmpeg libavcodec"] == ".".join(map(str, av.library_versions["libavcodec"]))


def test_the_shell_can_complete() -> None:
    command = typer.main.get_command(app)
    assert {"--install-completion", "--show-completion"} <= {name for p in command.params for name in p.opts}
    environment = {"_VIDPROC_COMPLETE": "complete_bash", "COMP_WORDS": "vidproc sta", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'vidproc'; from vidproc.cli import main; main()"],
        env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["status"], done.stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["statsu", "LAKE"], "status"),
        (["modles", "list"], "models"),
        (["status", "LAKE", "--jsn"], "--json"),
        (["models", "check", "fasterrcnn_resnet50_fpn_v3"], "fasterrcnn_resnet50_fpn_v2"),
        (["search", "LAKE", "--label", "catt"], "cat"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_was_meant_is_named(lake: str, words: list[str], meant: str) -> None:
    done = ask(*(lake if w == "LAKE" else w for w in words))
    said = " ".join(re.sub(r"[│\s]+", " ", done.stdout + done.stderr).split())
    assert re.search(rf"([Dd]id you mean|Possible options):? '?{re.escape(meant)}\b", said), said


def test_a_label_that_is_there_is_not_corrected(lake: str) -> None:
    done = ask("search", lake, "--label", "cat", "--min-seconds", "9999")
    assert "nothing was found" in done.stdout and "there is no label" not in done.stdout


def test_a_pipe_gives_the_statement(lake: str) -> None:
    done = ask("query", lake, "--format", "csv", given="SELECT count(*) AS n\nFROM videos;\n")
    assert (done.returncode, done.stdout) == (0, "n\n2\n"), done.stderr
    for given, said in (("DROP TABLE videos", "DROP is refused"), ("", "no SQL"), (" \n", "no SQL")):
        done = ask("query", lake, given=given)
        assert done.returncode == 2 and said in done.stderr and not done.stdout


@pytest.mark.parametrize(
    ("before", "typed", "first"),
    [
        ("SELECT * FROM det", "det", ["detections"]),
        ("sel", "sel", ["SELECT"]),
        ("SELECT vid", "vid", ["video_id", "videos"]),
        ("SELECT * FROM videos JOIN ", "", list(columns())),
        ("SELECT d.time", "time", []),
        ("SELECT videos.dur", "dur", ["duration_s"]),
        ("SELECT x FROM segments WHERE en", "en", ["end_s", "END"]),
        ("SELECT nothing_of_that_name", "nothing_of_that_name", []),
    ],
)
def test_completion_knows_tables_columns_and_keywords(before: str, typed: str, first: list[str]) -> None:
    found = completions(before, columns())
    assert found[0] == typed and [w for w in found[1] if w in first] == first
    assert bool(found[1]) == bool(first)


class Terminal:
    """A person at a terminal of 100 columns."""

    def __init__(self, *words: str, state: Path) -> None:
        child, self.descriptor = pty.fork()
        if child == 0:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_STATE_HOME": str(state),
                                        "TERM": "xterm", "COLUMNS": "100", "PROMPT_TOOLKIT_NO_CPR": "1"}  # fmt: skip
            os.execve(sys.executable, [sys.executable, "-m", "vidproc", *words], environment)
        self.child = child

    def until(self, text: str) -> str:
        seen, end = "", time.monotonic() + 120
        while text not in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen):
            assert time.monotonic() < end, f"{text!r} never came: {seen!r}"
            if select.select([self.descriptor], [], [], 1)[0]:
                try:
                    seen += os.read(self.descriptor, 65536).decode("utf-8", "replace")
                except OSError:
                    break
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def ended(self) -> int:
        _, status = os.waitpid(self.child, 0)
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def terminal(lake: str, tmp_path: Path) -> Iterator[Terminal]:
    pytest.importorskip("prompt_toolkit")
    yield Terminal("query", lake, "--limit", "3", state=tmp_path)


@pytest.mark.slow  # two sessions at a terminal
def test_a_prompt_answers_one_question_after_the_other(terminal: Terminal, lake: str, tmp_path: Path) -> None:
    assert "detections" in terminal.until("Tables: videos")
    terminal.until("vidproc>")
    terminal.type("SELECT count(*) AS counted FROM videos;\r")
    assert "counted" in terminal.until("1 row")
    terminal.type("DROP TABLE videos\r")
    terminal.until("DROP is refused")  # and the next is asked for
    terminal.until("vidproc>")
    terminal.type("SELECT label FROM detections\r")
    terminal.until("3 rows")  # the limit holds here too
    terminal.type("\x04")
    assert terminal.ended() == 0
    history = (tmp_path / "vidproc" / "query_history").read_text()
    assert "+SELECT count(*) AS counted FROM videos;" in history and "+SELECT label FROM detections" in history
    assert (tmp_path / "vidproc" / "query_history").stat().st_mode & 0o077 == 0


def test_a_prompt_needs_a_terminal_to_answer_on(lake: str, tmp_path: Path) -> None:
    terminal = Terminal("query", lake, "--output", str(tmp_path / "x"), state=tmp_path)
    terminal.until("needs a terminal to answer on")
    assert terminal.ended() == 2
