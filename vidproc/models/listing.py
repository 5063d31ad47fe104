"""The models known by name, for `vidproc models list`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vidproc.models.fetching import expected_sha256, locate
from vidproc.models.torchvision_recipes import torchvision_names, torchvision_recipe
from vidproc.settings import Kind


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
            licence=recipe.license,
            weights=recipe.weights,
            sha256=expected_sha256(recipe.weights, recipe.sha256),
            cached=locate(recipe.weights, recipe.sha256) is not None,
        )
