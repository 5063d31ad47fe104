"""The order in which the examples of an epoch are seen, and their batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Balance = Literal["none", "sample", "loss"]


def epoch_order(
    class_ids: NDArray[np.int64], *, seed: int, epoch: int, balanced: bool, rank: int = 0, world: int = 1
) -> list[int]:
    """Return the examples that one worker sees in one epoch, in order. Each worker sees equally many.

    `balanced` draws with replacement, so that each class is seen equally often. Otherwise each example is seen once,
    except for the few that fill up the last round of workers.
    """
    rng = np.random.default_rng((seed, epoch))
    n = len(class_ids)
    if balanced:
        counts = np.bincount(class_ids)
        weight = 1.0 / counts[class_ids]
        order = rng.choice(n, n, p=weight / weight.sum())
    else:
        order = rng.permutation(n)
    order = np.resize(order, -(-n // world) * world)
    return [int(i) for i in order[rank::world]]


def batches(order: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield batches of `size`. A last example that would be alone joins the batch before it: no batch norm can be
    trained on one value (SSDlite's last ones see one cell of each image)."""
    starts = list(range(0, len(order), size))
    if size > 1 and len(starts) > 1 and starts[-1] == len(order) - 1:
        starts.pop()
    for start, end in pairwise([*starts, len(order)]):
        yield list(order[start:end])
