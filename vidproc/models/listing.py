"""The models known by name, for `vidproc models list`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from vidproc.models import catalog
from vidproc.models.fetching import expected_sha256, locate
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
    for kind, labels, sha256 in catalog.DEMO:
        yield ModelEntry(
            name="demo", kind=kind, labels=labels, licence="Apache-2.0",
            weights=f"package:vidproc/models/demo/{kind}.safetensors", sha256=sha256, cached=True,
        )  # fmt: skip
    if _torchvision() not in (catalog.TORCHVISION, None):
        yield from asked_of_torchvision()
        return
    for name, kind, labels, file in catalog.MODELS:
        yield _entry(name, kind, labels, catalog.LICENSES[kind], catalog.SOURCE + file, "")


def asked_of_torchvision() -> Iterator[ModelEntry]:
    """The models of the installed torchvision, by importing it."""
    from vidproc.models.torchvision_recipes import torchvision_names, torchvision_recipe

    for name in torchvision_names():
        recipe = torchvision_recipe(name)
        yield _entry(name, recipe.kind, len(recipe.labels), recipe.license, recipe.weights, recipe.sha256)


def _entry(name: str, kind: Kind, labels: int, licence: str, weights: str, known_sha256: str) -> ModelEntry:
    return ModelEntry(
        name=name, kind=kind, labels=labels, licence=licence, weights=weights,
        sha256=expected_sha256(weights, known_sha256), cached=locate(weights, known_sha256) is not None,
    )  # fmt: skip


def _torchvision() -> str | None:
    try:
        return ".".join(version("torchvision").split(".")[:2])
    except PackageNotFoundError:
        return None
