"""What a step is: the one small shape that everything which happens to a task shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one running copy of a step takes, declared to the scheduler, and its limits."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int = 1 << 30
    """What it is expected to use, declared to the scheduler."""
    memory_limit_bytes: int | None = None
    """Limit of the worker's private memory, enforced by its death; None: what is declared."""
    time_limit_s: float = 600.0
    """Enforced inside the worker by its death, not by good manners."""
    accelerator_type: str | None = None
    beside: bool = False
    """On a machine of our own it takes no CPU from the others, but runs beside them, one at a time: something short
    that others wait for, and that itself waits for storage much of its time."""


@runtime_checkable
class Step(Protocol[In_contra, Out_co]):
    """Cheap to build and to pickle; heavy only in `setup`, on the worker."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> Resources: ...

    @property
    def stateful(self) -> bool:
        """True: lives in a pool of actors which keep what `setup` loaded. False: any worker may run it."""

    def setup(self) -> None:
        """Once a worker: weights onto the device."""

    def __call__(self, item: In_contra, /) -> Out_co: ...


AnyStep = Step[Any, Any]
