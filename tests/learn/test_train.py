"""Training: it learns, it goes on where it was killed, its folder is a model, and mistakes are found first."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.support.media import make_video
from tests.support.odd_store import Odd, odd_store
from vidproc.errors import ConfigError
from vidproc.learn.data.augmentation import Augmentation
from vidproc.learn.job import read_job
from vidproc.learn.labels.coco import to_coco
from vidproc.learn.networks import NetworkSettings, class_tensors, network_for, recipe_for
from vidproc.learn.train.examples import Loader
from vidproc.learn.train.folder import yaml_plain
from vidproc.learn.train.optimisation import learning_rate_factor
from vidproc.learn.train.preparation import prepare
from vidproc.learn.train.progress import goodness
from vidproc.learn.train.settings import DataSettings, OptimisationSettings, TrainSettings
from vidproc.learn.train.training import train
from vidproc.learn.workers import WorkerSettings
from vidproc.models import load_model
from vidproc.models.settings import ModelSettings

WIDTH, HEIGHT = 64, 48
INLINE = WorkerSettings(executor="inline", gpu=False)
SMALL = {"mode": "stretch", "height": 48, "width": 64}


pytestmark = pytest.mark.usefixtures("one_thread")


def scene(rng: np.random.Generator, way: int, frames: int = 12) -> list[np.ndarray]:
    """A bright square that crosses to the right (way 1) or to the left (-1): no single frame tells which."""
    start, y, step = rng.integers(4, 20), rng.integers(4, HEIGHT - 16), rng.uniform(2.2, 2.8)
    ground = rng.integers(20, 70)
    out = []
    for t in range(frames):
        image = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
        x = int(start + step * (t if way > 0 else frames - 1 - t))
        image[y : y + 12, x : x + 12] = (230, 200, 60)
        out.append(image)
    return out


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a class: 14 videos that go left and 14 that go right."""
    root = tmp_path_factory.mktemp("moving")
    rng = np.random.default_rng(0)
    for label, way in (("left", -1), ("right", 1)):
        (root / label).mkdir()
        for i in range(14):
            make_video(
                root / label / f"{label}{i}.mp4", seconds=1.2, fps=10, size=(WIDTH, HEIGHT), frames=scene(rng, way)
            )
    return root


def job(archive: Path, out: Path, **changes: Any) -> TrainSettings:
    made = TrainSettings(
        task="actions",
        name="ways",
        out=str(out),
        data=DataSettings(archive=str(archive), train="folders", validation_share=0.3),
        network=NetworkSettings(
            arch="cnn+gru", fps=10, window=8, size={"mode": "stretch", "height": 32, "width": 32}, args={"hidden": 32}
        ),
        optimisation=OptimisationSettings(epochs=8, batch=4, learning_rate=2e-3),
        workers=INLINE,
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def trained(moving: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainSettings, Any]:
    settings = job(moving, tmp_path_factory.mktemp("trained") / "model")
    return settings, train(settings)


def test_it_learns_what_one_frame_cannot_tell(trained: Any, moving: Path, tmp_path: Path) -> None:
    settings, report = trained
    assert report.metrics["top1"] >= 0.85 and report.epochs == 8
    blind = replace(settings, out=str(tmp_path / "blind"), network=replace(settings.network, arch="cnn+mean", args={}))
    assert train(blind).metrics["top1"] <= report.metrics["top1"] - 0.2


def test_the_folder_is_a_model_and_says_how_it_was_made(trained: Any, moving: Path) -> None:
    _, report = trained
    folder = Path(report.folder)
    model = load_model(report.folder, settings=ModelSettings(kind="actions", device="cpu"))
    assert model.card.labels == ("left", "right") and model.card.grid.window == 8 and model.card.name == "ways"
    rows = list(csv.DictReader(io.StringIO((folder / "metrics.csv").read_text())))
    assert [r["epoch"] for r in rows] == [f"{e}.0" for e in range(1, 9)]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    card = yaml.safe_load((folder / "training.yaml").read_text())
    assert card["job"]["seed"] == 0 and card["data"]["labels"] == ["left", "right"]
    assert card["data"]["label_files_sha256"] == {}, "a folder a class has none"
    assert card["data"]["train_examples"] + card["data"]["validation_examples"] == 28
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG" == (folder / "confusion.png").read_bytes()[:4]


def test_a_killed_training_goes_on_and_ends_where_it_would_have(trained: Any, moving: Path, tmp_path: Path) -> None:
    settings, whole = trained
    broken = replace(settings, out=str(tmp_path / "model"))

    class Killed(BaseException):
        pass

    def kill_after_three(metrics: dict[str, float]) -> None:
        if metrics["epoch"] == 3:
            raise Killed

    with pytest.raises(Killed):
        train(broken, listen=kill_after_three)
    seen = list(csv.DictReader(io.StringIO((tmp_path / "model" / "metrics.csv").read_text())))
    assert [float(row["epoch"]) for row in seen] == [1, 2, 3]
    heard: list[float] = []
    report = train(broken, listen=lambda m: heard.append(m["epoch"]))
    assert heard == [4, 5, 6, 7, 8] and report.best_epoch == whole.best_epoch
    a, b = (load_file(Path(r.folder) / "weights.safetensors") for r in (whole, report))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert train(broken, listen=lambda m: heard.append(-1)).metrics == report.metrics and -1 not in heard


def test_a_training_killed_before_its_folder_was_written_writes_it(trained: Any, tmp_path: Path) -> None:
    """Stopped early, too: it must not go on with the epochs that it had decided against."""
    settings, _ = trained
    early = OptimisationSettings(epochs=6, batch=16, learning_rate=1e-9, patience=1, warmup_epochs=0)
    settings = replace(settings, out=str(tmp_path / "m"), optimisation=early)
    whole = train(settings)
    assert whole.epochs < 6
    written = {p.name: p.read_bytes() for p in (tmp_path / "m").glob("*.*") if p.name != "training.yaml"}
    for name in (*written, "training.yaml"):
        (tmp_path / "m" / name).unlink()
    again = train(settings)
    assert (again.epochs, again.metrics) == (whole.epochs, whole.metrics)
    assert {p.name: p.read_bytes() for p in (tmp_path / "m").glob("*.*") if p.name != "training.yaml"} == written


def test_begun_anew_and_killed_a_training_never_returns_the_older_model(
    moving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels changed meanwhile, which the job does not show."""
    rows = [f"{label},{label}/{label}{i}.mp4,0,1" for label in ("left", "right") for i in range(4)]
    data = DataSettings(archive=str(moving), train=write_csv(tmp_path / "x.csv", rows), validation_share=0)
    settings = job(moving, tmp_path / "m", data=data, optimisation=OptimisationSettings(epochs=1, batch=4))
    weights = lambda: load_file(tmp_path / "m" / "weights.safetensors")["head.out.weight"]  # noqa: E731
    train(settings)
    older = weights()
    write_csv(tmp_path / "x.csv", [row.replace("0,1", "0.1,1.1") for row in rows])

    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    for place in ("loop.write_folder", "optimisation.make_optimizer"):  # after the last epoch, and before the first
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(f"vidproc.learn.train.{place}", kill)
            train(replace(settings, resume=False))
        assert not (tmp_path / "m" / "model.yaml").exists()
        train(settings)
        newer = weights()
        card = yaml.safe_load((tmp_path / "m" / "training.yaml").read_text())
        written = (tmp_path / "x.csv").read_bytes()
        assert card["data"]["label_files_sha256"] == {data.train: hashlib.sha256(written).hexdigest()}
        assert (tmp_path / "m" / "model.yaml").exists() and not torch.equal(newer, older)
    train(replace(settings, out=str(tmp_path / "fresh")))
    assert torch.equal(newer, load_file(tmp_path / "fresh" / "weights.safetensors")["head.out.weight"])


def test_tensorboard_reads_the_metrics_of_every_epoch(trained: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, report = trained
    log = EventAccumulator(str(Path(report.folder) / "tensorboard"))
    log.Reload()
    rows = list(csv.DictReader(io.StringIO(Path(report.folder, "metrics.csv").read_text())))
    for name in ("loss", "top1", "val_loss"):
        logged = [(e.step, e.value) for e in log.Scalars(name)]
        assert logged == [(i, pytest.approx(float(row[name]), rel=1e-5)) for i, row in enumerate(rows, 1)]


@pytest.mark.parametrize("kind", ["actions", "detection"])
def test_processes_that_decode_ahead_change_nothing(
    kind: str, moving: Path, boxed: tuple[Path, Path], tmp_path: Path
) -> None:
    if kind == "actions":
        settings = job(moving, tmp_path, augmentation=Augmentation(crop=0.8, colour=0.3))
        settings = replace(settings, optimisation=OptimisationSettings(epochs=2, batch=8))
    else:
        settings = detection_job(boxed, tmp_path)
        settings = replace(settings, optimisation=replace(settings.optimisation, epochs=1))
    weights = []
    for loaders in (0, 1):
        optimisation = replace(settings.optimisation, num_workers=loaders)
        out = tmp_path / str(loaders)
        train(replace(settings, out=str(out), optimisation=optimisation))
        weights.append(load_file(out / "weights.safetensors"))
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


class Refusing(torch.utils.data.Dataset[int]):
    def __getitem__(self, at: tuple[int, int]) -> int:
        raise ConfigError("x.csv, line 3: a.mp4 does not decode there")


@pytest.mark.parametrize("loaders", [0, 1])
def test_what_is_found_wrong_by_a_process_that_decodes_ahead_is_one_sentence(loaders: int) -> None:
    with pytest.raises(ConfigError, match=r"^x\.csv, line 3: a\.mp4 does not decode there$"):
        next(Loader(Refusing(), loaders, list).epoch(0, [0], 1))


def test_another_job_does_not_go_on_from_a_foreign_checkpoint(trained: Any) -> None:
    settings, _ = trained
    with pytest.raises(ConfigError, match=r"last\.pt belongs to a job of other settings"):
        train(replace(settings, seed=1))
    Path(settings.out, "other").mkdir()
    Path(settings.out, "other", "checkpoints").mkdir()
    Path(settings.out, "other", "checkpoints", "last.pt").write_bytes(b"rubbish")
    with pytest.raises(ConfigError, match=r"last\.pt is no checkpoint"):
        train(replace(settings, out=settings.out + "/other"))


def test_early_stopping_keeps_the_best(moving: Path, tmp_path: Path) -> None:
    settings = job(moving, tmp_path / "m")
    settings = replace(
        settings, optimisation=OptimisationSettings(epochs=6, batch=16, learning_rate=1e-9, patience=2, warmup_epochs=0)
    )
    report = train(settings)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "m" / "metrics.csv").read_text())))
    top1 = [float(row["top1"]) for row in rows]
    assert report.epochs == top1.index(max(top1)) + 3 < 6
    assert report.metrics["top1"] == max(top1)


def test_of_epochs_alike_in_accuracy_the_surest_is_kept(trained: Any) -> None:
    _, report = trained
    rows = list(csv.DictReader(io.StringIO(Path(report.folder, "metrics.csv").read_text())))
    best = max(float(row["top1"]) for row in rows)
    alike = [row for row in rows if float(row["top1"]) == best]
    assert len(alike) > 1, "else this shows nothing"
    surest = min(alike, key=lambda row: float(row["val_loss"]))
    assert surest is not alike[0], "else the earliest would have been kept too"
    assert report.best_epoch == float(surest["epoch"])


def test_goodness_is_what_is_watched_then_how_sure_it_was() -> None:
    rows = [
        {"top1": 0.9, "val_loss": 0.1},
        {"top1": 1.0, "val_loss": 0.5},
        {"top1": 1.0, "val_loss": 0.2},
        {"top1": 1.0, "val_loss": 0.3},
    ]
    assert max(rows, key=lambda row: goodness(row, "top1")) is rows[2]
    assert goodness({"loss": 1.0}, "loss") > goodness({"loss": 2.0}, "loss")
    assert goodness({"AP": 0.5}, "AP") > goodness({"AP": 0.4}, "AP")


@pytest.mark.parametrize("balance", ["sample", "loss"])
def test_balance_and_augmentation_run(balance: Any, moving: Path, tmp_path: Path) -> None:
    settings = job(
        moving,
        tmp_path / "m",
        augmentation=Augmentation(crop=0.8, colour=0.3),
        optimisation=OptimisationSettings(epochs=1, batch=8, balance=balance, optimizer="sgd", precision="16", views=3),
    )
    assert np.isfinite(train(settings).metrics["val_loss"])


def test_a_loss_that_explodes_is_said(moving: Path, tmp_path: Path) -> None:
    settings = job(
        moving,
        tmp_path / "m",
        optimisation=OptimisationSettings(epochs=3, learning_rate=1e30, max_grad_norm=0, warmup_epochs=0),
    )
    with pytest.raises(ConfigError, match=r"the loss became (nan|inf) in epoch"):
        train(settings)


@examples(max_examples=50, deadline=None)
@given(st.integers(1, 500), st.floats(0, 0.9))
def test_the_rate_rises_then_falls(steps: int, share: float) -> None:
    rates = [learning_rate_factor(s, steps, share * steps) for s in range(steps)]
    top = int(np.argmax(rates))
    assert all(0 < r <= 1 for r in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert learning_rate_factor(steps, steps, share * steps) == pytest.approx(0.01)


# Detection


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Six videos with a bright square or a dark bar, and COCO JSON over three frames of each."""
    root = tmp_path_factory.mktemp("boxed")
    rng = np.random.default_rng(1)
    images, annotations = [], []
    for v in range(6):
        frames = []
        for t in range(6):
            image = np.full((HEIGHT * 2, WIDTH * 2, 3), 110, np.uint8)
            x, y = (int(n) for n in rng.integers(5, 40, 2))
            w, h = ((30, 30), (50, 14))[v % 2]
            image[y : y + h, x : x + w] = ((235, 235, 200), (10, 10, 40))[v % 2]
            frames.append(image)
            if t % 2 == 0:
                size = {"width": WIDTH * 2, "height": HEIGHT * 2}
                images.append({"id": len(images), "file_name": f"v{v}.mp4", "time_s": t / 5, **size})
                box = {"image_id": images[-1]["id"], "category_id": 1 + v % 2, "bbox": [x, y, w, h]}
                annotations.append({"id": len(annotations), **box})
        make_video(root / f"v{v}.mp4", seconds=1.2, fps=5, size=(WIDTH * 2, HEIGHT * 2), frames=frames)
    path = tmp_path_factory.mktemp("labels") / "boxes.json"
    categories = [{"id": 1, "name": "square"}, {"id": 2, "name": "bar"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root, path


def detection_job(boxed: tuple[Path, Path], out: Path) -> TrainSettings:
    return TrainSettings(
        task="detection",
        name="shapes",
        out=str(out),
        data=DataSettings(archive=str(boxed[0]), train=str(boxed[1]), validation_share=0.34),
        network=NetworkSettings(
            arch="fasterrcnn_mobilenet_v3_large_320_fpn",
            size={"mode": "stretch", "height": 96, "width": 128},
            freeze=("backbone.body.0",),
        ),
        optimisation=OptimisationSettings(epochs=2, batch=2, learning_rate=5e-4),
        augmentation=Augmentation(flip=0.5),
        workers=INLINE,
    )


def test_a_detector_is_trained_on_frames_of_videos(boxed: tuple[Path, Path], tmp_path: Path) -> None:
    settings = detection_job(boxed, tmp_path / "m")
    report = train(settings)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "m" / "metrics.csv").read_text())))
    assert float(rows[1]["loss"]) < float(rows[0]["loss"]) and 0 <= report.metrics["AP"] <= 1
    model = load_model(report.folder, settings=ModelSettings(kind="detector", device="cpu"))
    assert model.card.labels == ("square", "bar")
    found = model.detect(np.zeros((2, 96, 128, 3), np.uint8))  # type: ignore[union-attr]
    assert found.boxes.shape[1] == 4
    recipe, _ = prepare(settings)
    began = network_for(recipe, settings.network).state_dict()
    weights = load_file(Path(report.folder) / "weights.safetensors")
    frozen = [k for k in weights if k.startswith("backbone.body.0.") and k.endswith("weight")]
    assert frozen and any(not torch.equal(weights[k], began[k]) for k in weights if "box_predictor" in k)


@pytest.mark.parametrize("option", [{"balance": "loss"}, {"label_smoothing": 0.1}, {"views": 3}])
def test_a_detector_refuses_what_it_would_not_heed(option: Any, boxed: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"optimisation\.{next(iter(option))}.* is for actions"):
        replace(detection_job(boxed, tmp_path / "m"), optimisation=OptimisationSettings(**option))


def test_labels_become_coco_and_keep_their_boxes(boxed: tuple[Path, Path], tmp_path: Path) -> None:
    _, data = prepare(detection_job(boxed, tmp_path / "m"))
    truth = to_coco(data.train)  # type: ignore[arg-type]
    assert {c["name"] for c in truth["categories"]} == {"square", "bar"}
    assert len(truth["images"]) == len(data.train.frames) == len(truth["annotations"])  # type: ignore[union-attr]


def test_a_label_size_that_is_not_the_videos_fails_before_training(boxed: tuple[Path, Path], tmp_path: Path) -> None:
    labels = json.loads(boxed[1].read_text())
    labels["images"][4]["width"] = 200
    (tmp_path / "x.json").write_text(json.dumps(labels))
    with pytest.raises(ConfigError, match=r"x\.json: images\[4\]: says 200 x 96 pixels, but .*v1\.mp4 has 128 x 96"):
        train(detection_job((boxed[0], tmp_path / "x.json"), tmp_path / "m"))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"x\.json: images\[1\]: says 40 x 30 pixels, but .*b\.png has 64 x 48"),
        (b"no picture", r"x\.json: images\[1\]: .*b\.png is no image that can be read"),
    ],
)
def test_an_image_that_is_not_the_labels_fails_before_training(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        Image.new("RGB", (64, 48)).save(tmp_path / "in" / f"{name}.png")
    if content is not None:
        (tmp_path / "in" / "b.png").write_bytes(content)
    images = [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}]
    images += [{"id": 2, "file_name": "b.png", "width": 40, "height": 30}]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in (1, 2)]
    labels = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "x.json").write_text(json.dumps(labels))
    with pytest.raises(ConfigError, match=message):
        train(detection_job((tmp_path / "in", tmp_path / "x.json"), tmp_path / "m"))
    assert not (tmp_path / "m").exists()


# What is wrong with a job


def write_csv(path: Path, rows: list[str]) -> str:
    path.write_text("label,uri,start_s,end_s\n" + "\n".join(rows) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (["left,left0.mp4,0,1", "right,gone.mp4,0,1"], None, r"x\.csv, line 3: there is no 'gone\.mp4'"),
        (["left,left0.mp4,0,1"], ("left", "right"), r"x\.csv: the class 'right' has no example"),
        (["left,left0.mp4,0,1", "right,right1.mp4,5,6"], None, r"x\.csv, line 3: begins at 5 s, but .*ends at 1\.2"),
        (["up,left0.mp4,0,1"], ("left", "right"), r"x\.csv, line 2: 'up' is none of the labels left, right"),
    ],
)
def test_labels_that_do_not_fit_fail_before_training(
    rows: list[str], labels: Any, message: str, moving: Path, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "x.csv", rows)
    data = DataSettings(archive=str(moving), train=path, labels=labels, validation_share=0)
    with pytest.raises(ConfigError, match=message):
        train(job(moving, tmp_path / "m", data=data))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"arch": "cnn+rnn"}, r"network\.arch: there is no 'cnn\+rnn'"),
        ({"arch": "yolox_s"}, r"network\.arch: there is no 'yolox_s'.* ONNX files are run, not trained"),
        ({"arch": "fasterrcnn_resnet50_fpn"}, "a model of kind detector, but the job trains actions"),
        ({"arch": "cnn+gru", "args": {"hiden": 3}}, "unknown args hiden"),
        ({"arch": "cnn+gru", "freeze": ("body",)}, r"network\.freeze: no parameter begins with 'body'"),
        ({"arch": "cnn+gru", "size": {"hight": 3}}, r"network\.size: unknown key 'hight'"),
        ({"arch": "mvit_v2_s", "window": 8}, r"network\.window: mvit_v2_s takes 16 to 16"),
        ({"arch": "cnn+gru", "start": "published"}, "backbone tiny has no published weights"),
        ({"arch": "mvit_v2_s", "size": SMALL}, r"mvit_v2_s takes no windows of 16 frames of 64 x 48 pixels"),
        ({"arch": "s3d", "window": 8, "size": SMALL}, r"network\.window: s3d takes 14 to"),
        ({"arch": "slowfast_r50_8x8", "window": 6, "size": SMALL}, r"6 frames of 64 x 48 pixels \(6 frames are no"),
    ],
)
def test_a_network_that_cannot_be_fails_before_training(
    network: dict[str, Any], message: str, moving: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(job(moving, tmp_path / "m", network=NetworkSettings(**network)))
    assert not (tmp_path / "m").exists()


def test_a_checkpoint_of_another_architecture_fails_and_one_of_other_classes_is_taken(
    trained: Any, moving: Path, tmp_path: Path
) -> None:
    settings, report = trained
    start = replace(settings.network, start=str(Path(report.folder) / "weights.safetensors"))
    other = replace(start, arch="cnn+lstm")
    with pytest.raises(ConfigError, match=r"weights\.safetensors is a checkpoint of another architecture.*head\.cell"):
        train(job(moving, tmp_path / "m", network=other))
    recipe = recipe_for("x", ("a", "b", "c"), start, "actions")
    assert class_tensors(recipe) == {"head.out.weight", "head.out.bias"}
    network, began = network_for(recipe, start).state_dict(), load_file(Path(report.folder) / "weights.safetensors")
    assert network["head.out.weight"].shape[0] == 3
    assert all(torch.equal(network[k], began[k]) for k in began if not k.startswith("head.out"))
    by_folder = network_for(recipe, replace(start, start=report.folder)).state_dict()
    assert torch.equal(by_folder["encoder.0.weight"], began["encoder.0.weight"])
    save_file({"x": torch.zeros(1)}, tmp_path / "y.safetensors")
    with pytest.raises(ConfigError, match=r"y\.safetensors is a checkpoint of another architecture.*it has no encoder"):
        network_for(recipe, replace(start, start=str(tmp_path / "y.safetensors")))


def test_first_weights_on_s3_are_reached_as_the_job_is_told(
    trained: Any, moving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The options of the command, and not what the environment says of some other store."""
    settings, report = trained
    weights = (Path(report.folder) / "weights.safetensors").read_bytes()
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("VIDPROC_MODEL_CACHE", str(tmp_path / "cache"))
    with odd_store({"w.safetensors": Odd(weights)}) as options:
        network = replace(settings.network, start="s3://odd/w.safetensors", sha256=hashlib.sha256(weights).hexdigest())
        recipe, _ = prepare(job(moving, tmp_path / "m", network=network), options)
        state = network_for(recipe, network, options).state_dict()
    began = load_file(Path(report.folder) / "weights.safetensors")
    assert all(torch.equal(state[name], began[name]) for name in began)


def test_job_files_are_read_strictly(moving: Path, tmp_path: Path) -> None:
    text = {
        "task": "actions",
        "name": "ways",
        "out": str(tmp_path / "m"),
        "data": {"archive": str(moving), "train": "folders"},
        "network": {"arch": "cnn+tcn", "window": 8, "args": {"layers": 2}},
        "optimisation": {"epochs": 3},
    }
    path = tmp_path / "job.yaml"
    write: Callable[[Any], None] = lambda value: path.write_text(yaml.safe_dump(value)) and None  # noqa: E731
    write(text)
    read = read_job(path, TrainSettings, seed=7)
    assert (read.seed, read.optimisation.epochs, read.network.args) == (7, 3, {"layers": 2})
    for key, value, message in [
        ("optimisation", {"epoch": 3}, r"job\.yaml: unknown key optimisation\.epoch; did you mean epochs\?"),
        ("optimisation", {"epochs": "many"}, r"job\.yaml: optimisation\.epochs: .*not 'many'"),
        ("optimisation", {"epochs": 0}, r"job\.yaml: epochs, batch, views and learning_rate must be positive"),
        ("data", {"train": "folders"}, r"job\.yaml: data lacks 'archive'"),
        ("network", 5, r"job\.yaml: network must be a mapping"),
        ("task", "sorting", r"job\.yaml: task: .*not 'sorting'"),
    ]:
        write({**text, key: value})
        with pytest.raises(ConfigError, match=message):
            read_job(path, TrainSettings)
    path.write_text("- a\n- b")
    with pytest.raises(ConfigError, match=r"job\.yaml must be a mapping"):
        read_job(path, TrainSettings)


# On Ray


@pytest.mark.slow
@pytest.mark.timeout(900)  # three times the workers of Ray Train import torch, which takes minutes on a busy machine
def test_two_workers_of_ray_train_share_the_work(moving: Path, tmp_path: Path) -> None:
    import ray

    from vidproc.runtime.ray.executor import RayExecutor
    from vidproc.runtime.ray.own_ray import join_or_start

    # A process has one token for all of its clusters: an index before the training is no obstacle.
    with closing(RayExecutor("local", num_workers=1)) as before:
        before.start({})
    join_or_start("local", num_cpus=2, object_store_memory=100 << 20)
    try:
        workers = WorkerSettings(executor="ray", workers=2, gpu=False)
        settings = job(moving, tmp_path / "m", workers=workers, optimisation=OptimisationSettings(epochs=2, batch=8))
        report = train(settings)
        assert report.epochs == 2 and 0 <= report.metrics["top1"] <= 1
        assert load_model(report.folder, settings=ModelSettings(device="cpu")).card.labels == ("left", "right")
        # One worker of Ray is this process's training to the bit.
        one, here = (replace(settings, out=str(tmp_path / n)) for n in ("one", "here"))
        train(replace(one, workers=replace(workers, workers=1)))
        train(replace(here, workers=INLINE))
        a, b = (load_file(Path(s.out) / "weights.safetensors") for s in (one, here))
        assert all(torch.equal(a[k], b[k]) for k in a)
        bad = replace(
            settings,
            out=str(tmp_path / "n"),
            optimisation=OptimisationSettings(epochs=3, learning_rate=1e30, max_grad_norm=0),
        )
        with pytest.raises(ConfigError, match=r"the loss became (nan|inf) in epoch"):
            train(bad)
        with pytest.raises(ConfigError, match="9 training workers need 9 CPU, the cluster has 2"):
            train(replace(settings, out=str(tmp_path / "o"), workers=replace(workers, workers=9)))
    finally:
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_killed_go_on_from_the_last_epoch(moving: Path, tmp_path: Path) -> None:
    """`vidproc train` in a process of its own, killed with all of its workers after an epoch, and run again."""
    out = tmp_path / "m"
    settings = job(moving, out, workers=WorkerSettings(workers=2, gpu=False))
    settings = replace(settings, optimisation=OptimisationSettings(epochs=300, batch=8))
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(yaml_plain(asdict(settings))))
    command = [sys.executable, "-m", "vidproc", "train", str(path)]
    running = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        wait_for(out / "checkpoints" / "last.pt", running)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    left = torch.load(out / "checkpoints" / "last.pt", weights_only=True)
    assert 1 <= left["epoch"] < 300 and not (out / "model.yaml").exists()

    # Another process goes on, up to an epoch after.
    again = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        wait_for(out / "checkpoints" / "last.pt", again, newer_than=left["epoch"])
    finally:
        os.killpg(again.pid, signal.SIGKILL)
        again.wait()
    later = torch.load(out / "checkpoints" / "last.pt", weights_only=True)
    assert later["epoch"] > left["epoch"] and later["history"][: left["epoch"]] == left["history"]


def wait_for(checkpoint: Path, running: subprocess.Popen[bytes], newer_than: int = 0) -> None:
    for _ in range(3000):
        if checkpoint.exists() and torch.load(checkpoint, weights_only=True)["epoch"] > newer_than:
            return
        assert running.poll() is None, "the training ended by itself"
        time.sleep(0.1)
    raise AssertionError("no checkpoint within five minutes")


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "jobs").glob("train_*.yaml")), ids=lambda p: p.stem
)
def test_the_job_files_that_come_with_us_are_jobs(path: Path) -> None:
    settings = read_job(path, TrainSettings)
    kind: Any = {"detection": "detector", "actions": "actions"}[settings.task]
    assert recipe_for(settings.name, ("a", "b"), settings.network, kind).labels == ("a", "b")
