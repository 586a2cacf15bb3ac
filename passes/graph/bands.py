"""Stretches of an integer graph that can be computed band by band, and the memory that this takes.

A stretch is some operators in their order, of whose results only the last one is read behind it. A band of
its result, some rows of an image [1,H,W,C], depends on bands of all before it. They overlap where windows are
higher than their stride, and the overlap is computed again for each band.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from hwptq.ir.dataflow import bindings, reads, shape_of
from hwptq.ir.operator import Operator

#: A tensor of the graph -> what a band makes of it, with the rows that it has.
Held = tuple[Any, range]


@dataclass(frozen=True)
class Bound:
    """A binding: its result, what it reads, and the operator that it calls with its tensors, if it is one."""

    var: Any
    reads: tuple[Any, ...]
    op: Operator | None = None
    activations: tuple[Any, ...] = ()
    constants: tuple[Any, ...] = ()

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of all tensors of the operator."""
        return [shape_of(t) for t in (*self.activations, *self.constants)]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        return shape_of(self.var)

    @cached_property
    def nbytes(self) -> int:
        """Of the result; 0 where it is a tuple."""
        return _nbytes(self.var) if hasattr(self.var.ty, "shape") else 0

    @cached_property
    def macs(self) -> int:
        return self.op.macs(self.shapes, self.shape) if self.op else 0


@dataclass(frozen=True)
class Stretch:
    """Bindings first … last (inclusive) of a function, in so many bands."""

    first: int
    last: int
    bands: int


def bound(func: Any, node_of: Callable[[Any, Any], Any]) -> list[Bound]:
    """The bindings of a function. node_of: the operator of a binding with its tensors, or None."""
    found = []
    for var, value in bindings(func):
        node = node_of(var, value)
        tensors = (node.op, node.activations, node.constants) if node else ()
        found.append(Bound(var, tuple(reads(value)), *tensors))
    return found


def rows_of_bands(height: int, bands: int) -> list[range]:
    """As even as can be: 7 rows in 3 bands are 0 … 2, 3 … 4, 5 … 6."""
    ends = [-(-height * i // bands) for i in range(bands + 1)]
    return [range(first, end) for first, end in pairwise(ends)]


def computable(stretch: Sequence[Bound]) -> bool:
    """Whether all of it are operators on images of one sample that compute rows from rows."""

    def is_image(shape: tuple[int, ...]) -> bool:
        return len(shape) == 4 and shape[0] == 1

    return all(
        node.op is not None
        and all(map(is_image, (node.shape, *node.shapes[: len(node.activations)])))
        and node.op.of_rows(range(1), node.shapes) is not None
        for node in stretch
    )


def walk_band(
    stretch: Sequence[Bound], rows: range, held: Mapping[Any, Held], cut: Callable[[Any, range, range], Any],
    apply: Callable[[Bound, Operator, list[Any], range], Any],
) -> Any:  # fmt: skip
    """Compute `rows` of the result of a stretch. held: the tensors from before it, with all of their rows.

    cut(tensor, rows that it has, rows that are wanted) and apply(node, the operator of these rows, tensors,
    rows) give new tensors.
    """
    parts = dict(_parts(stretch, rows))
    known = dict(held)
    for node in stretch:
        wanted, op, read = parts[node.var]
        tensors = []
        for tensor, needed in zip(node.activations, read, strict=True):
            has, own = known[tensor]
            tensors.append(has if own == needed else cut(has, own, needed))
        known[node.var] = apply(node, op, tensors, wanted), wanted
    return known[stretch[-1].var][0]


def _parts(
    stretch: Sequence[Bound], rows: range
) -> Iterator[tuple[Any, tuple[range, Operator, list[range]]]]:
    """For the result of each node its rows, the operator that computes them, and the rows that this reads."""
    needed = {stretch[-1].var: rows}
    for node in reversed(stretch):
        wanted = needed[node.var]
        assert node.op is not None
        found = node.op.of_rows(wanted, node.shapes)
        assert found is not None, "the stretch is computable"
        op, read = found
        for tensor, seen in zip(node.activations, read, strict=True):
            known = needed.get(tensor, seen)
            needed[tensor] = range(min(known.start, seen.start), max(known.stop, seen.stop))
        yield node.var, (wanted, op, read)


def extra_macs(stretch: Sequence[Bound], bands: int) -> int:
    """Multiply-accumulates of rows that are computed again."""
    total = 0.0
    for rows in rows_of_bands(stretch[-1].shape[1], bands):
        for node, (_, (wanted, _, _)) in zip(reversed(stretch), _parts(stretch, rows), strict=True):
            total += node.macs * len(wanted) / node.shape[1]
    return round(total) - sum(node.macs for node in stretch)


class Traffic:
    """Tensors in the order in which they are made and read, and the bytes that are held at a time."""

    def __init__(self) -> None:
        self.born: list[int] = []
        self.last: list[int] = []
        self.size: list[int] = []
        self.time = 0

    def make(self, size: int, read: Sequence[int] = ()) -> int:
        """A new tensor of so many bytes, made of others."""
        self.read(read)
        self.born.append(self.time)
        self.last.append(self.time)
        self.size.append(size)
        self.time += 1
        return len(self.size) - 1

    def read(self, tensors: Sequence[int]) -> None:
        """They are needed now."""
        for tensor in tensors:
            self.last[tensor] = self.time

    def used(self) -> list[int]:
        """Bytes that are held at each moment."""
        steps = np.zeros(self.time + 2, np.int64)
        for born, last, size in zip(self.born, self.last, self.size, strict=True):
            steps[born] += size
            steps[last + 1] -= size
        return [int(v) for v in np.cumsum(steps)[: self.time]]


def stretch_bytes(nodes: Sequence[Bound], stretch: Stretch) -> int:
    """About the most that is held while a stretch is computed in bands, with what waits until later."""
    inner = nodes[stretch.first : stretch.last + 1]
    later = {tensor for node in nodes[stretch.last + 1 :] for tensor in node.reads}
    sizes = {node.var: node.nbytes for node in nodes[: stretch.first]}
    own = {node.var for node in inner}
    traffic = Traffic()
    held: dict[Any, Held] = {}
    for node in inner:
        for tensor, shape in zip(node.activations, node.shapes, strict=False):
            if tensor not in own and tensor not in held:
                held[tensor] = traffic.make(sizes.get(tensor, 0)), range(shape[1])
    outside = sum(size for tensor, size in sizes.items() if tensor in later and tensor not in held)

    def cut(tensor: int, has: range, wanted: range) -> int:
        return traffic.make(traffic.size[tensor] * len(wanted) // len(has), [tensor])

    def apply(node: Bound, op: Operator, tensors: list[int], rows: range) -> int:
        return traffic.make(node.nbytes * len(rows) // node.shape[1], tensors)

    bands = rows_of_bands(inner[-1].shape[1], stretch.bands)
    parts = [walk_band(inner, rows, held, cut, apply) for rows in bands]
    traffic.make(inner[-1].nbytes, [*parts, *(made for t, (made, _) in held.items() if t in later)])
    return outside + max(traffic.used())


def plain_bytes(nodes: Sequence[Bound]) -> list[int]:
    """About the bytes that are held while each binding is computed."""
    traffic = Traffic()
    made: dict[Any, int] = {}
    for node in nodes:
        made[node.var] = traffic.make(node.nbytes, [made[t] for t in node.reads if t in made])
    return traffic.used()


def _nbytes(var: Any) -> int:
    return prod(shape_of(var)) * np.dtype(str(var.ty.dtype)).itemsize
