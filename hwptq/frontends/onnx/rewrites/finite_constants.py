"""Infinite constants become the largest float32.

Masks are written with them: Where(mask, scores, -inf), Max(-inf, x), scores + mask. Behind the softmax or the
maximum that follows, the results are the same, and calibration can go on.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from hwptq.ir.mapped import page_out

from ..weights.external_weights import array_of, is_apart

_MAX = np.finfo(np.float32).max


def finite_constants(graph: onnx.GraphProto) -> None:
    """Change the constants of a graph in place."""
    for tensor in graph.initializer:
        _clamp(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _clamp(attribute.t)
            if node.op_type == "Constant" and attribute.type == AttributeProto.FLOAT:
                attribute.f = float(np.clip(attribute.f, -_MAX, _MAX))


def _clamp(tensor: TensorProto) -> None:
    if tensor.data_type != TensorProto.FLOAT:
        return
    array = array_of(tensor)
    infinite = bool(np.isinf(array).any())
    if is_apart(tensor):
        page_out(array)
    if infinite:
        tensor.CopyFrom(numpy_helper.from_array(np.clip(array, -_MAX, _MAX), tensor.name))
