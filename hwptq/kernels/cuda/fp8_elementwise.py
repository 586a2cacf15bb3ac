"""CUDA kernels of the operators on e4m3 and bfloat16 that need no tensor cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.quant import fp8_ops as ops
from hwptq.tir.builder import Expr, Flat, cast, constant
from hwptq.tir.kernel import TensorType

from .flat import add, clamped, flat_kernel, fma, multiply, real, register, stored, value_of
from .int8_elementwise import dense_sum, integer_sum, layer
from .operand import item_bytes
from .places import convolved, operand_offsets, pooled, unpadded
from .results import result

Element = Callable[..., Expr]


def fp8_kernel(
    op: ops.Fp8Op, inputs: Sequence[TensorType], out: TensorType, attributes: dict[str, Any]
) -> tvm.tirx.PrimFunc:
    """The PrimFunc (inputs…, out) of `op`. Raises ValueError for one that needs tensor cores."""
    return flat_kernel(inputs, out, attributes, _element(op, inputs, out))


def _element(op: ops.Fp8Op, inputs: Sequence[TensorType], out: TensorType) -> Element:
    match op:
        case ops.Fp8Quantize():
            return lambda at, x: stored(multiply(x.load(at), real(op.factor)), out.dtype)
        case ops.Fp8Dequantize():
            return lambda at, x: multiply(value_of(x, at), real(op.scale))
        case ops.Fp8Lookup():
            bits = _bits(inputs[0].dtype)
            return lambda at, x, table: table.load(cast(T.reinterpret(bits, x.load(at)), "int32"))
        case ops.Fp8Clamp():
            return _clamp(out)
        case ops.Fp8Add() | ops.Fp8Mul():
            return _binary(op, inputs, out)
        case ops.Fp8Pad():
            return _pad(op, inputs[0], out)
        case ops.Fp8MaxPool():
            return _max_pool(op, inputs[0], out)
        case ops.Fp8AvgPool():
            return _avg_pool(op, inputs[0], out)
        case ops.Conv2dToFp8() | ops.DenseToFp8():
            return _to_fp8(op, inputs, out)
        case ops.Fp8Conv2d() | ops.Fp8Dense() if in_order(op):
            return _layer(op, inputs, out)
    raise ValueError(f"{op.kind} needs tensor cores")


def in_order(op: Any) -> bool:
    """Whether a layer adds its products one after the other, which tensor cores don't."""
    return getattr(op, "groups", 1) > 1 or op.accumulator[0] == 1


def _bits(dtype: str) -> str:
    """The dtype of the codes of a tensor."""
    return f"uint{8 * item_bytes(dtype)}"


def _finished(op: Any, value: Expr) -> Expr:
    """Clamp and dtype of the result of `op`."""
    return stored(clamped(value, op.lo, op.hi), op.out, op.out_zero_point)


def _binary(op: ops.Fp8Add | ops.Fp8Mul, inputs: Sequence[TensorType], out: TensorType) -> Element:
    offsets = operand_offsets(inputs, out)

    def element(at: Expr, a: Flat, b: Flat) -> Expr:
        first, second = offsets(at)
        x, y = value_of(a, first, op.a_zero_point), value_of(b, second, op.b_zero_point)
        if isinstance(op, ops.Fp8Mul):
            return _finished(op, multiply(multiply(x, y), real(op.factor)))
        return _finished(op, fma(x, real(op.a_factor), multiply(y, real(op.b_factor))))

    return element


def _clamp(out: TensorType) -> Element:
    channels = out.shape[-1]

    def element(at: Expr, x: Flat, lo: Flat, hi: Flat) -> Expr:
        channel = T.floormod(at, channels)
        low, high = value_of(lo, channel), value_of(hi, channel)
        return stored(T.min(T.max(value_of(x, at), low), high), out.dtype)

    return element


def _pad(op: ops.Fp8Pad, x: TensorType, out: TensorType) -> Element:
    place = unpadded(op, x, out)

    def element(at: Expr, tensor: Flat) -> Expr:
        inside, offset = place(at)
        fill = T.reinterpret(out.dtype, constant(op.value, _bits(out.dtype)))
        return T.if_then_else(inside, tensor.load(offset), fill)

    return element


def _max_pool(op: ops.Fp8MaxPool, x: TensorType, out: TensorType) -> Element:
    def larger(best: Expr, tensor: Flat, offset: Expr) -> Expr:
        return T.max(best, value_of(tensor, offset))

    window = pooled(op, op.dilation, x, out, partial(register, -float("inf")), larger)
    return lambda at, tensor: stored(window(at, tensor), out.dtype)


def _avg_pool(op: ops.Fp8AvgPool, x: TensorType, out: TensorType) -> Element:
    def added(total: Expr, tensor: Flat, offset: Expr) -> Expr:
        return add(total, value_of(tensor, offset, op.in_zero_point))

    window = pooled(op, (1, 1), x, out, partial(register, 0.0), added)
    pixels = op.out_shape[0] * op.out_shape[1]

    def element(at: Expr, tensor: Flat, factor: Flat) -> Expr:
        pixel = T.floormod(T.floordiv(at, out.shape[3]), pixels)
        return _finished(op, multiply(window(at, tensor), factor.load(pixel)))

    return element


def _to_fp8(op: ops.LayerToFp8, inputs: Sequence[TensorType], out: TensorType) -> Element:
    return layer(op, integer_sum(op, inputs, out), out)


def _layer(op: ops.Fp8Conv2d | ops.Fp8Dense, inputs: Sequence[TensorType], out: TensorType) -> Element:
    """A layer whose products are added in order; those of the padding too, which may turn a -0 into a 0."""
    outputs = out.shape[-1]

    def step(acc: Expr, x: Flat, at_x: Expr, weight: Flat, at_weight: Expr) -> Expr:
        return fma(value_of(x, at_x), value_of(weight, at_weight), acc)

    def padding(acc: Expr, weight: Flat, at_weight: Expr) -> Expr:
        return fma(real(0), value_of(weight, at_weight), acc)

    if isinstance(op, ops.Fp8Dense):
        summed = dense_sum(inputs[-3].shape, step, "float32")
    else:
        summed = convolved(op, (inputs[0], inputs[-3]), out, "float32", step, padding)

    def element(at: Expr, x: Flat, *rest: Flat) -> Expr:
        *residual, weight, scale, bias = rest
        acc = summed(at, x, weight)
        return result(op, acc, T.floormod(at, outputs), at, [*residual, scale, bias])

    return element
