"""CUDA kernels of the operators on e4m3 and bfloat16 that need no tensor cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.operators.add import FloatAdd
from hwptq.operators.avg_pool import FloatAvgPool
from hwptq.operators.clamp import FloatClamp
from hwptq.operators.conv2d import Conv2dToFloat, FloatConv2d
from hwptq.operators.dense import DenseToFloat, FloatDense
from hwptq.operators.dequantize import FloatDequantize
from hwptq.operators.float_operator import FloatOperator
from hwptq.operators.layers import LayerToFloat
from hwptq.operators.lookup import FloatLookup
from hwptq.operators.max_pool import FloatMaxPool
from hwptq.operators.mul import FloatMul
from hwptq.operators.pad import FloatPad
from hwptq.operators.quantize import FloatQuantize
from hwptq.tir.builder import Expr, Flat, cast, constant
from hwptq.tir.kernel import TensorType

from .flat import add, clamped, flat_kernel, fma, multiply, real, register, stored, value_of
from .int8_elementwise import dense_sum, integer_sum, layer
from .operand import item_bytes
from .places import convolved, operand_offsets, pooled, unpadded
from .results import result

Element = Callable[..., Expr]


def fp8_kernel(
    op: FloatOperator, inputs: Sequence[TensorType], out: TensorType, attributes: dict[str, Any]
) -> tvm.tirx.PrimFunc:
    """The PrimFunc (inputs…, out) of `op`. Raises ValueError for one that needs tensor cores."""
    return flat_kernel(inputs, out, attributes, _element(op, inputs, out))


def _element(op: FloatOperator, inputs: Sequence[TensorType], out: TensorType) -> Element:
    match op:
        case FloatQuantize():
            return lambda at, x: stored(multiply(x.load(at), real(op.factor)), out.dtype)
        case FloatDequantize():
            return lambda at, x: multiply(value_of(x, at), real(op.scale))
        case FloatLookup():
            bits = _bits(inputs[0].dtype)
            return lambda at, x, table: table.load(cast(T.reinterpret(bits, x.load(at)), "int32"))
        case FloatClamp():
            return _clamp(out)
        case FloatAdd() | FloatMul():
            return _binary(op, inputs, out)
        case FloatPad():
            return _pad(op, inputs[0], out)
        case FloatMaxPool():
            return _max_pool(op, inputs[0], out)
        case FloatAvgPool():
            return _avg_pool(op, inputs[0], out)
        case Conv2dToFloat() | DenseToFloat():
            return _to_fp8(op, inputs, out)
        case FloatConv2d() | FloatDense() if op.in_order:
            return _layer(op, inputs, out)
    raise ValueError(f"{op.kind} needs tensor cores")


def _bits(dtype: str) -> str:
    """The dtype of the codes of a tensor."""
    return f"uint{8 * item_bytes(dtype)}"


def _finished(op: Any, value: Expr) -> Expr:
    """Clamp and dtype of the result of `op`."""
    return stored(clamped(value, op.lo, op.hi), op.out, op.out_zero_point)


def _binary(op: FloatAdd | FloatMul, inputs: Sequence[TensorType], out: TensorType) -> Element:
    offsets = operand_offsets(inputs, out)

    def element(at: Expr, a: Flat, b: Flat) -> Expr:
        first, second = offsets(at)
        x, y = value_of(a, first, op.a_zero_point), value_of(b, second, op.b_zero_point)
        if isinstance(op, FloatMul):
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


def _pad(op: FloatPad, x: TensorType, out: TensorType) -> Element:
    place = unpadded(op, x, out)

    def element(at: Expr, tensor: Flat) -> Expr:
        inside, offset = place(at)
        fill = T.reinterpret(out.dtype, constant(op.value, _bits(out.dtype)))
        return T.if_then_else(inside, tensor.load(offset), fill)

    return element


def _max_pool(op: FloatMaxPool, x: TensorType, out: TensorType) -> Element:
    def larger(best: Expr, tensor: Flat, offset: Expr) -> Expr:
        return T.max(best, value_of(tensor, offset))

    window = pooled(op, op.dilation, x, out, partial(register, -float("inf")), larger)
    return lambda at, tensor: stored(window(at, tensor), out.dtype)


def _avg_pool(op: FloatAvgPool, x: TensorType, out: TensorType) -> Element:
    def added(total: Expr, tensor: Flat, offset: Expr) -> Expr:
        return add(total, value_of(tensor, offset, op.in_zero_point))

    window = pooled(op, (1, 1), x, out, partial(register, 0.0), added)
    pixels = op.out_shape[0] * op.out_shape[1]

    def element(at: Expr, tensor: Flat, factor: Flat) -> Expr:
        pixel = T.floormod(T.floordiv(at, out.shape[3]), pixels)
        return _finished(op, multiply(window(at, tensor), factor.load(pixel)))

    return element


def _to_fp8(op: LayerToFloat, inputs: Sequence[TensorType], out: TensorType) -> Element:
    return layer(op, integer_sum(op, inputs, out), out)


def _layer(op: FloatConv2d | FloatDense, inputs: Sequence[TensorType], out: TensorType) -> Element:
    """A layer whose products are added in order; those of the padding too, which may turn a -0 into a 0."""
    outputs = out.shape[-1]

    def step(acc: Expr, x: Flat, at_x: Expr, weight: Flat, at_weight: Expr) -> Expr:
        return fma(value_of(x, at_x), value_of(weight, at_weight), acc)

    def padding(acc: Expr, weight: Flat, at_weight: Expr) -> Expr:
        return fma(real(0), value_of(weight, at_weight), acc)

    if isinstance(op, FloatDense):
        summed = dense_sum(inputs[-3].shape, step, "float32")
    else:
        summed = convolved(op, (inputs[0], inputs[-3]), out, "float32", step, padding)

    def element(at: Expr, x: Flat, *rest: Flat) -> Expr:
        *residual, weight, scale, bias = rest
        acc = summed(at, x, weight)
        return result(op, acc, T.floormod(at, outputs), at, [*residual, scale, bias])

    return element
