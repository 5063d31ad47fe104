"""The fixed detector of the benchmarks: a small ONNX graph shaped like YOLOX-nano (416x416, strides 8, 16
and 32, 85 outputs a cell, SiLU, depthwise convolutions), with seeded weights. It has learnt nothing; it costs
what a light detector costs, and its boxes depend on the pixels, so that two pipelines can be compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.videos import cache, pictures

SIDE, CLASSES = 416, 80
VERSION = 1
RARE = 0.9985
"""Share of the cells that see nothing."""


def detector() -> Path:
    """The description beside the graph, as `vidproc` takes it; made once."""
    described = cache() / f"detector-{VERSION}.yaml"
    if not described.exists():
        graph = cache() / f"detector-{VERSION}.onnx"
        _write(graph)
        described.write_text(description(graph))
    return described


def description(graph: Path) -> str:
    return f"family: onnx\nkind: detector\ndecoding: yolox\nweights: {graph}\nlicense: Apache-2.0\n"


def _write(path: Path) -> None:
    """Built twice: what the first gives for one frame says how to scale the outputs of the second."""
    import onnx
    import onnxruntime as ort

    raw = _Builder(None).model()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(raw.SerializeToString(), options, providers=["CPUExecutionProvider"])
    luma = next(iter(pictures(1, 1280, 720)))[:720:2, ::2][:234, :416]
    frame = np.full((1, 3, SIDE, SIDE), 114, np.float32)
    frame[0, :, :234, : luma.shape[1]] = luma
    (found,) = session.run(None, {"images": frame})
    objectness, classes, boxes = found[0, :, 4], found[0, :, 5:], found[0, :, :4]
    scale = 3 / objectness.std()
    onnx.save(
        _Builder(
            {
                "obj": (scale, -scale * float(np.quantile(objectness, RARE))),
                "cls": (2 / classes.std(), 2 - 2 * float(classes.mean()) / classes.std()),
                "reg": (0.5 / boxes.std(), 1 - 0.5 * float(boxes.mean()) / boxes.std()),
            }
        ).model(),
        str(path),
    )


class _Builder:
    """Draws the graph. `outputs`: by kind of output the (scale, shift) of its last layer; None: raw."""

    def __init__(self, outputs: dict[str, tuple[float, float]] | None) -> None:
        self.chance = np.random.default_rng(7)
        self.outputs = outputs
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def conv(
        self, x: str, c_in: int, c_out: int, *, k: int = 1, stride: int = 1, depthwise: bool = False, act: bool = True,
        scale: float = 1.0, shift: float = 0.0,
    ) -> str:  # fmt: skip
        fan = k * k * (1 if depthwise else c_in)
        shape = (c_out, 1 if depthwise else c_in, k, k)
        weight = self.chance.normal(0, (2 / fan) ** 0.5, shape).astype(np.float32) * np.float32(scale)
        bias = np.full(c_out, shift, np.float32)
        pads = [(k - 1) // 2] * 4
        group = c_in if depthwise else 1
        y = self.add(
            "Conv", x, self.constant(weight), self.constant(bias), kernel_shape=[k, k], strides=[stride] * 2, pads=pads,
            group=group,
        )  # fmt: skip
        return self.add("Mul", y, self.add("Sigmoid", y)) if act else y

    def separable(self, x: str, c_in: int, c_out: int, *, stride: int = 1, k: int = 3) -> str:
        return self.conv(self.conv(x, c_in, c_in, k=k, stride=stride, depthwise=True), c_in, c_out)

    def block(self, x: str, c: int) -> str:
        return self.add("Add", x, self.separable(self.conv(x, c, c // 2), c // 2, c))

    def stage(self, x: str, c_in: int, c_out: int, blocks: int) -> str:
        x = self.separable(x, c_in, c_out, stride=2)
        for _ in range(blocks):
            x = self.block(x, c_out)
        return x

    def head(self, x: str, c: int) -> str:
        """-> (n, 85, h, w): box, objectness and classes."""
        seen = self.separable(self.separable(x, c, c, k=5), c, c, k=5)
        placed = self.separable(self.separable(x, c, c, k=5), c, c, k=5)
        parts = []
        for kind, source, width in (("reg", placed, 4), ("obj", placed, 1), ("cls", seen, CLASSES)):
            scale, shift = self.outputs[kind] if self.outputs else (1.0, 0.0)
            y = self.conv(source, c, width, act=False, scale=scale, shift=shift)
            parts.append(self.add("Sigmoid", y) if self.outputs and kind != "reg" else y)
        return self.add("Concat", *parts, axis=1)

    def model(self) -> Any:
        from onnx import TensorProto, helper

        x = self.add("Mul", "images", self.constant(np.float32(1 / 128)))
        x = self.conv(self.add("SpaceToDepth", x, blocksize=2), 12, 16, k=3)
        x = self.stage(x, 16, 32, 1)
        c3 = self.stage(x, 32, 64, 3)
        c4 = self.stage(c3, 64, 128, 3)
        c5 = self.stage(c4, 128, 256, 2)
        p5 = self.conv(c5, 256, 64)
        sizes = self.constant(np.array([1, 1, 2, 2], np.float32))
        p4 = self.add("Add", self.conv(c4, 128, 64), self.add("Resize", p5, "", sizes, mode="nearest"))
        p3 = self.add("Add", self.conv(c3, 64, 64), self.add("Resize", p4, "", sizes, mode="nearest"))
        flat = self.constant(np.array([0, 5 + CLASSES, -1], np.int64))
        cells = [self.add("Reshape", self.head(p, 64), flat) for p in (p3, p4, p5)]
        out = self.add("Transpose", self.add("Concat", *cells, axis=2), perm=[0, 2, 1])
        self.nodes[-1].output[0] = out = "output"
        graph = helper.make_graph(
            self.nodes,
            "detector",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
            [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["n", None, 5 + CLASSES])],
            self.weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        made.ir_version = 9
        return made
