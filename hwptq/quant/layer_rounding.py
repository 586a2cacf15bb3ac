"""Scale and integers of one layer's weights, from its target and the covariance of its input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .adaround import adaround
from .rounding import compensation, descended, gptq, nearest, refit_scale, rounding_loss

_REFITS = 3  # alternations between integers and scales, at most
_WORTH = 1e-3  # the part of the loss that one must save for another to follow
_CLAMPED_ROUNDS = 4  # of targets set anew
_FRACTIONS = np.linspace(1.0, 0.4, 25)
_SCREENED = 2  # of them that are compared by the whole metric
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

    def total(self, lost: np.ndarray) -> np.ndarray:
        """What each scale is judged by: the loss [G,R] of its row, or that of all rows that share it."""
        return np.full_like(lost, lost.sum()) if self.shared else lost

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
        scale = nearest_scale(problem)
        return _nearest(problem, scale), scale


class AdaRound(RoundingMethod):
    """Which of its two neighbours each weight becomes, by gradient descent: adaround.py."""

    name = "adaround"

    def solve(self, problem: RoundingProblem, retarget: Retarget | None = None) -> Rounded:
        scale = nearest_scale(problem)
        return adaround(problem.target, problem.gram, scale, problem.qmax, problem.factor), scale


class Gptq(RoundingMethod):
    """Column by column, those that remain making up for the error: rounding.gptq."""

    name = "gptq"

    def solve(self, problem: RoundingProblem, retarget: Retarget | None = None) -> Rounded:
        scale = nearest_scale(problem)
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
    """Coordinate descent on the integers, in turn with the scales that fit them best, while that pays."""
    given = problem.target, problem.gram
    fitted, lost = scale, problem.loss(q, scale)
    for turn in range(1 + _REFITS):
        if turn:
            refitted = refit_scale(q * problem.factor, *given, scale, problem.shared)
            fitted = problem.limited(refitted)
        moved = descended(q, *given, fitted, problem.qmax, factor=problem.factor)
        new, before = problem.loss(moved, fitted), lost.sum()
        better = problem.total(new) < problem.total(lost) if turn else new < lost
        q, scale = np.where(better[..., None], moved, q), np.where(better, fitted, scale)
        lost = np.where(better, new, lost)
        if turn and before - lost.sum() <= _WORTH * before:
            break
    return q, scale


def search_scale(
    problem: RoundingProblem,
    rounded: Callable[[RoundingProblem, np.ndarray], np.ndarray],
    fractions: np.ndarray,
) -> np.ndarray:
    """Of `fractions` of the scale that just covers the weights, that whose `rounded` integers lose least."""
    full = _full_scale(problem)
    best, least = problem.limited(full), np.full(full.shape, np.inf)
    for fraction in fractions:
        scale = problem.limited(full * fraction)
        lost = problem.total(problem.loss(rounded(problem, scale), scale))
        best, least = np.where(lost < least, scale, best), np.minimum(lost, least)
    return best


def nearest_scale(problem: RoundingProblem) -> np.ndarray:
    """The scale whose nearest integers lose least.

    Errors of rounding to nearest hardly correlate, so the diagonal of the metric finds the few fractions
    that all of it is worth being asked about; the first is always among them.
    """
    full = _full_scale(problem)
    variance = np.einsum("gkk->gk", problem.gram)[:, None, :].astype(np.float32)
    lost = np.stack([problem.total(_diagonal_loss(problem, full * f, variance)) for f in _FRACTIONS])
    chosen = np.argsort(lost, axis=0, kind="stable")[:_SCREENED]
    best, least = problem.limited(full), np.full(full.shape, np.inf)
    for fraction in (_FRACTIONS[:1], *(_FRACTIONS[row] for row in chosen)):
        scale = problem.limited(full * fraction)
        exact = problem.total(problem.loss(_nearest(problem, scale), scale))
        best, least = np.where(exact < least, scale, best), np.minimum(exact, least)
    return best


def _full_scale(problem: RoundingProblem) -> np.ndarray:
    """That which just covers the weights, [G,R]."""
    reach = np.abs(problem.target / problem.factor).max(axis=2)
    if problem.shared:
        reach = np.full_like(reach, reach.max(initial=0.0))
    return np.where(reach > 0, reach, 1.0) / problem.qmax


def _diagonal_loss(problem: RoundingProblem, full: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """The loss [G,R] of the nearest integers if inputs were uncorrelated; float32 will do."""
    scale = problem.limited(full)
    step = (scale[..., None] * problem.factor).astype(np.float32)
    wanted = problem.target.astype(np.float32)
    error = np.clip(np.rint(wanted / step), -problem.qmax, problem.qmax)
    error *= step
    error -= wanted
    error *= error
    return np.einsum("grk,gik->gr", error, variance)


def _nearest(problem: RoundingProblem, scale: np.ndarray) -> np.ndarray:
    return nearest(problem.target, scale, problem.qmax, problem.factor)
