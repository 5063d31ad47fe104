"""Processes of this machine, told apart from later ones with the same number. By /proc: elsewhere none are found."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass


def birth_of(pid: int) -> str:
    """Return when the process began, and in which space its number counts; empty where that cannot be told."""
    try:
        started = _stat(pid)[19].decode()
        return f"{os.readlink('/proc/self/ns/pid')} {started}"
    except (OSError, IndexError):
        return ""


def kill_process(pid: int, birth: str) -> bool:
    """Kill that very process; False: it is not here."""
    if not birth or birth_of(pid) != birth:
        return False
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    return True


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    birth: str

    def kill(self) -> None:
        kill_process(self.pid, self.birth)

    @property
    def is_running(self) -> bool:
        """False once it has ended, also where nobody has waited for it yet."""
        with contextlib.suppress(OSError, IndexError):
            return _stat(self.pid)[0] not in (b"Z", b"X") and birth_of(self.pid) == self.birth
        return False

    @property
    def is_stopped(self) -> bool:
        """Whether a signal or a debugger holds it."""
        with contextlib.suppress(OSError, IndexError):
            return _stat(self.pid)[0] in (b"T", b"t") and birth_of(self.pid) == self.birth
        return False

    @property
    def command_line(self) -> str:
        """Its words, separated by blanks; empty where it is gone."""
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace")
        return ""


def descendants_of(pids: Iterable[int]) -> list[Process]:
    """The children of these processes, and theirs, as they are now."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):  # it has just ended
                children.setdefault(int(_stat(int(name))[1]), []).append(int(name))
    found, waiting = [], list(pids)
    while waiting:
        below = children.pop(waiting.pop(), [])
        found += [Process(pid, birth_of(pid)) for pid in below]
        waiting += below
    return found


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat behind the name: its state, its parent, and so on."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()
