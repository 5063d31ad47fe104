"""How many actors each pool may have. Pure: no clock, no cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vidproc.step import Resources


@dataclass(frozen=True, slots=True)
class Room:
    """Of the whole cluster, as it is now."""

    cpus: float
    gpus: float
    memory_bytes: float


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
    free = Room(room.cpus - task_cpus, room.gpus, room.memory_bytes)
    half = Room(min(free.cpus, room.cpus / 2), free.gpus, free.memory_bytes)
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
    )
