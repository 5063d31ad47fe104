"""Where choices come from: a seed, or hypothesis."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Draw(Protocol):
    def pick(self, options: Sequence[T]) -> T: ...

    def between(self, low: int, high: int) -> int:
        """Both ends included."""

    def flip(self) -> bool: ...


class Seeded:
    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)

    def pick(self, options: Sequence[T]) -> T:
        return self._random.choice(options)

    def between(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def flip(self) -> bool:
        return self._random.random() < 0.5


class Hypothetical:
    """Choices of `hypothesis`, which makes a failing file smaller: earlier options count as simpler."""

    def __init__(self, data: Any) -> None:
        from hypothesis import strategies as st

        self._draw, self._st = data.draw, st

    def pick(self, options: Sequence[T]) -> T:
        found: T = self._draw(self._st.sampled_from(list(options)))
        return found

    def between(self, low: int, high: int) -> int:
        return int(self._draw(self._st.integers(low, high)))

    def flip(self) -> bool:
        return bool(self._draw(self._st.booleans()))
