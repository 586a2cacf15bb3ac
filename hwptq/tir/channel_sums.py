"""Sums and sums of squares of each channel of an image, over all its pixels, exactly."""

from __future__ import annotations

import numpy as np
from tvm.script.ir_builder import tirx as T

from .builder import Expr, Flat, cast, constant, local, loop, workspace
from .rows import every_element
from .vector_unit import VectorUnit

_HALF_WORD = 16
#: Pixels whose values and squares, or halves of squares, are summed in 32 bits, by bytes of a value.
_BLOCK = {1: 2**16, 2: 2**14}


class ChannelSums:
    """int64 [channels] of an int8 or int16 tensor [pixels, channels]."""

    def __init__(self, channels: int, dtype: str, unit: VectorUnit):
        self._channels, self._unit = channels, unit
        self._bytes = np.dtype(dtype).itemsize
        self._total, self._squares = workspace(channels, "int64"), workspace(channels, "int64")
        halves = 1 if self._bytes == 1 else 2  # a square of bytes needs no more than one
        self._short = [workspace(max(channels, unit.lanes), "int32") for _ in range(1 + halves)]

    def add_up(self, x: Flat, pixels: int) -> None:
        """Sum the first `pixels` pixels of x."""
        for sums in (self._total, self._squares):
            loop(self._channels, lambda i, sums=sums: sums.store(i, constant(0, "int64")))  # type: ignore[misc]
        full, rest = divmod(pixels, _BLOCK[self._bytes])
        size = _BLOCK[self._bytes]
        if full:
            loop(full, lambda i: self._block(x.behind(i * (size * self._channels)), size))
        if rest:
            self._block(x.behind(full * size * self._channels), rest)

    def of(self, first: Expr, count: int) -> tuple[Expr, Expr]:
        """The sum and that of squares of `count` channels."""
        found = []
        for sums in (self._total, self._squares):
            one = local(1, "int64")
            one.store(0, constant(0, "int64"))
            loop(count, lambda i, s=sums, o=one: o.store(0, o.load(0) + s.load(first + i)))  # type: ignore[misc]
            found.append(T.bind(one.load(0)))
        return found[0], found[1]

    def _block(self, x: Flat, pixels: int) -> None:
        """Add so many pixels, whose sums fit 32 bits."""
        every_element(self._channels, self._unit, lambda at, width: self._vector(x, pixels, at, width))

        def flush(i: Expr) -> None:
            plain, low, *high = (cast(s.load(i), "int64") for s in self._short)
            self._total.store(i, self._total.load(i) + plain)
            for part in high:
                low = low + T.shift_left(part, constant(_HALF_WORD, "int64"))
            self._squares.store(i, self._squares.load(i) + low)

        loop(self._channels, flush)

    def _vector(self, x: Flat, pixels: int, at: Expr, width: int) -> None:
        """The sums of a vector of channels."""
        sums = [local(width, "int32") for _ in self._short]
        for one in sums:
            one.store(0, constant(0, "int32", width), width)

        def pixel(number: Expr) -> None:
            wide = T.bind(cast(x.load(number * self._channels + at, width), "int32", width))
            square = T.bind(wide * wide)
            parts = [wide, square]
            if self._bytes > 1:
                parts[1] = T.bitwise_and(square, constant(2**_HALF_WORD - 1, "int32", width))
                parts.append(T.shift_right(square, constant(_HALF_WORD, "int32", width)))
            for one, part in zip(sums, parts, strict=True):
                one.store(0, one.load(0, width) + part, width)

        loop(pixels, pixel)
        for one, kept in zip(sums, self._short, strict=True):
            kept.store(at, one.load(0, width), width)
