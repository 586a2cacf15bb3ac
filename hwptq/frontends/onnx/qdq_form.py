"""ONNX -> ONNX: models that other tools have quantized, in whatever form, as values between Q and DQ.

Comes before anything looks at shapes: ONNX infers none behind operators of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from hwptq.errors import UnsupportedError
from hwptq.notices import Warning

from .rewrites.code_parts import DEQUANTIZE, QUANTIZE
from .rewrites.coded_ends import with_real_ends
from .rewrites.dynamic_lstm import dynamic_quantize_lstm
from .rewrites.dynamic_products import (
    dynamic_quantize_matmul,
    matmul_integer_to_float,
    products_of_real_values,
)
from .rewrites.moved_codes import with_moved_values
from .rewrites.packed_weights import gather_block_quantized, matmul_nbits
from .rewrites.qlinear import QLINEAR
from .rewrites.scales import with_positive_scales
from .rewrites.surroundings import Rule, Surroundings
from .rewrites.weight_codes import WeightCodes

_RULES: Mapping[str, Rule] = {
    **QLINEAR,
    "DynamicQuantizeLSTM": dynamic_quantize_lstm,
    "DynamicQuantizeMatMul": dynamic_quantize_matmul,
    "GatherBlockQuantized": gather_block_quantized,
    "MatMulIntegerToFloat": matmul_integer_to_float,
    "MatMulNBits": matmul_nbits,
}
_ENDS = (QUANTIZE, DEQUANTIZE)
#: What begins the name of an operator that computes with codes.
_WITH_CODES = (*_RULES, *_ENDS, "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
_UNSIGNED_16 = (onnx.TensorProto.UINT16, 2**15)


def in_qdq_form(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Warning]]:
    """The model, and what its user should know. What has no codes is as it was.

    Raises UnsupportedError for what a node asks for and no rule knows.
    """
    if not any(node.op_type in _WITH_CODES for node in model.graph.node):
        return model, []
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for node in graph.node:
        node.name = node.name or node.output[0]
        if node.op_type in _ENDS:
            node.domain = ""
    _replace(graph, _by_rules)
    _replace(graph, products_of_real_values)
    _replace(graph, with_positive_scales)
    _replace(graph, with_moved_values)
    _replace(graph, with_real_ends)
    weights: list[WeightCodes] = []

    def constants(graph: onnx.GraphProto, around: Surroundings) -> Sequence[onnx.NodeProto]:
        weights.append(WeightCodes(graph, around))
        return weights[0].nodes()

    _replace(graph, constants)
    _replace(graph, _with_plain_scales)
    _drop_unread(graph)
    return copy, weights[0].warnings()


def _replace(
    graph: onnx.GraphProto,
    step: Callable[[onnx.GraphProto, Surroundings], Sequence[onnx.NodeProto] | None],
) -> None:
    """Give a graph the nodes and constants of a step, where it has something to say."""
    around = Surroundings(graph, {})
    nodes = step(graph, around)
    if nodes is None:
        return
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    graph.initializer.extend(around.added)


def _by_rules(graph: onnx.GraphProto, around: Surroundings) -> Sequence[onnx.NodeProto] | None:
    if not any(node.op_type in _RULES for node in graph.node):
        return None
    return [
        new
        for node in graph.node
        for new in (_RULES[node.op_type](around, node) if node.op_type in _RULES else None) or [node]
    ]


def _with_plain_scales(graph: onnx.GraphProto, around: Surroundings) -> Sequence[onnx.NodeProto]:
    """Scales and zero points of tensors as scalars, zero points written out, 16 bits with a sign."""
    for node in graph.node:
        if node.op_type not in _ENDS:
            continue
        scale = around.constant(node.input[1])
        if scale is not None and scale.size == 1 and scale.ndim:
            node.input[1] = around.add(scale.reshape(()), f"{node.output[0]}_scale")
        zero = around.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if zero is None:
            continue
        if zero.dtype == np.uint16:
            if np.any(zero != _UNSIGNED_16[1]):
                raise UnsupportedError(
                    f"node {node.name!r} ({node.op_type}): uint16 with a zero point of "
                    f"{int(zero.reshape(-1)[0])}; quantize activations of 16 bits symmetrically"
                )
            zero = np.zeros(zero.shape, np.int16)
            node.input[2] = around.add(zero, f"{node.output[0]}_zero")
        if zero.size == 1 and zero.ndim:
            node.input[2] = around.add(zero.reshape(()), f"{node.output[0]}_zero")
    return list(graph.node)


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes that lead to no output."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(o in wanted for o in node.output if o):
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            wanted |= {i for i in node.input if i}
            wanted |= {n for a in node.attribute for g in (a.g, *a.graphs) for n in _outer(g)}
    del graph.node[:]
    graph.node.extend(reversed(kept))
    unread = [t for t in graph.initializer if t.name not in wanted]
    if unread:
        read = [t for t in graph.initializer if t.name in wanted]
        copies = [onnx.TensorProto.FromString(t.SerializeToString()) for t in read]
        del graph.initializer[:]
        graph.initializer.extend(copies)


def _outer(graph: onnx.GraphProto) -> set[str]:
    """Names that a branch may take from the graph around it."""
    inner = {n for node in graph.node for a in node.attribute for g in (a.g, *a.graphs) for n in _outer(g)}
    return inner | {i for node in graph.node for i in node.input} | {o.name for o in graph.output}
