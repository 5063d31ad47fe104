"""The figures of a run that are counted while it goes on: their names, and a counter that forgets them."""

from __future__ import annotations

from typing import Protocol


class Metrics(Protocol):
    """Where the driver counts. One for Ray, one that forgets."""

    def count(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Adds to a counter; `value` is not negative."""

    def gauge(self, name: str, value: float, **tags: str) -> None:
        """How much there is just now."""


class NoMetrics:
    def count(self, name: str, value: float = 1.0, **tags: str) -> None: ...

    def gauge(self, name: str, value: float, **tags: str) -> None: ...


COUNTERS = {
    "vidproc_videos_total": ("Videos that ended, by status.", ("status",)),
    "vidproc_clips_total": ("Clips indexed.", ()),
    "vidproc_frames_total": ("Frames that models saw.", ()),
    "vidproc_failures_total": ("Attempts that failed, by class.", ("error_class",)),
    "vidproc_stage_seconds_total": ("Seconds spent inside a step, over all workers.", ("stage",)),
}
GAUGES = {
    "vidproc_queue_length": ("Units that wait, by stage.", ("stage",)),
    "vidproc_bytes_in_flight": ("Decoded frames between decoders and models, predicted bytes.", ()),
}
