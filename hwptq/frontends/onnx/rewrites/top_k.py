"""TopK of a few as one maximum after another: sorting has no code that runs without a runtime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from hwptq.errors import UnsupportedError

from .parts import Parts, given, made
from .surroundings import Surroundings, attribute

_MOST = 128  # maxima, each of some nodes
_LOWEST = np.finfo(np.float32).min


@dataclass(frozen=True)
class _Row:
    """What is looked through along an axis: the values, their places, and what stands for none of each."""

    parts: Parts
    axis: int
    values: str
    places: str
    lowest: str
    nowhere: str

    def largest(self, values: str, places: str) -> tuple[str, str]:
        """The largest of `values`, and the first of `places` that has it."""
        op = self.parts.op
        value = self.parts.reduced("ReduceMax", values, [self.axis])
        where = op("Where", [op("Equal", [self.values, value]), places, self.nowhere])
        return value, self.parts.reduced("ReduceMin", where, [self.axis])

    def after(self, value: str, place: str) -> tuple[str, str]:
        """Values and places without those that come before: less than `value`, or equal to it and behind."""
        op = self.parts.op
        behind = op("And", [op("Equal", [self.values, value]), op("Greater", [self.places, place])])
        left = op("Or", [op("Less", [self.values, value]), behind])
        pairs = ((self.values, self.lowest), (self.places, self.nowhere))
        values, places = (op("Where", [left, some, none]) for some, none in pairs)
        return values, places


def top_k(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Values in their order, and their places: of equal ones the first comes first, as in ONNX Runtime.

    Raises UnsupportedError for more than _MOST.
    """
    shape, k = around.shape(node.input[0]), attribute(node, "k")  # an input since opset 10
    if k is None and given(node, 1):
        k = around.constant(node.input[1])
    if shape is None or k is None:
        return None
    count = int(np.ravel(k)[0])
    if count > _MOST:
        raise UnsupportedError(
            f"node {node.name!r} (TopK): {count} values have no code, {_MOST} and fewer have; cut the model "
            f"before it, and sort in the program that calls the code"
        )
    axis, parts = attribute(node, "axis", -1) % len(shape), Parts(around, node)
    largest = bool(attribute(node, "largest", 1))
    values = node.input[0] if largest else parts.op("Neg", [node.input[0]])
    numbers = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    places, nowhere = (parts.constant(x, np.int64) for x in (numbers, shape[axis]))
    row = _Row(parts, axis, values, places, parts.constant(_LOWEST), nowhere)
    found = [row.largest(values, places)]
    while len(found) < count:
        found.append(row.largest(*row.after(*found[-1])))
    if made(node, 0):
        ordered = parts.op("Concat", [value for value, _ in found], axis=axis)
        parts.op("Identity" if largest else "Neg", [ordered], node.output[0])
    if made(node, 1):
        parts.op("Concat", [place for _, place in found], node.output[1], axis=axis)
    return parts.nodes
