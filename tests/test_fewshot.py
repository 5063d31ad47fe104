"""Few-shot: prototypes by the book, a model folder from a CSV, and labels for vectors without decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from tests.lakes import RUN, outcome
from tests.media import make_video
from vidproc.errors import ConfigError
from vidproc.learn.fewshot import FewShotSettings, evaluate_episodes, few_shot, fit, relabel
from vidproc.learn.networks import NetworkSettings, recipe_for
from vidproc.learn.train import tensor_bytes, write_model
from vidproc.media import Clip, DecodeReport, Task
from vidproc.models import load_model
from vidproc.models.families import build_network
from vidproc.models.registry import ModelSettings
from vidproc.storage import open_storage
from vidproc.tables.lake import Lake
from vidproc.tables.publish import publish
from vidproc.tables.rows import embeddings_table
from vidproc.tables.staging import Staging, TaskReport

COLOURS = {"red": (200, 40, 30), "green": (40, 180, 50), "blue": (30, 60, 210), "grey": (120, 120, 120)}


def clusters(classes: int, each: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (classes, 12)) + 3
    ids = np.repeat(np.arange(classes), each)
    return torch.tensor(centres[ids] + rng.normal(0, noise, (len(ids), 12)), dtype=torch.float32), ids


def test_the_answer_is_the_nearest_prototype() -> None:
    vectors, ids = clusters(4, 6, 0.6)
    answer = fit(vectors, ids, 4)
    z = answer.normalise(vectors)
    prototypes = torch.stack([z[torch.from_numpy(ids == c)].mean(0) for c in range(4)])
    asked, _ = clusters(4, 20, 1.0, seed=0)
    distance = torch.cdist(answer.normalise(asked), prototypes).square()
    logits = answer.logits(asked)
    assert torch.equal(logits.argmax(1), distance.argmin(1))
    # Up to what all classes share, the logits are the distances over one temperature.
    ratio = (logits - logits[:, :1])[:, 1:] / (distance - distance[:, :1])[:, 1:]
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-3, atol=1e-3)
    assert ratio[0, 0] < 0


def test_scores_are_surer_where_the_classes_lie_farther_apart() -> None:
    near, ids = clusters(3, 8, 1.5)
    far, _ = clusters(3, 8, 0.1)
    sure = [float(fit(v, ids, 3).logits(v).softmax(1).amax(1).mean()) for v in (near, far)]
    assert sure[0] < 0.9 < 0.97 < sure[1]


@pytest.mark.parametrize("head", ["prototypes", "linear"])
def test_episodes_tell_clusters_from_noise(head: Any) -> None:
    vectors, ids = clusters(6, 12, 0.5)
    good = evaluate_episodes(vectors, ids, ways=5, shots=3, episodes=30, head=head)
    assert good is not None and good.accuracy > 0.9 and 0 < good.interval < 0.05 and (good.ways, good.shots) == (5, 3)
    shuffled = np.random.default_rng(1).permutation(ids)
    bad = evaluate_episodes(vectors, shuffled, ways=5, shots=3, episodes=30, head=head)
    assert bad is not None and bad.accuracy < 0.4
    assert evaluate_episodes(vectors, ids, ways=5, shots=3, episodes=30, head=head) == good


def test_episodes_take_what_there_is() -> None:
    vectors, ids = clusters(3, 4, 0.3)
    found = evaluate_episodes(vectors, ids, ways=5, shots=10, episodes=5)
    assert found is not None and (found.ways, found.shots) == (3, 3)
    assert evaluate_episodes(vectors[::4], ids[::4], episodes=5) is None


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An action model with random weights: its features tell colours apart well enough."""
    torch.manual_seed(0)
    network = NetworkSettings(arch="cnn+gru", fps=5, window=4, size={"mode": "stretch", "height": 32, "width": 32})
    recipe = recipe_for("eyes", ("x", "y"), network, "actions")
    folder = tmp_path_factory.mktemp("backbone")
    write_model(open_storage(str(folder)), recipe, tensor_bytes(build_network(recipe)))
    return str(folder)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One video a colour: six stretches of 1 s of that colour, each over another brightness of the ground."""
    root = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for label, colour in COLOURS.items():
        frames = []
        for _ in range(6):
            image = np.full((32, 48, 3), rng.integers(0, 60), np.uint8)
            x, y = rng.integers(0, 20), rng.integers(0, 8)
            image[y : y + 22, x : x + 26] = colour
            frames += [image] * 5
        make_video(root / f"{label}.mp4", seconds=6, fps=5, size=(48, 32), frames=frames)
    return root


def examples(path: Path, rows: list[str]) -> str:
    path.write_text("label,uri,start_s,end_s\n" + "\n".join(rows) + "\n")
    return str(path)


def all_examples(path: Path) -> str:
    return examples(path, [f"{c},{c}.mp4,{s},{s + 1}" for c in COLOURS for s in range(6)])


@pytest.mark.parametrize("head", ["prototypes", "linear"])
def test_a_csv_becomes_a_model_folder(head: Any, backbone: str, archive: Path, tmp_path: Path) -> None:
    settings = FewShotSettings(
        examples=all_examples(tmp_path / "x.csv"),
        archive=str(archive),
        backbone=backbone,
        out=str(tmp_path / "m"),
        head=head,
        episodes=20,
        views=1,
        device="cpu",
    )
    report = few_shot(settings)
    assert report.labels == ("blue", "green", "grey", "red") and report.examples["red"] == 6
    assert report.evaluation is not None and report.evaluation.accuracy > 0.8 and report.evaluation.shots == 5
    model = load_model(report.folder, settings=ModelSettings(kind="actions", device="cpu"))
    window = np.full((1, 4, 32, 32, 3), 20, np.uint8)
    window[:, :, 4:28, 4:24] = COLOURS["red"]
    scores = model.classify(window)[0]  # type: ignore[union-attr]
    assert report.labels[int(scores.argmax())] == "red" and scores.sum() == pytest.approx(1, abs=1e-5)
    card = yaml.safe_load((tmp_path / "m" / "training.yaml").read_text())
    assert len(card["examples"]) == 24 and card["evaluation"]["ways"] == 4


def test_vectors_in_a_lake_are_labelled_without_decoding(backbone: str, archive: Path, tmp_path: Path) -> None:
    settings = FewShotSettings(
        examples=all_examples(tmp_path / "x.csv"),
        archive=str(archive),
        backbone=backbone,
        out=str(tmp_path / "m"),
        episodes=2,
        device="cpu",
    )
    folder = few_shot(settings).folder
    eyes = load_model(backbone, settings=ModelSettings(kind="embedding", device="cpu"))
    windows = np.full((4, 4, 32, 32, 3), 20, np.uint8)
    for window, colour in zip(windows, COLOURS.values(), strict=True):
        window[:, 3:27, 2:22] = colour
    vectors = eyes.embed(windows)  # type: ignore[union-attr]

    lake = Lake.create(str(tmp_path / "lake"))
    of = outcome("one", tasks=1)
    assert of.info is not None
    task = Task(of.info, (Clip(0, 100),), 0, 1, RUN.pipeline_id, 1)
    start = np.arange(4.0)
    tables = {"embeddings": embeddings_table(of.video.video_id, RUN.pipeline, eyes.card, start, start + 1, vectors)}
    decode = DecodeReport(1, 1, 0.0, 60.0, 1, 0.1, True)
    Staging(lake.storage, RUN.pipeline_id).put(task, tables, TaskReport.of(task, tables, decode))

    def as_it_is(of: Any, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
        return tables

    publish(lake, [of], as_it_is, RUN)
    table = relabel(lake.uri, folder, top_k=2)
    rows = table.to_pylist()
    expected = load_model(folder, settings=ModelSettings(kind="actions", device="cpu")).classify(windows)  # type: ignore[union-attr]
    assert [r["label"] for r in rows if r["rank"] == 1] == list(COLOURS) and table.num_rows == 8
    np.testing.assert_allclose([r["score"] for r in rows if r["rank"] == 1], expected.max(1), atol=0.02)
    assert {r["uri"] for r in rows} == {of.video.uri} and rows[2]["start_s"] == 1.0
    with pytest.raises(ConfigError, match="is no few-shot model"):
        relabel(lake.uri, backbone)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["red,red.mp4,0,1", "red,red.mp4,1,2"], r"x\.csv: holds one class, 'red'"),
        (["red,red.mp4,0,1", "pink,pink.mp4,1,2"], r"x\.csv, line 3: there is no 'pink\.mp4'"),
        (["red,red.mp4,0,1", "blue,blue.mp4,90,92"], r"x\.csv, line 3: begins at 90 s, but .*blue\.mp4 ends at 6 s"),
    ],
)
def test_examples_that_do_not_fit_fail_with_their_line(
    rows: list[str], message: str, backbone: str, archive: Path, tmp_path: Path
) -> None:
    settings = FewShotSettings(
        examples=examples(tmp_path / "x.csv", rows),
        archive=str(archive),
        backbone=backbone,
        out=str(tmp_path / "m"),
        device="cpu",
    )
    with pytest.raises(ConfigError, match=message):
        few_shot(settings)
    assert not (tmp_path / "m").exists()
