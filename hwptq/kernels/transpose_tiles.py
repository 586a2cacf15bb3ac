"""Transposes that move single bytes, as from NHWC to NCHW: tiles of 16 x 16 in registers.

Four times, vector i is interleaved with vector i + 8: each time the 8 bits of a byte's place, 4 of its vector
and 4 within, rotate by one. So rows and columns change places.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import TEMPLATE, Expr, Flat, loop, primfunc, share, shuffle, start_of, unravel
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.loops import merged, row_major
from hwptq.tir.vector_unit import VectorUnit

_SIDE = 16
_COST = 8  # multiply-accumulates that take as long as a byte


def transpose_tiles(
    x: TensorType, strides: Sequence[int], first: int, out: TensorType, unit: VectorUnit
) -> Step | None:
    """The step that reads int8 `x` from element `first` on with `strides`, one for each axis of `out`.

    None where the last two axes, neighbours joined, do not change places, or one of them fills no tile.
    """
    loops = merged(out.shape, [strides, row_major(out.shape)])
    *outer, rows, columns = (1, 1, *loops.extents[:-1])
    sources, targets = ((0, 0, *steps[:-1]) for steps in loops.strides)
    swapped = loops.extents[-1] == 1 and (sources[-2], targets[-1]) == (1, 1)
    if not swapped or min(rows, columns) < _SIDE or unit.masked or unit.lanes < _SIDE:
        return None
    bands = -(-rows // _SIDE)

    def emit(source: Flat, y: Flat) -> None:
        def band(number: Expr) -> None:
            *indices, tile = unravel(number, (*outer, bands))
            start, to = (
                sum(i * s for i, s in zip(indices, steps, strict=False)) for steps in (sources, targets)
            )
            row = start_of(tile, _SIDE, rows)

            def one(index: Expr) -> None:
                column = start_of(index, _SIDE, columns)
                begin = first + start + row + column * sources[-1]
                loaded = [T.bind(source.load(begin + i * sources[-1], _SIDE)) for i in range(_SIDE)]
                for i, vector in enumerate(_transposed(loaded)):
                    y.store(to + (row + i) * targets[-2] + column, vector, _SIDE)

            loop(-(-columns // _SIDE), one)

        def part(begin: Expr, count: Expr) -> None:
            loop(count, lambda i: band(begin + i))

        share(prod(outer) * bands, unit.shared(_COST * y.size), part)

    return Step(primfunc([x, out], {TEMPLATE: "transpose_tiles"}, emit), (0,), out, "transpose_tiles")


def _transposed(vectors: list[Expr]) -> list[Expr]:
    """16 vectors of 16 bytes -> vector i holds byte i of each."""
    half = _SIDE // 2
    low = [i for n in range(half) for i in (n, _SIDE + n)]
    for _ in range(4):
        pairs = list(zip(vectors[:half], vectors[half:], strict=True))
        vectors = [T.bind(shuffle(pair, order)) for pair in pairs for order in (low, [i + half for i in low])]
    return vectors
