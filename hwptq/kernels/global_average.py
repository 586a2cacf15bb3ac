"""The average over a whole image, for threads to share: each one adds up the rows that it has written before.

Were the channels shared instead, each core would fetch the half that another one wrote, and that one would
have to take it back for the next tensor in the same memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from hwptq.operators.avg_pool import AvgPool
from hwptq.tir.builder import (
    TEMPLATE,
    Expr,
    Flat,
    Part,
    cast,
    constant,
    in_parts,
    local,
    loop,
    primfunc,
    splat,
)
from hwptq.tir.kernel import PREVIOUS, Step, TensorType
from hwptq.tir.layout import PLAIN
from hwptq.tir.requantize import Bounds, requantize
from hwptq.tir.vector_unit import VectorUnit

_COST = 5  # multiply-accumulates that take as long as an element


def averages_in_parts(op: AvgPool, x: TensorType, out: TensorType, unit: VectorUnit) -> bool:
    """Whether `op` is an average over one whole image that threads can share."""
    if x.shape[0] != 1 or op.pool_size != x.shape[1:3] or any(op.padding):
        return False
    return (
        x.dtype == out.dtype == PLAIN.dtype
        and out.layout == PLAIN
        and unit.shared(_COST * prod(x.shape)).count > 1
    )


def global_average(
    op: AvgPool, x: TensorType, constants: Sequence[np.ndarray], out: TensorType, unit: VectorUnit
) -> tuple[Step, ...]:
    """The steps from x [1,H,W,C] to [1,1,1,C]: sums of some rows each, then all of them scaled.

    `constants` are multiplier and shift, of one element.
    """
    _, h, w, c = x.shape
    parts = unit.shared(_COST * prod(x.shape))
    sums = TensorType((min(h, parts.count), c), "int32")

    def add_up(image: Flat, y: Flat) -> None:
        def part(own: Part) -> None:
            first, rows = own.of(h)

            def block(at: Expr, width: int, count: int) -> None:
                total = local(width, "int32")
                total.store(0, constant(0, "int32", width), width)

                def add(row: Expr, column: Expr) -> None:
                    value = image.load(((first + row) * w + column) * c + at, width)
                    centred = cast(value, "int32", width) - constant(op.in_zero_point, "int32", width)
                    total.store(0, total.load(0, width) + centred, width)

                loop(rows, lambda row: loop(w, lambda column: add(row, column)))
                y.store(own.index * c + at, total.load(0, width), width, count)

            unit.cover(c, block)

        in_parts(h, parts, part)

    def scale(source: Flat, multiplier: Flat, shift: Flat, y: Flat) -> None:
        def block(at: Expr, width: int, count: int) -> None:
            total = local(width, "int32")
            total.store(0, constant(0, "int32", width), width)
            loop(
                sums.shape[0],
                lambda i: total.store(0, total.load(0, width) + source.load(i * c + at, width), width),
            )
            scaled = total.load(0, width) * constant(op.factor, "int32", width)
            factor, by = (splat(t.load(0), width) for t in (multiplier, shift))
            bounds = Bounds(op.out_zero_point, op.lo, op.hi, rounding=op.rounding)
            y.store(at, requantize(scaled, factor, by, bounds, width, unit.requantize), width, count)

        unit.cover(c, block)

    attributes = {TEMPLATE: "global_average"}
    types = [sums, *(TensorType(v.shape, str(v.dtype)) for v in constants), out]
    return (
        Step(primfunc([x, sums], attributes, add_up), (0,), sums, "avg_pool_sums"),
        Step(primfunc(types, attributes, scale), (PREVIOUS, *constants), out, "avg_pool_scale"),
    )
