"""What a rule sees of the graph around a node, and the constants that it adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..weights.external_weights import array_of

#: Gives the nodes that stand for a node, or None where they are none of its business.
Rule = Callable[["Surroundings", onnx.NodeProto], "list[onnx.NodeProto] | None"]
_NEWEST = onnx.defs.onnx_opset_version()


class Surroundings:
    """Shapes and constants by tensor name, of a graph all of whose shapes are known as far as they can be."""

    def __init__(self, graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]], opset: int = _NEWEST):
        self.opset = opset  # of ONNX's own operators
        self._shapes = dict(shapes)
        self._tensors = {t.name: t for t in graph.initializer}
        for node in graph.node:  # large ones, which are not folded
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._tensors[node.output[0]] = node.attribute[0].t
        self._makers = {name: node for node in graph.node for name in node.output}
        self._taken = {*self._tensors, *(name for n in graph.node for name in (*n.input, *n.output))}
        self.added: list[onnx.TensorProto] = []

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor, where it is known."""
        return self._shapes.get(name)

    def rank(self, name: str) -> int | None:
        """The number of its axes, where it is known."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a constant, else None."""
        return array_of(self._tensors[name]) if name in self._tensors else None

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node of the file that gives a tensor; None for inputs and constants."""
        return self._makers.get(name)

    def add(self, array: Any, hint: str) -> str:
        """The name of a new constant."""
        name = self.fresh(hint)
        tensor = numpy_helper.from_array(np.asarray(array), name)
        self.added.append(tensor)
        self._tensors[name] = tensor
        self._shapes[name] = tuple(tensor.dims)
        return name

    def fresh(self, hint: str, shape: Sequence[int] | None = None) -> str:
        """An unused tensor name; `shape`: that of the tensor, if it is known."""
        name, count = hint, 0
        while name in self._taken:
            count += 1
            name = f"{hint}_{count}"
        self._taken.add(name)
        if shape is not None:
            self._shapes[name] = tuple(shape)
        return name


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute; strings as str, sequences as lists."""
    for found in node.attribute:
        if found.name == name:
            value = helper.get_attribute_value(found)
            return value.decode() if isinstance(value, bytes) else value
    return default


def part_of(node: onnx.NodeProto, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
    """A node that does a part of what `node` does; under its name where it gives the result of `node`, else
    under that of a step, as in labels of origins."""
    name = node.name if output in node.output else f"{node.name}#1"
    return helper.make_node(op, list(inputs), [output], name=name, **attributes)


def changed(
    node: onnx.NodeProto, inputs: Sequence[str] | None = None, output: str | None = None, **attributes: Any
) -> onnx.NodeProto:
    """A copy of a node with other inputs, another first output, and other attributes (None removes one)."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    if inputs is not None:
        copy.input[:] = inputs
    if output is not None:
        copy.output[0] = output
    for name, value in attributes.items():
        kept = [a for a in copy.attribute if a.name != name]
        del copy.attribute[:]
        copy.attribute.extend(kept)
        if value is not None:
            copy.attribute.append(helper.make_attribute(name, value))
    return copy
