"""Actions from a handful of examples: class prototypes on the vectors of a frozen network.

Prototypes: Snell, Swersky and Zemel 2017 (arXiv 1703.05175). The vectors are centred and brought to
length 1 first, which Wang et al. 2019 (arXiv 1911.04623) found to be worth more than most of what was
built upon it. The second choice is a linear head (multinomial logistic regression).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
import yaml
from torch import Tensor, nn

from vidproc.decode import MediaLimits, Source
from vidproc.errors import ConfigError
from vidproc.learn.data import ClipData, Reader, normalise
from vidproc.learn.labels import Catalog, LabelledClip, read_kinetics, require_examples
from vidproc.learn.lake import open_rows
from vidproc.learn.networks import WEIGHTS
from vidproc.learn.train import tensor_bytes, write_model
from vidproc.models import describe_model
from vidproc.models.base import ModelCard
from vidproc.models.device import pick_device
from vidproc.models.families import load_network
from vidproc.models.features import clip_encoder
from vidproc.models.prototypes import Answer, FewShotNetwork
from vidproc.models.registry import ModelSettings, Recipe, find_recipe
from vidproc.models.weights import fetch, load_state_dict
from vidproc.storage import StorageOptions, open_storage

HeadName = Literal["prototypes", "linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShotSettings:
    examples: str
    """CSV: label, uri, start_s, end_s; 1 to 20 rows a class."""
    archive: str
    """Folder or s3:// prefix in which the uris lie."""
    backbone: str
    """A model folder or name (actions or images) whose features tell the classes apart."""
    out: str
    """The model folder to be."""
    name: str = "few-shot"
    head: HeadName = "prototypes"
    views: int = 3
    """Windows of each example; their mean vector stands for it."""
    ways: int = 5
    """Classes of an episode of the evaluation; fewer where there are fewer."""
    shots: int = 5
    """Examples a class of an episode; fewer where no example would be left to be asked for."""
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
    """None where the classes have one example each: nothing is left to ask for."""


def few_shot(settings: FewShotSettings, *, options: StorageOptions | None = None) -> FewShotReport:
    """Learns the classes of the CSV and leaves a model folder for `vidproc index --actions`."""
    catalog = Catalog.of(settings.archive, options)
    read = read_kinetics(Path(settings.examples), catalog)
    require_examples((c.class_id for c in read.clips), read.labels, settings.examples)
    if len(read.labels) < 2:
        raise ConfigError(f"{settings.examples}: holds one class, {read.labels[0]!r}; at least two can be told apart.")
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
    made = Recipe(
        name=settings.name,
        kind="actions",
        family="few-shot",
        labels=read.labels,
        grid=recipe.grid,
        weights=WEIGHTS,
        licence=recipe.licence,
        args={
            "encoder": {
                "family": recipe.family,
                "arch": recipe.arch,
                "args": dict(recipe.args),
                "kind": "embedding" if recipe.family == "features" else "actions",
                "labels": len(recipe.labels),
                "ref": card.ref,
            },
            "dimensions": vectors.shape[1],
        },
        preprocessing=recipe.preprocessing,
        score_threshold=0.0,
    )
    storage = open_storage(settings.out, options=options)
    whole = FewShotNetwork(network.cpu(), answer)
    report = FewShotReport(
        folder=storage.uri,
        labels=read.labels,
        examples={label: int((class_ids == i).sum()) for i, label in enumerate(read.labels)},
        evaluation=evaluation,
    )
    training: dict[str, Any] = {
        "name": settings.name,
        "backbone": card.ref,
        "head": settings.head,
        "seed": settings.seed,
    }
    training["examples"] = [
        {"label": read.labels[c.class_id], "uri": c.source.uri, "start_s": c.start_s, "end_s": c.end_s}
        for c in read.clips
    ]
    if evaluation is not None:
        training["evaluation"] = {f: getattr(evaluation, f) for f in evaluation.__dataclass_fields__}
    storage.put("training.yaml", yaml.safe_dump(training, sort_keys=False).encode())
    write_model(storage, made, tensor_bytes(whole))
    return report


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
    """float32 (len(clips), d): the mean vector over `views` windows of each."""
    encoder, device = clip_encoder(network), next(network.parameters()).device
    data = ClipData(clips, reader, recipe.grid, recipe.preprocessing)
    out = []
    with torch.inference_mode():
        for i in range(len(clips)):
            windows = torch.from_numpy(data.views(i, views)).permute(0, 1, 4, 2, 3)
            batch = normalise(windows, recipe.preprocessing).transpose(1, 2).contiguous()
            out.append(encoder.embed(batch.to(device)).float().mean(0).cpu())
    return torch.stack(out)


# Fitting: pure functions of vectors

TEMPERATURES = tuple(float(t) for t in np.geomspace(0.01, 3, 16))


def fit(vectors: Tensor, class_ids: np.ndarray, classes: int, head: HeadName = "prototypes") -> Answer:
    """Vectors float32 (n, d) with their classes int64 (n,) -> how to answer for a new vector."""
    mean = vectors.mean(0)
    z = nn.functional.normalize(vectors - mean, dim=1)
    ids = torch.from_numpy(np.asarray(class_ids, np.int64))
    weight, bias = (_prototypes if head == "prototypes" else _linear)(z, ids, classes)
    return Answer(mean, weight, bias)


def _prototypes(z: Tensor, ids: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    onehot = nn.functional.one_hot(ids, classes).float()
    counts = onehot.sum(0)
    sums = onehot.T @ z
    prototypes = sums / counts[:, None]
    temperature = _temperature(z, ids, sums, counts)
    return 2 * prototypes / temperature, -prototypes.square().sum(1) / temperature


def _temperature(z: Tensor, ids: Tensor, sums: Tensor, counts: Tensor) -> float:
    """What makes the scores honest: the most likely one when each example is asked of prototypes made
    without it. Classes with one example cannot be asked."""
    asked = torch.nonzero(counts[ids] > 1)[:, 0]
    if not len(asked):
        return 0.2
    distances = []
    for i in asked.tolist():
        c = ids[i]
        without = sums / counts[:, None]
        without[c] = (sums[c] - z[i]) / (counts[c] - 1)
        distances.append((z[i] - without).square().sum(1))
    d = torch.stack(distances)
    losses = [float(nn.functional.cross_entropy(-d / t, ids[asked])) for t in TEMPERATURES]
    return TEMPERATURES[int(np.argmin(losses))]


def _linear(z: Tensor, ids: Tensor, classes: int, decay: float = 1e-3) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(classes, z.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss: Tensor = nn.functional.cross_entropy(z @ weight.T + bias, ids) + decay * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
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
    asks for up to `queries` others. None where no class has two examples."""
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
        answer = fit(vectors[here], np.repeat(np.arange(ways), shots), ways, head)
        truth = np.repeat(np.arange(ways), [len(a) for a in asked])
        found = answer.logits(vectors[np.concatenate(asked)]).argmax(1).numpy()
        accuracies.append(float((found == truth).mean()))
    spread = float(np.std(accuracies, ddof=1)) if episodes > 1 else 0.0
    return Episodes(
        ways=ways,
        shots=shots,
        episodes=episodes,
        accuracy=float(np.mean(accuracies)),
        interval=1.96 * spread / episodes**0.5,
    )


# Labels for vectors that are there already


def relabel(
    lake: str,
    model: str,
    *,
    pipeline: str | None = None,
    top_k: int = 3,
    options: StorageOptions | None = None,
) -> pa.Table:
    """A few-shot model's answer for the lake's `embeddings` of its backbone: rows as those of `actions`
    (with uri beside video_id), without decoding anything. Raises ConfigError where the lake holds no
    vectors of that backbone."""
    with open_rows(lake, pipeline, options) as rows:
        parts = list(_answers(rows, model, top_k))
    return pa.concat_tables(parts)


def _answers(rows: Any, model: str, top_k: int) -> Iterator[pa.Table]:
    settings = ModelSettings(kind="actions", device="cpu")
    recipe = find_recipe(model, settings)
    if recipe.family != "few-shot":
        raise ConfigError(f"{model} is no few-shot model, so there is no telling its answer from vectors.")
    state = load_state_dict(fetch(recipe.weights, recipe.sha256, model=recipe.name))
    answer = Answer(state["mean"], state["weight"], state["bias"])
    card = describe_model(model, settings)
    assert card is not None
    ref = str(recipe.args["encoder"].get("ref", ""))
    backbone = rows.model("embeddings", ref)
    top_k = min(top_k, len(recipe.labels))
    for video_id, uri in sorted(rows.uris.items()):
        table = rows.rows(
            "SELECT start_s, end_s, embedding FROM embeddings WHERE video_id = $video AND pipeline = $pipeline "
            "AND model = $model ORDER BY start_s",
            video=video_id,
            model=backbone,
        )
        n = table.num_rows
        vectors = torch.tensor(np.array(table["embedding"].to_pylist(), np.float32).reshape(n, -1))
        if n and vectors.shape[1] != len(answer.mean):
            raise ConfigError(
                f"{rows.lake.uri}: vectors of {vectors.shape[1]} values, {model} wants {len(answer.mean)}."
            )
        scores, best = (
            answer.logits(vectors).softmax(1).topk(top_k)
            if n
            else (torch.zeros(0, top_k), torch.zeros(0, top_k, dtype=torch.long))
        )
        rank = np.tile(np.arange(1, top_k + 1, dtype=np.int32), n)
        class_id = best.flatten().numpy().astype(np.int32)
        yield pa.table(
            {
                "video_id": pa.array([video_id] * (n * top_k), pa.string()),
                "uri": pa.array([uri] * (n * top_k), pa.string()),
                "pipeline": pa.array([rows.pipeline] * (n * top_k), pa.string()),
                "model": pa.array([card.ref] * (n * top_k), pa.string()),
                "start_s": pa.array(np.repeat(table["start_s"].to_numpy(), top_k), pa.float64()),
                "end_s": pa.array(np.repeat(table["end_s"].to_numpy(), top_k), pa.float64()),
                "label": pa.array([recipe.labels[i] for i in class_id], pa.string()),
                "class_id": pa.array(class_id),
                "score": pa.array(scores.flatten().numpy().astype(np.float32)),
                "rank": pa.array(rank),
            }
        )
