"""Logarithms of integers are finite: that of 0 is the logarithm of the least float32.

Exporters write buckets of distances so: Where(distance < n, distance, Cast(Log(distance / n) * s)). What 0
and less give there is never chosen, an infinity is nothing that calibration can go on with, and no integer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_LEAST = np.finfo(np.float32).tiny
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16, 0)
#: What moves numbers and computes with them, one by one.
_STEPS = {
    *("Abs", "Add", "Div", "Max", "Min", "Mul", "Neg", "Sub"),
    *("Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"),
}


def finite_logarithms(model: onnx.ModelProto) -> None:
    """Change a model in place."""
    graph = model.graph
    found = [node for node in graph.node if node.op_type == "Log"]
    if not found:
        return
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.input, *inferred.value_info)}
    made = {o: node for node in graph.node for o in node.output}
    fixed = {t.name for t in graph.initializer}
    chosen = [node for node in found if _of_integers(node.input[0], made, kinds, fixed)]
    for node in chosen:
        least, clamped = f"{node.output[0]}.least", f"{node.output[0]}.clamped"
        graph.initializer.append(numpy_helper.from_array(np.array(_LEAST), least))
        bound = helper.make_node("Max", [node.input[0], least], [clamped], f"{node.name}#1")
        graph.node.insert(list(graph.node).index(node), bound)
        node.input[0] = clamped


def _of_integers(
    name: str, made: Mapping[str, onnx.NodeProto], kinds: Mapping[str, int], fixed: set[str]
) -> bool:
    """Whether a tensor of floats is computed from tensors of integers, and constants."""
    waiting, integers, seen = [name], False, set[str]()
    while waiting:
        name = waiting.pop()
        node = made.get(name)
        if name in seen or name in fixed or (node is not None and node.op_type == "Constant"):
            continue
        seen.add(name)
        if node is not None and node.op_type == "Cast" and kinds.get(node.input[0], 0) not in _FLOATS:
            integers = True
        elif node is not None and node.op_type in (*_STEPS, "Cast"):
            waiting += [i for i in node.input if i]
        else:
            return False
    return integers
