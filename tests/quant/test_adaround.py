"""AdaRound: neighbours of each weight, never worse than the nearest, close to the best of all choices."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwptq.quant.adaround import Schedule, adaround, rectified_sigmoid
from hwptq.quant.rounding import nearest, rounding_loss


def problem(seed: int, groups: int = 1, rows: int = 6, depth: int = 4):
    """(target, Gram matrix, scale): inputs that are correlated, and one that is always zero in odd seeds."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((groups, depth, 50)) + 2 * rng.standard_normal((groups, 1, 50))
    x[:, : seed % 2] = 0
    target = rng.standard_normal((groups, rows, depth))
    return target, x @ x.transpose(0, 2, 1) / 50, rng.uniform(0.2, 0.6, (groups, rows))


def best_of_all(target, gram, scale, qmax):
    """The least loss [G,R] that any choice between the two neighbours of each weight has."""
    floor = np.clip(np.floor(target / scale[..., None]), -qmax, qmax - 1)
    choices = (floor + np.array(up) for up in product((0.0, 1.0), repeat=target.shape[2]))
    return np.min([rounding_loss(q, scale, target, gram) for q in choices], axis=0)


def test_it_comes_close_to_the_best_of_all_choices():
    found, best, plain = 0.0, 0.0, 0.0
    for seed in range(20):
        target, gram, scale = problem(seed)
        least = best_of_all(target, gram, scale, 7)
        lost = rounding_loss(adaround(target, gram, scale, 7), scale, target, gram)
        assert np.all(lost >= least - 1e-9)
        found, best = found + lost.sum(), best + least.sum()
        plain += rounding_loss(nearest(target, scale, 7), scale, target, gram).sum()
    assert plain > 2 * best  # there is something to gain
    assert found < 1.1 * best


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from([(1, 6, 4), (3, 2, 9), (5, 1, 9)]), st.sampled_from([1, 7, 127])
)
def test_each_integer_is_a_neighbour_and_no_row_is_worse_than_the_nearest(seed, shape, qmax):
    target, gram, scale = problem(seed, *shape)
    q = adaround(target, gram, scale, qmax, schedule=Schedule(iterations=60))
    assert np.array_equal(q, np.rint(q))
    assert np.abs(q).max() <= qmax
    inside = np.clip(target / scale[..., None], -qmax, qmax)
    assert np.abs(q - inside).max() <= 1
    plain = rounding_loss(nearest(target, scale, qmax), scale, target, gram)
    assert np.all(rounding_loss(q, scale, target, gram) <= plain)


def test_uncorrelated_inputs_leave_nothing_to_gain():
    target, _, scale = problem(3)
    gram = np.eye(4)[None]
    np.testing.assert_array_equal(adaround(target, gram, scale, 7), nearest(target, scale, 7))


@pytest.mark.parametrize("v", [-4.0, -1.0, 0.0, 0.5, 2.0, 4.0])
def test_the_derivative_of_the_rectified_sigmoid(v):
    step = 1e-6
    high, low = (rectified_sigmoid(np.array(v + d))[0] for d in (step, -step))
    assert rectified_sigmoid(np.array(v))[1] == pytest.approx((high - low) / (2 * step), abs=1e-6)


def test_the_regulariser_comes_after_the_warm_up_and_its_exponent_falls():
    schedule = Schedule(iterations=100, warm_up=0.2)
    betas = [schedule.beta_at(i) for i in range(100)]
    assert betas[:20] == [None] * 20
    assert betas[20] == 20
    assert betas[99] == pytest.approx(2, abs=0.1)
    assert all(a > b for a, b in pairwise(betas[20:]))
