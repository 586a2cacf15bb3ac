"""A network of convolutions and SiLU as in detectors: random weights, no data needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

_CHANNELS = (3, 32, 64, 64, 64)
_STRIDES = (1, 2, 1, 1)
_SIDE = 112
INPUT = (1, _CHANNELS[0], _SIDE, _SIDE)


def write_silu_model(path: Path) -> None:
    """Write it: input [1,3,112,112], four 3x3 convolutions with x * sigmoid(x) behind each, 0.25 GMAC."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "input"
    for i, stride in enumerate(_STRIDES):
        shape = (_CHANNELS[i + 1], _CHANNELS[i], 3, 3)
        values = rng.standard_normal(shape) * np.sqrt(4 / np.prod(shape[1:]))
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{i}"))
        y = "output" if i == len(_STRIDES) - 1 else f"y{i}"
        nodes += [
            helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"], strides=[stride] * 2, pads=[1] * 4),
            helper.make_node("Sigmoid", [f"c{i}"], [f"s{i}"]),
            helper.make_node("Mul", [f"c{i}", f"s{i}"], [y]),
        ]
        x = y
    side = _SIDE // int(np.prod(_STRIDES))
    shapes = ("input", INPUT), ("output", (1, _CHANNELS[-1], side, side))
    tensors = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n, shape in shapes]
    graph = helper.make_graph(nodes, "silu", tensors[:1], tensors[1:], weights)
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
