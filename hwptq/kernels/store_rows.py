"""The end of a register tile whose accumulators hold several pixels: finish them, then store each pixel.

An accumulator int32[rows][lanes] is requantized as it is, and its pixels are told apart in int8, where a
vector holds four times as many values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat, powers, shuffle
from hwptq.tir.vector_unit import VectorUnit

from .cells import Cells, Held, Output, joined
from .epilogue import Placed, finished
from .store_tile import store_cells

NARROWED = 16  # int32 values that are made int8 together
_STORED = 16  # int8 values of a pixel in the widest store


def store_rows(
    acc: Sequence[Sequence[Expr]], scales: Sequence[Flat], y: Flat, pixels: Sequence[Expr],
    v0: Expr, output: Output, unit: VectorUnit, tail: Sequence[Placed] = (),
) -> None:  # fmt: skip
    """Finish acc[line][vector], each int32[rows][lanes], and store them; see store_tile.

    `pixels` are the offsets in y of those that are stored; the last line may have fewer than rows.
    """
    lanes, cells = output.lanes, int(acc[0][0].ty.dtype.lanes)
    rows, at = cells // lanes, 0
    for count in powers(len(acc[0]), max(1, _STORED // lanes)):
        parts = powers(count, max(1, NARROWED // cells))
        firsts = [at + sum(parts[:i]) for i in range(len(parts))]
        for first, line in zip(range(0, len(pixels), rows), acc, strict=True):
            numbers = [min(first + r, len(pixels) - 1) for r in range(rows)]
            results = []
            for v, n in zip(firsts, parts, strict=True):
                spot = _Rows([Cells([(p, v + j) for j in range(n)], v0, output) for p in numbers])
                value = T.bind(joined(line[v : v + n]))
                result = finished(value, scales, output.bounds, tail, spot, n * cells, unit, y.dtype)
                results.append(T.bind(result))
            for r in range(min(rows, len(pixels) - first)):
                order = [j * cells + r * lanes + i for j in range(count) for i in range(lanes)]
                place = Cells([(numbers[r], at + j) for j in range(count)], v0, output)
                store_cells(T.bind(shuffle(results, order)), count * lanes, place, y, pixels, unit.masked)
        at += count


@dataclass(frozen=True)
class _Rows:
    """The same vectors of several pixels, as the accumulators hold them: [vector][row][lane]."""

    cells: Sequence[Cells]

    def channels(self, array: Flat | Held) -> Expr:
        """The elements of an array packed by channel, once for every row."""
        return self._interleaved([self.cells[0].channels(array)] * len(self.cells))

    def elements(self, array: Flat, pixels: Sequence[Expr]) -> Expr:
        """The elements of a tensor [pixel, channel]."""
        return self._interleaved([cells.elements(array, pixels) for cells in self.cells])

    def _interleaved(self, rows: Sequence[Expr]) -> Expr:
        lanes, count = self.cells[0].output.lanes, len(self.cells[0].group)
        starts = [(r * count + j) * lanes for j in range(count) for r in range(len(rows))]
        return T.bind(shuffle(rows, [start + i for start in starts for i in range(lanes)]))
