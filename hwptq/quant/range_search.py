"""The range to quantize that suits a histogram best, by quantiles, squared error or divergence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from hwptq.formats import Format

from .histogram import Row
from .qparams import activation_qparams

_FACTORS = np.geomspace(1.0, 1 / 32, 81)  # of an end of the range, tried in turn
_ROUNDS = 3  # of improving one end of a two-sided range, then the other


def quantile_range(row: Row, tail: float) -> tuple[float, float]:
    """(low, high) that leaves the part `tail` of the values out on each side, to the width of a bin."""
    allowed = tail * row.counts.sum()
    first = int(np.searchsorted(np.cumsum(row.counts), allowed, side="right"))
    last = len(row.counts) - 1 - int(np.searchsorted(np.cumsum(row.counts[::-1]), allowed, side="right"))
    return max(row.low, float(row.edges[first])), min(row.high, float(row.edges[last + 1]))


def least_squares(row: Row, dtype: Format) -> tuple[float, float]:
    """(low, high) with the least squared error of all values, each taken as the middle of its bin."""
    filled = row.counts > 0
    return _search(row, partial(_squared_error, row.centers[filled], row.counts[filled], dtype))


def least_divergence(row: Row, dtype: Format) -> tuple[float, float]:
    """(low, high) with the least divergence of the quantized distribution from the real one.

    Values outside count at the ends of the range; those of a step are spread evenly over its bins that are
    not empty. Migacz 2017, "8-bit Inference with TensorRT", for ranges that need not be symmetric.
    """
    return _search(row, partial(_divergence, row, dtype))


def _search(row: Row, cost: Callable[[float, float], float]) -> tuple[float, float]:
    """Shrink [low, high] with 0 inside, one end after the other, as long as the cost falls."""
    low, high = min(row.low, 0.0), max(row.high, 0.0)
    for _ in range(_ROUNDS):
        before = (low, high)
        if row.high > 0:
            high = min((high, *(_FACTORS * row.high)), key=lambda end: cost(low, end))
        if row.low < 0:
            low = min((low, *(_FACTORS * row.low)), key=lambda end: cost(end, high))
        if (low, high) == before or row.low >= 0 or row.high <= 0:
            break
    return float(low), float(high)


def _squared_error(
    values: np.ndarray, counts: np.ndarray, dtype: Format, low: float, high: float
) -> float:  # fmt: skip
    error = activation_qparams(low, high, 0.0, dtype).rounded(values.astype(np.float32)) - values
    return float(counts @ (error * error))


def _divergence(row: Row, dtype: Format, low: float, high: float) -> float:
    """KL(P || Q); infinite where nothing lies inside."""
    counts = _without_zero(row).astype(np.float64)
    q = activation_qparams(low, high, 0.0, dtype)
    index = dtype.codes(dtype.encode(row.centers.astype(np.float32), q.scale, q.zero_point))
    inside = (row.edges[:-1] <= high) & (row.edges[1:] > low)
    if not counts[inside].any():
        return np.inf
    first, last = np.nonzero(inside)[0][[0, -1]]
    real = np.where(inside, counts, 0.0)
    filled = inside & (counts > 0)
    mass = np.bincount(index[filled], counts[filled], minlength=2**dtype.bits)
    share = mass / np.maximum(np.bincount(index[filled], minlength=2**dtype.bits), 1)
    spread = np.where(filled, share[index], 0.0)
    real[first] += counts[:first].sum()
    real[last] += counts[last + 1 :].sum()
    p, q = real / real.sum(), spread / spread.sum()
    q = np.maximum(q, 1.0 / (len(counts) * counts.sum()))  # where only clipped values lie
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


def _without_zero(row: Row) -> np.ndarray:
    """The counts with that of the bin of 0 taken from its neighbours: every range represents 0 exactly."""
    counts, zero = row.counts.copy(), -row.start
    if 0 <= zero < len(counts):
        around = [counts[i] for i in (zero - 1, zero + 1) if 0 <= i < len(counts)]
        counts[zero] = min(counts[zero], max(around))
    return counts
