"""Codes that are only moved, as values that are: DQ(move(codes)) is move(DQ(codes)), in the same scale.

Between operators of QOperator form, and behind tables of codes, data movement works on codes; the passes know
it on values between Q and DQ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from .code_parts import DEQUANTIZE, CodeParts, attributes_of
from .parts import given
from .surroundings import Surroundings

#: What moves or selects values -> how many of its inputs, from the first on, are values; None for all.
_MOVES: Mapping[str, int | None] = {
    **dict.fromkeys(("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Expand"), 1),
    **dict.fromkeys(("Slice", "Gather", "GatherElements", "Split", "Tile", "Pad", "MaxPool", "Resize"), 1),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), 1),
    "Concat": None,
}


def with_moved_values(graph: onnx.GraphProto, around: Surroundings) -> list[onnx.NodeProto] | None:
    """The nodes of a graph in which every DQ reads what a Q, a constant or the graph gives; None where it is
    so already. What moved the codes stays, for nobody to read."""
    makers = {o: node for node in graph.node for o in node.output if o}
    behind = [n for n in graph.node if n.op_type == DEQUANTIZE and _moves(makers.get(n.input[0]))]
    if not behind:
        return None
    writer, moved = _Writer(makers, around), {n.output[0] for n in behind}
    return [new for n in graph.node for new in (writer.visit(n) if n.output[0] in moved else [n])]


def _moves(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type in _MOVES


@dataclass(frozen=True)
class _Scale:
    """The names of scale and zero point, and the attributes of a DQ."""

    scale: str
    zero: str
    node: onnx.NodeProto


class _Writer:
    """Writes the values of codes, of each tensor in each scale once."""

    def __init__(self, makers: Mapping[str, onnx.NodeProto], around: Surroundings):
        self._makers, self._around = makers, around
        self._done: dict[tuple[str, str, str], str] = {}

    def visit(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """What stands for a DQ behind a movement."""
        scale = _Scale(node.input[1], given(node, 2), node)
        nodes: list[onnx.NodeProto] = []
        value = self._value(node.input[0], scale, nodes)
        parts = CodeParts(self._around, node)
        parts.op("Identity", [value], node.output[0])
        return [*nodes, *parts.nodes]

    def _value(self, codes: str, scale: _Scale, nodes: list[onnx.NodeProto]) -> str:
        """The name of the values of a tensor of codes; what gives them is added to `nodes`."""
        key = codes, scale.scale, scale.zero
        maker = self._makers.get(codes)
        if key in self._done:
            return self._done[key]
        if maker is None or not _moves(maker):
            parts = CodeParts(self._around, scale.node)
            self._done[key] = parts.real(codes, scale.scale, scale.zero, **attributes_of(scale.node))
            nodes += parts.nodes
            return self._done[key]
        count = _MOVES[maker.op_type]
        values = [self._value(name, scale, nodes) for name in list(maker.input)[:count]]
        rest = [] if count is None else list(maker.input)[count:]
        parts = CodeParts(self._around, maker)
        if maker.op_type == "Pad":
            rest = self._padding(parts, rest, scale)
        outputs = [self._around.fresh(f"{name}_real") for name in maker.output]
        moved = onnx.helper.make_node(
            maker.op_type, [*values, *rest], outputs, name=maker.name, **attributes_of(maker)
        )
        nodes += [*parts.nodes, moved]
        for name, output in zip(maker.output, outputs, strict=True):
            self._done[name, scale.scale, scale.zero] = self._in_codes(maker, output, scale, nodes)
        return self._done[key]

    def _in_codes(
        self, maker: onnx.NodeProto, value: str, scale: _Scale, nodes: list[onnx.NodeProto]
    ) -> str:  # fmt: skip
        """Moved values between Q and DQ, where they were no constant."""
        if all(self._constant(name) for name in list(maker.input)[: _MOVES[maker.op_type]]):
            return value
        parts = CodeParts(self._around, maker)
        codes = parts.codes(value, [scale.scale, scale.zero])
        real = parts.real(codes, scale.scale, scale.zero)
        nodes += parts.nodes
        return real

    def _constant(self, name: str) -> bool:
        """Whether codes come from a constant."""
        maker = self._makers.get(name)
        if _moves(maker):
            assert maker is not None
            return all(self._constant(i) for i in list(maker.input)[: _MOVES[maker.op_type]])
        return self._around.constant(name) is not None

    def _padding(self, parts: CodeParts, rest: list[str], scale: _Scale) -> list[str]:
        """pads, the value of the code that is filled in, and axes."""
        code = self._around.constant(rest[1]) if len(rest) > 1 and rest[1] else np.zeros((), np.int64)
        step, zero = self._around.constant(scale.scale), self._around.constant(scale.zero)
        if code is None or step is None:
            return rest
        distance = float(code) - (float(zero.reshape(())) if zero is not None else 0.0)
        return [rest[0], parts.constant(distance * float(step.reshape(()))), *rest[2:]]
