"""Keys of job files and model folders that have a new name. The old name is still read, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from vidproc.errors import ConfigError


class OldKeyWarning(FutureWarning):
    """A file uses the old name of a key."""


def with_new_names(
    values: Mapping[str, Any], new_names: Mapping[str, str], where: str, prefix: str = ""
) -> dict[str, Any]:
    """Return `values` with each old key replaced by its new name, in the same order, and warn of each.

    `new_names` maps old keys to new ones. `where` names the file and `prefix` the section, for messages. Raises
    ConfigError where a key stands there by both names.
    """
    for old, new in new_names.items():
        if old not in values:
            continue
        if new in values:
            raise ConfigError(
                f"{where}: {prefix}{old} and {prefix}{new} are one setting, by its old and its new name. Leave "
                f"{prefix}{old} out."
            )
        warnings.warn(
            f"{where}: {prefix}{old} is the old name of {prefix}{new}. Write {new}; the old name is still read.",
            OldKeyWarning,
            stacklevel=2,
        )
    return {new_names.get(key, key): value for key, value in values.items()}
