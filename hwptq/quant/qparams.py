"""Scale and zero_point from a range of real values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwptq.formats import INT8, Format, IntegerFormat

_SMALLEST_SCALE = 1e-12


@dataclass(frozen=True)
class Grid:
    """What parameters a device can have: scales that are powers of two, zero points that are 0, codes without
    the least of their dtype, weights with a zero point, biases of so many bits."""

    powers_of_two: bool = False
    symmetric: bool = False
    narrow: bool = False
    asymmetric_weights: bool = False
    bias_bits: int = 32

    def above(self, scale: Any) -> Any:
        """The least scales of the grid that are not below these."""
        return np.exp2(np.ceil(np.log2(scale))) if self.powers_of_two else scale

    def codes(self, dtype: Format) -> Format:
        """Those that an activation in a format may have."""
        return replace(dtype, narrow=True) if self.narrow and isinstance(dtype, IntegerFormat) else dtype

    def most_bias(self, dtype: Format) -> float:
        """The largest bias to choose, in steps of products with weights in a format: half of what the device
        has, since what corrects a layer may make it larger, and a quarter of what sums have room for."""
        return 2.0 ** min(20 + dtype.bits, self.bias_bits - 2)

    @property
    def settles_scales(self) -> bool:
        """Whether weights keep the scales that are chosen first: what rounds them by data and moves their
        scales knows nothing of powers of two, zero points and biases of few bits."""
        return self.powers_of_two or self.asymmetric_weights or self.bias_bits < ANY_GRID.bias_bits


ANY_GRID = Grid()


@dataclass(frozen=True)
class QParams:
    """Per-tensor parameters of a quantized activation: real = (q - zero_point) * scale."""

    scale: float  # exactly a float32
    zero_point: int
    dtype: Format = INT8

    @property
    def bounds(self) -> tuple[float, float]:
        """The real values of qmin and qmax."""
        low, high = ((q - self.zero_point) * self.scale for q in (self.dtype.qmin, self.dtype.qmax))
        return low, high

    def rounded(self, value: np.ndarray) -> np.ndarray:
        """The real values of the nearest codes."""
        return self.dtype.decode(
            self.dtype.encode(value, self.scale, self.zero_point), self.scale, self.zero_point
        )


def activation_qparams(
    low: float, high: float, floor: float = 0.0, dtype: Format = INT8, grid: Grid = ANY_GRID
) -> QParams:
    """Parameters that cover [low, high] and represent 0 exactly: asymmetric where the dtype is, else
    symmetric; scale 1 where it has none.

    `floor`: the smallest scale to give; `grid`: which ones there are. (0, 2.55) in int8 -> scale 0.01,
    zero_point -128.
    Jacob et al. 2018, section 3.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    dtype = grid.codes(dtype)
    if not dtype.scaled:
        return QParams(1.0, 0, dtype)
    if not dtype.asymmetric or grid.symmetric:
        reach = max(-low, high) / dtype.qmax
        return QParams(float(np.float32(grid.above(max(reach, floor, _SMALLEST_SCALE)))), 0, dtype)
    steps = dtype.qmax - dtype.qmin
    scale = np.float32(grid.above(max((high - low) / steps, floor, _SMALLEST_SCALE)))
    zero_point = int(np.clip(np.rint(dtype.qmin - low / float(scale)), dtype.qmin, dtype.qmax))
    return QParams(float(scale), zero_point, dtype)


def weight_scales(
    weight: np.ndarray, axis: int | None, bias_limit: np.ndarray | None = None, dtype: Format = INT8,
    grid: Grid = ANY_GRID,
) -> np.ndarray:  # fmt: skip
    """Symmetric narrow-range scales of `weight`: float32 [channels] along `axis`, or [1] for None.

    `bias_limit`: per channel, the smallest scale with which the channel's bias still fits its accumulator.
    """
    if axis is None:
        reach = np.abs(weight).max(keepdims=True).reshape(1)
    else:
        reach = np.abs(np.moveaxis(weight, axis, 0)).reshape(weight.shape[axis], -1).max(axis=1)
    if not dtype.scaled:
        return np.ones(reach.shape, np.float32)
    scale = np.where(reach > 0, reach / dtype.qmax, 1.0)
    if bias_limit is not None:
        scale = np.maximum(scale, bias_limit if axis is not None else bias_limit.max())
    return grid.above(np.maximum(scale, _SMALLEST_SCALE)).astype(np.float32)


def asymmetric_weight(
    weight: np.ndarray, axis: int | None, bias_limit: np.ndarray | None, dtype: Format, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(distances of codes from their zero point, int16 of the shape of `weight`, scales as weight_scales has
    them): codes and zero points are narrow ones of `dtype`, and cover the range of each channel and 0.

    [0, 0.5, 2.54] in int8 -> [0, 50, 254], scale 0.01; codes [-127, -77, 127], zero point -127.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1) if axis is not None else weight
    rows = rows.reshape(len(rows) if axis is not None else 1, -1)
    low, high = np.minimum(rows.min(axis=1), 0.0), np.maximum(rows.max(axis=1), 0.0)
    most = dtype.qmax
    scale = np.where(high > low, (high - low) / (2 * most), 1.0)
    if bias_limit is not None:
        scale = np.maximum(scale, bias_limit if axis is not None else bias_limit.max())
    scale = grid.above(np.maximum(scale, _SMALLEST_SCALE)).astype(np.float32)
    zero = np.clip(np.rint(-most - low / scale), -most, most)
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    zero = zero.reshape(shape)
    codes = np.clip(np.rint(weight / scale.reshape(shape)) + zero, -most, most)
    return (codes - zero).astype(np.int16), scale


def quantize_weight(
    weight: np.ndarray, scale: np.ndarray, axis: int | None, dtype: Format = INT8
) -> np.ndarray:
    """The nearest codes of weight / scale, symmetric, held as the dtype is in a graph."""
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    return dtype.encode(weight, scale.reshape(shape), narrow=True)
