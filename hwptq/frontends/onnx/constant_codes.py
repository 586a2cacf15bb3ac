"""ONNX -> ONNX: QuantizeLinear of a constant as the codes that it gives."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .rewrites.code_parts import QUANTIZE
from .rewrites.parts import given
from .rewrites.surroundings import Surroundings, attribute
from .rewrites.weight_codes import spread

#: The least and the largest code of the dtypes that numpy has no limits of.
_NARROW = {TensorProto.INT4: (-8, 7), TensorProto.UINT4: (0, 15)}


def fold_constant_codes(graph: onnx.GraphProto) -> None:
    """Change a graph in place, before narrow dtypes are widened: codes saturate as the file says."""
    if not any(node.op_type == QUANTIZE for node in graph.node):
        return
    around = Surroundings(graph, {})
    types = {t.name: t.data_type for t in graph.initializer}
    kept = []
    for node in graph.node:
        codes = _codes(around, types, node) if node.op_type == QUANTIZE else None
        if codes is None:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
        else:
            graph.initializer.append(codes)
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)


def _codes(around: Surroundings, types: dict[str, int], node: onnx.NodeProto) -> TensorProto | None:
    """round(x / scale) + zero point, in float32; None where one is computed, or codes are no integers."""
    zero_name = given(node, 2)
    real, scale = (around.constant(name) for name in node.input[:2])
    zero = around.constant(zero_name) if zero_name else np.zeros((), np.int32)
    if real is None or scale is None or zero is None:
        return None
    dtype = types.get(zero_name, 0) if zero_name else int(attribute(node, "output_dtype", TensorProto.UINT8))
    if dtype in _NARROW:
        low, high = _NARROW[dtype]
    elif (held := helper.tensor_dtype_to_np_dtype(dtype)).kind in "iu":
        low, high = int(np.iinfo(held).min), int(np.iinfo(held).max)
    else:
        return None
    axis, block = int(attribute(node, "axis", 1)), int(attribute(node, "block_size", 0))
    steps = np.rint(real.astype(np.float32) / spread(scale.astype(np.float32), real.shape, axis, block))
    codes = np.clip(steps + spread(zero.astype(np.float32), real.shape, axis, block), low, high)
    held = helper.tensor_dtype_to_np_dtype(dtype)
    return numpy_helper.from_array(codes.astype(np.int32).astype(held), node.output[0])
