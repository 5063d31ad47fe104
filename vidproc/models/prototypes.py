"""Action models learned from a few examples: a frozen clip encoder, and a linear answer on its vectors.

Prototypical networks (Snell, Swersky and Zemel, NeurIPS 2017) answer by the squared Euclidean distance
to the mean vector of each class; as their section 2.4 shows, that is a linear answer too:
-|z - p|^2 = 2 p.z - |p|^2 - |z|^2, and the last term is the same for every class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from vidproc.errors import ConfigError
from vidproc.models.actions import TorchActions
from vidproc.models.families import build_network, load_actions
from vidproc.models.features import clip_encoder
from vidproc.models.recipe import Recipe
from vidproc.models.settings import ModelSettings

MAX_CLASSES = 100_000
"""Most labels of an encoder: several times those of the largest data sets."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """How vectors become scores. All float32."""

    mean: Tensor
    """(d,): taken away before each vector is brought to length 1 (Wang et al. 2019, arXiv 1911.04623)."""
    weight: Tensor
    """(classes, d)."""
    bias: Tensor
    """(classes,)."""

    def normalise(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors - self.mean, dim=1)

    def logits(self, vectors: Tensor) -> Tensor:
        """(n, d) -> (n, classes); their softmax is the score."""
        return nn.functional.linear(self.normalise(vectors), self.weight, self.bias)


class FewShotNetwork(nn.Module):
    """Normalised clips (n, 3, t, h, w) -> logits (n, classes)."""

    mean: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, encoder: nn.Module, answer: Answer) -> None:
        super().__init__()
        self.encoder = encoder
        for name in ("mean", "weight", "bias"):
            self.register_buffer(name, getattr(answer, name))

    @property
    def answer(self) -> Answer:
        return Answer(self.mean, self.weight, self.bias)

    def embed(self, clips: Tensor) -> Tensor:
        return cast(Any, self.encoder).embed(clips)  # type: ignore[no-any-return]

    def forward(self, clips: Tensor) -> Tensor:
        return self.answer.logits(self.embed(clips))


def answer_of(state: Mapping[str, Tensor], recipe: Recipe) -> Answer:
    """The answer alone out of a few-shot model's weights. Raises ConfigError where it does not fit the labels."""
    classes = len(recipe.labels)
    mean, weight, bias = (state.get(name) for name in ("mean", "weight", "bias"))
    if mean is None or weight is None or bias is None or mean.ndim != 1:
        raise ConfigError(f"{recipe.name}: the weights of a few-shot model hold mean, weight and bias.")
    if weight.shape != (classes, len(mean)) or bias.shape != (classes,):
        raise ConfigError(
            f"{recipe.name}: the weights are for {tuple(weight.shape)} classes and dimensions, and the description "
            f"has {classes} labels."
        )
    return Answer(mean.float(), weight.float(), bias.float())


def load(recipe: Recipe, settings: ModelSettings) -> TorchActions:
    return load_actions(recipe, settings, build)


def build(recipe: Recipe) -> FewShotNetwork:
    """The network with random weights. `args`: `encoder` (family, arch, args, labels: how many classes it
    was built for) and `dimensions` of its vectors."""
    try:
        encoder, d = dict(recipe.args["encoder"]), int(recipe.args["dimensions"])
        if not 0 < int(encoder["labels"]) <= MAX_CLASSES:
            raise ValueError(f"the encoder's labels must be 1 to {MAX_CLASSES:,}")
        inner = replace(
            recipe,
            family=encoder["family"],
            arch=encoder.get("arch", ""),
            args=encoder.get("args", {}),
            kind=encoder.get("kind", "actions"),
            labels=tuple(map(str, range(int(encoder["labels"])))),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise ConfigError(f"{recipe.name}: the args of a few-shot model are encoder and dimensions: {e!r}") from e
    classes = len(recipe.labels)
    answer = Answer(torch.zeros(d), torch.zeros(classes, d), torch.zeros(classes))
    return FewShotNetwork(cast(nn.Module, clip_encoder(build_network(inner))), answer)
