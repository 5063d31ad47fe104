"""Commands run by somebody who may not read everything, also where the tests are run by root.

Root passes every permission bit. So the commands run in a process of its own that imports all it needs, then
becomes `nobody`. A folder of such a test must lie where `nobody` may go, which pytest's own do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534

_SCRIPT = """
import contextlib, io, json, os, sys, traceback
from vidproc.cli import main

warm_up, commands = json.loads(sys.stdin.read())
def run(arguments):
    sys.argv, out, err, code = ["vidproc", *arguments], io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as left:
            code = left.code
        except BaseException:
            traceback.print_exc()
    return [code, out.getvalue(), err.getvalue()]
for command in warm_up:  # whatever is imported late is imported now
    assert run(command)[0] == 0, run(command)
if os.getuid() == 0:
    os.setgroups([]), os.setgid(%d), os.setuid(%d)
sys.__stdout__.write(json.dumps([run(command) for command in commands]))
""" % (NOBODY, NOBODY)  # noqa: UP031


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter and write to."""
    with tempfile.TemporaryDirectory(prefix="vidproc-tests-") as name:
        os.chmod(name, 0o777)
        yield Path(name)


def as_nobody(*commands: list[str], warm_up: list[list[str]]) -> list[tuple[int | None, str, str]]:
    """(exit code, standard output, standard error) of each command; a code of None is a traceback."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        input=json.dumps([warm_up, commands]),
        env=os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]
