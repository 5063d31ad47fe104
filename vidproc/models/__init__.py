"""Models: detectors, action models and embeddings, by name, by file, or of the user's own.

    model = load_model("auto", settings=ModelSettings(kind="detector"))
    detections = model.detect(frames)

Read base.py first (the surfaces), then registry.py (what a name stands for), recipe.py (how a model is described),
loading.py and weights.py. Each family has a file of its own: detector.py and actions.py (torchvision), onnx/,
slowfast.py, temporal.py, prototypes.py (few-shot), features.py, and tiny.py and embedded.py (the embedded pair).
"""

from __future__ import annotations

from vidproc.models.base import ActionModel, Detector, EmbeddingModel, Model, ModelCard
from vidproc.models.checking import ModelCheck, check_model
from vidproc.models.listing import ModelEntry, list_models
from vidproc.models.loading import describe_model, fetch_model, load_model
from vidproc.models.recipe import Preprocessing, Recipe
from vidproc.models.registry import resolve_spec
from vidproc.models.settings import ModelSettings
from vidproc.settings import Kind

__all__ = [
    "ActionModel",
    "Detector",
    "EmbeddingModel",
    "Kind",
    "Model",
    "ModelCard",
    "ModelCheck",
    "ModelEntry",
    "ModelSettings",
    "Preprocessing",
    "Recipe",
    "check_model",
    "describe_model",
    "fetch_model",
    "list_models",
    "load_model",
    "resolve_spec",
]
