"""What a tensor keeps of the directions that it has in float, and the verdict: fine, degraded or collapsed.

A wrong scale or a shift leaves the directions; few bits may lose them, and then no layer behind it, and no
calibration, brings them back. Rows x (float) and y (what stands for them), over the size of x where that is
among the largest of their tensor, else over the least of these, become
A = x P and B = y P by the same random directions P, at most 32. What is kept is the share of the variance of
A that the best affine map of B explains, corrected for the number of rows: R^2 of a regression, adjusted.
Independent noise of s dB leaves about 1 / (1 + 10^(-s/10)).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

FINE, DEGRADED, COLLAPSED = "fine", "degraded", "collapsed"
#: Shares that are kept, from which on a tensor is fine, and below which it has collapsed. The logits of a
#: small language model keep 0.57 to 0.60 with weights of two bits rounded to nearest, which make its
#: perplexity five times as large, and 0.68 with the same two bits by GPTQ: two and a half times as large.
LEAST_FINE, LEAST_KEPT = 0.95, 0.63
_DIRECTIONS = 32
_ROWS = 256  # of a sample
_LEAST_ROWS = 3  # for each direction
_FAR = 1e6  # times the size of a row: what lies beyond is as wrong, and its square would be all there is
_LARGE = 0.9  # share of the rows that are smaller than the largest ones
_STILL = 1e-9  # part of the power that varies, below which a tensor is a constant


@dataclass
class Directions:
    """The moments of a stream of tensors, [..., C], or [N, C, H, W] of images."""

    rows: int = 0
    _sums: np.ndarray | None = None  # of (A, B), [2 k]
    _moments: np.ndarray | None = None  # [2 k, 2 k]
    _power: float = 0.0
    _axes: dict[int, np.ndarray] = field(default_factory=dict)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """x: the float values, y: what stands for them; same shape. Rows of x with NaN or Inf, as
        masked scores may have, have no direction."""
        a, b = _rows(x), _rows(y)
        there = np.isfinite(a).all(axis=1)
        a, b = a[there], b[there]
        size = _unit(a)
        axes = self._axes.setdefault(a.shape[1], _random(a.shape[1]))
        if self._sums is not None and len(self._sums) != 2 * axes.shape[1]:
            return  # its size is not fixed
        with np.errstate(over="ignore"):
            scaled = np.clip(np.nan_to_num(b / size, nan=_FAR), -_FAR, _FAR)
        both = np.hstack([a / size @ axes, scaled @ axes])
        first = self._sums is None
        self._sums = both.sum(axis=0) if first else self._sums + both.sum(axis=0)
        self._moments = both.T @ both if first else self._moments + both.T @ both
        self._power += float(np.sum(np.square(both[:, : axes.shape[1]])))
        self.rows += len(both)

    def merge(self, other: Directions) -> None:
        """Add another stream, which follows this one."""
        if other._sums is None or other._moments is None:
            return
        if self._sums is not None and len(self._sums) != len(other._sums):
            return  # its size is not fixed
        first = self._sums is None or self._moments is None
        self._sums = other._sums if first else self._sums + other._sums
        self._moments = other._moments if first else self._moments + other._moments
        self._power += other._power
        self.rows += other.rows
        self._axes = {**other._axes, **self._axes}

    @property
    def kept(self) -> float | None:
        """The share, 0 … 1; None where there are too few rows to tell, or float varies as little as noise."""
        if self._sums is None or self._moments is None:
            return None
        count = len(self._sums) // 2
        if self.rows < _LEAST_ROWS * count + 2:
            return None
        centred = self._moments - np.outer(self._sums, self._sums) / self.rows
        xx, xy, yy = centred[:count, :count], centred[:count, count:], centred[count:, count:]
        whole = float(np.trace(xx))
        if whole <= _STILL * self._power:
            return None
        explained = float(np.trace(xy @ np.linalg.pinv(yy, rcond=1e-10, hermitian=True) @ xy.T))
        lost = (1 - explained / whole) * (self.rows - 1) / (self.rows - count - 1)
        return float(np.clip(1 - lost, 0, 1))

    @property
    def verdict(self) -> str | None:
        """FINE, DEGRADED or COLLAPSED; None where nobody can tell."""
        kept = self.kept
        if kept is None:
            return None
        return FINE if kept >= LEAST_FINE else DEGRADED if kept >= LEAST_KEPT else COLLAPSED


def _unit(rows: np.ndarray) -> np.ndarray:
    """What each row is divided by, [rows, 1]: no row counts for much more than others, and one that is next
    to nothing, as of a channel that a ReLU cuts off, counts for as little."""
    size = np.sqrt(np.mean(rows * rows, axis=1, keepdims=True)) + 1e-30
    return np.maximum(size, np.quantile(size, _LARGE)) if len(size) else size


def _rows(x: np.ndarray) -> np.ndarray:
    """float64 [at most 256, C], from all over the tensor."""
    last = np.moveaxis(x, 1, -1) if x.ndim == 4 else x
    rows = last.reshape(-1, last.shape[-1]) if x.ndim > 1 else x.reshape(1, -1)
    return rows[:: -(-len(rows) // _ROWS)].astype(np.float64)


def _random(channels: int) -> np.ndarray:
    """[channels, at most 32] of the same numbers each time; all channels where there are as few."""
    if channels <= _DIRECTIONS:
        return np.eye(channels)
    return np.random.default_rng(0).standard_normal((channels, _DIRECTIONS)) / np.sqrt(channels)
