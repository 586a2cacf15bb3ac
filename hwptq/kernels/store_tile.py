"""The end of a register tile: requantize its accumulators, or make them float32, and store them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat, powers, shuffle
from hwptq.tir.vector_unit import VectorUnit

from .cells import Cells, Held, Output, joined
from .epilogue import Placed, finished

_STORE_LANES = 16  # int8 values of the widest store where no instruction narrows more at once


def store_tile(
    acc: Sequence[Sequence[Expr]], scales: Sequence[Flat | Held], y: Flat, pixels: Sequence[Expr], v0: Expr,
    output: Output, unit: VectorUnit, tail: Sequence[Placed] = (),
) -> None:  # fmt: skip
    """Finish acc[pixel][vector] and store them; `pixels` are neighbours in y, v0 the first vector.

    `scales` are multiplier and shift, or the float32 scale, by channel; `tail` follows. As many vectors as
    make a whole one of the result go together.
    """
    lanes, vectors = output.lanes, len(acc[0])
    everything = [(i, j) for i in range(len(acc)) for j in range(vectors)]
    whole = unit.whole_lanes // np.dtype(y.dtype).itemsize if output.bounds else 0
    for group in _groups(everything, output, whole, scalar=unit.lanes == 1):
        cells, width = Cells(group, v0, output), len(group) * lanes
        value = T.bind(joined([acc[i][j] for i, j in group]))
        by_parts = not unit.masked or not output.whole
        bounds = output.bounds
        if bounds and by_parts and min(run.count for run in cells.runs()) < _STORE_LANES:
            bounds = replace(bounds, early=True)
        result = finished(value, scales, bounds, tail, cells, width, unit, y.dtype)
        if by_parts:
            store_cells(result, width, cells, y, pixels, unit.masked)
        elif output.even or lanes % output.channels == 0:
            _store_joined(result, width, cells, y, pixels)
        else:
            _store_spilling(result, width, cells, y, pixels)


def _groups(
    cells: list[tuple[int, int]], output: Output, packed: int, scalar: bool
) -> list[list[tuple[int, int]]]:
    """Which cells (pixel, vector) are requantized together.

    Those of one pixel that are stored together; or, where narrowing takes more, the next ones in order.
    scalar: each one by itself, where the device has no vectors.
    """
    if scalar and output.lanes == 1:
        return [[cell] for cell in cells]
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


def store_cells(
    result: Expr, width: int, cells: Cells, y: Flat, pixels: Sequence[Expr], masked: bool
) -> None:
    """Store the vectors of `cells`, those together that stand side by side."""
    for run in cells.runs():
        store_part(y, pixels[run.pixel] + run.channel, result, width, run.first, run.count, masked)


def _store_joined(result: Expr, width: int, cells: Cells, y: Flat, pixels: Sequence[Expr]) -> None:
    """Store the vectors of `cells` at once, without the lanes beyond the channels.

    The tile has all channels of its pixels, so the next pixel begins where the one before it ends.
    """
    order = _used_lanes(cells)
    i, j = cells.group[0]
    value = result if len(order) == width else shuffle([result], order + [0] * (width - len(order)))
    y.store(pixels[i] + j * cells.output.lanes, value, width, len(order))


def _store_spilling(result: Expr, width: int, cells: Cells, y: Flat, pixels: Sequence[Expr]) -> None:
    """The same where channels divide lanes in no simple way: a whole vector, whose surplus comes last.

    What it writes behind the group is what the next group writes, so only at the end of y it must not. All
    lanes are used so that the order is a permutation, for which there are networks; a mask would undo that.
    """
    order = _used_lanes(cells)
    surplus = sorted(set(range(width)).difference(order))
    i, j = cells.group[0]
    offset, last = pixels[i] + j * cells.output.lanes, y.size - width - y.first
    if y.size < width:
        store_cells(result, width, cells, y, pixels, masked=True)
        return
    with T.If(offset <= last):
        with T.Then():
            # the minimum changes nothing, but shows an analysis of bounds that the vector is inside
            y.store(T.min(offset, last), shuffle([result], [*order, *surplus]), width)
        with T.Else():
            store_cells(result, width, cells, y, pixels, masked=True)


def _used_lanes(cells: Cells) -> list[int]:
    """The lanes of the vectors of `cells` that are channels, each channel once."""
    lanes, channels = cells.output.lanes, cells.output.channels
    last = channels // lanes  # the vector that overlaps the one before it, if any does
    repeated = -channels % lanes if channels > lanes else 0
    return [
        at * lanes + lane
        for at, (_, j) in enumerate(cells.group)
        for lane in range(repeated if j == last else 0, min(channels, lanes))
    ]


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
