"""What a run's workers do, as people and the summary are told: pools that wait, clusters joined, time in steps."""

from __future__ import annotations

import time
from collections import defaultdict

from vidproc.progress import Reporter
from vidproc.runtime.events import ClusterJoined, Event, PoolChanged, PoolWaiting, SetupFailed, said


class PoolWatch:
    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._notes: dict[str, str] = {}
        """By step: what it waits for, while it does."""
        self._up: dict[str, tuple[int, float]] = {}
        """By step: how many actors are up, and since when (monotonic seconds)."""
        self._up_s: defaultdict[str, float] = defaultdict(float)

    @property
    def note(self) -> str:
        return "; ".join(filter(None, self._notes.values()))

    def hear(self, event: Event) -> None:
        match event:
            case PoolWaiting(step=step, wants=wants, why=why):
                self._notes[step] = f"{step} waits for a worker ({said(wants)}): {why}"
                self._reporter.say(self._notes[step], step=step, waited_s=round(event.waited_s))
            case PoolChanged(step=step, ready=ready, starting=starting):
                self._count(step, ready)
                self._notes[step] = "" if ready else f"{step}: {starting} worker(s) starting"
            case ClusterJoined(address=address, travels=travels):
                self._reporter.say(f"joined the Ray cluster at {address}; what travels there: {travels}")
            case SetupFailed(fault=fault, in_a_row=n):
                self._reporter.say(f"a model worker did not start ({n} in a row): {fault.error}")
            case _:
                pass

    def has_worked(self, step: str) -> None:
        """A worker of the step gave something, so the step waits for none."""
        self._notes.pop(step, None)

    def actor_seconds(self) -> dict[str, float]:
        """By step: how long actors were up so far, over all actors."""
        for step, (ready, _) in list(self._up.items()):
            self._count(step, ready)
        return dict(self._up_s)

    def _count(self, step: str, ready: int) -> None:
        now = time.monotonic()
        before, since = self._up.get(step, (0, now))
        self._up_s[step] += before * (now - since)
        self._up[step] = ready, now
