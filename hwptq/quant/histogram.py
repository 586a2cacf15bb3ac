"""Histograms that widen and merge exactly: the width of their bins is a power of two.

Bin k of a row holds the values in [k, k + 1) * 2^exponent. A row takes the smallest exponent at which all its
values lie within BINS bins, which follows from its least and greatest value alone; a bin of a coarser
exponent is the sum of whole bins of a finer one. So data in any order, in any shards, gives one histogram.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BINS = 2048
_SMALLEST = -200  # below that of every float32
_PRECISION = 24  # bits of a float32: finer bins than its last bit tell nothing


@dataclass(frozen=True)
class Row:
    """One histogram: counts int64 [BINS] of [start + i, start + i + 1) * width, and the exact extremes."""

    counts: np.ndarray
    start: int
    width: float
    low: float
    high: float

    @property
    def edges(self) -> np.ndarray:
        """Lower edges of the bins and the upper one of the last, float64 [BINS + 1]."""
        return (self.start + np.arange(BINS + 1)) * self.width

    @property
    def centers(self) -> np.ndarray:
        """The middle of each bin, float64 [BINS]."""
        return (self.start + np.arange(BINS) + 0.5) * self.width


@dataclass(frozen=True)
class Histogram:
    """One histogram a row: low, high float64 [R], counts int64 [R, BINS]."""

    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Histogram:
        """The histograms of rows of float32 values [R, n], n > 0."""
        low, high = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
        counts = np.empty((len(rows), BINS), np.int64)
        for i, row in enumerate(rows):
            exponent = _exponent(low[i], high[i])
            index = np.floor(np.ldexp(row.astype(np.float64), -exponent)).astype(np.int64)
            counts[i] = np.bincount(index - _bin(low[i], exponent), minlength=BINS)
        return cls(low, high, counts)

    def merge(self, other: Histogram) -> Histogram:
        """The histograms of both data sets together."""
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        counts = np.zeros_like(self.counts)
        for i in range(len(low)):
            exponent = _exponent(low[i], high[i])
            for part in (self, other):
                counts[i] += part._rebinned(i, exponent, _bin(low[i], exponent))
        return Histogram(low, high, counts)

    def map(self, choose: Callable[[Row], tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
        """A range for every row: (low, high), each float64 [R]."""
        chosen = [choose(self._row(i)) for i in range(len(self.low))]
        low, high = np.asarray(chosen, np.float64).T
        return low, high

    def _row(self, i: int) -> Row:
        exponent = _exponent(self.low[i], self.high[i])
        start, width = _bin(self.low[i], exponent), float(np.ldexp(1.0, exponent))
        return Row(self.counts[i], start, width, float(self.low[i]), float(self.high[i]))

    def _rebinned(self, i: int, exponent: int, start: int) -> np.ndarray:
        """The counts of a row in bins of a coarser exponent, from bin `start` on."""
        own = _exponent(self.low[i], self.high[i])
        (filled,) = np.nonzero(self.counts[i])
        index = ((filled + _bin(self.low[i], own)) >> min(exponent - own, 63)) - start
        counts = np.bincount(index, self.counts[i][filled], BINS)  # exact in float64: far less than 2^53
        return counts.astype(np.int64)


def _bin(value: float, exponent: int) -> int:
    return int(np.floor(np.ldexp(value, -exponent)))


def _exponent(low: float, high: float) -> int:
    """The smallest exponent at which [low, high] lies within BINS bins."""
    if low == high == 0:
        return _SMALLEST
    exponent = int(np.frexp(max(abs(low), abs(high)))[1]) - _PRECISION
    if low < high:  # one step below the first exponent that can do, if that is not too fine
        exponent = max(exponent, int(np.frexp((high - low) / BINS)[1]) - 2)
    while _bin(high, exponent) - _bin(low, exponent) >= BINS:
        exponent += 1
    return exponent
