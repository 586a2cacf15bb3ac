"""Where the simple CUDA kernels find what an element of their output is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat, nest
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import broadcast_strides, row_major

from .flat import indices, register

#: (offset of a value in x, offset of its weight), for each value of a window.
Visit = Callable[[Expr, Expr], None]


def operand_offsets(inputs: Sequence[TensorType], out: TensorType) -> Callable[[Expr], list[Expr]]:
    """element number -> the offset in each of `inputs`, which are broadcast to `out`."""
    strides = [broadcast_strides(t.shape, out.shape) for t in inputs]

    def offsets(at: Expr) -> list[Expr]:
        where = indices(at, out.shape)
        return [sum(i * s for i, s in zip(where, steps, strict=True)) for steps in strides]

    return offsets


def unpadded(op: Any, x: TensorType, out: TensorType) -> Callable[[Expr], tuple[Expr, Expr]]:
    """element number of a Pad -> (whether it lies in x, its offset there)."""

    def place(at: Expr) -> tuple[Expr, Expr]:
        source = [i - before for i, before in zip(indices(at, out.shape), op.before, strict=True)]
        inside = all_of([T.And(i >= 0, i < n) for i, n in zip(source, x.shape, strict=True)])
        return inside, sum(i * s for i, s in zip(source, row_major(x.shape), strict=True))

    return place


def all_of(conditions: Sequence[Expr]) -> Expr:
    """Whether every one of `conditions`, at least one, holds."""
    result = conditions[0]
    for condition in conditions[1:]:
        result = T.And(result, condition)
    return result


def tap(
    op: Any, dilation: Sequence[int], image: Sequence[int], pixel: Sequence[Expr], taps: Sequence[Expr]
) -> tuple[Expr, Expr, Expr]:
    """(whether a tap of the window of `pixel` lies in the image, its row, its column)."""
    row = pixel[0] * op.strides[0] + taps[0] * dilation[0] - op.padding[0]
    column = pixel[1] * op.strides[1] + taps[1] * dilation[1] - op.padding[1]
    return all_of([row >= 0, row < image[0], column >= 0, column < image[1]]), row, column


def pooled(
    op: Any, dilation: Sequence[int], x: TensorType, out: TensorType, begin: Callable[[], Flat],
    step: Callable[[Expr, Flat, Expr], Expr],
) -> Callable[[Expr, Flat], Expr]:  # fmt: skip
    """(element number, tensor) -> its window folded by step(sum so far, tensor, offset), from `begin`.

    begin() gives the register of the sum. Padding is left out.
    """
    _, h, w, c = x.shape

    def folded(at: Expr, tensor: Flat) -> Expr:
        n, oy, ox, channel = indices(at, out.shape)
        acc = begin()

        def one(*taps: Expr) -> None:
            inside, row, column = tap(op, dilation, (h, w), (oy, ox), taps)
            with T.If(inside), T.Then():
                acc.store(0, step(acc.load(0), tensor, ((n * h + row) * w + column) * c + channel))

        nest(op.pool_size, one)
        return acc.load(0)

    return folded


def convolved(
    op: Any, inputs: Sequence[TensorType], out: TensorType, dtype: str, step: Callable[..., Expr],
    padding: Callable[..., Expr] | None = None,
) -> Callable[..., Expr]:  # fmt: skip
    """(element number, x, weight) -> the sum of a convolution NHWC, groups included, in `dtype`.

    inputs: types of x and the weight; step(sum so far, x, its offset, weight, its offset) adds one product,
    in row-major order of taps and channels; padding(sum so far, weight, its offset) adds what lies beyond the
    image, None = nothing.
    """
    (_, h, w, c), (o, kh, kw, depth) = inputs[0].shape, inputs[1].shape

    def summed(at: Expr, x: Flat, weight: Flat) -> Expr:
        n, oy, ox, channel = indices(at, out.shape)
        acc = register(0, dtype)
        first = T.floordiv(channel, o // op.groups) * depth

        def one(ky: Expr, kx: Expr, i: Expr) -> None:
            inside, row, column = tap(op, op.dilation, (h, w), (oy, ox), (ky, kx))
            at_weight = ((channel * kh + ky) * kw + kx) * depth + i
            with T.If(inside):
                with T.Then():
                    at_x = ((n * h + row) * w + column) * c + first + i
                    acc.store(0, step(acc.load(0), x, at_x, weight, at_weight))
                if padding is not None:
                    with T.Else():
                        acc.store(0, padding(acc.load(0), weight, at_weight))

        nest((kh, kw, depth), one)
        return acc.load(0)

    return summed
