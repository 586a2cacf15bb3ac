"""Rounding weights to integers so that the layer's output changes least.

For a target T [G,R,K] and the covariance H [G,K,K] of the layer's input, the integers q and scales s [G,R]
should make loss(s q - T) = diag((s q - T) H (s q - T)^T) small: the variance of the output's error (its mean
is the bias' business). Rows are independent of each other, groups too. `qmax` bounds |q| (narrow range).

`factor` [G,R,K]: a weight is s * factor * q where columns have integer factors (quant/weight_groups.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Factor = np.ndarray | float
_BLOCK = 64  # columns that are updated one by one before the others follow in one product
_SWEPT = 32  # the same of a descent, whose blocks stay in a cache
_MARGIN = np.float32(1 - 1e-4)  # a move must pay: at half a step two integers are equally good
_SETTLED = 1e-2  # share of integers that a sweep may move and be the last


def loss(error: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """error H error^T of each row: [G,R,K], [G,K,K] -> [G,R]."""
    return np.einsum("grk,grk->gr", error @ gram, error)


def rounding_loss(q: np.ndarray, scale: np.ndarray, target: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """The loss [G,R] of integers q with scales `scale`."""
    return loss(q * scale[..., None] - target, gram)


def nearest(target: np.ndarray, scale: np.ndarray, qmax: int, factor: Factor = 1.0) -> np.ndarray:
    """round_half_even(target / (scale * factor)) in [-qmax, qmax], as float64."""
    return np.clip(np.rint(target / (scale[..., None] * factor)), -qmax, qmax)


@dataclass(frozen=True)
class Compensation:
    """How the columns that remain make up for the error of one: what GPTQ needs of a Gram matrix."""

    order: np.ndarray  # [G, K]: columns of large variance come first
    upper: np.ndarray  # [G, K, K]: U with U^T U = (H + damping)^-1, rows and columns in that order


def compensation(gram: np.ndarray, damping: float = 1e-6) -> Compensation:
    """`damping`: what is added to the diagonal of the Gram matrix, as a fraction of its mean."""
    diagonal = np.einsum("gkk->gk", gram)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    h = np.take_along_axis(np.take_along_axis(gram, order[:, :, None], 1), order[:, None, :], 2)
    mean = diagonal.mean(axis=1)
    extra = np.where(mean > 0, damping * mean, 1.0)
    h = h + extra[:, None, None] * np.eye(h.shape[1])
    return Compensation(order, np.linalg.cholesky(np.linalg.inv(h)).transpose(0, 2, 1))


def gptq(
    target: np.ndarray, by: Compensation, scale: np.ndarray, qmax: int, factor: Factor = 1.0
) -> np.ndarray:
    """Integers [G,R,K]: columns are rounded one by one, and those that remain make up for the error.

    Frantar et al. 2022, algorithm 1, with columns of large variance first ("act-order").
    """
    order, upper = by.order[:, :, None], by.upper
    w = np.take_along_axis(target.transpose(0, 2, 1), order, axis=1)  # columns contiguous: [G, K, R]
    depth = w.shape[1]
    factors = np.broadcast_to(factor, target.shape).transpose(0, 2, 1)
    steps = scale[:, None, :] * np.take_along_axis(factors, order, axis=1)
    q = np.zeros_like(w)
    for start in range(0, depth, _BLOCK):
        stop = min(start + _BLOCK, depth)
        errors = np.zeros((len(w), stop - start, w.shape[2]))
        for j in range(start, stop):
            q[:, j] = np.clip(np.rint(w[:, j] / steps[:, j]), -qmax, qmax)
            error = (w[:, j] - q[:, j] * steps[:, j]) / upper[:, j, j, None]
            w[:, j + 1 : stop] -= upper[:, j, j + 1 : stop, None] * error[:, None, :]
            errors[:, j - start] = error
        w[:, stop:] -= upper[:, start:stop, stop:].transpose(0, 2, 1) @ errors
    out = np.empty_like(q)
    np.put_along_axis(out, np.broadcast_to(order, q.shape), q, axis=1)
    return np.ascontiguousarray(out.transpose(0, 2, 1))


def descend(
    q: np.ndarray, target: np.ndarray, gram: np.ndarray, scale: np.ndarray, qmax: int, sweeps: int = 4,
    factor: Factor = 1.0,
) -> np.ndarray:  # fmt: skip
    """Coordinate descent on the loss from `q`, of which no row ends with a larger one: see `descended`."""
    found = descended(q, target, gram, scale, qmax, sweeps, factor)
    lost = [rounding_loss(v * factor, scale, target, gram) for v in (found, q)]
    return np.where((lost[0] <= lost[1])[..., None], found, q)


def descended(
    q: np.ndarray, target: np.ndarray, gram: np.ndarray, scale: np.ndarray, qmax: int, sweeps: int = 4,
    factor: Factor = 1.0,
) -> np.ndarray:  # fmt: skip
    """Integers of a smaller loss: each in turn moves to its best value.

    Stops early where a sweep changes next to nothing. Slopes are float32, in units of the mean curvature: the
    caller judges whether a row has gained.
    """
    ints = np.ascontiguousarray(q.transpose(0, 2, 1), np.float32)  # columns contiguous: [G, K, R]
    factors = np.broadcast_to(factor, q.shape).transpose(0, 2, 1)
    curvature = np.einsum("gkk->gk", gram)
    mean = curvature.mean(axis=1, keepdims=True)
    unit = np.where(mean > 0, mean, 1.0)[:, :, None]
    metric = (gram / unit).astype(np.float32)
    off = (ints * factors - target.transpose(0, 2, 1) / scale[:, None, :]).astype(np.float32)
    steps = Steps.of(metric, factors, qmax)
    slope = metric @ off  # half the derivative of the loss / scale^2
    for _ in range(sweeps):
        moves = 0
        for start in range(0, ints.shape[1], _SWEPT):
            block = slice(start, min(start + _SWEPT, ints.shape[1]))
            before = ints[:, block].copy()
            moves += steps.sweep(ints, slope, block)
            moved = (ints[:, block] - before) * steps.factors[:, block]
            if np.any(moved):  # slopes of the block itself are up to date
                slope[:, : block.start] += metric[:, : block.start, block] @ moved
                slope[:, block.stop :] += metric[:, block.stop :, block] @ moved
        if moves <= _SETTLED * ints.size:
            break
    return ints.transpose(0, 2, 1).astype(np.float64)


@dataclass(frozen=True)
class Steps:
    """How far each integer moves, given the slopes of the loss."""

    metric: np.ndarray  # [G, K, K]
    factors: np.ndarray  # [G, K, R]
    per_slope: np.ndarray  # [G, K, R or 1]: -1 / (curvature * factor)
    qmax: int

    @classmethod
    def of(cls, metric: np.ndarray, factors: np.ndarray, qmax: int) -> Steps:
        """`factors` may be a broadcast view."""
        curvature = np.einsum("gkk->gk", metric)[:, :, None]
        floor = 1e-12 * curvature.max(axis=1, initial=0.0, keepdims=True) + 1e-30
        if factors.strides == (0, 0, 0):
            factors = factors[:, :, :1]
        factors = np.ascontiguousarray(factors, np.float32)
        return cls(metric, factors, np.float32(-1) / (np.maximum(curvature, floor) * factors), qmax)

    def sweep(self, q: np.ndarray, slope: np.ndarray, block: slice) -> int:
        """Move the columns of a block once; `slope` is kept true inside it. The number of moves."""
        moves = 0
        local = slope[:, block]
        for j in range(block.start, block.stop):
            step = np.rint(slope[:, j] * self.per_slope[:, j] * _MARGIN)
            if not step.any():
                continue
            new = np.clip(q[:, j] + step, -self.qmax, self.qmax)
            step = new - q[:, j]
            q[:, j] = new
            moves += int(np.count_nonzero(step))
            local += self.metric[:, block, j, None] * (step * self.factors[:, j])[:, None, :]
        return moves


def refit_scale(
    q: np.ndarray, target: np.ndarray, gram: np.ndarray, scale: np.ndarray, shared: bool
) -> np.ndarray:
    """The best scales [G,R] for given integers; `shared`: one for all rows. Zero rows keep theirs."""
    product = q @ gram
    power = np.einsum("grk,grk->gr", product, q)
    along = np.einsum("grk,grk->gr", product, target)
    if shared:
        power, along = (np.full_like(v, v.sum()) for v in (power, along))
    good = (power > 0) & (along > 0)
    return np.where(good, along / np.where(good, power, 1.0), scale)
