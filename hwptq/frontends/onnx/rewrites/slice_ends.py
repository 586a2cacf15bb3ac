"""Slice with its ends as inputs, as it is since opset 10."""

from __future__ import annotations

import numpy as np
import onnx

from .surroundings import Surroundings, attribute, changed


def slice_ends(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """From the attributes starts, ends and axes."""
    starts, ends = attribute(node, "starts"), attribute(node, "ends")
    if starts is None or ends is None:
        return None
    axes = attribute(node, "axes")
    values = (starts, ends, range(len(starts)) if axes is None else axes)
    constants = [around.add(np.asarray(list(v), np.int64), f"{node.output[0]}_ends") for v in values]
    return [changed(node, [node.input[0], *constants], starts=None, ends=None, axes=None)]
