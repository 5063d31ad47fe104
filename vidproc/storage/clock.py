"""The clock of a store: what an object says that was just written.

Whether something in a lake is old, or a run silent, is asked of this clock alone. The clocks of the
machines that share the lake may be minutes or days apart, and a suspended machine's clock stands still.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from vidproc.storage import Storage

FOLDER = "_clock"


def store_now(storage: Storage) -> datetime:
    """The time (UTC) by which the store dates its objects. Raises ConfigError where nothing may be written."""
    key = f"{FOLDER}/{uuid.uuid4().hex}"
    storage.put(key, b"")
    try:
        return next(item.modified_at for item in storage.list(key))
    finally:
        storage.delete([key])
