"""What the families of networks share: from a recipe to a network with weights, and to its features."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from vidproc.errors import ConfigError
from vidproc.models.actions import TorchActions
from vidproc.models.device import pick_device
from vidproc.models.recipe import FAMILIES, Recipe, card_of
from vidproc.models.settings import ModelSettings
from vidproc.models.tensors import network_with
from vidproc.models.weights import read_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

S = TypeVar("S")


class ClipEncoder(Protocol):
    """A network that turns clips into vectors."""

    def embed(self, clips: Tensor) -> Tensor:
        """Normalised clips float (n, 3, t, h, w) -> float (n, d)."""


def settings_from(kind: type[S], recipe: Recipe, default: S | None = None) -> S:
    """The recipe's `args` as a settings dataclass. Raises ConfigError for an unknown one."""
    known = [f.name for f in fields(cast(Any, kind))]
    if unknown := [k for k in recipe.args if k not in known]:
        raise ConfigError(f"{recipe.name}: unknown args {', '.join(unknown)}; known are {', '.join(known)}.")
    values: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in recipe.args.items()}
    return cast(S, replace(cast(Any, default), **values)) if default is not None else kind(**values)


Fill = Callable[[Any, Mapping[str, Any], Path], None]


def build_network(recipe: Recipe) -> nn.Module:
    """Any torch family's network with random weights."""
    family = importlib.import_module(FAMILIES[recipe.family])
    if not hasattr(family, "build"):
        raise ConfigError(
            f"{recipe.name}: a model of the family {recipe.family} is no network that torch could change."
        )
    return cast("nn.Module", family.build(recipe))


def load_network(recipe: Recipe) -> nn.Module:
    """The same with its verified weights. Raises ConfigError where the weights are another architecture's."""
    return load_verified(recipe)[0]


def load_verified(
    recipe: Recipe, build: Callable[[Recipe], Any] | None = None, fill: Fill | None = None
) -> tuple[nn.Module, str]:
    """A network with its weights, and their sha256. `fill`: how a state dict gets in, for families that know other
    names for the same tensors."""
    weights = read_weights(recipe.weights, recipe.sha256, model=recipe.name)
    put = fill or getattr(importlib.import_module(FAMILIES[recipe.family]), "fill", None)
    network = network_with(
        weights,
        lambda: (build or build_network)(recipe),
        model=recipe.name,
        arch=recipe.arch or recipe.family,
        put=(lambda made, state: put(made, state, weights.path)) if put is not None else None,
    )
    return cast("nn.Module", network.eval()), weights.sha256


def load_actions(
    recipe: Recipe, settings: ModelSettings, build: Callable[[Recipe], Any], fill: Fill | None = None
) -> TorchActions:
    """An action model of a network whose input is (n, 3, t, h, w) and whose output are logits."""
    device = pick_device(settings.device)
    network, sha256 = load_verified(recipe, build, fill)
    return TorchActions(recipe, card_of(recipe, sha256), network, device, settings)
