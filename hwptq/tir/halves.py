"""Sums over the lanes of vectors, by halves as quant/float_attention.py has it: of one, or of many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from .builder import Expr, shuffle

_QUAD = 4  # lanes of 128 bits, within which instructions move them at once


def by_halves(vector: Expr, lanes: int, join: Callable[[Expr, Expr], Expr]) -> Expr:
    """One value of all lanes: join(first half, second half), and so on."""
    while lanes > 1:
        lanes //= 2
        vector = T.bind(join(*(shuffle([vector], range(at, at + lanes)) for at in (0, lanes))))
    return vector


@dataclass(frozen=True)
class _Some:
    """A vector that holds partial sums of several: lanes[i] = (number of the sum, number of the part)."""

    vector: Expr
    lanes: tuple[tuple[int, int], ...]


def joint_sums(vectors: Sequence[Expr]) -> Expr:
    """Of as many vectors as they have lanes the sum of each, by halves: lane i is that of vector i."""
    count = len(vectors)
    waiting = [_Some(v, tuple((i, part) for part in range(count))) for i, v in enumerate(vectors)]
    while len(waiting) > 1:
        waiting = [_joined(a, b) for a, b in zip(waiting[::2], waiting[1::2], strict=True)]
    (found,) = waiting
    order = [found.lanes.index((i, 0)) for i in range(count)]
    return found.vector if order == list(range(count)) else T.bind(shuffle([found.vector], order))


def _joined(a: _Some, b: _Some) -> _Some:
    """The sums of both, each of half as many parts."""
    parts = 1 + max(part for _, part in a.lanes)
    half, width = parts // 2, len(a.lanes)
    reach = width if half >= _QUAD else min(_QUAD, width)  # lanes of each that come before those of the other
    order = [
        (n, i)
        for start in range(0, width, reach)
        for n, some in enumerate((a, b))
        for i in range(start, start + reach)
        if some.lanes[i][1] < half
    ]
    lanes = tuple((a, b)[n].lanes[i] for n, i in order)
    places = {lane: n * width + i for n, some in enumerate((a, b)) for i, lane in enumerate(some.lanes)}
    ends = ([places[number, part + behind] for number, part in lanes] for behind in (0, half))
    low, high = (T.bind(shuffle([a.vector, b.vector], list(indices))) for indices in ends)
    return _Some(T.bind(low + high), lanes)
