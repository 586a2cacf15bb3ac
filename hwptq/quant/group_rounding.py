"""Levels and scales of rows of weights that have a scale for each group of neighbours.

For rows T [R, K] and the second moments H [K, K] of what multiplies them, the loss of a row is e H e^T with
e = scale * level - T. Scales start as those with which each group alone, rounded to nearest, loses least on
the diagonal of H; GPTQ (Frantar et al. 2022, algorithm 1, columns of large variance first) lets the columns
that remain make up for the error of one; then each level in turn moves to its best value, and each scale too,
while that pays. Scales are always such that 16 bits, or bytes, hold them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwptq.formats import Format

from .group_codes import (
    LARGEST_BYTE_SCALE,
    GroupedRows,
    byte_scales,
    group_count,
    pack_rows,
    real_scales,
    row_bytes,
    short_scales,
    spread,
)
from .rounding import compensation

_FRACTIONS = np.linspace(1.05, 0.3, 26)  # of the scale that just covers a group
_STARTS = (1.0, 0.85)  # of the scales found so, for GPTQ
_REFITS = 3
_SWEEPS = 12
_WORTH = 2e-3  # the part of the loss that a sweep must save for another to follow
_BLOCK = 64
_SMALLEST = 2.0**-100
_SMALL_GROUP = 64
_AT_ONCE = 2**15  # weights


@dataclass(frozen=True)
class GroupProblem:
    """Rows [R, K] to be rounded to levels of a format, with a scale for every `size` of them."""

    target: np.ndarray
    weight: Format
    size: int

    @cached_property
    def levels(self) -> np.ndarray:
        """Those of the format, the lowest first."""
        return np.sort(self.weight.points())

    @cached_property
    def in_bytes(self) -> bool:
        """Whether scales are bytes: where small groups of few bits, with levels alike on both sides of zero,
        would else pay more for scales than they gain."""
        alike = np.array_equal(self.levels, -self.levels[::-1])
        fits = np.abs(self.target).max(initial=0) < self.levels[-1] * LARGEST_BYTE_SCALE
        return bool(alike and fits and self.size <= _SMALL_GROUP)

    @property
    def depth(self) -> int:
        """Weights of a row."""
        return int(self.target.shape[1])

    @property
    def nbytes(self) -> int:
        """Of codes and scales."""
        row = row_bytes(self.depth, self.weight.bits)
        return len(self.target) * (row + (1 if self.in_bytes else 2) * group_count(self.depth, self.size))

    def nearest(self, ratio: np.ndarray) -> np.ndarray:
        """The level next to each real number, float32."""
        return self.weight.encode(ratio).astype(np.float32)

    def rows(self, levels: np.ndarray, scales: np.ndarray) -> GroupedRows:
        """Packed: levels [R, K], scales [R, G]."""
        codes = pack_rows(levels.astype(self.weight.held), self.weight)
        return GroupedRows(self.weight.name, self.size, self.depth, codes, self._stored(scales))

    def held(self, scales: np.ndarray) -> np.ndarray:
        """The nearest scales that can be stored, none of them zero."""
        sign = np.where(scales < 0, np.float32(-1), np.float32(1))
        return real_scales(self._stored(sign * np.maximum(np.abs(scales), np.float32(_SMALLEST))))

    def _stored(self, scales: np.ndarray) -> np.ndarray:
        return (byte_scales if self.in_bytes else short_scales)(scales.astype(np.float32))


def nearest_rows(target: np.ndarray, weight: Format, size: int) -> GroupedRows:
    """Every weight to its nearest level, with scales that lose least."""
    problem = GroupProblem(target, weight, size)
    scales = search_scales(problem, np.ones(problem.depth, np.float32))
    return problem.rows(_levels(problem, scales), scales)


def nearest_loss(target: np.ndarray, weight: Format, size: int) -> float:
    """The summed squared errors of nearest_rows."""
    problem = GroupProblem(target, weight, size)
    scales = search_scales(problem, np.ones(problem.depth, np.float32))
    error = _levels(problem, scales) * spread(scales, size, problem.depth) - target
    return float(np.square(error).sum())


def fitted_rows(target: np.ndarray, gram: np.ndarray, weight: Format, size: int) -> GroupedRows:
    """What loses least by `gram` [K, K]: GPTQ from several scales, and descent from the best."""
    problem = GroupProblem(target, weight, size)
    first = search_scales(problem, np.diag(gram).astype(np.float32))
    by = compensation(gram[None].astype(np.float64), 1e-4)
    best = np.zeros(target.shape, np.float32)
    chosen, least = first, np.full(len(target), np.inf)
    for start in _STARTS:
        scales = problem.held(first * np.float32(start))
        for levels in (_levels(problem, scales), _gptq(problem, by.order[0], by.upper[0], scales)):
            lost = _loss(problem, levels, scales, gram)
            better = lost < least
            best, chosen = (
                np.where(better[:, None], new, old) for new, old in ((levels, best), (scales, chosen))
            )
            least = np.minimum(lost, least)
    return problem.rows(*descend(problem, best, chosen, gram))


def search_scales(problem: GroupProblem, variance: np.ndarray) -> np.ndarray:
    """Scales [R, G] with which nearest levels lose least, if inputs of `variance` [K] were uncorrelated."""
    parts = _few_rows(problem.target)
    return np.concatenate([_searched(problem, part, variance) for part in parts])


def _few_rows(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Rows in parts of which all that is computed fits a cache."""
    count = max(1, _AT_ONCE // max(1, rows.shape[1]))
    return (rows[i : i + count] for i in range(0, max(1, len(rows)), count))


def _searched(problem: GroupProblem, rows: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """The scales of some rows."""
    pad = -problem.depth % problem.size
    groups = np.pad(rows.astype(np.float32), ((0, 0), (0, pad))).reshape(len(rows), -1, problem.size)
    weigh = np.pad(variance, (0, pad)).reshape(1, -1, problem.size)
    low, high = groups.min(axis=2), groups.max(axis=2)
    reach, largest = np.maximum(-low, high), np.float32(np.abs(problem.levels).max())
    # the level of largest magnitude may have one sign only, as -8 has: it is for the end that is further out
    longer = problem.levels[0] + problem.levels[-1]
    sign = np.where((longer == 0) | ((-low > high) == (longer < 0)), 1, -1).astype(np.float32)
    full = np.where(reach > 0, reach, np.float32(1)) / largest * sign
    best, least = problem.held(full), np.full(reach.shape, np.inf, np.float32)

    def tried(scales: np.ndarray) -> np.ndarray:
        nonlocal best, least
        levels = problem.nearest(groups / scales[..., None])
        lost = np.einsum("rgk,rgk->rg", (levels * scales[..., None] - groups) ** 2, weigh)
        best, least = np.where(lost < least, scales, best), np.minimum(lost, least)
        return levels

    for fraction in (1, *_FRACTIONS):
        tried(problem.held(full * np.float32(fraction)))
    for _ in range(_REFITS):
        levels = problem.nearest(groups / best[..., None])
        power = np.einsum("rgk,rgk->rg", levels * levels, weigh)
        along = np.einsum("rgk,rgk->rg", levels * groups, weigh)
        tried(problem.held(np.where(power > 0, along / np.where(power > 0, power, 1), best)))
    return best


def _levels(problem: GroupProblem, scales: np.ndarray) -> np.ndarray:
    parts, first = [], 0
    for rows in _few_rows(problem.target):
        of_rows = spread(scales[first : first + len(rows)], problem.size, problem.depth)
        parts.append(problem.nearest(rows / of_rows))
        first += len(rows)
    return np.concatenate(parts)


def _loss(problem: GroupProblem, levels: np.ndarray, scales: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """[R]."""
    error = levels * spread(scales, problem.size, problem.depth) - problem.target
    return np.einsum("rk,rk->r", error @ gram, error)


def _gptq(problem: GroupProblem, order: np.ndarray, upper: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Levels [R, K]: columns in `order`, those that remain making up for the error by `upper`."""
    steps = spread(scales, problem.size, problem.depth).T[order]
    w = np.ascontiguousarray(problem.target.T[order], np.float64)
    levels = np.zeros(w.shape, np.float32)
    for start in range(0, problem.depth, _BLOCK):
        stop = min(start + _BLOCK, problem.depth)
        errors = np.zeros((stop - start, w.shape[1]))
        for j in range(start, stop):
            levels[j] = problem.nearest(w[j] / steps[j])
            errors[j - start] = (w[j] - levels[j] * steps[j]) / upper[j, j]
            w[j + 1 : stop] -= np.outer(upper[j, j + 1 : stop], errors[j - start])
        w[stop:] -= upper[start:stop, stop:].T @ errors
    out = np.empty_like(levels)
    out[order] = levels
    return out.T


def descend(
    problem: GroupProblem, levels: np.ndarray, scales: np.ndarray, gram: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(levels [R, K], scales [R, G]) of no larger a loss: levels and scales in turn, group by group."""
    unit = max(float(np.diag(gram).mean()), 1e-30)
    metric = (gram / unit).astype(np.float32)
    q, s = np.ascontiguousarray(levels.T, np.float32), np.ascontiguousarray(scales.T, np.float32)
    target = problem.target.T.astype(np.float32)
    lost = _loss(problem, q.T, s.T, gram)
    before = lost.sum()
    for _ in range(_SWEEPS):
        new_q, new_s = q.copy(), s.copy()
        slope = metric @ (new_q * spread(new_s.T, problem.size, problem.depth).T - target)
        for group in range(group_count(problem.depth, problem.size)):
            _group_turn(problem, group, new_q, new_s, slope, metric)
        found = _loss(problem, new_q.T, new_s.T, gram)
        better = found < lost
        q, s = np.where(better, new_q, q), np.where(better, new_s, s)
        lost = np.where(better, found, lost)
        if before - lost.sum() <= _WORTH * before:
            break
        before = lost.sum()
    return q.T, s.T


def _group_turn(
    problem: GroupProblem, group: int, q: np.ndarray, s: np.ndarray, slope: np.ndarray, metric: np.ndarray
) -> None:
    """Each level of a group [K, R] to its best value, then the group's scale [G, R]; slopes are kept true."""
    block = slice(group * problem.size, min((group + 1) * problem.size, problem.depth))
    inner, step = metric[block, block], s[group]
    local, old = slope[block].copy(), q[block] * step
    for j in range(block.stop - block.start):
        at = block.start + j
        new = problem.nearest(q[at] - local[j] / (max(float(inner[j, j]), 1e-12) * step))
        moved = (new - q[at]) * step
        q[at] = new
        if moved.any():
            local += inner[:, j, None] * moved
    levels = q[block]
    power = np.einsum("kr,kr->r", inner @ levels, levels)
    along = np.einsum("kr,kr->r", levels, local)
    wanted = problem.held(np.where(power > 0, step - along / np.where(power > 0, power, 1), step))
    by = wanted - step
    s[group] = np.where(by * (2 * along + by * power) < 0, wanted, step)
    slope += metric[:, block] @ (levels * s[group] - old)
