"""What may be set, for people: the reference page jobs/README.md, and the help of the command line's options.

`python -m vidproc.reference` prints the page.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from vidproc.checked import fields_of, limits_of, section_of
from vidproc.settings import Job

INTRO = """\
# Job files

One YAML file says what `vidproc index` does. Here lie the ones for an ordinary life: `nightly.yaml`, `backfill.yaml`
(years of video, once), `reindex.yaml` (a new model beside the old answers), `one_video.yaml` (without Ray, to look
inside). Those for `vidproc train` are explained in [training.md](training.md).

    vidproc index --job jobs/nightly.yaml
    vidproc index ARCHIVE LAKE --job jobs/nightly.yaml --fps 4     # options win over the file
    vidproc plan --job jobs/nightly.yaml                           # what it would do

- Options win over the file, and the file wins over the defaults below. Only `archive` and `lake` must be given.
- `${NAME}` is filled in from the environment, `${NAME:-default}` with a default, as shells do it.
- A key that is not listed here is refused, with the nearest one that is.
- What decides about rows (models and what is said about them, `sampling`, `link`, `limits.max_frame_duration`) makes
  the pipeline's id: after a change everything is due again. Nothing else changes rows.
- Credentials have no place in a job file. They come from the AWS environment or a profile.
- `python -m vidproc.settings` prints the JSON Schema, for editors that check a file while it is written.

This page is made from vidproc/settings.py: `python -m vidproc.reference > jobs/README.md`.
"""

MODELS = ("detector", "actions", "embedding")
"""Sections of one class, explained once."""

WORDS: Mapping[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "number",
    Fraction: "number",
    datetime: "date and time",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting, as the page and the options' help say it."""

    key: str
    """Path in a job file: `limits.max_duration`."""
    value: str
    """What may be given: kind or unit, and limits."""
    default: str
    """Empty: nothing is set."""
    meaning: str


def entries(kind: Any = Job, prefix: str = "") -> Iterator[Entry]:
    """Every setting of a class of settings, those of its sections included, in order."""
    for name, field in fields_of(kind).items():
        key = prefix + name
        section = section_of(field.annotation)
        if fields_of(section):
            yield from entries(section, f"{key}.")
        else:
            yield Entry(key, _value(field), _default(field), field.description or "")


def entry(key: str) -> Entry:
    """The setting of that key. A key of a section that takes a short form, such as `detector`, is one too."""
    *sections, name = key.split(".")
    kind: Any = Job
    for section in sections:
        kind = section_of(fields_of(kind)[section].annotation)
    field = fields_of(kind)[name]
    return Entry(key, _value(field), _default(field), field.description or "")


def page() -> str:
    """The reference of all keys of a job file, as Markdown."""
    top = [e for e in (entry(name) for name in Job.model_fields) if not fields_of(section_of(_annotation(e.key)))]
    lines = [INTRO, *_table(top)]
    for name, field in Job.model_fields.items():
        section = section_of(field.annotation)
        if not fields_of(section) or name in MODELS[1:]:
            continue
        title = ", ".join(f"`{n}`" for n in (MODELS if name == MODELS[0] else (name,)))
        lines += ["", f"## {title}", "", *_about(name), "", *_table(entries(section, f"{name}."))]
    return "\n".join(lines) + "\n"


def _about(name: str) -> list[str]:
    if name != MODELS[0]:
        return [str(section_of(_annotation(name)).__doc__).replace("\n    ", "\n")]
    told = [f"- `{n}`: {e.meaning} By default `{e.default}`." for n in MODELS if (e := entry(n))]
    same = "The keys are those of `detector`; `actions` and `embedding` have the same."
    return [f"{section_of(_annotation(name)).__doc__}", "", *told, "", same]


def _annotation(key: str) -> Any:
    return Job.model_fields[key].annotation


def _table(entries: Iterable[Entry]) -> list[str]:
    return table((e.key, e.value, e.default, e.meaning) for e in entries)


def table(rows: Iterable[tuple[str, str, str, str]]) -> list[str]:
    """Lines of a Markdown table of settings: key, value, default, meaning."""
    cells = [("key", "value", "default", "meaning"), ("---",) * 4]
    cells += [(f"`{key}`", value, f"`{default}`" if default else "", meaning) for key, value, default, meaning in rows]
    return [f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |" for row in cells]


def _value(field: Any) -> str:
    unit: str = (field.json_schema_extra or {}).get("unit", "")
    limits = limits_of(field)
    said = unit or words(field.annotation)
    match limits:
        case {"ge": 0} if "le" not in limits:
            return str(said)
        case {"ge": least, "le": most}:
            return f"{said}, {least:g} to {most:g}"
        case {"ge": least}:
            return f"{said}, at least {least:g}"
        case {"gt": least}:
            return f"{said}, above {least:g}"
    return str(said)


def words(annotation: Any) -> str:
    """What may be given where the annotation stands, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(t) for t in inner if t is not type(None)))
    if origin is tuple:
        return f"list of {words(inner[0])}"
    if hasattr(annotation, "__metadata__"):
        return words(inner[0])
    if fields_of(annotation):
        return "text or section"
    return WORDS.get(annotation, "section")


def _default(field: Any) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    if hasattr(value, "model"):  # a section's short form
        value = value.model
    unit: str = (field.json_schema_extra or {}).get("unit", "")
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or value == () or value == {} or isinstance(value, BaseModel):
        return ""
    if unit in SPELT and (said := SPELT[unit](value)):
        return f"{value:.0f} ({said})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bytes(value: int) -> str:
    for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if value >= size:
            return f"{value / size:g} {name}"
    return ""


SPELT: Mapping[str, Callable[[Any], str]] = {
    "bytes": _bytes,
    "seconds": lambda value: f"{value / 86_400:g} days" if value >= 86_400 else "",
}
"""How a large default is said beside its number, by unit."""


if __name__ == "__main__":
    from vidproc.output import as_a_filter

    with as_a_filter():
        print(page(), end="")
