"""Scale and integers of one layer's weights, from its target and the covariance of its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .adaround import adaround
from .rounding import compensation, descend, gptq, nearest, refit_scale, rounding_loss

#: How integers are found. "descent" starts from "gptq"; "clamped" is "descent", then more of it with targets
#: that allow for a clamp behind the layer (quant/clamped_target.py; that takes the data).
METHODS = ("nearest", "adaround", "gptq", "descent", "clamped")
_REFITS = 3  # alternations between integers and scales
_FRACTIONS = np.linspace(1.0, 0.4, 25)
_COARSE_FRACTIONS = np.linspace(1.0, 0.5, 11)
_FINE = 127  # with so many steps, a scale found for the nearest integers serves


@dataclass(frozen=True)
class RoundingProblem:
    """What is to be rounded. Scales lie in [scale_min, scale_max], both [G,R]."""

    target: np.ndarray  # [G, R, K]
    gram: np.ndarray  # [G, K, K]
    qmax: int
    shared: bool  # one scale for all rows
    scale_min: np.ndarray
    scale_max: np.ndarray
    factor: np.ndarray | float = 1.0  # [G, R, K]: see weight_groups.py

    def limited(self, scale: np.ndarray) -> np.ndarray:
        """Scales within their limits; a shared one within those of every row."""
        if self.shared:
            return np.clip(scale, self.scale_min.max(), max(self.scale_max.min(), self.scale_min.max()))
        return np.clip(scale, self.scale_min, np.maximum(self.scale_max, self.scale_min))

    def loss(self, q: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """[G,R]."""
        return rounding_loss(q * self.factor, scale, self.target, self.gram)


def solve(problem: RoundingProblem, method: str = "descent") -> tuple[np.ndarray, np.ndarray]:
    """Integers [G,R,K] (float64), to be multiplied by the problem's factors, and scales [G,R].

    Raises ValueError for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"no rounding method {method!r}; known are {', '.join(METHODS)}")
    scale = search_scale(problem, _nearest, _FRACTIONS)
    if method == "nearest":
        return _nearest(problem, scale), scale
    if method == "adaround":
        return adaround(problem.target, problem.gram, scale, problem.qmax, problem.factor), scale
    by = compensation(problem.gram)

    def compensated(problem: RoundingProblem, scale: np.ndarray) -> np.ndarray:
        """Row by row GPTQ, or the nearest integers where those lose less (clipping can mislead GPTQ)."""
        plain = _nearest(problem, scale)
        clever = gptq(problem.target, by, scale, problem.qmax, problem.factor)
        better = problem.loss(clever, scale) < problem.loss(plain, scale)
        return np.where(better[..., None], clever, plain)

    if problem.qmax < _FINE:  # what is best for the nearest integers is not best for these
        scale = search_scale(problem, compensated, _COARSE_FRACTIONS)
    q = compensated(problem, scale)
    return (q, scale) if method == "gptq" else refine(problem, q, scale)


def refine(problem: RoundingProblem, q: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinate descent on the integers, in turn with the scales that fit them best."""
    target, gram, factor = problem.target, problem.gram, problem.factor
    q = descend(q, target, gram, scale, problem.qmax, factor=factor)
    for _ in range(_REFITS):
        refitted = problem.limited(refit_scale(q * factor, target, gram, scale, problem.shared))
        moved = descend(q, target, gram, refitted, problem.qmax, factor=factor)
        gain = problem.loss(q, scale) - problem.loss(moved, refitted)
        better = np.full(gain.shape, gain.sum() > 0) if problem.shared else gain > 0
        if not better.any():
            break
        q, scale = np.where(better[..., None], moved, q), np.where(better, refitted, scale)
    return q, scale


def search_scale(
    problem: RoundingProblem,
    rounded: Callable[[RoundingProblem, np.ndarray], np.ndarray],
    fractions: np.ndarray,
) -> np.ndarray:
    """Of `fractions` of the scale that just covers the weights, that whose `rounded` integers lose least."""
    reach = np.abs(problem.target / problem.factor).max(axis=2)
    if problem.shared:
        reach = np.full_like(reach, reach.max(initial=0.0))
    full = np.where(reach > 0, reach, 1.0) / problem.qmax
    best, least = problem.limited(full), np.full(full.shape, np.inf)
    for fraction in fractions:
        scale = problem.limited(full * fraction)
        lost = problem.loss(rounded(problem, scale), scale)
        lost = np.full_like(lost, lost.sum()) if problem.shared else lost
        best, least = np.where(lost < least, scale, best), np.minimum(lost, least)
    return best


def _nearest(problem: RoundingProblem, scale: np.ndarray) -> np.ndarray:
    return nearest(problem.target, scale, problem.qmax, problem.factor)
