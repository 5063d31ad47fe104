"""What the torch models share: the device, 16-bit arithmetic, and batches that shrink when memory is short."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vidproc.errors import ConfigError, TransientError
from vidproc.machine import cpu_count
from vidproc.models.settings import ModelSettings

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

MOST_ITEMS = 32
"""A pass, however small they are: the fixed cost of a pass is spread thin by then."""


def pick_device(name: str) -> torch.device:
    """auto, cpu, cuda or cuda:N -> the device. Raises ConfigError where there is no such one."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise ConfigError(f"The device must be auto, cpu, cuda or cuda:N, not {name!r}.")
    if int(number or 0) >= count:
        have = f"cuda:0 to cuda:{count - 1}" if count else "no CUDA device"
        raise ConfigError(f"There is no device {name}: this machine has {have}. 'auto' takes what there is.")
    return torch.device("cuda", int(number or 0))


def use_threads(settings: ModelSettings) -> None:
    """torch's CPU threads are the whole process's: set only where the job says so, or where they are more than the
    CPUs that this process may use, since torch sees no quota of a container."""
    import torch

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    elif torch.get_num_threads() > cpu_count():
        torch.set_num_threads(cpu_count())


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 as it is, so that a quarter of the bytes of float32 cross to the device."""
    import warnings

    import torch

    with warnings.catch_warnings():
        # Arrays of the shared-memory store are read-only, which torch cannot express; we only read.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.to(device, non_blocking=True)


def pixels_at_once(device: torch.device) -> int:
    """Pixels a forward pass that keep a device busy without filling it."""
    return 32_000_000 if device.type == "cuda" else 1_000_000


class Batches:
    """Runs a function over slices of at most `size` items, or of about `pixels` where no size is
    given, and over smaller ones from then on where the device's memory did not hold them."""

    def __init__(self, size: int | None, pixels: int = 1_000_000) -> None:
        self.size = size
        self._pixels = pixels

    def run(self, items: np.ndarray, infer: Callable[[np.ndarray], T]) -> list[tuple[int, T]]:
        """(start, result) of each slice of `items` (n, ..., h, w, 3), in order. Raises
        TransientError if not even one item fits into the device's memory."""
        import torch

        out: list[tuple[int, T]] = []
        start = 0
        size = self.size or max(1, min(MOST_ITEMS, self._pixels // max(1, math.prod(items.shape[1:-1]))))
        while start < len(items):
            try:
                out.append((start, infer(items[start : start + size])))
            except torch.OutOfMemoryError as e:
                if size == 1:
                    raise TransientError(f"The device's memory does not hold one item of {items.shape[1:]}.") from e
                self.size = size = size // 2
                torch.cuda.empty_cache()
                continue
            start += size
        return out


def half_dtype(device: torch.device, settings: ModelSettings) -> torch.dtype | None:
    """The 16-bit type in which scores are computed on a device; None: float32."""
    import torch

    if not settings.half or device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def in_half(module: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """`module` computing under autocast, its results back in float32."""
    import torch

    class InHalf(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *args: Any) -> Any:
            with torch.autocast(device.type, dtype):
                return _to_float32(self.module(*args))

    return InHalf()


def _to_float32(value: Any) -> Any:
    if isinstance(value, dict):
        return type(value)((k, _to_float32(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(_to_float32(v) for v in value)
    return value.float() if hasattr(value, "float") else value
