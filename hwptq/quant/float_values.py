"""Short floats and int8 as real numbers, and back: what operators on floats read and write."""

from __future__ import annotations

import numpy as np

from hwptq.formats import bf16, fp8


def clamp(y: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """y in [lo, hi]; NaN becomes lo, as fmaxf has it. Without a bound there is no operation."""
    if lo > -np.inf:
        y = np.where(y > np.float32(lo), y, np.float32(lo))
    if hi < np.inf:
        y = np.where(y < np.float32(hi), y, np.float32(hi))
    return y


def store(y: np.ndarray, out: str, zero_point: int = 0) -> np.ndarray:
    """float32 `y` as the dtype `out`; int8 is clamp(round_half_even(y) + zero_point), -128 for NaN."""
    if out == fp8.DTYPE:
        return fp8.as_float8(fp8.encode(y))
    if out == bf16.DTYPE:
        return bf16.encode(y)
    if out == "int8":
        return clamp(np.rint(y) + np.float32(zero_point), -128, 127).astype(np.int8)
    return y.astype(np.float32)


def value(x: np.ndarray, zero_point: int = 0) -> np.ndarray:
    """What the codes of a tensor in e4m3, bfloat16 or int8 stand for: float32, exact."""
    if x.dtype == np.int8:
        return (x.astype(np.int32) - zero_point).astype(np.float32)
    return bf16.decode(x) if x.dtype == bf16.DTYPE else fp8.decode(fp8.as_codes(x))


def codes(x: np.ndarray) -> np.ndarray:
    """The bits of a tensor in e4m3 or bfloat16 as whole numbers: uint8 or uint16."""
    return bf16.as_codes(x) if x.dtype == bf16.DTYPE else fp8.as_codes(x)
