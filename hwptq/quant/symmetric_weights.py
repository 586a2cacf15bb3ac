"""Weights that another tool has quantized: the integers that they are multiples of, without a zero point.

real = (code - zero) * scale is a multiple of the scale whatever the zero point is, so where the differences
fit a format, they are codes of the same values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwptq.formats import INT8, Format

#: How far from a whole number of steps rounding of float32 (a product or two) puts a weight.
_CLOSE = 2.0**-10
#: Weights of a row that tell most rows of real numbers from multiples; fewer than the least tell nothing.
_PROBES, _FEWEST = 16, 4
_AT_ONCE = 256  # rows, so that what is computed of them takes little memory
_WITNESSES = 16  # rows from all over that are looked at first: real numbers fail there already


@dataclass(frozen=True)
class SymmetricWeight:
    """real = codes * scale: codes in the dtype that holds a format, of the weight's shape; scale float32 [C],
    one for each index of the axis that was asked for."""

    codes: np.ndarray
    scale: np.ndarray


def on_grid(weight: np.ndarray, axis: int, dtype: Format = INT8) -> SymmetricWeight | None:
    """The integers of a float weight each of whose channels holds multiples of one number; else None.

    One scale for all channels where one serves, else that of each channel along `axis`, as coarse as it may
    be. [0.5, -1, 0.25, 0] -> [2, -4, 1, 0], scale 0.25.
    """
    channels = np.moveaxis(weight, axis, 0)
    if len(channels) > _WITNESSES and on_grid(witnesses(channels), 0, dtype) is None:
        return None
    rows = channels.reshape(len(channels), -1).astype(np.float64)
    if rows.shape[1] < _FEWEST or not np.isfinite(rows).all():
        return None
    found = _multiples(rows.reshape(1, -1), dtype)
    if found is None:
        found = _multiples(rows, dtype)
    if found is None:
        return None
    codes, scale = found
    shape = np.moveaxis(weight, axis, 0).shape
    held = np.moveaxis(codes.reshape(shape), 0, axis).astype(dtype.held)
    return SymmetricWeight(held, np.broadcast_to(scale, (len(rows),)).astype(np.float32))


def witnesses(rows: np.ndarray) -> np.ndarray:
    """A few rows from all over: where these are real numbers, the whole is."""
    return rows[np.linspace(0, len(rows) - 1, _WITNESSES).astype(int)]


def represents(codes: np.ndarray, scale: np.ndarray, axis: int, weight: np.ndarray) -> bool:
    """Whether codes * scale [C] along `axis` is a weight but for the rounding of float32."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    steps = weight / scale.reshape(shape).astype(np.float64)
    return bool(np.all(_close(steps, codes)))


def _multiples(rows: np.ndarray, dtype: Format) -> tuple[np.ndarray, np.ndarray] | None:
    """(codes of the shape of `rows` [R,K], the step [R] of each row); None where a row has none.

    The largest magnitude of a row is a code from 1 on: the first that makes all others whole fits.
    """
    reach = np.abs(rows).max(axis=1)
    codes, step = np.zeros(rows.shape), np.ones(len(rows))
    left = reach > 0
    likely = _likely(rows, np.where(left, reach, 1), dtype)
    for index in np.flatnonzero(likely.any(axis=1)):
        tried = np.flatnonzero(left & likely[index])
        steps = rows[tried] * ((index + 1) / reach[tried])[:, None]
        whole = _whole(steps, dtype)
        found = tried[whole]
        codes[found] = np.rint(steps[whole])
        squares = (codes[found] ** 2).sum(axis=1)
        step[found] = (codes[found] * rows[found]).sum(axis=1) / squares
        left[found] = False
    return None if left.any() else (codes, step)


def _likely(rows: np.ndarray, reach: np.ndarray, dtype: Format) -> np.ndarray:
    """[M,R]: whether row r of [R,K] may be whole where its reach [R] is the code m + 1: a few of its weights
    are."""
    probes = rows[:, np.linspace(0, rows.shape[1] - 1, _PROBES).astype(int)]
    factors = np.arange(1, int(-dtype.qmin) + 1)[:, None] / reach
    parts = range(0, len(rows), _AT_ONCE)
    found = [
        _whole(probes[i : i + _AT_ONCE] * factors[:, i : i + _AT_ONCE, None], dtype) for i in parts
    ]  # fmt: skip
    return np.concatenate(found, axis=1)


def _whole(steps: np.ndarray, dtype: Format) -> np.ndarray:
    """Which rows hold whole numbers in the range of a format."""
    near = np.rint(steps)
    fits = (near >= dtype.qmin) & (near <= dtype.qmax)
    return np.all(fits & _close(steps, near), axis=-1)


def _close(steps: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Where steps are codes but for rounding; it makes nothing zero, however small one channel is beside
    another."""
    return (np.abs(steps - codes) <= _CLOSE) & ((codes != 0) | (steps == 0))
