"""Norms that ONNX Runtime's optimizer fuses, some with the addition before them."""

from __future__ import annotations

import onnx

from hwptq.errors import UnsupportedError

from .parts import Parts, given, made
from .surroundings import Surroundings, attribute

_EPSILON = {"SkipLayerNormalization": 1e-12, "SkipSimplifiedLayerNormalization": 1e-12}
_DEFAULT_EPSILON = 1e-5
OPSET_OF_LAYER_NORM = 17


def simplified_layer_norm(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """x / sqrt(mean x^2 + epsilon) * scale over the last axes, as exporters write an RMS norm. Raises
    UnsupportedError where it can't be told which these are."""
    parts = Parts(around, node)
    _rms_norm(parts, node, node.input[0], node.input[1], _last_axes(around, node))
    return parts.nodes


def skip_norm(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The norm of x + skip (+ bias); the sum is its fourth output."""
    parts, simplified = Parts(around, node), node.op_type == "SkipSimplifiedLayerNormalization"
    bias, total = given(node, 3 if simplified else 4), made(node, 3)
    terms = [node.input[0], node.input[1]]
    if bias:
        terms = [parts.op("Add", terms), bias]
    x = parts.op("Add", terms, total)
    if simplified:
        _rms_norm(parts, node, x, node.input[2], [-1])
        return parts.nodes
    write_layer_norm(parts, x, node.input[2], given(node, 3), _epsilon(node))
    return parts.nodes


def layer_norm(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Over the last axis, in a model older than the standard's own. Raises UnsupportedError for others."""
    if _last_axes(around, node) != [-1] or made(node, 1):
        text = "over other axes than the last, or with its mean, is not supported before opset 17"
        raise UnsupportedError(f"node {node.name!r} ({node.op_type}) {text}; export with opset 17 or newer")
    parts = Parts(around, node)
    write_layer_norm(parts, node.input[0], node.input[1], given(node, 2), _epsilon(node))
    return parts.nodes


def write_layer_norm(parts: Parts, x: str, scale: str, bias: str, epsilon: float) -> None:
    """The result of the node: the norm of x over the last axis, by its parts where the opset has none."""
    output = parts.node.output[0]
    if parts.around.opset >= OPSET_OF_LAYER_NORM:
        inputs = [x, scale, *([bias] if bias else [])]
        parts.op("LayerNormalization", inputs, output, epsilon=epsilon, axis=-1)
        return
    centred = parts.op("Sub", [x, parts.reduced("ReduceMean", x, [-1])])
    squares = parts.op("Pow", [centred, parts.constant(2.0)])
    spread = parts.op("Add", [parts.reduced("ReduceMean", squares, [-1]), parts.constant(epsilon)])
    normal = parts.op("Div", [centred, parts.op("Sqrt", [spread])])
    if bias:
        parts.op("Add", [parts.op("Mul", [normal, scale]), bias], output)
    else:
        parts.op("Mul", [normal, scale], output)


def _last_axes(around: Surroundings, node: onnx.NodeProto) -> list[int]:
    """From `axis` on, counted from the end. Raises UnsupportedError where that needs an unknown rank."""
    axis, rank = int(attribute(node, "axis", -1)), around.rank(node.input[0])
    if axis >= 0 and rank is None:
        text = f"axis {axis} of a tensor of unknown rank is not supported; count it from the end"
        raise UnsupportedError(f"node {node.name!r} ({node.op_type}): {text}")
    return list(range(axis if axis < 0 or rank is None else axis - rank, 0))


def _rms_norm(parts: Parts, node: onnx.NodeProto, x: str, scale: str, axes: list[int]) -> None:
    squared = parts.op("Pow", [x, parts.constant(2.0)])
    mean = parts.reduced("ReduceMean", squared, axes)
    root = parts.op("Sqrt", [parts.op("Add", [mean, parts.constant(_epsilon(node))])])
    parts.op("Mul", [parts.op("Div", [x, root]), scale], node.output[0])


def _epsilon(node: onnx.NodeProto) -> float:
    return float(attribute(node, "epsilon", _EPSILON.get(node.op_type, _DEFAULT_EPSILON)))
