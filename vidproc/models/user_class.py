"""Models that a user brings as a class: `package.module:Class`."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from vidproc.errors import ConfigError, VidprocError
from vidproc.models.base import Model, ModelCard
from vidproc.models.recipe import did_you_mean
from vidproc.models.settings import ModelSettings


def is_user_class(spec: str) -> bool:
    """`package.module:Class`, and not a Windows path or a URL."""
    module, colon, name = spec.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def import_user_class(spec: str) -> Callable[[ModelSettings], Any]:
    """The class behind `package.module:Class`, found on PYTHONPATH or in the working directory."""
    module_name, _, class_name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last, so that nothing installed is shadowed
    try:
        module = importlib.import_module(module_name)
    except ImportError as e:
        itself = e.name is not None and f"{module_name}.".startswith(f"{e.name}.")
        hint = f": {module_name} must lie on PYTHONPATH or in {here}" if itself else ""
        raise ConfigError(f"The model {spec} cannot be imported ({e}){hint}.") from e
    try:
        found: Callable[[ModelSettings], Any] = getattr(module, class_name)
    except AttributeError:
        names = [n for n in vars(module) if isinstance(getattr(module, n), type)]
        raise ConfigError(
            f"{module.__name__} ({getattr(module, '__file__', '?')}) has no class {class_name!r}"
            f"{did_you_mean(class_name, names)}"
        ) from None
    return found


def make_user_model(spec: str, settings: ModelSettings) -> Model:
    made = import_user_class(spec)(settings)
    card = checked_card(spec, getattr(made, "card", None), settings)
    surface = {"detector": "detect", "actions": "classify", "embedding": "embed"}[card.kind]
    if not callable(getattr(made, surface, None)):
        raise ConfigError(
            f"{spec}: its card says {card.kind}, so it needs a method {surface} (see vidproc.models.base)."
        )
    return cast(Model, made)


@contextmanager
def users_code(spec: str) -> Iterator[None]:
    """Turn whatever a user's code raises into a ConfigError that names the line, before work starts.

    Not used by load_model: on a worker such a failure may pass, and is tried again.
    """
    try:
        yield
    except VidprocError:
        raise
    except Exception as e:
        last = traceback.extract_tb(e.__traceback__)[-1]
        where = "" if isinstance(e, SyntaxError) else f" ({last.filename}, line {last.lineno})"
        raise ConfigError(f"The model {spec} is at fault: it raised {type(e).__name__}: {e}{where}.") from e


def checked_card(spec: str, card: object, settings: ModelSettings) -> ModelCard:
    if not isinstance(card, ModelCard):
        raise ConfigError(f"{spec}: a model needs a `card`, a vidproc.models.ModelCard, not {type(card).__name__}.")
    if settings.kind is not None and card.kind != settings.kind:
        raise ConfigError(f"{spec}: its card says {card.kind}, but it was given as {settings.kind}.")
    return card
