"""Steps between real values and their codes, for what stands for a node that computes with codes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

from .parts import Parts

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


class CodeParts(Parts):
    """Nodes so far; those of `layer` have the name of the node that they stand for."""

    def layer(self, op: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """What the node computes, in real numbers."""
        result = self.op(op, inputs, output, **attributes)
        self.nodes[-1].name = self.node.name
        return result

    def real(self, *triple: str, **attributes: Any) -> str:
        """The values that codes stand for. triple: they, their scale and zero point ("" for none)."""
        return self.op(DEQUANTIZE, [name for name in triple if name], **attributes)

    def codes(self, real: str, steps: Sequence[str], output: str = "") -> str:
        """The nearest codes of values. steps: scale and zero point ("" for none)."""
        return self.op(QUANTIZE, [real, *(name for name in steps if name)], output)


def attributes_of(node: onnx.NodeProto, without: Collection[str] = ()) -> Mapping[str, Any]:
    """The attributes of a node, for another one."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name not in without}
