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
        place = (group, y, pixels, v0, output)
        if not unit.masked or not output.whole:
            store_cells(result, width, *place, unit.masked)
        elif output.even or lanes % output.channels == 0:
            _store_joined(result, width, group, y, pixels, output)
        else:
            _store_spilling(result, width, *place)


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
    order = _used_lanes(group, output)
    i, j = group[0]
    value = result if len(order) == width else shuffle([result], order + [0] * (width - len(order)))
    y.store(pixels[i] + j * output.lanes, value, width, len(order))


def _store_spilling(
    result: Expr, width: int, group: list[tuple[int, int]], y: Flat, pixels: Sequence[Expr], v0: Expr,
    output: Output,
) -> None:  # fmt: skip
    """The same where channels divide lanes in no simple way: a whole vector, whose surplus comes last.

    What it writes behind the group is what the next group writes, so only at the end of y it must not. All
    lanes are used so that the order is a permutation, for which there are networks; a mask would undo that.
    """
    order = _used_lanes(group, output)
    surplus = sorted(set(range(width)).difference(order))
    i, j = group[0]
    offset, last = pixels[i] + j * output.lanes, y.size - width - y.first
    if y.size < width:
        store_cells(result, width, group, y, pixels, v0, output, masked=True)
        return
    with T.If(offset <= last):
        with T.Then():
            # the minimum changes nothing, but shows an analysis of bounds that the vector is inside
            y.store(T.min(offset, last), shuffle([result], [*order, *surplus]), width)
        with T.Else():
            store_cells(result, width, group, y, pixels, v0, output, masked=True)


def _used_lanes(group: list[tuple[int, int]], output: Output) -> list[int]:
    """The lanes of the vectors of `group` that are channels, each channel once."""
    lanes, channels = output.lanes, output.channels
    last = channels // lanes  # the vector that overlaps the one before it, if any does
    repeated = -channels % lanes if channels > lanes else 0
    return [
        at * lanes + lane
        for at, (_, j) in enumerate(group)
        for lane in range(repeated if j == last else 0, min(channels, lanes))
    ]


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
