"""Few-shot: prototypes by the book, a model folder from a CSV, and labels for vectors without decoding."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from tests.support.media import make_video
from tests.support.odd_store import Odd, odd_store
from vidproc.ask import connect
from vidproc.cli import app
from vidproc.errors import ConfigError
from vidproc.learn.explain import ExplainSettings, explain
from vidproc.learn.fewshot import SHRINKAGE, FewShotSettings, evaluate_episodes, few_shot, fit
from vidproc.learn.networks import NetworkSettings, recipe_for
from vidproc.learn.relabel import RelabelSettings, _few_shot_answer, relabel
from vidproc.learn.train.folder import tensor_bytes, write_model
from vidproc.models import load_model
from vidproc.models.families import build_network
from vidproc.models.settings import ModelSettings
from vidproc.run.driver import index
from vidproc.settings import load_job
from vidproc.storage import open_storage
from vidproc.tables.lake import Lake

COLOURS = {"red": (200, 40, 30), "green": (40, 180, 50), "blue": (30, 60, 210), "grey": (120, 120, 120)}


def clusters(classes: int, each: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (classes, 12)) + 3
    ids = np.repeat(np.arange(classes), each)
    points = centres[ids] + rng.normal(0, noise, (len(ids), 12))
    return torch.tensor(points, dtype=torch.float32)[:, None], ids  # one window of each example


def test_the_answer_is_the_nearest_prototype_in_units_of_the_spread_within_classes() -> None:
    vectors, ids = clusters(4, 6, 0.6)
    answer = fit(vectors, ids, 4)
    z = answer.normalise(vectors[:, 0])
    prototypes = torch.stack([z[torch.from_numpy(ids == c)].mean(0) for c in range(4)])
    spread = torch.cov((z - prototypes[torch.from_numpy(ids)]).T, correction=0)
    metric = torch.linalg.inv((1 - SHRINKAGE) * spread + SHRINKAGE * torch.eye(12) * spread.trace() / 12)
    asked = clusters(4, 20, 1.0, seed=0)[0][:, 0]
    apart = answer.normalise(asked)[:, None] - prototypes
    distance = torch.einsum("ncd,de,nce->nc", apart, metric, apart)
    logits = answer.logits(asked)
    assert torch.equal(logits.argmax(1), distance.argmin(1))
    # Up to what all classes share, the logits are the distances over one temperature.
    ratio = (logits - logits[:, :1])[:, 1:] / (distance - distance[:, :1])[:, 1:]
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-2, atol=1e-2)
    assert ratio[0, 0] < 0


def test_one_example_a_class_is_enough() -> None:
    vectors, ids = clusters(4, 1, 0.1)
    answer = fit(vectors, ids, 4)
    assert answer.logits(vectors[:, 0]).argmax(1).tolist() == [0, 1, 2, 3] and torch.isfinite(answer.weight).all()


def test_each_window_of_an_example_counts() -> None:
    vectors, ids = clusters(3, 5, 0.2)
    several = torch.cat([vectors, vectors + 0.05], 1)
    found = evaluate_episodes(several, ids, ways=3, shots=2, episodes=5)
    assert found is not None and found.accuracy > 0.9 and fit(several, ids, 3).mean.shape == (12,)


def test_scores_are_surer_where_the_classes_lie_farther_apart() -> None:
    near, ids = clusters(3, 8, 1.5)
    far, _ = clusters(3, 8, 0.1)
    sure = [float(fit(v, ids, 3).logits(v[:, 0]).softmax(1).amax(1).mean()) for v in (near, far)]
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


@pytest.mark.parametrize("each", [1, 24])
def test_an_index_takes_the_folder_as_its_action_model(each: int, backbone: str, archive: Path, tmp_path: Path) -> None:
    """From one example a class on; and of more than the twenty that few-shot is made for, every one counts."""
    rows = [f"{c},{c}.mp4,{s:.1f},{s + 1:.1f}" for c in COLOURS for s in np.arange(each) / 5]
    words = [examples(tmp_path / "x.csv", rows), archive, tmp_path / "m", "--backbone", backbone, "--episodes", "2"]
    made = CliRunner().invoke(app, ["fewshot", *map(str, words), "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.output)["examples"] == dict.fromkeys(COLOURS, each)
    lake = str(tmp_path / "lake")
    words = ["index", archive, lake, "--actions", tmp_path / "m", "--detector", "none", "--executor", "inline"]
    ran = CliRunner().invoke(app, [*map(str, words), "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    with connect(lake) as database:
        sql = "SELECT uri, label, model FROM actions JOIN videos USING (video_id, pipeline) WHERE rank = 1"
        found = database.sql(sql).read_all().to_pylist()
    assert {Path(row["uri"]).stem for row in found} == set(COLOURS)
    assert all(row["model"].startswith("few-shot@") for row in found)
    assert np.mean([row["label"] == Path(row["uri"]).stem for row in found]) > 0.8


def on_s3(folder: str, copy: Path) -> tuple[str, dict[str, Odd]]:
    """A model folder whose weights lie on S3, and the objects of that bucket."""
    weights = (Path(folder) / "weights.safetensors").read_bytes()
    about = yaml.safe_load((Path(folder) / "model.yaml").read_text())
    about |= {"weights": f"s3://odd/{copy.name}", "sha256": hashlib.sha256(weights).hexdigest()}
    copy.mkdir()
    (copy / "model.yaml").write_text(yaml.safe_dump(about))
    return str(copy), {copy.name: Odd(weights)}


def test_weights_on_s3_are_reached_as_the_command_is_told(
    backbone: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The options of the command, and not what the environment says of some other store."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("VIDPROC_MODEL_CACHE", str(tmp_path / "cache"))
    eyes, objects = on_s3(backbone, tmp_path / "eyes")
    settings = FewShotSettings(
        examples=examples(tmp_path / "x.csv", ["red,red.mp4,0,1", "blue,blue.mp4,0,1"]),
        archive=str(archive),
        backbone=eyes,
        out=str(tmp_path / "m"),
        device="cpu",
    )
    with odd_store(objects) as options:
        folder = few_shot(settings, options=options).folder
    model, objects = on_s3(folder, tmp_path / "few")
    with odd_store(objects) as options, pytest.raises(ConfigError, match="nowhere"):  # the model is opened before it
        relabel(RelabelSettings(lake=str(tmp_path / "nowhere"), model=model), options=options)
    shutil.rmtree(tmp_path / "cache")
    asked = ExplainSettings(
        kind="actions",
        out=str(tmp_path / "e"),
        video=str(archive / "red.mp4"),
        model=model,
        cells=(2, 2),
        moments=1,
        device="cpu",
    )
    with odd_store(objects) as options:
        assert explain(asked, options=options).files


def test_vectors_in_a_lake_are_labelled_without_decoding(backbone: str, archive: Path, tmp_path: Path) -> None:
    """An index of vectors; the archive goes away; the few-shot model's answers are the lake's, as a pipeline beside."""
    videos = Path(shutil.copytree(archive, tmp_path / "videos"))
    settings = FewShotSettings(
        examples=all_examples(tmp_path / "x.csv"),
        archive=str(videos),
        backbone=backbone,
        out=str(tmp_path / "m"),
        episodes=2,
        device="cpu",
    )
    folder, lake = few_shot(settings).folder, str(tmp_path / "lake")
    models = {"detector": "none", "actions": "none", "embedding": backbone}
    execution = {"executor": "inline", "device": "cpu"}
    index(load_job(None, {"archive": str(videos), "lake": lake, "name": "seen", "execution": execution, **models}))
    shutil.rmtree(videos)

    ran = CliRunner().invoke(app, ["relabel", lake, folder, "--name", "colours", "--json"])
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.output)
    assert report["videos"] == 4 and report["rows"]["actions"] == 3 * report["windows"] > 0
    with connect(lake) as database:
        sql = "SELECT v.uri, a.* FROM actions a JOIN videos v USING (video_id, pipeline) WHERE rank = 1 ORDER BY ALL"
        found = database.sql(sql).read_all().to_pylist()
        assert {r["pipeline"] for r in found} == {"colours"} and {r["model"] for r in found} == {report["model"]}
        right = [r["label"] == Path(r["uri"]).stem for r in found]
        assert np.mean(right) > 0.8 and len(right) == report["windows"]
        spans = database.sql("SELECT DISTINCT label FROM segments WHERE pipeline = 'colours' AND kind = 'action'")
        assert set(spans.read_all()["label"].to_pylist()) >= {"red", "green"}
        kept = database.sql("SELECT pipeline, sum(n_embeddings) AS n, sum(n_actions) AS m FROM videos GROUP BY ALL")
        assert {r["pipeline"]: (r["n"], r["m"]) for r in kept.read_all().to_pylist()} == {
            "seen": (report["windows"], 0),
            "colours": (0, report["rows"]["actions"]),
        }
    run = Lake.open(lake).runs(limit=1).to_pylist()[0]
    assert (run["command"], run["outcome"], run["videos_indexed"]) == ("relabel", "ok", 4)

    assert json.loads(run["job"])["actions"]["model"] == folder  # so that `explain LAKE --row` finds it

    # The scores are those that the model gives where it sees the windows, but for the 16 bits of the vectors.
    eyes, whole = (
        load_model(m, settings=ModelSettings(kind=k, device="cpu"))
        for m, k in ((backbone, "embedding"), (folder, "actions"))
    )
    windows = np.full((4, 4, 32, 32, 3), 20, np.uint8)
    for window, colour in zip(windows, COLOURS.values(), strict=True):
        window[:, 3:27, 2:22] = colour
    answer = _few_shot_answer(folder)[2]
    by_vector = answer.logits(torch.tensor(eyes.embed(windows))).softmax(1).numpy()  # type: ignore[union-attr]
    np.testing.assert_allclose(by_vector, whole.classify(windows), atol=1e-4)  # type: ignore[union-attr]

    again = relabel(RelabelSettings(lake=lake, model=folder, name="colours", pipeline="seen"))
    assert again.rows == report["rows"]
    with pytest.raises(ConfigError, match="is no few-shot model"):
        relabel(RelabelSettings(lake=lake, model=backbone, pipeline="seen"))
    with pytest.raises(ConfigError, match="the pipeline seen holds the vectors"):
        relabel(RelabelSettings(lake=lake, model=folder, name="seen", pipeline="seen"))
    with pytest.raises(ConfigError, match="the lake holds the pipelines colours, seen; say which"):
        relabel(RelabelSettings(lake=lake, model=folder))
    with pytest.raises(ConfigError, match="embeddings holds no rows of the model eyes@"):
        relabel(RelabelSettings(lake=lake, model=folder, pipeline="colours", name="x"))


def test_the_command_says_how_well_it_will_do(backbone: str, archive: Path, tmp_path: Path) -> None:
    words = ["fewshot", all_examples(tmp_path / "x.csv"), str(archive), str(tmp_path / "m"), "--backbone", backbone]
    ran = CliRunner().invoke(
        app, [*words, "--ways", "3", "--shots", "2", "--episodes", "40", "--name", "hues", "--json"]
    )
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.output)["evaluation"]
    assert (found["ways"], found["shots"], found["episodes"]) == (3, 2, 40)
    assert found["accuracy"] > 0.7 and 0 < found["interval"] < 0.1
    assert yaml.safe_load((tmp_path / "m" / "model.yaml").read_text())["name"] == "hues"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["red,red.mp4,0,1", "red,red.mp4,1,2"], r"x\.csv: holds one class, 'red'"),
        (["red,red.mp4,0,1", "pink,pink.mp4,1,2"], r"x\.csv, line 3: there is no 'pink\.mp4'"),
        (["red,red.mp4,0,1", "blue,blue.mp4,soon,2"], r"x\.csv, line 3: start_s must be seconds, not 'soon'"),
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
