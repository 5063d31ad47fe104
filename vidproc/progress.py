"""What a person sees while a run goes on: a live display on a terminal, one line every 30 s elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from vidproc.secrets import redact, redact_values
from vidproc.text import printable, printable_json

LINE_EVERY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A moment of a run. Times in seconds."""

    elapsed_s: float = 0.0
    listed: int = 0
    listing_done: bool = False
    current: int = 0
    """Videos that the lake already has as they are."""
    due: int = 0
    done: int = 0
    """Due videos that have ended, whatever the ending."""
    failed: int = 0
    video_s_known: float = 0.0
    """Seconds of video in what has been probed."""
    video_s_done: float = 0.0
    """In tasks that this run has done; a long video counts as its tasks end."""
    video_s_open: float = 0.0
    """In tasks that have not ended."""
    moved_s: float = 0.0
    """When a task ended last, as `elapsed_s`."""
    probed: int = 0
    """Due videos that were looked at, also where that did not make tasks of them."""
    in_work: int = 0
    """Videos listed and not yet ended."""
    tasks_waiting: int = 0
    note: str = ""

    @property
    def speed(self) -> float:
        """Seconds of video a second: a multiple of real time."""
        return self.video_s_done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds left at the speed until a task ended last; None as long as nobody can know, and when what
        was to be left has passed without an end."""
        if not self.listing_done or not self.probed or self.video_s_done <= 0:
            return None
        # Videos not probed yet are taken to be as long as the average of those that were.
        left = self.video_s_open + self.video_s_known / self.probed * (self.due - self.probed)
        seconds = left * self.moved_s / self.video_s_done - (self.elapsed_s - self.moved_s)
        return seconds if seconds > 0 else None

    def line(self) -> str:
        of = f"{self.due}" if self.listing_done else f"{self.due}+"
        parts = [
            f"{self.done}/{of} videos",
            f"{spell(self.video_s_done)} of video",
            f"{self.speed:.1f}x real time",
            f"{self.failed} failed",
            f"{hms(self.left_s)} left" if self.left_s is not None else "time left unknown",
        ]
        if self.current:
            parts.insert(1, f"{self.current} already there")
        if self.note:
            parts.append(self.note)
        return " · ".join(parts)


def spell(seconds: float) -> str:
    """A length of time in words; hours of video are counted in hundredths."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.2f} h"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def hms(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


class Reporter:
    """Listens to a run and shows it. One for a terminal, one for a log, one that says nothing."""

    def update(self, progress: Progress) -> None: ...

    def say(self, message: str, **fields: Any) -> None: ...


class LogReporter(Reporter):
    """One line every 30 s and one for each thing worth saying; text or JSON, on standard error."""

    def __init__(self, stream: TextIO | None = None, *, as_json: bool = False, every_s: float = LINE_EVERY_S) -> None:
        self._stream, self._json, self._every = stream or sys.stderr, as_json, every_s
        self._last = time.monotonic()

    def update(self, progress: Progress) -> None:
        if time.monotonic() - self._last < self._every:
            return
        self._last = time.monotonic()
        numbers = {k: v for k, v in asdict(progress).items() if k != "note"} if self._json else {}
        self._write("progress", progress.line(), numbers)

    def say(self, message: str, **fields: Any) -> None:
        self._write("event", message, fields)

    def _write(self, kind: str, message: str, fields: dict[str, Any]) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        if self._json:
            text = printable_json(
                {"at": at, "kind": kind, "message": redact(message), **redact_values(fields)}, default=str
            )
        else:
            # One event, one line: names from the archive may hold anything.
            text = f"{at} {printable(redact(message))}"
        print(text, file=self._stream, flush=True)


class LiveReporter(Reporter):
    """A bar on a terminal, with what is worth saying above it."""

    def __init__(self, doing: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[line]}", markup=False),  # names of steps stand in it
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bars.add_task(doing, total=None, line="starting")

    def update(self, progress: Progress) -> None:
        total = progress.due if progress.listing_done and progress.due else None
        self._bars.update(self._task, total=total, completed=progress.done, line=printable(progress.line()))

    def say(self, message: str, **fields: Any) -> None:
        from rich.text import Text

        self._bars.console.print(Text(printable(redact(message))))


class NotebookReporter(Reporter):
    """A line in the output of a notebook's cell, written over as the run goes on; what is worth saying stays below."""

    def __init__(self, doing: str, *, every_s: float = 0.5) -> None:
        from IPython.display import display

        self._doing, self._every, self._last = doing, every_s, -math.inf
        self._line = display({"text/plain": f"{doing}: starting"}, raw=True, display_id=True)

    def update(self, progress: Progress) -> None:
        if time.monotonic() - self._last < self._every:
            return
        self._last = time.monotonic()
        self._line.update({"text/plain": f"{self._doing}: {printable(progress.line())}"}, raw=True)

    def say(self, message: str, **fields: Any) -> None:
        print(printable(redact(message)))


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


@contextmanager
def displayed(progress: bool | Reporter | None, *, doing: str = "indexing") -> Iterator[Reporter]:
    """The reporter for a call from Python. None shows progress on a terminal and in a notebook and nowhere else; True
    everywhere, False nowhere."""
    if isinstance(progress, Reporter):
        yield progress
    elif progress is not False and in_notebook():
        yield NotebookReporter(doing)
    else:
        with reporter(quiet=not (sys.stderr.isatty() if progress is None else progress), doing=doing) as shown:
            yield shown


@contextmanager
def reporter(*, quiet: bool = False, log_format: str = "auto", doing: str = "indexing") -> Iterator[Reporter]:
    """The right reporter for where this runs."""
    if quiet:
        yield Reporter()
    elif log_format == "json" or log_format == "text" or not sys.stderr.isatty():
        yield LogReporter(as_json=log_format == "json")
    else:
        live = LiveReporter(doing)
        with live._bars:
            yield live
