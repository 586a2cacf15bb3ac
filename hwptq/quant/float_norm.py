"""Norms of a row in float32 with one order of their sums, so that all code gives the same bits.

total(t) = LANES sums in order, element i to sum i mod LANES, added by halves
m = total(x) / C, d = x - m                   (of a layer norm; else d = x)
r = 1 / sqrt(fma(total(d^2), 1 / C, eps))     the squares by fma
y = (d * r) * gamma                           or fma(d * r, gamma, beta)
"""

from __future__ import annotations

import numpy as np

from .float_attention import LANES, by_halves
from .fma import fma


def _lanes(x: np.ndarray) -> np.ndarray:
    """[..., C] -> [steps, ..., LANES], zeros behind the end."""
    missing = -x.shape[-1] % LANES
    wide = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
    return np.moveaxis(wide.reshape(*x.shape[:-1], -1, LANES), -2, 0)


def row_mean(x: np.ndarray) -> np.ndarray:
    """float32 [..., C] -> the mean of each row, [..., 1]."""
    total = np.zeros((*x.shape[:-1], LANES), np.float32)
    for some in _lanes(x):
        total = total + some
    return by_halves(total)[..., None] / np.float32(x.shape[-1])


def row_factor(d: np.ndarray, eps: float) -> np.ndarray:
    """float32 [..., C] -> what makes the mean square of each row 1, [..., 1]."""
    total = np.zeros((*d.shape[:-1], LANES), np.float32)
    for some in _lanes(d):
        total = fma(some, some, total)
    share = np.float32(1) / np.float32(d.shape[-1])
    return np.float32(1) / np.sqrt(fma(by_halves(total)[..., None], share, np.float32(eps)))


def real_rms_norm(x: np.ndarray, gamma: np.ndarray, eps: float) -> np.ndarray:
    """float32 [..., C] and [C] -> float32 [..., C]."""
    return (x * row_factor(x, eps)) * gamma


def real_layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> np.ndarray:
    """float32 [..., C], [C] and [C] -> float32 [..., C]."""
    d = x - row_mean(x)
    return fma(d * row_factor(d, eps), gamma, beta)
