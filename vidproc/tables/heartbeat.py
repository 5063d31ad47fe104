"""What a run leaves in the lake while it goes on, so that it can be watched from elsewhere.

    <lake>/_runs/<run_id>.json     written over every few seconds, removed when the run's end is in the lake

A run that was killed leaves its last one behind. How long ago that was is told by the store's clock, which
dated it, and never by comparing the clocks of two machines.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Self

from vidproc.errors import AlreadyExists, VidprocError
from vidproc.progress import Progress, Reporter
from vidproc.secrets import redact, redact_values
from vidproc.storage import Storage
from vidproc.storage.clock import store_now
from vidproc.tables.checks import document, typed

FOLDER = "_runs"
EVERY_S = 5.0
SILENT_S = 60.0
"""A run without a sign for this time, twelve times what is usual, is taken to have died."""
FORGOTTEN_S = 24 * 3600.0
"""The next run removes what a dead one left after this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A sign of life of one run."""

    run_id: str
    pipeline: str
    host: str
    started_at: datetime
    at: datetime
    """When it was given, by the run's own clock. UTC, as all times here."""
    progress: Progress
    said: str = ""
    """The last thing that was worth saying, after its time: it may be long past."""
    seen_at: datetime | None = None
    """When the store was given it, by the store's clock."""
    silent: bool = False
    """True: no other has come for SILENT_S, so the run must have been killed."""

    def line(self) -> str:
        if self.silent:
            last = self.seen_at or self.at
            return f"{self.run_id}: no sign since {last:%Y-%m-%d %H:%M:%S} UTC, killed? Run the same command again"
        return f"{self.run_id} on {self.host}: {self.progress.line()}"


def running(storage: Storage) -> list[Sign]:
    """The last sign of each run that has not ended, as far as it was able to say so; the oldest first."""
    return sorted(_signs(storage), key=lambda sign: sign.started_at)


def _signs(storage: Storage) -> list[Sign]:
    signs = last_signs(storage)
    found = []
    for run_id, (seen_at, silent) in signs.items():
        with suppress(VidprocError, ValueError, TypeError, LookupError, AttributeError):  # ended, or another version's
            raw = document(storage, _key(run_id), "sign of a run")
            if raw.get("ended"):
                continue
            known = {f.name for f in fields(Progress)}
            progress = Progress(**{k: v for k, v in raw.pop("progress").items() if k in known})
            names = {k: raw[k] for k in ("run_id", "pipeline", "host", "said")}
            started_at, at = (datetime.fromisoformat(raw[k]) for k in ("started_at", "at"))
            sign = Sign(progress=progress, started_at=started_at, at=at, seen_at=seen_at, silent=silent, **names)
            typed(sign)
            typed(progress)
            if sign.run_id != run_id:
                continue
            found.append(sign)
    return found


def last_signs(storage: Storage) -> dict[str, tuple[datetime, bool]]:
    """By run_id: when the store was given its last sign, and whether that is too long ago for a run that lives."""
    found = {}
    for item in storage.list(f"{FOLDER}/"):
        name = item.key.removeprefix(f"{FOLDER}/")
        if name.endswith(".json") and "/" not in name:
            found[name.removesuffix(".json")] = item.modified_at
    if not found:
        return {}
    try:
        now = store_now(storage)
    except VidprocError:  # it may only be read: nothing is decided by this then, only shown
        now = datetime.now(UTC)
    return {run_id: (at, (now - at).total_seconds() > SILENT_S) for run_id, at in found.items()}


def begin(storage: Storage, *, run_id: str, pipeline: str, host: str, started_at: datetime) -> None:
    """Gives the first sign of a run, unless it has given one."""
    sign = Sign(
        run_id=run_id,
        pipeline=pipeline,
        host=host,
        started_at=started_at,
        at=datetime.now(UTC),
        progress=Progress(),
    )
    with suppress(AlreadyExists):
        storage.put(_key(run_id), _to_json(sign), if_absent=True)


def end(storage: Storage, run_id: str) -> None:
    """Remove the run's sign. To be called when its end is written down."""
    storage.delete([_key(run_id)])


def _key(run_id: str) -> str:
    return f"{FOLDER}/{run_id}.json"


def _to_json(sign: Sign, **more: Any) -> bytes:
    raw = asdict(sign) | {"at": sign.at.isoformat(), "started_at": sign.started_at.isoformat()} | more
    told = redact_values({k: v for k, v in raw.items() if k not in ("seen_at", "silent")}, names=False)
    return json.dumps(told).encode()


class Heartbeat(Reporter):
    """Passes on what a run reports, and gives signs of it meanwhile, on a thread of its own:

    with Heartbeat(reporter, storage, run_id=..., pipeline=..., host=..., started_at=...) as reporter: ...
    """

    def __init__(self, reporter: Reporter, storage: Storage, **about: Any) -> None:
        self._reporter, self._storage, self._about = reporter, storage, about
        self._progress = Progress()
        self._said = ""
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def update(self, progress: Progress) -> None:
        self._progress = progress
        self._reporter.update(progress)

    def say(self, message: str, **fields: Any) -> None:
        self._said = f"{datetime.now(UTC):%H:%M:%S} {redact(message)}"
        self._reporter.say(message, **fields)

    def sign(self, progress: Progress, **more: Any) -> None:
        """Gives one, now. Raises where it cannot be written."""
        sign = Sign(at=datetime.now(UTC), progress=progress, said=self._said, **self._about)
        self._storage.put(_key(sign.run_id), _to_json(sign, **more))

    def _beat(self) -> None:
        first = True
        while not self._ended.is_set():
            progress = replace(self._progress, elapsed_s=time.monotonic() - self._began)
            with suppress(VidprocError):  # a run does not fail for want of a spectator
                self.sign(progress)
                if first:
                    self._forget_the_dead()
                first = False
            self._reporter.update(progress)  # time goes on also while nothing ends
            self._ended.wait(EVERY_S)

    def _forget_the_dead(self) -> None:
        there = {item.key: item.modified_at for item in self._storage.list(f"{FOLDER}/")}
        now = there.get(_key(self._about["run_id"]))  # just written
        if now is not None:
            self._storage.delete([key for key, at in there.items() if (now - at).total_seconds() > FORGOTTEN_S])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(EVERY_S)  # a put that hangs must not hold the run's end up
        with suppress(VidprocError):  # `end` removes it, when the run's row says how it ended
            self.sign(self._progress, ended=True)
