"""The model to be trained: from what a job says to a Recipe and a network with its first weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS

from vidproc.errors import ConfigError
from vidproc.media import FrameSize, Grid
from vidproc.models import embedded, slowfast, temporal
from vidproc.models.families import build_network
from vidproc.models.fetching import reaching
from vidproc.models.recipe import Preprocessing, Recipe
from vidproc.models.registry import find_recipe
from vidproc.models.settings import ModelSettings
from vidproc.models.tensors import fill, state_dict_of
from vidproc.models.torchvision_recipes import torchvision_names, torchvision_recipe
from vidproc.models.weights import read_weights
from vidproc.settings import Kind
from vidproc.storage import StorageOptions

TEMPORAL = tuple(f"cnn+{head}" for head in ("lstm", "gru", "tcn", "mean"))
TEMPORAL_SIZE = FrameSize(mode="letterbox", height=112, width=112)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """Which network, how it sees, and where its weights begin."""

    arch: str
    """cnn+lstm, cnn+gru, cnn+tcn, cnn+mean, slowfast_r50_4x16, slowfast_r50_8x8, demo (the embedded action network), or
    a torchvision builder of detectors or video networks (fasterrcnn_resnet50_fpn, r3d_18, ...)."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the builder, or fields of TemporalSettings or SlowFastSettings."""
    start: str = "random"
    """Where the weights begin: `random`; `published` (torchvision's, for the builder or for the backbone of a cnn+...);
    or a weights file, URI or model folder, whose last layer may be for other classes."""
    sha256: str = ""
    """Hash of a remote `start`."""
    freeze: tuple[str, ...] = ()
    """Beginnings of names of parameters that are not trained: backbone.body.layer1, encoder, ... Their batch norms keep
    their statistics too."""
    freeze_norms: bool | None = None
    """Keep the statistics of batch normalisation. By default for a detector that begins with given weights, as its
    batches are too small to measure a mean."""
    fps: float | str | None = None
    """Frames a second that the model samples."""
    window: int | None = None
    """Frames in one window of an action model."""
    stride: int | None = None
    """Frames from one window to the next."""
    size: Mapping[str, Any] | None = None
    """Size of the frames in pixels: mode (native, stretch, letterbox, crop, fit), height, width,
    short_side."""


FCOS_DISTANCE = 2.0
"""First distance from a cell to the sides of its box, in cells. At zero, where torchvision begins, half of the outputs
lie behind a ReLU that passes no gradient. After 60 steps on the same 40 frames the loss of the boxes was 0.39, and 0.84
from zero."""


def recipe_for(name: str, labels: tuple[str, ...], settings: NetworkSettings, kind: Kind) -> Recipe:
    """The description of the model that training will make. Raises ConfigError."""
    base = _base(name, labels, settings, kind)
    if base.kind != kind:
        raise ConfigError(f"{settings.arch} is a model of kind {base.kind}, but the job trains {kind}.")
    size = base.grid.size
    if settings.size is not None:
        known = [f.name for f in fields(FrameSize)]
        if unknown := [k for k in settings.size if k not in known]:
            raise ConfigError(f"network.size: unknown key {unknown[0]!r}; known are {', '.join(known)}.")
        size = FrameSize(**settings.size)
    try:
        window = settings.window or base.grid.window
        fps = Fraction(str(settings.fps)) if settings.fps is not None else base.grid.fps
        grid = Grid(fps=fps, size=size, window=window, stride=settings.stride or max(1, window // 2))
    except ValueError as e:
        raise ConfigError(f"network: fps, window and stride must be positive: {e}") from e
    if base.windows and not base.windows[0] <= window <= base.windows[1]:
        raise ConfigError(f"network.window: {settings.arch} takes {base.windows[0]} to {base.windows[1]} frames.")
    preprocessing = base.preprocessing if settings.size is None else replace(base.preprocessing, crop=0)
    return replace(base, grid=grid, preprocessing=preprocessing)


def _base(name: str, labels: tuple[str, ...], settings: NetworkSettings, kind: Kind) -> Recipe:
    def made(family: str, grid: Grid, args: Mapping[str, Any], preprocessing: Preprocessing) -> Recipe:
        return Recipe(
            name=name,
            kind="actions",
            family=family,
            arch=settings.arch if family == "slowfast" else "",
            args=dict(args),
            labels=labels,
            grid=grid,
            preprocessing=preprocessing,
            weights=WEIGHTS,
            score_threshold=0.0,
        )

    if settings.arch in TEMPORAL:
        grid = Grid(fps=Fraction(8), size=TEMPORAL_SIZE, window=16, stride=8)
        args = {"head": settings.arch.removeprefix("cnn+"), **settings.args}
        return made("temporal", grid, args, Preprocessing(mean=temporal.MEAN, std=temporal.STD))
    if settings.arch in slowfast.SLOWFAST:
        size = FrameSize(mode="crop", short_side=256, height=256, width=256)
        frames = int(settings.args.get("frames", slowfast.SLOWFAST[settings.arch].frames))
        grid = Grid(fps=Fraction(15), size=size, window=frames, stride=frames // 2)
        return made("slowfast", grid, settings.args, Preprocessing(mean=slowfast.MEAN, std=slowfast.STD))
    if settings.arch == "demo":
        return replace(embedded.embedded_recipe(), name=name, labels=labels, weights=WEIGHTS, sha256="")
    if settings.arch not in torchvision_names():
        others = ", ".join((*TEMPORAL, *slowfast.SLOWFAST, "demo"))
        onnx = " YOLOX and other ONNX files are run, not trained." if "yolox" in settings.arch.lower() else ""
        raise ConfigError(
            f"network.arch: there is no {settings.arch!r}; there are {others} and torchvision's builders.{onnx}"
        )
    if settings.arch.startswith(("maskrcnn", "keypointrcnn")):
        raise ConfigError(f"network.arch: {settings.arch} learns from masks or keypoints; labels here are boxes.")
    published = torchvision_recipe(settings.arch)
    detector = published.kind == "detector"
    return replace(
        published,
        name=name,
        labels=labels,
        outputs_of_labels=(),
        args=dict(settings.args),
        weights=WEIGHTS,
        sha256="",
        license="unknown",
        score_threshold=0.05 if detector else 0.0,
        windows=(settings.args["temporal_size"],) * 2 if "temporal_size" in settings.args else published.windows,
        batch_norm_eps=published.batch_norm_eps if settings.start == "published" else None,
    )


WEIGHTS = "weights.safetensors"
"""Name of the weights file in a model folder, beside model.yaml."""


def network_for(recipe: Recipe, settings: NetworkSettings, options: StorageOptions | None = None) -> nn.Module:
    """The network, its weights begun as `settings.start` says, frozen as told, ready to train. `options` say how S3 is
    reached, where the weights lie there."""
    network = prepare_for_training(build_network(recipe), recipe)
    if settings.start == "published" and recipe.family == "temporal":
        _published_backbone(network, recipe)
    elif settings.start == "random":
        for module in network.modules():
            # torchvision's MobileNets average over hundreds of steps: a short training would be tested with
            # the statistics of its first ones.
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
                module.momentum = max(module.momentum, 0.1)
        if isinstance(network, FCOS):
            nn.init.constant_(network.head.regression_head.bbox_reg.bias, FCOS_DISTANCE)
    else:
        with reaching(options):
            state, source = _first_weights(recipe, settings)
        begin_from(network, recipe, state, source)
    matched = {prefix: 0 for prefix in settings.freeze}
    for name, parameter in network.named_parameters():
        for prefix in settings.freeze:
            if name.startswith(prefix):
                parameter.requires_grad_(False)
                matched[prefix] += 1
    if unmatched := [prefix for prefix, n in matched.items() if not n]:
        tops = sorted({n.rpartition(".")[0] for n, _ in network.named_parameters()})
        raise ConfigError(
            f"network.freeze: no parameter begins with {unmatched[0]!r}; some are {', '.join(tops[:12])}."
        )
    return network


def check_input(recipe: Recipe) -> None:
    """Raises ConfigError where an action network cannot see windows of the grid's size: some were made for one
    size alone, others pool away what is too small. Nothing is computed."""
    size, side = recipe.grid.size, recipe.preprocessing.crop
    if recipe.kind != "actions" or size.mode not in ("stretch", "letterbox", "crop"):
        return
    height, width = (side, side) if side else (size.height, size.width)
    with torch.device("meta"):
        network = build_network(recipe).eval()
        try:
            network(torch.zeros(1, 3, recipe.grid.window, height, width))
        except (RuntimeError, ValueError, IndexError) as e:
            raise ConfigError(
                f"network: {recipe.arch or recipe.args} takes no windows of {recipe.grid.window} frames of "
                f"{width} x {height} pixels ({str(e).splitlines()[0]}); change network.window or network.size."
            ) from e


def prepare_for_training(network: nn.Module, recipe: Recipe) -> nn.Module:
    """A detector of torchvision resizes its input itself; here frames come in the grid's size, so it must not."""
    transform: Any = getattr(network, "transform", None)
    if recipe.kind == "detector" and transform is not None and recipe.grid.size.mode != "native":
        size = recipe.grid.size
        if transform.fixed_size is None:
            # `fit` frames have their shorter side at `height` or their longer at `width`: then the factor is 1.
            exact = size.mode == "fit"
            transform.min_size = (size.height if exact else min(size.height, size.width),)
            transform.max_size = size.width if exact else max(size.height, size.width)
        elif tuple(transform.fixed_size) != (size.width, size.height):
            sees = " x ".join(map(str, transform.fixed_size))
            raise ConfigError(f"{recipe.arch} sees {sees} pixels; leave network.size out.")
    if recipe.batch_norm_eps is not None:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = recipe.batch_norm_eps
    return network


def freezes_norms(recipe: Recipe, settings: NetworkSettings) -> bool:
    if settings.freeze_norms is not None:
        return settings.freeze_norms
    return recipe.kind == "detector" and settings.start != "random"


def set_training(network: nn.Module, *, frozen_norms: bool) -> None:
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            own = list(module.parameters())
            if frozen_norms or (own and not any(p.requires_grad for p in own)):
                module.eval()


def _first_weights(recipe: Recipe, settings: NetworkSettings) -> tuple[Mapping[str, Tensor], str]:
    start, sha256 = settings.start, settings.sha256
    if start == "published":
        if recipe.family == "slowfast":
            raise ConfigError(
                "network.start: no address of published SlowFast weights is known here; give a file or URI."
            )
        demo = settings.arch == "demo"
        published = embedded.embedded_recipe() if demo else torchvision_recipe(settings.arch)
        start, sha256 = published.weights, published.sha256
    elif Path(start).is_dir():
        found = find_recipe(start, ModelSettings(kind=recipe.kind))
        start, sha256 = found.weights, found.sha256
    weights = read_weights(start, sha256, model=recipe.name)
    return state_dict_of(weights), str(weights.path)


def begin_from(network: nn.Module, recipe: Recipe, state: Mapping[str, Tensor], source: str) -> None:
    """Takes weights over, but for the tensors whose shape depends on the classes where those differ.
    Raises ConfigError, naming the first tensor, where the checkpoint is of another architecture."""
    if recipe.family == "slowfast":
        state = slowfast.native_state(state)
    elif recipe.family == "embedded":
        state = embedded.native_state(state)
    own, by_class = network.state_dict(), class_tensors(recipe)
    taken = {}
    for name, tensor in own.items():
        fits = name in state and state[name].shape == tensor.shape
        if fits:
            taken[name] = state[name]
        elif name not in by_class and not name.endswith("num_batches_tracked"):
            what = f"{name} is {tuple(state[name].shape)} there" if name in state else f"it has no {name}"
            raise ConfigError(
                f"network.start: {source} is a checkpoint of another architecture than {recipe.arch or recipe.args}: "
                f"{what}, and {tuple(tensor.shape)} here."
            )
    fill(network, {**own, **taken}, model=recipe.name, arch=recipe.arch, path=Path(source))


def class_tensors(recipe: Recipe) -> set[str]:
    """The names of the tensors whose shape follows from the number of classes."""
    with torch.device("meta"):
        one = build_network(recipe).state_dict()
        more = build_network(replace(recipe, labels=(*recipe.labels, "one more"))).state_dict()
    return {name for name in one if one[name].shape != more[name].shape}


def _published_backbone(network: nn.Module, recipe: Recipe) -> None:
    from torchvision import models

    backbone = str(recipe.args.get("backbone", "tiny"))
    if backbone == "tiny":
        raise ConfigError("network.start: the backbone tiny has no published weights; name a torchvision one in args.")
    weights = models.get_model_weights(backbone).DEFAULT
    state = state_dict_of(read_weights(weights.url, "", model=backbone))
    body = network.get_submodule("encoder.body")
    body.load_state_dict({k: v for k, v in state.items() if k in body.state_dict()})
