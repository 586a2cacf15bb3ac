"""Tensors that broadcast, with as few axes as they can be looped over by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

from .builder import Expr


@dataclass(frozen=True)
class Broadcast:
    """extents: of the axes, at least one; strides[n][axis]: elements of tensor n between its neighbours, 0
    along an axis that it has not. Neighbouring axes that each tensor has, or has not, are one."""

    extents: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, shapes: Sequence[Sequence[int]], out: Sequence[int]) -> Broadcast:
        """Of tensors that broadcast to `out`."""
        padded = [(1,) * (len(out) - len(shape)) + tuple(shape) for shape in shapes]
        axes = [
            (extent, tuple(shape[axis] > 1 for shape in padded))
            for axis, extent in enumerate(out)
            if extent > 1
        ]
        joined = [
            (prod(extent for extent, _ in same), has)
            for has, same in ((has, list(group)) for has, group in groupby(axes, key=lambda axis: axis[1]))
        ] or [(1, (False,) * len(padded))]
        strides = tuple(
            tuple(
                prod(extent for extent, has in joined[axis + 1 :] if has[n]) if joined[axis][1][n] else 0
                for axis in range(len(joined))
            )
            for n in range(len(padded))
        )
        return cls(tuple(extent for extent, _ in joined), strides)

    def reads_along(self, tensor: int) -> bool:
        """Whether a tensor has the last axis, so that its neighbours there are neighbours in memory."""
        return self.strides[tensor][-1] == 1

    def offset(self, tensor: int, at: Sequence[Expr]) -> Expr:
        """Of the element of a tensor at these places."""
        return _dot(at, self.strides[tensor])

    def place(self, at: Sequence[Expr]) -> Expr:
        """Of the element of the result."""
        return _dot(at, [prod(self.extents[axis + 1 :]) for axis in range(len(self.extents))])


def _dot(at: Sequence[Expr], strides: Sequence[int]) -> Expr:
    found: Expr = 0
    for place, stride in zip(at, strides, strict=True):
        found = found + place * stride if stride else found
    return found
