"""Fields of label files, checked one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidproc.documents import load_json_file
from vidproc.errors import ConfigError


def load_json(path: Path) -> dict[str, Any]:
    data = load_json_file(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a label file is a mapping, this is a {type(data).__name__}.")
    return data


def as_mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: must be a mapping, not {str(value)[:80]!r}.")
    return value


def field_of(mapping: Any, key: str, where: str) -> Any:
    if key not in as_mapping(mapping, where):
        raise ConfigError(f"{where}: has no {key!r}.")
    return mapping[key]


def number_of(mapping: dict[str, Any], key: str, where: str, *, least: float) -> float:
    value = field_of(mapping, key, where)
    if not is_number(value) or not value >= least:
        raise ConfigError(f"{where}: {key} must be a number from {least:g}, not {value!r}.")
    return float(value)


def repeated(values: Sequence[Any]) -> list[Any]:
    """Return the values that occur earlier in the sequence too."""
    return [v for i, v in enumerate(values) if v in values[:i]]


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
