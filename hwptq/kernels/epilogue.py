"""Operators that a kernel applies to its results before it stores them, while they are in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.operators.add import Add, Addend, added, factored_sum, stored_addend
from hwptq.operators.clamp import Clamp
from hwptq.tir.builder import Expr, Flat, clamp
from hwptq.tir.encoding import encoded
from hwptq.tir.kernel import Argument, TensorType
from hwptq.tir.layout import PLAIN, Padding
from hwptq.tir.requantize import Bounds, bounded, finish
from hwptq.tir.vector_unit import VectorUnit

from .cells import Held


@dataclass(frozen=True)
class Follower:
    """An operator whose operand is the result before it: a Clamp, or an Add of as large an `other`; all are
    of one dtype.

    `constants` are lo and hi of a Clamp. `second`: the result before it is operand b.
    """

    op: Clamp | Add
    constants: tuple[np.ndarray, ...] = ()
    other: TensorType | None = None
    second: bool = False


class Spot(Protocol):
    """The place of a vector of results: which channel each lane is, and of which pixel."""

    def channels(self, array: Flat | Held) -> Expr:
        """The elements of an array packed by channel."""

    def elements(self, array: Flat, pixels: Sequence[Expr]) -> Expr:
        """Those of a tensor of the shape of the result, whose pixels have these offsets."""


@dataclass(frozen=True)
class Placed:
    """A follower with its parameters in a kernel; `pixels` are the offsets of its other operand."""

    follower: Follower
    arrays: tuple[Flat, ...]
    pixels: tuple[Expr, ...] = ()


def any_border(followers: Sequence[Follower]) -> bool:
    """Whether another operand has a border, so that its rows do not follow each other."""
    return any(f.other is not None and not f.other.layout.padding.empty for f in followers)


def parameters(
    followers: Sequence[Follower], activations: int, pack: Callable[[np.ndarray], np.ndarray]
) -> tuple[list[TensorType], list[Argument]]:
    """Types and arguments of what the followers read. Theirs come after so many activations of the layer.

    `pack` orders a constant by the lanes of the kernel.
    """
    types: list[TensorType] = []
    args: list[Argument] = []
    for follower in followers:
        if follower.other is not None:
            types.append(follower.other)
            args.append(activations)
            activations += 1
        for array in map(pack, follower.constants):
            types.append(TensorType(array.shape, str(array.dtype)))
            args.append(array)
    return types, args


def place(
    followers: Sequence[Follower], arrays: Sequence[Flat], pixels: Callable[[Padding], Sequence[Expr]]
) -> list[Placed]:
    """The followers with their parameters; pixels(border) are the offsets of the results' pixels."""
    left, placed = list(arrays), []
    for follower in followers:
        count = len(follower.constants) + (follower.other is not None)
        taken, left = left[:count], left[count:]
        offsets = pixels(follower.other.layout.padding) if follower.other is not None else ()
        placed.append(Placed(follower, tuple(taken), tuple(offsets)))
    return placed


def finished(
    acc: Expr, scales: Sequence[Flat | Held], bounds: Bounds | None, tail: Sequence[Placed], spot: Spot,
    lanes: int, unit: VectorUnit, dtype: str,
) -> Expr:  # fmt: skip
    """What finish makes of accumulators, and the followers of that, in the dtype of a layout."""
    factors = [spot.channels(scale) for scale in scales]
    if not tail or bounds is None:
        return T.bind(finish(acc, factors, bounds, lanes, unit.requantize, dtype))
    if isinstance(tail[0].follower.op, Add):  # narrowing would only be undone
        multiplier, shift = factors
        carried = T.bind(bounded(acc, multiplier, shift, bounds, lanes, unit.requantize))
        result = Addend(carried, -bounds.zero_point)
    else:
        result = Addend(finish(acc, factors, bounds, lanes, unit.requantize))
    for placed in tail:
        last = placed is tail[-1]
        result = Addend(_followed(result, placed, spot, lanes, unit, dtype if last else "int8"))
    return result.vector


def _followed(result: Addend, placed: Placed, spot: Spot, lanes: int, unit: VectorUnit, dtype: str) -> Expr:
    """What one follower makes of results."""
    follower, arrays = placed.follower, placed.arrays
    if isinstance(follower.op, Clamp):
        limits = map(spot.channels, arrays)
        return T.bind(encoded(clamp(T.bind(result.vector), *limits), dtype, lanes))
    (array,) = arrays
    if follower.other is not None and follower.other.dtype != PLAIN.dtype:  # no layouts
        wide = Addend(spot.elements(array, placed.pixels))
        both = (wide, result) if follower.second else (result, wide)
        return T.bind(factored_sum(follower.op, *both, lanes, unit))
    other = stored_addend(spot.elements(array, placed.pixels), array.dtype, lanes)
    operands = (other, result) if follower.second else (result, other)
    return T.bind(added(follower.op, *operands, lanes, unit, dtype))
