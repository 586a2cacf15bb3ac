"""QuickGelu: x times a sigmoid."""

from __future__ import annotations

import onnx

from .parts import Parts
from .surroundings import Surroundings, attribute


def quick_gelu(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """x * sigmoid(alpha x)."""
    parts, (x, *_) = Parts(around, node), node.input
    bent = parts.op("Sigmoid", [parts.op("Mul", [x, parts.constant(attribute(node, "alpha", 1.702))])])
    parts.op("Mul", [x, bent], node.output[0])
    return parts.nodes
