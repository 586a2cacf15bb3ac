"""Loops over the rows of a tensor, and sums and maxima over the elements of a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm.script.ir_builder import tirx as T

from .builder import Expr, cast, constant, local, loop, powers, share, shuffle, unravel
from .vector_unit import VectorUnit

#: (coordinates of a row, its number) -> its code.
Row = Callable[[list[Expr], Expr], None]


def each_row(extents: Sequence[int], unit: VectorUnit, cost: int, body: Callable[[], Row]) -> None:
    """The rows of a tensor with these leading axes: body() once for what a thread needs, then its function
    with the row's coordinates and its number. `cost`: multiply-accumulates that take as long as a row.
    """
    rows = int(np.prod(extents, dtype=np.int64))

    def part(first: Expr, count: Expr) -> None:
        row = body()
        loop(count, lambda i: row(unravel(first + i, extents) if extents else [], first + i))

    share(rows, unit.shared(cost * rows), part)


def every_element(extent: int, unit: VectorUnit, body: Callable[[Expr, int], None]) -> None:
    """Cover range(extent) by vectors, each element once: body(offset, width).

    What is left behind the last whole vector are narrower ones, or where a device has no such, single
    elements.
    """
    full, rest = divmod(extent, unit.lanes)
    if full:
        loop(full, lambda i: body(i * unit.lanes, unit.lanes))
    if rest and unit.masked:
        loop(rest, lambda i: body(full * unit.lanes + i, 1))
        return
    at = full * unit.lanes
    for width in powers(rest, unit.lanes) if rest else ():
        body(at, width)
        at += width


class Reduction:
    """An int32 that vectors of up to `lanes` values are joined into: the largest, or the sum."""

    def __init__(self, join: Callable[[Expr, Expr], Expr], start: int, lanes: int):
        self._join, self._start, self._lanes = join, start, lanes
        self._wide, self._single = local(lanes, "int32"), local(1, "int32")
        self._wide.store(0, constant(start, "int32", lanes), lanes)
        if lanes > 1:
            self._single.store(0, constant(start, "int32"))

    def add(self, values: Expr, width: int) -> None:
        """Join `width` values, an int32 vector."""
        if width == self._lanes:
            self._wide.store(0, self._join(self._wide.load(0, width), values), width)
        else:
            one = _joined(self._join, values, width)
            self._single.store(0, self._join(self._single.load(0), one))

    def result(self) -> Expr:
        """All of them in one."""
        if self._lanes == 1:
            return T.bind(self._wide.load(0))
        wide = _joined(self._join, self._wide.load(0, self._lanes), self._lanes)
        return T.bind(self._join(self._single.load(0), wide))


def largest(lanes: int) -> Reduction:
    """Of values of at most 16 bits."""
    return Reduction(T.max, -(2**15), lanes)


def total(lanes: int) -> Reduction:
    """A sum that fits 32 bits."""
    return Reduction(lambda a, b: a + b, 0, lanes)


def _joined(join: Callable[[Expr, Expr], Expr], values: Expr, width: int) -> Expr:
    """Halves of a vector joined until one value is left."""
    while width > 1:
        values, half = T.bind(values), width // 2
        values = join(shuffle([values], range(half)), shuffle([values], range(half, width)))
        width = half
    return values


def widened(values: Expr, lanes: int) -> Expr:
    """Codes as int32."""
    return cast(values, "int32", lanes)
