"""A run's figures through Ray's metrics, where Prometheus finds them (Ray puts `ray_` before each name)."""

from __future__ import annotations

from typing import Any, Protocol


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


class RayMetrics:
    """Made when Ray runs; each metric at its first use."""

    def __init__(self, pipeline: str) -> None:
        self._made: dict[str, Any] = {}
        self._pipeline = pipeline

    def count(self, name: str, value: float = 1.0, **tags: str) -> None:
        if value > 0:
            self._metric(name).inc(value, tags | {"pipeline": self._pipeline})

    def gauge(self, name: str, value: float, **tags: str) -> None:
        self._metric(name).set(value, tags | {"pipeline": self._pipeline})

    def _metric(self, name: str) -> Any:
        if name not in self._made:
            from ray.util.metrics import Counter, Gauge

            kind, known = (Counter, COUNTERS) if name in COUNTERS else (Gauge, GAUGES)
            description, tags = known[name]
            self._made[name] = kind(name, description, (*tags, "pipeline"))
        return self._made[name]
