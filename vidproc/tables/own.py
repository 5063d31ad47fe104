"""Which of the jobs that a lake records were run by this user, on this machine.

A lake may come from anybody, and the job that it records names models, an archive, a store and a cluster: whoever wrote
the lake would choose what is read here, and with whose keys. So `index` leaves a mark of each job in the user's own
folder, and what would run a recorded job, or open its models, looks there first.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from vidproc.secrets import redact_json


def remember(job: str) -> None:
    """Marks the job, as JSON, for one that this user has run. Where the folder cannot be written nothing is marked: the
    user is asked then, later."""
    mark = _mark(redact_json(job))
    with suppress(OSError):
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.touch(mode=0o600)


def is_own(job: str) -> bool:
    """Whether the job, as `runs` has it, was run by this user."""
    return _mark(job).is_file()


def what_it_names(job: Any) -> str:
    """What would be read, asked or joined by a job, for whoever is to decide whether it may."""
    said = [f"reads {job.archive}"]
    said += [f"loads {m.weights or m.model}" for m in job.models.values() if m.model != "none"]
    said += [f"asks the store {job.storage.endpoint_url}"] if job.storage.endpoint_url else []
    said += [f"joins the cluster {job.execution.address}"] if job.execution.address else []
    return ", ".join(said)


def _mark(job: str) -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "vidproc" / "jobs" / hashlib.sha256(job.encode("utf-8", "surrogatepass")).hexdigest()
