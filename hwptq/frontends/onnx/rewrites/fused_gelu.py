"""GELUs of ONNX Runtime, some with the addition before them, as the functions that they are made of."""

from __future__ import annotations

import numpy as np
import onnx

from .parts import Parts, given
from .surroundings import Surroundings


def gelu(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """x / 2 (1 + erf(x / sqrt 2)), x with its bias."""
    parts = Parts(around, node)
    x = _with_bias(parts)
    erf = parts.op("Erf", [parts.op("Div", [x, parts.constant(np.sqrt(2))])])
    _half(parts, x, erf)
    return parts.nodes


def fast_gelu(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), x with its bias."""
    parts = Parts(around, node)
    x = _with_bias(parts)
    cube = parts.op("Mul", [parts.op("Pow", [x, parts.constant(3.0)]), parts.constant(0.044715)])
    bent = parts.op("Mul", [parts.op("Add", [x, cube]), parts.constant(np.sqrt(2 / np.pi))])
    _half(parts, x, parts.op("Tanh", [bent]))
    return parts.nodes


def _with_bias(parts: Parts) -> str:
    x, bias = parts.node.input[0], given(parts.node, 1)
    return parts.op("Add", [x, bias]) if bias else x


def _half(parts: Parts, x: str, bent: str) -> None:
    """x / 2 (1 + bent), the result of the node."""
    gate = parts.op("Add", [bent, parts.constant(1.0)])
    parts.op("Mul", [parts.op("Mul", [x, gate]), parts.constant(0.5)], parts.node.output[0])
