"""Softmax of quantized rows in integers: exponentials by a polynomial, and one reciprocal a row.

    d = max(x) - x                      of the unmasked values of a row, in 0 … 255 or 0 … 65535
    t = (min(d, reach) * factor + 2^(shift-1)) >> shift        d * scale * log2(e) in steps of 2^-15
    e = 2^-t in steps of 2^-15          0 where the row is masked
    r = floor(2^30 / sum e)
    p = min((e * r + 2^21) >> 22, 255)  the probability in steps of 1/256

Everything but the division of a row is products and shifts in int32, so all of it is vectors on any device.
e * r is at most 2^30, and the floor of r moves p by no more than 2^-7 of a step, whatever the length of the
row, since p * 2^22 / r <= e. The polynomial of degree 4 interpolates 2^-f at Chebyshev's nodes of [0, 1) with
p(0) = 1; it is within half a step, and the roundings of Horner's rule within two.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import numpy as np

#: e of a difference of 0.
ONE = 2**15 - 1
#: The result is an int8 with this scale and zero point: 0 … 255 in steps of 1/256.
SCALE, ZERO_POINT = 1 / 256, -128
#: The longest row: its sum of exponentials fits int32.
LONGEST = 2**16
#: (1 - 2^-f) / f in steps of 2^-15, the highest power of f first; signs alternate, the last one is added.
POLYNOMIAL = (240, 1773, 7862, 22713)
FRACTION_BITS = 15
RECIPROCAL = 2**30
SHIFT = 22
_LARGEST_DIFFERENCE = 2**16 - 1
_SMALLEST_LOG = 17.0  # 2^-17 in steps of 2^-15 is nothing
_PRODUCT_BITS = 30


@dataclass(frozen=True)
class Exponent:
    """How a difference becomes t; reach: the differences from which on e is 0, or the largest one."""

    factor: int
    shift: int
    reach: int


def exponent(scale: float) -> Exponent:
    """Of values in steps of `scale`; scale 0.1 -> a difference of 10 has e = 12054."""
    step = scale / np.log(2.0)
    reach = int(min(_LARGEST_DIFFERENCE, ceil(_SMALLEST_LOG / step)))
    # the largest product, reach * factor, is just below 2^30
    shift = max(0, min(30, int(_PRODUCT_BITS - ceil(log2(reach * step)) - FRACTION_BITS - 1)))
    factor = min(round(step * 2.0 ** (FRACTION_BITS + shift)), 2**_PRODUCT_BITS // reach)
    return Exponent(factor, shift, reach)


def exponential(difference: np.ndarray, by: Exponent) -> np.ndarray:
    """e of differences in 0 … 65535: int32."""
    product = np.minimum(difference, by.reach).astype(np.int32) * np.int32(by.factor)
    t = (product + ((1 << by.shift) >> 1)) >> by.shift
    whole, f = np.minimum(t >> FRACTION_BITS, 30), t & (2**FRACTION_BITS - 1)
    half = 2 ** (FRACTION_BITS - 1)
    u = np.full_like(f, POLYNOMIAL[0])
    for coefficient in POLYNOMIAL[1:]:
        u = coefficient - ((u * f + half) >> FRACTION_BITS)
    e = ONE - ((u * f + half) >> FRACTION_BITS)
    return (((2 * e) >> whole) + 1) >> 1


def probability_of_alike(count: int) -> int:
    """The probability, in steps of SCALE, of each of `count` equal values."""
    return min((ONE * (RECIPROCAL // (count * ONE)) + 2 ** (SHIFT - 1)) >> SHIFT, 255)


def softmax(x: np.ndarray, by: Exponent, masked: np.ndarray | None = None, alike: bool = False) -> np.ndarray:
    """x int8 or int16 [..., n], masked bool (broadcast to it) -> int8 [..., n]; see ZERO_POINT and SCALE.

    A row that is masked whole gives zeros, or, if `alike`, one probability for all. Raises ValueError for
    rows longer than LONGEST.
    """
    if x.shape[-1] > LONGEST:
        raise ValueError(f"softmax of rows of {x.shape[-1]} values; at most {LONGEST} are summed in 32 bits")
    wide = x.astype(np.int32)
    hidden = np.zeros(x.shape, bool) if masked is None else np.broadcast_to(masked, x.shape)
    lowest = np.iinfo(x.dtype).min
    largest = np.where(hidden, lowest, wide).max(axis=-1, keepdims=True)
    e = np.where(hidden, 0, exponential(np.maximum(largest - wide, 0), by))
    total = e.sum(axis=-1, keepdims=True, dtype=np.int64)
    reciprocal = np.where(total > 0, RECIPROCAL // np.maximum(total, 1), 0)
    p = np.minimum((e * reciprocal + 2 ** (SHIFT - 1)) >> SHIFT, 255)
    if alike:
        p = np.where(total > 0, p, probability_of_alike(x.shape[-1]))
    return (p + ZERO_POINT).astype(np.int8)
