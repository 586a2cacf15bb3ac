"""Builds the standard nodes that stand for one node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from .surroundings import Surroundings, part_of

#: The opset since which an operator takes its axes as an input; "": Reduces that aren't listed.
_AXES_AS_INPUT = {"ReduceSum": 13, "Unsqueeze": 13, "": 18}


class Parts:
    """Nodes so far, in order. Sizes are tensors computed from shapes, which fold_shapes makes constants."""

    def __init__(self, around: Surroundings, node: onnx.NodeProto):
        self.around, self.node = around, node
        self.nodes: list[onnx.NodeProto] = []

    def op(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """A new node; the name of its only output."""
        output = output or self.around.fresh(f"{self.node.output[0]}_{op}")
        self.nodes.append(part_of(self.node, op, inputs, output, **attributes))
        return output

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """The name of a new constant."""
        return self.around.add(np.asarray(value, dtype), f"{self.node.output[0]}_constant")

    def ints(self, *values: int) -> str:
        """A vector of int64."""
        return self.constant(values, np.int64)

    def size(self, tensor: str, axis: int) -> str:
        """The size of an axis, int64 of rank 0."""
        return self.op("Gather", [self.op("Shape", [tensor]), self.constant(axis, np.int64)])

    def reshaped(self, tensor: str, *shape: int) -> str:
        """To a shape in which 0 keeps an axis, and -1 takes what is left."""
        return self.op("Reshape", [tensor, self.ints(*shape)])

    def unsqueezed(self, tensor: str, *axes: int) -> str:
        """With new axes of one, which newer opsets take as an input."""
        if self.around.opset >= _AXES_AS_INPUT["Unsqueeze"]:
            return self.op("Unsqueeze", [tensor, self.ints(*axes)])
        return self.op("Unsqueeze", [tensor], axes=list(axes))

    def reduced(self, op: str, tensor: str, axes: Sequence[int], keepdims: int = 1) -> str:
        """A Reduce over some axes, which newer opsets take as an input."""
        if self.around.opset >= _AXES_AS_INPUT.get(op, _AXES_AS_INPUT[""]):
            return self.op(op, [tensor, self.ints(*axes)], keepdims=keepdims)
        return self.op(op, [tensor], axes=list(axes), keepdims=keepdims)

    def sliced(self, tensor: str, axis: int, begin: int, end: int, step: int = 1) -> str:
        """Elements along an axis."""
        return self.op("Slice", [tensor, *(self.ints(v) for v in (begin, end, axis, step))])


def given(node: onnx.NodeProto, index: int) -> str:
    """The name of an input, "" where it is left out."""
    return node.input[index] if index < len(node.input) else ""


def made(node: onnx.NodeProto, index: int) -> str:
    """The name of an output, "" where nobody wants it."""
    return node.output[index] if index < len(node.output) else ""
