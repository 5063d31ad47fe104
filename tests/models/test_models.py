"""What a model's name stands for, what a job may change of it, and what is said where it cannot be."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vidproc.errors import ConfigError
from vidproc.media import FrameSize, Grid
from vidproc.models import (
    ModelCard,
    ModelSettings,
    Preprocessing,
    Recipe,
    check_model,
    describe_model,
    fetch_model,
    list_models,
    load_model,
    resolve_spec,
)
from vidproc.models.descriptions import COCO80, read_recipe
from vidproc.models.device import Batches, pick_device
from vidproc.models.recipe import FAMILIES
from vidproc.models.registry import find_recipe

DETECTOR = ModelSettings(kind="detector")
ACTIONS = ModelSettings(kind="actions")


def test_importing_the_package_imports_no_framework() -> None:
    heavy = "{'torch', 'torchvision', 'onnxruntime', 'av', 'ray', 'boto3'}"
    code = f"import sys, vidproc.models; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Names


def test_auto_takes_what_the_machine_can_run() -> None:
    assert resolve_spec("auto", "detector", gpu=True) == "fasterrcnn_resnet50_fpn_v2"
    assert resolve_spec("auto", "detector", gpu=False) == "ssdlite320_mobilenet_v3_large"
    assert resolve_spec("auto", "actions", gpu=True) == "s3d"
    assert resolve_spec("auto", "actions", gpu=False) is None
    assert resolve_spec("none", "actions", gpu=True) is None
    assert resolve_spec("r3d_18", "actions", gpu=False) == "r3d_18"


def test_auto_for_actions_without_a_gpu_is_no_model() -> None:
    assert describe_model("auto", ModelSettings(kind="actions", device="cpu")) is None
    assert describe_model("none", DETECTOR) is None
    with pytest.raises(ConfigError, match=r"no actions model to load \(without a GPU"):
        load_model("auto", device="cpu", settings=ACTIONS)


def test_auto_and_demo_need_a_kind() -> None:
    for spec in ("auto", "demo"):
        with pytest.raises(ConfigError, match="say which kind is meant"):
            load_model(spec)


def test_a_folder_here_does_not_hide_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("demo", "s3d"):  # `vidproc demo` leaves one of that name
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    for kind in ("detector", "actions", "embedding"):
        card = describe_model("demo", ModelSettings(kind=kind))
        assert card is not None and card.name.startswith("demo")
    assert find_recipe("s3d", ACTIONS).family == "torchvision-video"
    with pytest.raises(ConfigError, match="not a model folder"):
        find_recipe("./demo", DETECTOR)


def test_an_unknown_name_is_answered_with_close_ones() -> None:
    with pytest.raises(ConfigError, match=r"no model named 'fasterrcn_resnet50_fpn'; did you mean fasterrcnn_resnet50"):
        describe_model("fasterrcn_resnet50_fpn", DETECTOR)
    with pytest.raises(ConfigError, match=r"no model named 'zzz'\. Known are auto, demo"):
        describe_model("zzz", DETECTOR)


def test_a_model_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="r3d_18 is an action model, but it was given as a detector"):
        find_recipe("r3d_18", DETECTOR)


def test_the_list_names_every_model_and_fetches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDPROC_MODEL_CACHE", str(tmp_path / "cache"))
    listed = list_models()
    assert [e.kind for e in listed if e.name == "demo" and e.cached] == ["actions", "detector"]
    entries = {e.name: e for e in listed if e.name != "demo"}
    from torchvision.models import detection, video
    from torchvision.models import list_models as builders

    assert set(entries) == {*builders(module=detection), *builders(module=video)} and len(entries) >= 21
    assert entries["ssdlite320_mobilenet_v3_large"].labels == 80
    assert entries["ssdlite320_mobilenet_v3_large"].sha256 == "a79551df"
    assert entries["s3d"].kind == "actions" and entries["s3d"].labels == 400
    assert not any(e.cached for e in entries.values())
    assert not (tmp_path / "cache").exists()


# Settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 0}, "batch_size .* at least 1"),
        ({"score_threshold": 1.5}, "score_threshold .* between 0 and 1"),
        ({"fps": "often"}, "fps must be a number such as"),
        ({"fps": -1}, "fps must be positive"),
        ({"size": (0, 320)}, "size .* positive"),
    ],
)
def test_settings_check_themselves(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelSettings(**given)  # type: ignore[arg-type]


def test_settings_travel() -> None:
    s = ModelSettings(kind="detector", fps="7.5", options={"decoding": "yolox"})
    assert pickle.loads(pickle.dumps(s)) == s
    assert s.fps == Fraction(15, 2)


def test_overrides_change_the_grid() -> None:
    recipe = find_recipe("s3d", ModelSettings(fps=7.5, window=32))
    assert recipe.grid.fps == Fraction(15, 2)
    assert (recipe.grid.window, recipe.grid.stride) == (32, 16)
    assert find_recipe("s3d", ModelSettings(stride=128)).grid.stride == 128
    grid = find_recipe("fcos_resnet50_fpn", ModelSettings(fps=5, size=(400, 666), keyframes_only=True)).grid
    assert grid == Grid(fps=Fraction(5), size=FrameSize(mode="fit", height=400, width=666), keyframes_only=True)


def test_a_window_that_the_weights_do_not_allow_is_refused() -> None:
    with pytest.raises(ConfigError, match="mvit_v2_s takes windows of exactly 16 frames, not 32"):
        find_recipe("mvit_v2_s", ModelSettings(window=32))
    with pytest.raises(ConfigError, match="s3d takes windows of 14 to"):
        find_recipe("s3d", ModelSettings(window=8))
    with pytest.raises(ConfigError, match="is a detector: it sees single frames"):
        find_recipe("fcos_resnet50_fpn", ModelSettings(window=2))


def test_a_smaller_action_size_keeps_the_proportion_of_its_crop() -> None:
    swin = find_recipe("swin3d_t", ModelSettings(size=(112, 112))).grid.size
    assert swin == FrameSize(mode="crop", short_side=128, height=112, width=112)
    r3d = find_recipe("r3d_18", ModelSettings(size=(64, 86)))
    assert (r3d.grid.size.height, r3d.grid.size.width, r3d.preprocessing.crop) == (64, 86, 56)


# Devices and batches


def test_devices_that_are_not_there_are_refused() -> None:
    import torch

    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto") == torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="There is no device cuda:99: this machine has"):
        pick_device("cuda:99")
    for name in ("gpu", "cuda:x", "tpu:0"):
        with pytest.raises(ConfigError, match="must be auto, cpu, cuda or cuda:N"):
            pick_device(name)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 9))
def test_batches_cover_all_items_and_shrink_when_memory_is_short(count: int, size: int, fits: int) -> None:
    import torch

    def infer(part: np.ndarray) -> list[int]:
        if len(part) > fits:
            raise torch.OutOfMemoryError
        return [int(v) for v in part[:, 0, 0, 0]]

    items = np.arange(count, dtype=np.int64).reshape(-1, 1, 1, 1)
    done = Batches(size).run(items, infer)
    assert [v for _, part in done for v in part] == list(range(count))
    assert all(part[0] == start for start, part in done)


def test_an_item_too_large_for_the_device_is_worth_another_try() -> None:
    import torch

    from vidproc.errors import TransientError

    def infer(part: np.ndarray) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(TransientError, match=r"does not hold one item of \(4, 4, 3\)"):
        Batches(8).run(np.zeros((5, 4, 4, 3), np.uint8), infer)


# Model files


def example_recipe(folder: Path) -> Recipe:
    return Recipe(
        name="helmets",
        kind="detector",
        family="torchvision-detection",
        arch="ssdlite320_mobilenet_v3_large",
        args={"num_classes": 3},
        labels=("helmet", "vest"),
        grid=Grid(fps=Fraction(15, 2), size=FrameSize(mode="stretch", height=320, width=320)),
        weights=str(folder / "model.safetensors"),
        sha256="ab" * 32,
        license="Apache-2.0",
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5)),
        score_threshold=0.4,
    )


def test_a_model_file_says_all_that_a_recipe_holds(tmp_path: Path) -> None:
    recipe = example_recipe(tmp_path)
    values = recipe.to_mapping() | {"weights": "model.safetensors"}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(values))
    assert read_recipe(tmp_path, {}) == recipe
    assert read_recipe(tmp_path / "model.yaml", {}) == recipe
    (tmp_path / "other.json").write_text(json.dumps(values))
    assert read_recipe(tmp_path / "other.json", {}) == recipe
    assert read_recipe(tmp_path, {"grid": {"fps": 3}}) == replace(recipe, grid=replace(recipe.grid, fps=Fraction(3)))


def test_labels_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("helmet\nvest\n")
    values = example_recipe(tmp_path).to_mapping() | {"labels": "names.txt"}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(values))
    assert read_recipe(tmp_path, {}).labels == ("helmet", "vest")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lables": ["x"]}, r"unknown key 'lables'; did you mean labels\?"),
        ({"grid": {"fsp": 2}}, r"grid: unknown key 'fsp'; did you mean fps\?"),
        ({"grid": {"size": {"hight": 2}}}, r"grid.size: unknown key 'hight'; did you mean height"),
        ({"grid": {"fps": "x"}}, "grid.fps must be a number"),
        ({"preprocessing": {"colour": "bgr"}}, r"preprocessing: unknown key 'colour'; did you mean color"),
        ({"preprocessing": {"color": "yuv"}}, "color must be rgb or bgr"),
        ({"family": "torchvision-detect"}, "unknown model family 'torchvision-detect'; did you mean torchvision-detec"),
        ({"kind": "tracker"}, "kind must be detector, actions or embedding"),
        ({"labels": []}, "needs labels"),
        ({"outputs_of_labels": [1]}, "2 labels, but outputs_of_labels has 1"),
        ({"sha256": 0}, "in quotes; not '0'"),  # what YAML makes of 64 bare zeros
        ({"sha256": "abc"}, "sha256 is all 64 hexadecimal digits .* or the first 8 or more"),
        ({"format": 2}, "format 2 .* not known"),
        ({"labels": "absent.txt"}, r"labels file .*absent\.txt cannot be read"),
    ],
)
def test_a_wrong_model_file_is_refused_by_name(change: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(example_recipe(tmp_path).to_mapping() | change))
    with pytest.raises(ConfigError, match=message) as refused:
        read_recipe(tmp_path, {})
    assert (
        "model.yaml" in str(refused.value) or "helmets" in str(refused.value) or "preprocessing" in str(refused.value)
    )


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no model file or folder .*absent\.onnx"):
        describe_model(str(tmp_path / "absent.onnx"))
    with pytest.raises(ConfigError, match=r"s3://b/m: a model is named by a local path; .* `weights`"):
        describe_model("s3://b/m")
    with pytest.raises(ConfigError, match=r"not a model folder: it holds no model\.yaml"):
        describe_model(str(tmp_path))
    (tmp_path / "model.yaml").write_text("- a list")
    with pytest.raises(ConfigError, match="must be a mapping"):
        describe_model(str(tmp_path))
    (tmp_path / "model.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="cannot be read"):
        describe_model(str(tmp_path))


def test_every_family_has_its_loader() -> None:
    import importlib

    for module in set(FAMILIES.values()):
        assert callable(importlib.import_module(module).load)


def test_coco_labels_are_the_data_sets() -> None:
    from vidproc.models.torchvision_recipes import torchvision_recipe

    for name in ("fasterrcnn_resnet50_fpn_v2", "ssdlite320_mobilenet_v3_large", "fcos_resnet50_fpn"):
        assert torchvision_recipe(name).labels == COCO80


# The user's own classes

USER_MODULE = '''
from fractions import Fraction
import numpy as np
from vidproc.annotations import Detections
from vidproc.media import FrameSize, Grid
from vidproc.models import ModelCard

CARD = ModelCard(name="corner", kind="detector", labels=("corner",), licence="MIT", weights_uri="",
                 weights_sha256="0" * 64, grid=Grid(fps=Fraction(2), size=FrameSize(mode="native")))

class Corner:
    """One box a frame, at its top left."""
    made = 0
    def __init__(self, settings):
        type(self).made += 1
        self.settings, self.card = settings, CARD
    def detect(self, frames):
        n = len(frames)
        boxes = np.tile(np.float32([0, 0, 8, 8]), (n, 1))
        return Detections(np.arange(n), boxes, np.full(n, 0.9, np.float32), np.zeros(n, np.int64))

class Described(Corner):
    @classmethod
    def describe(cls, settings):
        return CARD

class NoCard:
    def __init__(self, settings): pass

class NoSurface:
    card = CARD
    def __init__(self, settings): pass

class Unmade(Corner):
    def __init__(self, settings):
        raise RuntimeError("the weights are away")

class Dumb(Corner):
    def detect(self, frames):
        return [1, 2]

class Wrong(Corner):
    def detect(self, frames):
        found = super().detect(frames)
        return Detections(found.frame + 5, found.boxes, found.score, found.class_id)
'''


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its name; the file lies in the working directory, which is not on sys.path."""
    name = f"user_models_{abs(hash(tmp_path)) % 10**9}"
    (tmp_path / f"{name}.py").write_text(USER_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    return name


def test_a_users_class_is_a_model(user_module: str) -> None:
    settings = ModelSettings(kind="detector", score_threshold=0.7)
    model = load_model(f"{user_module}:Corner", device="cpu", settings=settings)
    assert isinstance(model.card, ModelCard) and model.card.name == "corner"
    assert model.settings == replace(settings, device="cpu")  # type: ignore[union-attr]
    assert len(model.detect(np.zeros((3, 16, 16, 3), np.uint8))) == 3  # type: ignore[union-attr]
    assert fetch_model(f"{user_module}:Corner") is None
    assert check_model(f"{user_module}:Corner").card == model.card


def test_a_users_class_may_describe_itself_without_being_made(user_module: str) -> None:
    card = describe_model(f"{user_module}:Described", DETECTOR)
    assert card is not None and card.name == "corner"
    assert sys.modules[user_module].Described.made == 0
    assert describe_model(f"{user_module}:Corner", DETECTOR) == card
    assert sys.modules[user_module].Corner.made == 1


def test_a_users_class_that_is_no_model_is_refused(user_module: str) -> None:
    for name, message in (
        ("NoCard", "needs a `card`"),
        ("NoSurface", "needs a method detect"),
        ("Coner", r"has no class 'Coner'; did you mean Corner"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_model(f"{user_module}:{name}")
    with pytest.raises(ConfigError, match="its card says detector, but it was given as actions"):
        load_model(f"{user_module}:Corner", settings=ACTIONS)
    with pytest.raises(ConfigError, match=r"no_such_module:Thing cannot be imported .* must lie on PYTHONPATH or in"):
        load_model("no_such_module:Thing")
    with pytest.raises(ConfigError, match="does not answer as its card says"):
        check_model(f"{user_module}:Wrong")
    for name, call, message in (
        ("Unmade", check_model, r"it raised RuntimeError: the weights are away \(.*user_models_\d+\.py, line \d+"),
        ("Unmade", describe_model, "it raised RuntimeError"),
        ("Dumb", check_model, "it raised AttributeError"),
    ):
        with pytest.raises(ConfigError, match=message):
            call(f"{user_module}:{name}")


def test_a_users_module_that_cannot_be_imported_is_refused(user_module: str, tmp_path: Path) -> None:
    for text, message in (
        ("x = = 1", r"it raised SyntaxError: .*\.py, line 1"),
        ("1 / 0", r"it raised ZeroDivisionError: .*\.py, line 1"),
        ("import no_such_thing", r"\(No module named 'no_such_thing'\)\.$"),
        ("from math import no_such_name", "cannot be imported .*no_such_name"),
    ):
        name = f"{user_module}_{abs(hash(text))}"
        (tmp_path / f"{name}.py").write_text(text)
        with pytest.raises(ConfigError, match=message):
            describe_model(f"{name}:Thing")


def test_a_users_class_that_cannot_be_made_on_a_worker_is_tried_again(user_module: str) -> None:
    """There it may pass, as when memory is short: only a ConfigError would stop the run at once."""
    with pytest.raises(RuntimeError, match="the weights are away"):
        load_model(f"{user_module}:Unmade")
