"""Recipes of torchvision's detection and video builders, from their published weights."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from vidproc.media import FrameSize, Grid
from vidproc.models.recipe import DETECTOR_FPS, Preprocessing, Recipe
from vidproc.settings import Kind

_DETECTION_SIZES = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": FrameSize(mode="fit", height=320, width=640),
    "ssd300_vgg16": FrameSize(mode="stretch", height=300, width=300),
    "ssdlite320_mobilenet_v3_large": FrameSize(mode="stretch", height=320, width=320),
}
_DETECTION_SIZE = FrameSize(mode="fit", height=800, width=1333)
"""What each builder's own transform resizes to; a test compares with the builders."""

_EPS_0 = {
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
}

_VIDEO_CLIPS = {
    "mc3_18": ("15", 16),
    "r2plus1d_18": ("15", 16),
    "r3d_18": ("15", 16),
    "mvit_v1_b": ("7.5", 16),
    "mvit_v2_s": ("7.5", 16),
    "s3d": ("15", 128),
    "swin3d_b": ("15", 32),
    "swin3d_s": ("15", 32),
    "swin3d_t": ("15", 32),
}
"""fps and frames a clip with which torchvision measured each model's accuracy."""


def torchvision_names() -> dict[str, Kind]:
    """Every builder of torchvision's detection and video packages, with its kind."""
    from torchvision.models import detection, list_models, video

    names: dict[str, Kind] = dict.fromkeys(list_models(module=detection), "detector")
    return names | dict.fromkeys(list_models(module=video), "actions")


def torchvision_recipe(name: str) -> Recipe:
    """The recipe of a torchvision builder with its default weights.

    Detectors: labels are the classes without the background and COCO's unused numbers, so class_id
    counts the 80 classes of COCO from 0, as YOLOX and most others do.
    """
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    categories: list[str] = weights.meta["categories"]
    if torchvision_names()[name] == "detector":
        kept = [i for i, label in enumerate(categories) if i > 0 and label != "N/A"]
        args: dict[str, Any] = {"num_classes": len(categories)}
        if "keypoint_names" in weights.meta:
            args["num_keypoints"] = len(weights.meta["keypoint_names"])
        return Recipe(
            name=name,
            kind="detector",
            family="torchvision-detection",
            arch=name,
            args=args,
            labels=tuple(categories[i] for i in kept),
            outputs_of_labels=tuple(kept),
            grid=Grid(fps=DETECTOR_FPS, size=_DETECTION_SIZES.get(name, _DETECTION_SIZE)),
            weights=weights.url,
            license="BSD-3-Clause (torchvision); trained on COCO",
            batch_norm_eps=0.0 if name in _EPS_0 else None,
        )
    transform = weights.transforms()
    fps, window = _VIDEO_CLIPS[name]
    (crop,) = set(transform.crop_size)
    if len(transform.resize_size) == 1:
        size = FrameSize(mode="crop", short_side=transform.resize_size[0], height=crop, width=crop)
        crop = 0
    else:  # squeezed to one shape whatever the aspect, then cropped: the crop is left to the model
        height, width = transform.resize_size
        size = FrameSize(mode="stretch", height=height, width=width)
    return Recipe(
        name=name,
        kind="actions",
        family="torchvision-video",
        arch=name,
        args={"num_classes": len(categories)},
        labels=tuple(categories),
        grid=Grid(fps=Fraction(fps), size=size, window=window, stride=window // 2),
        preprocessing=Preprocessing(mean=tuple(transform.mean), std=tuple(transform.std), crop=crop),
        weights=weights.url,
        license="BSD-3-Clause (torchvision); trained on Kinetics-400",
        score_threshold=0.0,
        # MViT learns one position for each of its 16 frames; S3D's pooling needs at least 14.
        windows=(16, 16) if name.startswith("mvit") else (14, 1024) if name == "s3d" else None,
    )
