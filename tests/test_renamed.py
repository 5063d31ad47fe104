"""Files written for version 0.1 use old names of some keys: they are read as before, with a warning."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from vidproc.errors import ConfigError
from vidproc.learn.job import read_job
from vidproc.learn.train import TrainSettings
from vidproc.learn.train.checkpoint import LAST, load_checkpoint
from vidproc.models import ModelSettings, describe_model
from vidproc.renamed import OldKeyWarning
from vidproc.storage import open_storage

OLD = {"optimiser": "sgd", "rate": 0.005, "clip": 1.0, "loaders": 2}
NEW = {"optimizer": "sgd", "learning_rate": 0.005, "max_grad_norm": 1.0, "num_workers": 2}


def job_file(folder: Path, optimisation: dict[str, Any]) -> Path:
    job = {
        "task": "detection",
        "name": "tools",
        "out": str(folder / "model"),
        "data": {"archive": "videos", "train": "train.json"},
        "network": {"arch": "fasterrcnn_resnet50_fpn_v2"},
        "optimisation": {"epochs": 3, **optimisation},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return path


@pytest.mark.parametrize("old", OLD)
def test_an_old_key_of_a_training_job_means_what_it_meant(old: str, tmp_path: Path) -> None:
    new = dict(zip(OLD, NEW, strict=True))[old]
    today = read_job(job_file(tmp_path, {new: NEW[new]}), TrainSettings)
    with pytest.warns(
        OldKeyWarning, match=rf"job\.yaml: optimisation\.{old} .* optimisation\.{new}\. Write {new}"
    ) as said:
        assert read_job(job_file(tmp_path, {old: OLD[old]}), TrainSettings) == today
    assert len(said) == 1
    assert getattr(today.optimisation, new) == NEW[new]


@pytest.mark.parametrize(("old", "new"), list(zip(OLD, NEW, strict=True)))
def test_a_key_by_both_names_fails(old: str, new: str, tmp_path: Path) -> None:
    path = job_file(tmp_path, {old: OLD[old], new: NEW[new]})
    with pytest.raises(ConfigError, match=rf"job\.yaml: optimisation\.{old} and optimisation\.{new} are one setting"):
        read_job(path, TrainSettings)


def test_a_training_begun_by_version_0_1_goes_on(tmp_path: Path) -> None:
    """The fingerprint is the one that version 0.1 gave for this job, and its checkpoint is understood."""
    settings = read_job(job_file(tmp_path, NEW), TrainSettings)
    assert settings.fingerprint == "480c6bba3607ed6d"
    data = io.BytesIO()
    torch.save({"job": settings.fingerprint, "epoch": 1, "optimiser": {"state": 7}}, data)
    storage = open_storage(settings.out)
    storage.put(LAST, data.getvalue())
    found = load_checkpoint(storage, settings)
    assert found is not None and found["optimizer"] == {"state": 7}


def model_folder(folder: Path, **more: str) -> str:
    """A model folder whose description says `more`."""
    save_file({"a": torch.zeros(1)}, folder / "weights.safetensors")
    described = {
        "name": "gestures",
        "kind": "actions",
        "family": "temporal",
        "labels": ["wave", "bow"],
        "grid": {"fps": 8, "window": 8, "size": {"mode": "letterbox", "height": 48, "width": 64}},
        "weights": "weights.safetensors",
        **more,
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(described))
    return str(folder)


@pytest.mark.parametrize("place", ["description", "options"])
def test_an_old_key_of_a_model_folder_means_what_it_meant(place: str, tmp_path: Path) -> None:
    today = describe_model(model_folder(tmp_path, license="MIT"))
    assert today is not None and today.licence == "MIT"
    old = {"licence": "MIT"}
    spec = model_folder(tmp_path, **(old if place == "description" else {}))
    settings = ModelSettings(options=old if place == "options" else {})
    with pytest.warns(OldKeyWarning, match=r"model\.yaml.*: licence is the old name of license\. Write license"):
        assert describe_model(spec, settings) == today


def test_a_license_is_no_part_of_what_a_model_answers(tmp_path: Path) -> None:
    """So a change of this text makes no other pipeline, and no row is made again."""
    one = describe_model(model_folder(tmp_path, license="MIT"))
    other = describe_model(model_folder(tmp_path, license="Apache-2.0"))
    assert one is not None and other is not None
    assert (one.licence, other.licence) == ("MIT", "Apache-2.0")
    assert one.definition == other.definition
