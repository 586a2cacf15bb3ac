"""Rows of weights by group whose levels and scales follow gradients.

Behind each level stands a real number in units of its scale, which is rounded to the nearest level; gradients
go through the rounding as if it were not there (Bengio et al. 2013, straight-through; scales as in Esser et
al. 2020, LSQ). Inputs are rounded to int8 row by row, as layers with dynamic activations do.
"""

from __future__ import annotations

import numpy as np

from hwptq.formats import format_of

from .adam import Adam
from .group_codes import GroupedRows, real_scales, spread, unpack_rows
from .group_rounding import GroupProblem

#: Of the range of levels, what a number moves at most in a step, and a scale of itself.
_RATE, _OF_SCALES = 0.06, 1 / 3
_INSIDE = np.float32(0.02)  # of the distance to the next level, kept from the point midway
_LARGEST = np.float32(127)


class LatentRows:
    """rows: what is rounded by now; target [R, K]: the weights in float, of which the numbers behind the
    levels are the nearest that round to these. A gradients.program.Substitute of a dense layer."""

    def __init__(self, rows: GroupedRows, target: np.ndarray):
        self.problem = GroupProblem(target.astype(np.float32), format_of(rows.weight), rows.size)
        levels = self.problem.levels.astype(np.float32)
        self._midways = (levels[1:] + levels[:-1]) / 2
        self._ends = np.float32(levels[0] - 0.5), np.float32(levels[-1] + 0.5)
        self._first_scales = real_scales(rows.scales)
        held = unpack_rows(rows.codes, self.problem.weight, rows.depth).astype(np.float32)
        rate = _RATE / float(levels[-1] - levels[0])
        self.numbers = Adam(self._inside(held, levels), rate)
        self.stretch = Adam(np.zeros_like(self._first_scales), rate * _OF_SCALES)
        none = np.empty(0, np.float32)
        self._read = none, none  # what forward read last, and that in int8
        self.refresh()

    def _inside(self, held: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """The numbers nearest to the target that round to levels `held` [R, K]."""
        scale = spread(self._first_scales, self.problem.size, self.problem.depth)
        ratio = self.problem.target / np.where(scale != 0, scale, np.float32(1))
        edges = np.concatenate([self._ends[:1], self._midways, self._ends[1:]]).astype(np.float32)
        place = np.searchsorted(levels, held)
        low, high = edges[place], edges[place + 1]
        margin = (high - low) * _INSIDE
        return np.clip(ratio, low + margin, high - margin).astype(np.float32)

    def refresh(self) -> None:
        """Round anew, and forget the gradients."""
        self.levels = self.problem.nearest(self.numbers.value)
        self.scales = self.problem.held(self._first_scales * (1 + self.stretch.value))
        self._spread = spread(self.scales, self.problem.size, self.problem.depth)
        self.values = self.levels * self._spread
        self._gradient = np.zeros_like(self.values)

    def looked_up(self, index: np.ndarray, gradient: np.ndarray) -> None:
        """Keep the gradient of rows that were looked up."""
        places = np.clip(index, 0, len(self.values) - 1).reshape(-1)
        np.add.at(self._gradient, places, gradient.reshape(-1, gradient.shape[-1]))

    def forward(self, x: np.ndarray) -> np.ndarray:
        """x [..., K] in int8 times the weights: [..., R]."""
        self._read = x, _in_bytes(x)
        return self._read[1] @ self.values.T

    def backward(self, x: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """The gradient of x; that of the weights is kept."""
        known, rounded = self._read
        rounded = rounded if known is x else _in_bytes(x)
        flat = gradient.reshape(-1, gradient.shape[-1])
        self._gradient += flat.T @ rounded.reshape(-1, x.shape[-1])
        return gradient @ self.values

    def step(self, share: float, keep: bool, levels: float = 1.0) -> None:
        """A step of scales, and of levels by so much of it, by what backward has kept; round anew."""
        low, high = self._ends
        along = self._gradient * self.levels
        size, pad = self.problem.size, -self.problem.depth % self.problem.size
        of_groups = np.pad(along, ((0, 0), (0, pad))).reshape(len(along), -1, size).sum(axis=2)
        free = (self.numbers.value > low) & (self.numbers.value < high)
        self.numbers.step(self._gradient * self._spread * free, share * levels, keep)
        np.clip(self.numbers.value, low, high, out=self.numbers.value)
        self.stretch.step(of_groups * self._first_scales, share, keep)
        self.refresh()

    def settle(self) -> GroupedRows:
        """The rows by the means of the steps that were kept."""
        self.numbers.settle()
        self.stretch.settle()
        self.refresh()
        return self.problem.rows(self.levels, self.scales)


class LookedUp:
    """Rows that a look-up reads, and a dense layer too: it learns with them. A Substitute of the look-up."""

    def __init__(self, rows: LatentRows):
        self.rows = rows

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The rows of places x; those beyond an end are the last there."""
        return np.take(self.rows.values, x, axis=0, mode="clip")

    def backward(self, x: np.ndarray, gradient: np.ndarray) -> None:
        """Places have no gradient; that of the rows is kept."""
        self.rows.looked_up(x, gradient)


def _in_bytes(x: np.ndarray) -> np.ndarray:
    """Each row to the nearest multiples of a 127th of its largest magnitude."""
    scale = np.abs(x).max(axis=-1, keepdims=True) / _LARGEST
    scale = np.where(scale > 0, scale, np.float32(1))
    return np.rint(x / scale) * scale
