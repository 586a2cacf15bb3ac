"""Scale and integers of one layer's weights, from its target and the covariance of its input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .adaround import adaround
from .rounding import compensation, descend, gptq, nearest, refit_scale, rounding_loss

_REFITS = 3  # alternations between integers and scales
_CLAMPED_ROUNDS = 4  # of targets set anew
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


class RoundingMethod(ABC):
    """How integers and scales are found. An open set: a class joins it by being defined, in any file."""

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if cls.name:
            METHODS[cls.name] = cls()

    @abstractmethod
    def solve(self, problem: RoundingProblem, retarget: Retarget | None = None) -> Rounded:
        """Integers [G,R,K] (float64), to be multiplied by the problem's factors, and scales [G,R].

        retarget: of a layer with a clamp behind it, the problem with the targets that the clamp leaves where
        its weights are so rounded; see clamped_target.py.
        """


METHODS: dict[str, RoundingMethod] = {}
Rounded = tuple[np.ndarray, np.ndarray]
Retarget = Callable[[np.ndarray, np.ndarray], RoundingProblem]


def rounding_method(name: str) -> RoundingMethod:
    """The method of that name. Raises ValueError for an unknown one."""
    if name not in METHODS:
        raise ValueError(f"no rounding method {name!r}; known are {', '.join(METHODS)}")
    return METHODS[name]


class Nearest(RoundingMethod):
    """Each weight to the nearest integer, with the scale that loses least."""

    name = "nearest"

    def solve(self, problem: RoundingProblem, retarget: Retarget | None = None) -> Rounded:
        scale = search_scale(problem, _nearest, _FRACTIONS)
        return _nearest(problem, scale), scale


class AdaRound(RoundingMethod):
    """Which of its two neighbours each weight becomes, by gradient descent: adaround.py."""

    name = "adaround"

    def solve(self, problem: RoundingProblem, retarget: Retarget | None = None) -> Rounded:
        scale = search_scale(problem, _nearest, _FRACTIONS)
        return adaround(problem.target, problem.gram, scale, problem.qmax, problem.factor), scale


class Gptq(RoundingMethod):
    """Column by column, those that remain making up for the error: rounding.gptq."""

    name = "gptq"

    def solve(self, problem: RoundingProblem, retarget: Retarget | None = None) -> Rounded:
        scale = search_scale(problem, _nearest, _FRACTIONS)
        by = compensation(problem.gram)

        def compensated(problem: RoundingProblem, scale: np.ndarray) -> np.ndarray:
            """Row by row GPTQ, or the nearest integers where those lose less (clipping can mislead GPTQ)."""
            plain = _nearest(problem, scale)
            clever = gptq(problem.target, by, scale, problem.qmax, problem.factor)
            better = problem.loss(clever, scale) < problem.loss(plain, scale)
            return np.where(better[..., None], clever, plain)

        if problem.qmax < _FINE:  # what is best for the nearest integers is not best for these
            scale = search_scale(problem, compensated, _COARSE_FRACTIONS)
        return compensated(problem, scale), scale


class Descent(Gptq):
    """GPTQ, then each integer in turn to its best value, in turn with the scales."""

    name = "descent"

    def solve(self, problem: RoundingProblem, retarget: Retarget | None = None) -> Rounded:
        return refine(problem, *super().solve(problem))


class Clamped(Descent):
    """Descent, then more of it with the targets that the layer's clamp leaves."""

    name = "clamped"

    def solve(self, problem: RoundingProblem, retarget: Retarget | None = None) -> Rounded:
        q, scale = super().solve(problem)
        for _ in range(_CLAMPED_ROUNDS if retarget else 0):
            assert retarget
            problem = retarget(q, scale)
            q, scale = refine(problem, q, scale)
        return q, scale


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
