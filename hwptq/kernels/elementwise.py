"""Elementwise operators, Pad and the float boundary, vectorised over the innermost contiguous axis."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from tvm.script.ir_builder import tirx as T

from hwptq.quant import integer_ops as ops
from hwptq.tir.builder import Expr, Flat, cast, clamp, constant, loop, spans, splat
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import broadcast_strides, merged, row_major, walk
from hwptq.tir.vector_unit import VectorUnit

from .arithmetic import Operand, added, multiplied


def emit_binary(
    op: ops.Add | ops.Mul, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
) -> Callable[..., None]:
    """Code of Add and Mul on any broadcastable shapes."""
    shapes = [broadcast_strides(t.shape, out.shape) for t in inputs]
    loops = merged(out.shape, [*shapes, row_major(out.shape)])

    def emit(a: Flat, b: Flat, y: Flat) -> None:
        def block(offsets: list[Expr], width: int, count: int) -> None:
            operands = [
                _operand(tensor, offset, steps[-1], width)
                for tensor, offset, steps in zip((a, b), offsets, loops.strides, strict=False)
            ]
            first, second = operands
            if isinstance(op, ops.Add):
                y.store(offsets[2], added(op, Operand(first), Operand(second), width, unit), width, count)
            else:
                y.store(offsets[2], multiplied(op, first, second, width, unit), width, count)

        walk(loops, unit, block)

    return emit


def _operand(tensor: Flat, offset: Expr, stride: int, width: int) -> Expr:
    """A vector of a tensor, a broadcast value in every lane."""
    return splat(tensor.load(offset), width) if stride == 0 else tensor.load(offset, width)


def emit_clamp(out: TensorType, unit: VectorUnit) -> Callable[..., None]:
    """Code of Clamp: vectors along the channels."""
    channels = out.shape[-1]

    def emit(x: Flat, lo: Flat, hi: Flat, y: Flat) -> None:
        def row(i: Expr) -> None:
            def block(at: Expr, width: int, count: int) -> None:
                limits = (lo.load(at, width), hi.load(at, width))
                y.store(i * channels + at, clamp(x.load(i * channels + at, width), *limits), width, count)

            unit.cover(channels, block)

        loop(y.size // channels, row)

    return emit


def emit_quantize(op: ops.Quantize, unit: VectorUnit) -> Callable[..., None]:
    """Code of Quantize."""

    def emit(x: Flat, y: Flat) -> None:
        def block(at: Expr, width: int, count: int) -> None:
            y.store(at, cast(quantized(op, x.load(at, width), width), "int8", width), width)

        spans(y.size, unit.float_lanes, block)

    return emit


def quantized(op: ops.Quantize, value: Expr, width: int) -> Expr:
    """float32 -> int32 in the range of int8. nearbyint rounds half to even, as the reference does."""
    scaled = T.nearbyint(value / splat(_exact_float32(op.scale), width))
    shifted = scaled + constant(float(op.zero_point), "float32", width)
    limits = (constant(v, "float32", width) for v in (-128.0, 127.0))
    return T.bind(cast(clamp(shifted, *limits), "int32", width))


def emit_dequantize(op: ops.Dequantize, unit: VectorUnit) -> Callable[..., None]:
    """Code of Dequantize."""

    def emit(x: Flat, y: Flat) -> None:
        def block(at: Expr, width: int, count: int) -> None:
            centred = cast(x.load(at, width), "int32", width) - constant(op.zero_point, "int32", width)
            scale = splat(_exact_float32(op.scale), width)
            y.store(at, cast(centred, "float32", width) * scale, width)

        spans(y.size, unit.float_lanes, block)

    return emit


def _exact_float32(value: float) -> Expr:
    """A float32 constant given by its bits.

    TVM turns a division by a literal into a product with its reciprocal, which rounds differently.
    """
    (bits,) = struct.unpack("<i", struct.pack("<f", value))
    return T.reinterpret("float32", constant(bits, "int32"))


def emit_pad(op: ops.Pad, x_type: TensorType, out: TensorType, unit: VectorUnit) -> Callable[..., None]:
    """Code of Pad: fill the output, then copy the input into it."""
    steps = row_major(out.shape)
    first = sum(b * s for b, s in zip(op.before, steps, strict=True))
    loops = merged(x_type.shape, [row_major(x_type.shape), steps])

    def emit(x: Flat, y: Flat) -> None:
        unit.cover(y.size, lambda at, n, count: y.store(at, constant(op.value, y.dtype, n), n, count))
        walk(loops, unit, lambda at, n, count: y.store(first + at[1], x.load(at[0], n), n, count))

    return emit
