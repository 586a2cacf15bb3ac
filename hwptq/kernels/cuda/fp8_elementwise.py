"""CUDA kernels of the fp8 operators that need no tensor cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.kernels.builder import Expr, Flat, cast, constant, nest
from hwptq.kernels.elementwise import broadcast_strides, row_major
from hwptq.kernels.kernel import TensorType
from hwptq.quant import fp8
from hwptq.quant import fp8_ops as ops

from .flat import accumulator, add, clamped, decoded, encoded, flat_kernel, fma, indices, multiply, real

Element = Callable[..., Expr]


def simple_kernel(
    op: ops.Fp8Op, inputs: Sequence[TensorType], out: TensorType, attributes: dict[str, Any]
) -> tvm.tirx.PrimFunc:
    """The PrimFunc (inputs…, out) of `op`. Raises ValueError for one that needs tensor cores."""
    return flat_kernel(inputs, out, attributes, _element(op, inputs, out))


def _element(op: ops.Fp8Op, inputs: Sequence[TensorType], out: TensorType) -> Element:
    match op:
        case ops.Fp8Quantize():
            return lambda at, x: encoded(multiply(x.load(at), real(op.factor)))
        case ops.Fp8Dequantize():
            return lambda at, x: multiply(decoded(x, at), real(op.scale))
        case ops.Fp8Lookup():
            return lambda at, x, table: table.load(cast(T.reinterpret("uint8", x.load(at)), "int32"))
        case ops.Fp8Add() | ops.Fp8Mul():
            return _binary(op, inputs, out)
        case ops.Fp8Pad():
            return _pad(op, inputs[0], out)
        case ops.Fp8MaxPool():
            return _max_pool(op, inputs[0], out)
        case ops.Fp8AvgPool():
            return _avg_pool(op, inputs[0], out)
        case ops.Fp8Conv2d() if op.groups > 1:
            return _grouped(op, inputs, out)
    raise ValueError(f"{op.kind} needs tensor cores")


def _binary(op: ops.Fp8Add | ops.Fp8Mul, inputs: Sequence[TensorType], out: TensorType) -> Element:
    strides = [broadcast_strides(t.shape, out.shape) for t in inputs]

    def element(at: Expr, a: Flat, b: Flat) -> Expr:
        where = indices(at, out.shape)
        x, y = (
            decoded(t, sum(i * s for i, s in zip(where, steps, strict=True)))
            for t, steps in zip((a, b), strides, strict=True)
        )
        if isinstance(op, ops.Fp8Mul):
            value = multiply(multiply(x, y), real(op.factor))
        else:
            value = fma(x, real(op.a_factor), multiply(y, real(op.b_factor)))
        return encoded(clamped(value, op.lo, op.hi))

    return element


def _pad(op: ops.Fp8Pad, x: TensorType, out: TensorType) -> Element:
    fill = T.reinterpret(fp8.DTYPE, constant(op.value, "uint8"))

    def element(at: Expr, tensor: Flat) -> Expr:
        source = [i - before for i, before in zip(indices(at, out.shape), op.before, strict=True)]
        inside = _all([T.And(i >= 0, i < n) for i, n in zip(source, x.shape, strict=True)])
        offset = sum(i * s for i, s in zip(source, row_major(x.shape), strict=True))
        return T.if_then_else(inside, tensor.load(offset), fill)

    return element


def _all(conditions: list[Expr]) -> Expr:
    result = conditions[0]
    for condition in conditions[1:]:
        result = T.And(result, condition)
    return result


def _taps(op: Any, dilation: Sequence[int], image: Sequence[int], pixel: Sequence[Expr]) -> Any:
    """(ky, kx) -> (whether the tap lies in the image, its row, its column)."""

    def tap(ky: Expr, kx: Expr) -> tuple[Expr, Expr, Expr]:
        row = pixel[0] * op.strides[0] + ky * dilation[0] - op.padding[0]
        column = pixel[1] * op.strides[1] + kx * dilation[1] - op.padding[1]
        inside = _all([row >= 0, row < image[0], column >= 0, column < image[1]])
        return inside, row, column

    return tap


def _pool(op: Any, dilation: Sequence[int], x: TensorType, out: TensorType, begin: float, step: Any) -> Any:
    """(element number, tensor) -> the window of an output pixel, folded by `step` from `begin`."""
    _, h, w, c = x.shape

    def folded(at: Expr, tensor: Flat) -> Expr:
        n, oy, ox, channel = indices(at, out.shape)
        tap, acc = _taps(op, dilation, (h, w), (oy, ox)), accumulator(begin)

        def one(ky: Expr, kx: Expr) -> None:
            inside, row, column = tap(ky, kx)
            with T.If(inside), T.Then():
                value = decoded(tensor, ((n * h + row) * w + column) * c + channel)
                acc.store(0, step(acc.load(0), value))

        nest(op.pool_size, one)
        return acc.load(0)

    return folded


def _max_pool(op: ops.Fp8MaxPool, x: TensorType, out: TensorType) -> Element:
    window = _pool(op, op.dilation, x, out, -fp8.LARGEST, T.max)
    return lambda at, tensor: encoded(window(at, tensor))


def _avg_pool(op: ops.Fp8AvgPool, x: TensorType, out: TensorType) -> Element:
    window = _pool(op, (1, 1), x, out, 0.0, add)
    pixels = op.out_shape[0] * op.out_shape[1]

    def element(at: Expr, tensor: Flat, factor: Flat) -> Expr:
        pixel = T.floormod(T.floordiv(at, out.shape[3]), pixels)
        return encoded(clamped(multiply(window(at, tensor), factor.load(pixel)), op.lo, op.hi))

    return element


def _grouped(op: ops.Fp8Conv2d, inputs: Sequence[TensorType], out: TensorType) -> Element:
    _, h, w, c = inputs[0].shape
    o, kh, kw, depth = inputs[-3].shape

    def element(at: Expr, x: Flat, *rest: Flat) -> Expr:
        *residual, weight, scale, bias = rest
        n, oy, ox, channel = indices(at, out.shape)
        tap, acc = _taps(op, op.dilation, (h, w), (oy, ox)), accumulator(0.0)
        first = T.floordiv(channel, o // op.groups) * depth

        def one(ky: Expr, kx: Expr, i: Expr) -> None:
            inside, row, column = tap(ky, kx)
            with T.If(inside), T.Then():
                a = decoded(x, ((n * h + row) * w + column) * c + first + i)
                b = decoded(weight, ((channel * kh + ky) * kw + kx) * depth + i)
                acc.store(0, fma(a, b, acc.load(0)))

        nest((kh, kw, depth), one)
        value = fma(acc.load(0), scale.load(channel), bias.load(channel))
        for r in residual:
            value = fma(decoded(r, at), real(op.residual), value)
        value = clamped(value, op.lo, op.hi)
        return encoded(value) if op.out == fp8.DTYPE else value

    return element
