"""Observers: what calibration remembers of a tensor, and the range that follows from it.

Each is a frozen state with `of` (the state of one sample), `merge` and `range`. Observing is merging with the
state of the next sample, and every merge is exact, so shards of the data observed apart and merged give just
what one run over all of it gives. All but the moving average don't depend on the order. Memory is the same
for any number of samples.

A state holds one range a row: a tensor, a channel or a group of channels is a row of values (see rows_of).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwptq.formats import INT8, Format

from .histogram import Histogram
from .range_search import least_divergence, least_squares, quantile_range

if TYPE_CHECKING:
    from typing_extensions import Self

Range = tuple[np.ndarray, np.ndarray]


class Observer(ABC):
    """What every observer offers. An open set: a class with a `method` joins it by being defined, anywhere.

    method: the calibration method, as users name it.
    """

    method: ClassVar[str] = ""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if cls.__dict__.get("method"):
            OBSERVERS[cls.method] = cls

    @classmethod
    @abstractmethod
    def of(cls, rows: np.ndarray) -> Self:
        """The state of one sample: float32 [R, values]."""

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """The state of this data followed by the other's."""

    @abstractmethod
    def range(self, dtype: Format = INT8) -> Range:
        """(low, high), each float64 [R], to quantize to `dtype`."""


#: The observers by their calibration method.
OBSERVERS: dict[str, type[Observer]] = {}


def rows_of(value: np.ndarray, axis: int | None = None, group: int = 1) -> np.ndarray:
    """The values of a tensor as rows [R, values]: one row, or with an `axis` one for every `group` channels.

    [1, 6, 4, 4] -> [1, 96]; axis 1 -> [6, 16]; axis 1, group 3 -> [2, 48].
    Raises ValueError where the channels can't be divided into such groups.
    """
    if axis is None:
        return value.reshape(1, -1)
    channels = value.shape[axis]
    if channels % group:
        raise ValueError(f"{channels} channels can't be divided into groups of {group}")
    return np.moveaxis(value, axis, 0).reshape(channels // group, -1)


@dataclass(frozen=True)
class MinMax(Observer):
    """The smallest and the largest value."""

    method = "minmax"

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Self:
        return cls(rows.min(axis=1), rows.max(axis=1))

    def merge(self, other: Self) -> Self:
        return replace(self, low=np.minimum(self.low, other.low), high=np.maximum(self.high, other.high))

    def range(self, dtype: Format = INT8) -> Range:
        return self.low.astype(np.float64), self.high.astype(np.float64)


_DENOMINATOR = 149  # every float32 is a multiple of 2^-149
_FORGET = 6  # a new sample counts 1/64


@dataclass(frozen=True)
class MovingAverage(Observer):
    """Exponential moving averages of the minimum and the maximum of each sample, weight 63/64 a step.

    The average is normalized by the sum of its weights, so the first samples count in full. Sums are exact
    integers, low and high = sum over i of (2^6-1)^(n-i) (2^6)^(i-1) x_i in units of 2^-149.
    """

    method = "moving-average"

    samples: int
    low: np.ndarray  # Python integers [R]
    high: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Self:
        return cls(1, _integers(rows.min(axis=1)), _integers(rows.max(axis=1)))

    def merge(self, other: Self) -> Self:
        old = (2**_FORGET - 1) ** other.samples
        new = 2 ** (_FORGET * self.samples)
        low, high = self.low * old + other.low * new, self.high * old + other.high * new
        return replace(self, samples=self.samples + other.samples, low=low, high=high)

    def range(self, dtype: Format = INT8) -> Range:
        weights = 2 ** (_FORGET * self.samples) - (2**_FORGET - 1) ** self.samples
        unit = weights << _DENOMINATOR
        low, high = (np.asarray([v / unit for v in side], np.float64) for side in (self.low, self.high))
        return low, high


def _integers(values: np.ndarray) -> np.ndarray:
    """float32 values as exact Python integers, in units of 2^-149."""
    ratios = (float(v).as_integer_ratio() for v in values)
    return np.asarray([(a << _DENOMINATOR) // b for a, b in ratios], dtype=object)


@dataclass(frozen=True)
class _ByHistogram(Observer):
    """An observer that keeps a histogram a row."""

    histogram: Histogram

    @classmethod
    def of(cls, rows: np.ndarray) -> Self:
        return cls(Histogram.of(rows))

    def merge(self, other: Self) -> Self:
        return replace(self, histogram=self.histogram.merge(other.histogram))


class Percentile(_ByHistogram):
    """Leaves 0.01 % of the values out on each side."""

    method = "percentile"

    def range(self, dtype: Format = INT8) -> Range:
        return self.histogram.map(lambda row: quantile_range(row, 1e-4))


class MeanSquaredError(_ByHistogram):
    """The range with the least mean squared error of rounding and clipping."""

    method = "mse"

    def range(self, dtype: Format = INT8) -> Range:
        return self.histogram.map(lambda row: least_squares(row, dtype))


_SOME = 2048  # values of a row in one sample


@dataclass(frozen=True)
class Auto(Observer):
    """Of one run over the data what minmax and mse need, to choose between them later; until then minmax.

    The histogram is of some values of each sample only, at even distances, so that it costs little.
    """

    method = "auto"

    low: np.ndarray
    high: np.ndarray
    histogram: Histogram

    @classmethod
    def of(cls, rows: np.ndarray) -> Self:
        apart = rows.shape[1] // _SOME | 1  # odd, so that they fall on all columns of usual images
        return cls(rows.min(axis=1), rows.max(axis=1), Histogram.of(rows[:, ::apart]))

    def merge(self, other: Self) -> Self:
        ends = self.candidates["minmax"].merge(other.candidates["minmax"])
        return replace(self, low=ends.low, high=ends.high, histogram=self.histogram.merge(other.histogram))

    @property
    def candidates(self) -> dict[str, Any]:
        """What each method that may be chosen saw, by its name."""
        return {"minmax": MinMax(self.low, self.high), "mse": MeanSquaredError(self.histogram)}

    def range(self, dtype: Format = INT8) -> Range:
        found: Range = self.candidates["minmax"].range(dtype)
        return found


class Entropy(_ByHistogram):
    """The range with the least Kullback-Leibler divergence between the values and the rounded ones."""

    method = "entropy"

    def range(self, dtype: Format = INT8) -> Range:
        return self.histogram.map(lambda row: least_divergence(row, dtype))
