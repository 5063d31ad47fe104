"""Networks, learning rates and required figures. All were found on other seeds than those of the figures."""

from __future__ import annotations

from fractions import Fraction

from vidproc.demo.settings import DEMO_SEED, SceneSettings
from vidproc.learn.networks import NetworkSettings

AMBIGUOUS = ("sit_down", "stand_up", "pick_up", "put_down")
STUDIO = SceneSettings(seconds=10.0, fps=Fraction(8), actions=AMBIGUOUS, noise=0, plain=True)
"""Somebody before a plain wall, with a stool and a parcel: before drawn rooms and streets the same networks
have learned nothing after as many steps (top-1 0.34 where chance is 0.25)."""
TRAIN_SEED, TEST_SEED = 7_000, DEMO_SEED + 11_000
VIEW = {"fps": 8, "window": 12, "size": {"mode": "stretch", "height": 48, "width": 64}}
NARROW_SLOWFAST = {"frames": 12, "alpha": 4, "width": 16, "depths": [1, 1, 1, 1], "fusion_kernel": 5, "dropout": 0.2}
NETWORKS: dict[str, NetworkSettings] = {
    "frame": NetworkSettings(arch="cnn+mean", **(VIEW | {"window": 1})),
    "mean": NetworkSettings(arch="cnn+mean", **VIEW),
    "lstm": NetworkSettings(arch="cnn+lstm", args={"hidden": 64}, **VIEW),
    "gru": NetworkSettings(arch="cnn+gru", args={"hidden": 64}, **VIEW),
    "tcn": NetworkSettings(arch="cnn+tcn", args={"hidden": 64, "layers": 3}, **VIEW),
    "slowfast": NetworkSettings(arch="slowfast_r50_8x8", args=NARROW_SLOWFAST, **VIEW),
}
COARSE = {"fps": 4, "window": 8, "size": {"mode": "stretch", "height": 32, "width": 40}}
"""An action lasts 1.2 to 1.8 s: two seconds hold all of it, and its ends stay two apart where a network has halved
time twice. With 12 frames of 48 x 64 a step costs four times as much."""
ON_DEMAND: dict[str, NetworkSettings] = {
    "r2plus1d": NetworkSettings(arch="r2plus1d_18", args={"narrow": 4}, **COARSE),
    "r3d": NetworkSettings(arch="r3d_18", args={"narrow": 4}, **COARSE),
    "mc3": NetworkSettings(arch="mc3_18", args={"narrow": 4}, **(VIEW | {"fps": 4, "window": 6})),
    "s3d": NetworkSettings(arch="s3d", args={"narrow": 4}, **(VIEW | {"window": 14})),
    "mean-coarse": NetworkSettings(arch="cnn+mean", **COARSE),
}
"""torchvision's, with a quarter of the channels: a step of the whole ones takes seconds on one core. And what the
coarse frames tell without order. MC3 looks over time in its first layers alone: on 12 frames of 32 x 40, 8 a second, at
twice the rate, it was near chance for 13 epochs, and with these right about half of unseen actions after six (which of
the changes did it was not tried). S3D takes no fewer than 14 frames."""
TRANSFORMERS: dict[str, NetworkSettings] = {
    "swin3d": NetworkSettings(
        arch="swin3d_t",
        args={"narrow": 4, "stochastic_depth_prob": 0.0},
        **(COARSE | {"size": {"mode": "stretch", "height": 28, "width": 28}}),
    ),
    "mvit": NetworkSettings(
        arch="mvit_v2_s",
        args={
            "narrow": 4,
            "temporal_size": 8,
            "spatial_size": [32, 40],
            "dropout": 0.0,
            "stochastic_depth_prob": 0.0,
        },
        **COARSE,
    ),
}
"""They know nothing of pictures at first, not even that neighbours belong together, and want to see more scenes."""
BLIND = ("frame", "mean", "mean-coarse")
"""One frame; and all frames of the window without their order, which is the most that single frames can give."""
SEEING = tuple(name for name in (*NETWORKS, *ON_DEMAND, *TRANSFORMERS) if name not in BLIND)
TEMPORAL, MARGIN = 0.75, 0.15
"""Chance is 0.25 and what single frames can tell about 0.5: 0.75 is halfway from there to all of it, and
the margin, over the better of the blind ones, is more than three standard errors of 200 answers."""
EPOCHS = {"slowfast": 20} | dict.fromkeys(ON_DEMAND, 15) | {"mc3": 25, "s3d": 25} | {"swin3d": 30, "mvit": 40}
"""R3D and R(2+1)D tell the pairs apart and find the order of frames at the sixth epoch."""
LEARNING_RATES = dict.fromkeys(NETWORKS, 1.5e-3) | {"mc3": 5e-4, "s3d": 5e-4} | dict.fromkeys(TRANSFORMERS, 3e-4)
"""Others: 1e-3. S3D, whose weights begin small, stayed at chance for 19 epochs at 2e-3 and for six at 5e-4."""
CROPPED = (*NETWORKS, "mc3", "s3d", *TRANSFORMERS)
"""Those that see a random part of each scene, at least 0.8 of it, brought back to size."""
FEW_SHOT, POINTING = 0.8, 0.8
SMALL_RCNN = {
    "rpn_pre_nms_top_n_train": 100,
    "rpn_post_nms_top_n_train": 50,
    "rpn_batch_size_per_image": 64,
    "box_batch_size_per_image": 16,
}
"""Proposals a frame: a drawn scene holds fewer objects than a photograph."""
SMALL_FRAMES = {"size": {"mode": "stretch", "height": 96, "width": 128}, "fps": 2}
"""The least anchors of ResNet-50's pyramid are as large as a person here."""
DETECTORS: dict[str, NetworkSettings] = {
    "faster-rcnn": NetworkSettings(
        arch="fasterrcnn_mobilenet_v3_large_320_fpn",
        size={"mode": "stretch", "height": 192, "width": 256},  # its cells are 32 pixels wide: six by eight
        args=SMALL_RCNN,
        fps=2,
    ),
    "fasterrcnn-resnet50": NetworkSettings(arch="fasterrcnn_resnet50_fpn", args=SMALL_RCNN, **SMALL_FRAMES),
    "retinanet": NetworkSettings(arch="retinanet_resnet50_fpn", **SMALL_FRAMES),
    "fcos": NetworkSettings(arch="fcos_resnet50_fpn", **SMALL_FRAMES),
    "ssdlite": NetworkSettings(arch="ssdlite320_mobilenet_v3_large", fps=2),
}
DETECTOR_EPOCHS = {"ssdlite": (4, 3)}
"""From random weights, then fine-tuned; others as the command line says."""
DETECTOR_LEARNING_RATES = {"ssdlite": 1e-3}
"""Others: 6e-4."""
LONG = tuple(name for name in DETECTORS if name != "faster-rcnn")
"""Run by name alone: some ten minutes of processor time each."""
DETECTOR = 0.6
"""AP at IoU 0.5 of a detector that began from random weights minutes before; on three other sets of scenes
MobileNetV3 reached 0.77 to 0.91, and ResNet-50 on one 0.90 before it had seen a bad camera at all."""
