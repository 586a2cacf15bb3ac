"""An Add in 32-bit arithmetic: fewer instructions than its definition, and the same result for all operands.

    y = clamp(((a * a_factor + b * b_factor + start) >> shift) + zero_point, lo, hi)

An operand has 256 values, so that all 65536 pairs can be looked at. For given factors and shift, each of them
says between which bounds `start` must lie; where no bounds contradict, the sum is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import floor, log2

import numpy as np

from .fixed_point import STEPS
from .scaled_sum import ScaledSum, scaled_sum

_LIMIT = 2**31
_SHIFTS = 3  # how many are tried


@dataclass(frozen=True)
class ShortAdd:
    """Factors, start and shift of the sum; it and its parts, added from left to right, fit into int32."""

    a_factor: int
    b_factor: int
    start: int
    shift: int


@lru_cache(maxsize=1024)
def short_add(op: ScaledSum, a_offset: int = 0, b_offset: int = 0) -> ShortAdd | None:
    """The sum that equals `op` for operands stored with an offset (128 = as uint8); None if none is found."""
    if op.rounding != STEPS:
        return None
    a, b = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128), indexing="ij")
    result = scaled_sum(op, a.astype(np.int8), b.astype(np.int8)).astype(np.int64)
    for short in _candidates(op):
        products = a * short.a_factor + b * short.b_factor
        least, most = _starts(products, result, op, short.shift)
        start = (least + most) // 2
        moved = start - a_offset * short.a_factor - b_offset * short.b_factor
        found = ShortAdd(short.a_factor, short.b_factor, moved, short.shift)
        if least <= most and _fits(found, a_offset, b_offset):
            return found
    return None


def _candidates(op: ScaledSum) -> Iterator[ShortAdd]:
    """Factors near the real ones, at the largest shifts; their start is yet to be found."""
    scale = op.multiplier / 2.0 ** (31 + op.shift)
    factors = [f * scale for f in (op.a_factor, op.b_factor)]
    start = abs(sum(f * z for f, z in zip(factors, (op.a_zero_point, op.b_zero_point), strict=True)))
    largest = 128 * sum(map(abs, factors)) + start + 1
    most = min(30, floor(log2(_LIMIT / largest)))
    steps = sorted(product((-1, 0, 1), repeat=2), key=lambda step: abs(step[0]) + abs(step[1]))
    for shift in range(most, max(0, most - _SHIFTS), -1):
        a, b = (round(f * 2**shift) for f in factors)
        for da, db in steps:
            yield ShortAdd(a + da, b + db, 0, shift)


def _starts(products: np.ndarray, result: np.ndarray, op: ScaledSum, shift: int) -> tuple[int, int]:
    """The least and the largest start that give `result`; a clamped result bounds it on one side only."""
    shifted = result - op.out_zero_point
    least = np.where(result > op.lo, (shifted << shift) - products, -_LIMIT)
    most = np.where(result < op.hi, ((shifted + 1) << shift) - 1 - products, _LIMIT)
    return int(least.max()), int(most.min())


def _fits(short: ShortAdd, a_offset: int, b_offset: int) -> bool:
    """Whether all products and sums fit into int32."""
    first = [short.a_factor * (v + a_offset) for v in (-128, 127)]
    second = [short.b_factor * (v + b_offset) for v in (-128, 127)]
    begun = [v + short.start for v in first]
    sums = [v + w for v in begun for w in second]
    return all(-_LIMIT <= v < _LIMIT for v in (*first, *second, *begun, *sums, short.start))
