"""Resize of some axes as one of all."""

from __future__ import annotations

import onnx

from .surroundings import Surroundings, attribute, changed


def resize_axes(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Without the attribute `axes`: the scales or sizes of the other axes are 1, or theirs."""
    axes, shape = attribute(node, "axes"), around.shape(node.input[0])
    if axes is None or shape is None or attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    inputs = [*node.input, "", "", ""][:4]
    for position, whole in ((2, [1.0] * len(shape)), (3, list(shape))):
        values = around.constant(inputs[position]) if inputs[position] else None
        if inputs[position] and values is None:
            return None
        if values is not None:
            for axis, value in zip(axes, values.tolist(), strict=True):
                whole[axis] = value
            array = values.dtype.type(whole)
            inputs[position] = around.add(array, f"{inputs[position]}_all")
    inputs[1] = ""  # only used to crop, which is not offered
    return [changed(node, inputs, axes=None)]
