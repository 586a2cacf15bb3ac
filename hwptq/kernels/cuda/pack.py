"""CUDA kernels that prepare operands of the wgmma kernel: channels that TMA can load, packed products."""

from __future__ import annotations

from math import prod
from typing import Any

import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.kernels.builder import Expr, Flat, constant
from hwptq.kernels.kernel import TensorType
from hwptq.quant import fp8

from .flat import flat_kernel, indices
from .tiling import PERMUTED, Tiling


def zero() -> Expr:
    """An e4m3 zero."""
    return T.reinterpret(fp8.DTYPE, constant(0, "uint8"))


def pad_channels(x: TensorType, channels: int, attributes: dict[str, Any]) -> tvm.tirx.PrimFunc:
    """x [..., C] -> [..., channels], with zeros behind every pixel."""
    have = x.shape[-1]

    def element(at: Expr, tensor: Flat) -> Expr:
        pixel, channel = T.floordiv(at, channels), T.floormod(at, channels)
        return T.if_then_else(channel < have, tensor.load(pixel * have + channel), zero())

    return flat_kernel([x], TensorType((*x.shape[:-1], channels), x.dtype), attributes, element)


def pack_product(b: TensorType, tiling: Tiling, attributes: dict[str, Any]) -> tvm.tirx.PrimFunc:
    """b [..., K,N] -> [G*weight_rows, weight_depth]: transposed, then as packing.packed_weights does."""
    depth, outputs = b.shape[-2:]
    rows = tiling.weight_rows
    out = TensorType((prod(b.shape[:-2]) * rows, tiling.weight_depth), b.dtype)

    def element(at: Expr, tensor: Flat) -> Expr:
        row, k = indices(at, out.shape)
        within = T.floormod(row, PERMUTED)
        pair, thread, second = T.floordiv(within, 8), T.floordiv(T.floormod(within, 8), 2), T.floormod(row, 2)
        channel = T.floormod(row, rows) - within + thread * 16 + pair * 2 + second
        source = (T.floordiv(row, rows) * depth + k) * outputs + channel
        inside = T.And(channel < outputs, k < depth)
        return T.if_then_else(inside, tensor.load(source), zero())

    return flat_kernel([b], out, attributes, element)
