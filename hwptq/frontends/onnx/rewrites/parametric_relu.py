"""PRelu as operators that have an integer form."""

from __future__ import annotations

import numpy as np
import onnx

from .surroundings import Surroundings, part_of


def parametric_relu(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """One slope: a LeakyRelu, which is one table. A slope for each channel of an image:
    max(x, 0) + slope min(x, 0), the product a depthwise convolution of one pixel, whose weights have a scale
    for each channel. Others stay."""
    x, name = node.input
    slope, shape = around.constant(name), around.shape(x)
    if slope is None or shape is None:
        return None
    if np.all(slope == slope.flat[0]):
        return [part_of(node, "LeakyRelu", [x], node.output[0], alpha=float(slope.flat[0]))]
    channels = shape[1] if len(shape) == 4 else 0
    if slope.size != channels or np.broadcast_shapes(slope.shape, (channels, 1, 1)) != (channels, 1, 1):
        return None
    low = around.add(np.float32(-np.finfo(np.float32).max), f"{name}_low")
    zero = around.add(np.float32(0), f"{name}_zero")
    weight = around.add(slope.reshape(channels, 1, 1, 1).astype(np.float32), f"{name}_weight")
    positive, negative, scaled = (
        around.fresh(f"{node.output[0]}_{part}", shape) for part in ("positive", "negative", "scaled")
    )
    return [
        part_of(node, "Relu", [x], positive),
        part_of(node, "Clip", [x, low, zero], negative),
        part_of(node, "Conv", [negative, weight], scaled, group=channels, kernel_shape=[1, 1]),
        part_of(node, "Add", [positive, scaled], node.output[0]),
    ]
