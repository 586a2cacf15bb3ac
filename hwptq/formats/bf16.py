"""bfloat16: exact encoding and decoding in integer arithmetic.

The upper half of a float32: one sign bit, its eight exponent bits, seven fraction bits. It has a float32's
range, so a tensor in it needs no scale. Arrays of it are of ml_dtypes' dtype, which a graph holds too; codes
are their bits as uint16.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

DTYPE = "bfloat16"
LARGEST = float(np.ldexp(255.0, 120))
_NAN = 0x7FFF
_INFINITY = 0x7F800000


def as_codes(x: np.ndarray) -> np.ndarray:
    """The codes (uint16) of an array of bfloat16."""
    return np.asarray(x, order="C").view(np.uint16)


def encode(x: np.ndarray) -> np.ndarray:
    """float32 -> bfloat16: round to nearest, ties to even; what is too large becomes infinity.

    NaN becomes 0x7FFF, whatever its sign, as on NVIDIA's chips. 1 + 2^-8 is a tie and becomes 1.
    """
    bits = np.asarray(x, np.float32, order="C").view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16
    codes = np.where((bits & np.uint32(0x7FFFFFFF)) > _INFINITY, np.uint32(_NAN), rounded)
    return codes.astype(np.uint16).view(ml_dtypes.bfloat16)


def decode(x: np.ndarray) -> np.ndarray:
    """bfloat16 -> float32, exact."""
    return (as_codes(x).astype(np.uint32) << 16).view(np.float32)


#: float32 [65536]: the value of each code.
VALUES = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
