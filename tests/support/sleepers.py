"""A process that stops anywhere and wakes up later, as a thread that stops before its n-th side effect.

with asleep(lambda: publish(...), effect=7) as sleeper:     # stopped; the others go on
    lake.vacuum(...)
sleeper.answer                                              # it was woken up and went on to its end

Machines whose clocks differ: `clock(hours=25)` shifts what our own code reads as the time. Time itself, by which
the sleeper slept: `later(hours=25)` shifts what the store says.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import deltalake
import pytest

from vidproc.storage import LocalStorage, S3Storage

LIMIT_S = 240.0


class Sleeper:
    def __init__(self, act: Callable[[], Any], effect: int, clock: timedelta) -> None:
        self._act, self._left, self._clock = act, effect, clock
        self._stopped, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._live, name="sleeper", daemon=True)
        self.slept = False
        """Whether it had so many side effects."""
        self.answer: Any = None
        self.error: Exception | None = None

    def _live(self) -> None:
        try:
            self.answer = self._act()
        except Exception as error:
            self.error = error
        finally:
            self._stopped.set()

    def before_effect(self) -> None:
        if threading.current_thread() is not self._thread or self.slept:
            return
        if self._left == 0:
            self.slept = True
            self._stopped.set()
            assert self._wake.wait(LIMIT_S)
        self._left -= 1

    def run_until_it_sleeps(self) -> None:
        with clock(self._clock):
            self._thread.start()
            assert self._stopped.wait(LIMIT_S)

    def wake(self) -> None:
        with clock(self._clock):
            self._wake.set()
            self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()


@contextmanager
def asleep(act: Callable[[], Any], effect: int, clock: timedelta = timedelta(0)) -> Iterator[Sleeper]:
    """`act` is stopped before its n-th side effect (0: the first) while the body runs, and then goes on."""
    sleeper = Sleeper(act, effect, clock)

    def stopping(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            sleeper.before_effect()
            return function(*arguments, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for storage in (LocalStorage, S3Storage):
            for name in ("put", "delete"):
                patch.setattr(storage, name, stopping(getattr(storage, name)))
        patch.setattr(deltalake, "write_deltalake", stopping(deltalake.write_deltalake))
        for name in ("create_write_transaction", "create_checkpoint"):
            patch.setattr(deltalake.DeltaTable, name, stopping(getattr(deltalake.DeltaTable, name)))
        for name in ("compact", "z_order"):
            patch.setattr(deltalake.table.TableOptimizer, name, stopping(getattr(deltalake.table.TableOptimizer, name)))
        sleeper.run_until_it_sleeps()
        try:
            yield sleeper
        finally:
            sleeper.wake()


@contextmanager
def clock(off: timedelta) -> Iterator[None]:
    """This machine's clock is wrong by so much, for all of vidproc."""
    real, real_time = datetime, time.time

    class Any_(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real)

    class Off(real, metaclass=Any_):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.now(tz) + off

    with pytest.MonkeyPatch.context() as patch:
        if off:
            patch.setattr(time, "time", lambda: real_time() + off.total_seconds())
            for name, module in list(sys.modules.items()):
                if name.startswith("vidproc.") and getattr(module, "datetime", None) is real:
                    patch.setattr(module, "datetime", Off)
        yield


@contextmanager
def later(by: timedelta) -> Iterator[None]:
    """So much time has passed, by the store's clock, since everything in it was written."""
    import vidproc.tables.vacuum as vacuum

    real = vacuum.store_now
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vacuum, "store_now", lambda storage: real(storage) + by)
        yield
