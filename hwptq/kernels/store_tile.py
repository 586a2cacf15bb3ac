"""The end of a register tile: requantize its accumulators, or make them float32, and store them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from .builder import Expr, Flat, powers, shuffle
from .requantize import Bounds, finish
from .vector_unit import VectorUnit

_STORE_LANES = 16  # int8 values of the widest store where no instruction narrows more at once


@dataclass(frozen=True)
class Output:
    """The rows that a tile is part of: `channels` values a pixel, in vectors of `lanes`.

    bounds: see `finish`; `whole`: the tile has all channels of its pixels.
    """

    channels: int
    lanes: int
    bounds: Bounds | None
    whole: bool

    @property
    def even(self) -> bool:
        """Whether vectors of neighbouring channels stand side by side."""
        return self.channels % self.lanes == 0


def store_tile(
    acc: Sequence[Sequence[Expr]], scales: Sequence[Flat], y: Flat, pixels: Sequence[Expr], v0: Expr,
    output: Output, unit: VectorUnit,
) -> None:  # fmt: skip
    """Finish acc[pixel][vector] and store them; `pixels` are neighbours in y, v0 the first vector.

    `scales` are multiplier and shift, or the float32 scale, by channel. As many vectors as make a whole one
    of int8 go together.
    """
    lanes, vectors = output.lanes, len(acc[0])
    cells = [(i, j) for i in range(len(acc)) for j in range(vectors)]
    for group in _groups(cells, output, unit.whole_lanes if output.bounds else 0):
        width = len(group) * lanes
        value = T.bind(_joined([acc[i][j] for i, j in group]))
        factors = [_factors(s, group, v0, lanes) for s in scales]
        result = T.bind(finish(value, factors, output.bounds, width, unit.requantize, y.dtype))
        if unit.masked and output.whole and (output.even or output.channels < lanes):
            _store_joined(result, width, group, y, pixels, output)
        else:
            store_cells(result, width, group, y, pixels, v0, output, unit.masked)


def _groups(cells: list[tuple[int, int]], output: Output, packed: int) -> list[list[tuple[int, int]]]:
    """Which cells (pixel, vector) are requantized together.

    Those of one pixel that are stored together; or, where narrowing takes more, the next ones in order.
    """
    if packed > output.lanes:
        size = packed // output.lanes
        return [cells[i : i + size] for i in range(0, len(cells), size)]
    groups, vectors = [], 1 + max(j for _, j in cells)
    size = max(1, _STORE_LANES // output.lanes) if output.even else 1
    for first in range(0, len(cells), vectors):
        at = first
        for count in powers(vectors, size):
            groups.append(cells[at : at + count])
            at += count
    return groups


def _factors(scale: Flat, group: list[tuple[int, int]], v0: Expr, lanes: int) -> Expr:
    """The multipliers, shifts or scales of the vectors of `group`."""
    parts = []
    for run in _runs(group, even=True, joined=False):
        parts.append(T.bind(scale.load((v0 + run[0][1]) * lanes, len(run) * lanes)))
    return _joined(parts)


def _joined(vectors: Sequence[Expr]) -> Expr:
    if len(vectors) == 1:
        return vectors[0]
    return shuffle(vectors, range(sum(int(v.ty.dtype.lanes) for v in vectors)))


def store_cells(
    result: Expr, width: int, group: list[tuple[int, int]], y: Flat, pixels: Sequence[Expr], v0: Expr,
    output: Output, masked: bool,
) -> None:  # fmt: skip
    """Store the vectors of `group`, (pixel, vector) each, those together that stand side by side."""
    lanes, at = output.lanes, 0
    for run in _runs(group, output.even, output.whole):
        i, j = run[0]
        channel = (v0 + j) * lanes
        count = len(run) * lanes
        if output.channels < lanes:
            channel, count = 0, output.channels
        elif not output.even:
            channel = T.min(channel, output.channels - lanes)
        store_part(y, pixels[i] + channel, result, width, at, count, masked)
        at += len(run) * lanes


def _store_joined(
    result: Expr, width: int, group: list[tuple[int, int]], y: Flat, pixels: Sequence[Expr], output: Output
) -> None:  # fmt: skip
    """Store the vectors of `group` at once, without the lanes beyond the channels.

    The tile has all channels of its pixels, so the next pixel begins where the one before it ends.
    """
    lanes, channels = output.lanes, output.channels
    order = [at * lanes + lane for at in range(len(group)) for lane in range(min(channels, lanes))]
    i, j = group[0]
    value = result if len(order) == width else shuffle([result], order + [0] * (width - len(order)))
    y.store(pixels[i] + j * lanes, value, width, len(order))


def _runs(group: list[tuple[int, int]], even: bool, joined: bool) -> list[list[tuple[int, int]]]:
    """The cells whose vectors stand side by side in memory."""
    runs: list[list[tuple[int, int]]] = []
    for cell in group:
        if runs and even and (joined or runs[-1][0][0] == cell[0]):
            runs[-1].append(cell)
        else:
            runs.append([cell])
    return runs


def store_part(
    y: Flat, offset: Expr, value: Expr, width: int, first: int, count: int, masked: bool = False
) -> None:
    """Store `count` of the `width` lanes of a vector, from lane `first`: in pieces, or through a mask."""
    if masked:
        rotated = [(first + i) % width for i in range(width)]
        y.store(offset, value if not first else shuffle([value], rotated), width, count)
        return
    at = 0
    for part in powers(count, 1 << (count.bit_length() - 1)):
        lanes = range(first + at, first + at + part)
        y.store(offset + at, value if part == width else shuffle([value], lanes), part)
        at += part
