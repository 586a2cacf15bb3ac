"""OneHot as a comparison with every place, whose values keep their dtype."""

from __future__ import annotations

import numpy as np
import onnx

from .parts import Parts
from .surroundings import Surroundings, attribute


def one_hot(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """The value "on" where an index, or one that counts from behind, is the place; None where the number of
    places or the two values are computed."""
    shape = around.shape(node.input[0])
    depth, values = (around.constant(name) for name in node.input[1:3])
    if shape is None or depth is None or values is None:
        return None
    count, rank, parts = int(np.ravel(depth)[0]), len(shape) + 1, Parts(around, node)
    axis = attribute(node, "axis", -1) % rank
    whole = parts.op("Cast", [node.input[0]], to=onnx.TensorProto.INT64)
    index = parts.reshaped(whole, *shape[:axis], 1, *shape[axis:])
    places = np.arange(count).reshape([-1 if i == axis else 1 for i in range(rank)])
    same = [parts.op("Equal", [index, parts.constant(p, np.int64)]) for p in (places, places - count)]
    off, on = (parts.constant(value, values.dtype) for value in values)
    parts.op("Where", [parts.op("Or", same), on, off], node.output[0])
    return parts.nodes
