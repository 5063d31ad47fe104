"""The type of the `vidproc` fixture: the console script, run in the test's own process."""

from __future__ import annotations

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]
"""Arguments -> exit code, standard output, standard error."""
