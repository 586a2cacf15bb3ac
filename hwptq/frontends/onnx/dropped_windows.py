"""Poolings with ceil_mode whose last window would lie in the padding behind the image: it is dropped.

So say ONNX and PyTorch; ONNX's inference of shapes, and the importer by it, count such windows. Without
ceil_mode there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import onnx

from .fold_shapes import static_shapes, with_inputs
from .rewrites.surroundings import attribute, changed

_POOLS = ("AveragePool", "LpPool", "MaxPool")


def drop_windows(model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]]) -> None:
    """Change a model in place; inputs: their shapes. Shapes behind a pooling follow from it."""
    while found := _first(model, inputs):
        place, node = found
        model.graph.node[place].CopyFrom(node)


def _first(
    model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]]
) -> tuple[int, onnx.NodeProto] | None:
    """The place of the first such pooling, and what stands for it."""
    pools = [i for i, n in enumerate(model.graph.node) if n.op_type in _POOLS and attribute(n, "ceil_mode")]
    shapes = static_shapes(with_inputs(model, inputs)) if pools else {}
    for place in pools:
        node = model.graph.node[place]
        shape = shapes.get(node.input[0])
        found = _without_ceil(node, shape[2:]) if shape else None
        if found is not None:
            return place, found
    return None


def _without_ceil(node: onnx.NodeProto, sizes: tuple[int, ...]) -> onnx.NodeProto | None:
    """The pooling without ceil_mode, where a window is dropped; None where none is, or no padding says so."""
    rank, kernel = len(sizes), attribute(node, "kernel_shape")
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    strides, dilations = (attribute(node, name, [1] * rank) for name in ("strides", "dilations"))
    pads = attribute(node, "pads", [0] * 2 * rank)
    before, after, dropped, larger = pads[:rank], list(pads[rank:]), False, False
    for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        room = size + before[axis] + after[axis] - extent
        count = ceil(room / stride) + 1
        if (count - 1) * stride >= size + before[axis]:
            dropped = True
        elif room % stride:
            after[axis] += (count - 1) * stride - room
            larger = True
    if not dropped or (larger and node.op_type != "MaxPool" and attribute(node, "count_include_pad", 0)):
        return None
    return changed(node, ceil_mode=None, pads=[*before, *after])
