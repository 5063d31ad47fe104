"""The embedded action network as a family like the others: to be learned from, fine-tuned and explained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vidproc.errors import ConfigError
from vidproc.models.actions import TorchActions
from vidproc.models.families import load_actions
from vidproc.models.recipe import Preprocessing, Recipe
from vidproc.models.settings import ModelSettings
from vidproc.models.tensors import fill as fill_network
from vidproc.models.tiny import ACTIONS_GRID, ActionNet


def embedded_recipe() -> Recipe:
    """The recipe of `demo` for actions. Raises ConfigError where this installation lacks it."""
    folder = resources.files("vidproc.models") / "demo"
    try:
        description = json.loads((folder / "actions.json").read_text())
    except FileNotFoundError as e:
        raise ConfigError("The embedded action model is not in this installation: reinstall vidproc.") from e
    return Recipe(
        name="demo",
        kind="actions",
        family="embedded",
        labels=tuple(description["labels"]),
        args={"width": int(description["width"])},
        grid=ACTIONS_GRID,
        preprocessing=Preprocessing(divisor=1.0),
        weights=str(folder / "actions.safetensors"),
        sha256=description["sha256"],
        license="Apache-2.0",
        score_threshold=0.0,
    )


class EmbeddedActions(nn.Module):
    """Clips float (n, 3, t, h, w) from 0 to 255 -> logits (n, classes), without "none of these"."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.network = ActionNet(classes, width)

    def embed(self, clips: Tensor) -> Tensor:
        """(n, 8 * width): all that the last layer sees."""
        return self.network.features(self.network.frames(clips.transpose(1, 2)))

    def forward(self, clips: Tensor) -> Tensor:
        return self.network(clips.transpose(1, 2))[:, :-1]  # type: ignore[no-any-return]


def load(recipe: Recipe, settings: ModelSettings) -> TorchActions:
    return load_actions(recipe, settings, build, fill)


def build(recipe: Recipe) -> EmbeddedActions:
    """The network with random weights. `args`: width."""
    if unknown := set(recipe.args) - {"width"}:
        raise ConfigError(f"{recipe.name}: unknown args {', '.join(sorted(unknown))}; known is width.")
    return EmbeddedActions(len(recipe.labels), int(recipe.args.get("width", 24)))


def native_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The package's file names the tensors of ActionNet alone, and holds them in 16 bits."""
    return {
        k if k.startswith("network.") else f"network.{k}": v.float() if v.is_floating_point() else v
        for k, v in state.items()
    }


def fill(network: Any, state: Mapping[str, Tensor], path: Path) -> None:
    fill_network(network, native_state(state), model="demo", arch="the embedded action network", path=path)
