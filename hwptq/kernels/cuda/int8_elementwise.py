"""CUDA kernels of the integer operators, int8 and int16: one thread for each element, whatever the shapes.

Layers too, where the tensor cores can't take them: depthwise and grouped convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tvm.script.ir_builder import tirx as T

from hwptq.operators.add import Add
from hwptq.operators.avg_pool import AvgPool
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense, DenseFloat
from hwptq.operators.dequantize import Dequantize
from hwptq.operators.layers import IntegerLayer
from hwptq.operators.matmul import MatMul
from hwptq.operators.mul import Mul
from hwptq.operators.quantize import Quantize
from hwptq.tir.builder import Expr, Flat, cast, constant, loop
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import broadcast_strides
from hwptq.tir.requantize import Bounds, requantize, shortened, summed_in

from .element import Element, element_of
from .flat import divide, indices, multiply, real, register, stored, value_of
from .places import convolved, operand_offsets, pooled
from .results import result


@element_of.register(Quantize)
def _quantize(op: Quantize, inputs: Sequence[TensorType], out: TensorType) -> Element:
    return lambda at, x: stored(divide(x.load(at), real(op.scale)), out.dtype, op.zero_point)


@element_of.register(Dequantize)
def _dequantize(op: Dequantize, inputs: Sequence[TensorType], out: TensorType) -> Element:
    return lambda at, x: multiply(value_of(x, at, op.zero_point), real(op.scale))


@element_of.register(Conv2d)
@element_of.register(Dense)
@element_of.register(DenseFloat)
def _layer(op: IntegerLayer, inputs: Sequence[TensorType], out: TensorType) -> Element:
    return layer(op, integer_sum(op, inputs, out), out)


def _int32(tensor: Flat, offset: Expr, zero_point: int = 0) -> Expr:
    return cast(tensor.load(offset), "int32") - zero_point


def bounds(op: Any) -> Bounds:
    """Those of an operator's result."""
    return Bounds(op.out_zero_point, op.lo, op.hi, dtype=getattr(op, "out", "int8"))


def scaled(op: Any, acc: Expr) -> Expr:
    """An accumulator by the one multiplier and shift of `op`."""
    multiplier, shift = (constant(v, "int32") for v in (op.multiplier, op.shift))
    return requantize(acc, multiplier, shift, bounds(op), 1)


@element_of.register(Add)
@element_of.register(Mul)
def _binary(op: Add | Mul, inputs: Sequence[TensorType], out: TensorType) -> Element:
    offsets = operand_offsets(inputs, out)

    def element(at: Expr, a: Flat, b: Flat) -> Expr:
        first, second = offsets(at)
        x, y = _int32(a, first, op.a_zero_point), _int32(b, second, op.b_zero_point)
        if isinstance(op, Mul):
            shift = T.shift_left if op.left_shift >= 0 else T.shift_right
            return scaled(op, shift(x * y, constant(abs(op.left_shift), "int32")))
        return scaled(op, x * op.a_factor + y * op.b_factor)

    return element


@element_of.register(AvgPool)
def _avg_pool(op: AvgPool, inputs: Sequence[TensorType], out: TensorType) -> Element:
    x = inputs[0]

    def added(total: Expr, tensor: Flat, offset: Expr) -> Expr:
        return total + _int32(tensor, offset, op.in_zero_point)

    window = pooled(op, (1, 1), x, out, partial(register, 0, "int32"), added)
    pixels = op.out_shape[0] * op.out_shape[1]

    def element(at: Expr, tensor: Flat, multiplier: Flat, shift: Flat) -> Expr:
        pixel = T.floormod(T.floordiv(at, out.shape[3]), pixels)
        acc = window(at, tensor) * op.factor
        return requantize(acc, multiplier.load(pixel), shift.load(pixel), bounds(op), 1)

    return element


@element_of.register(MatMul)
def _matmul(op: MatMul, inputs: Sequence[TensorType], out: TensorType) -> Element:
    a_shape, b_shape = inputs[0].shape, inputs[1].shape
    (rows, depth), columns = a_shape[-2:], b_shape[-1]
    batch = out.shape[:-2]
    a_steps, b_steps = (broadcast_strides(s[:-2], batch) for s in (a_shape, b_shape))
    summed = summed_in(op.acc_shift)

    def element(at: Expr, a: Flat, b: Flat) -> Expr:
        *outer, row, column = indices(at, out.shape)
        a_first = (sum(i * s for i, s in zip(outer, a_steps, strict=True)) * rows + row) * depth
        b_first = sum(i * s for i, s in zip(outer, b_steps, strict=True)) * depth * columns + column
        acc = register(0, summed)

        def step(k: Expr) -> None:
            left, right = _int32(a, a_first + k, op.a_zero_point), b_first + k * columns
            acc.store(0, acc.load(0) + cast(left * _int32(b, right, op.b_zero_point), summed))

        loop(depth, step)
        return scaled(op, shortened(acc.load(0), op.acc_shift, 1))

    return element


def integer_sum(op: Any, inputs: Sequence[TensorType], out: TensorType) -> Element:
    """(element number, x, weight) -> the int32 sum of the products of a convolution or dense layer."""

    def product(acc: Expr, x: Flat, at_x: Expr, weight: Flat, at_weight: Expr) -> Expr:
        return acc + _int32(x, at_x) * _int32(weight, at_weight)

    if len(inputs[1].shape) == 2:
        return dense_sum(inputs[1].shape, product, "int32")

    def padding(acc: Expr, weight: Flat, at_weight: Expr) -> Expr:
        return acc + _int32(weight, at_weight) * op.in_zero_point

    return convolved(op, inputs[:2], out, "int32", product, padding if op.in_zero_point else None)


def dense_sum(shape: Sequence[int], product: Callable[..., Expr], dtype: str) -> Element:
    """(element number, x, weight) -> the sum in `dtype` of a dense layer with a weight of `shape`, in order.

    product(sum so far, x, its offset, weight, its offset) adds one product.
    """
    outputs, depth = shape

    def summed(at: Expr, x: Flat, weight: Flat) -> Expr:
        row, channel = T.floordiv(at, outputs) * depth, T.floormod(at, outputs)
        acc = register(0, dtype)

        def step(k: Expr) -> None:
            acc.store(0, product(acc.load(0), x, row + k, weight, channel * depth + k))

        loop(depth, step)
        return acc.load(0)

    return summed


def layer(op: Any, summed: Element, out: TensorType) -> Element:
    """A layer of `out.shape[-1]` channels whose sums of products are summed(element number, x, weight)."""
    outputs = out.shape[-1]

    def element(at: Expr, x: Flat, weight: Flat, *rest: Flat) -> Expr:
        return result(op, summed(at, x, weight), T.floormod(at, outputs), at, rest)

    return element
