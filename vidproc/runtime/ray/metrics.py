"""A run's figures through Ray's metrics, where Prometheus finds them (Ray puts `ray_` before each name)."""

from __future__ import annotations

from typing import Any

from vidproc.runtime.metrics import COUNTERS, GAUGES


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
