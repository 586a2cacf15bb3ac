"""Depthwise convolution by an instruction that adds the dot product of two vectors to a scalar (VMLADAVA).

A vector has what the windows of neighbouring pixels read of one channel, gathered once for all of them: 4 x 4
elements for 2 x 2 pixels of a 3 x 3 window. Each pixel has weights of its own for them, 0 where its window
does not reach. The sums of some pixels of the channel are requantized together, and scattered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.operators.conv2d import Conv2d
from hwptq.targets.templates.depthwise import DepthwiseKernel
from hwptq.targets.templates.reducing_depthwise import ReducingDepthwiseKernel
from hwptq.tir.builder import (
    TEMPLATE,
    Expr,
    Flat,
    Parts,
    constant,
    loop,
    nest,
    primfunc,
    share,
    shuffle,
    splat,
    start_of,
)
from hwptq.tir.kernel import PREVIOUS, Step, TensorType
from hwptq.tir.layout import Layout
from hwptq.tir.requantize import Bounds, bounded
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

from .convolution import describe, wanted_padding
from .depthwise import COST, depthwise
from .gather_bytes import gathered, in_turn
from .layer import Layer
from .pack_input import Packing, pack_input
from .patches import Tiling, best_tiling
from .template import Template
from .wishes import Wish

_BYTE = 8  # bits


class ReducingDepthwise(Template[ReducingDepthwiseKernel]):
    """Convolutions with groups == I == O; vectors of channels where patches would take more instructions."""

    table = ReducingDepthwiseKernel

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        op, x, constants, out = layer.op, layer.activations[0], layer.constants, layer.out
        assert isinstance(op, Conv2d)
        packing = Packing(x, Layout(wanted_padding(op)), self.unit)
        conv = describe(op, packing.read, constants[0].shape, out, rows=True)
        tiling = best_tiling(conv, self.kernel, self.schedule.tile)
        if tiling is None or self.schedule.scratchpad:
            plain = DepthwiseKernel(self.kernel.lanes, self.kernel.tile_pixels)
            return depthwise(op, x, constants, out, plain, self.unit, self.schedule)
        weight, *rest = constants
        packed = pack_input(packing)
        stored = tiling.pack(weight[..., 0])
        types = [
            packing.read,
            TensorType(stored.shape, "int8"),
            *[TensorType((conv.co,), "int32")] * 3,
            out,
        ]
        parts = self.unit.shared(COST * prod(out.shape) * prod(conv.kernel))
        body = _emit(tiling, self.kernel, op.bounds, out, self.unit, parts)
        func = primfunc(types, {TEMPLATE: self.kernel.template}, body)
        args: tuple[int | np.ndarray, ...] = (PREVIOUS if packed else 0, stored, *rest)
        step = Step(func, args, out, f"{op.kind}_{self.kernel.template}")
        return (packed, step) if packed else (step,)

    def wishes(self, layer: Layer) -> list[Wish]:
        assert isinstance(layer.op, Conv2d)
        return [Wish(Layout(wanted_padding(layer.op)))]

    def writes(self, layer: Layer, layout: Layout) -> bool:
        return layout.rows == 1


def _emit(
    tiling: Tiling, kernel: ReducingDepthwiseKernel, bounds: Bounds, out: TensorType, unit: VectorUnit,
    parts: Parts,
) -> Callable[..., None]:  # fmt: skip
    """Code of (x packed, vectors of weights int8 [C,stored], bias, multiplier, shift, y)."""
    conv, (height, width) = tiling.conv, tiling.tile

    def emit(x: Flat, weight: Flat, bias: Flat, multiplier: Flat, shift: Flat, y: Flat) -> None:
        def channel(c: Expr) -> None:
            own = [
                in_turn(kernel.k, weight, c * tiling.stored + start + v * kernel.k)
                for start in tiling.starts
                for v in range(tiling.vectors)
            ]
            numbers = (T.bind(array.load(c)) for array in (bias, multiplier, shift))
            start, *scales = (T.bind(splat(number, kernel.lanes)) for number in numbers)

            def tile(b: Expr, row: Expr, column: Expr) -> None:
                at = row, column
                sums = _sums(tiling, kernel, x, conv.window(b, *at) + c, own)
                acc = T.bind(shuffle(sums, range(kernel.lanes)) + start)
                value = _stored(acc, scales, bounds, kernel.lanes, unit, y.dtype)
                _scatter(tiling, kernel, y, conv.pixel(b, *at) + c, value)

            def line(b: Expr, column: Expr) -> None:
                column = start_of(column, width, conv.out[1])
                whole, rest = divmod(conv.out[0], height)
                loop(whole, lambda row: tile(b, row * height, column))
                if rest:
                    tile(b, conv.out[0] - height, column)

            nest((conv.batch, -(-conv.out[1] // width)), line)

        def channels(first: Expr, count: Expr) -> None:
            loop(count, lambda i: channel(first + i))

        share(conv.co, parts, channels, Stored(y, out).border(unit))

    return emit


def _sums(
    tiling: Tiling, kernel: ReducingDepthwiseKernel, x: Flat, window: Expr, weights: Sequence[Expr]
) -> list[Expr]:
    """The sums of the pixels of a tile, whose first window begins at `window`."""
    (height, width), columns = tiling.patch, tiling.tile[1]
    leading = [T.int32(number) for number in kernel.leading]
    sums: dict[int, Expr] = {}
    for row, column in tiling.patches:
        first = window + tiling.conv.window(0, row, column) - tiling.conv.origin
        patch = [gathered(kernel.gather, kernel.k, x, first, offsets) for offsets in tiling.offsets]
        for i in range(height * width):
            acc: Expr = T.int32(0)
            for v, elements in enumerate(patch):
                operands = acc, elements, weights[i * tiling.vectors + v]
                acc = T.call_llvm_pure_intrin("int32", kernel.intrinsic, *leading, *operands)
            sums[(row + i // width) * columns + column + i % width] = acc
    return [T.bind(sums[i]) for i in range(len(sums))]


def _stored(
    acc: Expr, scales: Sequence[Expr], bounds: Bounds, lanes: int, unit: VectorUnit, dtype: str
) -> Expr:
    """The results in the lowest bits of int32, as a layout of `dtype` has them."""
    zero = bounds.zero_point + (128 if dtype == "uint8" else 0)
    multiplier, shift = scales
    value = bounded(acc, multiplier, shift, bounds, lanes, unit.requantize)
    return value + constant(zero, "int32", lanes)


def _scatter(tiling: Tiling, kernel: ReducingDepthwiseKernel, y: Flat, first: Expr, value: Expr) -> None:
    """Store the results of a tile, whose first one stands at `first`."""
    size, conv = np.dtype(y.dtype).itemsize, tiling.conv
    origin = conv.pixel(0, 0, 0)
    places = [(conv.pixel(0, r, c) - origin) * size for r, c in np.ndindex(*tiling.tile)]
    index = shuffle([constant(int(place), "int32") for place in places], range(kernel.lanes))
    arguments = y.address(first), index, value, T.int32(_BYTE * size), T.int32(0)
    T.evaluate(T.call_llvm_intrin("void", kernel.scatter, *arguments))
