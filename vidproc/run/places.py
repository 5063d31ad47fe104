"""The archive and the lake of a run: opened once, and refused before work starts where they cannot be."""

from __future__ import annotations

import os

from vidproc.errors import ConfigError
from vidproc.storage import Storage, is_s3, resolved_address
from vidproc.tables.lake import MARKER, Lake, stranger_in


def check_apart(archive: str, lake: str) -> None:
    """Refuse a lake whose files would be listed as videos, and an archive inside a lake."""
    a, b = resolved_address(archive), resolved_address(lake)
    if f"{b.rstrip('/')}/".startswith(f"{a.rstrip('/')}/"):
        raise ConfigError(f"the lake {lake} lies in the archive {archive}, where its files would be taken for videos: "
                          "give a place beside the archive")  # fmt: skip
    if f"{a.rstrip('/')}/".startswith(f"{b.rstrip('/')}/"):
        raise ConfigError(f"the archive {archive} lies in the lake {lake}: give the lake a place of its own")


def check_archive(archive: Storage, uri: str) -> None:
    """Refuse a lake as an archive. `uri`: as the job names it."""
    if archive.exists(MARKER):
        raise ConfigError(f"the archive {uri} is a lake itself: give the place of the videos")


def check_place(place: Storage, uri: str) -> None:
    """Refuse what is neither a lake nor an empty place, and make nothing yet. `uri`: as the job names it."""
    if place.exists(MARKER):
        Lake.at(place)
        return
    if not is_s3(uri) and not os.path.isdir(uri):
        return
    if (stranger := stranger_in(place)) is not None:
        raise ConfigError(f"{uri} is not a lake, and not empty (there is {stranger!r}): give an empty or a new place")
