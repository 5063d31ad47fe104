"""What a model's name stands for: from a spec to a Recipe, without loading anything.

A spec is one of
  `auto`                a strong torchvision model where there is a GPU, a light one where there is none
  `demo`                the embedded pair (vidproc.models.tiny)
  a torchvision name    every detection and video builder, with the weights' own transforms and labels
  a path                an .onnx file with its description beside it (x.yaml or x.json), a model folder
                        (model.yaml and the weights), or such a description itself
  `package.module:Class`  a class of the user's, called with the ModelSettings
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from vidproc.errors import ConfigError
from vidproc.models.descriptions import read_recipe
from vidproc.models.fetching import is_remote, shown
from vidproc.models.foreign import refuse_foreign_model
from vidproc.models.recipe import FAMILIES, Recipe, did_you_mean
from vidproc.models.settings import ModelSettings
from vidproc.models.torchvision_recipes import torchvision_names, torchvision_recipe
from vidproc.settings import Kind


def resolve_spec(spec: str, kind: Kind, *, gpu: bool | None = None) -> str | None:
    """The model that `auto` and `none` stand for; other specs as they are. None: no model.

    `gpu` tells whether the workers have one (the driver may not); None: look at this machine.
    """
    if spec == "none":
        return None
    if spec != "auto":
        return spec
    if kind == "embedding":
        return "resnet18"
    if gpu is None:
        import torch

        gpu = torch.cuda.is_available()
    if kind == "detector":
        return "fasterrcnn_resnet50_fpn_v2" if gpu else "ssdlite320_mobilenet_v3_large"
    return "s3d" if gpu else None


def find_recipe(spec: str, settings: ModelSettings) -> Recipe:
    """The recipe of a torchvision name or a path, the job's settings over it. Raises ConfigError."""
    if is_remote(spec):
        raise ConfigError(
            f"{shown(spec)}: a model is named by a local path; its weights may lie elsewhere: give their address as "
            "`weights`, with their `sha256`, in a model.yaml here or in the job file."
        )
    path = Path(spec).expanduser()
    if path.suffix or os.sep in spec:
        refuse_foreign_model(path)
    is_file = path.suffix.lower() in (".onnx", ".yaml", ".yml", ".json") or os.sep in spec
    # What `vidproc demo` leaves in a folder of that name is no model.
    if is_file or (path.is_dir() and spec not in ("demo", *torchvision_names())):
        return read_recipe(path, settings.options).with_settings(settings)
    if settings.options:
        raise ConfigError(f"options {sorted(settings.options)} are for model files; {spec} describes itself.")
    if settings.kind == "embedding" and spec == "demo":
        return importlib.import_module(FAMILIES["embedded"]).embedded_recipe().with_settings(settings)  # type: ignore[no-any-return]
    if settings.kind == "embedding" and spec not in torchvision_names():
        return importlib.import_module(FAMILIES["features"]).image_recipe(spec).with_settings(settings)  # type: ignore[no-any-return]
    names = torchvision_names()
    if spec not in names:
        raise ConfigError(
            f"There is no model named {spec!r}{did_you_mean(spec, [*names, 'auto', 'demo'])} Known are auto, demo, "
            "the torchvision names (vidproc models list), the path of an .onnx file or model folder, "
            "and package.module:Class."
        )
    return torchvision_recipe(spec).with_settings(settings)
