"""Grad-CAM (Selvaraju et al. 2017): where a network's own last feature maps say that it looked."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vidproc.errors import ConfigError
from vidproc.learn.data.clips import normalise
from vidproc.learn.explain.heat import padded, scaled_to_one
from vidproc.learn.scoring.tracking import box_iou
from vidproc.models import tiny
from vidproc.models.recipe import Preprocessing, Recipe
from vidproc.models.settings import ModelSettings
from vidproc.models.slowfast import SlowFast
from vidproc.models.tiny import DetectorNet


def mirrored_grad_cam(
    network: nn.Module, frames: np.ndarray, preprocessing: Preprocessing, class_id: int
) -> np.ndarray:
    """The mean of `grad_cam` over a window and its mirror image: float32 (t, h, w), 0 to 1. The mean hides
    the grid of a coarse map. Only for classes that do not tell left from right."""
    there = grad_cam(network, frames, preprocessing, class_id)
    back = grad_cam(network, np.ascontiguousarray(frames[:, :, ::-1]), preprocessing, class_id)[:, :, ::-1]
    return scaled_to_one(there + back)


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
    return scaled_to_one(padded(heat, frames.shape[1:3]))


class _Maps:
    """Keep the feature maps of a network while it runs; `last` returns those nearest to its output."""

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
                self._handles.append(module.register_forward_hook(self._keep))

    def _keep(self, _: nn.Module, __: Any, out: Any) -> None:
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

    def keep(_: nn.Module, __: Any, out: Any) -> None:
        kept.extend(out.values() if isinstance(out, dict) else [out])

    handle = cast(nn.Module, cast(Any, network).backbone).register_forward_hook(keep)
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
    """`grad_cam_box` for the embedded detector, whose score of a box is a cell of its heat map, near the middle."""
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
    """Heat of a score over the maps of all levels, added up at the frame's size: float32 (1, h, w)."""
    heat = torch.zeros(1, 1, *frame.shape[:2])
    for features, gradient in zip(levels, torch.autograd.grad(score, levels, allow_unused=True), strict=True):
        if gradient is not None:
            cam = (features * gradient).sum(1, keepdim=True).relu().detach()
            heat += nn.functional.interpolate(cam, size=frame.shape[:2], mode="bilinear", align_corners=False)
    return scaled_to_one(heat[0].numpy())
