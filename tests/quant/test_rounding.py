"""Rounding: never worse than to nearest in what it minimises, within its limits, for any Gram matrix."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwptq.quant.layer_rounding import RoundingProblem, nearest_scale, rounding_method
from hwptq.quant.rounding import (
    compensation,
    descend,
    gptq,
    nearest,
    refit_scale,
)

METHODS = ("nearest", "adaround", "gptq", "descent", "clamped")


@st.composite
def problems(draw: st.DrawFn) -> RoundingProblem:
    """Random layers: correlated inputs, some dead, fewer samples than columns now and then."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    groups, rows, depth = draw(st.sampled_from([(1, 4, 9), (6, 1, 9), (2, 3, 4), (1, 3, 70), (1, 1, 1)]))
    x = rng.standard_normal((groups, depth, draw(st.integers(1, 3 * depth))))
    x += draw(st.floats(0, 3)) * rng.standard_normal((groups, 1, x.shape[2]))
    x *= 10.0 ** rng.uniform(-2, 2, (groups, depth, 1)) * (rng.random((groups, depth, 1)) > 0.1)
    target = rng.standard_normal((groups, rows, depth)) * 10.0 ** rng.uniform(-2, 1, (groups, rows, 1))
    shape = (groups, rows)
    low, high = np.full(shape, 1e-12), np.full(shape, np.inf)
    qmax, shared = draw(st.sampled_from([1, 7, 127])), draw(st.booleans())
    return RoundingProblem(target, x @ x.transpose(0, 2, 1) / x.shape[2], qmax, shared, low, high)


def full_scale(problem: RoundingProblem) -> np.ndarray:
    """The scale that just covers each row's weights."""
    reach = np.abs(problem.target).max(axis=2)
    if problem.shared:
        reach = np.full_like(reach, reach.max())
    return reach / problem.qmax


def total(problem: RoundingProblem, q: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What a choice of scales is judged by: each row's loss, or the layer's where all rows share one."""
    lost = problem.loss(q, scale)
    return lost.sum() if problem.shared else lost


@settings(max_examples=60)
@given(problems(), st.sampled_from(METHODS))
def test_no_method_is_worse_than_the_nearest_integers_of_the_full_scale(problem, method):
    full = full_scale(problem)
    plain = total(problem, nearest(problem.target, full, problem.qmax), full)
    q, scale = rounding_method(method).solve(problem)
    slack = 1e-9 * (1 + np.abs(problem.gram).max() * np.square(problem.target).sum())
    assert np.all(total(problem, q, scale) <= plain + slack)
    assert np.array_equal(q, np.rint(q))
    assert np.abs(q).max(initial=0) <= problem.qmax
    assert scale.min() > 0
    assert not problem.shared or np.ptp(scale) == 0


@settings(max_examples=30)
@given(problems())
def test_descent_is_no_worse_than_gptq(problem):
    (gptq_q, gptq_scale), (q, scale) = (
        rounding_method("gptq").solve(problem),
        rounding_method("descent").solve(problem),
    )
    slack = 1e-9 * (1 + np.abs(problem.gram).max() * np.square(problem.target).sum())
    assert np.all(total(problem, q, scale) <= total(problem, gptq_q, gptq_scale) + slack)


@settings(max_examples=30)
@given(problems(), st.integers(1, 3))
def test_every_sweep_of_the_descent_pays(problem, sweeps):
    scale = full_scale(problem)
    start = nearest(problem.target, scale, problem.qmax)
    end = descend(start, problem.target, problem.gram, scale, problem.qmax, sweeps)
    slack = 1e-9 * (1 + np.abs(problem.gram).max() * np.square(problem.target).sum())
    assert np.all(problem.loss(end, scale) <= problem.loss(start, scale) + slack)


def small_problem() -> RoundingProblem:
    """Few enough integers to try them all, with inputs that are strongly correlated."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1, 4, 50)) + 2 * rng.standard_normal((1, 1, 50))
    limits = np.full((1, 6), 1e-12), np.full((1, 6), np.inf)
    return RoundingProblem(rng.standard_normal((1, 6, 4)), x @ x.transpose(0, 2, 1) / 50, 2, False, *limits)


def test_the_descent_ends_where_no_single_step_helps():
    problem, scale = small_problem(), np.full((1, 6), 0.5)
    q = descend(nearest(problem.target, scale, 2), problem.target, problem.gram, scale, 2, 100)
    for k, value in product(range(4), range(-2, 3)):
        other = q.copy()
        other[:, :, k] = value
        assert np.all(problem.loss(other, scale) >= problem.loss(q, scale) - 1e-9)


def test_gptq_beats_nearest_where_inputs_are_correlated():
    problem, scale = small_problem(), np.full((1, 6), 0.8)
    clever = gptq(problem.target, compensation(problem.gram), scale, 2)
    plain = nearest(problem.target, scale, 2)
    assert problem.loss(clever, scale).sum() < 0.7 * problem.loss(plain, scale).sum()


def test_gptq_of_uncorrelated_inputs_is_nearest():
    rng = np.random.default_rng(6)
    target, scale = rng.standard_normal((2, 3, 8)), np.full((2, 3), 0.3)
    gram = np.stack([np.diag(rng.uniform(1, 2, 8)) for _ in range(2)])
    np.testing.assert_array_equal(gptq(target, compensation(gram), scale, 7), nearest(target, scale, 7))


@given(problems())
def test_a_refitted_scale_is_the_best_one(problem):
    scale = full_scale(problem)
    q = nearest(problem.target, scale, problem.qmax)
    best = refit_scale(q, problem.target, problem.gram, scale, problem.shared)
    slack = 1e-9 * (1 + np.abs(problem.gram).max() * np.square(problem.target).sum())
    fitted = best != scale  # a row keeps its scale where it is best already, or only a negative one is better
    for other in (scale, best * 1.01, best * 0.99):
        lost, least = (problem.loss(q, s)[fitted] for s in (other, best))
        assert np.all(
            (lost.sum() if problem.shared else lost) + slack >= (least.sum() if problem.shared else least)
        )


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_scales_stay_within_their_limits(shared, method):
    problem = replace(
        small_problem(), shared=shared, scale_min=np.full((1, 6), 0.05), scale_max=np.full((1, 6), 0.06)
    )
    _, scale = rounding_method(method).solve(problem)
    assert scale.min() >= 0.05
    assert scale.max() <= 0.06


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="no rounding method 'up'; known are nearest, adaround"):
        rounding_method("up")


@settings(max_examples=30)
@given(problems())
def test_the_scale_for_the_nearest_integers_is_hardly_worse_than_the_best_of_all_fractions(problem):
    """The diagonal screens them: where inputs hardly correlate it finds the best one."""
    diagonal = np.einsum("gkk->gk", problem.gram)[:, :, None] * np.eye(problem.gram.shape[1])
    problem = replace(problem, gram=diagonal)
    scale, full = nearest_scale(problem), full_scale(problem)
    found = total(problem, nearest(problem.target, scale, problem.qmax), scale)
    for fraction in np.linspace(1.0, 0.4, 25):
        other = full * fraction
        lost = total(problem, nearest(problem.target, other, problem.qmax), other)
        assert np.all(found <= lost * (1 + 1e-4) + 1e-9 * np.square(problem.target).sum())
