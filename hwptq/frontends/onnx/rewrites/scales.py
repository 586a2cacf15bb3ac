"""Scales that no arithmetic has: those of channels that hold nothing get a size, others are refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from hwptq.errors import UnsupportedError

from .code_parts import DEQUANTIZE, QUANTIZE
from .parts import given
from .surroundings import Surroundings
from .weight_codes import spread


def with_positive_scales(graph: onnx.GraphProto, around: Surroundings) -> Sequence[onnx.NodeProto]:
    """The nodes, changed in place. A scale of 0 makes zeros of constant codes, as the code of zero does; that
    of constant codes may be negative.

    Raises UnsupportedError for other scales that are no positive, finite numbers.
    """
    for node in graph.node:
        if node.op_type not in (QUANTIZE, DEQUANTIZE):
            continue
        scale = around.constant(node.input[1])
        if scale is None:
            continue
        if scale.dtype.kind in "biu":
            raise _refusal(node, f"is {scale.dtype}")
        values = scale.astype(np.float64)
        good = np.isfinite(values) & ((values >= 0) | _scales_constants(node, around))
        if not np.all(good):
            raise _refusal(node, f"holds {values[~good].flat[0]:g}")
        if np.any(values == 0) and not _without_nothings(node, scale, around):
            raise _refusal(node, "holds 0")
    return list(graph.node)


def _scales_constants(node: onnx.NodeProto, around: Surroundings) -> bool:
    return node.op_type == DEQUANTIZE and around.constant(node.input[0]) is not None


def _without_nothings(node: onnx.NodeProto, scale: np.ndarray, around: Surroundings) -> bool:
    """Give codes that a scale of 0 makes zeros of the scale of others; False where that can't be done."""
    codes = around.constant(node.input[0]) if _scales_constants(node, around) else None
    if codes is None or not np.any(scale):
        return False
    attributes = {a.name: a.i for a in node.attribute}
    layout = attributes.get("axis", 1), attributes.get("block_size", 0)
    zero = around.constant(given(node, 2)) if given(node, 2) else np.zeros((), codes.dtype)
    if zero is None:
        return False
    nothing = spread(scale == 0, codes.shape, *layout)
    codes = np.where(nothing, spread(zero, codes.shape, *layout), codes).astype(codes.dtype)
    node.input[0] = around.add(codes, f"{node.output[0]}_codes")
    node.input[1] = around.add(np.where(scale == 0, np.abs(scale).max(), scale), f"{node.output[0]}_scale")
    return True


def _refusal(node: onnx.NodeProto, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"node {node.name!r} ({node.op_type}): its scale {node.input[1]!r} {what}, and must be a positive "
        f"number; quantize the model again"
    )
