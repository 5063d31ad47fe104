"""What steps ask of a cluster, in Ray's names, and what its nodes have."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import ray

from vidproc.errors import ConfigError
from vidproc.runtime.events import said
from vidproc.runtime.step import AnyStep, Resources

NO_PLACE = "the cluster has no such node yet"
BESIDE = "vidproc_beside"
"""A resource of a Ray of our own: one call of a step that runs beside the others."""


def now_utc() -> datetime:
    return datetime.now(UTC)


def steps_of(routes: Mapping[str, Sequence[AnyStep]]) -> dict[str, AnyStep]:
    by_name: dict[str, AnyStep] = {}
    for step in itertools.chain.from_iterable(routes.values()):
        if by_name.setdefault(step.name, step) is not step:
            raise ConfigError(f"two different steps are named {step.name!r}")
    return by_name


def wants_of(needs: Resources) -> dict[str, float]:
    wants = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": float(needs.memory_bytes)}
    if needs.accelerator_type:
        wants[resource_of_type(needs.accelerator_type)] = (
            0.001  # of the 1 that each such node has: Ray's own convention
        )
    return {name: amount for name, amount in wants.items() if amount}


def resource_of_type(accelerator: str) -> str:
    """The resource by which Ray marks nodes with such GPUs."""
    return f"accelerator_type:{accelerator}"


def living_nodes() -> list[dict[str, float]]:
    """What each living node of the cluster has in all."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def fits_somewhere(needs: Resources, nodes: Iterable[Mapping[str, float]]) -> bool:
    wants = wants_of(needs)
    return any(all(node.get(name, 0.0) >= amount for name, amount in wants.items()) for node in nodes)


def options_of(needs: Resources, *, own: bool = False) -> dict[str, Any]:
    """`own`: for a Ray that we started."""
    options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "memory": needs.memory_bytes}
    if own and needs.beside:
        options |= {"num_cpus": 0, "resources": {BESIDE: 1}}
    if needs.accelerator_type:
        options["accelerator_type"] = needs.accelerator_type
    return options


def too_small(step: AnyStep) -> ConfigError:
    return ConfigError(
        f"this machine is too small for a worker of the step {step.name!r}, which asks for "
        f"{said(wants_of(step.needs))}: ask for less, or join a cluster (--address)"
    )
