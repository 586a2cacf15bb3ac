"""A network of the shape of MobileNetV2 with random weights, as an ONNX file, and images to calibrate it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: (expansion, channels, blocks, stride of the first) of Sandler et al., MobileNetV2, 2018, table 2.
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class _Graph:
    def __init__(self, seed: int):
        self.rng, self.nodes, self.weights = np.random.default_rng(seed), [], []

    def conv(
        self, x: str, ci: int, co: int, size: int, stride: int, groups: int = 1, clip: bool = True
    ) -> str:
        name = f"conv{len(self.nodes)}"
        fan = ci // groups * size * size
        weight = self.rng.normal(0, (2 / fan) ** 0.5, (co, ci // groups, size, size)).astype(np.float32)
        bias = self.rng.normal(0, 0.1, co).astype(np.float32)
        self.weights += [numpy_helper.from_array(a, f"{name}.{k}") for k, a in (("w", weight), ("b", bias))]
        pad = [size // 2] * 4
        self.nodes.append(
            helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [name], name, kernel_shape=[size, size],
                             strides=[stride, stride], pads=pad, group=groups)
        )  # fmt: skip
        if not clip:
            return name
        self.nodes.append(helper.make_node("Clip", [name, "zero", "six"], [f"{name}.clip"], f"{name}.clip"))
        return f"{name}.clip"


def _channels(count: float) -> int:
    """A multiple of 8, not much fewer."""
    rounded = max(8, int(count + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * count else rounded


def mobilenet_v2(width: float = 0.35, size: int = 144, classes: int = 10, seed: int = 0) -> onnx.ModelProto:
    """The model; its input is x [1, 3, size, size]."""
    graph = _Graph(seed)
    for name, value in (("zero", 0.0), ("six", 6.0)):
        graph.weights.append(numpy_helper.from_array(np.float32(value), name))
    channels = _channels(32 * width)
    x = graph.conv("x", 3, channels, 3, 2)
    for expansion, count, blocks, stride in BLOCKS:
        out = _channels(count * width)
        for block in range(blocks):
            step, inner, before = stride if block == 0 else 1, channels * expansion, x
            if expansion > 1:
                x = graph.conv(x, channels, inner, 1, 1)
            x = graph.conv(x, inner, inner, 3, step, inner)
            x = graph.conv(x, inner, out, 1, 1, clip=False)
            if step == 1 and channels == out:
                graph.nodes.append(helper.make_node("Add", [before, x], [f"{x}.sum"], f"{x}.sum"))
                x = f"{x}.sum"
            channels = out
    x = graph.conv(x, channels, 1280, 1, 1)
    weight = graph.rng.normal(0, 1280**-0.5, (1280, classes)).astype(np.float32)
    graph.weights.append(numpy_helper.from_array(weight, "head.w"))
    graph.nodes += [
        helper.make_node("GlobalAveragePool", [x], ["pool"], "pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], "flat"),
        helper.make_node("MatMul", ["flat", "head.w"], ["y"], "head"),
    ]
    shapes = {"x": [1, 3, size, size], "y": [1, classes]}
    x_info, y_info = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items())
    made = helper.make_graph(graph.nodes, "mobilenet_v2", [x_info], [y_info], graph.weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def images(count: int, size: int = 144, seed: int = 1) -> list[dict[str, np.ndarray]]:
    """Smooth random images."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1, (count, 3, 9, 9)).astype(np.float32)
    factor = size // 9
    return [{"x": np.kron(image, np.ones((1, factor, factor), np.float32))[None]} for image in coarse]
