"""Tensors of weights files, read as a model reads them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from vidproc.models.tensors import state_dict_of
from vidproc.models.weights import read_weights


def load_state_dict(path: Path) -> dict[str, Tensor]:
    return state_dict_of(read_weights(str(path), "", model="test"))
