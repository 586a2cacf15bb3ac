"""Vectors of output channels in blocks, whose packed rows take turns, and how kernels go through them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hwptq.tir.builder import Expr, Part, loop


def even(extent: int, most: int) -> int:
    """Size of the parts when `extent` is cut evenly into parts of at most `most`: (6, 4) -> 3."""
    parts = -(-extent // most)
    return -(-extent // parts)


def blocks(vectors: int, size: int) -> list[tuple[int, int, int]]:
    """(first vector, blocks, vectors in each): blocks of `size`, and one of what is left."""
    full, rest = divmod(vectors, size)
    return [(0, full, size)] * (full > 0) + [(full * size, 1, rest)] * (rest > 0)


@dataclass(frozen=True)
class Turns:
    """Vectors of channels whose rows of packed weights take turns, `size` of them from vector `first` on; a
    tile computes some of them, from the one with number `at` on."""

    first: Expr
    size: int
    at: Expr = 0


def each_tile(vectors: int, together: int, size: int, body: Callable[[Expr, Turns, int], None]) -> None:
    """body(number of the block, its turns, vectors) for tiles of at most `size` vectors in all blocks of
    vectors that are packed `together`."""

    def block(number: Expr, count: int) -> None:
        for begin, many, own in blocks(count, size):

            def tile(i: Expr, begin: int = begin, own: int = own) -> None:
                body(number, Turns(number * together, count, begin + i * own), own)

            loop(many, tile)

    for first, many, count in blocks(vectors, together):
        loop(many, lambda c, n=first // together, v=count: block(n + c, v))  # type: ignore[misc]


def each_block(own: Part, vectors: int, together: int, body: Callable[[Expr, int], None]) -> None:
    """body(first vector, vectors) for the blocks of a part, of `together` vectors and what is left."""
    for first, many, size in blocks(vectors, together):
        begin, count = own.of(many, turn=first)

        def block(c: Expr, first: int = first, size: int = size, begin: Expr = begin) -> None:
            body(first + (begin + c) * size, size)

        loop(count, block)
