"""Explain one answer of a model and draw it over the frames."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import cast

import numpy as np
from torch import nn

from vidproc.errors import ConfigError
from vidproc.learn.data.clips import EPS, windows_of
from vidproc.learn.data.reader import Reader
from vidproc.learn.explain.gradcam import grad_cam, grad_cam_box, grad_cam_peak
from vidproc.learn.explain.occlusion import occlusion, occlusion_box
from vidproc.learn.explain.settings import ExplainSettings, Explanation, Kind
from vidproc.learn.explain.subject import find_subject
from vidproc.learn.overlay import captioned, overlay, picture, write_mp4
from vidproc.learn.scoring.tracking import box_iou
from vidproc.media import Geometry
from vidproc.models import load_model, tiny
from vidproc.models.base import ActionModel, Detector
from vidproc.models.embedded import embedded_recipe
from vidproc.models.families import load_network
from vidproc.models.fetching import reaching
from vidproc.models.recipe import Recipe
from vidproc.models.registry import find_recipe
from vidproc.models.settings import ModelSettings
from vidproc.models.tiny import DetectorNet
from vidproc.storage import Storage, StorageOptions, open_storage, signed
from vidproc.video.decode import MediaLimits, Source


def explain(settings: ExplainSettings, *, options: StorageOptions | None = None) -> Explanation:
    """Explain one answer of a model and draw the explanation over the frames. Raises ConfigError."""
    with reaching(options):
        return _explain(settings, options)


def _explain(settings: ExplainSettings, options: StorageOptions | None) -> Explanation:
    asked = find_subject(settings, options)
    video, time_s, label, spec = asked.video, asked.time_s, asked.label, asked.model
    reader = Reader(Source(options=options), MediaLimits())
    model = load_model(spec, settings=replace(asked.settings, device=settings.device))
    card = model.card
    if asked.ref not in (None, card.ref):
        raise ConfigError(f"the row is of {asked.ref}, but {spec} is {card.ref} now; say which model is meant.")
    if label is not None and label not in card.labels:
        raise ConfigError(f"{spec} has no label {label!r}; it has {', '.join(card.labels[:20])}.")
    first = ceil((time_s - EPS) * card.grid.fps)
    if settings.kind == "actions":
        frames, geometry = reader.samples(video, card.grid, first, first + card.grid.window)
        frames = windows_of(frames, card.grid.window, [0])[0]
        class_id, score = _top_action(cast(ActionModel, model), frames, label)
        heat, method = _action_heat(settings, spec, cast(ActionModel, model), frames, class_id)
        times = [(first + i) / card.grid.fps for i in range(len(frames))]
        boxes = None
    else:
        frame, geometry = reader.moment(video, time_s, card.grid.size)
        frames, times = frame[None], [Fraction(time_s)]
        found = _found(cast(Detector, model), frame, label, asked.box, geometry, spec)
        class_id, score, boxes = found
        heat, method = _detection_heat(settings, spec, cast(Detector, model), frame, class_id, boxes)
    text = f"{card.labels[class_id]} {score:.2f}, {method}"
    storage = open_storage(settings.out, options=signed(options))
    files = _write(storage, frames, heat, [float(t) for t in times], text=text, boxes=boxes)
    t, y, x = np.unravel_index(int(heat.argmax()), heat.shape)
    at = geometry.to_upright(np.array([[x + 0.5, y + 0.5, x + 0.5, y + 0.5]]))[0]
    made = Explanation(
        label=card.labels[class_id],
        score=score,
        method=method,
        peak=(float(times[int(t)]), float(at[0]), float(at[1])),
        heat=heat,
        files=files,
    )
    said = {
        "model": card.ref,
        "video": video.uri,
        "time_s": time_s,
        "label": made.label,
        "score": score,
        "method": method,
    }
    storage.put("explanation.json", json.dumps({**said, "peak": made.peak}, indent=1).encode())
    return replace(made, files=(*files, storage.uri_of("explanation.json")))


def _top_action(model: ActionModel, frames: np.ndarray, label: str | None) -> tuple[int, float]:
    scores = model.classify(frames[None])[0]
    class_id = int(scores.argmax()) if label is None else model.card.labels.index(label)
    return class_id, float(scores[class_id])


def _found(
    model: Detector, frame: np.ndarray, label: str | None, box: np.ndarray | None, geometry: Geometry, name: str
) -> tuple[int, float, np.ndarray]:
    """Return class, score and box (1, 4), in the model's frame, of the detection to explain."""
    found = model.detect(frame[None])
    if label is not None:
        found = found[found.class_id == model.card.labels.index(label)]
    if not len(found):
        raise ConfigError(f"{name} finds no {label or 'object'} in that frame, so there is nothing to explain.")
    best = int(found.score.argmax())
    if box is not None:
        overlap = box_iou(box.astype(np.float64), geometry.to_upright(found.boxes).astype(np.float64))[0]
        best = int(overlap.argmax())
    return int(found.class_id[best]), float(found.score[best]), found.boxes[best : best + 1]


def _action_heat(
    s: ExplainSettings, spec: str, model: ActionModel, frames: np.ndarray, class_id: int
) -> tuple[np.ndarray, str]:
    if s.method != "occlusion":
        network = _network(spec, "actions")
        if network is not None:
            return grad_cam(network[1], frames, network[0].preprocessing, class_id), "grad-cam"
        if s.method == "grad-cam":
            raise ConfigError(f"{spec} is no torch network with maps of features: use the method occlusion.")
    return occlusion(model.classify, frames, class_id, cells=s.cells, moments=s.moments), "occlusion"


def _network(spec: str, kind: Kind) -> tuple[Recipe, nn.Module] | None:
    """Return the network behind a spec, or None where Grad-CAM does not work with it."""
    if ":" in spec or (spec == "demo" and kind == "detector"):
        return None
    recipe = embedded_recipe() if spec == "demo" else find_recipe(spec, ModelSettings(kind=kind, device="cpu"))
    # Transformers have tokens, not maps, at their end.
    if recipe.family == "onnx" or recipe.arch.startswith(("mvit", "swin")):
        return None
    network = load_network(recipe)
    return recipe, network


def _detection_heat(
    s: ExplainSettings, spec: str, model: Detector, frame: np.ndarray, class_id: int, box: np.ndarray
) -> tuple[np.ndarray, str]:
    if s.method != "occlusion":
        if spec == "demo":
            return grad_cam_peak(cast(DetectorNet, tiny.load_network("detector")), frame, class_id, box), "grad-cam"
        network = _network(spec, "detector")
        if network is not None:
            return grad_cam_box(network[1], network[0], frame, class_id, box), "grad-cam"
        if s.method == "grad-cam":
            raise ConfigError(f"{spec} is no torch network with maps of features: use the method occlusion.")
    return occlusion_box(model.detect, frame, class_id, box, cells=s.cells), "occlusion"


def _write(
    storage: Storage, frames: np.ndarray, heat: np.ndarray, times: list[float], *, text: str, boxes: np.ndarray | None
) -> tuple[str, ...]:
    """Draw the heat over the frames, with `text` as caption. Returns where the picture and the video lie."""
    drawn = overlay(frames, heat, boxes)
    storage.put("overlay.png", picture(frames, drawn, heat, times, text))
    fps = 1 / (times[1] - times[0]) if len(times) > 1 else 1.0
    storage.put("overlay.mp4", write_mp4(captioned(drawn, heat, times, text), fps))
    return storage.uri_of("overlay.mp4"), storage.uri_of("overlay.png")
