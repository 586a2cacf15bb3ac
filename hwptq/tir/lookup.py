"""The code of a Lookup around the selection of entries: it reads and writes any layout, threads share it."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from .builder import Expr, Flat, cast, loop, share, spans, start_of, unravel, vector_width
from .encoding import decoded, encoded
from .kernel import TensorType
from .stored import Stored
from .vector_unit import VectorUnit

#: (indices, lanes) -> the entries of so many stored values, as they are stored.
Find = Callable[[Expr, int], Expr]
#: The parameter with the entries -> code that loads what stays in registers, and what finds entries in it.
Prepare = Callable[[Flat], Find]

_COST = 20  # multiply-accumulates that take as long as a value


def emit_lookup(
    x: TensorType, out: TensorType, unit: VectorUnit, prepare: Prepare, lanes: int, vectors: int = 1
) -> Callable[[Flat, Flat, Flat], None]:
    """Code of (x, entries, y): up to `vectors` vectors of `lanes` values in an iteration.

    `prepare` comes once in each part, outside of its loop.
    """
    size = prod(out.shape)
    parts = unit.shared(_COST * size)
    bordered = not (x.layout.padding.empty and out.layout.padding.empty)

    def emit(source: Flat, entries: Flat, y: Flat) -> None:
        read, written = Stored(source, x), Stored(y, out)

        def block(find: Find, start: Expr, to: Expr, width: int, count: int) -> None:
            step = min(lanes, width)
            for at in range(0, width, step):
                found = find(source.load(start + at, step), step)
                y.store(to + at, found, step, min(count - at, step))

        def row(find: Find, start: Expr, to: Expr, extent: int) -> None:
            spans(
                extent,
                lanes if unit.masked else vectors * lanes,
                lambda at, width, count: block(find, start + at, to + at, width, count),
                unit.masked,
            )

        def rows(first: Expr, count: Expr) -> None:
            find = prepare(entries)
            n, h, w, c = out.shape

            def one(number: Expr) -> None:
                b, i = unravel(first + number, (n, h))
                row(find, read.pixel(b, i, 0), written.pixel(b, i, 0), w * c)

            loop(count, one)

        width = vector_width(size, vectors * lanes)

        def blocks(first: Expr, count: Expr) -> None:
            find = prepare(entries)

            def one(number: Expr) -> None:
                start = start_of(first + number, width, size)
                block(find, start, start, width, width)

            loop(count, one)

        if bordered:
            share(prod(out.shape[:2]), parts, rows, written.border(unit))
        elif unit.masked:
            row(prepare(entries), 0, 0, size)
        else:
            share(-(-size // width), parts, blocks)

    return emit


def one_by_one(x: TensorType, out: TensorType) -> Prepare:
    """A load for each value, from the table as it is."""

    def prepare(entries: Flat) -> Find:
        first = entries.size // 2

        def find(stored: Expr, lanes: int) -> Expr:
            value = cast(decoded(stored, x.layout.dtype, lanes), "int32", lanes)
            return encoded(entries.load(value + first), out.layout.dtype, lanes)

        return find

    return prepare
