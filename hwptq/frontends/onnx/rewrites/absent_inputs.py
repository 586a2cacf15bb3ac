"""An input of no elements counts as one that is missing: exporters write empty `roi`, `scales` and parts."""

from __future__ import annotations

import onnx

from .surroundings import Surroundings, changed, part_of


def absent_inputs(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Resize without its empty inputs, Concat without its empty parts."""
    empty = [bool(name) and 0 in (around.shape(name) or ()) for name in node.input]
    if not any(empty) or all(empty):
        return None
    if node.op_type == "Concat":
        parts = [name for name, gone in zip(node.input, empty, strict=True) if not gone]
        if len(parts) == 1:
            return [part_of(node, "Identity", parts, node.output[0])]
        return [changed(node, parts)]
    return [changed(node, ["" if gone else name for name, gone in zip(node.input, empty, strict=True)])]
