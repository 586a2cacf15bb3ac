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
    """Coordinate descent on the loss from `q`: each integer in turn moves to its best value.

    No step increases the loss of any row. Stops early where a sweep changes nothing.
    """
    ints = np.ascontiguousarray(q.transpose(0, 2, 1))  # columns contiguous: [G, K, R]
    wanted = target.transpose(0, 2, 1) / scale[:, None, :]
    factors = np.broadcast_to(factor, q.shape).transpose(0, 2, 1)
    slope = gram @ (ints * factors - wanted)  # half the derivative of the loss / scale^2
    curvature = np.einsum("gkk->gk", gram)
    curvature = np.maximum(curvature, 1e-12 * curvature.max(axis=1, initial=0.0, keepdims=True) + 1e-300)
    for _ in range(sweeps):
        changed = False
        for start in range(0, ints.shape[1], _BLOCK):
            block = slice(start, min(start + _BLOCK, ints.shape[1]))
            before = ints[:, block].copy()
            _descend_block(ints, slope, gram, curvature, factors, qmax, block)
            moved = (ints[:, block] - before) * factors[:, block]
            if np.any(moved):
                changed = True  # slopes of the block itself are up to date
                slope[:, : block.start] += gram[:, : block.start, block] @ moved
                slope[:, block.stop :] += gram[:, block.stop :, block] @ moved
        if not changed:
            break
    return np.ascontiguousarray(ints.transpose(0, 2, 1))


def _descend_block(
    q: np.ndarray, slope: np.ndarray, gram: np.ndarray, curvature: np.ndarray, factors: np.ndarray, qmax: int,
    block: slice,
) -> None:  # fmt: skip
    """One sweep over the columns of a block; `slope` is kept true inside it."""
    for j in range(block.start, block.stop):
        best = q[:, j] - slope[:, j] / (curvature[:, j, None] * factors[:, j])
        new = np.clip(np.rint(best), -qmax, qmax)
        # a move must pay: at half a step two integers are equally good
        step = np.where(np.abs(new - best) < np.abs(q[:, j] - best) - 1e-9, new - q[:, j], 0.0)
        if np.any(step):
            q[:, j] += step
            slope[:, block] += gram[:, block, j, None] * (step * factors[:, j])[:, None, :]


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
