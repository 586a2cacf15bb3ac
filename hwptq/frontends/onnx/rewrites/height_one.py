"""Convolutions and pooling of signals as those of images of height 1, which have integer forms and kernels.

What computes element by element between them gets the height too, so that the reshapes stand at the ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .surroundings import Surroundings, attribute, changed

_WITH_WEIGHTS = ("Conv", "ConvTranspose")
_WINDOWS = (*_WITH_WEIGHTS, "MaxPool", "AveragePool", "LpPool")
_WHOLE = ("GlobalAveragePool", "GlobalMaxPool")
#: Of one tensor and scalars, whatever its shape; norms by channel and Dropout besides.
_ELEMENTWISE = {
    *(
        "Relu",
        "LeakyRelu",
        "Clip",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Tanh",
        "Elu",
        "Selu",
        "Gelu",
        "Mish",
    ),
    *("Softplus", "Softsign", "Exp", "Log", "Sqrt", "Abs", "Neg", "Erf", "Sin", "Cos", "Identity"),
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "Dropout"),
}
_OF_TWO = {"Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu"}


def with_height(graph: onnx.GraphProto, around: Surroundings) -> None:
    """Change a graph in place."""
    if not any(_is_window(around, node) for node in graph.node):
        return
    writer = _Writer(graph, around)
    for node in list(graph.node):
        writer.visit(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in writer.nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(around.added)


def _is_window(around: Surroundings, node: onnx.NodeProto) -> bool:
    known = node.op_type in (*_WINDOWS, *_WHOLE) and len(node.output) == 1
    return known and around.rank(node.input[0]) == 3 and around.shape(node.output[0]) is not None


class _Writer:
    """The new nodes, in their order, and which tensor [N, C, 1, L] stands for which [N, C, L]."""

    def __init__(self, graph: onnx.GraphProto, around: Surroundings):
        self.nodes: list[onnx.NodeProto] = []
        self._around = around
        self._outputs = {value.name for value in graph.output}
        self._high: dict[str, str] = {}  # [N, C, L] -> [N, C, 1, L]
        self._flat = _names(graph)  # tensors that exist as the file has them

    def visit(self, node: onnx.NodeProto) -> None:
        """Add what stands for a node."""
        if _is_window(self._around, node):
            self._window(node)
        elif self._keeps_height(node):
            inputs = [self._high.get(name) or self._with_height(name) for name in node.input]
            self._emit_high(node, inputs)
        else:
            for name in node.input:
                self._need_flat(node, name)
            self.nodes.append(node)

    def _window(self, node: onnx.NodeProto) -> None:
        inputs = [self._lifted(node, node.input[0]), *node.input[1:]]
        attributes: dict[str, Any] = {}
        if node.op_type in _WITH_WEIGHTS:
            inputs[1] = self._lifted(node, node.input[1])
        if node.op_type not in _WHOLE:
            for key in ("kernel_shape", "strides", "dilations"):
                if (values := attribute(node, key)) is not None:
                    attributes[key] = [1, *values]
            for key, lead in (("output_padding", 0), ("output_shape", 1)):
                if (values := attribute(node, key)) is not None:
                    attributes[key] = [lead, values[-1]]
            if (pads := attribute(node, "pads")) is not None:
                attributes["pads"] = [0, pads[0], 0, pads[1]]
        self._emit_high(changed(node, **attributes), inputs)

    def _keeps_height(self, node: onnx.NodeProto) -> bool:
        """Whether a node gives the same on images, and its input is one."""
        if len(node.output) != 1 or not node.input:
            return False
        if node.input[0] not in self._high and node.op_type not in _OF_TWO:
            return False
        if node.op_type in _ELEMENTWISE:
            return node.input[0] in self._high
        if node.op_type not in _OF_TWO or not any(name in self._high for name in node.input):
            return False
        out = self._around.shape(node.output[0])
        return (
            all(name in self._high or self._is_small_constant(name) for name in node.input)
            and out is not None
            and len(out) == 3
        )

    def _is_small_constant(self, name: str) -> bool:
        """A scalar, or a constant whose axes are at most [C, L]."""
        return self._around.constant(name) is not None and (self._around.rank(name) or 0) <= 3

    def _with_height(self, name: str) -> str:
        """An operand that is no image, for use beside one: [.., C, L] becomes [.., C, 1, L]."""
        array = self._around.constant(name)
        if array is None or array.ndim < 2:
            return name
        return self._around.add(np.expand_dims(array, -2), f"{name}_high")

    def _lifted(self, node: onnx.NodeProto, name: str) -> str:
        """The tensor [N, C, 1, L] of one [N, C, L]."""
        if name in self._high:
            return self._high[name]
        shape = self._around.shape(name) or ()
        high = (*shape[:2], 1, shape[2])
        array = self._around.constant(name)
        if array is not None:
            self._high[name] = self._around.add(array.reshape(high), f"{name}_high")
        else:
            self._high[name] = self._around.fresh(f"{name}_high", high)
            self.nodes.append(self._reshape(node, name, self._high[name], high))
        return self._high[name]

    def _emit_high(self, node: onnx.NodeProto, inputs: Sequence[str]) -> None:
        """Add a node of images; its output without a height only where it is needed."""
        [name] = node.output
        shape = self._around.shape(name)
        assert shape is not None
        high = (*shape[:2], 1, *shape[2:])
        self._high[name] = self._around.fresh(f"{name}_high", high)
        self._flat.discard(name)
        self.nodes.append(changed(node, inputs, self._high[name]))
        if name in self._outputs:
            self._need_flat(node, name)

    def _need_flat(self, node: onnx.NodeProto, name: str) -> None:
        """Have [N, C, L] of an image that so far exists as [N, C, 1, L] only."""
        if name in self._high and name not in self._flat:
            self._flat.add(name)
            self.nodes.append(self._reshape(node, self._high[name], name, self._around.shape(name) or ()))

    def _reshape(self, node: onnx.NodeProto, source: str, name: str, shape: Sequence[int]) -> onnx.NodeProto:
        sizes = self._around.add(np.array(shape, np.int64), f"{name}_shape")
        return helper.make_node("Reshape", [source, sizes], [name], name=f"{node.name}#1")


def _names(graph: onnx.GraphProto) -> set[str]:
    """The inputs, constants and results of a graph."""
    results = {name for node in graph.node for name in node.output}
    return results | {i.name for i in graph.input} | {t.name for t in graph.initializer}
