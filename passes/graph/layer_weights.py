"""The weights of layers as codes and scales: kept as they came, in groups, with a zero point, or nearest."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import tvm

from hwptq.formats import INT8, Format, Granularity, PerAxis, parse_granularity
from hwptq.ir.composite import read_composite, weight_of
from hwptq.ir.dataflow import constant, shape_of
from hwptq.quant.qparams import ANY_GRID, Grid, asymmetric_weight, quantize_weight, weight_scales
from hwptq.quant.symmetric_weights import SymmetricWeight
from hwptq.quant.weight_groups import GROUPED, nearest_in_groups, takes_groups

from .own_integers import OwnIntegers


@dataclass(frozen=True)
class QuantizedWeight:
    """The weight of a layer: its values in int8 or a float, float32 scales along `axis`, the dtype they fit.
    from_zero: codes have a zero point, and values are their distances from it, int16.

    Values per group hold the factors of their groups (quant/weight_groups.py).
    """

    values: np.ndarray
    scale: np.ndarray
    axis: int
    dtype: Format
    granularity: Granularity
    from_zero: bool = False

    @property
    def group(self) -> int:
        """Input channels that share a factor; 0 = none."""
        return self.granularity.group


class LayerWeights:
    """Chooses them for the layers of a module. granularity: the user's; None: the descriptor's."""

    def __init__(self, mod: tvm.IRModule, target: Any, granularity: str | None):
        self._mod, self._target, self._wanted = mod, target, granularity
        self._grid, self._own = target.numerics.grid, OwnIntegers()

    def of(self, var: Any, value: Any, kind: str, step: float, dtype: Format) -> QuantizedWeight:
        """That of the layer `var` of a kind, whose input has the scale `step`."""
        weight = weight_of(value)
        assert weight is not None
        axis = 0 if weight.ndim == 4 else 1
        granularity = self._granularity(kind, value, weight, axis, dtype)
        limit = bias_limit(value, step, weight.shape[axis], dtype, self._grid)
        own = self._own.of(var, value, dtype, limit)
        if own is not None and self._keeps(own, granularity, dtype):
            return QuantizedWeight(own.codes, own.scale, axis, dtype, PerAxis(axis))
        group = granularity.group
        if group:
            limit = bias_limit(value, step, weight.shape[axis], INT8, self._grid)
            return QuantizedWeight(*nearest_in_groups(weight, axis, group, limit), axis, dtype, granularity)
        if self._grid.asymmetric_weights and takes_zero_point(dtype) and self._joins_inputs(value):
            along = axis if isinstance(granularity, PerAxis) else None
            codes, scale = asymmetric_weight(weight, along, limit, dtype, self._grid)
            scale = np.broadcast_to(scale, (weight.shape[axis],)).copy()
            return QuantizedWeight(codes, scale, axis, dtype, granularity, from_zero=True)
        scale = granularity.shared(weight_scales(weight, axis, limit, dtype, self._grid))
        return QuantizedWeight(quantize_weight(weight, scale, axis, dtype), scale, axis, dtype, granularity)

    def _joins_inputs(self, value: Any) -> bool:
        """Whether every output channel of a layer reads all input channels, so that these can come twice."""
        unit = read_composite(self._mod, value)
        assert unit is not None
        return unit.kind != "conv2d" or int(unit.head.attrs.groups) == 1

    def _keeps(self, own: SymmetricWeight, granularity: Granularity, dtype: Format) -> bool:
        """Whether the device can have the integers and scales that a weight came with."""
        narrow = not self._grid.narrow or own.codes.min(initial=0) >= -dtype.qmax
        shared = np.array_equal(granularity.shared(own.scale), own.scale)
        return bool(narrow) and shared and not self._grid.powers_of_two

    def _granularity(
        self, kind: str, value: Any, weight: np.ndarray, axis: int, dtype: Format
    ) -> Granularity:  # fmt: skip
        """That of the user or of the descriptor; a scale a channel where a layer can't have groups."""
        word = self._wanted or str(self._target.rule(kind).granularity)
        size = self._target.weight_group(kind)
        wanted = parse_granularity(word, axis, 1 - axis, max(size, 1))
        fits = not wanted.group or (size and dtype == GROUPED and self._takes_groups(value, weight, size))
        return wanted if fits else PerAxis(axis)

    def _takes_groups(self, value: Any, weight: np.ndarray, size: int) -> bool:
        """Whether the weight of a layer can be cut into groups of `size` input channels."""
        channels, *window = weight.shape[1:] if weight.ndim == 4 else weight.shape[:1]
        whole = weight.ndim == 2 or channels == shape_of(value.args[0])[1]
        return whole and takes_groups(channels, prod(window), size)


def takes_zero_point(dtype: Format) -> bool:
    """Whether weights in a format can have a zero point: two codes of int8 are the distance from it."""
    return not dtype.is_float and dtype.bits == INT8.bits


def bias_limit(
    call: Any, input_scale: float, channels: int, dtype: Format, grid: Grid = ANY_GRID
) -> np.ndarray | None:
    """Per channel, the smallest weight scale with which the bias of a composite fits what the device has.

    The accumulator counts in units of an int8 weight, so in 16ths of an int4 one. None for floats: any fits.
    """
    bias = constant(call.args[2]) if len(call.args) > 2 else None
    if bias is None or dtype.is_float:
        return None
    return np.broadcast_to(np.abs(bias).reshape(-1) / (input_scale * grid.most_bias(dtype)), (channels,))
