"""The inline executor: every step here and now, one after the other, in this process.

For debugging and for small jobs. The same admission, retries and reports as on Ray; but nothing
isolates a step: one that crashes the process crashes the run, and time and memory limits are not
enforced.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from vidproc.errors import ConfigError, NeverComesUp, RunAborted, TransientError
from vidproc.runtime.events import Listener
from vidproc.runtime.executor import DEFAULT_LIMITS, Admission, Done, Feed, Flight, Limits, Loop, Stop
from vidproc.runtime.retry import Fault, understand
from vidproc.runtime.step import AnyStep
from vidproc.runtime.units import UnitEnd


class InlineExecutor:
    def __init__(self) -> None:
        self._stop = Stop()

    def run(
        self,
        feed: Feed,
        routes: Mapping[str, Sequence[AnyStep]],
        limits: Limits = DEFAULT_LIMITS,
        listeners: Sequence[Listener] = (),
    ) -> Iterator[UnitEnd]:
        admission = Admission(routes, limits)
        yield from Loop(feed, routes, limits, listeners, workers=_Here(), admission=admission, stop=self._stop).run()

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        pass


class _Here:
    def __init__(self) -> None:
        self._due: deque[Flight] = deque()
        self._ready: set[int] = set()

    def submit(self, flight: Flight) -> None:
        # A unit that has begun goes on before the next one begins: at most one output lies about.
        self._due.appendleft(flight) if flight.stage else self._due.append(flight)

    def wait(self, timeout_s: float) -> Iterator[tuple[Flight, Done | Fault]]:
        if not self._due:
            time.sleep(timeout_s)
            return
        flight = self._due.popleft()
        self._set_up(flight.step)
        started = time.perf_counter()
        outcome: Done | Fault
        try:
            output = flight.step(flight.payload)
            outcome = Done(output, time.perf_counter() - started)
        except (Exception, SystemExit) as error:
            outcome = understand(error, stage=flight.step.name, host=socket.gethostname())
        yield flight, outcome

    def _set_up(self, step: AnyStep) -> None:
        if id(step) in self._ready:
            return
        try:
            step.setup()
        except (ConfigError, TransientError):
            raise
        except Exception as error:
            why = f"the step {step.name!r} cannot be set up: {type(error).__name__}: {error}"
            raise (RunAborted if isinstance(error, MemoryError) else NeverComesUp)(why) from error
        self._ready.add(id(step))

    def abandon(self) -> None:
        self._due.clear()
