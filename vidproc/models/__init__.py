"""Models: detectors and action models, by name, by file, or of the user's own.

    model = load_model("auto", settings=ModelSettings(kind="detector"))
    detections = model.detect(frames)

Read base.py first (the two surfaces), then registry.py (what a name stands for), weights.py, and
the families: detector.py and actions.py (torchvision), onnx.py, tiny.py (the embedded pair).
"""

from __future__ import annotations

import importlib
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np

from vidproc.errors import ConfigError, VidprocError
from vidproc.media import Grid
from vidproc.models.base import ActionModel, Detector, EmbeddingModel, Model, ModelCard
from vidproc.models.files import foreign_format, refuse_foreign
from vidproc.models.registry import (
    FAMILIES,
    Kind,
    ModelSettings,
    Preprocessing,
    Recipe,
    card_of,
    find_recipe,
    import_user_class,
    is_user_class,
    resolve_spec,
    torchvision_names,
    torchvision_recipe,
)
from vidproc.models.weights import Weights, expected_sha256, locate, reaching, read_weights

__all__ = [
    "ActionModel",
    "Detector",
    "EmbeddingModel",
    "Kind",
    "Model",
    "ModelCard",
    "ModelCheck",
    "ModelEntry",
    "ModelSettings",
    "Preprocessing",
    "Recipe",
    "check_model",
    "describe_model",
    "fetch_model",
    "list_models",
    "load_model",
    "resolve_spec",
]

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
        return _user_model(spec, settings)
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
        with _users_code(spec):
            describe = getattr(import_user_class(spec), "describe", None)
            if describe is not None:
                return _checked_card(spec, describe(settings), settings)
            return _user_model(spec, replace(settings, device="cpu")).card
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


def _user_model(spec: str, settings: ModelSettings) -> Model:
    made = import_user_class(spec)(settings)
    card = _checked_card(spec, getattr(made, "card", None), settings)
    surface = {"detector": "detect", "actions": "classify", "embedding": "embed"}[card.kind]
    if not callable(getattr(made, surface, None)):
        raise ConfigError(
            f"{spec}: its card says {card.kind}, so it needs a method {surface} (see vidproc.models.base)."
        )
    return cast(Model, made)


@contextmanager
def _users_code(spec: str) -> Iterator[None]:
    """Around what a user wrote, before work starts: whatever it raises refuses the run in one sentence
    that names the line. Not in load_model: on a worker its failures may pass, and are tried again."""
    try:
        yield
    except VidprocError:
        raise
    except Exception as e:
        last = traceback.extract_tb(e.__traceback__)[-1]
        where = "" if isinstance(e, SyntaxError) else f" ({last.filename}, line {last.lineno})"
        raise ConfigError(f"The model {spec} is at fault: it raised {type(e).__name__}: {e}{where}.") from e


def _checked_card(spec: str, card: object, settings: ModelSettings) -> ModelCard:
    if not isinstance(card, ModelCard):
        raise ConfigError(f"{spec}: a model needs a `card`, a vidproc.models.ModelCard, not {type(card).__name__}.")
    if settings.kind is not None and card.kind != settings.kind:
        raise ConfigError(f"{spec}: its card says {card.kind}, but it was given as {settings.kind}.")
    return card


# For `vidproc models`


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A line of `vidproc models list`."""

    name: str
    kind: Kind
    labels: int
    """How many."""
    licence: str
    weights: str
    sha256: str
    """What is known of it without the file: all digits, or the first ones."""
    cached: bool
    """The weights are on this machine, whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCheck:
    """What `vidproc models check` found: the model loads and answers as its card says."""

    card: ModelCard
    load_seconds: float
    run_seconds: float
    """Of one forward pass over one grey frame or window, the first."""


def list_models() -> list[ModelEntry]:
    """Every model known by name. Reads and fetches nothing but what is cached."""
    return sorted(_entries(), key=lambda e: (e.kind, e.name))


def _entries() -> Iterator[ModelEntry]:
    from vidproc.models import tiny

    kinds: tuple[Literal["detector", "actions"], ...] = ("detector", "actions")
    for kind in kinds:
        card = tiny.describe(kind)
        yield ModelEntry(
            name="demo",
            kind=card.kind,
            labels=len(card.labels),
            licence=card.licence,
            weights=card.weights_uri,
            sha256=card.weights_sha256,
            cached=True,
        )
    for name in torchvision_names():
        recipe = torchvision_recipe(name)
        yield ModelEntry(
            name=name,
            kind=recipe.kind,
            labels=len(recipe.labels),
            licence=recipe.licence,
            weights=recipe.weights,
            sha256=expected_sha256(recipe.weights, recipe.sha256),
            cached=locate(recipe.weights, recipe.sha256) is not None,
        )


def fetch_model(spec: str, settings: ModelSettings = DEFAULTS) -> Path | None:
    """Brings a model's weights onto this machine and verifies them -> where they lie, or None
    where the model brings its own (demo, a user's class)."""
    spec = _named(spec, settings)
    if spec == "demo" or is_user_class(spec):
        return None
    with reaching(settings.storage):
        return _weights_of(find_recipe(spec, settings)).path


def check_model(spec: str, *, device: str = "auto", settings: ModelSettings = DEFAULTS) -> ModelCheck:
    """Loads a model and runs it once on grey. Raises ConfigError where its answer is not what its
    card promises."""
    with _users_code(spec) if is_user_class(spec) else nullcontext():
        return _checked_answer(spec, device, settings)


def _checked_answer(spec: str, device: str, settings: ModelSettings) -> ModelCheck:
    started = time.perf_counter()
    model = load_model(spec, device=device, settings=settings)
    loaded = time.perf_counter()
    card = model.card
    height, width = _example_size(card.grid)
    if card.kind == "detector":
        found = cast(Detector, model).detect(np.full((1, height, width, 3), 114, np.uint8))
        wrong = bool(len(found)) and (int(found.frame.max()) > 0 or int(found.class_id.max()) >= len(card.labels))
        answer = "boxes of frames or classes that there are not"
    elif card.kind == "embedding":
        vectors = cast(EmbeddingModel, model).embed(np.full((1, card.grid.window, height, width, 3), 114, np.uint8))
        wrong = vectors.ndim != 2 or len(vectors) != 1 or not np.isfinite(vectors).all()
        answer = f"vectors of shape {vectors.shape} for one window, or not finite"
    else:
        window = np.full((1, card.grid.window, height, width, 3), 114, np.uint8)
        scores = cast(ActionModel, model).classify(window)
        wrong = scores.shape != (1, len(card.labels)) or not (np.isfinite(scores).all() and 0 <= scores.min() <= 1)
        answer = f"scores of shape {scores.shape} for {len(card.labels)} labels, or not between 0 and 1"
    if wrong:
        raise ConfigError(f"{card.name} does not answer as its card says: it gave {answer}.")
    return ModelCheck(card=card, load_seconds=loaded - started, run_seconds=time.perf_counter() - loaded)


def _example_size(grid: Grid) -> tuple[int, int]:
    """Height and width of a 16:9 frame as the grid would have it."""
    size = grid.size
    if size.mode == "native":
        return 360, 640
    if size.mode == "fit":
        return min(size.height, round(size.width * 9 / 16)), min(size.width, round(size.height * 16 / 9))
    return size.height, size.width
