"""Attention in float32 spelled out value by value with exact fractions: see naive.py."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from naive_rows import nearest_float32

#: Of exp(r) = 1 + r + r^2 p(r), as Cephes has it, highest power first.
_TERMS = [
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
]
_ZERO = np.float32(0)


def fma(a: Any, b: Any, c: Any) -> np.float32:
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    return nearest_float32(exact)


def exponential(x: np.float32) -> np.float32:
    """2^n exp(x - n ln 2), n the integer nearest to x log2(e)."""
    x = max(x, np.float32(-86))
    n = round(Fraction(float(x)) * Fraction(float(np.float32(1.44269504))))
    rest = fma(n, -0.693359375, x)
    rest = fma(n, np.float32(2.12194440e-4), rest)
    value = np.float32(_TERMS[0])
    for term in _TERMS[1:]:
        value = fma(value, rest, np.float32(term))
    value = fma(value, nearest_float32(Fraction(float(rest)) ** 2), rest)
    return nearest_float32(Fraction(float(value)) + 1) * np.float32(2.0**n)


def halves(values: Sequence[np.float32]) -> np.float32:
    values = list(values)
    while len(values) > 1:
        half = len(values) // 2
        values = [a + b for a, b in zip(values[:half], values[half:], strict=True)]
    return values[0]


def _mean(
    scores: list[np.float32], hidden: list[bool], shares: list[Any], v: Any, empties: bool
) -> list[Any]:
    if all(hidden):
        if empties:
            return [_ZERO] * v.shape[1]
        hidden, scores = [False] * len(hidden), [_ZERO] * len(scores)
    top = max(s for s, h in zip(scores, hidden, strict=True) if not h)
    weights = [_ZERO if h else exponential(s - top) for s, h in zip(scores, hidden, strict=True)]
    lanes = [_ZERO] * 16
    for j, weight in enumerate(weights):
        lanes[j % 16] += weight
    whole = np.float32(1) / halves(lanes)
    out = []
    for column in v.T:
        total = _ZERO
        for weight, share, value in zip(weights, shares, column, strict=True):
            total = fma(weight * share, value, total)
        out.append(fma(total, whole, 0))
    return out


def _each(op: Any, q: Any, k: Any, v: Any, hidden: Any, score: Any, share: Any) -> np.ndarray:
    """score(b, h, t, g, j) of every query; share(b, g): what weights are multiplied by."""
    batch, heads, rows, _ = q.shape
    out = np.empty((batch, heads, rows, v.shape[3]), np.float32)
    for b, h, t in np.ndindex(batch, heads, rows):
        g = h * k.shape[1] // heads
        told = hidden[b if len(hidden) > 1 else 0, 0, t if hidden.shape[2] > 1 else 0]
        scores = [score(b, h, t, g, j) for j in range(k.shape[2])]
        out[b, h, t] = _mean(scores, [bool(x) for x in told], share(b, g), v[b, g], op.empties)
    return out


def attention(op: Any, q: Any, k: Any, v: Any, hidden: Any) -> np.ndarray:
    def score(b: int, h: int, t: int, g: int, j: int) -> np.float32:
        lanes = [_ZERO] * 16
        for i, (x, y) in enumerate(zip(q[b, h, t], k[b, g, j], strict=True)):
            lanes[i % 16] = fma(x, y, lanes[i % 16])
        return halves(lanes) * np.float32(op.factor)

    return _each(op, q, k, v, hidden, score, lambda b, g: [np.float32(1)] * k.shape[2])


def attention_on_rows(op: Any, q: Any, k: Any, v: Any, hidden: Any, of_q: Any, of_k: Any, of_v: Any) -> Any:
    def score(b: int, h: int, t: int, g: int, j: int) -> np.float32:
        total = sum(int(x) * int(y) for x, y in zip(q[b, h, t], k[b, g, j], strict=True))
        return (np.float32(total) * of_k[b, g, j, 0]) * (of_q[b, h, t, 0] * np.float32(op.factor))

    return _each(op, q, k, v, hidden, score, lambda b, g: list(of_v[b, g, :, 0]))
