"""Reading average pooling, adaptive pooling and spatial means as one kind of window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hwptq.ir.dataflow import op_name, shape_of

from .operand import NotInteger, four, pair


@dataclass(frozen=True)
class AverageWindow:
    """Windows over NCHW images, and how many values each of them averages over."""

    size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    out_shape: tuple[int, int]
    counts: np.ndarray  # [OH*OW]


def average_window(call: Any) -> AverageWindow:
    """The window of nn.avg_pool2d, nn.adaptive_avg_pool2d, or of a mean over H and W.

    Raises NotInteger where the windows differ in size or are dilated.
    """
    image = shape_of(call.args[0])[2:]
    if op_name(call) == "nn.avg_pool2d":
        attrs = call.attrs
        if pair(attrs.dilation) != (1, 1):
            raise NotInteger("dilated average pooling")
        size, strides, padding = pair(attrs.pool_size), pair(attrs.strides), four(attrs.padding)
        out, inside_only = pair(shape_of(call)[2:]), not bool(attrs.count_include_pad)
    else:
        out = _global_pixels(call)
        if image[0] % out[0] or image[1] % out[1]:
            raise NotInteger("adaptive pooling with windows of unequal size")
        size = strides = (image[0] // out[0], image[1] // out[1])
        padding, inside_only = (0, 0, 0, 0), False
    counts = [
        _counts(image[i], size[i], strides[i], padding[i], padding[i + 2], out[i], inside_only)
        for i in (0, 1)
    ]
    return AverageWindow(size, strides, padding, out, np.outer(*counts).reshape(-1))


def _global_pixels(call: Any) -> tuple[int, int]:
    """(OH, OW) of an adaptive pooling, or of a mean."""
    if op_name(call) != "mean":
        return pair(shape_of(call)[2:])
    if not is_spatial(call):
        raise NotInteger("a mean that is no global pooling")
    return 1, 1


def _counts(
    extent: int, size: int, stride: int, before: int, after: int, out: int, inside_only: bool
) -> np.ndarray:
    """How many values each window along one axis averages over."""
    starts = np.arange(out) * stride - before
    low, high = (0, extent) if inside_only else (-before, extent + after)
    return np.minimum(starts + size, high) - np.maximum(starts, low)


def is_spatial(call: Any) -> bool:
    """Whether a mean runs over H and W of an NCHW tensor."""
    rank = len(shape_of(call.args[0]))
    axes = call.attrs.axis
    return rank == 4 and axes is not None and sorted(int(a) % rank for a in axes) == [2, 3]
