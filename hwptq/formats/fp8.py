"""float8 e4m3fn: exact encoding and decoding in integer arithmetic.

One sign bit, four exponent bits of bias 7, three fraction bits; no infinity. Code 0x7F (and 0xFF) is NaN, the
largest value is 448, the smallest normal one 2^-6, subnormals are multiples of 2^-9. (Micikevicius et al.,
2022, "FP8 formats for deep learning".)

Codes are held as uint8 here; `as_codes` and `as_float8` go to and from arrays of ml_dtypes' dtype, which
is how a graph holds them.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

DTYPE = "float8_e4m3fn"
LARGEST = 448.0
NAN = 0x7F
_LARGEST_CODE = 0x7E
_BIAS = (127 - 7) << 3  # of a float32 over that of an e4m3, where the exponent lies in a code
_SMALLEST_NORMAL = 0x3C800000  # 2^-6 as the bits of a float32
_INFINITY = 0x7F800000


def as_codes(x: np.ndarray) -> np.ndarray:
    """The codes (uint8) of an array of float8_e4m3fn or uint8."""
    return np.asarray(x, order="C").view(np.uint8)


def as_float8(codes: np.ndarray) -> np.ndarray:
    """Codes (uint8) as an array of dtype float8_e4m3fn."""
    return np.asarray(codes, order="C").view(ml_dtypes.float8_e4m3fn)


def encode(x: np.ndarray) -> np.ndarray:
    """float32 -> codes (uint8): round to nearest, ties to even; beyond 448, and infinity, become 448.

    NaN becomes 0x7F, whatever its sign. 17.0 lies between 16 (0x58) and 18 (0x59), and becomes 0x58.
    """
    bits = np.asarray(x, np.float32, order="C").view(np.uint32)
    sign, magnitude = (bits >> 24) & np.uint32(0x80), bits & np.uint32(0x7FFFFFFF)
    # the last of the 3 fraction bits kept is bit 20; a carry runs into the exponent, as it should
    rounded = magnitude + np.uint32(0x7FFFF) + ((magnitude >> 20) & np.uint32(1))
    normal = np.maximum(rounded >> 20, np.uint32(_BIAS)) - np.uint32(_BIAS)
    code = np.where(magnitude < _SMALLEST_NORMAL, _subnormal(magnitude), normal)
    code = np.minimum(code, np.uint32(_LARGEST_CODE)) | sign
    return np.where(magnitude > _INFINITY, np.uint32(NAN), code).astype(np.uint8)


def _subnormal(magnitude: np.ndarray) -> np.ndarray:
    """|x| < 2^-6 in units of 2^-9, rounded to nearest even; the bits of a float32 come in."""
    exponent = np.maximum(magnitude >> 23, np.uint32(1))
    fraction = (magnitude & np.uint32(0x7FFFFF)) | np.where(magnitude >> 23, np.uint32(1 << 23), np.uint32(0))
    # the value is fraction * 2^(exponent - 150), so in units of 2^-9 it is fraction >> (141 - exponent)
    shift = np.minimum(np.maximum(141, exponent) - exponent, np.uint32(31)).astype(np.uint64)
    wide, half = fraction.astype(np.uint64), (np.uint64(1) << shift) >> np.uint64(1)
    odd = (wide >> shift) & np.uint64(1)
    return ((wide + half - np.uint64(1) + odd) >> shift).astype(np.uint32)


def _decoded() -> np.ndarray:
    codes = np.arange(256, dtype=np.int64)
    exponent, fraction = (codes >> 3) & 15, codes & 7
    significand = np.where(exponent > 0, 8 + fraction, fraction)
    value = np.ldexp(significand.astype(np.float64), np.maximum(exponent, 1) - 10)
    value = np.where(codes & 0x80, -value, value)
    return np.where((codes & 0x7F) == NAN, np.nan, value).astype(np.float32)


#: float32 [256]: the value of each code.
VALUES = _decoded()


def decode(codes: np.ndarray) -> np.ndarray:
    """Codes (uint8) -> float32, exact. 0x7F and 0xFF are NaN, 0x80 is -0.0."""
    return VALUES[codes]
