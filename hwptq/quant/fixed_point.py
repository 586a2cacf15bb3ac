"""Fixed-point requantization: int32 accumulator -> codes, by an integer multiplier and a rounding shift.

    v = (acc * m + 2^30) >> 31          m in [2^30, 2^31)        SQRDMULH on Neon
    y = clamp(((v + 2^(s-1)) >> s) + zero_point, lo, hi)         SRSHL on Neon

That is the rounding "steps". Other devices round the product once, p = acc m, n = 31 + s:

    half-up     (p + 2^(n-1)) >> n                      TOSA's RESCALE with SINGLE_ROUND
    half-away   the same, less 1 before the shift where p < 0
    half-even   the same as half-up, but to the even neighbour in the middle
    double      half-up with 2^30 more, or less where acc < 0       TOSA's RESCALE with DOUBLE_ROUND

Where scales are powers of two, m is 2^30, and these are shifts of acc.

With |acc| <= ACCUMULATOR_LIMIT and s <= MAX_SHIFT, v + 2^(s-1) fits in int32, so a backend may compute
the second step in 32 bits. A sum that can be larger, as of products of int16, is an int64, and a rounding
shift of its own makes it fit (`shortened`).
"""

from __future__ import annotations

import numpy as np

#: How devices round, by what the docstring above calls it.
STEPS = "steps"
ROUNDINGS = (STEPS, "half-up", "half-away", "half-even", "double")

ACCUMULATOR_LIMIT = 2**30 - 1
MAX_SHIFT = 31


def quantize_multiplier(real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The (multiplier, shift) whose m * 2^-31 * 2^-shift is nearest to `real`.

    `real`: float array in [2^-32, 1/2). Returns two int32 arrays of its shape, multiplier in [2^30, 2^31),
    shift in [1, 31]. 0.3 -> (1288490189, 1), since 0.3 = 0.6 * 2^-1.
    Values below 2^-32 become the smallest pair (they round every accumulator to 0 or 1 LSB of it).
    Raises ValueError for values >= 1/2 (shift would be < 1), negative or not finite.
    """
    real = np.asarray(real, dtype=np.float64)
    if not np.all(np.isfinite(real)) or np.any(real < 0) or np.any(real >= 0.5):
        raise ValueError(f"requantize multiplier must lie in [0, 0.5), got {real.min()} … {real.max()}")
    mantissa, exponent = np.frexp(
        np.maximum(real, 2.0**-32)
    )  # real = mantissa * 2^exponent, mantissa in [1/2, 1)
    multiplier = np.rint(mantissa * 2.0**31).astype(np.int64)
    carried = multiplier == 2**31
    multiplier = np.where(carried, 2**30, multiplier)
    shift = -exponent + np.where(carried, -1, 0)
    if np.any(shift < 1):  # just under 1/2, rounded up to it
        raise ValueError(f"requantize multiplier must lie in [0, 0.5), got {real.max()}")
    return multiplier.astype(np.int32), np.minimum(shift, MAX_SHIFT).astype(np.int32)


def requantize(
    acc: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int, zero_point: int, lo: int, hi: int,
    dtype: str = "int8", rounding: str = STEPS,
) -> np.ndarray:  # fmt: skip
    """int32 accumulators -> codes held in `dtype`.

    `multiplier` and `shift` broadcast against `acc` (last axis = channels).
    Raises ValueError where an accumulator exceeds ACCUMULATOR_LIMIT.
    """
    wide = np.asarray(acc, dtype=np.int64)
    if wide.size and max(int(wide.max()), -int(wide.min())) > ACCUMULATOR_LIMIT:
        raise ValueError("accumulator exceeds 2^30 - 1")
    by = np.asarray(shift, dtype=np.int64)
    v = wide * multiplier
    if rounding == STEPS:
        v += 2**30
        v >>= 31
        v = v + np.left_shift(np.int64(1), by - 1)
        v >>= by
    else:
        v = _rounded_once(v, wide, by + 31, rounding)
    v += zero_point
    return np.clip(v, lo, hi).astype(dtype)


def _rounded_once(product: np.ndarray, acc: np.ndarray, by: np.ndarray, rounding: str) -> np.ndarray:
    """product / 2^by, an int64."""
    half = np.left_shift(np.int64(1), by - 1)
    if rounding == "half-away":
        return (product + half - (product < 0)) >> by
    if rounding == "double":
        return (product + half + np.where(acc >= 0, 2**30, -(2**30))) >> by
    up = (product + half) >> by
    if rounding == "half-even":
        middle = (product & (2 * half - 1)) == half
        return up - (middle & (up & 1 == 1))
    return up


def shortened(acc: np.ndarray, by: int) -> np.ndarray:
    """(acc + 2^(by-1)) >> by, int64; by = 0 changes nothing."""
    return (acc + (1 << (by - 1))) >> by if by else acc


def shortening(most: float) -> int:
    """By how many bits sums of a magnitude up to `most` are shortened to lie within the limit."""
    by = 0
    while most / 2**by + (by > 0) > ACCUMULATOR_LIMIT:
        by += 1
    return by
