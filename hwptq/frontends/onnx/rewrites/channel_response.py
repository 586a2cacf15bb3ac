"""LRN with its sums over neighbouring channels as a pooling."""

from __future__ import annotations

from math import prod

import onnx

from .parts import Parts
from .surroundings import Surroundings, attribute


def channel_response(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """x / (bias + alpha mean(x²))^beta, the mean over `size` channels around each, 0 beyond the ends."""
    shape = around.shape(node.input[0])
    if shape is None or len(shape) < 3:
        return None
    parts, x, size = Parts(around, node), node.input[0], attribute(node, "size")
    alpha, beta, bias = (attribute(node, k, v) for k, v in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    columns = parts.reshaped(parts.op("Mul", [x, x]), shape[0], 1, shape[1], prod(shape[2:]))
    pads = [(size - 1) // 2, 0, size // 2, 0]
    mean = parts.op("AveragePool", [columns], kernel_shape=[size, 1], pads=pads, count_include_pad=1)
    power = parts.op("Mul", [parts.reshaped(mean, *shape), parts.constant(alpha)])
    root = parts.op("Pow", [parts.op("Add", [power, parts.constant(bias)]), parts.constant(beta)])
    parts.op("Div", [x, root], node.output[0])
    return parts.nodes
