"""RoiAlign by means, whose coordinates are said."""

from __future__ import annotations

import onnx

from hwptq.errors import UnsupportedError

from .surroundings import Surroundings, attribute, changed

_HALF_PIXELS = 16  # the opset from which on they are the default


def roi_align(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """With the attribute that says where pixels lie. Raises UnsupportedError for maxima, which ONNX takes of
    pixels times their weights, and TVM of their sums."""
    if attribute(node, "mode", "avg") != "avg":
        raise UnsupportedError(f"node {node.name!r} (RoiAlign): mode 'max' is not supported; use 'avg'")
    key = "coordinate_transformation_mode"
    if attribute(node, key) is not None:
        return None
    default = "half_pixel" if around.opset >= _HALF_PIXELS else "output_half_pixel"
    return [changed(node, **{key: default})]
