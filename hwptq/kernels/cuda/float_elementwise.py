"""CUDA kernels of the operators on floats that need no tensor cores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from tvm.script.ir_builder import tirx as T

from hwptq.operators.add import FloatAdd
from hwptq.operators.avg_pool import FloatAvgPool
from hwptq.operators.conv2d import Conv2dToFloat, FloatConv2d
from hwptq.operators.dense import DenseToFloat, FloatDense
from hwptq.operators.dequantize import FloatDequantize
from hwptq.operators.layers import LayerToFloat
from hwptq.operators.mul import FloatMul
from hwptq.operators.quantize import FloatQuantize
from hwptq.tir.builder import Expr, Flat
from hwptq.tir.kernel import TensorType

from .element import Element, element_of
from .flat import add, clamped, fma, multiply, real, register, stored, value_of
from .int8_elementwise import dense_sum, integer_sum, layer
from .places import convolved, operand_offsets, pooled
from .results import result


@element_of.register(FloatQuantize)
def _quantize(op: FloatQuantize, inputs: Sequence[TensorType], out: TensorType) -> Element:
    return lambda at, x: stored(multiply(x.load(at), real(op.factor)), out.dtype)


@element_of.register(FloatDequantize)
def _dequantize(op: FloatDequantize, inputs: Sequence[TensorType], out: TensorType) -> Element:
    return lambda at, x: multiply(value_of(x, at), real(op.scale))


def _finished(op: Any, value: Expr) -> Expr:
    """Clamp and dtype of the result of `op`."""
    return stored(clamped(value, op.lo, op.hi), op.out, op.out_zero_point)


@element_of.register(FloatAdd)
@element_of.register(FloatMul)
def _binary(op: FloatAdd | FloatMul, inputs: Sequence[TensorType], out: TensorType) -> Element:
    offsets = operand_offsets(inputs, out)

    def element(at: Expr, a: Flat, b: Flat) -> Expr:
        first, second = offsets(at)
        x, y = value_of(a, first, op.a_zero_point), value_of(b, second, op.b_zero_point)
        if isinstance(op, FloatMul):
            return _finished(op, multiply(multiply(x, y), real(op.factor)))
        return _finished(op, fma(x, real(op.a_factor), multiply(y, real(op.b_factor))))

    return element


@element_of.register(FloatAvgPool)
def _avg_pool(op: FloatAvgPool, inputs: Sequence[TensorType], out: TensorType) -> Element:
    x = inputs[0]

    def added(total: Expr, tensor: Flat, offset: Expr) -> Expr:
        return add(total, value_of(tensor, offset, op.in_zero_point))

    window = pooled(op, (1, 1), x, out, partial(register, 0.0), added)
    pixels = op.out_shape[0] * op.out_shape[1]

    def element(at: Expr, tensor: Flat, factor: Flat) -> Expr:
        pixel = T.floormod(T.floordiv(at, out.shape[3]), pixels)
        return _finished(op, multiply(window(at, tensor), factor.load(pixel)))

    return element


@element_of.register(Conv2dToFloat)
@element_of.register(DenseToFloat)
def _to_float(op: LayerToFloat, inputs: Sequence[TensorType], out: TensorType) -> Element:
    return layer(op, integer_sum(op, inputs, out), out)


@element_of.register(FloatConv2d)
@element_of.register(FloatDense)
def _layer(op: FloatConv2d | FloatDense, inputs: Sequence[TensorType], out: TensorType) -> Element:
    """A layer whose products are added in order; those of the padding too, which may turn a -0 into a 0."""
    if not op.in_order:
        raise ValueError(f"{op.kind} needs tensor cores")
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
