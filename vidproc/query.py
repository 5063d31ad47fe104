"""Questions to a lake: SQL that anybody may write, and a search for what is seen in the videos.

The public face of `vidproc.ask`, which says how it works.
"""

from __future__ import annotations

from vidproc.ask.database import ALL, PIPELINE, LakeDatabase, connect
from vidproc.ask.faults import streamed as _streamed
from vidproc.ask.faults import translated as _translated
from vidproc.ask.search import Hit, SearchQuery, search
from vidproc.ask.write import ROWS_SHOWN, Format, write_result

__all__ = [
    "ALL",
    "PIPELINE",
    "ROWS_SHOWN",
    "Format",
    "Hit",
    "LakeDatabase",
    "SearchQuery",
    "_streamed",
    "_translated",
    "connect",
    "search",
    "write_result",
]
