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
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
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
    probes = rows[:, np.linspace(0, rows.shape[1] - 1, _PROBES).astype(int)]
    codes, step = np.zeros(rows.shape), np.ones(len(rows))
    left = np.flatnonzero(reach > 0)
    for most in range(1, int(-dtype.qmin) + 1):
        if not len(left):
            break
        likely = left[_whole(probes[left] * (most / reach[left])[:, None], dtype)]
        likely = likely[_whole(rows[likely] * (most / reach[likely])[:, None], dtype)]
        codes[likely] = np.rint(rows[likely] * (most / reach[likely])[:, None])
        squares = (codes[likely] ** 2).sum(axis=1)
        step[likely] = (codes[likely] * rows[likely]).sum(axis=1) / squares
        left = np.setdiff1d(left, likely, assume_unique=True)
    return None if len(left) else (codes, step)


def _whole(steps: np.ndarray, dtype: Format) -> np.ndarray:
    """Which rows hold whole numbers in the range of a format."""
    near = np.rint(steps)
    fits = (near >= dtype.qmin) & (near <= dtype.qmax)
    return np.all(fits & _close(steps, near), axis=1)


def _close(steps: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Where steps are codes but for rounding; it makes nothing zero, however small one channel is beside
    another."""
    return (np.abs(steps - codes) <= _CLOSE) & ((codes != 0) | (steps == 0))
