"""Reading average pooling, adaptive pooling and spatial means as one kind of window."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from hwptq.ir.dataflow import op_name, shape_of

from .emitter import Emitter
from .operand import NotInteger, Operand, four, pair


@dataclass(frozen=True)
class AverageWindow:
    """Windows over NCHW images, and how many values each of them averages over."""

    size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    out_shape: tuple[int, int]
    counts: np.ndarray  # [OH*OW]


def average_window(call: Any) -> AverageWindow:
    """The window of nn.avg_pool2d, nn.adaptive_avg_pool2d, or of a mean over pixels or tokens, as
    over_pixels sees them.

    Raises NotInteger where the windows differ in size or are dilated.
    """
    image = over_pixels(call)[1:3] if op_name(call) == "mean" else shape_of(call.args[0])[2:]
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
    return (1, 1) if op_name(call) == "mean" else pair(shape_of(call)[2:])


def _counts(
    extent: int, size: int, stride: int, before: int, after: int, out: int, inside_only: bool
) -> np.ndarray:
    """How many values each window along one axis averages over."""
    starts = np.arange(out) * stride - before
    low, high = (0, extent) if inside_only else (-before, extent + after)
    return np.minimum(starts + size, high) - np.maximum(starts, low)


def over_pixels(reduction: Any) -> tuple[int, int, int, int]:
    """The NHWC image whose pixels a mean or a maximum joins: all axes but the batch and the channels, which
    are the last axis, or the second one. Raises NotInteger where it does something else.
    """
    shape, axes = shape_of(reduction.args[0]), reduction.attrs.axis
    rank = len(shape)
    joined = sorted(int(a) % rank for a in axes) if axes is not None else []
    if rank == 4 and joined == [2, 3]:
        return shape[0], shape[2], shape[3], shape[1]
    if rank > 2 and joined == list(range(2, rank)):
        return shape[0], prod(shape[2:]), 1, shape[1]
    if rank > 2 and joined == list(range(1, rank - 1)):
        return shape[0], prod(shape[1:-1]), 1, shape[-1]
    raise NotInteger(f"a {op_name(reduction)} over something else than pixels or tokens")


def channels_last(reduction: Any) -> bool:
    """Whether the channels of such a mean or maximum are its last axis."""
    rank = len(shape_of(reduction.args[0]))
    return 1 in (int(a) % rank for a in reduction.attrs.axis)


def pixels_of(e: Emitter, x: Operand, reduction: Any) -> Any:
    """The tensor x as the NHWC image of over_pixels."""
    n, h, w, c = over_pixels(reduction)
    if channels_last(reduction):
        return e.reshaped(x.tensor, (n, h, w, c))
    return e.images(e.reshaped(x.tensor, (n, c, h, w)))


def why_not_pixels(reduction: Any) -> str | None:
    """Why a mean or a maximum has no integer form; None where it has one."""
    try:
        over_pixels(reduction)
    except NotInteger as error:
        return str(error)
    return None
