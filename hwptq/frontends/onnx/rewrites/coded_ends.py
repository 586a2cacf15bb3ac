"""Inputs and outputs of a graph that are codes: values behind the inputs and before the outputs."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from .code_parts import DEQUANTIZE, QUANTIZE, CodeParts
from .parts import given
from .surroundings import Surroundings


def with_real_ends(graph: onnx.GraphProto, around: Surroundings) -> list[onnx.NodeProto] | None:
    """The nodes of a graph, with a DQ of an input as arithmetic, and Q and DQ behind it; and with an output
    that a Q gives as DQ and arithmetic behind it. Inputs and outputs keep their dtypes. None where there
    are none."""
    dtypes = {value.name: value.type.tensor_type.elem_type for value in graph.output}
    inputs = {value.name for value in graph.input} - {t.name for t in graph.initializer}
    first = {n.output[0] for n in graph.node if n.op_type == DEQUANTIZE and n.input[0] in inputs}
    last = {n.output[0] for n in graph.node if n.op_type == QUANTIZE and n.output[0] in dtypes}
    if not first and not last:
        return None
    inner: dict[str, str] = {}  # output of the graph -> the codes that are read in it
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = inner.get(name, name)
        if node.output[0] in first:
            nodes += _input(CodeParts(around, node), node)
        elif node.output[0] in last:
            nodes += _output(CodeParts(around, node), node, dtypes, inner)
        else:
            nodes.append(node)
    return nodes


def _input(parts: CodeParts, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    codes, scale, zero = (given(node, i) for i in range(3))
    steps = parts.op("Cast", [codes], to=onnx.TensorProto.FLOAT)
    if zero:
        steps = parts.op("Sub", [steps, parts.op("Cast", [zero], to=onnx.TensorProto.FLOAT)])
    value = parts.op("Mul", [steps, scale])
    parts.op(DEQUANTIZE, [parts.codes(value, [scale, zero]), *node.input[1:]], node.output[0])
    return parts.nodes


def _output(
    parts: CodeParts, node: onnx.NodeProto, dtypes: Mapping[str, int], inner: dict[str, str]
) -> list[onnx.NodeProto]:
    """A whole number of steps, divided by the step, is whole again but for what Round undoes."""
    name, (scale, zero) = node.output[0], (given(node, i) for i in (1, 2))
    inner[name] = parts.codes(node.input[0], [scale, zero])
    steps = parts.op("Round", [parts.op("Div", [parts.real(inner[name], scale, zero), scale])])
    if zero:
        steps = parts.op("Add", [steps, parts.op("Cast", [zero], to=onnx.TensorProto.FLOAT)])
    parts.op("Cast", [steps], name, to=dtypes[name])
    return parts.nodes
