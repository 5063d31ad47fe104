"""Actions from a handful of examples: class prototypes on the vectors of a frozen network.

Prototypes: Snell, Swersky and Zemel 2017 (arXiv 1703.05175). The vectors are centred and brought to
length 1 first, which Wang et al. 2019 (arXiv 1911.04623) found to be worth more than most of what was
built upon it, and distances are measured in units of the spread within classes (Mahalanobis, as Bateni et
al. 2020, arXiv 1912.03432). The second choice is a linear head (multinomial logistic regression).
Each window of an example counts for itself, since windows are what an index will ask about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vidproc.documents import dump_yaml
from vidproc.errors import ConfigError
from vidproc.learn.data.clips import ClipData, normalise
from vidproc.learn.data.reader import Reader
from vidproc.learn.labels.actions import read_kinetics
from vidproc.learn.labels.catalog import Catalog
from vidproc.learn.labels.splits import require_examples
from vidproc.learn.labels.values import ActionLabels, LabelledClip
from vidproc.learn.networks import WEIGHTS
from vidproc.learn.train.folder import tensor_bytes, write_model
from vidproc.models import describe_model
from vidproc.models.base import ModelCard
from vidproc.models.device import pick_device
from vidproc.models.families import load_network
from vidproc.models.features import clip_encoder
from vidproc.models.fetching import reaching
from vidproc.models.prototypes import Answer, FewShotNetwork
from vidproc.models.recipe import Recipe
from vidproc.models.registry import find_recipe
from vidproc.models.settings import ModelSettings
from vidproc.storage import StorageOptions, open_storage, signed
from vidproc.video.decode import MediaLimits, Source

HeadName = Literal["prototypes", "linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShotSettings:
    examples: str
    """CSV: label, uri, start_s, end_s; made for 1 to 20 rows a class, more are taken too."""
    archive: str
    """Folder or s3:// prefix in which the uris lie."""
    backbone: str
    """A model folder or name (actions or images) whose features tell the classes apart."""
    out: str
    """Where the model folder is written: a path or s3:// prefix."""
    name: str = "few-shot"
    head: HeadName = "prototypes"
    views: int = 4
    """Windows of each example, spread evenly over it."""
    ways: int = 5
    """Classes of an episode of the evaluation; fewer where there are fewer."""
    shots: int = 5
    """Examples of each class in an episode; fewer where none would be left to test with."""
    episodes: int = 200
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.head not in ("prototypes", "linear"):
            raise ConfigError(f"the head must be prototypes or linear, not {self.head!r}")
        if min(self.views, self.shots, self.episodes) < 1 or self.ways < 2:
            raise ConfigError(f"views, shots and episodes from 1, ways from 2: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """N-way K-shot accuracy."""

    ways: int
    shots: int
    episodes: int
    accuracy: float
    interval: float
    """Half the width of the 95 % confidence interval of the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShotReport:
    folder: str
    labels: tuple[str, ...]
    examples: dict[str, int]
    evaluation: Episodes | None
    """None where each class has one example: none is left to test with."""


def few_shot(settings: FewShotSettings, *, options: StorageOptions | None = None) -> FewShotReport:
    """Learn the classes of the CSV and leave a model folder for `vidproc index --actions`."""
    catalog = Catalog.of(settings.archive, options)
    read = read_kinetics(Path(settings.examples), catalog)
    require_examples((c.class_id for c in read.clips), read.labels, settings.examples)
    if len(read.labels) < 2:
        raise ConfigError(f"{settings.examples}: holds one class, {read.labels[0]!r}; at least two can be told apart.")
    with reaching(options):
        recipe, card, network = open_backbone(settings.backbone)
    reader = Reader(Source(options=options), MediaLimits())
    device = pick_device(settings.device)
    vectors = embed_clips(network.to(device), recipe, read.clips, reader, settings.views)
    class_ids = np.array([c.class_id for c in read.clips], np.int64)
    evaluation = evaluate_episodes(
        vectors,
        class_ids,
        ways=settings.ways,
        shots=settings.shots,
        episodes=settings.episodes,
        head=settings.head,
        seed=settings.seed,
    )
    answer = fit(vectors, class_ids, len(read.labels), settings.head)
    made = _few_shot_recipe(settings, recipe, card, read.labels, dimensions=vectors.shape[2])
    storage = open_storage(settings.out, options=signed(options))
    whole = FewShotNetwork(network.cpu(), answer)
    storage.put("training.yaml", dump_yaml(_training_card(settings, card, read, evaluation)))
    write_model(storage, made, tensor_bytes(whole))
    return FewShotReport(
        folder=storage.uri,
        labels=read.labels,
        examples={label: int((class_ids == i).sum()) for i, label in enumerate(read.labels)},
        evaluation=evaluation,
    )


def _few_shot_recipe(
    settings: FewShotSettings, backbone: Recipe, card: ModelCard, labels: tuple[str, ...], *, dimensions: int
) -> Recipe:
    """The description of the model: the backbone as its encoder, and the new labels."""
    return Recipe(
        name=settings.name,
        kind="actions",
        family="few-shot",
        labels=labels,
        grid=backbone.grid,
        weights=WEIGHTS,
        license=backbone.license,
        args={
            "encoder": {
                "family": backbone.family,
                "arch": backbone.arch,
                "args": dict(backbone.args),
                "kind": "embedding" if backbone.family == "features" else "actions",
                "labels": len(backbone.labels),
                "ref": card.ref,
            },
            "dimensions": dimensions,
        },
        preprocessing=backbone.preprocessing,
        score_threshold=0.0,
    )


def _training_card(
    settings: FewShotSettings, card: ModelCard, read: ActionLabels, evaluation: Episodes | None
) -> dict[str, Any]:
    """What training.yaml says: from which examples and which backbone the model was made."""
    training: dict[str, Any] = {
        "name": settings.name,
        "backbone": card.ref,
        "head": settings.head,
        "seed": settings.seed,
        "examples": [
            {"label": read.labels[c.class_id], "uri": c.source.uri, "start_s": c.start_s, "end_s": c.end_s}
            for c in read.clips
        ],
    }
    if evaluation is not None:
        training["evaluation"] = {f: getattr(evaluation, f) for f in evaluation.__dataclass_fields__}
    return training


def open_backbone(spec: str) -> tuple[Recipe, ModelCard, nn.Module]:
    """The network of a model spec as a clip encoder, and the card under which `index` stores its vectors."""
    settings = ModelSettings(kind="embedding", device="cpu")
    recipe = find_recipe(spec, settings)
    card = describe_model(spec, settings)
    assert card is not None, "an embedding model is never `none`"
    network = load_network(recipe if recipe.family == "features" else replace(recipe, kind="actions"))
    encoder = clip_encoder(network)
    assert isinstance(encoder, nn.Module)
    return recipe, card, encoder.eval()


def embed_clips(
    network: nn.Module, recipe: Recipe, clips: Sequence[LabelledClip], reader: Reader, views: int
) -> Tensor:
    """float32 (len(clips), views, d)."""
    encoder, device = clip_encoder(network), next(network.parameters()).device
    data = ClipData(clips, reader, recipe.grid, recipe.preprocessing)
    out = []
    with torch.inference_mode():
        for i in range(len(clips)):
            windows = torch.from_numpy(data.views(i, views)).permute(0, 1, 4, 2, 3)
            batch = normalise(windows, recipe.preprocessing).transpose(1, 2).contiguous()
            out.append(encoder.embed(batch.to(device)).float().cpu())
    return torch.stack(out)


# Fitting: pure functions of vectors

TEMPERATURES = tuple(float(t) for t in np.geomspace(0.01, 100, 25))
SHRINKAGE = 0.2
"""Weight of a sphere in the estimate of the spread within classes, 0 to 1. A handful of examples cannot tell all
directions apart.
On drawn scenes (5 ways, 5 shots, two sets of seeds) 0.03: 0.840 and 0.869, 0.1: 0.845 and 0.886,
0.3: 0.841 and 0.891, 0.7: 0.829 and 0.876, 1 (no metric at all): 0.784 and 0.822."""


def fit(vectors: Tensor, class_ids: np.ndarray, classes: int, head: HeadName = "prototypes") -> Answer:
    """Vectors float32 (n, v, d), v windows of each example, with their classes int64 (n,) -> a
    classifier of new vectors. Its scores are calibrated: the temperature is the one under which the right classes are
    most likely when each example is held out in turn."""
    ids = np.asarray(class_ids, np.int64)
    answer = _separate(vectors, ids, classes, head)
    asked = np.flatnonzero(np.bincount(ids, minlength=classes)[ids] > 1) if head == "prototypes" else ()
    if not len(asked):  # one example a class: none can be held out; or the head is calibrated by itself
        return answer
    logits = torch.cat([_without(vectors, ids, classes, head, int(i)).logits(vectors[int(i)]) for i in asked])
    truth = torch.from_numpy(ids[asked]).repeat_interleave(vectors.shape[1])
    losses = [float(nn.functional.cross_entropy(logits / t, truth)) for t in TEMPERATURES]
    temperature = TEMPERATURES[int(np.argmin(losses))]
    return replace(answer, weight=answer.weight / temperature, bias=answer.bias / temperature)


def _without(vectors: Tensor, ids: np.ndarray, classes: int, head: HeadName, i: int) -> Answer:
    others = np.arange(len(ids)) != i
    return _separate(vectors[others], ids[others], classes, head)


def _separate(vectors: Tensor, ids: np.ndarray, classes: int, head: HeadName) -> Answer:
    """As `fit`, at whatever temperature: enough to know which class is the likeliest."""
    flat = vectors.flatten(0, 1)
    mean = flat.mean(0)
    z = nn.functional.normalize(flat - mean, dim=1)
    each = torch.from_numpy(ids).repeat_interleave(vectors.shape[1])
    weight, bias = (_prototypes if head == "prototypes" else _linear)(z, each, classes)
    return Answer(mean, weight, bias)


def _prototypes(z: Tensor, ids: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    onehot = nn.functional.one_hot(ids, classes).float()
    prototypes = (onehot.T @ z) / onehot.sum(0)[:, None]
    apart = z - prototypes[ids]
    spread = apart.T @ apart / len(z)
    sphere = torch.eye(z.shape[1]) * (spread.trace() / z.shape[1])
    if not sphere[0, 0] > 0:  # one vector a class
        spread = sphere = torch.eye(z.shape[1])
    metric = (1 - SHRINKAGE) * spread + SHRINKAGE * sphere
    # -|z - p|^2 / 2 in that metric, but for what is the same for every class
    weight = torch.linalg.solve(metric, prototypes.T).T
    return weight, -(weight * prototypes).sum(1) / 2


def _linear(z: Tensor, ids: Tensor, classes: int, decay: float = 1e-3) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(classes, z.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = nn.functional.cross_entropy(z @ weight.T + bias, ids) + decay * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def evaluate_episodes(
    vectors: Tensor,
    class_ids: np.ndarray,
    *,
    ways: int = 5,
    shots: int = 5,
    episodes: int = 200,
    queries: int = 15,
    head: HeadName = "prototypes",
    seed: int = 0,
) -> Episodes | None:
    """The usual protocol: each episode draws `ways` classes, learns from `shots` examples of each, and
    asks for up to `queries` others; vectors float32 (n, v, d), the answer for an example is the mean over its
    windows. None where no class has two examples."""
    have = np.bincount(class_ids)
    enough = np.flatnonzero(have >= 2)
    if len(enough) < 2:
        return None
    ways = min(ways, len(enough))
    shots = min(shots, int(have[enough].min()) - 1)
    rng = np.random.default_rng(seed)
    accuracies = []
    for _ in range(episodes):
        support, asked = [], []
        for c in rng.choice(enough, ways, replace=False):
            members = rng.permutation(np.flatnonzero(class_ids == c))
            support.append(members[:shots])
            asked.append(members[shots : shots + queries])
        here = np.concatenate(support)
        answer = _separate(vectors[here], np.repeat(np.arange(ways), shots), ways, head)
        truth = np.repeat(np.arange(ways), [len(a) for a in asked])
        queried = vectors[np.concatenate(asked)]
        logits = answer.logits(queried.flatten(0, 1)).view(*queried.shape[:2], ways)
        found = logits.mean(1).argmax(1).numpy()
        accuracies.append(float((found == truth).mean()))
    spread = float(np.std(accuracies, ddof=1)) if episodes > 1 else 0.0
    return Episodes(
        ways=ways,
        shots=shots,
        episodes=episodes,
        accuracy=float(np.mean(accuracies)),
        interval=1.96 * spread / episodes**0.5,
    )
