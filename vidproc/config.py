"""The earlier name of `vidproc.settings`, for scripts that ask `python -m vidproc.settings` for a job's JSON Schema."""

from __future__ import annotations

from vidproc.settings import *  # noqa: F403
from vidproc.settings import print_schema

if __name__ == "__main__":
    print_schema()
