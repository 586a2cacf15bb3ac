"""A calibration method outside the package: the mean and three standard deviations to each side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from typing_extensions import Self

from hwptq.formats import INT8, Format
from hwptq.quant.observers import Observer, Range


@dataclass(frozen=True)
class ThreeSigma(Observer):
    """Sums of the values and of their squares, float64 [R], over `count` values a row."""

    method = "three-sigma"
    count: int
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Self:
        wide = rows.astype(np.float64)
        return cls(rows.shape[1], wide.sum(axis=1), (wide * wide).sum(axis=1))

    def merge(self, other: Self) -> Self:
        return type(self)(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )  # fmt: skip

    def range(self, dtype: Format = INT8) -> Range:
        mean = self.total / self.count
        reach = 3 * np.sqrt(np.maximum(self.squares / self.count - mean * mean, 0))
        return mean - reach, mean + reach
