"""Job files for learning: YAML into settings dataclasses; what is wrong is named by file and key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from vidproc.documents import read_document
from vidproc.errors import ConfigError
from vidproc.renamed import with_new_names
from vidproc.secrets import refuse_credentials_within

S = TypeVar("S")


def read_job(path: Path | str, kind: type[S], **over: Any) -> S:
    """Read a job file as `kind` (TrainSettings, ...). `over` overrides its values. Raises ConfigError."""
    values = read_document(path, "job file")
    refuse_credentials_within(values, f"{path}: ")
    return from_mapping(kind, {**values, **over}, str(path))


def from_mapping(kind: type[S], values: Mapping[str, Any], where: str, prefix: str = "") -> S:
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    values = with_new_names(values, getattr(kind, "OLD_NAMES", {}), where, prefix)
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f". Known: {', '.join(known)}."
            raise ConfigError(f"{where}: unknown key {prefix}{key}{hint}")
        hint_type = hints[key]
        if is_dataclass(hint_type):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: {prefix}{key} must be a mapping, not {value!r}.")
            made[key] = from_mapping(hint_type, value, where, f"{prefix}{key}.")  # type: ignore[arg-type]
            continue
        try:
            made[key] = TypeAdapter(hint_type).validate_python(value)
        except ValidationError as e:
            raise ConfigError(f"{where}: {prefix}{key}: {e.errors()[0]['msg']}, not {value!r}.") from e
    try:
        return kind(**made)
    except TypeError as e:
        missing = str(e).rpartition(":")[2].strip()
        raise ConfigError(f"{where}: {prefix.rstrip('.') or 'the job'} lacks {missing}.") from e
    except ConfigError as e:
        raise ConfigError(f"{where}: {e}") from e
