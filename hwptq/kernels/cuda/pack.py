"""CUDA kernels that prepare operands of the wgmma kernel: channels that TMA can load, packed products."""

from __future__ import annotations

from math import prod
from typing import Any

import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat, constant
from hwptq.tir.kernel import TensorType

from .flat import flat_kernel, indices
from .operand import item_bytes
from .places import all_of
from .tiling import Tiling

Border = tuple[int, int, int, int]  # top, left, bottom, right


def fill(dtype: str, value: int = 0) -> Expr:
    """An int8, or the float of that code."""
    if dtype == "int8":
        return constant(value, dtype)
    return T.reinterpret(dtype, constant(value, f"uint{8 * item_bytes(dtype)}"))


def pad_channels(x: TensorType, channels: int, attributes: dict[str, Any]) -> tvm.tirx.PrimFunc:
    """x [..., C] -> [..., channels], with zeros behind every pixel."""
    have = x.shape[-1]

    def element(at: Expr, tensor: Flat) -> Expr:
        pixel, channel = T.floordiv(at, channels), T.floormod(at, channels)
        return T.if_then_else(channel < have, tensor.load(pixel * have + channel), fill(x.dtype))

    return flat_kernel([x], TensorType((*x.shape[:-1], channels), x.dtype), attributes, element)


def row_windows(x: TensorType, op: Any, out: TensorType, size: int, attributes: dict[str, Any]) -> Any:
    """x [N,H,W,C] -> out [N,H,OW,channels]: for each output column the `size` pixels of a kernel row.

    They lie one behind the other, with zeros beyond the image and behind them.
    """
    _, h, w, have = x.shape

    def element(at: Expr, tensor: Flat) -> Expr:
        n, y, z, place = indices(at, out.shape)
        tap, channel = T.floordiv(place, have), T.floormod(place, have)
        column = z * op.strides[1] + tap * op.dilation[1] - op.padding[1]
        inside = all_of([column >= 0, column < w, tap < size])
        return T.if_then_else(inside, tensor.load(((n * h + y) * w + column) * have + channel), fill(x.dtype))

    return flat_kernel([x], out, attributes, element)


def padded_image(x: TensorType, border: Border, channels: int) -> TensorType:
    """What pad_image makes of x [N,H,W,C]."""
    n, h, w, _ = x.shape
    return TensorType((n, border[0] + h + border[2], border[1] + w + border[3], channels), x.dtype)


def pad_image(
    x: TensorType, border: Border, value: int, channels: int, attributes: dict[str, Any]
) -> tvm.tirx.PrimFunc:
    """x [N,H,W,C] int8 with `value` around every image and behind every pixel, which gets `channels`."""
    _, h, w, have = x.shape
    out = padded_image(x, border, channels)

    def element(at: Expr, tensor: Flat) -> Expr:
        n, y, z, channel = indices(at, out.shape)
        row, column = y - border[0], z - border[1]
        inside = all_of([row >= 0, row < h, column >= 0, column < w, channel < have])
        return T.if_then_else(
            inside, tensor.load(((n * h + row) * w + column) * have + channel), fill(x.dtype, value)
        )

    return flat_kernel([x], out, attributes, element)


def pack_product(b: TensorType, tiling: Tiling, attributes: dict[str, Any]) -> tvm.tirx.PrimFunc:
    """b [..., K,N] -> [G*weight_rows, weight_depth]: transposed, then as packing.packed_weights does."""
    depth, outputs = b.shape[-2:]
    rows, width = tiling.weight_rows, tiling.problem.width
    out = TensorType((prod(b.shape[:-2]) * rows, tiling.weight_depth), b.dtype)

    def element(at: Expr, tensor: Flat) -> Expr:
        row, k = indices(at, out.shape)
        within = T.floormod(row, 4 * width)
        pair, thread, second = T.floordiv(within, 8), T.floordiv(T.floormod(within, 8), 2), T.floormod(row, 2)
        channel = T.floormod(row, rows) - within + thread * width + pair * 2 + second
        source = (T.floordiv(row, rows) * depth + k) * outputs + channel
        inside = T.And(channel < outputs, k < depth)
        return T.if_then_else(inside, tensor.load(source), fill(b.dtype))

    return flat_kernel([b], out, attributes, element)
