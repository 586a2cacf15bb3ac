"""Operators on rows with a scale each, spelled out value by value with exact fractions: see naive.py."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np


def nearest_float32(value: Fraction) -> np.float32:
    """The nearest float32 of a fraction, ties to even, found among neighbours."""
    near = np.float32(float(value))
    around = [np.nextafter(near, np.float32(end), dtype=np.float32) for end in (-np.inf, np.inf)]
    found = [c for c in (near, *around) if np.isfinite(c)]
    if not found:
        return near
    return min(found, key=lambda c: (abs(Fraction(float(c)) - value), int(c.view(np.int32)) & 1))


def row_scale(op: Any, x: np.ndarray) -> np.ndarray:
    out = np.empty((*x.shape[:-1], 1), np.float32)
    for row in np.ndindex(*x.shape[:-1]):
        most = max(abs(Fraction(float(v))) for v in x[row])
        most = min(max(most, Fraction(1, 2**100)), Fraction(2**120))
        out[row] = nearest_float32(most / 127)
    return out


def row_quantize(op: Any, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    out = np.empty(x.shape, np.int8)
    for index in np.ndindex(*x.shape):
        inverse = nearest_float32(1 / Fraction(float(scale[index[:-1]][0])))
        steps = nearest_float32(Fraction(float(x[index])) * Fraction(float(inverse)))
        out[index] = max(-127, min(127, round(Fraction(float(steps)))))
    return out


def row_rescale(op: Any, t: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    out = np.empty(t.shape, np.float32)
    for index in np.ndindex(*t.shape):
        factors = Fraction(float(t[index])), Fraction(float(scale[index[:-1]][0]))
        value = nearest_float32(factors[0] * factors[1] + Fraction(float(bias[index[-1]])))
        out[index] = max(op.lo, min(op.hi, value))
    return out
