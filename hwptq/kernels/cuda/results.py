"""What simple CUDA kernels make of the sum of a layer: the end of every convolution and dense layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwptq.operators.conv2d import Conv2dToFloat, FloatConv2d
from hwptq.operators.dense import DenseFloat, DenseToFloat, FloatDense
from hwptq.tir.builder import Expr, Flat, cast
from hwptq.tir.requantize import Bounds, requantize

from .flat import clamped, fma, multiply, real, stored, value_of


def result(op: Any, acc: Expr, channel: Expr, at: Expr, rest: Sequence[Flat]) -> Expr:
    """Element number `at` of the output of a layer, from the sum of its products.

    rest: the tensors of the operator but x and the weight, a residual first. `acc` is float32 for layers in
    floats, int32 for those in int8, whose bias is not in it yet.
    """
    match op:
        case FloatConv2d() | FloatDense():
            *residual, scale, bias = rest
            value = fma(acc, scale.load(channel), bias.load(channel))
            for r in residual:
                value = fma(value_of(r, at, op.residual_zero_point), real(op.residual), value)
            return stored(clamped(value, op.lo, op.hi), op.out, op.out_zero_point)
        case Conv2dToFloat() | DenseToFloat():
            return stored(clamped(_scaled(acc, channel, rest), op.lo, op.hi), op.out)
        case DenseFloat():
            return _scaled(acc, channel, rest)
    bias, multiplier, shift = (t.load(channel) for t in rest)
    bounds = Bounds(op.out_zero_point, op.lo, op.hi, dtype=op.out)
    return requantize(acc + bias, multiplier, shift, bounds, 1)


def _scaled(acc: Expr, channel: Expr, rest: Sequence[Flat]) -> Expr:
    bias, scale = rest
    return multiply(cast(acc + bias.load(channel), "float32"), scale.load(channel))
