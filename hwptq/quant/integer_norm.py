"""Layer norm and RMS norm of quantized rows in integers: one integer square root and one division a row.

Of a row of C values x in steps of `scale`, with f = fraction_bits(x):

    mu = round(2^f * sum x / C)                         0 for an RMS norm
    V  = C * sum x^2 - (sum x)^2 + eps                  C^2 times the variance; no second term for an RMS norm
    d  = 2^f * x - mu                                   fits int32
    n  = d * C / (2^f * sqrt(V)) in steps of 2^-16      by a multiplier and a shift of the row
    v  = (n * multiplier[c] + 2^30) >> 31
    y  = clamp(((v + bias[c] + 2^(shift-1)) >> shift) + zero_point)

Only the sum of squares, the square root and the division of a row need 64 bits. Of long rows V is divided by
4^h, h = halvings(C, x), so that it fits; h is 0 for rows of up to 2^14 values. The magnitude of a normalized
value is at most sqrt(C), so n fits 28 bits; where the spread of a row is small, d is shifted to the left
first, which cannot overflow for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp

import numpy as np

#: The most values of a row; n fits 32 bits.
LONGEST = 2**22
#: Those of a row of any dtype whose C * sum x^2 fits 58 bits.
SHORT = 2**14
_VARIANCE_BITS = 58
NORMALIZED_BITS = 16
LARGEST_LIFT = 20
#: The most that is added to V, so that both fit 61 bits: beside it no variance counts.
LARGEST_EPS = 2**60
ROOT_BITS = 62  # V is shifted to below 2^62 before its root is taken


@dataclass(frozen=True)
class NormConstants:
    """multiplier, bias: int32 [C]; shift in 1 … 31; eps: what is added to V."""

    multiplier: np.ndarray
    bias: np.ndarray
    shift: int
    eps: int


def halvings(count: int, dtype: np.dtype | str) -> int:
    """h: V of rows of `count` values is divided by 4^h, so that it fits 60 bits."""
    bits = 8 * np.dtype(dtype).itemsize - 1
    return max(0, (count - 1).bit_length() + bits - _VARIANCE_BITS // 2)


def fraction_bits(dtype: np.dtype | str) -> int:
    """f: bits behind the point of d, which fits 30 bits with its sign."""
    return 29 - 8 * np.dtype(dtype).itemsize


def norm_constants(
    gamma: np.ndarray, beta: np.ndarray, eps: float, in_scale: float, out_scale: float,
    count: int = 0, halved: int = 0,
) -> NormConstants:  # fmt: skip
    """The constants of y = gamma * n + beta (float, [C]) for rows of `count` values, C if not given, whose V
    is divided by 4^halved.

    Raises ValueError where they fit no shift.
    """
    count = count or gamma.size
    factor = gamma.astype(np.float64) / out_scale
    largest = max(float(np.abs(factor).max()), 2.0**-20)
    # v is y in steps of 2^-shift; the largest multiplier is just below 2^31
    shift = int(np.clip(NORMALIZED_BITS - frexp(largest)[1], 1, 20))
    multiplier = np.rint(factor * 2.0 ** (31 - NORMALIZED_BITS + shift))
    bias = np.rint(beta.astype(np.float64) / out_scale * 2.0**shift)
    if np.abs(multiplier).max() >= 2**31 or np.abs(bias).max() >= 2**29:
        raise ValueError("a norm whose scale or offset is too large for its output's scale")
    added = min(round(eps * (count / in_scale / 2**halved) ** 2), LARGEST_EPS)
    return NormConstants(multiplier.astype(np.int32), bias.astype(np.int32), shift, added)


def normalize(
    x: np.ndarray, constants: NormConstants, zero_point: int, lo: int, hi: int, centered: bool = True
) -> np.ndarray:
    """x int8 or int16 [..., C] -> int32 [..., C] in lo … hi.

    centered: a layer norm, for which the zero point of x does not matter; else an RMS norm, of x with zero
    point 0. The constants may differ by row too: [..., C]. Raises ValueError for rows longer than LONGEST.
    """
    count, bits = x.shape[-1], fraction_bits(x.dtype)
    if count > LONGEST:
        raise ValueError(f"a norm of rows of {count} values; at most {LONGEST} can be summed")
    halved = halvings(count, x.dtype)
    wide = x.astype(np.int64)
    total = wide.sum(axis=-1, keepdims=True) if centered else np.zeros((*x.shape[:-1], 1), np.int64)
    variance = variance_of(total, (wide * wide).sum(axis=-1, keepdims=True), count, halved) + constants.eps
    mean = (total * 2 ** (bits + 1) + count) // (2 * count)
    multiplier, shift, lift = row_multiplier(variance, count, bits, halved)
    n = _rounded(((((wide << bits) - mean) << lift) * multiplier + 2**30) >> 31, shift)
    v = (n * constants.multiplier + 2**30) >> 31
    y = _rounded(v + constants.bias, constants.shift) + zero_point
    return np.clip(y, lo, hi).astype(np.int32)


def variance_of(total: np.ndarray, squares: np.ndarray, count: int, halved: int) -> np.ndarray:
    """V without eps, int64, from the sums of rows and of their squares.

    Where it is divided by 4^halved: S = sum x^2 - floor(total^2 / count), of which count is a factor of V, is
    at least 4^halved, so that n is at most sqrt(2) times what it should be.
    """
    if not halved:
        return count * squares - total * total
    quotient, rest = np.divmod(total, count)
    spread = squares - quotient * total - rest * total // count
    return count * np.maximum(spread >> (2 * halved), 1)


def row_multiplier(
    variance: np.ndarray, count: int, bits: int, halved: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """count * 2^(16-bits) / sqrt(4^halved variance) of each row, int64, as
    multiplier * 2^-31 * 2^-shift * 2^lift.

    The multiplier lies in [2^30, 2^31), the shift in 1 … 31, the lift in 0 … 20.
    """
    variance = np.maximum(variance, 1)
    double = (ROOT_BITS - bit_length(variance)) // 2
    root = integer_sqrt(variance << (2 * double))
    room = 31 - count.bit_length()
    quotient = (np.int64(count) << (room + 31)) // root
    once = (quotient >= 2**31).astype(np.int64)
    shift = room - NORMALIZED_BITS + bits - double - once + halved
    return quotient >> once, np.clip(shift, 1, 31), np.clip(1 - shift, 0, LARGEST_LIFT)


def bit_length(x: np.ndarray) -> np.ndarray:
    """Bits of positive int64: 1 -> 1, 255 -> 8, 256 -> 9."""
    high = x >> 31
    found = np.frexp(np.where(high > 0, high, x).astype(np.float64))[1].astype(np.int64)
    return np.where(high > 0, found + 31, found)


def integer_sqrt(x: np.ndarray) -> np.ndarray:
    """floor(sqrt(x)) of int64 in [0, 2^62), exact."""
    root = np.sqrt(x.astype(np.float64)).astype(np.int64)
    root = np.where(root * root > x, root - 1, root)
    return np.where((root + 1) * (root + 1) <= x, root + 1, root)


def _rounded(x: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    return (x + (np.int64(1) << (np.asarray(shift, np.int64) - 1))) >> np.asarray(shift, np.int64)
