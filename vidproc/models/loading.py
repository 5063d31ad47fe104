"""Load models, describe them without loading, and fetch their weights."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

from vidproc.errors import ConfigError
from vidproc.models.base import Model, ModelCard
from vidproc.models.fetching import reaching
from vidproc.models.foreign import foreign_format, refuse_foreign
from vidproc.models.recipe import FAMILIES, Recipe, card_of
from vidproc.models.registry import find_recipe, resolve_spec
from vidproc.models.settings import ModelSettings
from vidproc.models.user_class import checked_card, import_user_class, is_user_class, make_user_model, users_code
from vidproc.models.weights import Weights, read_weights

DEFAULTS = ModelSettings()


def load_model(
    spec: str, *, device: str = "auto", settings: ModelSettings = DEFAULTS, described: ModelCard | None = None
) -> Model:
    """The model behind a spec (see registry.py), its weights on the device. `described`: the card that
    describe_model gave for the same spec and settings; a model that is another by now is refused, since its rows
    would bear the wrong name.

    Raises ConfigError for what an operator must change: an unknown name, weights that are not here
    and cannot be fetched, are not the promised ones or do not fit, a device that is not there.
    """
    with reaching(settings.storage):
        model = _load(spec, device, settings)
    if described is not None and not is_user_class(spec):
        for what in ("weights_sha256", "labels", "definition"):
            if getattr(model.card, what) != getattr(described, what):
                raise ConfigError(
                    f"{model.card.name} is not the model that this run began with: its "
                    f"{what.replace('weights_sha256', 'weights')} changed since, or differ on this machine "
                    f"({described.ref} then, {model.card.ref} now). Start the run again."
                )
    return model


def _load(spec: str, device: str, settings: ModelSettings) -> Model:
    if device != "auto":
        settings = replace(settings, device=device)
    spec = _named(spec, settings)
    if spec == "demo" and settings.kind != "embedding":
        from vidproc.models import tiny

        return tiny.load(_demo_kind(settings), settings=settings)
    if is_user_class(spec):
        return make_user_model(spec, settings)
    recipe = find_recipe(spec, settings)
    family = "features" if recipe.kind == "embedding" else recipe.family
    return cast(Model, importlib.import_module(FAMILIES[family]).load(recipe, settings))


def describe_model(spec: str, settings: ModelSettings = DEFAULTS) -> ModelCard | None:
    """The card that load_model would give, without a network in memory or anything on a device.
    None where the spec stands for no model: `none`, or `auto` for actions without a GPU.

    The card names the sha256 of the weights, so a remote file is fetched into the cache here, as
    the run needs it anyway and a run that cannot have it is to be refused before work starts. A
    user's class may have a `describe(settings) -> ModelCard`; otherwise it is made and asked.
    """
    named = _resolve(spec, settings)
    if named is None:
        return None
    spec = named
    if spec == "demo" and settings.kind != "embedding":
        from vidproc.models import tiny

        return tiny.describe(_demo_kind(settings), settings)
    if is_user_class(spec):
        with users_code(spec):
            describe = getattr(import_user_class(spec), "describe", None)
            if describe is not None:
                return checked_card(spec, describe(settings), settings)
            return make_user_model(spec, replace(settings, device="cpu")).card
    recipe = find_recipe(spec, settings)
    with reaching(settings.storage):
        return card_of(recipe, _weights_of(recipe, check=True).sha256)


def _weights_of(recipe: Recipe, *, check: bool = False) -> Weights:
    """`check`: refuse here what can be seen to be of no use without loading it."""
    if recipe.family != "onnx":
        weights = read_weights(recipe.weights, recipe.sha256, model=recipe.name)
        if check:
            refuse_foreign(weights.path, foreign_format(weights.data))
        return weights
    onnx = importlib.import_module(FAMILIES["onnx"])
    weights = onnx.read(recipe)
    if check:
        onnx.check(recipe, weights)
    return cast(Weights, weights)


def _resolve(spec: str, settings: ModelSettings) -> str | None:
    if spec not in ("auto", "none"):
        return spec
    if settings.kind is None:
        raise ConfigError(
            f"{spec!r} may be a detector or an action model: say which kind is meant (--kind detector, --kind actions)."
        )
    return resolve_spec(spec, settings.kind, gpu=None if settings.device == "auto" else settings.device != "cpu")


def _named(spec: str, settings: ModelSettings) -> str:
    named = _resolve(spec, settings)
    if named is None:
        why = "none was asked for" if spec == "none" else "without a GPU, auto means none"
        raise ConfigError(f"There is no {settings.kind} model to load ({why}): name one.")
    return named


def _demo_kind(settings: ModelSettings) -> Literal["detector", "actions"]:
    if settings.kind not in ("detector", "actions"):
        raise ConfigError(
            "'demo' is a detector and an action model: say which kind is meant (--kind detector, --kind actions)."
        )
    return settings.kind


def fetch_model(spec: str, settings: ModelSettings = DEFAULTS) -> Path | None:
    """Brings a model's weights onto this machine and verifies them -> where they lie, or None
    where the model brings its own (demo, a user's class)."""
    spec = _named(spec, settings)
    if spec == "demo" or is_user_class(spec):
        return None
    with reaching(settings.storage):
        return _weights_of(find_recipe(spec, settings)).path
