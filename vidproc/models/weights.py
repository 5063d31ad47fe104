"""Weights in memory: read once, verified always, never unpickled.

What is loaded is what was verified: `read_weights` reads a file once, and the bytes that were hashed are the
bytes that are parsed. Damaged weights end as a ConfigError, whatever is wrong with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vidproc.errors import ConfigError
from vidproc.models.fetching import expected_sha256, fetch, is_remote, read_weights_file


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A weights file in memory."""

    path: Path
    data: bytes
    """All of the file."""
    beside: Mapping[str, bytes] = field(default_factory=dict)
    """Other files that belong to it (an ONNX file's external data), by the names under which it asks for them."""

    @property
    def sha256(self) -> str:
        """Hash of the file, or of all files where others belong to it: `sha256sum FILE OTHERS | cut -c 1-64 |
        sha256sum`, the others in the order of their names."""
        digests = [
            hashlib.sha256(data).hexdigest() for data in (self.data, *(v for _, v in sorted(self.beside.items())))
        ]
        return (
            digests[0] if len(digests) == 1 else hashlib.sha256("".join(f"{d}\n" for d in digests).encode()).hexdigest()
        )


Beside = Callable[[Path, bytes], Mapping[str, bytes]]
"""The path and the content of a weights file -> the other files that belong to it."""


def read_weights(uri: str, sha256: str, *, model: str, beside: Beside | None = None) -> Weights:
    """The weights of `model` in memory, fetched if need be, with the promised sha256. Raises ConfigError."""
    path = fetch(uri, sha256, model=model) if is_remote(uri) else Path(uri)
    if not path.is_file():
        raise ConfigError(f"{model}: there is no weights file {uri}.")
    data = read_weights_file(path)
    weights = Weights(path, data, beside(path, data) if beside is not None else {})
    expected = expected_sha256(uri, sha256)
    if expected and not weights.sha256.startswith(expected):
        of = f" (with {', '.join(sorted(weights.beside))})" if weights.beside else ""
        raise ConfigError(
            f"The weights {path}{of} are not the promised ones: their sha256 is {weights.sha256}, "
            f"expected was {expected}."
        )
    return weights
