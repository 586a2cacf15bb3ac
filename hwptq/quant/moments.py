"""Second moments of what enters a layer and of what should leave it: all that weight rounding needs.

The layer maps x [K] to y [R] linearly, in G independent groups (a grouped or depthwise convolution; a dense
layer has one). Moments hold plain sums, so they are collected as a stream, and those of two shards add up to
those of the whole, exactly while the terms are integers (quantized inputs are).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

_RIDGE = 0.01
_RIDGE_OF_FEW = 16.0  # neighbouring pixels are much alike: columns count for fewer than they are


@dataclass
class Moments:
    """Sums over columns (x [G,K], y [G,R]), float64: count, x, y, x x^T and y x^T."""

    count: int
    x: np.ndarray  # [G, K]
    y: np.ndarray  # [G, R]
    xx: np.ndarray  # [G, K, K]
    yx: np.ndarray  # [G, R, K]

    @staticmethod
    def empty(groups: int, rows: int, depth: int) -> Moments:
        """Of no columns yet."""
        x, y = np.zeros((groups, depth)), np.zeros((groups, rows))
        return Moments(0, x, y, np.zeros((groups, depth, depth)), np.zeros((groups, rows, depth)))

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Columns x [G,N,K] and y [G,N,R]; their products are summed in float32 where both are float32."""
        if x.dtype != np.float32 or y.dtype != np.float32:
            x, y = x.astype(np.float64), y.astype(np.float64)
        transposed = y.transpose(0, 2, 1)
        self.count += x.shape[1]
        self.x += x.sum(axis=1, dtype=np.float64)
        self.y += y.sum(axis=1, dtype=np.float64)
        self.xx += x.transpose(0, 2, 1) @ x
        self.yx += transposed @ x

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of columns together."""
        return Moments(
            self.count + other.count,
            self.x + other.x,
            self.y + other.y,
            self.xx + other.xx,
            self.yx + other.yx,
        )

    def statistics(self) -> Statistics:
        """Means and (co)variances."""
        n = max(self.count, 1)
        x, y = self.x / n, self.y / n
        return Statistics(
            self.count,
            x,
            y,
            self.xx / n - x[:, :, None] * x[:, None, :],
            self.yx / n - y[:, :, None] * x[:, None, :],
        )


@dataclass(frozen=True)
class Statistics:
    """Means of x [G,K] and y [G,R], the covariance `gram` [G,K,K] of x and `cross` [G,R,K] of y with x."""

    count: int
    x_mean: np.ndarray
    y_mean: np.ndarray
    gram: np.ndarray
    cross: np.ndarray

    def shifted(self, x: np.ndarray, y: np.ndarray) -> Statistics:
        """The statistics of columns that lie `x` [G,K] and `y` [G,R] higher."""
        return replace(self, x_mean=self.x_mean + x, y_mean=self.y_mean + y)

    def scaled(self, unit: float) -> Statistics:
        """The statistics of unit * x."""
        return Statistics(self.count, self.x_mean * unit, self.y_mean, self.gram * unit**2, self.cross * unit)

    def retargeted(self, y_mean: np.ndarray, second: np.ndarray) -> Statistics:
        """The statistics for another y, with its mean [G,R] and second moments E[y x^T] [G,R,K]."""
        cross = second - y_mean[:, :, None] * self.x_mean[:, None, :]
        return Statistics(self.count, self.x_mean, y_mean, self.gram, cross)

    def ridge(self) -> np.ndarray:
        """[G]: how strongly weights should be held to the float ones, as a penalty on |weight - float|^2.

        In units of the mean variance of x: a little, and more where there are few columns for each weight,
        which then would fit the samples at hand rather than the layer.
        """
        depth = self.x_mean.shape[1]
        variance = np.einsum("gkk->g", self.gram) / depth
        strength = _RIDGE + _RIDGE_OF_FEW * depth / max(self.count, 1)
        return np.where(variance > 0, strength * variance, 1.0)

    def regressed(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The target [G,R,K] and the metric [G,K,K] of rounding: T and H.

        E|y - V x|^2 + ridge |V - weight|^2, the error of weights V whose bias takes up the means, equals
        tr (V - T) H (V - T)^T but for a constant. T is the ridge regression of y on x: where x carries the
        error of the layers before, it repairs what a linear map can.
        """
        strength = self.ridge()[:, None, None]
        metric = self.gram + strength * np.eye(self.x_mean.shape[1])
        right = self.cross + strength * weight
        return np.linalg.solve(metric, right.transpose(0, 2, 1)).transpose(0, 2, 1), metric

    def bias(self, weight: np.ndarray) -> np.ndarray:
        """[G,R]: what must be added to weight x, on average, to give y."""
        return self.y_mean - np.einsum("grk,gk->gr", weight, self.x_mean)
