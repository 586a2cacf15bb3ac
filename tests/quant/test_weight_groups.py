"""Weights per group: factors that lose least, and the way back from their products."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwptq.quant.layer_rounding import RoundingProblem, rounding_method
from hwptq.quant.rounding import nearest, rounding_loss
from hwptq.quant.weight_groups import (
    GROUPED,
    LARGEST_FACTOR,
    choose_factors,
    group_ids,
    nearest_in_groups,
    split_factors,
    takes_groups,
)

seeds = st.integers(0, 10**6)

METHODS = ("nearest", "adaround", "gptq", "descent", "clamped")


def spread_weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights whose size differs from group to group of 4 along the last axis."""
    size = 10.0 ** rng.uniform(-1, 0, (*shape[:-1], -(-shape[-1] // 4)))
    return rng.standard_normal(shape) * np.repeat(size, 4, axis=-1)[..., : shape[-1]]


def test_groups_are_channels_of_one_tap():
    assert group_ids(5, 1, 2).tolist() == [0, 0, 1, 1, 2]
    assert group_ids(4, 3, 2).tolist() == [
        0,
        1,
        2,
        0,
        1,
        2,
        3,
        4,
        5,
        3,
        4,
        5,
    ]  # channel by channel, 3 taps each


def test_which_layers_take_groups():
    assert takes_groups(64, 1, 32)
    assert takes_groups(40, 1, 32)
    assert takes_groups(32, 9, 32)
    assert not takes_groups(40, 9, 32)  # a group would span two taps
    assert not takes_groups(32, 1, 32)  # a single group gains nothing


@given(seeds, st.sampled_from([(3, 8), (2, 3, 3, 10), (4, 1)]), st.sampled_from([2, 4, 16]))
def test_splitting_is_the_inverse_of_multiplying(seed, shape, size):
    rng = np.random.default_rng(seed)
    factors = rng.integers(1, LARGEST_FACTOR + 1, (*shape[:-1], -(-shape[-1] // size)))
    values = rng.integers(-GROUPED.qmax, GROUPED.qmax + 1, shape)
    weight = (values * np.repeat(factors, size, axis=-1)[..., : shape[-1]]).astype(np.int8)
    w, f = split_factors(weight, size)
    assert np.array_equal(w.astype(int) * np.repeat(f, size, axis=-1)[..., : shape[-1]], weight)
    assert np.abs(w).max() <= GROUPED.qmax
    assert 1 <= f.min() <= f.max() <= LARGEST_FACTOR


def test_what_is_no_multiple_of_int4_values_is_refused():
    with pytest.raises(ValueError, match="not a factor times int4"):
        split_factors(np.array([[1, 100]], np.int8), 2)


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([(6, 8, 1, 1), (5, 4, 3, 2)]))
def test_nearest_in_groups_holds_int4_values_times_factors(seed, shape):
    rng = np.random.default_rng(seed)
    weight = spread_weights(rng, shape[0], *shape[2:], shape[1]).transpose(0, 3, 1, 2).astype(np.float32)
    values, scale = nearest_in_groups(weight, 0, 4, None)
    w, f = split_factors(values.transpose(0, 2, 3, 1), 4)
    step = scale[:, None, None, None] * np.repeat(f, 4, axis=-1)[..., : shape[1]]
    assert np.abs(w * step - weight.transpose(0, 2, 3, 1)).max() <= step.max() / 2 + 1e-6
    dense, dense_scale = nearest_in_groups(weight.reshape(shape[0], -1).T.copy(), 1, 4, None)
    assert dense.shape == (weight[0].size, shape[0])
    assert dense_scale.shape == (shape[0],)


def test_chosen_factors_are_the_best_for_some_scale_and_gain():
    """Groups that differ by up to ten times: a scale of their own saves most of the loss of a common one."""
    rng = np.random.default_rng(0)
    target, ids = spread_weights(rng, 1, 40, 64), group_ids(64, 1, 4)
    factors = choose_factors(target, np.ones((1, 64)), ids)
    assert factors.min() >= 1
    assert factors.max() <= LARGEST_FACTOR
    assert np.array_equal(factors, np.rint(factors))
    per_group = factors.reshape(1, 40, 16, 4)
    assert np.ptp(per_group, axis=3).max() == 0
    gram, limits = np.eye(64)[None], (np.full((1, 40), 1e-12), np.full((1, 40), np.inf))
    alone = RoundingProblem(target, gram, GROUPED.qmax, False, *limits)
    grouped = RoundingProblem(target, gram, GROUPED.qmax, False, *limits, factors)
    losses = [p.loss(*rounding_method("nearest").solve(p)).sum() for p in (grouped, alone)]
    assert losses[0] < 0.3 * losses[1]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_stays_within_int4_and_none_loses_more_than_the_nearest(method):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 16, 60)) + 2 * rng.standard_normal((1, 1, 60))
    target = spread_weights(rng, 1, 12, 16)
    factors = choose_factors(target, np.ones((1, 16)), group_ids(16, 1, 4))
    limits = np.full((1, 12), 1e-12), np.full((1, 12), np.inf)
    problem = RoundingProblem(target, x @ x.transpose(0, 2, 1), GROUPED.qmax, False, *limits, factors)
    q, scale = rounding_method(method).solve(problem)
    assert np.abs(q).max() <= GROUPED.qmax
    assert (
        problem.loss(q, scale).sum() <= problem.loss(*rounding_method("nearest").solve(problem)).sum() + 1e-9
    )


def test_the_descent_with_factors_ends_where_no_single_step_helps():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 4, 50)) + 2 * rng.standard_normal((1, 1, 50))
    target, gram = rng.standard_normal((1, 6, 4)), x @ x.transpose(0, 2, 1) / 50
    factors = np.broadcast_to(np.array([1.0, 1.0, 3.0, 3.0]), target.shape)
    scale = np.full((1, 6), 0.1)
    problem = RoundingProblem(target, gram, GROUPED.qmax, False, scale, scale, factors)
    q, found = rounding_method("descent").solve(problem)
    assert np.array_equal(found, scale)
    plain = rounding_loss(nearest(target, scale, GROUPED.qmax, factors) * factors, scale, target, gram)
    assert problem.loss(q, scale).sum() < plain.sum()
    for k, value in product(range(4), range(-GROUPED.qmax, GROUPED.qmax + 1)):
        other = q.copy()
        other[:, :, k] = value
        assert np.all(problem.loss(other, scale) >= problem.loss(q, scale) - 1e-9)
