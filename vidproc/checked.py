"""Settings that check themselves when they are made, whoever makes them: a job file, an option or Python.

A class of settings is a frozen dataclass whose fields are declared with `setting`: default, meaning, unit and limits in
one place. The JSON Schema, the options' help and the reference page read them from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, dataclass_transform, get_args, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from vidproc.errors import ConfigError

S = TypeVar("S")

CONFIG = ConfigDict(extra="forbid", defer_build=True)
"""Unknown keys are refused. `defer_build`: importing the settings costs nothing until one is made."""


class SettingsError(ConfigError, ValueError):
    """Settings that cannot be. A ConfigError for who runs a job, a ValueError for who writes Python."""


class _Checked(type):
    def __call__(cls, *args: Any, **given: Any) -> Any:
        try:
            return super().__call__(*args, **given)
        except ValidationError as error:
            why = explain(error, cls, cls.__name__)
            raise SettingsError(f"{why}. jobs/README.md has the meaning and the limits of each.") from None


class Settings(metaclass=_Checked):
    """Base of all classes of settings. Making one raises SettingsError where a value is not allowed."""


@overload
def settings(cls: type[S], /) -> type[S]: ...
@overload
def settings(*, kw_only: bool = True) -> Callable[[type[S]], type[S]]: ...
@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(cls: Any = None, /, *, kw_only: bool = True) -> Any:
    """Make a frozen, checked dataclass of a subclass of Settings."""
    decorate: Any = dataclass(frozen=True, kw_only=kw_only, config=CONFIG)
    return decorate if cls is None else decorate(cls)


def setting(default: Any, meaning: str, *, unit: str | None = None, **limits: Any) -> Any:
    """One setting: its default, what it does, the unit of a number, and pydantic's limits such as `gt=0`. A class or a
    function as default stands for what it makes; `...` means that the setting must be given."""
    given = {"default_factory": default} if callable(default) else {"default": default}
    return Field(**given, description=meaning, json_schema_extra={"unit": unit} if unit else None, **limits)


def explain(error: ValidationError, kind: Any, source: str) -> str:
    """What is wrong, key by key, as one line that begins with `source`."""
    return f"{source}: " + "; ".join(_problem(found, kind) for found in error.errors(include_url=False))


def _problem(found: Any, kind: Any) -> str:
    path = [str(part) for part in found["loc"]]
    where = ".".join(path) or "job"
    if found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = list(fields_of(section_at(kind, path[:-1])))
        close = get_close_matches(path[-1], known, 1)
        return f"unknown key `{where}`" + (f", did you mean `{close[0]}`?" if close else f"; known: {', '.join(known)}")
    if found["type"] in ("missing", "missing_keyword_only_argument"):
        return f"`{where}` is missing"
    message: str = found["msg"].removeprefix("Value error, ")
    if not path:
        return message
    if found["type"] == "value_error":
        return f"`{where}`: {message}"
    field = fields_of(section_at(kind, path[:-1])).get(path[-1])
    return f"`{where}`: {message}, not {found['input']!r}{_advice(path[-1], limits_of(field))}"


def limits_of(field: Any) -> dict[str, Any]:
    """The limits of a number, such as `{"ge": 0, "le": 1}`."""
    names = ("ge", "gt", "le", "lt")
    return {n: getattr(m, n) for m in getattr(field, "metadata", ()) for n in names if getattr(m, n, None) is not None}


def _advice(name: str, limits: Mapping[str, Any]) -> str:
    match limits:
        case {"ge": least, "le": most}:
            return f"; give {name} a number between {least:g} and {most:g}"
        case {"ge": least}:
            return f"; give {name} a number of at least {least:g}"
        case {"gt": least}:
            return f"; give {name} a number above {least:g}"
    return ""


def fields_of(kind: Any) -> Mapping[str, Any]:
    """pydantic's fields of a class of settings, by name, in order."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_fields
    if is_dataclass(kind):
        known: Mapping[str, Any] = kind.__pydantic_fields__  # type: ignore[union-attr]
        return {f.name: known[f.name] for f in fields(kind)}
    return {}


def section_at(kind: Any, path: list[str]) -> Any:
    """The class of settings under these keys of `kind`."""
    for key in path:
        kind = section_of(fields_of(kind)[key].annotation) if key in fields_of(kind) else kind
    return kind


def section_of(annotation: Any) -> Any:
    """The class of settings in an annotation such as `Pool | None`; the annotation itself where there is none."""
    return next((t for t in (annotation, *get_args(annotation)) if fields_of(t)), annotation)
