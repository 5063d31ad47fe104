"""Events that a run sends to its listeners. A listener is any callable that takes an event. It is called on the
driver, between two steps of the loop, so it should be quick and must not raise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from vidproc.runtime.retry import Fault
from vidproc.runtime.units import Unit


@dataclass(frozen=True, slots=True)
class UnitStarted:
    """A unit was admitted: its first step runs, or waits for a worker."""

    unit: Unit
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    unit: Unit
    fault: Fault
    """Stage, class, sentence, traceback and host."""
    attempt: int
    """From 1, over all runs: those in `unit.attempts_before` count."""
    blamed: bool
    """True: it counted as a strike against the unit. False: a passing or permanent failure."""
    again_in_s: float | None
    """Seconds until the next attempt; None: given up."""
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupFailed:
    """An actor did not come up. After a few in a row the run stops."""

    step: str
    fault: Fault
    in_a_row: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolWaiting:
    """A pool has no actor yet: the cluster has no room for one, or it is still loading."""

    step: str
    waited_s: float
    wants: dict[str, float]
    """What one actor needs, by Ray's names: CPU, GPU, memory in bytes, accelerator_type:L4."""
    why: str
    at: datetime


def said(wants: Mapping[str, float]) -> str:
    """{"CPU": 2, "GPU": 0.5, "memory": 4e9, "accelerator_type:L4": 0.001} -> 2 CPU, 0.5 GPU, 4.0 GB, L4"""
    parts = []
    for name, amount in wants.items():
        _, _, kind = name.partition("accelerator_type:")
        parts.append(kind or (f"{amount / 1e9:.1f} GB" if name == "memory" else f"{amount:g} {name}"))
    return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolChanged:
    step: str
    ready: int
    starting: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterJoined:
    """The work runs on a cluster, not on a Ray of our own."""

    address: str
    travels: str
    """What is sent to its nodes: files, packages, variables, in words."""
    at: datetime


Event = UnitStarted | AttemptFailed | SetupFailed | PoolWaiting | PoolChanged | ClusterJoined
Listener = Callable[[Event], None]
