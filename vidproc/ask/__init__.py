"""Answer questions to a lake: SQL that anybody may write, and a search for what is seen in the videos.

One question goes through these files in order:

  database  open a lake, choose its pipeline, ask
  guard     the first lock: read the statement's tree, refuse what does more than read the lake, and write the
            statement anew from the checked tree
  engine    the second lock: run only what a twin of the engine, which has no files and no network, plans as a
            reading of the lake's tables
  values    write each value exactly
  write     write an answer as a table for people, CSV, JSON or Parquet
  searching the same tables asked by options in place of SQL
  selecting rows by a condition, or by a SELECT
  scenes    what each row means: which video, where it is now, which moment, which boxes
"""

from __future__ import annotations

from vidproc.ask.database import ALL, PIPELINE, LakeDatabase, connect, connect_to
from vidproc.ask.searching import Hit, SearchQuery, search
from vidproc.ask.write import ROWS_SHOWN, Format, write_result

__all__ = [
    "ALL",
    "PIPELINE",
    "ROWS_SHOWN",
    "Format",
    "Hit",
    "LakeDatabase",
    "SearchQuery",
    "connect",
    "connect_to",
    "search",
    "write_result",
]
