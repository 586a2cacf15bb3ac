"""Layers on int16 by an instruction on bytes: 256 times the sum over upper ones, and the lower ones.

    x = 256 (x >> 8) + (x & 255),    sum x w = 256 sum (x >> 8) w + sum (x & 255) w

modulo 2^32, which is exact where the sum fits an int32. A longer sum is shortened by s <= 8 bits before it is
requantized: 256 times anything is a multiple of 2^s, so its part is exact,

    (256 u + l) >> s = 2^(8 - s) u + (l >> s).

It takes twice as long as a layer on bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.operators.layers import IntegerLayer
from hwptq.quant.fixed_point import ACCUMULATOR_LIMIT
from hwptq.tir.builder import TEMPLATE, Expr, Flat, Range, cast, constant, loop, primfunc, share, unravel
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.layout import Layout
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

BYTE = 8
_MIDDLE, _MOST = 128, 255
_COST = 120  # multiply-accumulates that take as long as taking a value apart


def splits(op: IntegerLayer, constants: Sequence[np.ndarray]) -> bool:
    """Whether the sums over lower bytes fit 32 bits, and so those over upper ones.

    constants: weight and bias of the layer, and what its results are scaled by.
    """
    if op.weight_group or op.acc_shift > BYTE:
        return False
    weight, bias = (np.abs(c.astype(np.int64)) for c in constants[:2])
    reach = _MOST * weight.reshape(len(weight), -1).sum(axis=1) + bias + _MOST
    return not op.acc_shift or bool((reach <= ACCUMULATOR_LIMIT).all())


def halves(x: TensorType, layout: Layout) -> TensorType:
    """The tensor of the upper bytes of an int16 x, and behind them the lower ones less 128."""
    shape = (2 * x.shape[0], *x.shape[1:]) if x.shape else (2,)
    return TensorType(shape, "int8", layout)


def lower_from(x: TensorType, layout: Layout) -> int:
    """The element of `halves` where the lower bytes begin."""
    return replace(layout, slack=0).elements(x.shape)


def split_bytes(x: TensorType, layout: Layout, unit: VectorUnit) -> Step:
    """int16 x -> its upper bytes, then the lower ones less 128, as int8 values in `layout`."""
    out, one = halves(x, layout), TensorType(x.shape, "int8", layout)
    # the zero in a border has a lower byte too
    other = replace(one, layout=replace(layout, padding=replace(layout.padding, value=-_MIDDLE)))

    def emit(source: Flat, both: Flat) -> None:
        upper = Stored(both, one)
        lower = Stored(both.behind(lower_from(x, layout)), other)

        def copy(start: Expr, to: Expr, size: int) -> None:
            def some(at: Expr, lanes: int, count: int) -> None:
                value = T.bind(source.load(start + at, lanes))
                high = T.shift_right(value, constant(BYTE, "int16", lanes))
                upper.store(to + at, cast(high, "int8", lanes), lanes, count)
                # the sign bit of a byte turned is 128 less, modulo 256
                low = T.bitwise_xor(value, constant(_MIDDLE, "int16", lanes))
                lower.store(to + at, cast(low, "int8", lanes), lanes, count)

            unit.cover(size, some)

        if layout.padding.empty:
            copy(0, 0, prod(x.shape))
            return
        n, h, w, c = x.shape

        def part(first: Expr, count: Expr) -> None:
            def row(i: Expr) -> None:
                b, at = unravel(first + i, (n, h))
                copy(((b * h) + at) * w * c, upper.pixel(b, at, 0), w * c)

            loop(count, row)

        share(n * h, unit.shared(_COST * prod(x.shape)), part, _borders(upper, lower, unit))

    func = primfunc([x, out], {TEMPLATE: "split_bytes"}, emit)
    return Step(func, (0,), out, "split_bytes")


def _borders(upper: Stored, lower: Stored, unit: VectorUnit) -> tuple[int, Range] | None:
    """The borders of both, for `share`."""
    found = [border for border in (upper.border(unit), lower.border(unit)) if border]
    if not found:
        return None

    def fill(first: Expr, count: Expr) -> None:
        for _, one in found:
            one(first, count)

    return found[0][0], fill


def biases_of_halves(
    op: IntegerLayer, bias: np.ndarray, weight: np.ndarray, unsigned: bool
) -> tuple[np.ndarray, np.ndarray]:
    """What the sums over lower bytes begin with, and those over upper ones; modulo 2^32.

    They cancel what is added to the activations: 128 to all by an `unsigned` instruction, -128 to lower ones
    else. With those of the lower ones shortening rounds.
    """
    sums = weight.reshape(len(weight), -1).sum(axis=1, dtype=np.int64)
    rounding = (1 << (op.acc_shift - 1)) if op.acc_shift else 0
    lower = bias.astype(np.int64) + rounding + (0 if unsigned else _MIDDLE * sums)
    upper = -_MIDDLE * sums if unsigned else np.zeros_like(sums)
    return lower.astype(np.int32), upper.astype(np.int32)
