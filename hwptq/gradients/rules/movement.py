"""Gradients through what moves values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwptq.ir.dataflow import slice_bounds
from hwptq.ir.movement import SAME_ORDER, order_of_axes

from .rule import Gradient, Place, derivative, summed_to


@derivative(*SAME_ORDER)
def _reshaped(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [g.reshape(place.inputs[0].shape)]


@derivative("broadcast_to")
def _broadcast(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [summed_to(g, place.inputs[0].shape)]


@derivative("permute_dims")
def _permuted(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    return [g.transpose(np.argsort(order_of_axes(place.call)))]


@derivative("concat")
def _joined(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    axis = place.axes(place.call.attrs.axis or 0)[0]
    ends = np.cumsum([x.shape[axis] for x in place.inputs])[:-1]
    return np.split(g, ends, axis)


@derivative("split")
def _parted(place: Place, g: Sequence[Gradient]) -> Sequence[Gradient]:
    axis = place.axes(place.call.attrs.axis)[0]
    known = zip(g, place.output, strict=True)
    return [
        np.concatenate([np.zeros_like(part) if part_g is None else part_g for part_g, part in known], axis)
    ]


@derivative("strided_slice")
def _sliced(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    axes, begin, end, strides = slice_bounds(place.call)
    taken = [slice(None)] * place.inputs[0].ndim
    for axis, *bounds in zip(axes, begin, end, strides, strict=True):
        taken[axis] = slice(*bounds)
    found = np.zeros_like(place.inputs[0])
    found[tuple(taken)] = g
    return [found]
