"""What a run leaves in the lake while it goes on, so that it can be watched from elsewhere.

    <lake>/_runs/<run_id>.json     written over every few seconds, removed when the run ends

A run that was killed leaves its last one behind; its time tells. Nothing else reads these objects.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Self

from vidproc.errors import VidprocError
from vidproc.progress import Progress, Reporter
from vidproc.storage import Storage, redact

FOLDER = "_runs"
EVERY_S = 5.0
SILENT_S = 60.0
"""A run without a sign for so long, twelve times what is usual, is taken to have died."""
FORGOTTEN_S = 24 * 3600.0
"""What a dead run left is removed by the next one after so long."""


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

    @property
    def silent(self) -> bool:
        """No sign for so long that the run must have been killed."""
        return (datetime.now(UTC) - self.at).total_seconds() > SILENT_S

    def line(self) -> str:
        if self.silent:
            return f"{self.run_id}: no sign since {self.at:%Y-%m-%d %H:%M:%S} UTC, killed? Run the same command again"
        return f"{self.run_id} on {self.host}: {self.progress.line()}"


def running(storage: Storage) -> list[Sign]:
    """Of each run that has not ended, as far as it was able to say so; the oldest first."""
    return sorted(_signs(storage), key=lambda sign: sign.started_at)


def _signs(storage: Storage) -> Iterator[Sign]:
    for item in storage.list(f"{FOLDER}/"):
        with suppress(VidprocError, ValueError, TypeError, KeyError):  # ended meanwhile, or another version's
            raw = json.loads(storage.get(item.key))
            known = {f.name for f in fields(Progress)}
            progress = Progress(**{k: v for k, v in raw.pop("progress").items() if k in known})
            names = {k: raw[k] for k in ("run_id", "pipeline", "host", "said")}
            started_at, at = (datetime.fromisoformat(raw[k]) for k in ("started_at", "at"))
            yield Sign(progress=progress, started_at=started_at, at=at, **names)


class Pulse(Reporter):
    """Passes on what a run reports, and gives signs of it meanwhile, on a thread of its own:

    with Pulse(reporter, storage, run_id=..., pipeline=..., host=..., started_at=...) as reporter: ...
    """

    def __init__(self, reporter: Reporter, storage: Storage, **about: Any) -> None:
        self._reporter, self._storage, self._about = reporter, storage, about
        self._key = f"{FOLDER}/{about['run_id']}.json"
        self._progress = Progress()
        self._said = ""
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def update(self, progress: Progress) -> None:
        self._progress = progress
        self._reporter.update(progress)

    def say(self, message: str, **fields: Any) -> None:
        self._said = f"{datetime.now(UTC):%H:%M:%S} {redact(message)}"
        self._reporter.say(message, **fields)

    def sign(self, progress: Progress) -> None:
        """Gives one, now. Raises where it cannot be written."""
        sign = Sign(at=datetime.now(UTC), progress=progress, said=self._said, **self._about)
        raw = asdict(sign) | {"at": sign.at.isoformat(), "started_at": sign.started_at.isoformat()}
        self._storage.put(self._key, json.dumps(raw).encode())

    def _beat(self) -> None:
        with suppress(VidprocError):
            old = time.time() - FORGOTTEN_S
            self._storage.delete([o.key for o in self._storage.list(f"{FOLDER}/") if o.modified_at.timestamp() < old])
        while not self._ended.is_set():
            progress = replace(self._progress, elapsed_s=time.monotonic() - self._began)
            with suppress(VidprocError):  # a run does not fail for want of a spectator
                self.sign(progress)
            self._reporter.update(progress)  # time goes on also while nothing ends
            self._ended.wait(EVERY_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(EVERY_S)  # a put that hangs must not hold the run's end up
        with suppress(VidprocError):
            self._storage.delete([self._key])
