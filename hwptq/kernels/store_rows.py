"""The end of a register tile whose accumulators hold several pixels: finish them, then store each pixel.

An accumulator int32[rows][lanes] is requantized as it is, and its pixels are told apart in int8, where a
vector holds four times as many values.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm.script.ir_builder import tirx as T

from .builder import Expr, Flat, powers, shuffle
from .requantize import finish
from .store_tile import Output, store_cells
from .vector_unit import VectorUnit

_LANES = 16  # int8 values of the widest vector that is narrowed at once


def store_rows(
    acc: Sequence[Sequence[Expr]], scales: Sequence[Flat], y: Flat, pixels: Sequence[Sequence[Expr]],
    v0: Expr, output: Output, unit: VectorUnit,
) -> None:  # fmt: skip
    """Finish acc[line][vector], each int32[rows][lanes], and store them; see store_tile.

    `pixels[line][row]` are the offsets in y of those that are stored; a line may lack its last ones.
    """
    lanes, vectors = output.lanes, len(acc[0])
    cells = int(acc[0][0].ty.dtype.lanes)
    rows = cells // lanes
    at = 0
    for count in powers(vectors, max(1, _LANES // cells)):
        factors = [_repeated(scale.load((v0 + at) * lanes, count * lanes), count, rows) for scale in scales]
        row = [[j * cells + r * lanes + i for j in range(count) for i in range(lanes)] for r in range(rows)]
        for line, offsets in zip(acc, pixels, strict=True):
            joined = shuffle(line[at : at + count], range(count * cells)) if count > 1 else line[at]
            result = T.bind(finish(joined, factors, output.bounds, count * cells, unit.requantize, y.dtype))
            for r, offset in enumerate(offsets):
                group = [(0, at + j) for j in range(count)]
                values = T.bind(shuffle([result], row[r]))
                store_cells(values, count * lanes, group, y, [offset], v0, output, unit.masked)
        at += count


def _repeated(factors: Expr, count: int, rows: int) -> Expr:
    """[count][lanes] -> [count][rows][lanes], each vector once for every row."""
    lanes = int(factors.ty.dtype.lanes) // count
    order = [j * lanes + i for j in range(count) for _ in range(rows) for i in range(lanes)]
    return T.bind(shuffle([T.bind(factors)] * rows, order))  # a Shuffle yields no more lanes than it takes
