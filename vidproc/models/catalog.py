"""The models known by name, as a table: so that listing them need not import torchvision, which takes seconds.

A test compares it with what the models say of themselves. Another version of torchvision is asked itself.
"""

from __future__ import annotations

from vidproc.settings import Kind

TORCHVISION = "0.29"
"""The version of torchvision whose models these are, without its last number."""
SOURCE = "https://download.pytorch.org/models/"
LICENSES: dict[Kind, str] = {
    "actions": "BSD-3-Clause (torchvision); trained on Kinetics-400",
    "detector": "BSD-3-Clause (torchvision); trained on COCO",
}
DEMO: tuple[tuple[Kind, int, str], ...] = (
    ("actions", 11, "55fba7de77fd5c7536ebe231fb5fd7b46c1ddb1d5615ac7d695b91b2d7114ec9"),
    ("detector", 5, "fe46299f53bc67e5b9388fbba3475df8b29c8841180be566dbe27237d4a336e2"),
)
"""The embedded pair: kind, number of labels, sha256 of the weights."""
MODELS: tuple[tuple[str, Kind, int, str], ...] = (
    ("mc3_18", "actions", 400, "mc3_18-a90a0ba3.pth"),
    ("mvit_v1_b", "actions", 400, "mvit_v1_b-dbeb1030.pth"),
    ("mvit_v2_s", "actions", 400, "mvit_v2_s-ae3be167.pth"),
    ("r2plus1d_18", "actions", 400, "r2plus1d_18-91a641e6.pth"),
    ("r3d_18", "actions", 400, "r3d_18-b3b3357e.pth"),
    ("s3d", "actions", 400, "s3d-d76dad2f.pth"),
    ("swin3d_b", "actions", 400, "swin3d_b_1k-24f7c7c6.pth"),
    ("swin3d_s", "actions", 400, "swin3d_s-da41c237.pth"),
    ("swin3d_t", "actions", 400, "swin3d_t-7615ae03.pth"),
    ("fasterrcnn_mobilenet_v3_large_320_fpn", "detector", 80, "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth"),
    ("fasterrcnn_mobilenet_v3_large_fpn", "detector", 80, "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth"),
    ("fasterrcnn_resnet50_fpn", "detector", 80, "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"),
    ("fasterrcnn_resnet50_fpn_v2", "detector", 80, "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"),
    ("fcos_resnet50_fpn", "detector", 80, "fcos_resnet50_fpn_coco-99b0c9b7.pth"),
    ("keypointrcnn_resnet50_fpn", "detector", 1, "keypointrcnn_resnet50_fpn_coco-fc266e95.pth"),
    ("maskrcnn_resnet50_fpn", "detector", 80, "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"),
    ("maskrcnn_resnet50_fpn_v2", "detector", 80, "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth"),
    ("retinanet_resnet50_fpn", "detector", 80, "retinanet_resnet50_fpn_coco-eeacb38b.pth"),
    ("retinanet_resnet50_fpn_v2", "detector", 80, "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth"),
    ("ssd300_vgg16", "detector", 80, "ssd300_vgg16_coco-b556d3b4.pth"),
    ("ssdlite320_mobilenet_v3_large", "detector", 80, "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"),
)
"""Name, kind, number of labels, file with the default weights below SOURCE."""
