"""Operators on weights by group, spelled out value by value with exact fractions: see naive.py."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from naive_rows import nearest_float32

_LEVELS = {"levels_1_3": (-3, -1, 1, 3), "levels_1_4": (-4, -1, 1, 4)}
_BITS = {"int8": 8, "int4": 4, "int3": 3, "int2": 2, "levels_1_3": 2, "levels_1_4": 2}


def level(weight: str, row: np.ndarray, index: int) -> int:
    """The value of a code in a row of bytes: bit b of the row is bit b % 8 of byte b // 8."""
    bits = _BITS[weight]
    every = [int(row[b // 8]) >> b % 8 & 1 for b in range(index * bits, (index + 1) * bits)]
    code = sum(bit << place for place, bit in enumerate(every))
    if weight in _LEVELS:
        return _LEVELS[weight][code]
    return code - (1 << bits) if every[-1] else code


def _scale(value: Any) -> Fraction:
    if isinstance(value, np.uint8):
        return Fraction(8 + int(value) % 8, 8) * Fraction(2) ** (int(value) // 8 - 24)
    real = np.uint32(int(value) << 16).view(np.float32) if isinstance(value, np.uint16) else value
    return Fraction(float(real))


def _centred(op: Any, codes: np.ndarray, zeros: Any, row: int, i: int) -> int:
    zero = 0 if zeros is None else int(zeros[row, i // op.size])
    return level(op.weight, codes[row], i) - zero


def _weight(op: Any, codes: np.ndarray, scales: np.ndarray, zeros: Any, row: int, i: int) -> np.float32:
    return nearest_float32(_centred(op, codes, zeros, row, i) * _scale(scales[row, i // op.size]))


def group_dense(op: Any, x: np.ndarray, codes: np.ndarray, scales: np.ndarray, zeros: Any = None) -> Any:
    out = np.empty((*x.shape[:-1], len(codes)), np.float32)
    for index in np.ndindex(*out.shape):
        *row, o = index
        acc = Fraction(0)
        for first in range(0, op.depth, op.size):
            places = range(first, min(first + op.size, op.depth))
            total = sum(int(x[tuple(row)][i]) * _centred(op, codes, zeros, o, i) for i in places)
            acc = Fraction(float(nearest_float32(total * _scale(scales[o, first // op.size]) + acc)))
        out[index] = float(acc)
    return out


def group_embedding(
    op: Any, index: np.ndarray, codes: np.ndarray, scales: np.ndarray, zeros: Any = None
) -> Any:
    out = np.empty((*index.shape, op.depth), np.float32)
    for at in np.ndindex(*index.shape):
        row = min(max(int(index[at]), 0), len(codes) - 1)
        out[at] = [_weight(op, codes, scales, zeros, row, i) for i in range(op.depth)]
    return out


def group_dequantize(op: Any, codes: np.ndarray, scales: np.ndarray, zeros: Any = None) -> Any:
    rows = [[_weight(op, codes, scales, zeros, r, i) for i in range(op.depth)] for r in range(len(codes))]
    return np.array(rows, np.float32).T.copy() if op.transposed else np.array(rows, np.float32)
