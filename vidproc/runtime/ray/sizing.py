"""How many actors each pool may have. Pure: no clock, no cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vidproc.runtime.step import Resources


@dataclass(frozen=True, slots=True)
class Room:
    """What the whole cluster has, as it is now."""

    cpus: float
    gpus: float
    memory_bytes: float
    gpus_of_type: Mapping[str, float] = field(default_factory=dict)
    """The same GPUs, by accelerator type."""


def share(
    needs: Mapping[str, Resources], maxima: Mapping[str, int | None], room: Room, task_cpus: float
) -> dict[str, int]:
    """By pool: the most actors for which there is room, one at least.

    `needs`: by pool, of one actor. `maxima`: by pool, None: as many as there is room for, but CPU
    actors leave half of the CPUs to the tasks. `task_cpus`: kept free always, or the tasks that
    feed the actors could never run.

    Every pool gets its first actor before any gets a second, so two pools that share the GPUs never
    leave each other waiting. The first is given even where there is no room: it will wait, and an
    autoscaler sees that it does.
    """
    free = replace(room, cpus=room.cpus - task_cpus)
    half = replace(free, cpus=min(free.cpus, room.cpus / 2))
    sizes = dict.fromkeys(needs, 1)
    growing = set(needs)
    while growing:
        for name in sorted(growing):
            trial = {**sizes, name: sizes[name] + 1}
            most = maxima.get(name)
            within = half if most is None and not needs[name].gpus else free
            if (most is not None and trial[name] > most) or not _fits(needs, trial, within):
                growing.discard(name)
            else:
                sizes = trial
    return sizes


def _fits(needs: Mapping[str, Resources], sizes: Mapping[str, int], room: Room) -> bool:
    return (
        sum(needs[n].cpus * k for n, k in sizes.items()) <= room.cpus + 1e-6
        and sum(needs[n].gpus * k for n, k in sizes.items()) <= room.gpus + 1e-6
        and sum(needs[n].memory_bytes * k for n, k in sizes.items()) <= room.memory_bytes
        and all(
            sum(needs[n].gpus * k for n, k in sizes.items() if needs[n].accelerator_type == kind)
            <= room.gpus_of_type.get(kind, 0.0) + 1e-6
            for kind in {needs[n].accelerator_type for n in sizes}
            if kind is not None
        )
    )
