"""ONNX -> ONNX: float16, bfloat16 and float64 become float32, 4-bit weights 8-bit ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from hwptq.errors import UnsupportedError
from hwptq.notices import Warning

from .weights.external_weights import array_of, widen

_FLOATS = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64"}
#: Of models in these nobody expects results of float32.
_WORTH_A_WORD = ("bfloat16", "float64")
_NIBBLES = {
    **dict.fromkeys((TensorProto.INT4, TensorProto.INT2), np.int8),
    **dict.fromkeys((TensorProto.UINT4, TensorProto.UINT2), np.uint8),
}
#: Attributes that hold the dtype of a result.
_DTYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "softmax_precision", "stash_type")


def widen_floats(proto: onnx.ModelProto) -> list[Warning]:
    """Change `proto` in place, its branches too; returns what the user should know."""
    found: set[int] = set()
    for graph in _graphs(proto.graph):
        for tensor in graph.initializer:
            found |= _widen(tensor)
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in _FLOATS:
                found.add(value.type.tensor_type.elem_type)
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    found |= _widen(attribute.t)
                if attribute.name in _DTYPE_ATTRIBUTES and attribute.i in _FLOATS:
                    attribute.i = TensorProto.FLOAT
    names = [_FLOATS[t] for t in sorted(found) if _FLOATS[t] in _WORTH_A_WORD]
    text = "the model computes in {}; it is compiled from, and compared with, its float32 form"
    return [Warning("dtype", "", text.format(" and ".join(names)))] if names else []


def widen_nibbles(proto: onnx.ModelProto) -> None:
    """Int4 and uint4 weights become int8 and uint8 ones, in place; NormalizeQDQ sees that they fit.

    Raises UnsupportedError for activations of 4 bits.
    """
    narrow = {t.name for t in proto.graph.initializer if t.data_type in _NIBBLES}
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear" and narrow & set(node.input):
            raise UnsupportedError(f"node {node.name or node.output[0]!r}: 4-bit activations of a QDQ model")
    for tensor in proto.graph.initializer:
        if tensor.data_type in _NIBBLES:
            array = array_of(tensor).astype(_NIBBLES[tensor.data_type])
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the branches and bodies in it."""
    waiting = [graph]
    while waiting:
        one = waiting.pop()
        yield one
        for node in one.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs


def _widen(tensor: TensorProto) -> set[int]:
    """Change a constant in place; its dtype, where it was not float32."""
    dtype = tensor.data_type
    if dtype not in _FLOATS:
        return set()
    widen(tensor)
    return {dtype}
