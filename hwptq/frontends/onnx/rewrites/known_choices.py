"""Choices that are known, and sums that add nothing, are the operand that is left.

The body of Attention guards rows that a mask hides whole, and adds a mask, where there is none: around a
softmax either keeps it from being integers.
"""

from __future__ import annotations

import onnx
from onnx import helper

from .surroundings import Surroundings


def known_choice(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Where of a constant condition that is the same everywhere."""
    condition = around.constant(node.input[0])
    if condition is None or not condition.size or condition.any() != condition.all():
        return None
    return _left(around, node, node.input[1] if condition.all() else node.input[2])


def added_nothing(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Add of zeros."""
    for one, other in (node.input, node.input[::-1]):
        value = around.constant(other)
        if value is not None and around.constant(one) is None and not value.any():
            return _left(around, node, one)
    return None


def _left(around: Surroundings, node: onnx.NodeProto, operand: str) -> list[onnx.NodeProto] | None:
    """The operand, where it has the shape of the result."""
    shape = around.shape(operand)
    if shape is None or shape != around.shape(node.output[0]):
        return None
    return [helper.make_node("Identity", [operand], node.output, name=node.name)]
