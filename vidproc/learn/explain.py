"""Why did the model say so: where, and when, it looked.

Grad-CAM (Selvaraju et al. 2017) asks the network's own last feature maps; occlusion (Zeiler and Fergus
2014; for boxes after Petsiuk et al. 2021, D-RISE) hides one place at one time after another and sees
what the score loses, so it works for any model at all, ONNX and the user's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from math import ceil
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from vidproc.errors import ConfigError
from vidproc.learn.data import EPS, Reader, normalise, windows_of
from vidproc.learn.labels import object_at
from vidproc.learn.lake import LakeRows, open_rows
from vidproc.learn.overlay import captioned, overlay, picture, write_mp4
from vidproc.learn.scoring.tracking import box_iou
from vidproc.media import Geometry, Video
from vidproc.models import list_models, load_model, tiny
from vidproc.models.base import ActionModel, Detector
from vidproc.models.embedded import embedded_recipe
from vidproc.models.families import build_network, load_network
from vidproc.models.recipe import Preprocessing, Recipe
from vidproc.models.registry import find_recipe
from vidproc.models.settings import ModelSettings
from vidproc.models.slowfast import SlowFast
from vidproc.models.tiny import DetectorNet
from vidproc.secrets import hidden_in
from vidproc.storage import StorageOptions, open_storage, signed
from vidproc.tables.own import is_own
from vidproc.video.decode import MediaLimits, Source

Method = Literal["auto", "grad-cam", "occlusion"]
Kind = Literal["detector", "actions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainSettings:
    kind: Kind
    out: str
    """Folder or s3:// prefix for overlay.mp4, overlay.png and explanation.json."""
    video: str | None = None
    """Path or URI; or give `lake` and `row`."""
    time_s: float = 0.0
    """Of the frame (a detector's), or of the window's first sample."""
    lake: str | None = None
    row: str | None = None
    """SQL condition that picks a row of detections or actions; the one that scored best is taken."""
    pipeline: str | None = None
    model: str | None = None
    """A name or folder; None: the one that wrote the row, with the settings of the run that wrote it."""
    label: str | None = None
    """What is to be explained; None: the answer that scored best."""
    method: Method = "auto"
    """auto: grad-cam where the network is one of torch with maps of features, else occlusion."""
    cells: tuple[int, int] = (8, 8)
    """Occlusion: places down and across; each patch covers 2 x 2 of them."""
    moments: int = 4
    """Occlusion: stretches of the window that are hidden one by one."""
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.method not in ("auto", "grad-cam", "occlusion"):
            raise ConfigError(f"the method must be auto, grad-cam or occlusion, not {self.method!r}")
        if self.kind not in ("detector", "actions"):
            raise ConfigError(f"the kind must be detector or actions, not {self.kind!r}")
        if (self.video is None) == (self.lake is None) or (self.lake is None) != (self.row is None):
            raise ConfigError("give either a video, or a lake and a row of it")
        if self.video is not None and self.model is None:
            raise ConfigError(f"say which model is to be asked about {self.video}")
        if min(self.cells) < 2 or self.moments < 1:
            raise ConfigError(f"cells from 2 x 2, moments from 1: {self}")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Explanation:
    label: str
    score: float
    method: str
    peak: tuple[float, float, float]
    """time_s, x, y of the highest value: seconds, and pixels of the upright frame."""
    heat: np.ndarray
    """float32 (t, h, w), 0 to 1, over the model's frames."""
    files: tuple[str, ...]


def explain(settings: ExplainSettings, *, options: StorageOptions | None = None) -> Explanation:
    """Explains one answer and draws it over the frames. Raises ConfigError."""
    asked = _subject(settings, options)
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
    files = _write(settings, options, frames, heat, [float(t) for t in times], text, boxes)
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
    storage = open_storage(settings.out, options=signed(options))
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


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Subject:
    video: Video
    time_s: float
    label: str | None
    model: str
    settings: ModelSettings
    box: np.ndarray | None = None
    """Of a detection of a lake: (1, 4) in pixels of the upright frame."""
    ref: str | None = None
    """The model that the row names, where nobody says which is meant."""


def _subject(s: ExplainSettings, options: StorageOptions | None) -> _Subject:
    own = ModelSettings(kind=s.kind)
    if s.video is not None:
        assert s.model is not None
        video = object_at(s.video, options)
        return _Subject(video=video, time_s=s.time_s, label=s.label, model=s.model, settings=own)
    assert s.lake is not None
    table, start = ("actions", "start_s") if s.kind == "actions" else ("detections", "time_s")
    box = ", d.x_min, d.y_min, d.x_max, d.y_max" if s.kind == "detector" else ""
    with open_rows(s.lake, s.pipeline, signed(options)) as lake:
        rows = lake.rows(
            f"SELECT v.uri, v.run_id, d.model, d.{start} AS at, d.label{box} "
            f"FROM {table} d JOIN videos v USING (video_id, pipeline) "
            f"WHERE pipeline = $pipeline AND (\n{s.row}\n) ORDER BY d.score DESC LIMIT 1"
        ).to_pylist()
        if not rows:
            raise ConfigError(f"{s.lake}: no row of {table} fits {s.row}.")
        row = rows[0]
        model, settings = (s.model, own) if s.model else _model_of_run(lake, row["run_id"], row["model"], s.kind)
    return _Subject(
        video=object_at(str(row["uri"]), options),
        time_s=float(row["at"]),
        label=s.label or str(row["label"]),
        model=model,
        settings=settings,
        box=np.array([[row[k] for k in ("x_min", "y_min", "x_max", "y_max")]], np.float32) if box else None,
        ref=None if s.model else str(row["model"]),
    )


def _model_of_run(lake: LakeRows, run_id: str, ref: str, kind: Kind) -> tuple[str, ModelSettings]:
    """The spec that a run's job gave, and what it said of the model: its frames are to be seen again as they were."""
    jobs = lake.rows("SELECT job FROM runs WHERE run_id = $run AND $pipeline IS NOT NULL", run=run_id)
    said = json.loads(jobs["job"][0].as_py()) if jobs.num_rows else {}
    wanted = said.get(kind) if isinstance(said, dict) else None
    if hidden := hidden_in(wanted, kind):
        raise ConfigError(
            f"{lake.lake.uri}: a secret was left out of what the run {run_id} wrote down ({', '.join(hidden)}), so the "
            "model cannot be opened as it was then: say which model is meant."
        )
    if not isinstance(wanted, dict) or wanted.get("model") in (None, "auto"):
        raise ConfigError(f"{lake.lake.uri}: the run {run_id} does not say where {ref} lies; say which model is meant.")
    listed = wanted["model"] in {m.name for m in list_models()} and not (wanted.get("weights") or wanted.get("options"))
    if not listed and not is_own(jobs["job"][0].as_py()):
        raise ConfigError(
            f"{lake.lake.uri}: its run {run_id}, which was not yours on this machine, names the model "
            f"{wanted['model']}: say that it is meant (--model), or another one."
        )
    known = {f.name for f in fields(ModelSettings)} - {"kind", "device", "storage"}
    given = {k: v for k, v in wanted.items() if k in known and v is not None}
    return str(wanted["model"]), ModelSettings(kind=kind, **given)


def _top_action(model: ActionModel, frames: np.ndarray, label: str | None) -> tuple[int, float]:
    scores = model.classify(frames[None])[0]
    class_id = int(scores.argmax()) if label is None else model.card.labels.index(label)
    return class_id, float(scores[class_id])


def _found(
    model: Detector, frame: np.ndarray, label: str | None, box: np.ndarray | None, geometry: Geometry, name: str
) -> tuple[int, float, np.ndarray]:
    """Class, score and box (1, 4) in the model's frame of the detection that is meant."""
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


# Actions


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
    """The network behind a spec, where Grad-CAM can ask it."""
    if ":" in spec or (spec == "demo" and kind == "detector"):
        return None
    recipe = embedded_recipe() if spec == "demo" else find_recipe(spec, ModelSettings(kind=kind, device="cpu"))
    # Transformers have tokens, not maps, at their end.
    if recipe.family == "onnx" or recipe.arch.startswith(("mvit", "swin")):
        return None
    network = load_network(recipe)
    return recipe, network


def mirrored_grad_cam(
    network: nn.Module, frames: np.ndarray, preprocessing: Preprocessing, class_id: int
) -> np.ndarray:
    """The mean of `grad_cam` over a window and its mirror image: float32 (t, h, w), 0 to 1. A coarse map has less
    of its own grid left in it so; only for classes that do not tell left from right."""
    there = grad_cam(network, frames, preprocessing, class_id)
    back = grad_cam(network, np.ascontiguousarray(frames[:, :, ::-1]), preprocessing, class_id)[:, :, ::-1]
    return _unit(there + back)


def grad_cam(network: nn.Module, frames: np.ndarray, preprocessing: Preprocessing, class_id: int) -> np.ndarray:
    """Frames uint8 (t, h, w, 3) of one window -> heat float32 (t, h, w), 0 to 1: the last feature maps, each
    weighted by the mean gradient of the class's logit over it, the positive part, brought to the frames' size.

    Where the last maps still have time (3D networks), or are made frame by frame (CNN and head), the heat
    says when as well; weights are per frame in the second case.
    """
    network.eval()
    clip = normalise(torch.from_numpy(frames).permute(0, 3, 1, 2), preprocessing).transpose(0, 1)[None].contiguous()
    with torch.enable_grad(), _Maps(network) as maps:
        logits = network(clip.requires_grad_(True))
        features = maps.last()
        (gradient,) = torch.autograd.grad(logits[0, class_id], features)
    if features.ndim == 4:  # (t, c, h, w): frame by frame
        features, gradient = features.transpose(0, 1)[None], gradient.transpose(0, 1)[None]
        weight = gradient.mean((3, 4), keepdim=True)
    else:
        weight = gradient.mean((2, 3, 4), keepdim=True)
    cam = (features * weight).sum(1, keepdim=True).relu().detach()
    side = preprocessing.crop
    size = (len(frames), side, side) if side else frames.shape[:3]
    heat = nn.functional.interpolate(cam, size=tuple(size), mode="trilinear", align_corners=False)[0, 0].numpy()
    return _unit(_padded(heat, frames.shape[1:3]))


class _Maps:
    """Hears the feature maps of a network while it runs; `last` gives those nearest to the answer."""

    _KINDS = (nn.Conv2d, nn.Conv3d, nn.BatchNorm2d, nn.BatchNorm3d, nn.ReLU, nn.SiLU, nn.Hardswish)

    def __init__(self, network: nn.Module) -> None:
        self._handles: list[Any] = []
        self._seen: list[Tensor] = []
        if isinstance(network, SlowFast):  # its stages give pairs; Slow is where the meaning is
            stage = network.stages[-1]
            self._handles.append(stage.register_forward_hook(lambda _, __, out: self._seen.append(out.slow)))
            return
        for module in network.modules():
            if isinstance(module, self._KINDS):
                self._handles.append(module.register_forward_hook(self._hear))

    def _hear(self, _: nn.Module, __: Any, out: Any) -> None:
        if isinstance(out, Tensor) and out.ndim in (4, 5) and min(out.shape[-2:]) > 1 and out.requires_grad:
            self._seen.append(out)

    def last(self) -> Tensor:
        if not self._seen:
            raise ConfigError("the network has no maps of features that Grad-CAM could ask: use the method occlusion.")
        return self._seen[-1]

    def __enter__(self) -> _Maps:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def occlusion(
    classify: Callable[[np.ndarray], np.ndarray],
    frames: np.ndarray,
    class_id: int,
    *,
    cells: tuple[int, int] = (8, 8),
    moments: int = 4,
) -> np.ndarray:
    """Frames uint8 (t, h, w, 3) -> heat float32 (t, h, w), 0 to 1: what the class's score loses, on average
    over the patches that hide a place, when it is hidden during one stretch of the window."""
    t, h, w, _ = frames.shape
    whole = float(classify(frames[None])[0, class_id])
    loss, count = np.zeros((t, h, w), np.float32), np.zeros((t, h, w), np.float32)
    patches = _patches(h, w, cells)
    for span in np.array_split(np.arange(t), min(moments, t)):
        stretch = slice(int(span[0]), int(span[-1]) + 1)
        hidden = np.repeat(frames[None], len(patches), 0)
        for window, patch in zip(hidden, patches, strict=True):
            _hide(window, span, patch)
        scores = np.concatenate([classify(hidden[i : i + 16])[:, class_id] for i in range(0, len(hidden), 16)])
        for patch, score in zip(patches, scores, strict=True):
            loss[(stretch, *patch)] += max(0.0, whole - float(score))
            count[(stretch, *patch)] += 1
    return _unit(loss / np.maximum(count, 1))


Patch = tuple[slice, slice]


def _patches(h: int, w: int, cells: tuple[int, int]) -> list[Patch]:
    """Places two cells high and wide, one cell apart."""
    ys, xs = (np.linspace(0, side, n + 1).round().astype(int) for side, n in ((h, cells[0]), (w, cells[1])))
    return [
        (slice(int(ys[i]), int(ys[i + 2])), slice(int(xs[j]), int(xs[j + 2])))
        for i in range(cells[0] - 1)
        for j in range(cells[1] - 1)
    ]


def _hide(window: np.ndarray, which: np.ndarray, patch: Patch) -> None:
    """Paints a patch of some of the frames (n, h, w, 3) with the mean colour of what surrounds it there."""
    y, x = patch
    frames = window[which]
    grown = frames[:, max(0, y.start - 2) : y.stop + 2, max(0, x.start - 2) : x.stop + 2].astype(np.float32)
    inside = frames[:, y, x].astype(np.float32)
    ring = grown.shape[1] * grown.shape[2] - inside.shape[1] * inside.shape[2]
    colour = (grown.sum((1, 2)) - inside.sum((1, 2))) / max(1, ring)
    frames[:, y, x] = colour[:, None, None].astype(np.uint8)
    window[which] = frames


# Detections


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


def grad_cam_box(network: nn.Module, recipe: Recipe, frame: np.ndarray, class_id: int, box: np.ndarray) -> np.ndarray:
    """A torchvision detector, a frame uint8 (h, w, 3) and a box (1, 4) in it -> heat float32 (1, h, w).

    The score is that of the detection of the class that overlaps the box most. Maps are weighted
    element by element (Draelos and Carin 2020, HiResCAM): a box's score comes from its own place, which
    a mean gradient over the whole map would smear. All levels of a feature pyramid are added up.
    """
    from vidproc.models.detector import prepare

    network = prepare(network, recipe, ModelSettings(score_threshold=0.0)).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    kept: list[Tensor] = []

    def hear(_: nn.Module, __: Any, out: Any) -> None:
        kept.extend(out.values() if isinstance(out, dict) else [out])

    handle = cast(nn.Module, cast(Any, network).backbone).register_forward_hook(hear)
    try:
        with torch.enable_grad():
            image = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
            found = network(image)[0]
    finally:
        handle.remove()
    output = (recipe.outputs_of_labels or tuple(range(1, len(recipe.labels) + 1)))[class_id]
    mine = torch.nonzero(found["labels"] == output)[:, 0]
    if not len(mine):
        raise ConfigError(f"{recipe.name} finds no {recipe.labels[class_id]} in that frame.")
    overlap = box_iou(box.astype(np.float64), found["boxes"][mine].detach().numpy().astype(np.float64))[0]
    score = found["scores"][mine[int(overlap.argmax())]]
    return _levels_heat(score, kept, frame)


def grad_cam_peak(network: DetectorNet, frame: np.ndarray, class_id: int, box: np.ndarray) -> np.ndarray:
    """The same of the embedded detector, whose score of a box is a cell of its heat map, near the middle."""
    kept: list[Tensor] = []
    levels = (network.down8, network.down16, network.down32)
    handles = [level.register_forward_hook(lambda _, __, out: kept.append(out)) for level in levels]
    try:
        with torch.enable_grad():
            heat, _ = network(torch.from_numpy(frame).permute(2, 0, 1)[None].float())
    finally:
        for handle in handles:
            handle.remove()
    x, y = ((box[0, :2] + box[0, 2:]) / 2 / tiny.STRIDE).astype(int).tolist()
    near = heat[0, class_id, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
    return _levels_heat(near.max(), kept, frame)


def _levels_heat(score: Tensor, levels: list[Tensor], frame: np.ndarray) -> np.ndarray:
    """What the maps of all levels say of a score, added up at the frame's size: float32 (1, h, w)."""
    heat = torch.zeros(1, 1, *frame.shape[:2])
    for features, gradient in zip(levels, torch.autograd.grad(score, levels, allow_unused=True), strict=True):
        if gradient is not None:
            cam = (features * gradient).sum(1, keepdim=True).relu().detach()
            heat += nn.functional.interpolate(cam, size=frame.shape[:2], mode="bilinear", align_corners=False)
    return _unit(heat[0].numpy())


def occlusion_box(
    detect: Callable[[np.ndarray], Any],
    frame: np.ndarray,
    class_id: int,
    box: np.ndarray,
    *,
    cells: tuple[int, int] = (8, 8),
) -> np.ndarray:
    """A frame uint8 (h, w, 3) and a box (1, 4) in it -> heat float32 (1, h, w): what is lost of score times
    overlap of the best detection of the class, when a place is hidden."""
    h, w, _ = frame.shape
    patches = _patches(h, w, cells)
    frames = np.repeat(frame[None], len(patches) + 1, 0)
    for i, patch in enumerate(patches):
        _hide(frames, np.array([i]), patch)
    likeness = np.zeros(len(frames))
    for start in range(0, len(frames), 16):
        found = detect(frames[start : start + 16])
        for f, b, score, c in zip(found.frame, found.boxes, found.score, found.class_id, strict=True):
            if c == class_id:
                overlap = float(box_iou(box.astype(np.float64), b[None].astype(np.float64))[0, 0])
                likeness[start + f] = max(likeness[start + f], overlap * float(score))
    loss, count = np.zeros((1, h, w), np.float32), np.zeros((1, h, w), np.float32)
    for patch, left in zip(patches, likeness, strict=False):
        loss[(0, *patch)] += max(0.0, likeness[-1] - left)
        count[(0, *patch)] += 1
    return _unit(loss / np.maximum(count, 1))


# Checks of explanations


def randomise(recipe: Recipe, seed: int = 0) -> nn.Module:
    """The same network with random weights: an explanation that does not change under this explains the
    picture, not the network (Adebayo et al. 2018, Sanity Checks for Saliency Maps)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(recipe).eval()


def points_at(heat: np.ndarray, boxes: list[np.ndarray], slack: float = 0.0) -> bool:
    """The pointing game (Zhang et al. 2016): does the highest value of heat (t, h, w) lie in one of the boxes
    of its frame, boxes[t] float (n, 4), within `slack` pixels?"""
    t, y, x = np.unravel_index(int(heat.argmax()), heat.shape)
    here = boxes[int(t)]
    low, high = here[:, :2] - slack, here[:, 2:] + slack
    at = np.array([x + 0.5, y + 0.5])
    return bool(((at >= low) & (at <= high)).all(1).any())


def _unit(heat: np.ndarray) -> np.ndarray:
    top = float(heat.max(initial=0.0))
    return (heat / top if top > 0 else heat).astype(np.float32)


def _padded(heat: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Back from the centre crop that the network saw."""
    if heat.shape[1:] == tuple(size):
        return heat
    out = np.zeros((len(heat), *size), heat.dtype)
    top, left = (round((a - b) / 2) for a, b in zip(size, heat.shape[1:], strict=True))
    out[:, top : top + heat.shape[1], left : left + heat.shape[2]] = heat
    return out


def _write(
    s: ExplainSettings,
    options: StorageOptions | None,
    frames: np.ndarray,
    heat: np.ndarray,
    times: list[float],
    text: str,
    boxes: np.ndarray | None,
) -> tuple[str, ...]:
    storage = open_storage(s.out, options=signed(options))
    drawn = overlay(frames, heat, boxes)
    storage.put("overlay.png", picture(frames, drawn, heat, times, text))
    fps = 1 / (times[1] - times[0]) if len(times) > 1 else 1.0
    storage.put("overlay.mp4", write_mp4(captioned(drawn, heat, times, text), fps))
    return storage.uri_of("overlay.mp4"), storage.uri_of("overlay.png")
