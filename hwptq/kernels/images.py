"""Pooling, and convolution, dense and matmul without any repacking: the code that takes every operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from tvm.script.ir_builder import tirx as T

from hwptq.quant import integer_ops as ops
from hwptq.tir.builder import Expr, Flat, cast, constant, local, loop, nest, share, splat, unravel
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import broadcast_strides, row_major
from hwptq.tir.requantize import Bounds, finish, requantize
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

from .convolution import int8_bounds

_POOL_COST = 4  # multiply-accumulates that take as long as an element of a window of a pool


def _when(condition: Any, then: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
    """An if statement; a condition that is None always holds."""
    if condition is None:
        then()
        return
    with T.If(condition):
        with T.Then():
            then()
        if otherwise is not None:
            with T.Else():
                otherwise()


def _inside(row: Expr, col: Expr, image: Sequence[int], padded: bool) -> Any:
    """Whether a pixel lies in the image (H, W); None where it always does."""
    if not padded:
        return None
    return T.And(T.And(row >= 0, row < image[0]), T.And(col >= 0, col < image[1]))


def _leaves_image(op: Any, kernel: Sequence[int], dilation: Sequence[int], image: Any, out: Any) -> bool:
    """Whether some window reaches beyond the image, by padding or by ceil mode."""
    ends = [(out[i] - 1) * op.strides[i] - op.padding[i] + dilation[i] * (kernel[i] - 1) for i in (0, 1)]
    return any(op.padding[:2]) or any(end >= n for end, n in zip(ends, image, strict=True))


def emit_conv2d(op: ops.Conv2d, inputs: Sequence[TensorType], out: TensorType) -> Callable[..., None]:
    """Code of any Conv2d, groups included: one scalar accumulator per output value."""
    n, h, w, ci = inputs[0].shape
    co, kh, kw, depth = inputs[1].shape
    _, oh, ow, _ = out.shape
    if op.groups < 1 or ci != depth * op.groups or co % op.groups:
        raise ValueError(f"conv2d: {op.groups} groups do not fit {ci} -> {co} channels, depth {depth}")
    padded = _leaves_image(op, (kh, kw), op.dilation, (h, w), (oh, ow))
    bounds = Bounds(op.out_zero_point, op.lo, op.hi)

    def emit(x: Flat, weight: Flat, bias: Flat, multiplier: Flat, shift: Flat, y: Flat) -> None:
        def value(b: Expr, oy: Expr, ox: Expr, o: Expr) -> None:
            acc = local(1, "int32")
            acc.store(0, bias.load(o))
            first = T.floordiv(o, co // op.groups) * depth

            def tap(ky: Expr, kx: Expr) -> None:
                row = oy * op.strides[0] + ky * op.dilation[0] - op.padding[0]
                col = ox * op.strides[1] + kx * op.dilation[1] - op.padding[1]
                pixel = ((b * h + row) * w + col) * ci + first
                taps = ((o * kh + ky) * kw + kx) * depth

                def real(i: Expr) -> None:
                    product = cast(x.load(pixel + i), "int32") * cast(weight.load(taps + i), "int32")
                    acc.store(0, acc.load(0) + product)

                def padding(i: Expr) -> None:
                    product = cast(weight.load(taps + i), "int32") * constant(op.in_zero_point, "int32")
                    acc.store(0, acc.load(0) + product)

                _when(
                    _inside(row, col, (h, w), padded), lambda: loop(depth, real), lambda: loop(depth, padding)
                )

            nest((kh, kw), tap)
            result = requantize(acc.load(0), multiplier.load(o), shift.load(o), bounds, 1)
            y.store(((b * oh + oy) * ow + ox) * co + o, result)

        nest((n, oh, ow, co), value)

    return emit


def emit_dense(op: ops.DenseOp, inputs: Sequence[TensorType], out: TensorType) -> Callable[..., None]:
    """Code of Dense and DenseFloat: a dot product of two contiguous rows per output value."""
    co, depth = inputs[1].shape

    def emit(x: Flat, weight: Flat, bias: Flat, *rest: Flat) -> None:
        *scales, y = rest

        def value(row: Expr, o: Expr) -> None:
            acc = local(1, "int32")
            acc.store(0, bias.load(o))

            def step(i: Expr) -> None:
                a, b = x.load(row * depth + i), weight.load(o * depth + i)
                acc.store(0, acc.load(0) + cast(a, "int32") * cast(b, "int32"))

            loop(depth, step)
            result = finish(acc.load(0), [s.load(o) for s in scales], int8_bounds(op), 1)
            y.store(row * co + o, result)

        nest((y.size // co, co), value)

    return emit


def emit_matmul(
    op: ops.MatMul, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
) -> Callable[..., None]:
    """Code of MatMul: vectors along N. Raises ValueError for operands of rank 1."""
    a_shape, b_shape = inputs[0].shape, inputs[1].shape
    if min(len(a_shape), len(b_shape)) < 2:
        raise ValueError("matmul: operands of rank 1 are not supported")
    (rows, depth), cols = a_shape[-2:], b_shape[-1]
    batch = out.shape[:-2]
    a_steps, b_steps = (broadcast_strides(s[:-2], batch) for s in (a_shape, b_shape))
    bounds = Bounds(op.out_zero_point, op.lo, op.hi)

    def emit(a: Flat, b: Flat, y: Flat) -> None:
        def row(*indices: Expr) -> None:
            *outer, m = indices
            a_row = (sum(i * s for i, s in zip(outer, a_steps, strict=True)) * rows + m) * depth
            b_first = sum(i * s for i, s in zip(outer, b_steps, strict=True)) * depth * cols
            y_row = (sum(i * s for i, s in zip(outer, row_major(batch), strict=True)) * rows + m) * cols

            def block(at: Expr, width: int, count: int) -> None:
                acc = local(width, "int32")
                acc.store(0, constant(0, "int32", width), width)

                def step(k: Expr) -> None:
                    left = cast(a.load(a_row + k), "int32") - constant(op.a_zero_point, "int32")
                    right = cast(b.load(b_first + k * cols + at, width), "int32", width)
                    centred = right - constant(op.b_zero_point, "int32", width)
                    acc.store(0, acc.load(0, width) + splat(left, width) * centred, width)

                loop(depth, step)
                multiplier, shift = (constant(v, "int32", width) for v in (op.multiplier, op.shift))
                result = requantize(acc.load(0, width), multiplier, shift, bounds, width, unit.requantize)
                y.store(y_row + at, result, width, count)

            unit.cover(cols, block)

        nest((*batch, rows), row)

    return emit


def _pool(
    op: ops.MaxPool | ops.AvgPool,
    x_type: TensorType,
    out: TensorType,
    unit: VectorUnit,
    begin: Callable[[int], Expr],
    step: Callable[[Expr, Expr, int], Expr],
    finish: Callable[[Expr, Expr, int], Expr],
) -> Callable[[Flat, Flat], None]:
    """Pooling: acc = begin, then step(acc, x) per pixel of the window, then finish(acc, pixel number)."""
    n, h, w, c = x_type.shape
    _, oh, ow, _ = out.shape
    dilation = op.dilation if isinstance(op, ops.MaxPool) else (1, 1)
    dtype = "int8" if isinstance(op, ops.MaxPool) else "int32"
    padded = _leaves_image(op, op.pool_size, dilation, (h, w), (oh, ow))
    parts = unit.shared(_POOL_COST * prod(out.shape) * prod(op.pool_size))

    def emit(x: Flat, y: Flat) -> None:
        image = Stored(y, out)

        def pixel(b: Expr, oy: Expr, ox: Expr) -> None:
            def block(at: Expr, width: int, count: int) -> None:
                acc = local(width, dtype)
                acc.store(0, begin(width), width)

                def tap(ky: Expr, kx: Expr) -> None:
                    row = oy * op.strides[0] + ky * dilation[0] - op.padding[0]
                    col = ox * op.strides[1] + kx * dilation[1] - op.padding[1]
                    offset = ((b * h + row) * w + col) * c + at
                    _when(
                        _inside(row, col, (h, w), padded),
                        lambda: acc.store(0, step(acc.load(0, width), x.load(offset, width), width), width),
                    )

                nest(op.pool_size, tap)
                result = finish(acc.load(0, width), oy * ow + ox, width)
                image.store(image.pixel(b, oy, ox) + at, result, width, count)

            unit.cover(c, block)

        def rows(first: Expr, count: Expr) -> None:
            def row(number: Expr) -> None:
                b, oy = unravel(first + number, (n, oh))
                loop(ow, lambda ox: pixel(b, oy, ox))

            loop(count, row)

        share(n * oh, parts, rows, image.border(unit))

    return emit


def emit_max_pool(
    op: ops.MaxPool, x_type: TensorType, out: TensorType, unit: VectorUnit
) -> Callable[..., None]:
    """Code of MaxPool: padding is left out of the window."""
    return _pool(
        op,
        x_type,
        out,
        unit,
        lambda width: constant(-128, "int8", width),
        lambda acc, x, width: T.max(acc, x),
        lambda acc, number, width: acc,
    )


def emit_avg_pool(
    op: ops.AvgPool, x_type: TensorType, out: TensorType, unit: VectorUnit
) -> Callable[..., None]:
    """Code of AvgPool: int32 sums, one multiplier and shift per output pixel."""
    bounds = Bounds(op.out_zero_point, op.lo, op.hi)

    def add(acc: Expr, x: Expr, width: int) -> Expr:
        return acc + (cast(x, "int32", width) - constant(op.in_zero_point, "int32", width))

    def emit(x: Flat, multiplier: Flat, shift: Flat, y: Flat) -> None:
        def finish(acc: Expr, number: Expr, width: int) -> Expr:
            scaled = T.bind(acc * constant(op.factor, "int32", width))
            factor, by = (splat(t.load(number), width) for t in (multiplier, shift))
            return requantize(scaled, factor, by, bounds, width, unit.requantize)

        _pool(op, x_type, out, unit, lambda width: constant(0, "int32", width), add, finish)(x, y)

    return emit
