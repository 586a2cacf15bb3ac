"""Transposes and slices that move whole runs of neighbours: copies of vectors."""

from __future__ import annotations

from collections.abc import Sequence

from hwptq.tir.builder import TEMPLATE, Expr, Flat, loop, nest, primfunc, share
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.loops import merged, row_major
from hwptq.tir.vector_unit import VectorUnit

_COST = 4  # multiply-accumulates that take as long as a byte


def strided_copy(
    x: TensorType, strides: Sequence[int], first: int, out: TensorType, unit: VectorUnit
) -> Step | None:
    """The step that reads `x` from element `first` on with `strides`, one for each axis of `out`.

    None where neighbours in the output are none in the input, so that no vector could be copied.
    """
    loops = merged(out.shape, [strides, row_major(out.shape)])
    if loops.extents[-1] == 1 and len(loops.extents) > 1:
        return None
    *outer, run = loops.extents
    sources, targets = loops.strides

    def emit(source: Flat, y: Flat) -> None:
        def row(*indices: Expr) -> None:
            start, at = (
                sum(i * s for i, s in zip(indices, steps, strict=False)) for steps in (sources, targets)
            )
            unit.cover(run, lambda i, n, count: y.store(at + i, source.load(first + start + i, n), n, count))

        if not outer:
            row()
            return

        def part(begin: Expr, count: Expr) -> None:
            loop(count, lambda i: nest(outer[1:], lambda *rest: row(begin + i, *rest)))

        share(outer[0], unit.shared(_COST * y.size), part)

    return Step(primfunc([x, out], {TEMPLATE: "strided_copy"}, emit), (0,), out, "strided_copy")
