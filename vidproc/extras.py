"""What `pip install vidproc` leaves out, and how a call that needs it says so.

The base installation reads lakes: status, query, search, upkeep. The extra `index` brings what decodes videos and runs
models on a cluster, the extra `learn` what trains and measures models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vidproc.errors import ConfigError

EXTRAS = dict.fromkeys(
    ("PIL", "av", "cv2", "matplotlib", "onnxruntime", "ray", "safetensors", "scipy", "supervision", "torch",
     "torchvision", "trackers"),
    "index",
) | dict.fromkeys(("faster_coco_eval", "motmetrics", "tensorboard"), "learn")  # fmt: skip
"""Module -> the extra that brings it."""


@contextmanager
def named_extras() -> Iterator[None]:
    """Within it, a module that an extra would bring is missed with a ConfigError that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        raise ConfigError(
            f"{missing} is not installed: this installation of vidproc holds what reading a lake needs. "
            f"Install the rest: pip install 'vidproc[{EXTRAS[missing]}]'"
        ) from error
