"""QOperator form: operators that take and give codes, as what they compute between Q and DQ.

Inputs come as triples (codes, scale, zero point); what ONNX Runtime's quantizer writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from hwptq.errors import UnsupportedError

from .code_parts import CodeParts, attributes_of
from .parts import given
from .surroundings import Rule, Surroundings, attribute

_OURS = ("channels_last",)  # the attribute that operators on real values don't have
_ALONG_ONE_AXIS = 13  # the opset from which on a softmax is


def qlinear_conv(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Its bias counts in products of a step of the input and one of the weight."""
    _check_layout(node)
    parts = CodeParts(around, node)
    x, (w, w_scale, w_zero) = parts.real(*node.input[:3]), node.input[3:6]
    inputs = [x, parts.real(w, w_scale, w_zero, axis=0)]
    if given(node, 8):
        inputs.append(_bias(parts, node.input[8], node.input[1], w_scale))
    y = parts.layer("Conv", inputs, **attributes_of(node, _OURS))
    parts.codes(y, node.input[6:8], node.output[0])
    return parts.nodes


def qlinear_matmul(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A scale for each column of the second operand, or one."""
    parts = CodeParts(around, node)
    columns = around.constant(node.input[3])
    last = 1 if columns is None else columns.ndim - 1
    product = [parts.real(*node.input[:3]), parts.real(*node.input[3:6], axis=last)]
    parts.codes(parts.layer("MatMul", product), node.input[6:8], node.output[0])
    return parts.nodes


def qgemm(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Its result is real where it has no scale."""
    parts = CodeParts(around, node)
    axis = 0 if attribute(node, "transB", 0) else 1
    inputs = [parts.real(*node.input[:3]), parts.real(*node.input[3:6], axis=axis)]
    if given(node, 6):
        inputs.append(
            _bias(parts, node.input[6], node.input[1], node.input[4], attribute(node, "alpha", 1.0))
        )
    if given(node, 7):
        y = parts.layer("Gemm", inputs, **attributes_of(node))
        parts.codes(y, node.input[7:9], node.output[0])
    else:
        parts.layer("Gemm", inputs, node.output[0], **attributes_of(node))
    return parts.nodes


def _of(op: str, triples: int) -> Rule:
    """An operator on the values of `triples` inputs, the scale and zero point of the output behind them."""

    def rule(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        _check_layout(node)
        parts = CodeParts(around, node)
        ends = [node.input[3 * i : 3 * i + 3] for i in range(triples)]
        y = parts.layer(op, [parts.real(*end) for end in ends], **attributes_of(node, _OURS))
        parts.codes(y, node.input[3 * triples : 3 * triples + 2], node.output[0])
        return parts.nodes

    return rule


def _softmax(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Over one axis, or as the operator of before opset 13, which it says itself: over all from `axis` on."""
    parts, axis = CodeParts(around, node), int(attribute(node, "axis", -1))
    x = parts.real(*node.input[:3])
    if int(attribute(node, "opset", _ALONG_ONE_AXIS)) >= _ALONG_ONE_AXIS or axis == -1:
        y = parts.layer("Softmax", [x], axis=axis)
    else:
        flat = parts.layer("Softmax", [parts.op("Flatten", [x], axis=axis)], axis=-1)
        y = parts.op("Reshape", [flat, parts.op("Shape", [x])])
    parts.codes(y, node.input[3:5], node.output[0])
    return parts.nodes


def _concat(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The scale and zero point of the output come first."""
    parts = CodeParts(around, node)
    triples = [node.input[i : i + 3] for i in range(2, len(node.input), 3)]
    y = parts.layer("Concat", [parts.real(*t) for t in triples], **attributes_of(node))
    parts.codes(y, node.input[:2], node.output[0])
    return parts.nodes


def _where(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Its condition is no code."""
    parts = CodeParts(around, node)
    choices = [parts.real(*node.input[i : i + 3]) for i in (1, 4)]
    y = parts.layer("Where", [node.input[0], *choices])
    parts.codes(y, node.input[7:9], node.output[0])
    return parts.nodes


def _bias(parts: CodeParts, name: str, x_scale: str, w_scale: str, factor: float = 1.0) -> str:
    """The real values of int32 codes."""
    arrays = [parts.around.constant(n) for n in (name, x_scale, w_scale)]
    if any(a is None for a in arrays):
        raise UnsupportedError(
            f"node {parts.node.name!r} ({parts.node.op_type}): its bias or a scale is computed; make them "
            f"constants"
        )
    codes, x, w = (np.asarray(a, np.float64) for a in arrays)
    return parts.constant(codes * (x.reshape(()) * w.reshape(-1) * factor))


def _check_layout(node: onnx.NodeProto) -> None:
    if attribute(node, "channels_last", 0):
        raise UnsupportedError(
            f"node {node.name!r} ({node.op_type}): channels_last; save the model before ONNX Runtime "
            f"optimizes it for one machine"
        )


#: By operator.
QLINEAR: Mapping[str, Callable[[Surroundings, onnx.NodeProto], list[onnx.NodeProto] | None]] = {
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    "QGemm": qgemm,
    "QLinearAdd": _of("Add", 2),
    "QLinearMul": _of("Mul", 2),
    "QLinearSigmoid": _of("Sigmoid", 1),
    "QLinearLeakyRelu": _of("LeakyRelu", 1),
    "QLinearSoftmax": _softmax,
    "QLinearGlobalAveragePool": _of("GlobalAveragePool", 1),
    "QLinearAveragePool": _of("AveragePool", 1),
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
}
