"""Norms that ONNX Runtime's optimizer fuses, some with the addition before them."""

from __future__ import annotations

import onnx

from .parts import Parts, given, made
from .surroundings import Surroundings, attribute

_EPSILON = {"SkipLayerNormalization": 1e-12, "SkipSimplifiedLayerNormalization": 1e-12}
_DEFAULT_EPSILON = 1e-5


def simplified_layer_norm(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """x / sqrt(mean x^2 + epsilon) * scale over the last axis, as exporters write an RMS norm."""
    parts = Parts(around, node)
    _rms_norm(parts, node, node.input[0], node.input[1])
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
        _rms_norm(parts, node, x, node.input[2])
        return parts.nodes
    beta = [given(node, 3)] if given(node, 3) else []
    parts.op("LayerNormalization", [x, node.input[2], *beta], node.output[0], epsilon=_epsilon(node), axis=-1)
    return parts.nodes


def _rms_norm(parts: Parts, node: onnx.NodeProto, x: str, scale: str) -> None:
    squared = parts.op("Pow", [x, parts.constant(2.0)])
    mean = parts.op("ReduceMean", [squared], axes=[-1], keepdims=1)
    root = parts.op("Sqrt", [parts.op("Add", [mean, parts.constant(_epsilon(node))])])
    parts.op("Mul", [parts.op("Div", [x, root]), scale], node.output[0])


def _epsilon(node: onnx.NodeProto) -> float:
    return float(attribute(node, "epsilon", _EPSILON.get(node.op_type, _DEFAULT_EPSILON)))
