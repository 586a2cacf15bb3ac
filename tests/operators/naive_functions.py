"""Functions of float32 spelled out value by value with exact fractions: see naive.py."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from naive_attention import exponential, fma, halves
from naive_rows import nearest_float32


def real_sigmoid(op: Any, x: np.ndarray) -> np.ndarray:
    out = np.empty(x.shape, np.float32)
    for index in np.ndindex(*x.shape):
        e = exponential(-abs(x[index]))
        below = nearest_float32(1 + Fraction(float(e)))
        above = Fraction(1) if x[index] >= 0 else Fraction(float(e))
        out[index] = nearest_float32(above / Fraction(float(below)))
    return out


def real_arithmetic(op: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    exact = {"add": lambda x, y: x + y, "subtract": lambda x, y: x - y, "multiply": lambda x, y: x * y}
    a, b = np.broadcast_arrays(a, b)
    out = np.empty(a.shape, np.float32)
    for index in np.ndindex(*a.shape):
        found = exact[op.function](*(Fraction(float(x[index])) for x in (a, b)))
        out[index] = nearest_float32(found)
        if not found:  # a fraction has one zero
            out[index] = exact[op.function](a[index], b[index])
    return out


def real_norm(op: Any, x: np.ndarray, gamma: np.ndarray, *betas: np.ndarray) -> np.ndarray:
    out, count = np.empty(x.shape, np.float32), x.shape[-1]
    for row in np.ndindex(*x.shape[:-1]):
        mean = np.float32(0)
        if op.centered:
            sums = [np.float32(0)] * 16
            for i, value in enumerate(x[row]):
                sums[i % 16] = sums[i % 16] + value
            mean = nearest_float32(Fraction(float(halves(sums))) / count)
        d = [value - mean for value in x[row]]
        sums = [np.float32(0)] * 16
        for i, value in enumerate(d):
            sums[i % 16] = fma(value, value, sums[i % 16])
        square = fma(halves(sums), nearest_float32(Fraction(1, count)), np.float32(op.eps))
        factor = nearest_float32(1 / Fraction(float(np.sqrt(square))))
        for i, value in enumerate(d):
            if betas:
                out[row][i] = fma(value * factor, gamma[i], betas[0][i])
            else:
                out[row][i] = value * factor * gamma[i]
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
