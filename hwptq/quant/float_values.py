"""Short floats and int8 as real numbers, and back: what operators on floats read and write."""

from __future__ import annotations

import numpy as np

from hwptq.formats import format_of


def clamp(y: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """y in [lo, hi]; NaN becomes lo, as fmaxf has it. Without a bound there is no operation."""
    if lo > -np.inf:
        y = np.where(y > np.float32(lo), y, np.float32(lo))
    if hi < np.inf:
        y = np.where(y < np.float32(hi), y, np.float32(hi))
    return y


def store(y: np.ndarray, out: str, zero_point: int = 0) -> np.ndarray:
    """float32 `y`, in the scale of the result, as the dtype `out`."""
    return format_of(out).encode(y, 1.0, zero_point)


def value(x: np.ndarray, zero_point: int = 0) -> np.ndarray:
    """What the codes of a tensor stand for, without a scale: float32, exact."""
    return format_of(str(x.dtype)).decode(x, 1.0, zero_point)


def codes(x: np.ndarray) -> np.ndarray:
    """The bits of a tensor of floats as whole numbers: uint8 or uint16."""
    return np.asarray(x, order="C").view(f"uint{8 * x.dtype.itemsize}")
