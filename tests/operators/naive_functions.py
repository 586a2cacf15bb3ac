"""Functions of float32 spelled out value by value with exact fractions: see naive.py."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from naive_attention import exponential
from naive_rows import nearest_float32


def real_sigmoid(op: Any, x: np.ndarray) -> np.ndarray:
    out = np.empty(x.shape, np.float32)
    for index in np.ndindex(*x.shape):
        e = exponential(-abs(x[index]))
        below = nearest_float32(1 + Fraction(float(e)))
        above = Fraction(1) if x[index] >= 0 else Fraction(float(e))
        out[index] = nearest_float32(above / Fraction(float(below)))
    return out


def write_rows(op: Any, past: np.ndarray, new: np.ndarray, position: np.ndarray, count: np.ndarray) -> Any:
    out = past.copy()
    for index in np.ndindex(*past.shape):
        token = index[op.axis] - int(position[0])
        if 0 <= token < min(int(count[0]), new.shape[op.axis]):
            source = list(index)
            source[op.axis] = token
            out[index] = new[tuple(source)]
    return out
