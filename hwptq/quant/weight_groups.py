"""Weights per group: int4 values times an integer factor of their group, under one scale a channel.

A group is `size` neighbouring input channels of one tap of a kernel, for one output channel; the last group
of a tap may have fewer. Its weights are scale * factor * w with w in [-7, 7] and factor in 1 … 16: factor * w
fits an int8, sums stay exact in int32 across groups, and factor 16 everywhere is what a layer without groups
has. So the arithmetic knows nothing of groups; a kernel may store w in a nibble and the factor beside.
"""

from __future__ import annotations

import numpy as np

from hwptq.formats import INT4, INT8

from .rounding import nearest

GROUPED = INT4  # the format of w
_QMAX = GROUPED.qmax
LARGEST_FACTOR = 2 ** (INT8.bits - GROUPED.bits)
_SMALLEST_SCALE = 1e-12
_FRACTIONS = np.linspace(1.0, 0.5, 11)  # of the scale that just covers the widest group


def group_ids(channels: int, taps: int, size: int) -> np.ndarray:
    """The group of each column of a row of weights [channels, taps], flattened: int [channels * taps]."""
    return np.add.outer(np.arange(channels) // size * taps, np.arange(taps)).reshape(-1)


def takes_groups(channels: int, taps: int, size: int) -> bool:
    """Whether a layer has several groups, and none spans two taps that a kernel reads in one run."""
    return channels * taps > size and (channels % size == 0 or taps == 1)


def nearest_in_groups(
    weight: np.ndarray, axis: int, size: int, scale_min: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(values int8 of the shape of `weight`, scale float32 [O]): each weight rounded to the nearest.

    weight: [O,I,KH,KW] for axis 0, [I,O] for axis 1; scale_min: the smallest scale of each channel.
    """
    moved = np.moveaxis(weight, axis, 0)
    channels, taps = moved.shape[1], int(np.prod(moved.shape[2:]))
    rows = moved.reshape(1, len(moved), -1).astype(np.float64)
    factors = choose_factors(rows, np.ones((1, rows.shape[2])), group_ids(channels, taps, size))
    reach = np.abs(rows / factors).max(axis=2)
    scale = np.maximum(np.where(reach > 0, reach / _QMAX, 1.0), 0.0 if scale_min is None else scale_min)
    scale = np.maximum(scale, _SMALLEST_SCALE).astype(np.float32)
    values = nearest(rows, scale, _QMAX, factors) * factors
    return np.moveaxis(values.reshape(moved.shape), 0, axis).astype(np.int8), scale[0]


def choose_factors(target: np.ndarray, variance: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Factors [G,R,K] for weights [G,R,K] whose inputs have `variance` [G,K]: those with the least squared
    error of rounding to nearest, for the scale of each row that goes with them best.
    """
    reach = np.abs(target).max(axis=2)
    full = np.where(reach > 0, reach, 1.0) / (_QMAX * LARGEST_FACTOR)
    best = np.full(target.shape, float(LARGEST_FACTOR))
    least = np.full(reach.shape, np.inf)
    for fraction in _FRACTIONS:
        factors, lost = _factors_for(target, variance, ids, full * fraction)
        best = np.where((lost < least)[..., None], factors, best)
        least = np.minimum(least, lost)
    return best


def _factors_for(
    target: np.ndarray, variance: np.ndarray, ids: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(factors [G,R,K], loss [G,R]): each group takes that with the least squared error."""
    member = np.eye(ids.max() + 1)[ids]  # [K, groups]
    least = np.full((*scale.shape, member.shape[1]), np.inf)
    best = np.ones_like(least)
    for factor in range(1, LARGEST_FACTOR + 1):
        error = nearest(target, scale, _QMAX, factor) * (scale * factor)[..., None] - target
        lost = (error * error * variance[:, None, :]) @ member
        best = np.where(lost < least, factor, best)
        least = np.minimum(least, lost)
    return best[..., ids], least.sum(axis=2)


def split_factors(weight: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(w int8 [O, ..., I], factor int8 [O, ..., ceil(I / size)]) with factor * w = weight, in groups of
    `size` along the last axis.

    Raises ValueError where a group is no multiple of int4 values.
    """
    channels = weight.shape[-1]
    padded = np.pad(weight, [(0, 0)] * (weight.ndim - 1) + [(0, -channels % size)]).astype(np.int16)
    groups = padded.reshape(*weight.shape[:-1], -1, size)
    found = np.zeros(groups.shape[:-1], np.int16)
    for factor in range(1, LARGEST_FACTOR + 1):
        fits = np.all(groups % factor == 0, axis=-1) & np.all(np.abs(groups) <= factor * _QMAX, axis=-1)
        found = np.where((found == 0) & fits, factor, found)
    if np.any(found == 0):
        raise ValueError("a group of weights is not a factor times int4 values")
    values = (groups // found[..., None]).reshape(*weight.shape[:-1], -1)[..., :channels]
    return values.astype(np.int8), found.astype(np.int8)
