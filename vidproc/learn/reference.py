"""The reference page of training jobs, jobs/training.md, made from the classes of their settings and what stands there
about each field.

`python -m vidproc.learn.reference` prints the page.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

from vidproc.learn.train.settings import TrainSettings
from vidproc.reference import table, words

INTRO = """\
# Training jobs

One YAML file says what `vidproc train` does: `train_detector.yaml` and `train_actions.yaml` are examples, and
vidproc/learn/README.md tells how to train. A key that is not listed here is refused, with the nearest one that is.
Where no default is given, the key must be, or the model decides.

    vidproc train jobs/train_actions.yaml

This page is made from the settings' classes: `python -m vidproc.learn.reference > jobs/training.md`.
"""


def page() -> str:
    """The reference of all keys of a training job, as Markdown."""
    lines = [INTRO, *table(_rows(TrainSettings, ""))]
    for name, kind in _sections(TrainSettings):
        lines += ["", f"## `{name}`", "", inspect.cleandoc(kind.__doc__ or ""), "", *table(_rows(kind, f"{name}."))]
    return "\n".join(lines) + "\n"


def meanings(kind: type) -> dict[str, str]:
    """What stands below each field of a class in its source, by the field's name."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        told = below.value if isinstance(below, ast.Expr) else None
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(told, ast.Constant):
            found[field.target.id] = " ".join(str(told.value).split())
    return found


def _sections(kind: type) -> Iterator[tuple[str, type]]:
    hints = get_type_hints(kind)
    return ((f.name, hints[f.name]) for f in fields(kind) if is_dataclass(hints[f.name]))


def _rows(kind: type, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    hints, told, sections = get_type_hints(kind), meanings(kind), dict(_sections(kind))
    for field in fields(kind):
        if field.name not in sections:
            yield prefix + field.name, words(hints[field.name]), _default(field), told.get(field.name, "")


def _default(field: Field[Any]) -> str:
    if field.default in (MISSING, None, ()):
        return ""
    return str(field.default).lower() if isinstance(field.default, bool) else f"{field.default}"


if __name__ == "__main__":
    from vidproc.output import as_a_filter

    with as_a_filter():
        print(page(), end="")
